//! Open files: the descriptors of the ABI.
//!
//! A volume, or the files of an initrd, are mounted at `/`. There are also:
//!
//! - `/dev/disk`: the bytes of the block device, for measuring its speed
//! - `/proc/meminfo`: the memory, in Linux's format
//! - `/proc/board`: the board's present readings, a line `NAME=VALUE` each
//! - `/proc/disk_error`: a line about the last failed read, empty if none failed. `EIO` alone does
//!   not contain the sector. Where no volume is mounted, a line with the reason and a line with a
//!   remedy.
//!
//! All files are read-only. Functions return the positive error number of the ABI.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hermit_abi::errno::{
    EBADF, EINVAL, EIO, EISDIR, EMFILE, ENODEV, ENOENT, ENOTDIR, EROFS, ETIMEDOUT,
};
use hermit_abi::{
    DT_DIR, DT_REG, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NONBLOCK, O_RDWR, O_TRUNC, O_WRONLY,
    S_IFBLK, S_IFDIR, S_IFREG, SEEK_CUR, SEEK_END, SEEK_SET, stat, timespec,
};

use super::FileSystem;
use super::volume::{Entry, Extent, FsError};
use crate::report;
use crate::runtime::dev::block::{Buffer, DiskError};

/// The first descriptor for files. The descriptors before are standard input, output and error.
pub const FIRST_FD: i32 = 3;
/// Maximum number of open files.
pub const MAX_OPEN: usize = 32;

/// Size of the fixed part of a directory record in bytes, before the name.
const DIRENT_HEADER_BYTES: usize = core::mem::offset_of!(hermit_abi::dirent64, d_name);
/// Maximum length of a name in a directory record in bytes, without its zero byte.
const LONGEST_NAME_BYTES: usize = 255;

/// The memory of the machine, for `/proc/meminfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Total memory, in bytes.
    pub total_bytes: u64,
    /// Free memory, in bytes.
    pub free_bytes: u64,
}

/// The file system and its open files.
#[derive(Default)]
pub struct Files {
    mounted: Option<Mounted>,
    memory: Option<fn() -> Memory>,
    board: Option<fn() -> String>,
    open: Vec<Option<Open>>,
    last_error: String,
}

struct Mounted {
    volume: Box<dyn FileSystem>,
    disk: report::Disk,
}

/// An open file.
struct Open {
    content: Content,
    /// Position of the next read: in bytes, or in entries of a directory.
    position: u64,
}

enum Content {
    /// A file of the volume, or the device itself.
    Extents {
        kind: u32,
        extents: Vec<Extent>,
    },
    /// A file made at the time of its opening.
    Text(Vec<u8>),
    Directory(Vec<Entry>),
}

impl Content {
    fn bytes(&self) -> u64 {
        match self {
            Content::Extents { extents, .. } => extents.last().map_or(0, |e| e.offset + e.bytes),
            Content::Text(text) => text.len() as u64,
            Content::Directory(_) => 0,
        }
    }

    fn kind(&self) -> u32 {
        match self {
            Content::Extents { kind, .. } => *kind,
            Content::Text(_) => S_IFREG,
            Content::Directory(_) => S_IFDIR,
        }
    }
}

impl Files {
    /// No volume and no open file.
    pub const fn new() -> Files {
        Files {
            mounted: None,
            memory: None,
            board: None,
            open: Vec::new(),
            last_error: String::new(),
        }
    }

    /// Mounts `volume` at `/`; returns its description.
    pub fn mount(&mut self, volume: impl FileSystem + 'static) -> report::Disk {
        let disk = volume.report();
        self.mounted = Some(Mounted { volume: Box::new(volume), disk: disk.clone() });
        disk
    }

    /// Sets the source of `/proc/meminfo`, which is called at each opening.
    pub fn set_memory(&mut self, memory: fn() -> Memory) {
        self.memory = Some(memory);
    }

    /// Sets the source of `/proc/board`, which is called at each opening.
    pub fn set_board(&mut self, board: fn() -> String) {
        self.board = Some(board);
    }

    /// Sets an error for [`Files::last_error`] that is not an error of a read.
    pub fn note(&mut self, error: String) {
        self.last_error = error;
    }

    /// The last error as a line; empty if there was none.
    pub fn last_error(&self) -> &str {
        &self.last_error
    }

    /// Opens a file or a directory; returns its descriptor.
    ///
    /// # Errors
    /// `EROFS` for anything but reading, `ENOENT`, `ENOTDIR`, `EMFILE`, `EINVAL` for flags that the
    /// ABI does not have. `EIO` or `ETIMEDOUT` (see [`Files::read`]) if the disk fails.
    pub fn open(&mut self, path: &str, flags: i32) -> Result<i32, i32> {
        let writing = O_WRONLY | O_RDWR | O_CREAT | O_EXCL | O_TRUNC | O_APPEND;
        if flags & !(writing | O_DIRECTORY | O_NONBLOCK) != 0 {
            return Err(EINVAL);
        }
        if flags & writing != 0 {
            return Err(EROFS);
        }
        let slot = match self.open.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.open.len() < MAX_OPEN => {
                self.open.push(None);
                self.open.len() - 1
            }
            None => return Err(EMFILE),
        };
        let content = self.content(path)?;
        if flags & O_DIRECTORY != 0 && content.kind() != S_IFDIR {
            return Err(ENOTDIR);
        }
        self.open[slot] = Some(Open { content, position: 0 });
        Ok(FIRST_FD + slot as i32)
    }

    /// Closes a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close(&mut self, fd: i32) -> Result<(), i32> {
        lookup(&mut self.open, fd)?;
        self.open[(fd - FIRST_FD) as usize] = None;
        Ok(())
    }

    /// Fills `buffer`, or as much of it as the file has bytes left.
    ///
    /// The result is the number of bytes: less than requested only at the end of the file.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`; `EIO` if the disk or the volume on it is damaged. `ETIMEDOUT` if the disk
    /// has gone silent, and then the buffer is lost: see [`Buffer::new`].
    pub fn read(&mut self, fd: i32, buffer: Buffer) -> Result<usize, i32> {
        let open = lookup(&mut self.open, fd)?;
        let left = open.content.bytes().saturating_sub(open.position);
        let n = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (mut buffer, _) = buffer.split_at(n);
        let position = open.position;
        match &open.content {
            Content::Directory(_) => return Err(EISDIR),
            Content::Text(text) => {
                if n > 0 {
                    buffer.fill_from(&text[position as usize..position as usize + n]);
                }
            }
            Content::Extents { extents, .. } => {
                let Mounted { volume, disk } = self.mounted.as_mut().ok_or(ENODEV)?;
                let result = volume.read(extents, position, buffer);
                result.map_err(|error| note(&mut self.last_error, &disk.device, error))?;
            }
        }
        open.position += n as u64;
        Ok(n)
    }

    /// Moves the position of the next read; returns it in bytes from the start.
    ///
    /// # Errors
    /// `EBADF`; `EINVAL` for a position before the start or an unknown `whence`.
    pub fn seek(&mut self, fd: i32, offset: isize, whence: i32) -> Result<u64, i32> {
        let open = lookup(&mut self.open, fd)?;
        let from = match whence {
            SEEK_SET => 0,
            SEEK_CUR => open.position,
            SEEK_END => open.content.bytes(),
            _ => return Err(EINVAL),
        };
        let position = from.checked_add_signed(offset as i64).ok_or(EINVAL)?;
        // The ABI returns the position as a signed number.
        if position > isize::MAX as u64 {
            return Err(EINVAL);
        }
        open.position = position;
        Ok(position)
    }

    /// The metadata of an open file.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn fstat(&mut self, fd: i32) -> Result<stat, i32> {
        let content = &lookup(&mut self.open, fd)?.content;
        let (kind, bytes) = (content.kind(), content.bytes());
        Ok(self.stat_of(kind, bytes))
    }

    /// The metadata of the file or directory `path`.
    ///
    /// # Errors
    /// As for [`Files::open`].
    pub fn stat(&mut self, path: &str) -> Result<stat, i32> {
        if let Some(content) = self.pseudo_file(path)? {
            return Ok(self.stat_of(content.kind(), content.bytes()));
        }
        let entry = self.on_volume(|volume| volume.entry(path))?;
        Ok(self.stat_of(if entry.is_dir { S_IFDIR } else { S_IFREG }, entry.bytes))
    }

    /// Reads the next entries of a directory, as many as fit into `room` bytes.
    ///
    /// `write` is called with the position and the bytes of each record (`dirent64`, cut after the
    /// name). The result is the number of bytes; 0 at the end.
    ///
    /// # Errors
    /// `EBADF`, `ENOTDIR`; `EINVAL` if not even one record fits in `room` bytes.
    pub fn entries(
        &mut self,
        fd: i32,
        room: usize,
        write: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<usize, i32> {
        let open = lookup(&mut self.open, fd)?;
        let Content::Directory(entries) = &open.content else { return Err(ENOTDIR) };
        let mut used = 0;
        let mut next = open.position as usize;
        for entry in entries.iter().skip(next) {
            let record = directory_record(entry, next as u64 + 1);
            if used + record.len() > room {
                if used == 0 {
                    return Err(EINVAL);
                }
                break;
            }
            write(used, &record);
            used += record.len();
            next += 1;
        }
        open.position = next as u64;
        Ok(used)
    }

    fn content(&mut self, path: &str) -> Result<Content, i32> {
        if let Some(content) = self.pseudo_file(path)? {
            return Ok(content);
        }
        self.on_volume(|volume| {
            Ok(if volume.entry(path)?.is_dir {
                Content::Directory(volume.directory(path)?)
            } else {
                Content::Extents { kind: S_IFREG, extents: volume.extents(path)? }
            })
        })
    }

    fn pseudo_file(&self, path: &str) -> Result<Option<Content>, i32> {
        Ok(Some(match path {
            "/dev/disk" => {
                let bytes = self.mounted.as_ref().ok_or(ENODEV)?.disk.bytes;
                let extents = Vec::from([Extent { offset: 0, position: 0, bytes }]);
                Content::Extents { kind: S_IFBLK, extents }
            }
            "/proc/meminfo" => {
                let Memory { total_bytes, free_bytes } = self.memory.ok_or(ENODEV)?();
                let (total, free) = (total_bytes / 1024, free_bytes / 1024);
                // There are no caches to reclaim, so exactly the free memory is available.
                let text = format!(
                    "MemTotal:       {total:8} kB\nMemFree:        {free:8} kB\nMemAvailable:   {free:8} kB\n"
                );
                Content::Text(text.into_bytes())
            }
            "/proc/board" => Content::Text(self.board.ok_or(ENODEV)?().into_bytes()),
            "/proc/disk_error" if self.last_error.is_empty() => Content::Text(Vec::new()),
            "/proc/disk_error" => Content::Text(format!("{}\n", self.last_error).into_bytes()),
            _ => return Ok(None),
        }))
    }

    fn on_volume<R>(
        &mut self,
        work: impl FnOnce(&mut dyn FileSystem) -> Result<R, FsError>,
    ) -> Result<R, i32> {
        let Mounted { volume, disk } = self.mounted.as_mut().ok_or(ENODEV)?;
        work(&mut **volume).map_err(|error| note(&mut self.last_error, &disk.device, error))
    }

    fn stat_of(&self, kind: u32, bytes: u64) -> stat {
        let permissions = if kind == S_IFDIR { 0o555 } else { 0o444 };
        let time = timespec { tv_sec: 0, tv_nsec: 0 };
        stat {
            st_nlink: 1,
            st_mode: kind | permissions,
            st_size: bytes as i64,
            st_blksize: self.mounted.as_ref().map_or(0, |m| m.disk.cluster_bytes.into()).max(512),
            // The unit is 512 bytes, whatever the block size.
            st_blocks: bytes.div_ceil(512) as i64,
            st_atim: time,
            st_mtim: time,
            st_ctim: time,
            ..stat::default()
        }
    }
}

/// The open file behind a descriptor.
fn lookup(open: &mut [Option<Open>], fd: i32) -> Result<&mut Open, i32> {
    let slot = fd.checked_sub(FIRST_FD).and_then(|slot| usize::try_from(slot).ok());
    slot.and_then(|slot| open.get_mut(slot)?.as_mut()).ok_or(EBADF)
}

/// Keeps the text of an error for [`Files::last_error`]; returns the error number.
fn note(last_error: &mut String, device: &str, error: FsError) -> i32 {
    let number = match error {
        FsError::NotFound => return ENOENT,
        FsError::NotADirectory => return ENOTDIR,
        FsError::Disk(DiskError::Silent { .. }) => ETIMEDOUT,
        FsError::Disk(_) | FsError::Damaged(_) => EIO,
    };
    *last_error = format!("{device}: {error}");
    number
}

/// A `dirent64` as bytes, cut after the name and padded to its alignment.
fn directory_record(entry: &Entry, next: u64) -> Vec<u8> {
    // A FAT name has at most 255 UTF-16 units. Such a name fits into `d_name` only if it is mostly
    // ASCII.
    let mut end = entry.name.len().min(LONGEST_NAME_BYTES);
    while !entry.name.is_char_boundary(end) {
        end -= 1;
    }
    let name = &entry.name.as_bytes()[..end];
    let bytes =
        (DIRENT_HEADER_BYTES + name.len() + 1).next_multiple_of(align_of::<hermit_abi::dirent64>());
    let mut record = Vec::with_capacity(bytes);
    // There are no inode numbers; 0 would mean a deleted entry.
    record.extend_from_slice(&1_u64.to_ne_bytes());
    record.extend_from_slice(&next.to_ne_bytes());
    record.extend_from_slice(&(bytes as u16).to_ne_bytes());
    record.push(if entry.is_dir { DT_DIR } else { DT_REG });
    record.extend_from_slice(name);
    record.resize(bytes, 0);
    record
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
