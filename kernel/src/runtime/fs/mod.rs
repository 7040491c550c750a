//! Files: the model disk as the ABI presents it.
//!
//! The layers, from the bottom:
//!
//! - [`cache`] serves small reads of the device
//! - [`boot_sector`] and [`partition`] find a FAT volume
//! - [`volume`] finds and reads the files of a volume
//! - [`archive`] does the same for an initrd that is no disk image
//! - [`files`] gives handles to files
//!
//! The functions here serve the ABI, with the only table of open files.

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
mod tap;
#[cfg(test)]
pub(crate) mod testing;
pub mod volume;

use alloc::format;
use alloc::vec::Vec;

use crate::report::{self, Code, Fault};
use crate::runtime::dev::block::{Buffer, Disk};
use crate::runtime::sched::sleep_lock::SleepLock;
use crate::system::DiskFailure;
use archive::Archive;
use files::{FileError, Files, Handle, Metadata};
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
/// disk, and the read keeps the disk's queue full.
static FILES: SleepLock<Files> = SleepLock::new(Files::new());

const HINT_NO_DISK: &str = "give the machine a virtio block device, an SD card or an initrd with a FAT volume \
                            that holds models/NAME.gguf and anchorite.toml: `image-builder disk` \
                            makes one; an initrd may also be a cpio archive of these files";

/// Mounts the first FAT volume on `disks` at `/`, or else `archive`.
///
/// The result describes the file system for the `disk` event.
///
/// # Errors
/// There is no volume and no archive. The fault is that of the first disk of which more is known
/// than the lack of a volume. Without such a disk, the fault is that of the preferred disk. The
/// fault is kept for [`failure`] as well.
pub fn mount(disks: Vec<Disk>, archive: Option<Archive>) -> Result<report::Disk, Fault> {
    let mut reported: Option<(&str, MountError)> = None;
    for disk in disks {
        let device = disk.name();
        match Volume::find(disk) {
            Ok(volume) => return Ok(FILES.lock().mount(volume)),
            Err(error) => {
                log::debug!("{device}: {error}");
                let is_unknown = |error| matches!(error, MountError::NoVolume(_));
                if reported.is_none_or(|(_, before)| is_unknown(before) && !is_unknown(error)) {
                    reported = Some((device, error));
                }
            }
        }
    }
    if let Some(archive) = archive {
        return Ok(FILES.lock().mount(archive));
    }
    let Some((device, error)) = reported else {
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
    FILES.lock().note(DiskFailure { message: message.clone(), hint: Some(hint.into()) });
    Err(Fault { code, message, hint: hint.into() })
}

/// Opens a file or a directory: see [`Files::open`].
///
/// # Errors
/// See [`FileError`].
pub fn open(path: &str) -> Result<Handle, FileError> {
    FILES.lock().open(path)
}

/// Opens a directory: see [`Files::open_directory`].
///
/// # Errors
/// See [`FileError`].
pub fn open_directory(path: &str) -> Result<Handle, FileError> {
    FILES.lock().open_directory(path)
}

/// Closes a file or a directory: see [`Files::close`].
///
/// # Errors
/// See [`FileError`].
pub fn close(handle: Handle) -> Result<(), FileError> {
    FILES.lock().close(handle)
}

/// Fills `buffer` from a file: see [`Files::read`].
///
/// Whole sectors go straight from the device to the buffer.
///
/// # Errors
/// See [`FileError`].
pub fn read(handle: Handle, buffer: Buffer) -> Result<usize, FileError> {
    FILES.lock().read(handle, buffer)
}

/// Reads the metadata of an open file: see [`Files::metadata`].
///
/// # Errors
/// See [`FileError`].
pub fn metadata(handle: Handle) -> Result<Metadata, FileError> {
    FILES.lock().metadata(handle)
}

/// Lists the next entries of a directory: see [`Files::list`].
///
/// # Errors
/// See [`FileError`].
pub fn list(handle: Handle, take: &mut dyn FnMut(&Entry, u64) -> bool) -> Result<(), FileError> {
    FILES.lock().list(handle, take)
}

/// Describes the last failed read, or why nothing is mounted.
pub fn failure() -> Option<DiskFailure> {
    FILES.lock().failure().cloned()
}

#[cfg(test)]
mod tests;
