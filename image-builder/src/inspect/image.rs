//! Report of a kernel image.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Checksum;
use crate::kernel_image::{self, sum_in, sum_of};
use crate::size;

/// An image of the kernel.
#[derive(Serialize)]
pub struct Report {
    kind: &'static str,
    file: String,
    bytes: u64,
    /// The memory that the image takes when it runs.
    memory_bytes: u64,
    /// The SHA-256 in the image's slot; `None` if there is none.
    sha256: Option<String>,
    pub checksum: Checksum,
}

/// Reads the image at `path`.
pub fn read(path: &Path) -> Result<Report> {
    let image = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let written = sum_in(&image);
    Ok(Report {
        kind: "kernel",
        file: path.display().to_string(),
        bytes: image.len() as u64,
        memory_bytes: kernel_image::memory_bytes(&image).context("it ends within its header")?,
        sha256: written.map(|sum| sum.to_string()),
        checksum: written
            .map_or(Checksum::Missing, |sum| Checksum::compare(sum_of(&image), Some(sum))),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, bytes) = (&self.file, self.bytes);
        let memory = size::human(self.memory_bytes);
        writeln!(f, "{file}: a kernel for aarch64, {bytes} bytes, takes {memory} of memory")?;
        let state = match self.checksum {
            Checksum::Verified => "it is right",
            Checksum::Mismatch => "WRONG: the image was changed",
            Checksum::Missing => return writeln!(f, "    no SHA-256 in it"),
        };
        writeln!(f, "    SHA-256 {} ({state})", self.sha256.as_deref().unwrap_or_default())
    }
}
