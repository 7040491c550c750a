//! Memory before the final map: the early map and the boot core's first stacks.

use core::ops::Range;

use super::stacks;
use crate::runtime::arch::handover::Raw;

/// Bytes of the boot core's first stack for exceptions.
pub const EXCEPTION_STACK_SIZE: usize = stacks::EXCEPTION_STACK_SIZE as usize;
/// Bytes of the stack on which the boot core runs until it has one with a guard page.
pub const STACK_SIZE: usize = 64 << 10;

/// The stacks on which the boot core starts.
pub static STACKS: Raw<[u8; EXCEPTION_STACK_SIZE + STACK_SIZE]> =
    Raw::new([0; EXCEPTION_STACK_SIZE + STACK_SIZE]);

/// Where [`STACKS`] lie.
pub fn stacks() -> Range<u64> {
    let start = STACKS.address();
    start..start + (EXCEPTION_STACK_SIZE + STACK_SIZE) as u64
}

/// Whether the early map has `address`, as memory or as a device's.
pub fn is_on_map(address: u64) -> bool {
    address < 512 << 30
}
