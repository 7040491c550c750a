//! Reads FAT volumes through `fatfs`, as the kernel does.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use anyhow::{Context, Result};
use core_io::Read as _;
use fatfs::{Dir, FileSystem, FsOptions};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::checksum::Sum;
use crate::mbr;

/// The size of the cached block.
///
/// `fatfs` reads its tables two or four bytes at a time.
const BLOCK: usize = 64 << 10;
/// Reads of this many bytes or more bypass the cached block.
const LARGE: usize = 4 << 10;

/// A contiguous run of a file's bytes on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// The first byte, counted from the volume's start.
    pub start: u64,
    /// The number of bytes.
    pub bytes: u64,
}

/// The content of a file on the volume, after a complete read.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    /// Its size.
    pub bytes: u64,
    /// The checksum.
    pub sum: Sum,
    /// The places on the volume.
    pub extents: Vec<Extent>,
}

/// Data shared between the [`Disk`], which `fatfs` owns, and its [`Volume`].
#[derive(Default)]
pub struct Notes {
    last_read: Cell<u64>,
    fault: Cell<Option<io::Error>>,
}

/// A mounted FAT volume.
pub struct Volume<'a> {
    notes: &'a Notes,
    fs: FileSystem<Disk<'a>>,
}

impl<'a> Volume<'a> {
    /// Mounts the volume in `file`: the whole file, or its first FAT32 partition.
    ///
    /// Returns the volume's first byte too.
    pub fn find(file: File, notes: &'a Notes) -> Result<(Volume<'a>, u64)> {
        let mut sector = Vec::new();
        (&file).take(512).read_to_end(&mut sector)?;
        match (Volume::mount_at(file.try_clone()?, 0, notes), mbr::first_partition(&sector)) {
            (Err(_), Some((start, _))) => Ok((Volume::mount_at(file, start, notes)?, start)),
            (bare, _) => Ok((bare?, 0)),
        }
    }

    /// Mounts the volume that starts at byte `start` of `file`.
    pub fn mount_at(file: File, start: u64, notes: &'a Notes) -> Result<Volume<'a>> {
        let len = file.metadata()?.len().saturating_sub(start);
        let block = Vec::with_capacity(BLOCK);
        let disk = Disk { file, start, len, position: 0, block_start: 0, block, notes };
        match FileSystem::new(disk, FsOptions::new()) {
            Ok(fs) => Ok(Volume { notes, fs }),
            Err(e) => Err(explain(notes, e)).context("there is no FAT volume in it"),
        }
    }

    /// The mounted file system.
    pub fn fs(&self) -> &FileSystem<Disk<'a>> {
        &self.fs
    }

    /// Reads a whole file, and passes its bytes to `sink`.
    pub fn read_file(&self, path: &str, mut sink: impl FnMut(&[u8])) -> Result<Content> {
        let mut file = self.fs.root_dir().open_file(path).map_err(|e| explain(self.notes, e))?;
        let mut hasher = Sha256::new();
        let mut extents: Vec<Extent> = Vec::new();
        let mut bytes = 0;
        let mut buffer = vec![0; BLOCK];
        loop {
            // `fatfs` reads at most a cluster at a time, and the data last. The last read of the
            // disk is therefore the place of this part.
            let n = file.read(&mut buffer).map_err(|e| explain(self.notes, e))?;
            if n == 0 {
                return Ok(Content { bytes, sum: Sum::finish(hasher), extents });
            }
            let start = self.notes.last_read.get();
            match extents.last_mut() {
                Some(last) if last.start + last.bytes == start => last.bytes += n as u64,
                _ => extents.push(Extent { start, bytes: n as u64 }),
            }
            hasher.update(&buffer[..n]);
            sink(&buffer[..n]);
            bytes += n as u64;
        }
    }

    /// The paths and sizes of all files, in the order of their folders.
    pub fn files(&self) -> Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        list(&self.fs.root_dir(), "", 0, &mut files).map_err(|e| explain(self.notes, e))?;
        Ok(files)
    }
}

/// The fault behind an error of `fatfs`, which itself can only have a fixed text.
fn explain(notes: &Notes, error: core_io::Error) -> anyhow::Error {
    match notes.fault.take() {
        Some(fault) => fault.into(),
        None => error.into(),
    }
}

/// The maximum depth of folders. Deeper ones are those of a damaged volume.
const DEEPEST: usize = 32;

fn list(
    dir: &Dir<'_, Disk<'_>>,
    prefix: &str,
    depth: usize,
    files: &mut Vec<(String, u64)>,
) -> core_io::Result<()> {
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == "." || name == ".." {
            continue;
        }
        let path = format!("{prefix}{name}");
        if !entry.is_dir() {
            files.push((path, entry.len()));
        } else if depth < DEEPEST {
            list(&entry.to_dir(), &format!("{path}/"), depth + 1, files)?;
        } else {
            let error = "folders within folders without an end";
            return Err(core_io::Error::new(core_io::ErrorKind::InvalidData, error));
        }
    }
    Ok(())
}

/// A file as a read-only disk for `fatfs`.
pub struct Disk<'a> {
    file: File,
    /// The volume's first byte. All other places count from it.
    start: u64,
    len: u64,
    position: u64,
    block_start: u64,
    block: Vec<u8>,
    notes: &'a Notes,
}

impl Disk<'_> {
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<()> {
        if buf.len() >= LARGE {
            self.file.seek(SeekFrom::Start(self.start + self.position))?;
            return self.file.read_exact(buf);
        }
        let mut done = 0;
        while done < buf.len() {
            let at = self.position + done as u64;
            let start = at / BLOCK as u64 * BLOCK as u64;
            if self.block.is_empty() || self.block_start != start {
                self.block.resize((self.len - start).min(BLOCK as u64) as usize, 0);
                self.block_start = start;
                self.file.seek(SeekFrom::Start(self.start + start))?;
                self.file.read_exact(&mut self.block)?;
            }
            let rest = &self.block[(at - start) as usize..];
            let n = rest.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&rest[..n]);
            done += n;
        }
        Ok(())
    }
}

impl core_io::Read for Disk<'_> {
    fn read(&mut self, buf: &mut [u8]) -> core_io::Result<usize> {
        let left = self.len.saturating_sub(self.position);
        let n = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        if let Err(fault) = self.fill(&mut buf[..n]) {
            self.block.clear();
            self.notes.fault.set(Some(fault));
            return Err(core_io::Error::new(core_io::ErrorKind::Other, "the file failed"));
        }
        self.notes.last_read.set(self.position);
        self.position += n as u64;
        Ok(n)
    }
}

impl core_io::Write for Disk<'_> {
    fn write(&mut self, _: &[u8]) -> core_io::Result<usize> {
        Err(core_io::Error::new(core_io::ErrorKind::Other, "the disk is only read"))
    }

    fn flush(&mut self) -> core_io::Result<()> {
        Ok(())
    }
}

impl core_io::Seek for Disk<'_> {
    fn seek(&mut self, pos: core_io::SeekFrom) -> core_io::Result<u64> {
        let position = match pos {
            core_io::SeekFrom::Start(n) => Some(n),
            core_io::SeekFrom::End(n) => self.len.checked_add_signed(n),
            core_io::SeekFrom::Current(n) => self.position.checked_add_signed(n),
        };
        self.position = position.ok_or(core_io::Error::new(
            core_io::ErrorKind::InvalidInput,
            "a place before the start of the disk",
        ))?;
        Ok(self.position)
    }
}
