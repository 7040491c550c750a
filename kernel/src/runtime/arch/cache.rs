//! Data caches, for what else reads and writes memory without them: cores that are just being started,
//! and devices whose DMA is not coherent.
//!
//! On an Apple M1 these instructions do nothing: m1n1 has them switched off (HID4, `DISABLE_DC_MVA`), as
//! memory accesses past the caches are coherent with them there.
//!
//! Source: Arm Architecture Reference Manual for A-profile, Arm DDI 0487, D7.5 ("Cache support").

use core::arch::asm;
use core::ops::Range;

use super::this_core::read_register;

/// Bytes of the smallest line of all data caches.
fn line_bytes() -> u64 {
    // DminLine: the logarithm of its words.
    4 << (read_register!("ctr_el0") >> 16 & 0xf)
}

/// Writes what the caches hold of `range` to memory, and lets them forget it: all caches that are
/// coherent with this core's.
///
/// # Safety
/// The range is mapped.
pub unsafe fn clean_and_invalidate(range: Range<u64>) {
    let line = line_bytes();
    let mut address = range.start & !(line - 1);
    while address < range.end {
        // SAFETY: changes no memory's contents; it is mapped, says the caller.
        unsafe { asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) };
        address += line;
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Writes a value to memory, where it can be seen without a cache.
pub fn write_back<T>(value: &T) {
    let start = core::ptr::from_ref(value) as u64;
    // SAFETY: a value that can be referred to is mapped.
    unsafe { clean_and_invalidate(start..start + size_of::<T>() as u64) };
}
