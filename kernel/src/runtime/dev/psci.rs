//! Calls to the firmware that start cores, and power the machine off or restart it.
//!
//! Source: Arm Power State Coordination Interface Platform Design Document, Arm DEN 0022, and the SMC
//! Calling Convention, Arm DEN 0028.

use core::fmt;

use smccc::psci::{Error, PSCI_CPU_OFF, PSCI_CPU_ON_64, PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET};

use crate::runtime::machine::Psci;

/// Why the firmware does not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciError {
    /// The device tree names no such firmware, or one too old for the call.
    Absent,
    /// It refuses.
    Refused(Error),
}

impl fmt::Display for PsciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PsciError::Absent => f.write_str("the firmware has no such call"),
            PsciError::Refused(e) => write!(f, "the firmware refuses: {e}"),
        }
    }
}

impl core::error::Error for PsciError {}

/// The firmware: `call` makes one call, with the function's number and three arguments, and gives the
/// first register of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Firmware<C> {
    call: C,
    legacy_cpu_on: Option<u32>,
}

impl<C: Fn(u32, [u64; 3]) -> u64> Firmware<C> {
    /// The firmware that `psci` describes, called by `call`.
    pub const fn new(psci: &Psci, call: C) -> Firmware<C> {
        Firmware { call, legacy_cpu_on: psci.legacy_cpu_on }
    }

    /// Starts the core whose `MPIDR_EL1` has these affinity fields. It enters at `entry`, at our
    /// exception level, the MMU and caches off, with `context` in x0.
    ///
    /// # Safety
    /// `entry` is the physical address of code that is ready to run so, with a context of its own.
    ///
    /// # Errors
    /// The core does not exist, is on already, or may not be started.
    pub unsafe fn cpu_on(&self, mpidr: u64, entry: u64, context: u64) -> Result<(), PsciError> {
        let function = self.legacy_cpu_on.unwrap_or(PSCI_CPU_ON_64);
        match (self.call)(function, [mpidr, entry, context]) as i32 {
            0 => Ok(()),
            code => Err(PsciError::Refused(code.into())),
        }
    }

    /// Powers the machine off. Returns only if that fails, with the reason.
    pub fn system_off(&self) -> PsciError {
        self.off(PSCI_SYSTEM_OFF)
    }

    /// Restarts the machine. Returns only if that fails, with the reason.
    pub fn system_reset(&self) -> PsciError {
        self.off(PSCI_SYSTEM_RESET)
    }

    /// Powers the calling core off. Returns only if that fails, with the reason.
    pub fn cpu_off(&self) -> PsciError {
        self.off(PSCI_CPU_OFF)
    }

    fn off(&self, function: u32) -> PsciError {
        if self.legacy_cpu_on.is_some() {
            return PsciError::Absent;
        }
        PsciError::Refused(((self.call)(function, [0; 3]) as i32).into())
    }
}

#[cfg(target_os = "none")]
pub use machine_firmware::*;

#[cfg(target_os = "none")]
mod machine_firmware {
    use smccc::{Call, Hvc, Smc};
    use spin::Once;

    use super::{Firmware, Psci, PsciError};
    use crate::runtime::machine::Conduit;

    type Caller = fn(u32, [u64; 3]) -> u64;

    static FIRMWARE: Once<Firmware<Caller>> = Once::new();

    /// Says how this machine's firmware is called.
    pub fn init(psci: &Psci) {
        let call: Caller = match psci.conduit {
            Conduit::Hvc => call::<Hvc>,
            Conduit::Smc => call::<Smc>,
        };
        FIRMWARE.call_once(|| Firmware::new(psci, call));
    }

    fn call<C: Call>(function: u32, [a, b, c]: [u64; 3]) -> u64 {
        let mut arguments = [0; 17];
        arguments[..3].copy_from_slice(&[a, b, c]);
        C::call64(function, arguments)[0]
    }

    /// This machine's firmware.
    ///
    /// # Errors
    /// [`PsciError::Absent`] if there is none, or before [`init`].
    pub fn firmware() -> Result<&'static Firmware<Caller>, PsciError> {
        FIRMWARE.get().ok_or(PsciError::Absent)
    }

    /// [`Firmware::cpu_on`] of this machine's firmware.
    ///
    /// # Safety
    /// As there.
    ///
    /// # Errors
    /// As there, and there is no firmware.
    pub unsafe fn cpu_on(mpidr: u64, entry: u64, context: u64) -> Result<(), PsciError> {
        // SAFETY: our caller's promise.
        unsafe { firmware()?.cpu_on(mpidr, entry, context) }
    }

    /// [`Firmware::system_off`] of this machine's firmware.
    pub fn system_off() -> PsciError {
        firmware().map_or_else(|e| e, Firmware::system_off)
    }

    /// [`Firmware::system_reset`] of this machine's firmware.
    pub fn system_reset() -> PsciError {
        firmware().map_or_else(|e| e, Firmware::system_reset)
    }

    /// [`Firmware::cpu_off`] of this machine's firmware.
    pub fn cpu_off() -> PsciError {
        firmware().map_or_else(|e| e, Firmware::cpu_off)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::runtime::machine::Conduit;

    const NEW: Psci = Psci { conduit: Conduit::Hvc, legacy_cpu_on: None };
    const OLD: Psci = Psci { conduit: Conduit::Smc, legacy_cpu_on: Some(0x95c1_ba60) };

    #[test]
    fn starts_a_core() {
        let calls = RefCell::new(Vec::new());
        let call = |function, arguments| {
            calls.borrow_mut().push((function, arguments));
            0
        };
        // SAFETY: no core is started; the calls are only recorded.
        unsafe {
            Firmware::new(&NEW, call).cpu_on(0x101, 0x4008_0000, 7).unwrap();
            Firmware::new(&OLD, call).cpu_on(0x102, 0x4008_0000, 8).unwrap();
        }
        assert_eq!(
            calls.into_inner(),
            [(0xc400_0003, [0x101, 0x4008_0000, 7]), (0x95c1_ba60, [0x102, 0x4008_0000, 8])]
        );
    }

    #[test]
    fn decodes_refusals() {
        // The answer is 32 bits wide; what is above them means nothing.
        for (answer, error) in [
            (-1_i64 as u64, Error::NotSupported),
            (0xffff_fffe, Error::InvalidParameters),
            (0xffff_fffd, Error::Denied),
            (0x1234_5678_ffff_fffc, Error::AlreadyOn),
            (-9_i64 as u64, Error::InvalidAddress),
            (-77_i64 as u64, Error::Unknown(-77)),
        ] {
            // SAFETY: no core is started.
            let result = unsafe { Firmware::new(&NEW, |_, _| answer).cpu_on(1, 0, 0) };
            assert_eq!(result, Err(PsciError::Refused(error)), "{answer:#x}");
        }
    }

    #[test]
    fn powers_off() {
        let asked = RefCell::new(0);
        let firmware = Firmware::new(&NEW, |function, _| {
            *asked.borrow_mut() = function;
            -1_i64 as u64
        });
        assert_eq!(firmware.system_off(), PsciError::Refused(Error::NotSupported));
        assert_eq!(*asked.borrow(), 0x8400_0008);
        assert_eq!(firmware.cpu_off(), PsciError::Refused(Error::NotSupported));
        assert_eq!(*asked.borrow(), 0x8400_0002);
        assert_eq!(firmware.system_reset(), PsciError::Refused(Error::NotSupported));
        assert_eq!(*asked.borrow(), 0x8400_0009);
    }

    #[test]
    fn psci_0_1_knows_only_its_own_calls() {
        let firmware = Firmware::new(&OLD, |_, _| panic!("called a number it does not know"));
        assert_eq!(firmware.system_off(), PsciError::Absent);
        assert_eq!(firmware.cpu_off(), PsciError::Absent);
    }
}
