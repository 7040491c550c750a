//! The framebuffer of a display, and its pixel format.
//!
//! Sources: the Linux kernel's binding `simple-framebuffer`; m1n1, src/kboot.c (`dt_set_fb`).

use super::tree::At;
use super::{MachineError, Region};

/// Minimum pixels in a row: room for twenty characters of the smallest size.
const MIN_WIDTH: u32 = 200;
/// Minimum number of rows: room for four lines of text.
const MIN_HEIGHT: u32 = 80;
/// Maximum pixels in a row, and maximum number of rows.
const MAX_SIDE: u32 = 16384;
/// Maximum size in bytes: that of a picture with the maximum width and height.
const MAX_BYTES: u64 = 1 << 30;
/// Minimum address: the first page is never mapped.
const MIN_BASE: u64 = 1 << 12;
/// Size of the words that are written, in bytes.
const WORD_BYTES: u32 = 4;

/// Memory that a display shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// The memory: row by row from the top, each row from the left.
    pub region: Region,
    /// Pixels in a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// Bytes from one row to the next, a multiple of 4.
    pub stride: u32,
    /// The format of a pixel.
    pub format: PixelFormat,
}

impl Framebuffer {
    /// Reads the framebuffer from its node.
    pub(super) fn read(at: &At<'_, '_>) -> Result<Framebuffer, MachineError> {
        let cell = |name| at.cell(name)?.ok_or_else(|| at.wrong(name));
        let format = at.text("format").and_then(PixelFormat::from_name);
        let format = format.ok_or_else(|| at.wrong("format"))?;
        let (width, height, stride) = (cell("width")?, cell("height")?, cell("stride")?);
        let framebuffer = Framebuffer { region: at.region(0)?, width, height, stride, format };
        framebuffer.check().map_err(|property| at.wrong(property))?;
        Ok(framebuffer)
    }

    /// Checks whether the framebuffer can be drawn to.
    ///
    /// # Errors
    /// The framebuffer cannot be drawn to; the error is the name of the wrong property.
    pub fn check(&self) -> Result<(), &'static str> {
        let Framebuffer { region, width, height, stride, format } = *self;
        if !(MIN_WIDTH..=MAX_SIDE).contains(&width) {
            return Err("width");
        }
        if !(MIN_HEIGHT..=MAX_SIDE).contains(&height) {
            return Err("height");
        }
        if stride < width * format.bytes() || !stride.is_multiple_of(WORD_BYTES) {
            return Err("stride");
        }
        let fits = u64::from(stride) * u64::from(height) <= region.size;
        let is_sane = region.base >= MIN_BASE
            && region.base.is_multiple_of(WORD_BYTES.into())
            && region.size <= MAX_BYTES;
        if fits && is_sane { Ok(()) } else { Err("reg") }
    }

    /// The part of the memory that holds the picture.
    pub const fn picture(&self) -> Region {
        Region { base: self.region.base, size: self.stride as u64 * self.height as u64 }
    }
}

/// A pixel format: a little-endian number of 16 or 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PixelFormat {
    bits: u32,
    red: Channel,
    green: Channel,
    blue: Channel,
    alpha: Channel,
}

/// The bits of a pixel that belong to one colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Channel {
    shift: u32,
    bits: u32,
}

impl Channel {
    /// The largest value of the channel.
    const fn max(self) -> u32 {
        (1 << self.bits) - 1
    }

    /// Encodes a value of 0 to 255, scaled to 0 to the largest value.
    const fn encode(self, value: u8) -> u32 {
        ((value as u32 * self.max() + 127) / 255) << self.shift
    }

    /// Decodes to the nearest value of 0 to 255.
    const fn decode(self, pixel: u32) -> u8 {
        let value = pixel >> self.shift & self.max();
        ((value * 255 + self.max() / 2) / self.max()) as u8
    }
}

impl PixelFormat {
    /// Parses a format's name, such as `x8r8g8b8` and `r5g6b5`.
    ///
    /// The name spells the channels from the most significant bit down, each with its number of
    /// bits. `None` for a name of another kind, without one of the colours, or of a size other than
    /// 16 and 32 bits.
    pub fn from_name(name: &str) -> Option<PixelFormat> {
        let mut format = PixelFormat::default();
        let mut rest = name;
        while let Some(letter) = rest.chars().next() {
            let number = rest.get(1..)?;
            let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            let bits = number[..end].parse().ok().filter(|bits| (1..=16).contains(bits))?;
            rest = &number[end..];
            // Channels named before lie above this one.
            format.bits += bits;
            for channel in format.channels().into_iter().filter(|channel| channel.bits != 0) {
                channel.shift += bits;
            }
            let new = match letter {
                'r' => &mut format.red,
                'g' => &mut format.green,
                'b' => &mut format.blue,
                'a' => &mut format.alpha,
                'x' => continue,
                _ => return None,
            };
            if new.bits != 0 {
                return None;
            }
            *new = Channel { shift: 0, bits };
        }
        let has_colours = [format.red, format.green, format.blue].iter().all(|c| c.bits != 0);
        (has_colours && matches!(format.bits, 16 | 32)).then_some(format)
    }

    fn channels(&mut self) -> [&mut Channel; 4] {
        [&mut self.red, &mut self.green, &mut self.blue, &mut self.alpha]
    }

    /// Bytes in a pixel: 2 or 4.
    pub const fn bytes(self) -> u32 {
        self.bits / 8
    }

    /// Encodes a colour: red, green, blue, each from 0 to 255. The pixel is opaque.
    pub const fn encode(self, [red, green, blue]: [u8; 3]) -> u32 {
        self.red.encode(red)
            | self.green.encode(green)
            | self.blue.encode(blue)
            | self.alpha.encode(255)
    }

    /// Decodes a pixel to its colour, as near as 8 bits a channel allow.
    pub const fn decode(self, pixel: u32) -> [u8; 3] {
        [self.red.decode(pixel), self.green.decode(pixel), self.blue.decode(pixel)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_what_its_name_spells() {
        // The bits are those of Linux, include/linux/platform_data/simplefb.h. The colour 0x80
        // becomes 16 and 32 in 5 and 6 bits, and 514 in 10 bits.
        for (name, bytes, pixel) in [
            ("r5g6b5", 2, 31 << 11 | 32 << 5),
            ("r5g5b5a1", 2, 31 << 11 | 16 << 6 | 1),
            ("x1r5g5b5", 2, 31 << 10 | 16 << 5),
            ("a1r5g5b5", 2, 1 << 15 | 31 << 10 | 16 << 5),
            ("x8r8g8b8", 4, 0x00ff_8000),
            ("a8r8g8b8", 4, 0xffff_8000),
            ("a8b8g8r8", 4, 0xff00_80ff),
            ("x2r10g10b10", 4, 1023 << 20 | 514 << 10),
            ("a2r10g10b10", 4, 3 << 30 | 1023 << 20 | 514 << 10),
        ] {
            let format = PixelFormat::from_name(name).unwrap();
            assert_eq!(format.bytes(), bytes, "{name}");
            assert_eq!(format.encode([255, 128, 0]), pixel, "{name}");
            let [red, green, blue] = format.decode(pixel);
            assert!((red, blue) == (255, 0) && green.abs_diff(128) <= 4, "{name}");
        }
    }

    #[test]
    fn eight_bits_survive_in_ten() {
        let format = PixelFormat::from_name("x2r10g10b10").unwrap();
        for value in 0..=255 {
            let colour = [value, 255 - value, value / 2];
            assert_eq!(format.decode(format.encode(colour)), colour);
        }
    }

    #[test]
    fn other_names_are_none() {
        for name in [
            "",
            "r",
            "r5",
            "8r8g8b8",
            "r8g8b8",
            "x8r8g8",
            "x8r8g8b8 ",
            "x8r8g8y8",
            "r8r8g8b8",
            "x0r16g8b8",
            "x99999999999r8g8b8",
            "x8r8g8b8x32",
            "é8r8g8b8",
            "R8G8B8A8",
        ] {
            assert_eq!(PixelFormat::from_name(name), None, "{name}");
        }
    }
}
