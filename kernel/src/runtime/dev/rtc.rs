//! The real-time clock PL031.
//!
//! Source: Arm PrimeCell Real Time Clock (PL031) Technical Reference Manual, DDI 0224.
#![forbid(unsafe_code)]

use super::mmio::Registers;

/// The counter of seconds.
const DATA: usize = 0;

/// Seconds since 1970, UTC; `None` if the clock was never set.
pub fn seconds(registers: &impl Registers) -> Option<u64> {
    Some(registers.read32(DATA)).filter(|&seconds| seconds != 0).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::dev::mmio::FakeRegisters;

    #[test]
    fn a_clock_that_was_never_set_knows_no_date() {
        assert_eq!(seconds(&FakeRegisters::memory(&[(0, 0)])), None);
        let of_2100 = 0xf486_5700;
        assert_eq!(seconds(&FakeRegisters::memory(&[(0, of_2100)])), Some(4_102_444_800));
    }
}
