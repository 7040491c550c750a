//! The host controller: its clock, its commands, its data port.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use core::cell::Cell;

use super::command::{Failure, Response, STOP_TRANSMISSION, SdError};
use super::registers::*;
use crate::runtime::dev::block::Clock;
use crate::runtime::dev::mmio::Registers;

/// At this clock of the card, in Hz, cards are identified (PL 4.2.1); none is slower.
const SLOW_HZ: u32 = 400_000;
/// The pause after a write to a register while the card's clock is slow or off, in µs.
const WRITE_PAUSE_US: u64 = 10;
/// How long the card's clock stands still while its lines get another voltage, in µs: the card wants 5 ms
/// (PL 4.2.4.2), and Linux gives it 10. And how long the lines may take to rise then.
const SWITCH_US: u64 = 10_000;
const RISE_US: u64 = 1_000;
/// How long the card is without power to forget everything, in µs. It wants 1 ms below 0.5 V (PL 6.4.1.1),
/// and the supply has to fall that far.
const OFF_US: u64 = 20_000;
/// For resets, clocks and answers, all of which take µs.
const PATIENCE_US: u64 = 100_000;
/// For data of a card, which sends it within 100 ms (PL 4.6.2.1).
const DATA_PATIENCE_US: u64 = 500_000;
/// The least time after which the controller itself gives up on data, in parts of a second.
const TIMEOUTS_A_SECOND: u32 = 2;

/// What feeds a card and its lines.
pub trait Supply: Send {
    /// Gives the lines 1.8 V, or 3.3 V again. Whether that is done.
    fn set_low_voltage(&self, low: bool) -> bool;

    /// Gives the card power, or takes it. Whether that is done.
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
    /// What its clock is divided from, in Hz.
    base_hz: u32,
    /// The card's clock, in Hz; 0 while it is off.
    hz: Cell<u32>,
}

impl<R: Registers> Host<R> {
    /// Resets the controller and gives the card power and a clock of 400 kHz at most.
    ///
    /// # Errors
    /// It does not do so.
    pub fn new(
        registers: R,
        clock: Box<dyn Clock>,
        supply: Option<Box<dyn Supply>>,
    ) -> Result<Host<R>, SdError> {
        let version = registers.read32(register::VERSION) >> 16 & 0xff;
        let capabilities = registers.read32(register::CAPABILITIES);
        // Six bits before version 3, in MHz.
        let mask = if version >= VERSION_3 { 0xff } else { 0x3f };
        let base_hz = (capabilities >> 8 & mask) * 1_000_000;
        if base_hz == 0 {
            return Err(SdError::NoBaseClock);
        }
        // Before version 3 there is no such register.
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

    /// Resets the controller and gives the card power and a clock of 400 kHz at most.
    fn power_up(&self) -> Result<(), SdError> {
        self.hz.set(0);
        self.write(register::CLOCK, RESET_ALL);
        if !self.wait(PATIENCE_US, || self.read(register::CLOCK) & RESET_ALL == 0) {
            return Err(SdError::Stuck);
        }
        self.write(register::SIGNAL_ENABLE, 0);
        self.write(register::STATUS_ENABLE, !0);
        self.write(register::CONTROL, CONTROL_POWER);
        // The supply rises within 35 ms, and the card wants 1 ms and 74 clocks then (PL 6.4.1).
        self.sleep(40_000);
        self.set_clock(SLOW_HZ)?;
        self.sleep(2_000);
        Ok(())
    }

    /// Takes the card's power and gives it back, with 3.3 V on the lines, so that the card starts anew.
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

    /// Whether the lines can have 1.8 V, and the controller reads at both edges of the clock then.
    pub fn can_do_ddr50(&self) -> bool {
        self.capabilities_high & CAPABILITY_HIGH_DDR50 != 0 && self.supply.is_some()
    }

    /// Gives the lines 1.8 V, once the card has said that it changes too (PL 4.2.4.2, HC 3.6.1). False if
    /// that fails: the card then needs [`Host::cycle_power`].
    pub fn use_low_voltage(&self) -> bool {
        let Some(supply) = &self.supply else { return false };
        let clock = self.stop_clock();
        let lines = || self.read(register::PRESENT) & PRESENT_LINES;
        // The card holds them low until it has the clock again.
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

    /// Takes the card's clock; gives the register as it was.
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
    /// Broadcom's controllers lose what is written within two cycles of that clock after another write
    /// (Linux, drivers/mmc/host/sdhci-iproc.c; U-Boot, drivers/mmc/bcm2835_sdhci.c). Faster clocks need
    /// no pause: the processor waits for each write's answer, which takes longer.
    pub fn write(&self, register: usize, value: u32) {
        self.registers.write32(register, value);
        if self.hz.get() <= SLOW_HZ {
            let start = self.clock.now_us();
            // The clock shows whole µs, so that the first of them may be short.
            while self.clock.now_us().saturating_sub(start) <= WRITE_PAUSE_US {
                self.clock.pause(0);
            }
        }
    }

    /// Waits until `done` for `us` µs; whether it came to that.
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

    /// Time that has passed since some fixed moment, in µs.
    pub fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Waits for `us` µs.
    pub fn sleep(&self, us: u64) {
        self.wait(us, || false);
    }

    /// The card's clock, in Hz; 0 while it is off.
    pub fn hz(&self) -> u32 {
        self.hz.get()
    }

    /// Gives the card a clock of `hz` at most.
    ///
    /// # Errors
    /// It does not become stable.
    pub fn set_clock(&self, hz: u32) -> Result<(), SdError> {
        self.hz.set(0);
        let timeout = timeout(self.capabilities);
        self.write(register::CLOCK, timeout);
        let setting = divider(self.base_hz, hz, self.version) | timeout | CLOCK_INTERNAL;
        self.write(register::CLOCK, setting);
        if !self.wait(PATIENCE_US, || self.read(register::CLOCK) & CLOCK_STABLE != 0) {
            return Err(SdError::Stuck);
        }
        self.write(register::CLOCK, setting | CLOCK_CARD);
        self.hz.set(hz.min(self.base_hz));
        Ok(())
    }

    /// Takes four data lines instead of one.
    pub fn use_4_bits(&self) {
        self.write(register::CONTROL, self.read(register::CONTROL) | CONTROL_4_BITS);
    }

    /// What the controller says that it can do.
    pub fn capabilities(&self) -> u32 {
        self.capabilities
    }

    /// The version of the specification that it keeps to, without what is behind the point.
    pub fn version(&self) -> u32 {
        self.version + 1
    }

    /// Whether the controller keeps up with a card at 50 MHz.
    pub fn can_do_high_speed(&self) -> bool {
        self.capabilities & CAPABILITY_HIGH_SPEED != 0
    }

    /// Takes the timing of high speed, and its clock; that of SDR25 at 1.8 V.
    ///
    /// # Errors
    /// As for [`Host::set_clock`].
    pub fn use_high_speed(&self) -> Result<(), SdError> {
        self.use_50_mhz(CONTROL_2_SDR25)
    }

    /// Takes the timing of DDR50, and its clock. The lines have 1.8 V.
    ///
    /// # Errors
    /// As for [`Host::set_clock`].
    pub fn use_ddr50(&self) -> Result<(), SdError> {
        self.use_50_mhz(CONTROL_2_DDR50)
    }

    /// Sets the clock to 50 MHz, and the timing to this one if the lines have 1.8 V.
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

    /// Makes ADMA2, with addresses of 32 bits, what a command with [`MODE_DMA`] does.
    pub fn select_adma2(&self) {
        let control = self.read(register::CONTROL) & !CONTROL_DMA;
        self.write(register::CONTROL, control | CONTROL_ADMA2);
    }

    /// Whether no command can be sent yet.
    pub fn is_busy(&self) -> bool {
        self.read(register::PRESENT) & PRESENT_INHIBIT != 0
    }

    /// Sends a command while the controller is not busy; with a transfer mode, one that data follows.
    pub fn send(&self, index: u32, response: Response, argument: u32, mode: Option<u32>) {
        // HC table 2-13: "data present", and for CMD12 the type "abort".
        let data = if mode.is_some() { 1 << 5 } else { 0 };
        let abort = if index == STOP_TRANSMISSION { 0b11 << 6 } else { 0 };
        let command = index << 8 | abort | data | response.bits();
        self.write(register::STATUS, !0);
        self.write(register::ARGUMENT, argument);
        self.write(register::COMMAND, command << 16 | mode.unwrap_or(0));
    }

    /// Sends a command without data and waits for the answer: the lowest word first, and of an R2 the
    /// upper 120 bits alone, as the controller gives them.
    ///
    /// # Errors
    /// There is no answer, or a damaged one; the lines are free again then.
    pub fn command(
        &self,
        index: u32,
        response: Response,
        argument: u32,
    ) -> Result<[u32; 4], Failure> {
        self.wait_until_idle()?;
        self.send(index, response, argument, None);
        self.wait_for(status::COMMAND_COMPLETE, PATIENCE_US)?;
        Ok([0, 1, 2, 3].map(|word| self.read(register::RESPONSE + 4 * word)))
    }

    /// Sends a command that a single block of data follows, of as many bytes as `block` has.
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
        self.wait_for(status::COMMAND_COMPLETE, PATIENCE_US)?;
        self.wait_for(status::READ_READY, DATA_PATIENCE_US)?;
        self.read_block(block);
        self.wait_for(status::TRANSFER_COMPLETE, DATA_PATIENCE_US)
    }

    /// Waits until another command may be sent.
    fn wait_until_idle(&self) -> Result<(), Failure> {
        if self.wait(PATIENCE_US, || !self.is_busy()) {
            return Ok(());
        }
        self.reset_lines();
        Err(Failure::Stuck)
    }

    /// Waits for a bit of the interrupt status and clears it.
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

    /// Takes a block, a whole number of words, from the data port.
    pub fn read_block(&self, block: &mut [u8]) {
        for word in block.chunks_exact_mut(4) {
            word.copy_from_slice(&self.read(register::DATA).to_le_bytes());
        }
    }

    /// Frees the command line and the data lines from whatever they are in the middle of, and ends DMA
    /// (HC 2.2.16); whether it came to that. If not, the next command tells too.
    pub fn reset_lines(&self) -> bool {
        self.write(register::CLOCK, self.read(register::CLOCK) | RESET_LINES);
        let done = self.wait(PATIENCE_US, || self.read(register::CLOCK) & RESET_LINES == 0);
        self.write(register::STATUS, !0);
        done
    }
}

/// The setting for the controller's own wait for data: 2^13 ticks of its timeout's clock, doubled so
/// often that it is long enough, at most 14 times (HC 2.2.15, 2.2.26).
fn timeout(capabilities: u32) -> u32 {
    let unit = if capabilities & CAPABILITY_TIMEOUT_MHZ != 0 { 1_000_000 } else { 1000 };
    let hz = (capabilities & 0x3f) * unit;
    let enough = |&doublings: &u32| (1 << 13 << doublings) * TIMEOUTS_A_SECOND >= hz;
    // A controller may leave its clock unsaid.
    let doublings = (0..14).find(enough).filter(|_| hz != 0).unwrap_or(14);
    doublings << 16
}

/// The setting for the fastest clock of `hz` at most (HC 2.2.14).
fn divider(base_hz: u32, hz: u32, version: u32) -> u32 {
    // The clock is divided by twice this; 0 leaves it as it is.
    let half = if base_hz <= hz { 0 } else { base_hz.div_ceil(2 * hz) };
    if version >= VERSION_3 {
        let half = half.min(0x3ff);
        (half & 0xff) << 8 | half >> 8 << 6
    } else if half == 0 {
        0
    } else {
        // One bit of eight.
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
