//! The network card of this machine.

#![forbid(unsafe_code)]

use log::{info, warn};
use virtio_drivers::transport::{DeviceType, SomeTransport};

use super::{NetDevice, WakeLine};
use crate::runtime::arch::time;
use crate::runtime::dev::bus::scan::{self, Bus, Found};
use crate::runtime::dev::entropy;
use crate::runtime::dev::wake::{self, Source};

/// A network card of this machine.
pub type NetCard = NetDevice<SomeTransport<'static>, Line>;

/// The wire of a card's interrupt.
#[derive(Debug)]
pub struct Line {
    source: Source,
    has_failed: bool,
}

impl WakeLine for Line {
    fn open(&mut self) -> bool {
        wake::listen(&self.source).unwrap_or_else(|error| {
            if !self.has_failed {
                warn!("the network card's interrupt: {error}: idle cores poll the card");
            }
            self.has_failed = true;
            false
        })
    }

    fn close(&mut self) {
        wake::ignore(&self.source);
    }
}

/// Takes the first network card off the bus and starts it.
///
/// The first part of the result is the card's name for logs. A card that cannot be started is
/// logged and left out.
pub fn take(bus: &mut Bus) -> Option<(&'static str, NetCard)> {
    start_first(bus.take(DeviceType::Network))
}

/// As [`take`], off the devices that no driver has taken while the machine started.
pub fn take_later() -> Option<(&'static str, NetCard)> {
    start_first(scan::take_later(DeviceType::Network))
}

fn start_first(found: impl IntoIterator<Item = Found>) -> Option<(&'static str, NetCard)> {
    found.into_iter().find_map(start)
}

fn start(found: Found) -> Option<(&'static str, NetCard)> {
    let name = match found.transport {
        SomeTransport::Mmio(_) => "virtio-net (mmio)",
        SomeTransport::Pci(_) => "virtio-net (pci)",
    };
    let source = Source::new();
    match found.interrupt {
        Some(interrupt) => source.register(interrupt),
        None => warn!("{name}: the device tree names no interrupt: idle cores poll the card"),
    }
    let line = Line { source, has_failed: false };
    match NetDevice::new(found.transport, found.coherence, line, random_mac) {
        Ok(card) => {
            let [a, b, c, d, e, f] = card.mac();
            info!("{name}: {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, MTU {}", card.mtu());
            Some((name, card))
        }
        Err(error) => {
            warn!("{name}: {error}");
            None
        }
    }
}

/// An address for a card that has none: random, or else from the time since power on.
fn random_mac() -> [u8; 6] {
    let mut bytes = [0; 6];
    if !entropy::fill(&mut bytes) {
        bytes.copy_from_slice(&time::now_ns().to_le_bytes()[..6]);
    }
    bytes
}
