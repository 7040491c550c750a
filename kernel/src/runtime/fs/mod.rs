//! Files: the model disk as the ABI shows it.
//!
//! From the bottom: [`cache`] reads small pieces of the device, [`boot_sector`] and [`partition`]
//! find a FAT volume, [`volume`] finds and reads its files, [`archive`] those of an initrd that is no
//! disk, [`files`] gives them descriptors. The
//! functions here are those of the ABI, over the one table of descriptors that there is.

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

/// What is mounted at `/`. Nothing in it is ever written.
///
/// The parts of a path are separated by `/`. Case does not matter.
pub trait FileSystem: Send {
    /// It and its device, for the `disk` event.
    fn report(&self) -> report::Disk;

    /// What the directories say about `path`.
    ///
    /// # Errors
    /// It does not exist, or the file system is damaged, or the device fails.
    fn entry(&mut self, path: &str) -> Result<Entry, FsError>;

    /// The entries of the directory `path`.
    ///
    /// # Errors
    /// As for [`FileSystem::entry`]; also if it is a file.
    fn directory(&mut self, path: &str) -> Result<Vec<Entry>, FsError>;

    /// Where the data of the file `path` lies, in the file's order.
    ///
    /// # Errors
    /// As for [`FileSystem::entry`].
    fn extents(&mut self, path: &str) -> Result<Vec<Extent>, FsError>;

    /// Fills `buffer` from `offset` on with the data that `extents` describe.
    ///
    /// # Errors
    /// The device fails, or there is less data.
    fn read(&mut self, extents: &[Extent], offset: u64, buffer: Buffer) -> Result<(), FsError>;
}

/// The open files of the machine. A read holds it until the data is there, and other cores sleep
/// meanwhile: there is one disk, whose queue the read keeps full.
static FILES: SleepLock<Files> = SleepLock::new(Files::new());

const HINT_NO_DISK: &str = "give the machine a virtio block device, an SD card or an initrd with a FAT volume \
                            that holds models/NAME.gguf and anchorite.toml: `image-builder disk` \
                            makes one; an initrd may also be a cpio archive of these files";

/// Mounts the first FAT volume on `disks` at `/`, or else `archive`, and describes it for the `disk`
/// event. `memory` is asked when `/proc/meminfo` is opened, `board` when `/proc/board` is, with or
/// without a volume.
///
/// # Errors
/// There is no volume and no archive. The fault is that of the preferred disk, or of the first of
/// which more is known than that it holds no volume. It is noted in `/proc/disk_error` as well.
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

/// Reads up to `len` bytes to `buffer`, straight from the device where it is whole sectors: see
/// [`Files::read`].
///
/// A disk that has gone silent may still write to the caller's memory, at any time. The caller can
/// neither use nor free it, and nobody can tell the caller's caller, so the run ends there.
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
    // SAFETY: 1 and 2; and where the disk has gone silent, the run ends below.
    let buffer = unsafe { Buffer::new(memory) };
    let result = FILES.lock().read(fd, buffer);
    result.map_or_else(|error| -error as isize, |n| n as isize)
}

/// A line about the last read that failed.
pub fn last_error() -> String {
    String::from(FILES.lock().last_error())
}

/// Moves the place of the next read: see [`Files::seek`].
pub fn lseek(fd: i32, offset: isize, whence: i32) -> isize {
    FILES.lock().seek(fd, offset, whence).map_or_else(|error| -error as isize, |at| at as isize)
}

/// Says what an open file is: see [`Files::fstat`].
///
/// # Safety
/// `result` is null or valid for a write.
pub unsafe fn fstat(fd: i32, result: *mut Stat) -> i32 {
    let stat = FILES.lock().fstat(fd);
    // SAFETY: upheld by the caller.
    unsafe { give(result, stat) }
}

/// Says what a path leads to: see [`Files::stat`].
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
    // SAFETY: as for `read`, which is what `room` asks for.
    let written = unsafe { lent::room(entries.cast(), bytes) }.and_then(|room| {
        FILES.lock().entries(fd, room.len(), &mut |at, record| {
            room[at..at + record.len()].write_copy_of_slice(record);
        })
    });
    written.map_or_else(|error| i64::from(-error), |n| n as i64)
}

/// # Safety
/// `name` is null or points to a string that ends with a zero byte, for as long as `'a`.
unsafe fn path<'a>(name: *const c_char) -> Result<&'a str, i32> {
    if name.is_null() {
        return Err(EFAULT);
    }
    // SAFETY: upheld by the caller. No name on a FAT volume is anything but Unicode.
    unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| ENOENT)
}

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
