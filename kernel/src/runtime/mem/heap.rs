//! The heap: all memory without another use.

use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use talc::TalcLock;
use talc::source::Manual;

use crate::runtime::arch::lock::RawSpinMutex;
use crate::system::Memory;

#[global_allocator]
static HEAP: TalcLock<RawSpinMutex, Manual> = TalcLock::new(Manual);

/// RAM that the device tree lists, in bytes.
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// Sets the RAM of the machine, in bytes.
pub fn set_total(bytes: u64) {
    TOTAL.store(bytes, Ordering::Relaxed);
}

/// Adds the range to the heap.
///
/// # Safety
/// The range is mapped, and nothing else uses it from now on.
pub unsafe fn add(range: Range<u64>) {
    let size = (range.end - range.start) as usize;
    // SAFETY: upheld by the caller. A range too small for a block is left out.
    unsafe { HEAP.lock().claim(range.start as *mut u8, size) };
}

/// Shrinks a block in place to its first `bytes` bytes.
///
/// # Safety
/// The block is one of this heap, with this layout. `bytes` is more than 0, and at most the size of
/// the block. Nothing uses the rest of the block any more.
pub unsafe fn shrink(block: NonNull<u8>, layout: Layout, bytes: usize) {
    // SAFETY: upheld by the caller.
    unsafe { HEAP.lock().shrink(block.as_ptr(), layout, bytes) };
}

/// The total and the free memory.
///
/// After a fault another core may hold the heap for ever. The free memory is 0 then.
pub fn memory() -> Memory {
    let free = HEAP.try_lock().map_or(0, |heap| heap.counters().available_bytes as u64);
    Memory { total_bytes: TOTAL.load(Ordering::Relaxed), free_bytes: free }
}
