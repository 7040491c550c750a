//! What `ESR_ELx` says about an exception, in words.
//!
//! Source: Arm Architecture Reference Manual (DDI 0487), D24.2.40 (`ESR_EL1`).
#![forbid(unsafe_code)]

use core::fmt;

/// The value of `ESR_ELx` after a synchronous exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syndrome(pub u64);

impl Syndrome {
    /// Exception class.
    fn class(self) -> u64 {
        self.0 >> 26 & 0x3f
    }

    /// Fault status of an abort.
    fn status(self) -> u64 {
        self.0 & 0x3f
    }

    fn is_instruction_abort(self) -> bool {
        matches!(self.class(), 0x20 | 0x21)
    }

    fn is_data_abort(self) -> bool {
        matches!(self.class(), 0x24 | 0x25)
    }

    /// Whether the abort came from an address that nothing is mapped at.
    pub fn is_translation_fault(self) -> bool {
        (self.is_data_abort() || self.is_instruction_abort()) && self.status() & 0x3c == 0x04
    }

    /// Whether `FAR_ELx` holds the address that was used.
    pub fn has_address(self) -> bool {
        match self.class() {
            // FnV: not valid, for an external abort only.
            0x20 | 0x21 | 0x24 | 0x25 => self.0 & 1 << 10 == 0,
            // PC alignment, watchpoint.
            0x22 | 0x34 | 0x35 => true,
            _ => false,
        }
    }
}

impl fmt::Display for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class() {
            0x00 => "undefined instruction",
            0x07 => "floating point is trapped",
            0x0e => "illegal execution state",
            0x15 => "SVC instruction",
            0x16 => "HVC instruction",
            0x17 => "SMC instruction",
            0x18 => "trapped system register or instruction",
            0x19 => "SVE is trapped",
            0x20 | 0x21 => "instruction abort",
            0x22 => "misaligned program counter",
            0x24 | 0x25 => "data abort",
            0x26 => "misaligned stack pointer",
            0x2c => "floating-point exception",
            0x2f => "SError",
            0x30 | 0x31 => "breakpoint",
            0x32 | 0x33 => "single step",
            0x34 | 0x35 => "watchpoint",
            0x3c => return write!(f, "BRK instruction #{:#x}", self.0 & 0xffff),
            class => return write!(f, "exception of class {class:#04x}"),
        };
        f.write_str(class)?;
        if !self.is_data_abort() && !self.is_instruction_abort() {
            return Ok(());
        }
        let level = self.status() & 3;
        match self.status() {
            0x00..=0x03 => write!(f, ": address size fault, level {level}")?,
            0x04..=0x07 => write!(f, ": translation fault, level {level}")?,
            0x08..=0x0b => write!(f, ": access flag fault, level {level}")?,
            0x0c..=0x0f => write!(f, ": permission fault, level {level}")?,
            0x10 => f.write_str(": external abort")?,
            0x14..=0x17 => write!(f, ": external abort on a page table, level {level}")?,
            0x18 => f.write_str(": parity or ECC error")?,
            0x21 => f.write_str(": alignment fault")?,
            0x30 => f.write_str(": TLB conflict")?,
            0x35 => f.write_str(": unsupported exclusive or atomic access")?,
            status => write!(f, ": fault status {status:#04x}")?,
        }
        if self.is_data_abort() {
            f.write_str(if self.0 & 1 << 6 != 0 { ", writing" } else { ", reading" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn syndromes_seen_on_the_machine() {
        for (esr, expected) in [
            (0x9600_0007, "data abort: translation fault, level 3, reading"),
            (0x9600_0047, "data abort: translation fault, level 3, writing"),
            (0x9600_004f, "data abort: permission fault, level 3, writing"),
            (0x9600_0010, "data abort: external abort, reading"),
            (0x9600_0061, "data abort: alignment fault, writing"),
            (0x8600_000d, "instruction abort: permission fault, level 1"),
            (0x8600_0004, "instruction abort: translation fault, level 0"),
            (0x0200_0000, "undefined instruction"),
            (0xf200_0001, "BRK instruction #0x1"),
            (0xbe00_0000, "SError"),
            (0x8a00_0000, "misaligned program counter"),
            (0x9a00_0000, "misaligned stack pointer"),
            (0xfc00_0000, "exception of class 0x3f"),
            (0x9600_003f, "data abort: fault status 0x3f, reading"),
        ] {
            assert_eq!(Syndrome(esr).to_string(), expected, "{esr:#x}");
        }
    }

    #[test]
    fn only_translation_faults_are_translation_faults() {
        assert!(Syndrome(0x9600_0044).is_translation_fault());
        assert!(Syndrome(0x8600_0007).is_translation_fault());
        assert!(!Syndrome(0x9600_004f).is_translation_fault());
        assert!(!Syndrome(0x9600_0010).is_translation_fault());
        // The same low bits in another class mean something else.
        assert!(!Syndrome(0xf200_0004).is_translation_fault());
    }

    #[test]
    fn an_address_is_shown_only_where_there_is_one() {
        assert!(Syndrome(0x9600_0007).has_address());
        assert!(!Syndrome(0x9600_0410).has_address(), "FnV");
        assert!(!Syndrome(0x0200_0000).has_address());
        assert!(Syndrome(0x8a00_0000).has_address());
    }
}
