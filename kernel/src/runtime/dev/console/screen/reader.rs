//! Reads a screen's picture back into text, on the host: for tests, and for a look at the memory of a
//! virtual machine.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::{
    BACKGROUND, FOREGROUND, GLYPH_HEIGHT, GLYPH_WIDTH, Glyph, LAST_CHARACTER, Layout, MAX_CELLS,
};
use crate::runtime::machine::Framebuffer;

/// A letter's dots, row by row.
type Shape = [u16; GLYPH_HEIGHT];

/// The colour of a pixel in `memory`, the bytes of the picture: red, green, blue.
///
/// # Panics
/// The memory ends before it.
pub fn colour(framebuffer: &Framebuffer, memory: &[u8], x: u32, y: u32) -> [u8; 3] {
    let bytes = framebuffer.format.bytes() as usize;
    let at = y as usize * framebuffer.stride as usize + x as usize * bytes;
    let mut pixel = [0; 4];
    pixel[..bytes].copy_from_slice(&memory[at..at + bytes]);
    framebuffer.format.decode(u32::from_le_bytes(pixel))
}

/// The colours of all pixels, from the top left on.
///
/// # Panics
/// As for [`colour`].
pub fn picture(framebuffer: &Framebuffer, memory: &[u8]) -> Vec<u8> {
    let row = |y| (0..framebuffer.width).flat_map(move |x| colour(framebuffer, memory, x, y));
    (0..framebuffer.height).flat_map(row).collect()
}

/// The lines of text on the screen, without blanks at their ends. What is no letter, as it was drawn in
/// part or in another colour, is `\u{fffd}`, and so is the box of a character without a letter; of letters
/// that look alike it is the first by its code.
///
/// # Panics
/// As for [`colour`].
pub fn lines(framebuffer: &Framebuffer, memory: &[u8]) -> Vec<String> {
    let Layout { scale, columns, rows } =
        Layout::new(framebuffer.width, framebuffer.height, MAX_CELLS);
    let letters = letters();
    // The shape of a letter, if all pixels of each dot have one of the two colours.
    let shape = |row: usize, column: usize| {
        let mut shape = [0; GLYPH_HEIGHT];
        for (y, dots) in shape.iter_mut().enumerate() {
            for x in 0..GLYPH_WIDTH {
                let left = (column * GLYPH_WIDTH + x) * scale;
                let top = (row * GLYPH_HEIGHT + y) * scale;
                let pixel = |i| {
                    colour(framebuffer, memory, (left + i % scale) as u32, (top + i / scale) as u32)
                };
                let expected = pixel(0);
                let is_dot = expected == rounded(framebuffer, FOREGROUND);
                if !is_dot && expected != rounded(framebuffer, BACKGROUND)
                    || (1..scale * scale).any(|i| pixel(i) != expected)
                {
                    return None;
                }
                *dots = *dots << 1 | u16::from(is_dot);
            }
        }
        Some(shape)
    };
    let letter = |row, column| {
        shape(row, column).and_then(|shape| letters.get(&shape)).copied().unwrap_or('\u{fffd}')
    };
    let line = |row| (0..columns).map(|column| letter(row, column)).collect::<String>();
    (0..rows).map(|row| line(row).trim_end().into()).collect()
}

/// A colour as the picture can hold it.
fn rounded(framebuffer: &Framebuffer, colour: [u8; 3]) -> [u8; 3] {
    framebuffer.format.decode(framebuffer.format.encode(colour))
}

/// The characters that have letters, by their shapes.
fn letters() -> BTreeMap<Shape, char> {
    let mut letters = BTreeMap::new();
    for c in ' '..=LAST_CHARACTER {
        let glyph = Glyph::of(c);
        if glyph != Glyph::BOX {
            letters.entry(core::array::from_fn(|y| glyph.row(y))).or_insert(c);
        }
    }
    letters
}
