//! Network cards: virtio-net, as a device of the TCP/IP stack.
//!
//! [`NetDevice`] implements `smoltcp::phy::Device`, and never waits. [`card`] finds the card of this
//! machine.
//!
//! # Sleep
//!
//! A core that has nothing to do sleeps until a frame arrives. The interrupt of a card only ends
//! that sleep: no core ever takes an interrupt. While nobody sleeps, the card is asked for no
//! interrupts, and the interrupt controller lets none through. The order is:
//!
//! 1. [`NetDevice::before_sleep`] lets the interrupt through, acknowledges an old interrupt at the
//!    card, asks the card for interrupts, and only then looks at the queues. A frame that comes
//!    before the look is seen. A frame that comes after the look raises the interrupt.
//! 2. The core sleeps. Each time it wakes, [`NetDevice::is_woken`] acknowledges the interrupt at the
//!    card, and only then looks at the queues. So the wire is low before the core sleeps again: an
//!    edge can follow, and a level does not wake the core again and again.
//! 3. [`NetDevice::after_sleep`] asks the card for no more interrupts, shuts the interrupt out at
//!    the controller, and acknowledges what has come meanwhile.
//!
//! So no frame is slept through, for level-triggered and edge-triggered interrupts alike. An
//! interrupt that the card raises unasked wakes nobody in between.

#[cfg(target_os = "none")]
pub mod card;
mod virtio;

#[cfg(test)]
mod tests;

pub use virtio::{FRAME_HEADER, NetDevice, RxToken, TxToken};

/// The wire from a card to the interrupt controller.
pub trait WakeLine {
    /// Lets the interrupt of the card end the calling core's sleep.
    ///
    /// The result is false if nothing will end the sleep.
    fn open(&mut self) -> bool;

    /// Shuts the interrupt out.
    fn close(&mut self);
}
