//! The power manager of Broadcom's BCM2835 and its successors, the Raspberry Pi's: powers off or restarts.
//!
//! Source: Linux, drivers/watchdog/bcm2835_wdt.c; there is no public manual. A watchdog resets the chip,
//! and the firmware that starts then looks in the reset status for the partition to boot from; a number
//! that stands for none has it halt.

use super::mmio::Registers;

/// Reset control.
const RSTC: usize = 0x1c;
/// What a watchdog's end does.
const RSTC_CONFIG: u32 = 0x30;
const RSTC_FULL_RESET: u32 = 0x20;
/// Reset status: it outlives the reset. The partition's six bits lie apart, in every other one.
const RSTS: usize = 0x20;
const RSTS_HALT: u32 = 0x555;
/// The watchdog's time, in units of 1/65536 s.
const WDOG: usize = 0x24;
const WDOG_SOON: u32 = 10;
/// Must stand in the upper byte of whatever is written.
const PASSWORD: u32 = 0x5a << 24;

/// Resets the machine in a moment, and has the firmware halt then.
pub fn halt(registers: &impl Registers) {
    reset(registers, RSTS_HALT);
}

/// Resets the machine in a moment, and has the firmware start from its usual partition, number 0.
pub fn restart(registers: &impl Registers) {
    reset(registers, 0);
}

fn reset(registers: &impl Registers, partition: u32) {
    let write = |register, value| registers.write32(register, PASSWORD | value);
    write(RSTS, registers.read32(RSTS) & 0x00ff_ffff & !RSTS_HALT | partition);
    write(WDOG, WDOG_SOON);
    write(RSTC, registers.read32(RSTC) & 0x00ff_ffff & !RSTC_CONFIG | RSTC_FULL_RESET);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::dev::mmio::FakeRegisters;

    #[test]
    fn the_firmware_finds_the_partition_that_means_halt() {
        let registers = FakeRegisters::memory(&[(RSTC, 0x112), (RSTS, 0x1000)]);
        halt(&registers);
        let expected = [(RSTS, 0x5a00_1555), (WDOG, 0x5a00_000a), (RSTC, 0x5a00_0122)];
        assert_eq!(registers.writes(), expected);
    }

    #[test]
    fn the_firmware_finds_the_usual_partition_after_a_restart() {
        let registers = FakeRegisters::memory(&[(RSTC, 0x112), (RSTS, 0x1555)]);
        restart(&registers);
        let expected = [(RSTS, 0x5a00_1000), (WDOG, 0x5a00_000a), (RSTC, 0x5a00_0122)];
        assert_eq!(registers.writes(), expected);
    }
}
