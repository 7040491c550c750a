//! The registers of a host controller, and their bits.
//!
//! Source: SD Host Controller Simplified Specification 3.00 ("HC").

#![forbid(unsafe_code)]

/// The registers (HC 2.2), in words of 32 bits.
pub mod register {
    /// Size of a block, and above it the number of blocks.
    pub const BLOCK: usize = 0x04;
    /// Argument of a command.
    pub const ARGUMENT: usize = 0x08;
    /// Transfer mode, and above it the command, which writing here sends.
    pub const COMMAND: usize = 0x0c;
    /// The first of four words of the response.
    pub const RESPONSE: usize = 0x10;
    /// The data port.
    pub const DATA: usize = 0x20;
    /// Present state.
    pub const PRESENT: usize = 0x24;
    /// Host control, power control, block gap control, wake-up control.
    pub const CONTROL: usize = 0x28;
    /// Clock control, timeout control, software reset.
    pub const CLOCK: usize = 0x2c;
    /// Interrupt status, of errors in the upper half; a bit is cleared by writing it.
    pub const STATUS: usize = 0x30;
    /// Which of them show at all.
    pub const STATUS_ENABLE: usize = 0x34;
    /// Which of them raise the interrupt.
    pub const SIGNAL_ENABLE: usize = 0x38;
    /// Errors of Auto CMD12, and above them host control 2.
    pub const CONTROL_2: usize = 0x3c;
    /// Capabilities.
    pub const CAPABILITIES: usize = 0x40;
    /// More of them, since version 3.00.
    pub const CAPABILITIES_HIGH: usize = 0x44;
    /// Where ADMA2's descriptors lie.
    pub const ADMA_ADDRESS: usize = 0x58;
    /// The upper half of that address.
    pub const ADMA_ADDRESS_HIGH: usize = 0x5c;
    /// Slot interrupt status, and above it the version.
    pub const VERSION: usize = 0xfc;
}

/// Bits of the interrupt status (HC 2.2.17, 2.2.18).
pub mod status {
    /// A command has been answered.
    pub const COMMAND_COMPLETE: u32 = 1;
    /// All data has come, and the busy signal has ended.
    pub const TRANSFER_COMPLETE: u32 = 1 << 1;
    /// The data port holds a block.
    pub const READ_READY: u32 = 1 << 5;
    /// Some error; the bits of the upper half say which.
    pub const ERROR: u32 = 1 << 15;
    /// No answer to a command.
    pub const COMMAND_TIMEOUT: u32 = 1 << 16;
    /// Wrong checksums and ends, of an answer or of data.
    pub const DAMAGED: u32 = 0b0110_0110 << 16;
    /// A descriptor is wrong, or the memory cannot be reached.
    pub const ADMA_ERROR: u32 = 1 << 25;
    /// All errors.
    pub const ERRORS: u32 = 0xffff_0000 | ERROR;
}

/// Bits of the transfer mode (HC 2.2.5).
pub const MODE_DMA: u32 = 1;
pub const MODE_COUNT: u32 = 1 << 1;
pub const MODE_AUTO_CMD12: u32 = 1 << 2;
pub const MODE_READ: u32 = 1 << 4;
pub const MODE_MULTIPLE: u32 = 1 << 5;

/// The command line or the data lines are in use (`PRESENT`).
pub const PRESENT_INHIBIT: u32 = 0b11;
/// The levels of the four data lines (`PRESENT`).
pub const PRESENT_LINES: u32 = 0b1111 << 20;
pub const CONTROL_4_BITS: u32 = 1 << 1;
pub const CONTROL_HIGH_SPEED: u32 = 1 << 2;
pub const CONTROL_DMA: u32 = 0b11 << 3;
pub const CONTROL_ADMA2: u32 = 0b10 << 3;
/// On, with 3.3 V.
pub const CONTROL_POWER: u32 = 0b1111 << 8;
/// The timing of cards whose lines have 1.8 V (`CONTROL_2`), and that they have.
pub const CONTROL_2_TIMING: u32 = 0b111 << 16;
pub const CONTROL_2_SDR25: u32 = 1 << 16;
pub const CONTROL_2_DDR50: u32 = 4 << 16;
pub const CONTROL_2_LOW_VOLTAGE: u32 = 1 << 19;
pub const CLOCK_INTERNAL: u32 = 1;
pub const CLOCK_STABLE: u32 = 1 << 1;
pub const CLOCK_CARD: u32 = 1 << 2;
pub const RESET_ALL: u32 = 1 << 24;
/// The command line and the data lines.
pub const RESET_LINES: u32 = 0b11 << 25;
/// The timeout's clock is given in MHz, not in kHz.
pub const CAPABILITY_TIMEOUT_MHZ: u32 = 1 << 7;
pub const CAPABILITY_ADMA2: u32 = 1 << 19;
pub const CAPABILITY_HIGH_SPEED: u32 = 1 << 21;
pub const CAPABILITY_HIGH_DDR50: u32 = 1 << 2;
/// Version 3.00 of the specification.
pub const VERSION_3: u32 = 2;
