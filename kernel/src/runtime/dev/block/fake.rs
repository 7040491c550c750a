//! A fake disk, which completes requests out of order and fails as scripted.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use super::{BlockDevice, Clock, Completion, Disk, Request};

/// The script of a fake disk, and a record of its requests.
#[derive(Default)]
pub struct Script {
    /// Sectors that fail, with the number of failures before a success.
    pub bad: BTreeMap<u64, u32>,
    /// A request with this sector never completes.
    pub never: Option<u64>,
    /// First sector and length in sectors of each request so far.
    pub log: Vec<(u64, u64)>,
    /// Maximum number of requests that were in flight at once.
    pub most_in_flight: usize,
}

/// A disk on an image in memory, which completes requests in a seeded order.
pub struct FakeDisk {
    image: Vec<u8>,
    sector_bytes: usize,
    depth: usize,
    queue: Vec<Request>,
    script: Arc<Mutex<Script>>,
    random: u64,
}

/// A clock whose pauses take 1 ms.
#[derive(Default)]
pub struct FakeClock(AtomicU64);

impl Clock for FakeClock {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn pause(&self, _polls: u32) {
        self.0.fetch_add(1000, Ordering::Relaxed);
    }
}

/// The next number of a xorshift generator.
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A [`Disk`] on `image`, and its script.
/// The sectors have `sector_bytes` bytes, and the queue has a depth of `depth`.
pub fn disk(image: Vec<u8>, sector_bytes: usize, depth: usize) -> (Disk, Arc<Mutex<Script>>) {
    let script = Arc::new(Mutex::new(Script::default()));
    let device = FakeDisk {
        image,
        sector_bytes,
        depth,
        queue: Vec::new(),
        script: script.clone(),
        random: 0x9E37_79B9_7F4A_7C15,
    };
    (Disk::new(Box::new(device), Box::new(FakeClock::default())), script)
}

impl BlockDevice for FakeDisk {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn sector_bytes(&self) -> usize {
        self.sector_bytes
    }

    fn sectors(&self) -> u64 {
        (self.image.len() / self.sector_bytes) as u64
    }

    fn queue_depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, request: Request) {
        let mut script = self.script.lock().unwrap();
        script.log.push((request.sector, (request.buffer.len() / self.sector_bytes) as u64));
        self.queue.push(request);
        assert!(self.queue.len() <= self.depth, "more requests than the queue holds");
        script.most_in_flight = script.most_in_flight.max(self.queue.len());
    }

    fn complete(&mut self) -> Option<Completion> {
        // Half of the polls find nothing done.
        if self.queue.is_empty() || random(&mut self.random).is_multiple_of(2) {
            return None;
        }
        let i = random(&mut self.random) as usize % self.queue.len();
        let mut script = self.script.lock().unwrap();
        let sector = self.queue[i].sector;
        let end = sector + (self.queue[i].buffer.len() / self.sector_bytes) as u64;
        if script.never.is_some_and(|never| (sector..end).contains(&never)) {
            return None;
        }
        let mut request = self.queue.swap_remove(i);
        let mut ok = true;
        for (_, failures) in script.bad.range_mut(sector..end) {
            if *failures > 0 {
                *failures -= 1;
                ok = false;
            }
        }
        if ok {
            let start = sector as usize * self.sector_bytes;
            request.buffer.fill_from(&self.image[start..start + request.buffer.len()]);
        }
        Some(Completion { request, ok })
    }
}
