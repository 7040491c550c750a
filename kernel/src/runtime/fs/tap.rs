//! The disk that `fatfs` reads, which notes the requested clusters.

#![forbid(unsafe_code)]

use core::cell::{Cell, RefCell};

use core_io::{Error, ErrorKind, Read, Seek, SeekFrom, Write};

use super::boot_sector::Geometry;
use super::cache::Cache;
use crate::runtime::dev::block::DiskError;

/// Error of a volume with a cluster chain that leads out of the volume.
pub const OUTSIDE: &str = "a cluster lies outside the volume";

/// State that the disk of `fatfs` and the code around `fatfs` share.
pub struct Wire<'a> {
    /// The device that holds the volume.
    pub device: RefCell<&'a mut Cache>,
    /// The first byte of the volume on the device.
    pub start: u64,
    /// The layout of the volume.
    pub geometry: Geometry,
    /// Whether `fatfs` has read the boot sector, and has only tables and clusters left.
    pub mounted: Cell<bool>,
    /// Whether `fatfs` is reading the root directory.
    ///
    /// On FAT12 and FAT16 the root directory lies outside the clusters.
    pub in_root: Cell<bool>,
    /// Bytes that may still be read; a longer read means that something is wrong.
    pub budget: Cell<u64>,
    /// Whether reads of clusters are only noted.
    pub tracing: Cell<bool>,
    /// Position of the last noted read.
    pub traced: Cell<Option<u64>>,
    /// The device error behind the error that `fatfs` got.
    pub failure: Cell<Option<DiskError>>,
}

/// The disk that `fatfs` reads: the volume, read-only.
pub struct Tap<'a> {
    /// The shared state.
    pub wire: &'a Wire<'a>,
    /// Position of the next read.
    pub position: u64,
}

impl Read for Tap<'_> {
    fn read(&mut self, out: &mut [u8]) -> core_io::Result<usize> {
        let Wire { geometry, .. } = self.wire;
        let position = self.position;
        let (start, end) = match (self.wire.mounted.get(), self.wire.in_root.get()) {
            (false, _) => (0, geometry.bytes),
            (true, true) => (geometry.fat_end, geometry.data_end()),
            (true, false) => (geometry.data_start, geometry.data_end()),
        };
        // A read of a table covers one entry, 2 or 4 bytes. A longer read is meant for a cluster
        // with an invalid number.
        let in_table = (geometry.fat_start..geometry.fat_end).contains(&position) && out.len() <= 4;
        if !in_table && !(start..end).contains(&position) {
            return Err(Error::new(ErrorKind::InvalidData, OUTSIDE));
        }
        let end = if in_table { geometry.fat_end } else { end };
        let n = out.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
        if self.wire.tracing.get() && !in_table {
            self.wire.traced.set(Some(position));
        } else {
            if !self.wire.tracing.get() {
                let Some(budget) = self.wire.budget.get().checked_sub(n as u64) else {
                    return Err(Error::new(ErrorKind::InvalidData, "a directory runs in a circle"));
                };
                self.wire.budget.set(budget);
            }
            let mut device = self.wire.device.borrow_mut();
            if let Err(error) = device.read(self.wire.start + position, &mut out[..n]) {
                self.wire.failure.set(Some(error));
                return Err(Error::new(ErrorKind::Other, "the device failed"));
            }
        }
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Tap<'_> {
    fn seek(&mut self, to: SeekFrom) -> core_io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.wire.geometry.bytes.checked_add_signed(by),
        };
        self.position =
            position.ok_or(Error::new(ErrorKind::InvalidInput, "a seek before the start"))?;
        Ok(self.position)
    }
}

impl Write for Tap<'_> {
    fn write(&mut self, _data: &[u8]) -> core_io::Result<usize> {
        Err(Error::new(ErrorKind::Other, "the volume is read only"))
    }

    fn flush(&mut self) -> core_io::Result<()> {
        Ok(())
    }
}
