//! The card: finding out what it is, and making it fast.
//!
//! SD cards and eMMC share most commands and the data lines. They differ in how they are asked at first,
//! and in how they are made fast.

#![forbid(unsafe_code)]

use super::command::{BLOCK_BYTES, Failure, Response, SdError};
use super::host::Host;
use crate::runtime::dev::mmio::Registers;

// The commands (PL 4.7.4).
const GO_IDLE_STATE: u32 = 0;
const ALL_SEND_CID: u32 = 2;
const SEND_RELATIVE_ADDR: u32 = 3;
const SWITCH_FUNC: u32 = 6;
const SELECT_CARD: u32 = 7;
const SEND_IF_COND: u32 = 8;
const SEND_CSD: u32 = 9;
const VOLTAGE_SWITCH: u32 = 11;
const SET_BLOCKLEN: u32 = 16;
pub const READ_SINGLE_BLOCK: u32 = 17;
pub const READ_MULTIPLE_BLOCK: u32 = 18;
const APP_CMD: u32 = 55;
/// Behind [`APP_CMD`].
const SET_BUS_WIDTH: u32 = 6;
const SD_SEND_OP_COND: u32 = 41;
// Those of eMMC that an SD card does not know, or knows as others (MMC 6.10.4).
const SEND_OP_COND: u32 = 1;
const SWITCH: u32 = 6;
const SEND_EXT_CSD: u32 = 8;
const SEND_STATUS: u32 = 13;

/// Bits of the card's state that tell of an error (PL 4.10.1), all but "locked".
pub const R1_ERRORS: u32 = 0xfdf8_0000;

/// 2.7 to 3.6 V, and a pattern that comes back (PL 4.3.13).
const IF_COND: u32 = 0x1aa;
/// All of 2.7 to 3.6 V (PL 5.1).
const OCR_VOLTAGES: u32 = 0x00ff_8000;
/// The host knows cards of more than 2 GB; the card is one.
const OCR_HIGH_CAPACITY: u32 = 1 << 30;
/// The host can give the card's lines 1.8 V; the card takes it.
const OCR_LOW_VOLTAGE: u32 = 1 << 24;
/// The card is ready.
const OCR_READY: u32 = 1 << 31;
/// How long a card may take to be ready: a second (PL 4.2.3), and some more.
const READY_US: u64 = 1_500_000;
/// How often it is asked.
const READY_STEP_US: u64 = 10_000;

/// SWITCH_FUNC: to ask what a function would do, or to switch to it; the functions of all groups but the
/// first as they are (PL 4.3.10).
const FUNCTION_ASK: u32 = 0x00ff_fff0;
const FUNCTION_SWITCH: u32 = 0x80ff_fff0;
/// Functions of group 1: high speed, at 1.8 V called SDR25; and DDR50.
const HIGH_SPEED: u32 = 1;
const DDR50: u32 = 4;

/// The address that an eMMC is given, as commands take it. No other card shares its lines.
const EMMC_ADDRESS: u32 = 1 << 16;
/// An eMMC may need this long to be idle, in µs (Linux, drivers/mmc/core/mmc.c).
const IDLE_US: u64 = 1_000;
/// SWITCH: writes a byte of the EXT_CSD (MMC 6.6.1).
const SWITCH_WRITE: u32 = 0b11 << 24;
/// No switch takes longer, in µs: GENERIC_CMD6_TIME is a byte, in 10 ms (MMC 7.4).
const SWITCH_US: u64 = 2_550_000;
/// The state's bit of a switch that was refused (MMC 6.13).
const SWITCH_ERROR: u32 = 1 << 7;
/// Bytes of the EXT_CSD (MMC 7.4): number of data lines, 1 for four.
const BUS_WIDTH: u32 = 183;
/// 1 for high speed.
const HS_TIMING: u32 = 185;
/// What the eMMC can do; bit 1 for high speed at 52 MHz.
const DEVICE_TYPE: usize = 196;
const DEVICE_TYPE_52_MHZ: u8 = 1 << 1;
/// Number of blocks: four bytes.
const SEC_COUNT: usize = 212;

/// A card that is ready to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    name: &'static str,
    blocks: u64,
    /// It counts blocks and not bytes.
    high_capacity: bool,
}

/// Sends a command whose answer must tell of no error.
fn run<R: Registers>(
    host: &Host<R>,
    index: u32,
    response: Response,
    argument: u32,
) -> Result<[u32; 4], SdError> {
    let failed = |failure| SdError::Command { index, failure };
    let answer = host.command(index, response, argument).map_err(failed)?;
    let checked = matches!(response, Response::R1 | Response::R1b);
    if checked && answer[0] & R1_ERRORS != 0 {
        return Err(failed(Failure::Refused(answer[0])));
    }
    Ok(answer)
}

/// Sends a command that a block of data follows.
fn read<R: Registers>(
    host: &Host<R>,
    index: u32,
    argument: u32,
    block: &mut [u8],
) -> Result<(), SdError> {
    let failed = |failure| SdError::Command { index, failure };
    host.command_with_data(index, argument, block).map_err(failed)
}

/// Asks for the card's operating conditions until it is ready; gives them.
fn wait_until_ready<R: Registers>(
    host: &Host<R>,
    ask: impl Fn() -> Result<[u32; 4], Failure>,
) -> Result<u32, SdError> {
    let mut waited = 0;
    loop {
        let [ocr, ..] = ask().map_err(|_| SdError::NoCard)?;
        if ocr & OCR_READY != 0 {
            return Ok(ocr);
        }
        if waited > READY_US {
            return Err(SdError::NeverReady);
        }
        host.sleep(READY_STEP_US);
        waited += READY_STEP_US;
    }
}

impl Card {
    /// Goes from power up to reading, as fast as card and controller can without tuning.
    ///
    /// That is 4 data lines, and 50 MHz at both edges of the clock and at 1.8 V (DDR50), or at one edge, or
    /// else 25 MHz. An SD card that fails at 1.8 V gets 3.3 V. An eMMC has 3.3 V and one edge.
    ///
    /// # Errors
    /// There is no card, or it cannot be used.
    pub fn identify<R: Registers>(host: &Host<R>) -> Result<Card, SdError> {
        match Card::identify_sd(host) {
            // An eMMC does not answer what SD cards are asked.
            Err(SdError::NoCard) => Card::identify_emmc(host),
            result => result,
        }
    }

    /// [`identify`](Card::identify) for SD cards, at 1.8 V where that works (PL 4.2, 4.3).
    fn identify_sd<R: Registers>(host: &Host<R>) -> Result<Card, SdError> {
        let mut is_low = false;
        if host.can_do_ddr50() {
            match Card::identify_sd_at(host, true, &mut is_low) {
                Err(error) if is_low => {
                    log::warn!("SD card at 1.8 V: {error}, going on with 3.3 V");
                    host.cycle_power()?;
                }
                result => return result,
            }
        }
        Card::identify_sd_at(host, false, &mut is_low)
    }

    /// As [`Card::identify_sd`]. Only where `offers_low` is the card offered 1.8 V; `is_low` tells whether
    /// it took the offer, whatever became of it.
    fn identify_sd_at<R: Registers>(
        host: &Host<R>,
        offers_low: bool,
        is_low: &mut bool,
    ) -> Result<Card, SdError> {
        let run = |index, response, argument| run(host, index, response, argument);

        // Controllers without a card may leave even this undone.
        host.command(GO_IDLE_STATE, Response::None, 0).map_err(|_| SdError::NoCard)?;
        // Cards before version 2.00 do not know this command, and none above 2 GB.
        let version_2 = match host.command(SEND_IF_COND, Response::R1, IF_COND) {
            Ok(answer) if answer[0] & 0xfff == IF_COND => true,
            Ok(_) => return Err(SdError::Voltage),
            Err(_) => false,
        };
        let mut offer = OCR_VOLTAGES;
        if version_2 {
            offer |= OCR_HIGH_CAPACITY;
        }
        if version_2 && offers_low {
            offer |= OCR_LOW_VOLTAGE;
        }
        let ocr = wait_until_ready(host, || {
            // Its answer may still complain of the command that it did not know.
            host.command(APP_CMD, Response::R1, 0)?;
            host.command(SD_SEND_OP_COND, Response::R3, offer)
        })?;
        let high_capacity = version_2 && ocr & OCR_HIGH_CAPACITY != 0;
        *is_low = offer & ocr & OCR_LOW_VOLTAGE != 0;
        if *is_low {
            run(VOLTAGE_SWITCH, Response::R1, 0)?;
            if !host.use_low_voltage() {
                return Err(SdError::LowVoltage);
            }
        }

        run(ALL_SEND_CID, Response::R2, 0)?;
        // R6: only some of its lower half is the state.
        let address = host.command(SEND_RELATIVE_ADDR, Response::R1, 0);
        let index = SEND_RELATIVE_ADDR;
        let [address, ..] = address.map_err(|failure| SdError::Command { index, failure })?;
        let address = address & 0xffff_0000;
        let csd = Csd(run(SEND_CSD, Response::R2, address)?);
        let blocks = csd.blocks().ok_or(SdError::UnknownLayout)?;
        run(SELECT_CARD, Response::R1b, address)?;
        host.set_clock(25_000_000)?;
        if !high_capacity {
            run(SET_BLOCKLEN, Response::R1, BLOCK_BYTES as u32)?;
        }
        run(APP_CMD, Response::R1, address)?;
        run(SET_BUS_WIDTH, Response::R1, 0b10)?;
        host.use_4_bits();
        // Whether a function of group 1 was chosen.
        let choose = |function: u32| {
            let mut functions = [0; 64];
            for command in [FUNCTION_ASK, FUNCTION_SWITCH] {
                read(host, SWITCH_FUNC, command | function, &mut functions)?;
                // What would be or has been chosen; 15 for "impossible".
                if u32::from(functions[16] & 0xf) != function {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if *is_low && choose(DDR50)? {
            host.use_ddr50()?;
        } else if host.can_do_high_speed() && csd.knows_switch() && choose(HIGH_SPEED)? {
            host.use_high_speed()?;
        }
        if *is_low {
            // Lines that carry answers may still not carry data as fast as that.
            read(host, READ_SINGLE_BLOCK, 0, &mut [0; BLOCK_BYTES])?;
        }
        Ok(Card { name: "SD card", blocks, high_capacity })
    }

    /// [`identify`](Card::identify) for eMMC (MMC 6.4, 6.6).
    fn identify_emmc<R: Registers>(host: &Host<R>) -> Result<Card, SdError> {
        let run = |index, response, argument| run(host, index, response, argument);

        host.command(GO_IDLE_STATE, Response::None, 0).map_err(|_| SdError::NoCard)?;
        host.sleep(IDLE_US);
        let offer = OCR_VOLTAGES | OCR_HIGH_CAPACITY;
        let ocr = wait_until_ready(host, || host.command(SEND_OP_COND, Response::R3, offer))?;
        let high_capacity = ocr & OCR_HIGH_CAPACITY != 0;

        run(ALL_SEND_CID, Response::R2, 0)?;
        run(SEND_RELATIVE_ADDR, Response::R1, EMMC_ADDRESS)?;
        let csd = Csd(run(SEND_CSD, Response::R2, EMMC_ADDRESS)?);
        run(SELECT_CARD, Response::R1, EMMC_ADDRESS)?;
        host.set_clock(25_000_000)?;
        if !high_capacity {
            run(SET_BLOCKLEN, Response::R1, BLOCK_BYTES as u32)?;
        }
        let mut ext_csd = [0; BLOCK_BYTES];
        read(host, SEND_EXT_CSD, 0, &mut ext_csd)?;
        let blocks = if high_capacity {
            (0..4).map(|i| u64::from(ext_csd[SEC_COUNT + i]) << (8 * i)).sum()
        } else {
            csd.product_blocks()
        };

        // Whether the eMMC did as it was told; if not, it is as before.
        let switch = |byte: u32, value: u32| {
            run(SWITCH, Response::R1b, SWITCH_WRITE | byte << 16 | value << 8)?;
            host.wait(SWITCH_US, || !host.is_busy());
            let [state, ..] = run(SEND_STATUS, Response::R1, EMMC_ADDRESS)?;
            Ok(state & SWITCH_ERROR == 0)
        };
        if switch(BUS_WIDTH, 1)? {
            host.use_4_bits();
        }
        let fast = ext_csd[DEVICE_TYPE] & DEVICE_TYPE_52_MHZ != 0;
        if host.can_do_high_speed() && fast && switch(HS_TIMING, 1)? {
            host.use_high_speed()?;
        }
        Ok(Card { name: "eMMC", blocks, high_capacity })
    }

    /// What it is, for people.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Number of blocks of 512 bytes.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// What a command takes for this block: there are fewer than 2^32, and of bytes too where the
    /// card counts those (PL 4.3.14).
    pub fn address(&self, block: u64) -> u32 {
        if self.high_capacity { block as u32 } else { (block * BLOCK_BYTES as u64) as u32 }
    }
}

/// What the card says of itself (PL 5.3), without the lowest 8 bits, as the controller gives it.
struct Csd([u32; 4]);

impl Csd {
    /// The bits from `low` on, as the specification counts them.
    fn bits(&self, low: usize, width: usize) -> u64 {
        let bit = |i: usize| u64::from(self.0[(i - 8) / 32] >> ((i - 8) % 32) & 1);
        (0..width).map(|i| bit(low + i) << i).sum()
    }

    /// Number of blocks of 512 bytes; `None` if the structure is of an unknown version.
    fn blocks(&self) -> Option<u64> {
        match self.bits(126, 2) {
            0 => Some(self.product_blocks()),
            1 => Some((self.bits(48, 22) + 1) << 10),
            _ => None,
        }
    }

    /// The same where the size is a product: SD cards and eMMC of up to 2 GB (MMC 7.3).
    fn product_blocks(&self) -> u64 {
        let shift = self.bits(47, 3) + 2 + self.bits(80, 4);
        ((self.bits(62, 12) + 1) << shift) / BLOCK_BYTES as u64
    }

    /// The command class of SWITCH_FUNC is there.
    fn knows_switch(&self) -> bool {
        self.bits(84 + 10, 1) == 1
    }
}
