//! Memory before the final map: the early map and the boot core's first stacks.

use core::ops::Range;

use super::stacks;
use crate::runtime::arch::handover::Raw;

/// Size of the boot core's first exception stack, in bytes.
pub const EXCEPTION_STACK_SIZE: usize = stacks::EXCEPTION_STACK_SIZE as usize;
/// Size of the boot core's first stack, which has no guard page, in bytes.
pub const STACK_SIZE: usize = 64 << 10;

/// The first stacks of the boot core.
pub static STACKS: Raw<[u8; EXCEPTION_STACK_SIZE + STACK_SIZE]> =
    Raw::new([0; EXCEPTION_STACK_SIZE + STACK_SIZE]);

/// The addresses of [`STACKS`].
pub fn stacks() -> Range<u64> {
    let start = STACKS.address();
    start..start + (EXCEPTION_STACK_SIZE + STACK_SIZE) as u64
}

/// Maximum size of a device tree, in bytes.
///
/// The boot protocol allows half of that. QEMU doubles the size of a tree that it gets in a file.
pub const MAX_TREE_SIZE: u32 = 4 << 20;
/// Whether the early map has `address`, as memory or as device memory.
pub fn is_on_map(address: u64) -> bool {
    address < 512 << 30
}
