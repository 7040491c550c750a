//! The text on a screen, and its picture.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kernel::runtime::console::screen::reader;
use kernel::runtime::machine::{Framebuffer, PixelFormat, Region};

/// What stood on a screen.
pub struct Screen {
    framebuffer: Framebuffer,
    memory: Vec<u8>,
}

impl Screen {
    /// The memory of a framebuffer, as QEMU's monitor saves it: rows of `stride` bytes.
    ///
    /// # Errors
    /// There is no format of this name, or the memory is too short for such a picture.
    pub fn of_memory(
        (width, height, stride): (u32, u32, u32),
        format: &str,
        memory: Vec<u8>,
    ) -> Result<Screen> {
        let framebuffer = Framebuffer {
            region: Region { base: 0, size: memory.len() as u64 },
            width,
            height,
            stride,
            format: PixelFormat::from_name(format).context("there is no such format of pixels")?,
        };
        let needed = framebuffer.picture().size;
        ensure!(memory.len() as u64 >= needed, "{} of {needed} bytes of a screen", memory.len());
        Ok(Screen { framebuffer, memory })
    }

    /// The picture in a file of the format PPM, as QEMU's monitor takes it of a display: `P6`, width,
    /// height, 255, a byte for each colour of a pixel.
    ///
    /// # Errors
    /// It is none.
    pub fn of_ppm(ppm: &[u8]) -> Result<Screen> {
        let mut rest = ppm;
        let mut word = || {
            let end = rest.iter().position(u8::is_ascii_whitespace)?;
            let word = str::from_utf8(&rest[..end]).ok();
            rest = &rest[end + 1..];
            word
        };
        let words = (word(), word(), word(), word());
        let (Some("P6"), Some(width), Some(height), Some("255")) = words else {
            anyhow::bail!("that is no PPM picture");
        };
        let (width, height) = (width.parse()?, height.parse()?);
        let memory = rest.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 0]).collect();
        Screen::of_memory((width, height, width * 4), "x8b8g8r8", memory)
    }

    /// Its text, line by line.
    pub fn lines(&self) -> Vec<String> {
        reader::lines(&self.framebuffer, &self.memory)
    }

    /// Writes its picture.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, png: &Path) -> Result<()> {
        let file = fs::File::create(png)?;
        let (width, height) = (self.framebuffer.width, self.framebuffer.height);
        let mut encoder = png::Encoder::new(file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let picture = reader::picture(&self.framebuffer, &self.memory);
        Ok(encoder.write_header()?.write_image_data(&picture)?)
    }
}
