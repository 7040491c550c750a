//! The calling core: its number and its registers.

use core::arch::asm;

use crate::cpu::Midr;
use crate::runtime::machine;

/// The most cores that take part.
pub const MAX_CORES: usize = machine::MAX_CPUS;

/// Reads a system register.
///
/// The register must be one that can be read at the current exception level without an effect.
macro_rules! read_register {
    ($name:literal) => {{
        let register: u64;
        // SAFETY: reads a register, which changes nothing; where it exists is the macro's contract.
        unsafe {
            asm!(concat!("mrs {}, ", $name), out(reg) register,
                options(nomem, nostack, preserves_flags));
        }
        register
    }};
}
pub(crate) use read_register;

/// The number of the calling core, which `boot.s` has set: 0 for the boot core.
pub fn current() -> usize {
    read_register!("tpidr_el1") as usize
}

/// Affinity fields of the calling core's `MPIDR_EL1`, as the device tree names the core.
pub fn mpidr() -> u64 {
    read_register!("mpidr_el1") & 0xff_00ff_ffff
}

/// Bits of a physical address, as the core has them, but no more than a table of 4 KiB pages holds
/// without extensions: `ID_AA64MMFR0_EL1.PARange` (Arm DDI 0487, D24.2).
pub fn physical_address_bits() -> u32 {
    match read_register!("id_aa64mmfr0_el1") & 0xf {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}

/// Whether the runtime has stayed at EL2: `entry/boot.rs` says when it does.
pub fn is_at_el2() -> bool {
    read_register!("CurrentEL") >> 2 == 2
}

/// `HCR_EL2`: what the boot loader has left in it, and what `boot.s` adds. `None` at EL1.
pub fn hypervisor_configuration() -> Option<u64> {
    is_at_el2().then(|| read_register!("hcr_el2"))
}

/// `CPUECTLR_EL1` of a Cortex-A72: among others, how far it prefetches (bits 32, 33, 35 and 36). `None`
/// where reading it could end in an exception.
///
/// A read is allowed at EL1 unless EL2 traps it by `HCR_EL2.TIDCP`, which is off where `boot.s` has come
/// from EL2. The register is not written: `ACTLR_EL3` says whether that is allowed, which EL2 cannot read, and
/// a write that is not goes to EL3 (Cortex-A72 TRM, Arm 100095, 4.3.67).
pub fn cortex_a72_settings(exception_level_at_entry: u8) -> Option<u64> {
    let midr = Midr::of_this_core();
    let has_it =
        exception_level_at_entry == 2 && (midr.implementer(), midr.part()) == (0x41, 0xd08);
    has_it.then(|| read_register!("s3_1_c15_c2_1"))
}
