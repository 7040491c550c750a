//! The way from the firmware to Rust: `boot.s`, and the stacks and constants that it uses.
//!
//! The boot protocol is Linux's (Documentation/arch/arm64/booting.rst): x0 holds the device
//! tree, MMU off, EL2 or EL1, the image on any 2 MiB boundary. Each core then runs at EL1, or
//! at EL2 where the host extensions are on already, as m1n1 leaves them on Apple's cores, which cannot
//! turn them off: there the same register names reach the EL2 registers and the same code serves both.
//!
//! What `boot.s` promises to Rust: MMU and caches are on, the image is relocated, `.bss` is clear.
//! Interrupts are masked for good, but not SError, which is a fault like others. SP_EL0 has a stack,
//! SP_ELx an exception stack, `TPIDR_EL1` the number of the core. The vectors are in place, and PAN is
//! on where there is one.

use core::arch::global_asm;

use super::start;
use crate::runtime::arch::handover::{Handover, WAITING};
use crate::runtime::arch::this_core::MAX_CORES;
use crate::runtime::mem::early;
use crate::runtime::mem::mmu::{self, Table};
use crate::runtime::sched::smp;

/// The largest device tree that is read, in bytes. The boot protocol allows half of that, but QEMU
/// doubles a tree that it is given in a file.
pub const MAX_TREE_SIZE: u32 = 4 << 20;
/// Tables of the early map: the root and the lowest 512 GiB; and for the image and the device tree,
/// each of which may cross a border, two of level 1 and two of level 2.
const EARLY_TABLES: usize = 2 + 2 * (2 + 2);
/// Offset of the device tree's address in the boot information of Hermit's loader: it follows three
/// words of 64 bits in `RawHardwareInfo`, the first part of `hermit_entry::boot_info::RawBootInfo`.
const HERMIT_DEVICE_TREE: usize = 24;

/// Tables of the final map for all but the heap: QEMU's `virt` uses about ten of them, a framebuffer up to six.
static TABLES: [Table; 32] = [const { Table::empty() }; 32];

global_asm!(
    include_str!("boot.s"),
    DEVICE_BLOCK_HIGH = const mmu::DEVICE_BLOCK >> 48,
    DEVICE_BLOCK_LOW = const mmu::DEVICE_BLOCK & 0xffff,
    DATA_BLOCK_HIGH = const mmu::EARLY_DATA_BLOCK >> 48,
    DATA_BLOCK_LOW = const mmu::EARLY_DATA_BLOCK & 0xffff,
    CODE_BLOCK_LOW = const mmu::EARLY_CODE_BLOCK,
    MAX_TREE_SIZE = const MAX_TREE_SIZE,
    EARLY_TABLES_SIZE = const EARLY_TABLES * size_of::<Table>(),
    HERMIT_DEVICE_TREE = const HERMIT_DEVICE_TREE,
    MAIR_LOW = const mmu::MAIR & 0xffff,
    MAIR_HIGH = const mmu::MAIR >> 16,
    TCR_LOW = const mmu::TCR & 0xffff,
    TCR_HIGH = const mmu::TCR >> 16,
    SCTLR_OFF_LOW = const mmu::SCTLR_OFF & 0xffff,
    SCTLR_OFF_HIGH = const mmu::SCTLR_OFF >> 16,
    SCTLR_EARLY_LOW = const mmu::SCTLR_EARLY & 0xffff,
    SCTLR_EARLY_HIGH = const mmu::SCTLR_EARLY >> 16,
    SCTLR_LOW = const mmu::SCTLR & 0xffff,
    SCTLR_HIGH = const mmu::SCTLR >> 16,
    EARLY_STACKS = sym early::STACKS,
    EXCEPTION_STACK_SIZE = const early::EXCEPTION_STACK_SIZE,
    EARLY_STACK_SIZE = const early::STACK_SIZE,
    TABLES = sym TABLES,
    WAITING = sym WAITING,
    MAX_CORES = const MAX_CORES,
    boot_core_main = sym boot_core_main,
    secondary_core_main = sym secondary_core_main,
);

unsafe extern "C" {
    fn set_root_table(root: u64, sctlr: u64);
    fn move_to_stacks(handover: &Handover, run: extern "C" fn() -> !) -> !;
}

const _: () = {
    // `boot.s` builds these with two 16-bit moves.
    assert!(mmu::MAIR >> 32 == 0 && mmu::TCR >> 32 == 0 && mmu::SCTLR >> 32 == 0);
    assert!((mmu::DEVICE_BLOCK | mmu::EARLY_DATA_BLOCK) & 0x0000_ffff_ffff_0000 == 0);
    // And these with one.
    assert!(mmu::EARLY_CODE_BLOCK >> 16 == 0 && MAX_TREE_SIZE & 0xffff == 0);
    assert!(EARLY_TABLES * size_of::<Table>() < 1 << 16);
};

/// The first tables of the final map and their physical address.
pub fn tables() -> (&'static [Table], u64) {
    (&TABLES, (&raw const TABLES) as u64)
}

/// Makes the tables at `root` this core's map.
///
/// # Safety
/// They map the image and everything in use as the early map does, and whoever changes them later
/// keeps to what the architecture asks for.
pub unsafe fn use_tables(root: u64) {
    // SAFETY: upheld by the caller. Both maps are identity maps, so that nothing moves.
    unsafe { set_root_table(root, mmu::SCTLR) }
}

/// Leaves the early stacks for those in `handover` and calls `run` there.
///
/// # Safety
/// The stacks are mapped, and no one else uses them.
pub unsafe fn move_to(handover: &Handover, run: extern "C" fn() -> !) -> ! {
    // SAFETY: upheld by the caller. Nothing on the stack that is left is used again.
    unsafe { move_to_stacks(handover, run) }
}

extern "C" fn boot_core_main(device_tree: *const u8, exception_level: u64, counter: u64) -> ! {
    start::start(device_tree, exception_level as u8, counter)
}

extern "C" fn secondary_core_main(core: u64) -> ! {
    smp::run(core as usize)
}
