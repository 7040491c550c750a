//! The host controller: its clock, its commands, its data port.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use core::cell::Cell;

use super::command::{Failure, Response, STOP_TRANSMISSION, SdError};
use super::registers::*;
use crate::runtime::dev::block::Clock;
use crate::runtime::dev::mmio::Registers;

/// Clock for the identification of cards, in Hz (PL 4.2.1); the slowest in use.
const SLOW_HZ: u32 = 400_000;
/// Pause after a register write while the card's clock is slow or off, in µs.
const WRITE_PAUSE_US: u64 = 10;
/// Times of a change of the lines' voltage, in µs.
///
/// The card's clock stops for the first time: the card needs 5 ms (PL 4.2.4.2), and Linux gives it
/// 10. The lines may take the second time to rise afterwards.
const SWITCH_US: u64 = 10_000;
const RISE_US: u64 = 1_000;
/// Time without power for the card to reset, in µs.
///
/// The card needs 1 ms below 0.5 V (PL 6.4.1.1), and the supply has to fall that far.
const OFF_US: u64 = 20_000;
/// Timeout of resets, clocks and answers, in µs. All of these take µs.
const TIMEOUT_US: u64 = 100_000;
/// Timeout of a card's data, in µs. A card sends data within 100 ms (PL 4.6.2.1).
const DATA_TIMEOUT_US: u64 = 500_000;
/// Inverse of the controller's own minimum timeout of data, in 1/s.
const TIMEOUTS_A_SECOND: u32 = 2;

/// The supply of a card and its lines.
pub trait Supply: Send {
    /// Switches the lines to 1.8 V, or back to 3.3 V; returns whether it succeeded.
    fn set_low_voltage(&self, low: bool) -> bool;

    /// Switches the card's power on or off; returns whether it succeeded.
    fn set_power(&self, on: bool) -> bool;
}

/// A host controller.
pub struct Host<R> {
    registers: R,
    clock: Box<dyn Clock>,
    supply: Option<Box<dyn Supply>>,
    capabilities: u32,
    capabilities_high: u32,
    version: u32,
    /// Base clock of the controller, in Hz.
    base_hz: u32,
    /// Clock of the card in Hz; 0 while it is off.
    hz: Cell<u32>,
}

impl<R: Registers> Host<R> {
    /// Resets the controller, and gives the card power and a clock of at most 400 kHz.
    ///
    /// # Errors
    /// The controller does not carry out the request.
    pub fn new(
        registers: R,
        clock: Box<dyn Clock>,
        supply: Option<Box<dyn Supply>>,
    ) -> Result<Host<R>, SdError> {
        let version = registers.read32(register::VERSION) >> 16 & 0xff;
        let capabilities = registers.read32(register::CAPABILITIES);
        // The base clock in MHz, which had six bits before version 3.
        let mask = if version >= VERSION_3 { 0xff } else { 0x3f };
        let base_hz = (capabilities >> 8 & mask) * 1_000_000;
        if base_hz == 0 {
            return Err(SdError::NoBaseClock);
        }
        // The register does not exist before version 3.
        let has_more = version >= VERSION_3;
        let capabilities_high =
            if has_more { registers.read32(register::CAPABILITIES_HIGH) } else { 0 };
        let hz = Cell::new(0);
        let host = Host {
            registers,
            clock,
            supply,
            capabilities,
            capabilities_high,
            version,
            base_hz,
            hz,
        };
        host.power_up()?;
        Ok(host)
    }

    /// Resets the controller, and gives the card power and a clock of at most 400 kHz.
    fn power_up(&self) -> Result<(), SdError> {
        self.hz.set(0);
        self.write(register::CLOCK, RESET_ALL);
        if !self.wait(TIMEOUT_US, || self.read(register::CLOCK) & RESET_ALL == 0) {
            return Err(SdError::Stuck);
        }
        self.write(register::SIGNAL_ENABLE, 0);
        self.write(register::STATUS_ENABLE, !0);
        self.write(register::CONTROL, CONTROL_POWER);
        // The supply rises within 35 ms. The card then needs 1 ms and 74 clocks (PL 6.4.1).
        self.sleep(40_000);
        self.set_clock(SLOW_HZ)?;
        self.sleep(2_000);
        Ok(())
    }

    /// Switches the card's power off and on, to reset the card.
    ///
    /// The lines then have 3.3 V.
    ///
    /// # Errors
    /// The supply cannot be switched, or the controller does not start.
    pub fn cycle_power(&self) -> Result<(), SdError> {
        let Some(supply) = &self.supply else { return Err(SdError::Supply) };
        self.hz.set(0);
        self.write(register::CLOCK, RESET_ALL);
        let is_off = supply.set_power(false);
        self.sleep(OFF_US);
        if !(is_off && supply.set_low_voltage(false) && supply.set_power(true)) {
            return Err(SdError::Supply);
        }
        self.power_up()
    }

    /// Whether DDR50 is possible.
    /// The lines can have 1.8 V, and the controller then reads at both edges of the clock.
    pub fn can_do_ddr50(&self) -> bool {
        self.capabilities_high & CAPABILITY_HIGH_DDR50 != 0 && self.supply.is_some()
    }

    /// Switches the lines to 1.8 V; false if that fails.
    ///
    /// The card has announced its own change before (PL 4.2.4.2, HC 3.6.1). After a failure the
    /// card needs [`Host::cycle_power`].
    pub fn use_low_voltage(&self) -> bool {
        let Some(supply) = &self.supply else { return false };
        let clock = self.stop_clock();
        let lines = || self.read(register::PRESENT) & PRESENT_LINES;
        // The card holds the lines low until the clock returns.
        if lines() != 0 || !supply.set_low_voltage(true) {
            return false;
        }
        self.write(register::CONTROL_2, CONTROL_2_LOW_VOLTAGE);
        self.sleep(SWITCH_US);
        if self.read(register::CONTROL_2) & CONTROL_2_LOW_VOLTAGE == 0 {
            return false;
        }
        self.write(register::CLOCK, clock);
        self.hz.set(SLOW_HZ);
        self.sleep(RISE_US);
        lines() == PRESENT_LINES
    }

    /// Stops the card's clock; returns the previous value of the register.
    fn stop_clock(&self) -> u32 {
        let before = self.read(register::CLOCK);
        self.hz.set(0);
        self.write(register::CLOCK, before & !CLOCK_CARD);
        before
    }

    /// Whether data comes at both edges of the clock.
    pub fn is_at_ddr50(&self) -> bool {
        self.read(register::CONTROL_2) & CONTROL_2_TIMING == CONTROL_2_DDR50
    }

    fn is_at_low_voltage(&self) -> bool {
        self.read(register::CONTROL_2) & CONTROL_2_LOW_VOLTAGE != 0
    }

    pub fn read(&self, register: usize) -> u32 {
        self.registers.read32(register)
    }

    /// Writes a register, and pauses while the card's clock is slow or off.
    ///
    /// Broadcom's controllers lose a write within two cycles of that clock after another write
    /// (Linux, drivers/mmc/host/sdhci-iproc.c; U-Boot, drivers/mmc/bcm2835_sdhci.c). Faster clocks
    /// need no pause: the processor waits for the response to each write, which takes longer.
    pub fn write(&self, register: usize, value: u32) {
        self.registers.write32(register, value);
        if self.hz.get() <= SLOW_HZ {
            let start = self.clock.now_us();
            // The clock counts whole µs, so the first of them may be short.
            while self.clock.now_us().saturating_sub(start) <= WRITE_PAUSE_US {
                self.clock.pause(0);
            }
        }
    }

    /// Waits until `done`, with a timeout of `us` µs; false after the timeout.
    pub fn wait(&self, us: u64, mut done: impl FnMut() -> bool) -> bool {
        let start = self.clock.now_us();
        let mut polls = 0;
        loop {
            let late = self.clock.now_us().saturating_sub(start) > us;
            if done() {
                return true;
            }
            if late {
                return false;
            }
            self.clock.pause(polls);
            polls = polls.saturating_add(1);
        }
    }

    /// Time since a fixed moment, in µs.
    pub fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Waits for `us` µs.
    pub fn sleep(&self, us: u64) {
        self.wait(us, || false);
    }

    /// Clock of the card in Hz; 0 while it is off.
    pub fn hz(&self) -> u32 {
        self.hz.get()
    }

    /// Sets the card's clock to at most `hz`.
    ///
    /// # Errors
    /// The clock does not become stable.
    pub fn set_clock(&self, hz: u32) -> Result<(), SdError> {
        self.hz.set(0);
        let timeout = timeout(self.capabilities);
        self.write(register::CLOCK, timeout);
        let setting = divider(self.base_hz, hz, self.version) | timeout | CLOCK_INTERNAL;
        self.write(register::CLOCK, setting);
        if !self.wait(TIMEOUT_US, || self.read(register::CLOCK) & CLOCK_STABLE != 0) {
            return Err(SdError::Stuck);
        }
        self.write(register::CLOCK, setting | CLOCK_CARD);
        self.hz.set(hz.min(self.base_hz));
        Ok(())
    }

    /// Uses four data lines instead of one.
    pub fn use_4_bits(&self) {
        self.write(register::CONTROL, self.read(register::CONTROL) | CONTROL_4_BITS);
    }

    /// The capabilities register of the controller.
    pub fn capabilities(&self) -> u32 {
        self.capabilities
    }

    /// Major version of the specification that the controller implements.
    pub fn version(&self) -> u32 {
        self.version + 1
    }

    /// Whether the controller supports a card at 50 MHz.
    pub fn can_do_high_speed(&self) -> bool {
        self.capabilities & CAPABILITY_HIGH_SPEED != 0
    }

    /// Switches to the timing and clock of high speed; at 1.8 V, to those of SDR25.
    ///
    /// # Errors
    /// As for [`Host::set_clock`].
    pub fn use_high_speed(&self) -> Result<(), SdError> {
        self.use_50_mhz(CONTROL_2_SDR25)
    }

    /// Switches to the timing and clock of DDR50; the lines have 1.8 V.
    ///
    /// # Errors
    /// As for [`Host::set_clock`].
    pub fn use_ddr50(&self) -> Result<(), SdError> {
        self.use_50_mhz(CONTROL_2_DDR50)
    }

    /// Sets the clock to 50 MHz; sets the timing as well if the lines have 1.8 V.
    fn use_50_mhz(&self, timing: u32) -> Result<(), SdError> {
        // The timing changes while the card has no clock (HC 2.2.23).
        self.stop_clock();
        self.write(register::CONTROL, self.read(register::CONTROL) | CONTROL_HIGH_SPEED);
        if self.is_at_low_voltage() {
            self.write(register::CONTROL_2, CONTROL_2_LOW_VOLTAGE | timing);
        }
        self.set_clock(50_000_000)
    }

    pub fn can_do_adma2(&self) -> bool {
        self.capabilities & CAPABILITY_ADMA2 != 0
    }

    /// Selects ADMA2 with 32-bit addresses for commands with [`MODE_DMA`].
    pub fn select_adma2(&self) {
        let control = self.read(register::CONTROL) & !CONTROL_DMA;
        self.write(register::CONTROL, control | CONTROL_ADMA2);
    }

    /// Whether no command can be sent yet.
    pub fn is_busy(&self) -> bool {
        self.read(register::PRESENT) & PRESENT_INHIBIT != 0
    }

    /// Sends a command while the controller is not busy.
    /// A command with a transfer mode is followed by data.
    pub fn send(&self, index: u32, response: Response, argument: u32, mode: Option<u32>) {
        // HC table 2-13: "data present", and for CMD12 the type "abort".
        let data = if mode.is_some() { 1 << 5 } else { 0 };
        let abort = if index == STOP_TRANSMISSION { 0b11 << 6 } else { 0 };
        let command = index << 8 | abort | data | response.bits();
        self.write(register::STATUS, !0);
        self.write(register::ARGUMENT, argument);
        self.write(register::COMMAND, command << 16 | mode.unwrap_or(0));
    }

    /// Sends a command without data, and waits for the answer.
    ///
    /// The result has the lowest word first. Of an R2 the result has only the upper 120 bits, as
    /// the controller returns them.
    ///
    /// # Errors
    /// There is no answer, or a damaged answer; the lines are free again.
    pub fn command(
        &self,
        index: u32,
        response: Response,
        argument: u32,
    ) -> Result<[u32; 4], Failure> {
        self.wait_until_idle()?;
        self.send(index, response, argument, None);
        self.wait_for(status::COMMAND_COMPLETE, TIMEOUT_US)?;
        Ok([0, 1, 2, 3].map(|word| self.read(register::RESPONSE + 4 * word)))
    }

    /// Sends a command, and reads the block of data that follows it.
    /// The block has as many bytes as `block`.
    ///
    /// # Errors
    /// As for [`Host::command`].
    pub fn command_with_data(
        &self,
        index: u32,
        argument: u32,
        block: &mut [u8],
    ) -> Result<(), Failure> {
        self.wait_until_idle()?;
        self.write(register::BLOCK, 1 << 16 | block.len() as u32);
        self.send(index, Response::R1, argument, Some(MODE_READ));
        self.wait_for(status::COMMAND_COMPLETE, TIMEOUT_US)?;
        self.wait_for(status::READ_READY, DATA_TIMEOUT_US)?;
        self.read_block(block);
        self.wait_for(status::TRANSFER_COMPLETE, DATA_TIMEOUT_US)
    }

    /// Waits until another command can be sent.
    fn wait_until_idle(&self) -> Result<(), Failure> {
        if self.wait(TIMEOUT_US, || !self.is_busy()) {
            return Ok(());
        }
        self.reset_lines();
        Err(Failure::Stuck)
    }

    /// Waits for a bit of the interrupt status, and clears the bit.
    fn wait_for(&self, bit: u32, us: u64) -> Result<(), Failure> {
        let mut now = 0;
        let seen = self.wait(us, || {
            now = self.read(register::STATUS);
            now & (bit | status::ERRORS) != 0
        });
        if seen && now & status::ERRORS == 0 {
            self.write(register::STATUS, bit);
            return Ok(());
        }
        self.reset_lines();
        Err(match seen {
            false => Failure::Stuck,
            true if now & status::COMMAND_TIMEOUT != 0 => Failure::NoAnswer,
            true => Failure::Damaged(now),
        })
    }

    /// Reads a block, a whole number of words, from the data port.
    pub fn read_block(&self, block: &mut [u8]) {
        for word in block.chunks_exact_mut(4) {
            word.copy_from_slice(&self.read(register::DATA).to_le_bytes());
        }
    }

    /// Resets the command line and the data lines, and ends DMA (HC 2.2.16).
    ///
    /// The result is whether the reset succeeded. If not, the next command fails as well.
    pub fn reset_lines(&self) -> bool {
        self.write(register::CLOCK, self.read(register::CLOCK) | RESET_LINES);
        let done = self.wait(TIMEOUT_US, || self.read(register::CLOCK) & RESET_LINES == 0);
        self.write(register::STATUS, !0);
        done
    }
}

/// The timeout setting of the controller for data.
///
/// The timeout is 2^13 ticks of the timeout's clock, doubled until it is long enough, at most 14
/// times (HC 2.2.15, 2.2.26).
fn timeout(capabilities: u32) -> u32 {
    let unit = if capabilities & CAPABILITY_TIMEOUT_MHZ != 0 { 1_000_000 } else { 1000 };
    let hz = (capabilities & 0x3f) * unit;
    let enough = |&doublings: &u32| (1 << 13 << doublings) * TIMEOUTS_A_SECOND >= hz;
    // A controller may leave the clock of its timeout unspecified.
    let doublings = (0..14).find(enough).filter(|_| hz != 0).unwrap_or(14);
    doublings << 16
}

/// The divider setting for the fastest clock of at most `hz` (HC 2.2.14).
fn divider(base_hz: u32, hz: u32, version: u32) -> u32 {
    // The clock is divided by twice this value; 0 does not divide.
    let half = if base_hz <= hz { 0 } else { base_hz.div_ceil(2 * hz) };
    if version >= VERSION_3 {
        let half = half.min(0x3ff);
        (half & 0xff) << 8 | half >> 8 << 6
    } else if half == 0 {
        0
    } else {
        // One of eight bits is set.
        half.next_power_of_two().min(0x80) << 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_as_fast_as_allowed_and_no_faster() {
        for (base, hz, version, setting) in [
            (100_000_000, 400_000, 2, 125 << 8),
            (200_000_000, 400_000, 2, 250 << 8),
            (255_000_000, 400_000, 2, (319 & 0xff) << 8 | 1 << 6),
            (100_000_000, 25_000_000, 2, 2 << 8),
            (52_000_000, 50_000_000, 2, 1 << 8),
            (50_000_000, 50_000_000, 2, 0),
            (52_000_000, 400_000, 1, 0x80 << 8),
            (50_000_000, 25_000_000, 1, 1 << 8),
            (52_000_000, 25_000_000, 1, 2 << 8),
            (25_000_000, 25_000_000, 1, 0),
        ] {
            assert_eq!(divider(base, hz, version), setting, "{base} to {hz}, version {version}");
        }
    }

    #[test]
    fn the_controller_gives_up_on_data_after_half_a_second_or_more() {
        for (capabilities, doublings) in [
            // A Raspberry Pi 4's EMMC2, at 50 kHz; QEMU's, at 52 MHz.
            (0x45ee_6432, 2),
            (0x0521_34b4, 12),
            (1, 0),
            (16, 0),
            (17, 1),
            (0xbf, 12),
            (0x80, 14),
            (0, 14),
        ] {
            assert_eq!(timeout(capabilities), doublings << 16, "{capabilities:#x}");
        }
    }
}
