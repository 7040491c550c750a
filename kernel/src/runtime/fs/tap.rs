//! The disk that `fatfs` sees: it notes where `fatfs` asks for clusters.

#![forbid(unsafe_code)]

use core::cell::{Cell, RefCell};

use core_io::{Error, ErrorKind, Read, Seek, SeekFrom, Write};

use super::boot_sector::Geometry;
use super::cache::Cache;
use crate::runtime::dev::block::DiskError;

/// What is wrong with a volume whose chains lead out of it.
pub const OUTSIDE: &str = "a cluster lies outside the volume";

/// What the disk that `fatfs` sees and the code around `fatfs` share.
pub struct Wire<'a> {
    /// Where the volume lies.
    pub device: RefCell<&'a mut Cache>,
    /// The first byte of the volume on the device.
    pub start: u64,
    /// The layout of the volume.
    pub geometry: Geometry,
    /// Whether `fatfs` has read the boot sector, so that only tables and clusters are left to read.
    pub mounted: Cell<bool>,
    /// Whether the root directory is being read, which lies outside the clusters on FAT12 and FAT16.
    pub in_root: Cell<bool>,
    /// Bytes that may still be read before something must be wrong.
    pub budget: Cell<u64>,
    /// Whether reads of clusters are only noted.
    pub tracing: Cell<bool>,
    /// Position of the last read that was noted.
    pub traced: Cell<Option<u64>>,
    /// The error of the device that `fatfs` was told about.
    pub failure: Cell<Option<DiskError>>,
}

/// The disk that `fatfs` sees: the volume, read only.
pub struct Tap<'a> {
    /// What it shares.
    pub wire: &'a Wire<'a>,
    /// Where the next read starts.
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
        // A read of a table is one of an entry, 2 or 4 bytes; anything longer is meant for a
        // cluster whose number is none.
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
