//! What the card and the host controller both know of commands: answers, failures, errors.

#![forbid(unsafe_code)]

use core::fmt;

/// Bytes of a block, whatever the card.
pub const BLOCK_BYTES: usize = 512;

/// CMD12, which ends a read of many blocks (PL 4.7.4): the controller must be told so, too.
pub const STOP_TRANSMISSION: u32 = 12;

/// What a command is answered with (HC table 2-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing.
    None,
    /// The card's state; R6 and R7 are alike.
    R1,
    /// The same, and a busy signal.
    R1b,
    /// 128 bits.
    R2,
    /// 32 bits without a checksum.
    R3,
}

impl Response {
    /// Length, checks of checksum and index.
    pub fn bits(self) -> u32 {
        match self {
            Response::None => 0,
            Response::R1 => 0x1a,
            Response::R1b => 0x1b,
            Response::R2 => 0x09,
            Response::R3 => 0x02,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The card did not answer.
    NoAnswer,
    /// The controller did not carry it out.
    Stuck,
    /// What came was damaged: the interrupt status.
    Damaged(u32),
    /// The card refused: its state.
    Refused(u32),
}

/// Why a card cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdError {
    /// The controller does not tell what its clock is divided from.
    NoBaseClock,
    /// The controller does not carry out what it is told.
    Stuck,
    /// There is no card, or none for memory.
    NoCard,
    /// The card does not work with 3.3 V.
    Voltage,
    /// The card's lines do not change to 1.8 V.
    LowVoltage,
    /// The card's supply cannot be switched.
    Supply,
    /// The card does not become ready.
    NeverReady,
    /// The card describes itself in a way that is not known, as those of more than 2 TB do.
    UnknownLayout,
    /// A command failed.
    Command {
        /// Its number.
        index: u32,
        /// How.
        failure: Failure,
    },
}

impl fmt::Display for SdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SdError::NoBaseClock => f.write_str("the controller does not tell its clock"),
            SdError::Stuck => f.write_str("the controller does not answer"),
            SdError::NoCard => f.write_str("there is no card in the slot"),
            SdError::Voltage => f.write_str("the card does not work with 3.3 V"),
            SdError::LowVoltage => f.write_str("the card's lines do not change to 1.8 V"),
            SdError::Supply => f.write_str("the card's supply cannot be switched"),
            SdError::NeverReady => f.write_str("the card does not become ready"),
            SdError::UnknownLayout => f.write_str("cards of this kind are not known"),
            SdError::Command { index, failure } => {
                write!(f, "the card's CMD{index} failed: ")?;
                match failure {
                    Failure::NoAnswer => f.write_str("no answer"),
                    Failure::Stuck => f.write_str("the controller did not carry it out"),
                    Failure::Damaged(status) => write!(f, "damaged answer (status {status:#x})"),
                    Failure::Refused(state) => write!(f, "the card refused (state {state:#x})"),
                }
            }
        }
    }
}

impl core::error::Error for SdError {}
