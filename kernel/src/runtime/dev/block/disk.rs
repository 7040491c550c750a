//! Reads through a device's queue, with retries and a timeout.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

use super::{BlockDevice, Buffer, DiskError, Request};

/// Timeout of a device, in µs.
///
/// A device that completes nothing for this time has gone silent.
pub const TIMEOUT_US: u64 = 30_000_000;

/// Attempts to read a single sector before it counts as unreadable.
const ATTEMPTS: u32 = 3;

/// A clock that can wait.
pub trait Clock: Send {
    /// Time since a fixed moment, in µs.
    fn now_us(&self) -> u64;

    /// Pauses before the next poll of the device.
    ///
    /// `polls` is the number of polls without result since the last completion. So a short wait can
    /// spin, and a long wait can sleep.
    fn pause(&self, polls: u32);
}

/// A block device with its queue and its timeout.
pub struct Disk {
    device: Box<dyn BlockDevice>,
    clock: Box<dyn Clock>,
    /// First sectors of the requests in flight.
    in_flight: Vec<u64>,
    /// The sector that was waited for when the device went silent.
    silent: Option<u64>,
}

impl Disk {
    /// A disk on `device`.
    pub fn new(device: Box<dyn BlockDevice>, clock: Box<dyn Clock>) -> Disk {
        let in_flight = Vec::with_capacity(device.queue_depth());
        Disk { device, clock, in_flight, silent: None }
    }

    /// The name of the kind of device.
    pub fn name(&self) -> &'static str {
        self.device.name()
    }

    /// Bytes in a sector.
    pub fn sector_bytes(&self) -> usize {
        self.device.sector_bytes()
    }

    /// Number of sectors.
    pub fn sectors(&self) -> u64 {
        self.device.sectors()
    }

    /// Size of the device in bytes.
    pub fn bytes(&self) -> u64 {
        self.sectors().saturating_mul(self.sector_bytes() as u64)
    }

    /// Carries out all `requests`, with as many in flight as the device takes.
    ///
    /// A failed request is tried again in halves, down to single sectors. So one bad sector is
    /// found among good neighbours. After an error no new request is started. The call returns when
    /// the device has handed back all buffers. Requests that succeed after a failure are logged:
    /// such a device may soon do worse.
    ///
    /// # Errors
    /// The first error. After [`DiskError::Silent`] the device still has the buffers, and every
    /// later read fails with the same error.
    ///
    /// # Panics
    /// If the length of a buffer is no whole number of sectors.
    pub fn read_queued(
        &mut self,
        requests: &mut dyn Iterator<Item = Request>,
    ) -> Result<(), DiskError> {
        if let Some(sector) = self.silent {
            return Err(DiskError::Silent { sector });
        }
        // Failed requests to be tried again, the next one last.
        let mut again: Vec<Request> = Vec::new();
        let mut error = None;
        // Number of failed attempts, and the first sector of the first of them.
        let mut failures = 0_u64;
        let mut first_failure = None;
        let mut polls = 0;
        let mut last_progress = self.clock.now_us();
        loop {
            while error.is_none() && self.in_flight.len() < self.device.queue_depth() {
                let Some(request) = again.pop().or_else(|| requests.next()) else { break };
                error = self.submit(request).err();
            }
            if self.in_flight.is_empty() {
                if let (None, Some(sector)) = (error, first_failure) {
                    let name = self.name();
                    log::warn!(
                        "{name}: failed reads: {failures}, the first at sector {sector}; each came when \
                         tried again"
                    );
                }
                return error.map_or(Ok(()), Err);
            }
            let Some(done) = self.device.complete() else {
                if self.clock.now_us().saturating_sub(last_progress) > TIMEOUT_US {
                    let sector = self.in_flight.iter().copied().min().unwrap_or_default();
                    self.silent = Some(sector);
                    return Err(DiskError::Silent { sector });
                }
                self.clock.pause(polls);
                polls = polls.saturating_add(1);
                continue;
            };
            polls = 0;
            last_progress = self.clock.now_us();
            let mut request = done.request;
            if let Some(i) = self.in_flight.iter().position(|&s| s == request.sector) {
                self.in_flight.swap_remove(i);
            }
            if done.ok {
                continue;
            }
            failures += 1;
            first_failure.get_or_insert(request.sector);
            let sectors = request.buffer.len() / self.sector_bytes();
            if sectors > 1 {
                let half = sectors / 2;
                let (first, second) = request.buffer.split_at(half * self.sector_bytes());
                again.push(Request::new(request.sector + half as u64, second));
                again.push(Request::new(request.sector, first));
            } else if request.failures + 1 < ATTEMPTS {
                request.failures += 1;
                again.push(request);
            } else if error.is_none() {
                error = Some(DiskError::Unreadable { sector: request.sector });
            }
        }
    }

    /// Fills `buffer` with whole sectors from `sector` on, and returns the buffer.
    ///
    /// # Errors
    /// Those of [`Disk::read_queued`]. The buffer is freed, unless the device has gone silent. A
    /// silent device may write to the buffer at any later time, so the memory is leaked.
    pub fn read(&mut self, sector: u64, buffer: Box<[u8]>) -> Result<Box<[u8]>, DiskError> {
        let memory = NonNull::from(Box::leak(buffer));
        // SAFETY: the memory came out of a box, so it is valid and nobody else's. The memory goes
        // back into a box only when the device is done with it, which `Silent` alone does not
        // promise.
        let lent = unsafe { Buffer::new(memory) };
        let result = self.read_queued(&mut core::iter::once(Request::new(sector, lent)));
        if let Err(error @ DiskError::Silent { .. }) = result {
            return Err(error);
        }
        // SAFETY: as above.
        let buffer = unsafe { Box::from_raw(memory.as_ptr()) };
        result.map(|()| buffer)
    }

    /// Submits a request to the device, if the request lies inside the device.
    fn submit(&mut self, request: Request) -> Result<(), DiskError> {
        let bytes = request.buffer.len();
        assert!(bytes > 0 && bytes.is_multiple_of(self.sector_bytes()), "a read of {bytes} bytes");
        let sectors = (bytes / self.sector_bytes()) as u64;
        match request.sector.checked_add(sectors) {
            Some(end) if end <= self.sectors() => {
                self.in_flight.push(request.sector);
                self.device.submit(request);
                Ok(())
            }
            _ => Err(DiskError::OutOfRange { sector: request.sector.max(self.sectors()) }),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
