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

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::ops::Range;

use super::mmu::{self, Table};
use super::{cores, stacks};
use crate::cpu::Midr;

const EXCEPTION_STACK_SIZE: usize = stacks::EXCEPTION_STACK_SIZE as usize;
/// Bytes of the stack on which the boot core runs until it has one with a guard page.
const EARLY_STACK_SIZE: usize = 64 << 10;

/// The largest device tree that is read, in bytes. The boot protocol allows half of that, but QEMU
/// doubles a tree that it is given in a file.
pub const MAX_TREE_SIZE: u32 = 4 << 20;
/// Tables of the early map: the root and the lowest 512 GiB; and for the image and the device tree,
/// each of which may cross a border, two of level 1 and two of level 2.
const EARLY_TABLES: usize = 2 + 2 * (2 + 2);
/// Offset of the device tree's address in the boot information of Hermit's loader: it follows three
/// words of 64 bits in `RawHardwareInfo`, the first part of `hermit_entry::boot_info::RawBootInfo`.
const HERMIT_DEVICE_TREE: usize = 24;

/// Memory that only `boot.s` or the processor touch.
#[repr(C, align(4096))]
pub struct Raw<T>(UnsafeCell<T>);

impl<T> Raw<T> {
    /// Holds `value`.
    pub const fn new(value: T) -> Self {
        Raw(UnsafeCell::new(value))
    }
}

// SAFETY: Rust never makes a reference to what is inside.
unsafe impl<T> Sync for Raw<T> {}

static EARLY_STACKS: Raw<[u8; EXCEPTION_STACK_SIZE + EARLY_STACK_SIZE]> =
    Raw::new([0; EXCEPTION_STACK_SIZE + EARLY_STACK_SIZE]);

/// Tables of the final map for all but the heap: QEMU's `virt` uses about ten of them, a framebuffer up to six.
static TABLES: [Table; 32] = [const { Table::empty() }; 32];

/// What a core finds when it is started: `boot.s` reads it at these offsets.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Handover {
    /// Top of the stack for exceptions.
    pub exception_stack_top: u64,
    /// Top of the stack.
    pub stack_top: u64,
    /// Number of the core.
    pub core: u64,
}

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
    EARLY_STACKS = sym EARLY_STACKS,
    EXCEPTION_STACK_SIZE = const EXCEPTION_STACK_SIZE,
    EARLY_STACK_SIZE = const EARLY_STACK_SIZE,
    TABLES = sym TABLES,
    WAITING = sym cores::WAITING,
    MAX_CORES = const cores::MAX_CORES,
    boot_core_main = sym boot_core_main,
    secondary_core_main = sym secondary_core_main,
);

unsafe extern "C" {
    /// Where a core that firmware starts enters; x0 is the address of its [`Handover`].
    pub fn secondary_core() -> !;
    /// Where a core from a spin table enters, to wait for its [`Handover`] in
    /// [`cores::WAITING`].
    pub fn waiting_core() -> !;
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

/// Whether the early map has `address`, as memory or as a device's.
pub fn is_on_early_map(address: u64) -> bool {
    address < 512 << 30
}

/// Bits of a physical address, as the core has them, but no more than a table of 4 KiB pages holds
/// without extensions: `ID_AA64MMFR0_EL1.PARange` (Arm DDI 0487, D24.2).
pub fn physical_address_bits() -> u32 {
    let register: u64;
    // SAFETY: reads a register.
    unsafe {
        asm!("mrs {}, id_aa64mmfr0_el1", out(reg) register,
            options(nomem, nostack, preserves_flags));
    }
    match register & 0xf {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}

/// Whether the runtime has stayed at EL2: see the head of this file.
pub fn is_at_el2() -> bool {
    let level: u64;
    // SAFETY: reads a register.
    unsafe {
        asm!("mrs {}, CurrentEL", out(reg) level,
            options(nomem, nostack, preserves_flags));
    }
    level >> 2 == 2
}

/// `HCR_EL2`: what the boot loader has left in it, and what `boot.s` adds. `None` at EL1.
pub fn hypervisor_configuration() -> Option<u64> {
    if !is_at_el2() {
        return None;
    }
    let register: u64;
    // SAFETY: reads a register, which EL2 may.
    unsafe {
        asm!("mrs {}, hcr_el2", out(reg) register,
            options(nomem, nostack, preserves_flags));
    }
    Some(register)
}

/// `CPUECTLR_EL1` of a Cortex-A72: among others, how far it prefetches (bits 32, 33, 35 and 36). `None`
/// where reading it could end in an exception.
///
/// A read is allowed at EL1 unless EL2 traps it by `HCR_EL2.TIDCP`, which is off where `boot.s` has come
/// from EL2. The register is not written: `ACTLR_EL3` says whether that is allowed, which EL2 cannot read, and
/// a write that is not goes to EL3 (Cortex-A72 TRM, Arm 100095, 4.3.67).
pub fn cortex_a72_settings(exception_level_at_entry: u8) -> Option<u64> {
    let midr = Midr::of_this_core();
    if exception_level_at_entry != 2 || (midr.implementer(), midr.part()) != (0x41, 0xd08) {
        return None;
    }
    let register: u64;
    // SAFETY: reads a register, which this core has.
    unsafe {
        asm!("mrs {}, s3_1_c15_c2_1", out(reg) register,
            options(nomem, nostack, preserves_flags));
    }
    Some(register)
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

/// The stack on which the boot core starts.
pub fn early_stacks() -> Range<u64> {
    let start = EARLY_STACKS.0.get() as u64;
    start..start + (EXCEPTION_STACK_SIZE + EARLY_STACK_SIZE) as u64
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
    super::start::start(device_tree, exception_level as u8, counter)
}

extern "C" fn secondary_core_main(core: u64) -> ! {
    super::cores::run(core as usize)
}
