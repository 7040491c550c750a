//! Report of a disk image.

use std::fmt;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use kernel::model_files::{LONGEST_SUM_FILE, SUM_ENDING, is_model, is_sum, same_name};
use serde::Serialize;

use super::{Checksum, table};
use crate::checksum::Sum;
use crate::progress::Progress;
use crate::size;
use crate::volume::{Extent, Notes, Volume};

/// A disk image.
#[derive(Serialize)]
pub struct Report {
    kind: &'static str,
    file: String,
    bytes: u64,
    /// The volume's first byte: 0, or the start of its partition.
    volume_start: u64,
    filesystem: String,
    label: String,
    id: String,
    cluster_bytes: u32,
    clusters: u32,
    free_bytes: u64,
    files: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
    /// `None` for a file that needs no checksum.
    checksum: Option<Checksum>,
    /// The places of the file on the disk.
    extents: Vec<Extent>,
}

/// Reads the disk image at `path`.
pub fn read(path: &Path) -> Result<Report> {
    let cannot_read = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot_read)?;
    let bytes = file.metadata().with_context(cannot_read)?.len();
    let notes = Notes::default();
    let (volume, volume_start) = Volume::find(file, &notes)?;
    let fs = volume.fs();
    let stats = fs.stats().context("cannot count the free clusters")?;

    let mut sums = Vec::new();
    let mut files = Vec::new();
    for (path, bytes) in volume.files()? {
        let mut progress = Progress::new(format!("reading {path}"), bytes);
        let mut text = Vec::new();
        let is_sum = is_sum(&path);
        let content = volume
            .read_file(&path, |part| {
                // One part beyond the limit shows that the file is too long. The rest is not
                // needed.
                if is_sum && text.len() <= LONGEST_SUM_FILE {
                    text.extend(part);
                }
                progress.add(part.len());
            })
            .with_context(|| format!("cannot read {path}"))?;
        if is_sum {
            sums.push((path.clone(), text));
        }
        files.push((path, content));
    }
    let entries = files.into_iter().map(|(path, content)| {
        let beside = format!("{path}{SUM_ENDING}");
        let name = path.rsplit('/').next().unwrap_or(&path);
        let checksum = match sums.iter().find(|(path, _)| same_name(path, &beside)) {
            Some((_, text)) => Some(match Sum::of_model(name, text) {
                Ok(expected) => Checksum::compare(content.sum, Some(expected)),
                // A `.sha256` file without a checksum matches nothing.
                Err(_) => Checksum::Mismatch,
            }),
            None => is_model(&path).then_some(Checksum::Missing),
        };
        let sha256 = content.sum.to_string();
        Entry { path, bytes: content.bytes, sha256, checksum, extents: content.extents }
    });
    Ok(Report {
        kind: "disk",
        file: path.display().to_string(),
        bytes,
        volume_start,
        filesystem: format!("{:?}", fs.fat_type()).to_uppercase(),
        label: fs.volume_label().trim_end().to_owned(),
        id: format!("{:04X}-{:04X}", fs.volume_id() >> 16, fs.volume_id() & 0xffff),
        cluster_bytes: stats.cluster_size(),
        clusters: stats.total_clusters(),
        free_bytes: u64::from(stats.free_clusters()) * u64::from(stats.cluster_size()),
        files: entries.collect(),
    })
}

impl Report {
    /// The first file that does not match its checksum.
    pub fn mismatch(&self) -> Option<&str> {
        let differs = |entry: &&Entry| entry.checksum == Some(Checksum::Mismatch);
        self.files.iter().find(differs).map(|entry| entry.path.as_str())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} of {}, label {}, serial number {}",
            self.file,
            self.filesystem,
            size::human(self.bytes),
            self.label,
            self.id
        )?;
        if self.volume_start > 0 {
            writeln!(f, "in the partition from byte {} on", self.volume_start)?;
        }
        writeln!(
            f,
            "{} clusters of {}, {} free\n",
            self.clusters,
            size::human(self.cluster_bytes.into()),
            size::human(self.free_bytes)
        )?;
        let mut rows = Vec::new();
        for file in &self.files {
            let place = match file.extents[..] {
                [] => "empty".to_owned(),
                [Extent { start, .. }] => format!("at {start}, in one run"),
                [Extent { start, .. }, ..] => {
                    format!("at {start}, in {} runs", file.extents.len())
                }
            };
            rows.push(vec![file.path.clone(), format!("{} bytes", file.bytes), place]);
        }
        table(f, &rows)?;
        writeln!(f)?;
        for file in &self.files {
            if let Some(checksum) = file.checksum {
                writeln!(f, "    {}  {} ({checksum})", file.sha256, file.path)?;
            }
        }
        Ok(())
    }
}
