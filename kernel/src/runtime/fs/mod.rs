//! Files: the model disk as the ABI presents it.
//!
//! The layers, from the bottom:
//!
//! - [`cache`] serves small reads of the device
//! - [`boot_sector`] and [`partition`] find a FAT volume
//! - [`volume`] finds and reads the files of a volume
//! - [`archive`] does the same for an initrd that is no disk image
//! - [`files`] gives descriptors to files
//!
//! The functions here are those of the ABI, over the only table of descriptors.

pub mod archive;
pub mod boot_sector;
pub mod cache;
pub mod cpio;
#[cfg(target_os = "none")]
pub mod disks;
pub mod files;
pub mod gzip;
pub mod initrd;
pub mod partition;
#[cfg(test)]
mod testing;
pub mod volume;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char};
use core::ptr::NonNull;

use hermit_abi::errno::{EFAULT, ENOENT};
use hermit_abi::{dirent64, stat as Stat};

use crate::report::{self, Code, Fault};
use crate::runtime::abi::lent;
use crate::runtime::dev::block::{Buffer, Disk};
use crate::runtime::sched::sleep_lock::SleepLock;
use archive::Archive;
use files::{Files, Memory};
use volume::{Entry, Extent, FsError, MountError, Volume};

/// A read-only file system, mounted at `/`.
///
/// The components of a path are separated by `/`. Case does not matter.
pub trait FileSystem: Send {
    /// Describes the file system and its device, for the `disk` event.
    fn report(&self) -> report::Disk;

    /// Reads the directory entry of `path`.
    ///
    /// # Errors
    /// The path does not exist, or the file system is damaged, or the device fails.
    fn entry(&mut self, path: &str) -> Result<Entry, FsError>;

    /// Reads the entries of the directory `path`.
    ///
    /// # Errors
    /// As for [`FileSystem::entry`]; also if `path` is a file.
    fn directory(&mut self, path: &str) -> Result<Vec<Entry>, FsError>;

    /// Finds the extents of the file `path`, in the file's order.
    ///
    /// # Errors
    /// As for [`FileSystem::entry`].
    fn extents(&mut self, path: &str) -> Result<Vec<Extent>, FsError>;

    /// Fills `buffer` with the data of `extents`, from `offset` on.
    ///
    /// # Errors
    /// The device fails, or there is less data.
    fn read(&mut self, extents: &[Extent], offset: u64, buffer: Buffer) -> Result<(), FsError>;
}

/// The open files of the machine.
///
/// A read holds the lock until its data is there, and other cores sleep meanwhile. There is one
/// disk, and the read keeps its queue full.
static FILES: SleepLock<Files> = SleepLock::new(Files::new());

const HINT_NO_DISK: &str = "give the machine a virtio block device, an SD card or an initrd with a FAT volume \
                            that holds models/NAME.gguf and anchorite.toml: `image-builder disk` \
                            makes one; an initrd may also be a cpio archive of these files";

/// Mounts the first FAT volume on `disks` at `/`, or else `archive`.
///
/// The result describes the volume for the `disk` event. `memory` is called when `/proc/meminfo` is
/// opened, and `board` when `/proc/board` is, with or without a volume.
///
/// # Errors
/// There is no volume and no archive. The fault is that of the preferred disk, or else of the first
/// disk with a more specific fault than "no volume". `/proc/disk_error` contains the fault as well.
pub fn mount(
    disks: Vec<Disk>,
    archive: Option<Archive>,
    memory: fn() -> Memory,
    board: fn() -> String,
) -> Result<report::Disk, Fault> {
    let mut files = FILES.lock();
    files.set_memory(memory);
    files.set_board(board);
    drop(files);
    let mut told: Option<(&str, MountError)> = None;
    for disk in disks {
        let device = disk.name();
        match Volume::find(disk) {
            Ok(volume) => return Ok(FILES.lock().mount(volume)),
            Err(error) => {
                log::debug!("{device}: {error}");
                let is_unknown = |error| matches!(error, MountError::NoVolume(_));
                if told.is_none_or(|(_, before)| is_unknown(before) && !is_unknown(error)) {
                    told = Some((device, error));
                }
            }
        }
    }
    if let Some(archive) = archive {
        return Ok(FILES.lock().mount(archive));
    }
    let Some((device, error)) = told else {
        return Err(Fault {
            code: Code::ModelNotFound,
            message: "there is no disk".into(),
            hint: HINT_NO_DISK.into(),
        });
    };
    let (code, hint) = match error {
        MountError::NoVolume(_) => (Code::ModelNotFound, HINT_NO_DISK),
        MountError::Other(format) => (Code::ModelNotFound, format.hint()),
        MountError::Unusable(_) | MountError::Fs(_) => (
            Code::DiskError,
            "make the disk anew with `image-builder disk`, or check it with fsck.fat on another \
             machine",
        ),
    };
    let message = format!("{device}: {error}");
    FILES.lock().note(format!("{message}\n{hint}"));
    Err(Fault { code, message, hint: hint.into() })
}

/// Opens a file or directory for reading: see [`Files::open`]. `mode` would be for a new file.
///
/// # Safety
/// `name` is null or points to a string that ends with a zero byte.
pub unsafe fn open(name: *const c_char, flags: i32, _mode: i32) -> i32 {
    // SAFETY: upheld by the caller.
    let path = unsafe { path(name) };
    path.and_then(|path| FILES.lock().open(path, flags)).unwrap_or_else(|error| -error)
}

/// Closes a descriptor: see [`Files::close`].
pub fn close(fd: i32) -> i32 {
    FILES.lock().close(fd).map_or_else(|error| -error, |()| 0)
}

/// Reads up to `len` bytes to `buffer`: see [`Files::read`].
///
/// Whole sectors come straight from the device. A disk that has gone silent may still write to the
/// caller's memory, at any time. The caller can neither use nor free that memory, and the ABI
/// cannot report this state. So the run ends there.
///
/// # Safety
/// Unless `buffer` is null:
///
/// 1. The `len` bytes from `buffer` on are valid for writes.
/// 2. Nobody else reads or writes them before the call returns.
pub unsafe fn read(fd: i32, buffer: *mut u8, len: usize) -> isize {
    let memory = match lent::memory(buffer, len) {
        Ok(memory) => memory,
        Err(error) => return -error as isize,
    };
    // SAFETY: 1 and 2; and if the disk has gone silent, the run ends below.
    let buffer = unsafe { Buffer::new(memory) };
    let result = FILES.lock().read(fd, buffer);
    result.map_or_else(|error| -error as isize, |n| n as isize)
}

/// The last failed read, as a line.
pub fn last_error() -> String {
    String::from(FILES.lock().last_error())
}

/// Moves the position of the next read: see [`Files::seek`].
pub fn lseek(fd: i32, offset: isize, whence: i32) -> isize {
    FILES.lock().seek(fd, offset, whence).map_or_else(|error| -error as isize, |at| at as isize)
}

/// Gets the metadata of an open file: see [`Files::fstat`].
///
/// # Safety
/// `result` is null or valid for a write.
pub unsafe fn fstat(fd: i32, result: *mut Stat) -> i32 {
    let stat = FILES.lock().fstat(fd);
    // SAFETY: upheld by the caller.
    unsafe { give(result, stat) }
}

/// Gets the metadata of a path: see [`Files::stat`].
///
/// # Safety
/// As for [`open`] and [`fstat`].
pub unsafe fn stat(name: *const c_char, result: *mut Stat) -> i32 {
    // SAFETY: upheld by the caller.
    let stat = unsafe { path(name) }.and_then(|path| FILES.lock().stat(path));
    // SAFETY: upheld by the caller.
    unsafe { give(result, stat) }
}

/// Reads entries of a directory: see [`Files::entries`].
///
/// # Safety
/// As for [`read`].
pub unsafe fn getdents64(fd: i32, entries: *mut dirent64, bytes: usize) -> i64 {
    // SAFETY: as for `read`, which is the contract of `room`.
    let written = unsafe { lent::room(entries.cast(), bytes) }.and_then(|room| {
        FILES.lock().entries(fd, room.len(), &mut |at, record| {
            room[at..at + record.len()].write_copy_of_slice(record);
        })
    });
    written.map_or_else(|error| i64::from(-error), |n| n as i64)
}

/// Converts a path of the ABI.
///
/// # Safety
/// `name` is null or points to a string that ends with a zero byte, for as long as `'a`.
unsafe fn path<'a>(name: *const c_char) -> Result<&'a str, i32> {
    if name.is_null() {
        return Err(EFAULT);
    }
    // SAFETY: upheld by the caller. Names on a FAT volume are always Unicode.
    unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| ENOENT)
}

/// Writes the metadata to `place`; returns 0 or a negative error number.
///
/// # Safety
/// `place` is null or valid for a write.
unsafe fn give(place: *mut Stat, stat: Result<Stat, i32>) -> i32 {
    match (stat, NonNull::new(place)) {
        (Err(error), _) => -error,
        (Ok(_), None) => -EFAULT,
        (Ok(stat), Some(place)) => {
            // SAFETY: upheld by the caller.
            unsafe { place.write(stat) };
            0
        }
    }
}

#[cfg(test)]
mod tests;
