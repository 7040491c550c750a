//! Output on the console: text for people, and events.

#![forbid(unsafe_code)]

use core::fmt;

use crate::app::os;
use crate::report::{Event, Printable, printable};

/// Prints a line for people.
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::app::output::write_line(format_args!($($arg)*))
    };
}
pub(crate) use say;

/// Prints a line by one system call, so that no other output interrupts the line.
///
/// The line may hold names of the disk and of the model, so control characters are escaped.
pub fn write_line(line: fmt::Arguments<'_>) {
    os::write_console(alloc::format!("{}\n", Printable(line)).as_bytes());
}

/// Prints text of the model or the user, with control characters escaped.
pub fn write_text(text: &str) {
    os::write_console(printable(text).as_bytes());
}

/// Prints an event.
pub fn emit(event: &Event) {
    os::write_console(event.to_record().as_bytes());
}

/// Time between two drawings of the bar in µs, short enough to see the bar move.
const REDRAW_US: u64 = 100_000;
/// Width of the bar in characters.
const WIDTH: u64 = 32;

/// A progress bar of a load.
///
/// The bar appears after [`REDRAW_US`] and is drawn a last time at the end of the load. Dropping
/// the bar ends its line.
pub struct Progress<'a> {
    label: &'a str,
    total: u64,
    drawn_us: u64,
    visible: bool,
}

impl<'a> Progress<'a> {
    /// A bar for `total` bytes.
    pub fn new(label: &'a str, total: u64) -> Self {
        Progress { label, total, drawn_us: os::now_us(), visible: false }
    }

    /// Shows that `done` bytes are done.
    pub fn update(&mut self, done: u64) {
        let now_us = os::now_us();
        let finished = self.visible && done >= self.total;
        if finished || now_us.saturating_sub(self.drawn_us) >= REDRAW_US {
            self.drawn_us = now_us;
            self.visible = true;
            self.draw(done);
        }
    }

    fn draw(&self, done: u64) {
        let total = self.total.max(1);
        let filled = done.saturating_mul(WIDTH) / total;
        let bar: alloc::string::String =
            (0..WIDTH).map(|i| if i < filled { '#' } else { '.' }).collect();
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let line = alloc::format!(
            "\r{} [{bar}] {:3} % of {:.1} MB",
            Printable(self.label),
            done.saturating_mul(100) / total,
            mb(self.total)
        );
        os::write_console(line.as_bytes());
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.visible {
            os::write_console(b"\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::fake_abi::run_in_world;

    #[test]
    fn lines_and_labels_are_made_harmless() {
        let ((), console) = run_in_world(
            |_| {},
            || {
                say!("a\x1e{}", "\x1b[2J");
                Progress::new("b\x1e.gguf", 7).draw(3);
            },
        );
        assert!(console.starts_with("a\\u{1e}\\u{1b}[2J\n\rb\\u{1e}.gguf [####"), "{console:?}");
    }

    #[test]
    fn a_bar_that_is_seen_ends_at_100_percent() {
        let draw = |us| {
            let program = || {
                let mut progress = Progress::new("m", 1000);
                std::thread::sleep(std::time::Duration::from_micros(us));
                progress.update(500);
                progress.update(999);
                progress.update(1000);
            };
            run_in_world(|_| {}, program).1
        };
        let slow = draw(REDRAW_US + 1000);
        assert!(slow.ends_with("100 % of 0.0 MB\n") && slow.contains(" 50 %"), "{slow:?}");
        assert_eq!(draw(0), "", "a short load shows no bar");
    }
}
