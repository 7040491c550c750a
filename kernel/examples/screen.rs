//! Shows the text that stands in the memory of a framebuffer, as a virtual machine's monitor saves it.
//!
//! ```text
//! (qemu) pmemsave 0x5f800000 4198400 "screen.raw"
//! cargo run -p kernel --example screen -- 1280 800 5248 x2r10g10b10 screen.raw [screen.png]
//! ```
//!
//! Width, height and stride (in bytes) as the device tree has them; the picture goes to the second file.

use std::error::Error;
use std::fs;
use std::path::Path;

use host_io::{console, files};
use kernel::runtime::console::screen::reader;
use kernel::runtime::machine::{Framebuffer, PixelFormat, Region};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [width, height, stride, format, raw, png @ ..] = &arguments[..] else {
        return Err("expected WIDTH HEIGHT STRIDE FORMAT FILE [PNG]".into());
    };
    let memory = fs::read(raw)?;
    let framebuffer = Framebuffer {
        region: Region { base: 0, size: memory.len() as u64 },
        width: width.parse()?,
        height: height.parse()?,
        stride: stride.parse()?,
        format: PixelFormat::from_name(format).ok_or("that is no format of pixels")?,
    };
    if (memory.len() as u64) < framebuffer.picture().size {
        return Err(format!("{raw} is too short for such a picture").into());
    }
    for line in reader::lines(&framebuffer, &memory) {
        console::print_line(line)?;
    }
    if let [png] = png {
        let file = files::create(Path::new(png), &[raw.into()])?;
        let mut encoder = png::Encoder::new(file, framebuffer.width, framebuffer.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&reader::picture(&framebuffer, &memory))?;
    }
    Ok(())
}
