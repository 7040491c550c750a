//! Block devices: what a driver of a disk must be able to do, and the reading that is common to
//! all of them.
//!
//! A driver ([`BlockDevice`]) takes requests and hands them back when they are done, in any order.
//! [`Disk`] keeps its queue full, tries again what failed, and gives up on a device that has gone
//! silent. Drivers: virtio-blk ([`virtio`]), SD cards and eMMC ([`sdhci`]) and a disk image in memory
//! ([`ram`]).

pub mod buffer;
pub mod disk;
#[cfg(test)]
pub mod fake;
pub mod ram;
pub mod sdhci;
pub mod virtio;

pub use buffer::Buffer;
pub use disk::{Clock, Disk};

use core::fmt;

/// A read of whole sectors.
#[derive(Debug)]
pub struct Request {
    /// The first sector.
    pub sector: u64,
    /// Where the data goes; its length is a multiple of the sector size, and not 0.
    pub buffer: Buffer,
    /// How often this very request has failed.
    failures: u32,
}

impl Request {
    /// A read into `buffer` from `sector` on.
    pub fn new(sector: u64, buffer: Buffer) -> Request {
        Request { sector, buffer, failures: 0 }
    }
}

/// A request that the device is done with.
#[derive(Debug)]
pub struct Completion {
    /// The request as it was submitted.
    pub request: Request,
    /// Whether the data is in the buffer.
    pub ok: bool,
}

/// A driver of a block device.
///
/// A driver never waits for data: [`Disk`] does.
pub trait BlockDevice: Send {
    /// The name of the kind of device, as the `disk` event shows it.
    fn name(&self) -> &'static str;

    /// Bytes in a sector: a power of two, 512 or more.
    fn sector_bytes(&self) -> usize;

    /// Number of sectors.
    fn sectors(&self) -> u64;

    /// How many requests the device takes at once; at least 1.
    fn queue_depth(&self) -> usize;

    /// Starts a read that lies inside the device. At most [`queue_depth`](Self::queue_depth)
    /// requests may be under way.
    fn submit(&mut self, request: Request);

    /// A request that has been completed since the last call, if there is one.
    fn complete(&mut self) -> Option<Completion>;
}

/// Why a read failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The device failed to read this sector, several times.
    Unreadable {
        /// The sector.
        sector: u64,
    },
    /// The device has not answered for [`disk::TIMEOUT_US`], or had not earlier on. It may still
    /// write to the memory that it was given: see [`Buffer::new`].
    Silent {
        /// The lowest sector that was waited for.
        sector: u64,
    },
    /// The device ends before this sector.
    OutOfRange {
        /// The sector.
        sector: u64,
    },
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskError::Unreadable { sector } => write!(f, "sector {sector} cannot be read"),
            DiskError::Silent { sector } => {
                let seconds = disk::TIMEOUT_US / 1_000_000;
                write!(f, "no answer from the device within {seconds} s (sector {sector})")
            }
            DiskError::OutOfRange { sector } => {
                write!(f, "sector {sector} is past the end of the device")
            }
        }
    }
}

impl core::error::Error for DiskError {}
