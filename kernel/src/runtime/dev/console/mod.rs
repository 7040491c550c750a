//! Serial ports, and text on a screen.
//!
//! The ports' drivers (`Driver`) have no state beside the device's own: a panic may print through
//! one while another core is in the middle of it. [`Port`] waits for them, and only notes of a port
//! that it is stuck.

#![forbid(unsafe_code)]

mod ns16550;
mod pl011;
mod s5l;
pub mod screen;

use ns16550::Ns16550;
use pl011::Pl011;
use s5l::S5l;

use core::sync::atomic::{AtomicBool, Ordering};

use crate::runtime::dev::mmio::{self, Registers};
use crate::runtime::machine::{Uart, UartKind};

/// Longest time that a port may take for what it should do, in µs.
///
/// A full FIFO of 32 bytes takes half of that to leave at 300 baud. A port that takes longer is
/// stuck.
const TIMEOUT_US: u64 = 2_000_000;

/// Most damaged bytes that one look for input drops: a port that is broken may hold them for ever.
const MAX_DAMAGED: usize = 64;

/// A serial port that is set up. No method waits without end, whatever the port does.
pub trait Console {
    /// Sends a byte, after waiting until there is room for it.
    ///
    /// A port that has no room for two seconds is stuck. The byte is dropped then, and so is each
    /// further one that finds no room at once, until one finds it.
    fn write_byte(&self, byte: u8);

    /// Waits until all that was written has left the port, or the port is stuck.
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

/// The registers of a serial port. No method waits: each looks at the port once.
trait Driver {
    /// Whether there is room for a byte to send.
    fn has_room(&self) -> bool;

    /// Sends a byte. There is room for it.
    fn send(&self, byte: u8);

    /// Whether all that was written has left the port.
    fn has_sent_all(&self) -> bool;

    /// Takes the oldest byte received, if there is one.
    fn receive(&self) -> Option<Result<u8, Damaged>>;

    /// See [`Console::set_receive_interrupt`].
    fn set_receive_interrupt(&self, on: bool);
}

/// A byte that came with a framing or parity error, or a break.
#[derive(Clone, Copy, Debug)]
struct Damaged;

/// A clock, in µs from an arbitrary start.
pub type Clock = fn() -> u64;

/// Waits until `ready` holds; false if it does not within [`TIMEOUT_US`].
fn wait(now_us: Clock, ready: impl Fn() -> bool) -> bool {
    mmio::wait(TIMEOUT_US, now_us, ready)
}

/// The serial port that the device tree names.
#[derive(Debug)]
pub struct Port<R> {
    kind: Kind<R>,
    now_us: Clock,
    /// It had no room, or something left to send, for [`TIMEOUT_US`], and has not had since.
    is_stuck: AtomicBool,
}

#[derive(Debug)]
enum Kind<R> {
    /// An Arm PL011.
    Pl011(Pl011<R>),
    /// A 16550.
    Ns16550(Ns16550<R>),
    /// The one of Apple's chips.
    S5l(S5l<R>),
}

impl<R: Registers> Port<R> {
    /// Sets up the port that `uart` describes.
    pub fn new(uart: &Uart, registers: R, now_us: Clock) -> Port<R> {
        let kind = match uart.kind {
            UartKind::Pl011 => Kind::Pl011(Pl011::new(uart, registers, now_us)),
            UartKind::Ns16550 => Kind::Ns16550(Ns16550::new(uart, registers, now_us)),
            UartKind::S5l => Kind::S5l(S5l::new(registers)),
        };
        Port { kind, now_us, is_stuck: AtomicBool::new(false) }
    }

    /// What it is, for `hello`.
    pub const fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Pl011(_) => "pl011",
            Kind::Ns16550(_) => "ns16550",
            Kind::S5l(_) => "s5l-uart",
        }
    }

    fn driver(&self) -> &dyn Driver {
        match &self.kind {
            Kind::Pl011(port) => port,
            Kind::Ns16550(port) => port,
            Kind::S5l(port) => port,
        }
    }

    /// Waits until `ready` holds, but only looks once while the port is stuck. Whether it holds.
    fn wait(&self, ready: impl Fn() -> bool) -> bool {
        let was_stuck = self.is_stuck.load(Ordering::Relaxed);
        let is_ready = if was_stuck { ready() } else { wait(self.now_us, ready) };
        if is_ready == was_stuck {
            self.is_stuck.store(!is_ready, Ordering::Relaxed);
        }
        is_ready
    }
}

impl<R: Registers> Console for Port<R> {
    fn write_byte(&self, byte: u8) {
        let driver = self.driver();
        if self.wait(|| driver.has_room()) {
            driver.send(byte);
        }
    }

    fn flush(&self) {
        let driver = self.driver();
        self.wait(|| driver.has_sent_all());
    }

    fn read_byte(&self) -> Option<u8> {
        let driver = self.driver();
        (0..MAX_DAMAGED).map_while(|_| driver.receive()).find_map(Result::ok)
    }

    fn set_receive_interrupt(&self, on: bool) {
        self.driver().set_receive_interrupt(on);
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

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
