//! Shows the text that stands on a screen, as a virtual machine's monitor saves the memory of the
//! framebuffer or what the display shows.
//!
//! ```text
//! (qemu) pmemsave 0x5f800000 4198400 "screen.raw"
//! cargo run -p kernel --example screen -- 1280 800 5248 x2r10g10b10 screen.raw [screen.png]
//! (qemu) screendump "screen.ppm"
//! cargo run -p kernel --example screen -- screen.ppm [screen.png]
//! ```
//!
//! Width, height and stride (in bytes) as the device tree has them; the picture goes to the last file.

use std::error::Error;
use std::fs;
use std::path::Path;

use host_io::{console, files};
use kernel::runtime::dev::console::screen::reader;
use kernel::runtime::machine::{Framebuffer, PixelFormat, Region};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (framebuffer, memory, file, png) = match &arguments[..] {
        [ppm, png @ ..] if ppm.ends_with(".ppm") => {
            let (framebuffer, memory) = unpack(&fs::read(ppm)?).ok_or("that is no PPM picture")?;
            (framebuffer, memory, ppm, png)
        }
        [width, height, stride, format, raw, png @ ..] => {
            let memory = fs::read(raw)?;
            let framebuffer = Framebuffer {
                region: Region { base: 0, size: memory.len() as u64 },
                width: width.parse()?,
                height: height.parse()?,
                stride: stride.parse()?,
                format: PixelFormat::from_name(format).ok_or("that is no format of pixels")?,
            };
            (framebuffer, memory, raw, png)
        }
        _ => return Err("expected WIDTH HEIGHT STRIDE FORMAT FILE [PNG], or PPM [PNG]".into()),
    };
    if (memory.len() as u64) < framebuffer.picture().size {
        return Err(format!("{file} is too short for such a picture").into());
    }
    for line in reader::lines(&framebuffer, &memory) {
        console::print_line(line)?;
    }
    if let [png] = png {
        let file = files::create(Path::new(png), &[file.into()])?;
        let mut encoder = png::Encoder::new(file, framebuffer.width, framebuffer.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&reader::picture(&framebuffer, &memory))?;
    }
    Ok(())
}

/// The picture in a file of the format PPM: `P6`, width, height, 255, a byte for each colour of a pixel.
fn unpack(ppm: &[u8]) -> Option<(Framebuffer, Vec<u8>)> {
    let mut rest = ppm;
    let mut word = || {
        let end = rest.iter().position(u8::is_ascii_whitespace)?;
        let word = str::from_utf8(&rest[..end]).ok();
        rest = &rest[end + 1..];
        word
    };
    let ("P6", width, height, "255") = (word()?, word()?, word()?, word()?) else { return None };
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    let memory: Vec<u8> = rest.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 0]).collect();
    let framebuffer = Framebuffer {
        region: Region { base: 0, size: memory.len() as u64 },
        width,
        height,
        stride: width * 4,
        format: PixelFormat::from_name("x8b8g8r8")?,
    };
    Some((framebuffer, memory))
}
