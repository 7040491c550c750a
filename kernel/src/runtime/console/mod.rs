//! Serial ports, and text on a screen.
//!
//! The ports' drivers have no state beside the device's own: a panic may print through one while another
//! core is in the middle of it.

#![forbid(unsafe_code)]

mod ns16550;
mod pl011;
mod s5l;
pub mod screen;

pub use ns16550::Ns16550;
pub use pl011::Pl011;
pub use s5l::S5l;

use super::machine::{Uart, UartKind};
use super::mmio::Registers;

/// A serial port that is set up.
pub trait Console {
    /// Sends a byte, after waiting until there is room for it.
    fn write_byte(&self, byte: u8);

    /// Waits until all that was written has left the port.
    fn flush(&self);

    /// Takes the oldest byte received, if there is one. Bytes that came with a framing or parity
    /// error, and breaks, are dropped.
    fn read_byte(&self) -> Option<u8>;

    /// Makes the port raise its interrupt for as long as it holds a byte that was received, or stop
    /// doing so. At first it does not.
    ///
    /// It is on only while someone waits for input: a byte that no one reads would keep every `wfi`
    /// from sleeping.
    fn set_receive_interrupt(&self, on: bool);
}

/// The serial port that the device tree names.
#[derive(Debug)]
pub enum Port<R> {
    /// An Arm PL011.
    Pl011(Pl011<R>),
    /// A 16550.
    Ns16550(Ns16550<R>),
    /// The one of Apple's chips.
    S5l(S5l<R>),
}

impl<R: Registers> Port<R> {
    /// Sets up the port that `uart` describes.
    pub fn new(uart: &Uart, registers: R) -> Port<R> {
        match uart.kind {
            UartKind::Pl011 => Port::Pl011(Pl011::new(uart, registers)),
            UartKind::Ns16550 => Port::Ns16550(Ns16550::new(uart, registers)),
            UartKind::S5l => Port::S5l(S5l::new(registers)),
        }
    }

    /// What it is, for `hello`.
    pub const fn name(&self) -> &'static str {
        match self {
            Port::Pl011(_) => "pl011",
            Port::Ns16550(_) => "ns16550",
            Port::S5l(_) => "s5l-uart",
        }
    }
}

impl<R: Registers> Console for Port<R> {
    fn write_byte(&self, byte: u8) {
        match self {
            Port::Pl011(port) => port.write_byte(byte),
            Port::Ns16550(port) => port.write_byte(byte),
            Port::S5l(port) => port.write_byte(byte),
        }
    }

    fn flush(&self) {
        match self {
            Port::Pl011(port) => port.flush(),
            Port::Ns16550(port) => port.flush(),
            Port::S5l(port) => port.flush(),
        }
    }

    fn read_byte(&self) -> Option<u8> {
        match self {
            Port::Pl011(port) => port.read_byte(),
            Port::Ns16550(port) => port.read_byte(),
            Port::S5l(port) => port.read_byte(),
        }
    }

    fn set_receive_interrupt(&self, on: bool) {
        match self {
            Port::Pl011(port) => port.set_receive_interrupt(on),
            Port::Ns16550(port) => port.set_receive_interrupt(on),
            Port::S5l(port) => port.set_receive_interrupt(on),
        }
    }
}

/// What a port's clock is divided by for the baud rate, in units of `1 / fraction`, to the nearest.
/// Both kinds sample a bit 16 times. `None` if clock or rate are unknown or ask for more than the 16
/// bits that a divisor has.
fn divisor(uart: &Uart, fraction: u32) -> Option<u32> {
    let clock = u64::from(uart.clock_hz?) * u64::from(fraction);
    let samples = u64::from(uart.baud.filter(|&baud| baud != 0)?) * 16;
    let divisor = u32::try_from((clock + samples / 2) / samples).ok()?;
    (fraction..=0xffff * fraction).contains(&divisor).then_some(divisor)
}
