//! An allocator that keeps account of what each thread takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, as far as there is room.
pub struct Counting;

thread_local! {
    /// The largest allocation that this thread has room for, in bytes.
    pub static LARGEST: Cell<usize> = const { Cell::new(usize::MAX) };
    /// Allocations that this thread has made.
    pub static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Bytes that it has allocated and not freed.
    pub static LIVE: Cell<usize> = const { Cell::new(0) };
    /// The peak of the bytes in use.
    pub static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call either fails, as the contract allows, or goes to the system's allocator as it
// came. The cells have no destructor and are made at compile time, so they never allocate. The
// default `realloc` calls the two, so that both the old place and the new one count while it moves.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST.get() {
            return std::ptr::null_mut();
        }
        COUNT.set(COUNT.get() + 1);
        // Another thread may free what this one took, so the sums may wrap.
        let live = LIVE.get().wrapping_add(layout.size());
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps to the contract of `dealloc`, and `alloc` above is the system's.
        unsafe { System.dealloc(ptr, layout) }
    }
}
