//! Data cache maintenance, for memory accesses that bypass the caches.
//!
//! Such accesses come from cores that are just being started, and from devices whose DMA is not
//! coherent.
//!
//! On an Apple M1 these instructions do nothing: m1n1 has switched them off (HID4,
//! `DISABLE_DC_MVA`). Memory accesses past the caches are coherent with the caches there.
//!
//! Source: Arm Architecture Reference Manual for A-profile, Arm DDI 0487, D7.5 ("Cache support").

use core::arch::asm;
use core::ops::Range;

use super::this_core::read_register;

/// Size of the smallest line of all data caches, in bytes.
fn line_bytes() -> u64 {
    // DminLine: log2 of the line's words.
    4 << (read_register!("ctr_el0") >> 16 & 0xf)
}

/// Cleans and invalidates the cache lines of `range`.
///
/// The caches write the lines' contents to memory, and forget the lines. This affects all caches
/// that are coherent with this core's caches.
///
/// # Safety
/// The range is mapped.
pub unsafe fn clean_and_invalidate(range: Range<u64>) {
    let line = line_bytes();
    let mut address = range.start & !(line - 1);
    while address < range.end {
        // SAFETY: the instruction changes no memory's contents. The caller promises that the memory
        // is mapped.
        unsafe { asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) };
        address += line;
    }
    // SAFETY: a barrier changes nothing.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Writes a value back to memory, where accesses past the caches see it.
pub fn write_back<T>(value: &T) {
    let start = core::ptr::from_ref(value) as u64;
    // SAFETY: a value behind a reference is mapped.
    unsafe { clean_and_invalidate(start..start + size_of::<T>() as u64) };
}
