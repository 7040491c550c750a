//! The text on a screen, and its picture.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use kernel::runtime::dev::console::screen::reader;
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

    /// A picture in the format PPM, as QEMU's monitor writes it: three bytes for each pixel.
    ///
    /// # Errors
    /// The bytes are no PPM picture.
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

    /// Its picture in a file of the format PNG (W3C, "Portable Network Graphics", third edition).
    ///
    /// # Errors
    /// Memory cannot be written to.
    pub fn png(&self) -> Result<Vec<u8>> {
        let Framebuffer { width, height, .. } = self.framebuffer;
        let picture = reader::picture(&self.framebuffer, &self.memory);
        let mut rows = ZlibEncoder::new(Vec::new(), Compression::fast());
        for row in picture.chunks_exact(width as usize * 3) {
            // As it is, unfiltered.
            rows.write_all(&[0])?;
            rows.write_all(row)?;
        }
        // Eight bits each of red, green and blue.
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        chunk(&mut file, b"IHDR", &[&size[..], &[8, 2, 0, 0, 0]].concat());
        chunk(&mut file, b"IDAT", &rows.finish()?);
        chunk(&mut file, b"IEND", &[]);
        Ok(file)
    }
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let mut sum = Crc::new();
    sum.update(kind);
    sum.update(data);
    file.extend((data.len() as u32).to_be_bytes());
    file.extend(kind);
    file.extend(data);
    file.extend(sum.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_reads_back_as_it_was() {
        // Two rows of three pixels.
        let pixels: Vec<u8> = (0..18).map(|byte| byte * 13).collect();
        let screen = Screen::of_ppm(&[b"P6\n3 2\n255\n", &pixels[..]].concat()).unwrap();
        let file = screen.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut picture = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut picture).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (3, 2, png::ColorType::Rgb));
        assert_eq!(picture, pixels);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(Screen::of_ppm(b"P5\n3 2\n255\n").is_err());
        assert!(Screen::of_ppm(b"P6\n3 2\n255\n123").is_err());
    }
}
