use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::runtime::dev::mmio::{Access, FakeRegisters};
use crate::runtime::machine::{PixelFormat, Region};

/// A screen whose picture lies in ordinary memory.
struct Fake {
    framebuffer: Framebuffer,
    memory: Arc<Mutex<Vec<u8>>>,
    /// What the driver did: reads, and writes.
    counts: Arc<Mutex<(usize, usize)>>,
    screen: Screen<'static, FakeRegisters>,
    text: Text,
}

/// What was there before: a picture of something.
const RUBBISH: u8 = 0x5a;

impl Fake {
    fn new(width: u32, height: u32, format: &str) -> Fake {
        // No multiple of 8, so that words of 4 bytes are written.
        Fake::with_rows_of(width, height, format, |stride| stride.next_multiple_of(8) + 12)
    }

    /// One with rows that end in something that is not shown, so long as `stride` says.
    fn with_rows_of(width: u32, height: u32, format: &str, stride: fn(u32) -> u32) -> Fake {
        let format = PixelFormat::from_name(format).unwrap();
        let stride = stride(width * format.bytes());
        let region = Region { base: 0x1000, size: u64::from(stride) * u64::from(height) };
        let framebuffer = Framebuffer { region, width, height, stride, format };
        let memory = Arc::new(Mutex::new(vec![RUBBISH; region.size as usize]));
        let counts: Arc<Mutex<(usize, usize)>> = Arc::default();
        let (shared, counted) = (Arc::clone(&memory), Arc::clone(&counts));
        let model = move |access| {
            let (reads, writes) = &mut *counted.lock().unwrap();
            match access {
                Access::Read { .. } => *reads += 1,
                Access::Write { offset, width, value } => {
                    *writes += 1;
                    shared.lock().unwrap()[offset..][..width]
                        .copy_from_slice(&value.to_le_bytes()[..width]);
                }
            }
            0
        };
        let grid = Box::leak(Box::new(Grid::new()));
        let screen = Screen::new(&framebuffer, FakeRegisters::new(model), grid);
        Fake { framebuffer, memory, counts, screen, text: Text::START }
    }

    fn print(&mut self, text: &str) {
        for byte in text.bytes() {
            self.screen.feed(&mut self.text, byte);
        }
        self.screen.flush(|| ());
    }

    /// Writes to the memory since the last call. There must have been no read ever.
    fn writes(&self) -> usize {
        let (reads, writes) = &mut *self.counts.lock().unwrap();
        assert_eq!(*reads, 0, "the picture was read");
        std::mem::take(writes)
    }

    /// Writes that a letter takes.
    fn writes_a_cell(&self) -> usize {
        let scale = self.screen.layout.scale;
        GLYPH_WIDTH * GLYPH_HEIGHT * scale * scale * self.framebuffer.format.bytes() as usize / 4
    }

    fn colour(&self, x: u32, y: u32) -> [u8; 3] {
        reader::colour(&self.framebuffer, &self.memory.lock().unwrap(), x, y)
    }

    /// The picture: red, green, blue of each pixel.
    fn picture(&self) -> Vec<u8> {
        reader::picture(&self.framebuffer, &self.memory.lock().unwrap())
    }

    /// The lines of text that the letters make.
    fn lines(&self) -> Vec<String> {
        reader::lines(&self.framebuffer, &self.memory.lock().unwrap())
    }

    /// The lines of text down to the last that is not empty.
    fn text(&self) -> String {
        self.lines().join("\n").trim_end().to_owned()
    }
}

/// Compares with the picture in `testdata/`. With `UPDATE_PICTURES` in the environment that is made anew.
fn compare_with_picture(fake: &Fake, name: &str) {
    let Framebuffer { width, height, .. } = fake.framebuffer;
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/runtime/dev/console/screen/testdata")
        .join(name);
    if std::env::var_os("UPDATE_PICTURES").is_some() {
        let mut encoder = png::Encoder::new(File::create(&path).unwrap(), width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::High);
        encoder.write_header().unwrap().write_image_data(&fake.picture()).unwrap();
    }
    let decoder = png::Decoder::new(BufReader::new(File::open(&path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut expected = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut expected).unwrap();
    assert_eq!((info.width, info.height, info.color_type), (width, height, png::ColorType::Rgb));
    expected.truncate(info.buffer_size());
    let differ = expected.iter().zip(fake.picture()).position(|(a, b)| *a != b);
    let place = differ.map(|at| (at as u32 / 3 % width, at as u32 / 3 / width));
    assert_eq!(place, None, "{name}: the first pixel that differs");
}

/// Text of all kinds, with events between, that moves up a little at the end.
const SAMPLE: &str = "Anchorite 0.1.0 on a fake: 1 × Cortex-A72\r\n\
    \x1e{\"event\":\"hello\",\"machine\":\"a fake\"}\r\n\
    \rtiny.gguf [####....]  50 %\rtiny.gguf [########] 100 %\r\n\
    “Grüße” – Привет, κόσμε… 中🙂\t|tab\r\n\
    > helo\x08lo\r> hello\x1b[K\r\n\
    a line that is longer than the screen is wide goes on in the next one\r\n\
    \x1e{\"event\":\"error\",\"code\":\"DiskError\",\"message\":\"a \\\"b\\\"\",\"hint\":\"look\"}\r\n\
    \x1e{\"event\":\"exit\",\"status\":1}\r\n";

#[test]
fn the_picture_is_as_it_was() {
    for (name, formats) in [
        ("text.png", &["x2r10g10b10", "x8r8g8b8", "a8b8g8r8"][..]),
        ("text-16-bit.png", &["r5g6b5"]),
    ] {
        for format in formats {
            // Some pixels to the right and below that no letter has; in 16 bits, half a word.
            let mut fake = Fake::new(457, 197, format);
            fake.print(SAMPLE);
            fake.writes();
            compare_with_picture(&fake, name);
        }
    }
}

#[test]
fn what_is_not_shown_is_not_written() {
    for format in ["x8r8g8b8", "r5g6b5"] {
        let mut fake = Fake::new(401, 97, format);
        fake.print(SAMPLE);
        let shown = (401 * fake.framebuffer.format.bytes()).next_multiple_of(4) as usize;
        for row in fake.memory.lock().unwrap().chunks(fake.framebuffer.stride as usize) {
            assert!(row[shown..].iter().all(|&byte| byte == RUBBISH));
        }
    }
}

#[test]
fn larger_letters_are_the_same_in_more_pixels() {
    for format in ["x2r10g10b10", "r5g6b5"] {
        let mut large = Fake::new(1289, 1447, format);
        assert_eq!(large.screen.layout, Layout { scale: 2, columns: 64, rows: 36 });
        // As many letters.
        let mut small = Fake::new(645, 724, format);
        assert_eq!(small.screen.layout, Layout { scale: 1, columns: 64, rows: 36 });
        for fake in [&mut large, &mut small] {
            fake.print(SAMPLE);
        }
        for (y, x) in (0..720).flat_map(|y| (0..640).map(move |x| (y, x))) {
            let dot = small.colour(x, y);
            for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                assert_eq!(large.colour(2 * x + dx, 2 * y + dy), dot, "{x} {y}");
            }
        }
    }
}

#[test]
fn the_letters_can_be_read_back() {
    let mut fake = Fake::new(457, 197, "x8r8g8b8");
    fake.print("The first\r\n\r\n\tline: 5 € ÿ 中\r\n");
    assert_eq!(fake.text(), "The first\n\n        line: 5 € ÿ \u{fffd}");
    fake.print("\x1b[31mred\x1b[0m over\rR\x08\x08r\r\n");
    assert_eq!(fake.lines()[3], "red over");
}

#[test]
fn lines_wrap_where_the_next_letter_has_no_place() {
    let mut fake = Fake::new(200, 80, "x8r8g8b8");
    // A line that is just full, and its end, take no empty line.
    fake.print(&format!("{}\r\nb", "a".repeat(20)));
    assert_eq!(fake.text(), format!("{}\nb", "a".repeat(20)));
    fake.print("\rccccc\tdddddddddddd+");
    assert_eq!(fake.text(), format!("{}\nccccc   dddddddddddd\n+", "a".repeat(20)));
    // No tab stop is behind the last column, and none erases.
    fake.print("\r\t\t\t\t!\rxy\x1b[K");
    assert_eq!(fake.lines()[2], "xy");
    fake.print("\r1234567890123456789\t\t!");
    assert_eq!(fake.lines()[2], "1234567890123456789!");
}

#[test]
fn a_screen_that_scrolls_draws_only_what_changes() {
    let mut fake = Fake::new(200, 80, "x8r8g8b8");
    let cell = fake.writes_a_cell();
    fake.print("");
    assert_eq!(fake.writes(), 200 * 80, "the picture is cleared once");
    fake.print("");
    assert_eq!(fake.writes(), 0);
    fake.print("one\r\ntwo\r\nttt\r\n");
    assert_eq!(fake.writes(), 9 * cell);
    // The last line but one is free: "one two ttt -" becomes "two ttt -".
    fake.print("\r\n");
    assert_eq!(fake.text(), "two\nttt");
    // t→o… one/two: three differ; two/ttt: "wo" does; ttt goes.
    assert_eq!(fake.writes(), (3 + 2 + 3) * cell);
    // Several lines at once, as one: of "abc abc" nothing shows that has gone by.
    fake.print("abc\r\nabc\r\nabc\r\nabc\r\nabc\r\n");
    assert_eq!(fake.text(), "abc\nabc\nabc");
    // two/abc, ttt/abc, nothing/abc.
    assert_eq!(fake.writes(), 9 * cell);
    // All lines are alike: only the new one is drawn.
    fake.print("abc");
    assert_eq!(fake.writes(), 3 * cell);
    fake.print("\r\nabc");
    assert_eq!(fake.writes(), 0);
    // What is drawn over without a change, and what is gone before it was seen.
    fake.print("\rabc\rxyz\rabc");
    assert_eq!(fake.writes(), 0);
}

#[test]
fn words_of_two_sizes_make_the_same_picture() {
    for (width, format) in [(645, "x8r8g8b8"), (1289, "r5g6b5"), (645, "r5g6b5")] {
        let mut narrow = Fake::new(width, 1447, format);
        let mut wide =
            Fake::with_rows_of(width, 1447, format, |stride| stride.next_multiple_of(8) + 8);
        for fake in [&mut narrow, &mut wide] {
            fake.print("");
        }
        let words = (width * wide.framebuffer.format.bytes()).div_ceil(4) as usize;
        assert_eq!(narrow.writes(), words * 1447);
        // In 16 bits a letter has 5 words: only one of twice the size has whole pairs.
        let halves = if (width, format) == (645, "r5g6b5") { 1 } else { 2 };
        assert_eq!(wide.writes(), words.div_ceil(halves) * 1447);
        for fake in [&mut narrow, &mut wide] {
            fake.print(SAMPLE);
        }
        assert_eq!(wide.writes() * halves, narrow.writes());
        assert!(wide.picture() == narrow.picture(), "{width} {format}");
        // What is not shown is not written either.
        let shown = words * 4;
        for row in wide.memory.lock().unwrap().chunks(wide.framebuffer.stride as usize) {
            assert!(row[shown..].iter().all(|&byte| byte == RUBBISH));
        }
    }
}

#[test]
fn marks_are_squares_on_what_is_there_until_the_first_text() {
    for format in ["x2r10g10b10", "r5g6b5"] {
        let mut fake = Fake::new(1289, 1447, format);
        let other = fake.colour(1288, 1446);
        for number in [0, 2, 1000] {
            fake.screen.mark(number);
        }
        assert_eq!(fake.writes(), 4 * fake.writes_a_cell());
        let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 4);
        for (y, x) in (0..80).flat_map(|y| (0..300).map(move |x| (y, x))) {
            let is_mark = y < 40 && (x < 40 || (160..200).contains(&x));
            let colour = fake.colour(x, y);
            assert!(near(colour, if is_mark { MARK } else { other }), "{x} {y} {colour:?}");
        }
        fake.print("");
        fake.screen.mark(0);
        assert!(fake.picture().iter().all(|&value| value == BACKGROUND[0]));
    }
}

#[test]
fn a_line_at_the_bottom_costs_a_few_lines_and_no_screen() {
    let mut fake = Fake::new(200, 800, "x8r8g8b8");
    let Layout { columns, rows, .. } = fake.screen.layout;
    assert_eq!((columns, rows), (20, 40));
    let line = |i: usize| -> String {
        (0..columns - 1).map(|column| char::from(b'a' + ((i + column) % 26) as u8)).collect()
    };
    // Up to the last line, which is full.
    for i in 0..rows - 1 {
        fake.print(&format!("{}\r\n", line(i)));
    }
    fake.writes();
    // No letter stays the same when the text moves by any number of lines below 26.
    let lines = 5 * rows + 1;
    for i in rows - 1..rows - 1 + lines {
        fake.print(&format!("{}\r\n", line(i)));
    }
    let whole = fake.writes_a_cell() * (columns - 1);
    let writes = fake.writes();
    assert!(writes <= 5 * lines * whole, "{} lines for one", writes / (lines * whole));
    // The last ones are shown, with a quarter of the screen free.
    let text = fake.lines();
    assert_eq!(text[rows - rows / 4 - 1], line(rows - 2 + lines));
    assert_eq!(text[0], line(rows - 2 + lines - (rows - rows / 4 - 1)));
}

#[test]
fn a_core_that_takes_over_completes_what_another_left() {
    let rows_of_pixels = 80;
    let mut completed = 0;
    // The other core stops in the middle, at each place where it may.
    for stop_at in 0..=rows_of_pixels + 4 {
        let mut fake = Fake::new(200, rows_of_pixels, "x8r8g8b8");
        let mut calls = 0;
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for byte in "1\r\n2\r\n3\r\n4\r\n5 \x1b[".bytes() {
                fake.screen.feed(&mut fake.text, byte);
            }
            fake.screen.flush(|| {
                if calls == stop_at {
                    std::panic::resume_unwind(Box::new("stopped"));
                }
                calls += 1;
            });
        }));
        completed += usize::from(stopped.is_ok());
        fake.text = Text::START;
        "end".bytes().for_each(|byte| fake.screen.feed(&mut fake.text, byte));
        // A core that does not stop says that all is drawn.
        fake.screen.grid.changed_from.store(fake.screen.layout.rows, Relaxed);
        fake.screen.grid.changed_to.store(0, Relaxed);
        fake.screen.flush_all();
        assert_eq!(fake.text(), "2\n3\n4\n5 end", "{stop_at}");
        assert!(
            fake.picture().iter().all(|&value| [BACKGROUND[0], FOREGROUND[0]].contains(&value))
        );
    }
    assert_eq!(completed, 1, "the last place was one too many");
}
