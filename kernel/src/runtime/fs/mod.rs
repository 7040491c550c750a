//! Files: the model disk, its volumes and archives, and what is open there.
//!
//! From the bottom: [`cache`] reads small pieces of the device, [`boot_sector`] and [`partition`]
//! find a FAT volume, [`volume`] finds and reads its files, [`archive`] those of an initrd that is no
//! disk, which [`initrd`] finds in what the boot loader left, in a [`cpio`] archive or packed by
//! [`gzip`]. [`files`] gives them handles. The functions here work on the one table of open files that
//! there is.

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
/// event.
///
/// # Errors
/// There is no volume and no archive. The fault is that of the preferred disk, or of the first of
/// which more is known than that it holds no volume. It is kept for [`failure`] as well.
pub fn mount(disks: Vec<Disk>, archive: Option<Archive>) -> Result<report::Disk, Fault> {
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

/// Fills `buffer`, straight from the device where it is whole sectors: see [`Files::read`].
///
/// # Errors
/// See [`FileError`].
pub fn read(handle: Handle, buffer: Buffer) -> Result<usize, FileError> {
    FILES.lock().read(handle, buffer)
}

/// What an open file is: see [`Files::metadata`].
///
/// # Errors
/// See [`FileError`].
pub fn metadata(handle: Handle) -> Result<Metadata, FileError> {
    FILES.lock().metadata(handle)
}

/// The next entries of a directory: see [`Files::list`].
///
/// # Errors
/// See [`FileError`].
pub fn list(handle: Handle, take: &mut dyn FnMut(&Entry, u64) -> bool) -> Result<(), FileError> {
    FILES.lock().list(handle, take)
}

/// The last read that failed, or why nothing is mounted.
pub fn failure() -> Option<DiskFailure> {
    FILES.lock().failure().cloned()
}

#[cfg(test)]
mod tests;
