//! Asks, writes the card, and reads it back.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host_io::console;
use rustix::fs::{OFlags, major, minor};
use sha2::{Digest, Sha256};

use super::disks::{Disk, System};
use crate::checksum::Sum;
use crate::progress::Progress;
use crate::size;

/// The number of bytes that are copied at a time.
const CHUNK: usize = 4 << 20;
/// Alignment of a buffer for reads past the cache (O_DIRECT), on any disk.
const ALIGNMENT: usize = 4096;

/// A card that may be overwritten.
pub struct Device {
    path: PathBuf,
    disk: Disk,
    any_disk: bool,
    yes: bool,
}

impl Device {
    /// Checks the device at `path`.
    pub fn find(path: &Path, any_disk: bool, yes: bool) -> Result<Device> {
        let disk = look_up(path, any_disk)?;
        Ok(Device { path: path.into(), disk, any_disk, yes })
    }

    /// Asks whether the card may be overwritten by an image of `image_bytes` bytes.
    ///
    /// # Errors
    /// The card is too small, or the answer is no.
    pub fn confirm(&self, image_bytes: u64) -> Result<()> {
        let Device { path, disk: Disk { bytes, description }, .. } = self;
        let path = path.display();
        ensure!(
            image_bytes <= *bytes,
            "the card in {path} is too small: it has {}, and the image {}",
            size::human(*bytes),
            size::human(image_bytes)
        );
        if self.yes {
            return Ok(());
        }
        let description = kernel::report::printable(description);
        let question =
            format!("All that is on {path} ({description}) will be lost. Go on? Type yes: ");
        let answer = console::ask(question).context("cannot ask whether to go on")?;
        ensure!(answer.trim() == "yes", "{path} stays as it was: the answer was not yes");
        Ok(())
    }

    /// Writes the image at `image` to the card, reads the card back, and compares.
    pub fn write(&self, image: &Path) -> Result<()> {
        let path = self.path.display();
        // The card may have been mounted or changed meanwhile.
        look_up(&self.path, self.any_disk)?;
        let mut from = File::open(image)?;
        let bytes = from.metadata()?.len();
        let written = copy(&mut from, &self.path, bytes)
            .with_context(|| format!("cannot write {path}: is the card still there?"))?;
        let read = read_back(&self.path, bytes)
            .with_context(|| format!("cannot read {path} back: is the card still there?"))?;
        ensure!(
            written == read,
            "{path} does not hold what was written to it: the card is broken, or not as large as it \
             claims. Take another one"
        );
        let bytes = size::human(bytes);
        Ok(console::print_line(format_args!("{path}: {bytes} written, read back and equal"))?)
    }
}

/// Checks the disk at `path`.
fn look_up(path: &Path, any_disk: bool) -> Result<Disk> {
    let shown = path.display().to_string();
    let metadata = fs::metadata(path).with_context(|| format!("cannot find {shown}"))?;
    ensure!(
        metadata.file_type().is_block_device(),
        "{shown} is no disk: name the card's device, such as /dev/sdX (`lsblk` lists them)"
    );
    let number = (major(metadata.rdev()), minor(metadata.rdev()));
    System::running().check(number, &shown, any_disk)
}

/// Writes `from` to the disk, syncs, and returns the checksum.
fn copy(from: &mut File, disk: &Path, bytes: u64) -> Result<Sum> {
    // On a disk, EXCL keeps others from mounting it meanwhile.
    let mut to =
        OpenOptions::new().write(true).custom_flags(OFlags::EXCL.bits() as i32).open(disk)?;
    let mut progress = Progress::new(format!("writing {}", disk.display()), bytes);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        // Without the sync, progress would count data that is only in memory.
        to.sync_data()?;
        progress.add(n);
    }
    to.sync_all()?;
    Ok(Sum::finish(hasher))
}

/// The checksum of the disk's first `bytes` bytes (whole sectors).
///
/// The data comes from the disk itself, past the system's cache.
fn read_back(disk: &Path, bytes: u64) -> Result<Sum> {
    let direct = OFlags::DIRECT | OFlags::EXCL;
    let mut from = OpenOptions::new().read(true).custom_flags(direct.bits() as i32).open(disk)?;
    from.seek(SeekFrom::Start(0))?;
    let mut progress = Progress::new(format!("reading {}", disk.display()), bytes);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut buffer[start..][..CHUNK];
    let mut left = bytes;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let n = from.read(&mut buffer[..wanted])?;
        ensure!(n > 0, "it ends {left} bytes too early");
        hasher.update(&buffer[..n]);
        left -= n as u64;
        progress.add(n);
    }
    Ok(Sum::finish(hasher))
}
