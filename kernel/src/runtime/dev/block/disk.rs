//! Reading through a queue: keeps it full, retries, and never waits for ever.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

use super::{BlockDevice, Buffer, DiskError, Request};

/// A device that completes nothing for so long, in µs, has gone silent.
pub const TIMEOUT_US: u64 = 30_000_000;

/// How often a single sector is tried before it counts as unreadable.
const ATTEMPTS: u32 = 3;

/// Time and waiting, as a disk needs them.
pub trait Clock: Send {
    /// Time that has passed since some fixed moment, in µs.
    fn now_us(&self) -> u64;

    /// Waits a little before the device is looked at again. `polls` counts how often that was in
    /// vain since the last completion, so that a short wait can spin and a long one can sleep.
    fn pause(&self, polls: u32);
}

/// A block device with the patience to read from it.
pub struct Disk {
    device: Box<dyn BlockDevice>,
    clock: Box<dyn Clock>,
    /// First sectors of the requests that the device has.
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

    /// Carries out all `requests`, as many at a time as the device takes.
    ///
    /// A request that fails is tried again in halves, down to the single sector, so that one bad
    /// sector is told apart from its good neighbours. After an error nothing new is started, and
    /// the call returns when the device has handed everything back. What failed and came all the
    /// same is logged: a device that does so may soon do worse.
    ///
    /// # Errors
    /// The first that is met. After [`DiskError::Silent`] the device still has the buffers, and
    /// every later read fails with the same error.
    ///
    /// # Panics
    /// If a buffer is no whole number of sectors long.
    pub fn read_queued(
        &mut self,
        requests: &mut dyn Iterator<Item = Request>,
    ) -> Result<(), DiskError> {
        if let Some(sector) = self.silent {
            return Err(DiskError::Silent { sector });
        }
        // What failed and is to be tried again, the next one last.
        let mut again: Vec<Request> = Vec::new();
        let mut error = None;
        // How many tries failed, and where the first of them began.
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

    /// Fills `buffer`, a whole number of sectors, from `sector` on, and gives it back.
    ///
    /// # Errors
    /// Those of [`Disk::read_queued`]. The buffer is freed, unless the device has gone silent: it
    /// may write to it at any later time, so the memory is given up for good.
    pub fn read(&mut self, sector: u64, buffer: Box<[u8]>) -> Result<Box<[u8]>, DiskError> {
        let memory = NonNull::from(Box::leak(buffer));
        // SAFETY: the memory came out of a box, so it is valid and nobody else's; it goes back
        // into one only when the device is done with it, which `Silent` alone does not promise.
        let lent = unsafe { Buffer::new(memory) };
        let result = self.read_queued(&mut core::iter::once(Request::new(sector, lent)));
        if let Err(error @ DiskError::Silent { .. }) = result {
            return Err(error);
        }
        // SAFETY: as above.
        let buffer = unsafe { Box::from_raw(memory.as_ptr()) };
        result.map(|()| buffer)
    }

    /// Hands a request to the device, if it lies inside the device.
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
