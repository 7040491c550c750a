//! What the processor can do, for the choice of kernels.

#![cfg_attr(not(target_arch = "aarch64"), forbid(unsafe_code))]

/// Instructions that not every processor of the architecture has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Dot products of bytes (FEAT_DotProd).
    pub dotprod: bool,
    /// Products of matrices of bytes (FEAT_I8MM).
    pub i8mm: bool,
}

impl Features {
    /// Those of this core. All cores of the machines that we know have the same.
    pub fn detect() -> Features {
        #[cfg(all(target_arch = "aarch64", any(target_os = "none", target_os = "linux")))]
        {
            let (isar0, isar1): (u64, u64);
            // SAFETY: reads identification registers, which has no effect. Linux emulates that
            // for programs.
            unsafe {
                core::arch::asm!("mrs {}, ID_AA64ISAR0_EL1", "mrs {}, ID_AA64ISAR1_EL1",
                    out(reg) isar0, out(reg) isar1, options(nomem, nostack, preserves_flags));
            }
            // Arm Architecture Reference Manual, D24.2: ISAR0.DP and ISAR1.I8MM.
            Features { dotprod: isar0 >> 44 & 0xf >= 1, i8mm: isar1 >> 52 & 0xf >= 1 }
        }
        #[cfg(not(all(target_arch = "aarch64", any(target_os = "none", target_os = "linux"))))]
        Features::default()
    }
}
