//! Open files.
//!
//! A volume, or the files of an initrd, are mounted at `/`. Besides there is `/dev/disk`, the bytes of
//! the block device, for measuring how fast it is. Everything is read only.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use super::FileSystem;
use super::volume::{Entry, Extent, FsError};
use crate::report;
use crate::runtime::dev::block::{Buffer, DiskError};
use crate::system::DiskFailure;

/// The most files that are open at once.
pub const MAX_OPEN: usize = 32;

/// An open file or directory, by its number from 0 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(pub usize);

/// Why a file cannot be opened or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileError {
    /// Nothing is mounted.
    NoVolume,
    /// There is no such file or directory.
    NotFound,
    /// A part of the path is no directory, or what is to be listed.
    NotADirectory,
    /// A directory has no bytes to read.
    IsADirectory,
    /// The handle is none of an open file.
    NotOpen,
    /// [`MAX_OPEN`] files are open.
    TooManyOpen,
    /// The disk or the volume on it is damaged: see [`Files::failure`].
    Failed,
    /// The disk has gone silent: see [`Files::failure`].
    Silent,
}

/// What kind of file there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file of the volume.
    File,
    /// A directory.
    Directory,
    /// The block device.
    Device,
}

/// What an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its kind.
    pub kind: Kind,
    /// Its length in bytes; 0 for a directory.
    pub bytes: u64,
    /// The bytes that the volume reads at a time: a cluster, but 512 at least.
    pub block_bytes: u32,
}

/// The file system and the files that are open on it.
#[derive(Default)]
pub struct Files {
    mounted: Option<Mounted>,
    open: Vec<Option<Open>>,
    failure: Option<DiskFailure>,
}

struct Mounted {
    volume: Box<dyn FileSystem>,
    disk: report::Disk,
}

/// What a handle stands for.
struct Open {
    content: Content,
    /// Where the next read starts: in bytes, or in entries of a directory.
    position: u64,
}

enum Content {
    /// A file of the volume, or the device itself.
    Extents {
        kind: Kind,
        extents: Vec<Extent>,
    },
    Directory(Vec<Entry>),
}

impl Content {
    fn bytes(&self) -> u64 {
        match self {
            Content::Extents { extents, .. } => extents.last().map_or(0, |e| e.offset + e.bytes),
            Content::Directory(_) => 0,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Content::Extents { kind, .. } => *kind,
            Content::Directory(_) => Kind::Directory,
        }
    }
}

impl Files {
    /// No volume, no open file.
    pub const fn new() -> Files {
        Files { mounted: None, open: Vec::new(), failure: None }
    }

    /// Puts `volume` at `/` and describes it.
    pub fn mount(&mut self, volume: impl FileSystem + 'static) -> report::Disk {
        let disk = volume.report();
        self.mounted = Some(Mounted { volume: Box::new(volume), disk: disk.clone() });
        disk
    }

    /// Keeps why nothing could be mounted, for [`Files::failure`].
    pub fn note(&mut self, failure: DiskFailure) {
        self.failure = Some(failure);
    }

    /// The last read that failed, or why nothing is mounted.
    pub fn failure(&self) -> Option<&DiskFailure> {
        self.failure.as_ref()
    }

    /// Opens a file or a directory.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn open(&mut self, path: &str) -> Result<Handle, FileError> {
        self.open_as(path, |_| true)
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn open_directory(&mut self, path: &str) -> Result<Handle, FileError> {
        self.open_as(path, |kind| kind == Kind::Directory)
    }

    fn open_as(&mut self, path: &str, fits: impl Fn(Kind) -> bool) -> Result<Handle, FileError> {
        let slot = match self.open.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.open.len() < MAX_OPEN => {
                self.open.push(None);
                self.open.len() - 1
            }
            None => return Err(FileError::TooManyOpen),
        };
        let content = self.content(path)?;
        if !fits(content.kind()) {
            return Err(FileError::NotADirectory);
        }
        self.open[slot] = Some(Open { content, position: 0 });
        Ok(Handle(slot))
    }

    /// Closes a file or a directory.
    ///
    /// # Errors
    /// [`FileError::NotOpen`].
    pub fn close(&mut self, handle: Handle) -> Result<(), FileError> {
        lookup(&mut self.open, handle)?;
        self.open[handle.0] = None;
        Ok(())
    }

    /// Fills `buffer`, or as much of it as the file has bytes left, and gives their number: less
    /// than asked for only at the end of the file.
    ///
    /// # Errors
    /// See [`FileError`]. If the disk has gone silent, the buffer is lost: see [`Buffer::new`].
    pub fn read(&mut self, handle: Handle, buffer: Buffer) -> Result<usize, FileError> {
        let open = lookup(&mut self.open, handle)?;
        let left = open.content.bytes().saturating_sub(open.position);
        let n = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (buffer, _) = buffer.split_at(n);
        match &open.content {
            Content::Directory(_) => return Err(FileError::IsADirectory),
            Content::Extents { extents, .. } => {
                let Mounted { volume, disk } = self.mounted.as_mut().ok_or(FileError::NoVolume)?;
                let result = volume.read(extents, open.position, buffer);
                result.map_err(|error| note(&mut self.failure, &disk.device, error))?;
            }
        }
        open.position += n as u64;
        Ok(n)
    }

    /// What an open file is.
    ///
    /// # Errors
    /// [`FileError::NotOpen`].
    pub fn metadata(&mut self, handle: Handle) -> Result<Metadata, FileError> {
        let content = &lookup(&mut self.open, handle)?.content;
        let cluster_bytes = self.mounted.as_ref().map_or(0, |mounted| mounted.disk.cluster_bytes);
        Ok(Metadata {
            kind: content.kind(),
            bytes: content.bytes(),
            block_bytes: cluster_bytes.max(512),
        })
    }

    /// Hands the next entries of a directory to `take`, each with the number of the one after it, as long
    /// as `take` takes them.
    ///
    /// # Errors
    /// [`FileError::NotOpen`], [`FileError::NotADirectory`].
    pub fn list(
        &mut self,
        handle: Handle,
        take: &mut dyn FnMut(&Entry, u64) -> bool,
    ) -> Result<(), FileError> {
        let open = lookup(&mut self.open, handle)?;
        let Content::Directory(entries) = &open.content else {
            return Err(FileError::NotADirectory);
        };
        for entry in entries.iter().skip(open.position as usize) {
            let next = open.position + 1;
            if !take(entry, next) {
                break;
            }
            open.position = next;
        }
        Ok(())
    }

    fn content(&mut self, path: &str) -> Result<Content, FileError> {
        let Mounted { volume, disk } = self.mounted.as_mut().ok_or(FileError::NoVolume)?;
        if path == "/dev/disk" {
            let extents = Vec::from([Extent { offset: 0, position: 0, bytes: disk.bytes }]);
            return Ok(Content::Extents { kind: Kind::Device, extents });
        }
        let mut content = || {
            Ok(if volume.entry(path)?.is_dir {
                Content::Directory(volume.directory(path)?)
            } else {
                Content::Extents { kind: Kind::File, extents: volume.extents(path)? }
            })
        };
        content().map_err(|error| note(&mut self.failure, &disk.device, error))
    }
}

/// The open file behind a handle.
fn lookup(open: &mut [Option<Open>], handle: Handle) -> Result<&mut Open, FileError> {
    open.get_mut(handle.0).and_then(Option::as_mut).ok_or(FileError::NotOpen)
}

/// Keeps what a [`FileError`] does not carry: the device, the sector.
fn note(failure: &mut Option<DiskFailure>, device: &str, error: FsError) -> FileError {
    let kind = match error {
        FsError::NotFound => return FileError::NotFound,
        FsError::NotADirectory => return FileError::NotADirectory,
        FsError::Disk(DiskError::Silent { .. }) => FileError::Silent,
        FsError::Disk(_) | FsError::Damaged(_) => FileError::Failed,
    };
    *failure = Some(DiskFailure { message: format!("{device}: {error}"), hint: None });
    kind
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
