//! The heap: all memory that nothing else uses.

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

/// Says how much RAM the machine has.
pub fn set_total(bytes: u64) {
    TOTAL.store(bytes, Ordering::Relaxed);
}

/// Gives the range to the heap.
///
/// # Safety
/// It is mapped, and nothing else uses it from now on.
pub unsafe fn add(range: Range<u64>) {
    let size = (range.end - range.start) as usize;
    // SAFETY: upheld by the caller. A range too small to hold anything is left out.
    unsafe { HEAP.lock().claim(range.start as *mut u8, size) };
}

/// Takes back the end of a block, so that the first `bytes` of it stay where they are.
///
/// # Safety
/// The block is one of this heap with this layout, of at least `bytes` bytes, which are more than 0; of the
/// rest nothing is used any more.
pub unsafe fn shrink(block: NonNull<u8>, layout: Layout, bytes: usize) {
    // SAFETY: upheld by the caller.
    unsafe { HEAP.lock().shrink(block.as_ptr(), layout, bytes) };
}

/// How much memory there is. After a fault another core may hold the heap for ever: the figure
/// is zero then.
pub fn memory() -> Memory {
    let free = HEAP.try_lock().map_or(0, |heap| heap.counters().available_bytes as u64);
    Memory { total_bytes: TOTAL.load(Ordering::Relaxed), free_bytes: free }
}
