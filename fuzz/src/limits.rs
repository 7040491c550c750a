//! Bounds that hold for any input: of the memory that is taken, and of the time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The system's allocator, which counts what is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    let in_use = IN_USE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(in_use, Relaxed);
}

// SAFETY: the system's allocator does the work, with the caller's parameters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: upheld by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: upheld by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while the bytes move.
        count(size);
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: upheld by the caller.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: upheld by the caller.
        unsafe { System.dealloc(place, layout) }
    }
}

/// What work may take, by the size of its input.
pub struct Limits {
    /// Bytes of memory for each byte of the input, and for none.
    pub memory: (usize, usize),
    /// Time of the processor for each byte of the input, in ns. There are 100 ms besides.
    pub ns_per_byte: usize,
}

impl Limits {
    /// Does the work on an input of so many bytes.
    ///
    /// # Panics
    /// It takes more.
    #[track_caller]
    pub fn hold<R>(&self, input_bytes: usize, work: impl FnOnce() -> R) -> R {
        let before = IN_USE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let start = cpu_time();
        let result = work();
        let took = cpu_time().saturating_sub(start);
        let peak = PEAK.load(Relaxed).saturating_sub(before);
        let most = self.memory.0 * input_bytes + self.memory.1;
        assert!(peak <= most, "{peak} bytes of memory for {input_bytes} of input");
        let longest = Duration::from_nanos((self.ns_per_byte * input_bytes) as u64);
        let longest = longest + Duration::from_millis(100);
        assert!(took <= longest, "{took:?} for {input_bytes} bytes of input");
        result
    }
}

/// Time that this thread has run, whatever else the machine was doing.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
