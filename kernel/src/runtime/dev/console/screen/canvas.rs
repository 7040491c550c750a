//! Puts letters into the framebuffer's memory. It is only ever written: reads of memory that no cache
//! keeps are slow.

use super::font::{self, Glyph};
use crate::runtime::dev::mmio::Registers;
use crate::runtime::machine::Framebuffer;

/// Bytes in what is written at once, at least.
const WORD_BYTES: usize = 4;
/// And where rows and letters start at a multiple of that.
const WIDE_BYTES: usize = 8;
/// Of the letters: red, green, blue.
pub const FOREGROUND: [u8; 3] = [0xd0, 0xd0, 0xd0];
/// Of marks.
pub const MARK: [u8; 3] = [0, 0xd0, 0];
/// Of what is around them.
pub const BACKGROUND: [u8; 3] = [0, 0, 0];

/// How many letters there are on a screen, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Pixels in a dot of a letter, in each direction.
    pub scale: usize,
    /// Letters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

impl Layout {
    /// For a screen of so many pixels, with at most `max_cells` letters.
    ///
    /// A letter is as large as leaves 36 lines of 64 letters or more, where the screen has room for
    /// those at all: on the 13 inches and 2560 × 1600 pixels of a MacBook, 40 pixels high, 4.5 mm.
    pub fn new(width: u32, height: u32, max_cells: usize) -> Layout {
        let (width, height) = (width as usize, height as usize);
        let layout = |scale| Layout {
            scale,
            columns: width / (font::WIDTH * scale),
            rows: height / (font::HEIGHT * scale),
        };
        let mut scale = (width / (64 * font::WIDTH)).min(height / (36 * font::HEIGHT)).max(1);
        while layout(scale).columns * layout(scale).rows > max_cells {
            scale += 1;
        }
        layout(scale)
    }
}

/// A framebuffer's memory.
#[derive(Debug)]
pub struct Canvas<R> {
    memory: R,
    layout: Layout,
    stride: usize,
    height: usize,
    /// Bytes of a row that are shown, whole words.
    row_bytes: usize,
    /// Bytes of a row in a letter, whole words; and in what is written at once.
    cell_bytes: usize,
    word_bytes: usize,
    pixel_bytes: usize,
    foreground: u32,
    background: u32,
    mark: u32,
}

impl<R: Registers> Canvas<R> {
    /// The picture in `memory`, which `framebuffer` describes.
    pub fn new(framebuffer: &Framebuffer, layout: Layout, memory: R) -> Canvas<R> {
        let format = framebuffer.format;
        let pixel_bytes = format.bytes() as usize;
        let (base, stride) = (framebuffer.region.base, framebuffer.stride as usize);
        // Ten pixels or a multiple.
        let cell_bytes = font::WIDTH * layout.scale * pixel_bytes;
        let is_wide = base.is_multiple_of(WIDE_BYTES as u64)
            && stride.is_multiple_of(WIDE_BYTES)
            && cell_bytes.is_multiple_of(WIDE_BYTES);
        Canvas {
            memory,
            layout,
            stride,
            height: framebuffer.height as usize,
            row_bytes: (framebuffer.width as usize * pixel_bytes).next_multiple_of(WORD_BYTES),
            cell_bytes,
            word_bytes: if is_wide { WIDE_BYTES } else { WORD_BYTES },
            pixel_bytes,
            foreground: format.encode(FOREGROUND),
            background: format.encode(BACKGROUND),
            mark: format.encode(MARK),
        }
    }

    /// Fills the whole picture with the background, what is no letter's included. Calls `go_on` before
    /// each row of pixels.
    pub fn clear(&self, mut go_on: impl FnMut()) {
        for y in 0..self.height {
            go_on();
            for at in (0..self.row_bytes).step_by(self.word_bytes) {
                let bytes = self.word_bytes.min(self.row_bytes - at);
                self.write(y * self.stride + at, bytes, |_| self.background);
            }
        }
    }

    /// Draws a letter in a cell.
    pub fn draw(&self, row: usize, column: usize, glyph: Glyph) {
        let Layout { scale, .. } = self.layout;
        for dot_y in 0..font::HEIGHT {
            let dots = glyph.row(dot_y);
            let pixel = |x: usize| match dots >> (font::WIDTH - 1 - x / scale) & 1 {
                0 => self.background,
                _ => self.foreground,
            };
            for y in dot_y * scale..(dot_y + 1) * scale {
                let y = row * font::HEIGHT * scale + y;
                let start = y * self.stride + column * self.cell_bytes;
                for at in (0..self.cell_bytes).step_by(self.word_bytes) {
                    let x = at / self.pixel_bytes;
                    self.write(start + at, self.word_bytes, |i| pixel(x + i));
                }
            }
        }
    }

    /// Fills a cell with the colour of marks.
    pub fn mark(&self, row: usize, column: usize) {
        let height = font::HEIGHT * self.layout.scale;
        for y in row * height..(row + 1) * height {
            let start = y * self.stride + column * self.cell_bytes;
            for at in (0..self.cell_bytes).step_by(self.word_bytes) {
                self.write(start + at, self.word_bytes, |_| self.mark);
            }
        }
    }

    /// Writes that many bytes of pixels at once, 4 or 8, the left one in the low bits.
    fn write(&self, at: usize, bytes: usize, pixel: impl Fn(usize) -> u32) {
        let bits = self.pixel_bytes * 8;
        let pixels = 0..bytes / self.pixel_bytes;
        let word = pixels.fold(0, |word, i| word | u64::from(pixel(i)) << (i * bits));
        if bytes == WIDE_BYTES {
            self.memory.write64(at, word);
        } else {
            self.memory.write32(at, word as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_as_large_as_the_screen_allows() {
        for (width, height, scale, columns, rows) in [
            // The smallest, the usual ones, a MacBook Air's, an iMac's, a phone's, a wide one.
            (200, 80, 1, 20, 4),
            (640, 480, 1, 64, 24),
            (1024, 768, 1, 102, 38),
            (1920, 1080, 1, 192, 54),
            (2560, 1440, 2, 128, 36),
            (2560, 1600, 2, 128, 40),
            (3840, 2160, 3, 128, 36),
            (4480, 2520, 3, 149, 42),
            (1080, 2400, 1, 108, 120),
            (5120, 1440, 2, 256, 36),
        ] {
            let layout = Layout::new(width, height, 20_000);
            assert_eq!(layout, Layout { scale, columns, rows }, "{width} × {height}");
        }
        for (width, height) in [(16384, 80), (200, 16384), (16384, 16384), (2559, 1439)] {
            let layout = Layout::new(width, height, 1009);
            assert!(layout.columns * layout.rows <= 1009, "{layout:?}");
            assert!(layout.columns >= 1 && layout.rows >= 1, "{layout:?}");
        }
    }
}
