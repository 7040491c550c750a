//! The watchdog of Apple's chips: restarts the machine.
//!
//! Sources: Linux, drivers/watchdog/apple_wdt.c (its first watchdog, which resets the chip); m1n1, src/wdt.c,
//! which has it off when it hands over.
#![forbid(unsafe_code)]

use super::mmio::Registers;

/// The count at which the chip is reset.
const BITE_TIME: usize = 0x14;
/// What the watchdog does.
const CONTROL: usize = 0x1c;
const CONTROL_RESET: u32 = 1 << 2;

/// Resets the machine in a moment: its count has passed the time already when it is switched on.
pub fn reset(registers: &impl Registers) {
    registers.write32(BITE_TIME, 0);
    registers.write32(CONTROL, CONTROL_RESET);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::dev::mmio::FakeRegisters;

    #[test]
    fn the_time_is_over_before_the_watchdog_is_switched_on() {
        let registers = FakeRegisters::memory(&[]);
        reset(&registers);
        assert_eq!(registers.writes(), [(0x14, 0), (0x1c, 4)]);
    }
}
