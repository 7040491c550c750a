//! The way from the firmware to Rust: `boot.s`, its constants, and its callees.
//!
//! The boot protocol is Linux's (Documentation/arch/arm64/booting.rst). x0 holds the device tree,
//! the MMU is off, and the core is at EL2 or EL1. The image lies on any 2 MiB boundary.
//!
//! Each core then runs at EL1, or stays at EL2 where the host extensions are on already. Apple's
//! cores cannot turn the host extensions off, and m1n1 leaves the extensions on. At EL2, the same
//! register names reach the EL2 registers, so the same code serves both levels.
//!
//! The state that `boot.s` leaves to Rust:
//!
//! - The MMU and the caches are on, the image is relocated, and `.bss` is clear.
//! - Interrupts are masked for good. SError is not masked: an SError is a fault like others.
//! - SP_EL0 has a stack, SP_ELx an exception stack, `TPIDR_EL1` the number of the core.
//! - The vectors are in place. PAN is on if the core has it.

use core::arch::global_asm;

use super::{map, start};
use crate::runtime::arch::handover::WAITING;
use crate::runtime::arch::this_core::MAX_CORES;
use crate::runtime::mem::early;
use crate::runtime::mem::mmu::{self, Table};
use crate::runtime::sched::smp;

/// Number of tables of the early map.
///
/// There are the root, and one table for the lowest 512 GiB. The image and the device tree may each
/// cross a border, so each has two tables of level 1 and two of level 2.
const EARLY_TABLES: usize = 2 + 2 * (2 + 2);
/// Offset of the device tree's address in the boot information of Hermit's loader.
///
/// Three words of 64 bits precede the address in `RawHardwareInfo`. `RawHardwareInfo` is the first
/// part of `hermit_entry::boot_info::RawBootInfo`.
const HERMIT_DEVICE_TREE: usize = 24;

global_asm!(
    include_str!("boot.s"),
    DEVICE_BLOCK_HIGH = const mmu::DEVICE_BLOCK >> 48,
    DEVICE_BLOCK_LOW = const mmu::DEVICE_BLOCK & 0xffff,
    DATA_BLOCK_HIGH = const mmu::EARLY_DATA_BLOCK >> 48,
    DATA_BLOCK_LOW = const mmu::EARLY_DATA_BLOCK & 0xffff,
    CODE_BLOCK_LOW = const mmu::EARLY_CODE_BLOCK,
    MAX_TREE_SIZE = const early::MAX_TREE_SIZE,
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
    TABLES = sym map::TABLES,
    WAITING = sym WAITING,
    MAX_CORES = const MAX_CORES,
    boot_core_main = sym boot_core_main,
    secondary_core_main = sym secondary_core_main,
);

const _: () = {
    // `boot.s` builds these constants with two 16-bit moves each.
    assert!(mmu::MAIR >> 32 == 0 && mmu::TCR >> 32 == 0 && mmu::SCTLR >> 32 == 0);
    assert!((mmu::DEVICE_BLOCK | mmu::EARLY_DATA_BLOCK) & 0x0000_ffff_ffff_0000 == 0);
    // `boot.s` builds these constants with one move each.
    assert!(mmu::EARLY_CODE_BLOCK >> 16 == 0 && early::MAX_TREE_SIZE & 0xffff == 0);
    assert!(EARLY_TABLES * size_of::<Table>() < 1 << 16);
};

extern "C" fn boot_core_main(device_tree: *const u8, exception_level: u64, counter: u64) -> ! {
    start::start(device_tree, exception_level as u8, counter)
}

extern "C" fn secondary_core_main(core: u64) -> ! {
    smp::run(core as usize)
}
