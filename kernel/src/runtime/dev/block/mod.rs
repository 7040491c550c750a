//! Block devices: the interface of drivers, and the reading common to all of them.
//!
//! A driver ([`BlockDevice`]) takes requests and hands them back when they are done, in any order.
//! [`Disk`] keeps the driver's queue full, retries failed requests, and gives up on a device that
//! has gone silent. There are drivers for virtio-blk ([`virtio`]), SD cards and eMMC ([`sdhci`]),
//! and a disk image in memory ([`ram`]).

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
    /// Destination of the data. The length is a multiple of the sector size, and not 0.
    pub buffer: Buffer,
    /// Number of failures of this very request.
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

    /// Maximum number of requests in flight; at least 1.
    fn queue_depth(&self) -> usize;

    /// Starts a read that lies inside the device.
    /// At most [`queue_depth`](Self::queue_depth) requests may be in flight.
    fn submit(&mut self, request: Request);

    /// Takes a request that has completed since the last call, if there is one.
    fn complete(&mut self) -> Option<Completion>;
}

/// An error of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The device failed to read this sector, several times.
    Unreadable {
        /// The sector.
        sector: u64,
    },
    /// The device has missed its timeout of [`disk::TIMEOUT_US`], now or earlier.
    /// The device may still write to the memory of its requests: see [`Buffer::new`].
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
