//! The network card of this machine, below the stack.

#![forbid(unsafe_code)]

use alloc::string::String;

use log::warn;
use smoltcp::phy::{Device, DeviceCapabilities};
use smoltcp::time::Instant;

use super::Card;
use crate::runtime::arch::time;
use crate::runtime::dev::entropy;
use crate::runtime::dev::net::card::{self, NetCard};

/// A virtio card with its name.
struct Virtio {
    name: &'static str,
    card: NetCard,
    /// Whether the card wakes the core now.
    is_awaited: bool,
}

impl Device for Virtio {
    type RxToken<'a> = <NetCard as Device>::RxToken<'a>;
    type TxToken<'a> = <NetCard as Device>::TxToken<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.card.receive(now)
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        self.card.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.card.capabilities()
    }
}

impl Card for Virtio {
    fn name(&self) -> String {
        self.name.into()
    }

    fn mac(&self) -> [u8; 6] {
        self.card.mac()
    }

    fn enable_wake(&mut self) -> bool {
        if !self.is_awaited {
            self.is_awaited = self.card.before_sleep();
            return self.is_awaited;
        }
        !self.card.is_woken()
    }

    fn disable_wake(&mut self) {
        if self.is_awaited {
            self.is_awaited = false;
            self.card.after_sleep();
        }
    }

    fn longest_sleep_us(&self) -> Option<u64> {
        Some(self.card.longest_sleep_us())
    }
}

/// Gives the network the first card of the machine, if the machine has one.
pub fn attach() {
    let Some((name, card)) = card::take_later() else { return };
    let mut seed = [0; 8];
    if !entropy::fill(&mut seed) {
        warn!(
            "the machine has no random bytes, so others may guess the numbers of connections: \
             give the machine a virtio-rng device"
        );
        seed = time::now_ns().to_le_bytes();
    }
    super::attach(Virtio { name, card, is_awaited: false }, u64::from_ne_bytes(seed));
}
