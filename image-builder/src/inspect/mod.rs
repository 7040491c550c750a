//! `image-builder inspect`: shows a disk image, a model or a kernel image.

mod image;
mod model;
mod volume;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::{fmt, iter};

use anyhow::{Context, Result, anyhow, ensure};
use host_io::console;
use kernel::formats::{Format, START, has_boot_signature};
use kernel::llm::gguf::MAGIC;
use kernel::report::printable;
use serde::Serialize;

use crate::checksum::Sum;
use crate::kernel_image;

/// Command-line options of `image-builder inspect`.
#[derive(clap::Args)]
pub struct Options {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// A disk image, a model, or an image of the kernel
    #[arg(value_name = "IMAGE|MODEL")]
    file: PathBuf,
}

/// The comparison of a file's checksum with the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Checksum {
    /// They are equal.
    Verified,
    /// They differ.
    Mismatch,
    /// There is no expected checksum.
    Missing,
}

impl Checksum {
    fn compare(computed: Sum, expected: Option<Sum>) -> Checksum {
        match expected {
            None => Checksum::Missing,
            Some(expected) if expected == computed => Checksum::Verified,
            Some(_) => Checksum::Mismatch,
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Checksum::Verified => "verified",
            Checksum::Mismatch => "DOES NOT MATCH its .sha256 file",
            Checksum::Missing => "no .sha256 file",
        })
    }
}

/// Prints the content of the file.
pub fn run(options: &Options) -> Result<()> {
    let start = start_of(&options.file)?;
    if start.starts_with(&MAGIC) {
        let report = model::read(&options.file)?;
        print(options.json, &report)?;
        ensure!(
            report.checksum != Checksum::Mismatch,
            "ChecksumMismatch: {} is not what its .sha256 file says",
            options.file.display()
        );
    } else if kernel_image::has_header(&start) {
        let report = image::read(&options.file)?;
        print(options.json, &report)?;
        ensure!(
            report.checksum != Checksum::Mismatch,
            "ChecksumMismatch: {} is damaged: build it anew (make build)",
            options.file.display()
        );
    } else {
        let report = match volume::read(&options.file) {
            Ok(report) => report,
            Err(error) => return Err(name_other(&options.file, &start, error)),
        };
        print(options.json, &report)?;
        if let Some(path) = report.mismatch() {
            anyhow::bail!("ChecksumMismatch: {path} is not what its .sha256 file says");
        }
    }
    Ok(())
}

/// The error for a file without a volume; names the file's format if known.
fn name_other(path: &Path, start: &[u8], error: anyhow::Error) -> anyhow::Error {
    let shown = path.display();
    let on_disk = |from: u64| {
        let has = |at: u64, magic: &[u8]| -> io::Result<bool> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(from + at))?;
            let mut there = Vec::new();
            file.take(magic.len() as u64).read_to_end(&mut there)?;
            Ok(there == magic)
        };
        Format::of_disk(has).ok().flatten()
    };
    // The table of an MBR has a partition's first sector at byte 8 of its entry.
    let table = start.get(446..510).filter(|_| has_boot_signature(start)).unwrap_or_default();
    let starts = table.as_chunks::<16>().0.iter().map(|entry| {
        512 * u64::from(u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]))
    });
    let disk = iter::once(0).chain(starts).find_map(on_disk);
    // A boot sector alone does not show what is on the disk, but the error does.
    let file = Format::of(start).filter(|_| !has_boot_signature(start));
    let none = format!("{shown} is no GGUF model, no kernel and no disk image");
    match disk.or(file) {
        Some(format) => anyhow!("{none}, but {format}: {}", format.hint()),
        None => error.context(none),
    }
}

/// The first bytes of the file, enough to detect its format.
fn start_of(path: &Path) -> Result<Vec<u8>> {
    let cannot_read = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot_read)?;
    let mut start = Vec::new();
    file.take(START as u64).read_to_end(&mut start).with_context(cannot_read)?;
    Ok(start)
}

fn print(json: bool, report: &(impl Serialize + fmt::Display)) -> Result<()> {
    let text = match json {
        true => serde_json::to_string_pretty(report)? + "\n",
        // Names and texts of the file must not drive the terminal.
        false => printable(&report.to_string()).into_owned(),
    };
    Ok(console::print(text)?)
}

/// Writes a table with columns as narrow as possible.
///
/// The first column is aligned left, the others right. The last is not padded.
fn table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        f.write_str("   ")?;
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match i {
                0 => write!(f, " {cell:width$}")?,
                _ if i + 1 == columns => write!(f, "  {cell}")?,
                _ => write!(f, "  {cell:>width$}")?,
            }
        }
        f.write_str("\n")?;
    }
    Ok(())
}
