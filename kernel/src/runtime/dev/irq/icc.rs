//! The system registers of a GICv3's CPU interface (Arm IHI 0069, 12.2).

/// The registers in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icc {
    /// `ICC_SRE_EL1`: bit 0 enables the others.
    Sre,
    /// `ICC_PMR_EL1`: the priority mask.
    Pmr,
    /// `ICC_CTLR_EL1`: bit 1 parts the end of an interrupt from its priority drop.
    Ctlr,
    /// `ICC_IGRPEN1_EL1`: bit 0 signals interrupts of group 1.
    Igrpen1,
    /// `ICC_IAR1_EL1`: acknowledge.
    Iar1,
    /// `ICC_EOIR1_EL1`: end of interrupt.
    Eoir1,
    /// `ICC_SGI1R_EL1`: sends software-generated interrupts.
    Sgi1r,
}

/// The calling core's system registers of the CPU interface.
pub trait SystemRegisters {
    /// Reads a register. What the read does (acknowledge) is done when the call returns.
    fn read(&self, register: Icc) -> u64;
    /// Writes a register. The write has taken effect when the call returns.
    fn write(&self, register: Icc, value: u64);
}

#[cfg(target_arch = "aarch64")]
pub use core_registers::CoreRegisters;

#[cfg(target_arch = "aarch64")]
mod core_registers {
    use core::arch::asm;

    use super::{Icc, SystemRegisters};

    /// The registers of the machine's cores.
    ///
    /// At EL1, `ICC_SRE_EL2` must let them through: the boot code sees to that where it came from
    /// EL2.
    #[derive(Clone, Copy, Debug)]
    pub struct CoreRegisters;

    // Named by their encodings: not all assemblers know the names without a target feature.
    macro_rules! each {
        ($register:expr, $access:ident, $value:ident) => {
            match $register {
                Icc::Pmr => $access!("s3_0_c4_c6_0", $value),
                Icc::Sgi1r => $access!("s3_0_c12_c11_5", $value),
                Icc::Iar1 => $access!("s3_0_c12_c12_0", $value),
                Icc::Eoir1 => $access!("s3_0_c12_c12_1", $value),
                Icc::Ctlr => $access!("s3_0_c12_c12_4", $value),
                Icc::Sre => $access!("s3_0_c12_c12_5", $value),
                Icc::Igrpen1 => $access!("s3_0_c12_c12_7", $value),
            }
        };
    }

    macro_rules! read {
        ($name:literal, $value:ident) => {
            // SAFETY: interrupts are never taken, so these registers have no effect on the program
            // but what they say.
            unsafe {
                asm!(concat!("mrs {}, ", $name), out(reg) $value,
                    options(nostack, preserves_flags));
            }
        };
    }

    macro_rules! write {
        ($name:literal, $value:ident) => {
            // SAFETY: as above.
            unsafe {
                asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) $value,
                    options(nostack, preserves_flags));
            }
        };
    }

    impl SystemRegisters for CoreRegisters {
        fn read(&self, register: Icc) -> u64 {
            let value;
            each!(register, read, value);
            if register == Icc::Iar1 {
                // SAFETY: waits. The acknowledge takes effect before what follows it (IHI 0069,
                // 12.2.14); the other registers need no barrier.
                unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
            }
            value
        }

        fn write(&self, register: Icc, value: u64) {
            each!(register, write, value);
        }
    }
}
