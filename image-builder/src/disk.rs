//! `image-builder disk`: a FAT volume for the kernel, as the whole of a disk.

use std::path::PathBuf;

use anyhow::Result;
use host_io::console::print_line;
use host_io::files::Target;

use crate::contents::{self, Contents};
use crate::fat::Layout;
use crate::size;

/// What is asked for.
#[derive(clap::Args)]
pub struct Options {
    /// The disk image to write
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    contents: contents::ContentOptions,
}

impl Options {
    /// A disk image `out` with these contents.
    pub fn new(out: PathBuf, contents: contents::ContentOptions) -> Options {
        Options { out, contents }
    }
}

/// Writes the disk image, and says what is on it.
///
/// # Errors
/// Those of [`write()`]; standard output cannot be written.
pub fn build(options: &Options) -> Result<()> {
    let (contents, layout) = write(options)?;
    print_line(format_args!(
        "{}: {}, {}, clusters of {}{}",
        options.out.display(),
        layout.geometry.kind,
        size::human(layout.geometry.bytes),
        size::human(layout.geometry.cluster.into()),
        if options.contents.verify { ", read back and equal" } else { "" }
    ))?;
    contents.describe_models()
}

/// Writes the disk image; gives what is on it, and where.
///
/// # Errors
/// The kernel would refuse a model or a setting, a file cannot be read or written, or the written
/// volume does not read back.
pub fn write(options: &Options) -> Result<(Contents, Layout)> {
    let target = Target::new(&options.out, &options.contents.inputs())?;
    let contents = Contents::open(&options.contents, Vec::new(), None)?;
    let layout = contents.lay_out(&options.contents, 0)?;
    target.write(|file| {
        let written = contents.write(file, 0, &layout)?;
        if options.contents.verify {
            contents::verify(file.read_back()?, 0, &written)?;
        }
        Ok(())
    })?;
    Ok((contents, layout))
}
