//! The TCP/IP stack of one network card.
//!
//! Nothing here waits. [`Stack::poll`] moves everything on, and [`Stack::next_deadline`] is the
//! moment when the stack next acts by itself. The card is lent to each call, so that tests run the
//! stack on the host.

use alloc::vec::Vec;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::phy::{Device, Medium};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use super::addresses::Addresses;
use super::descriptors::Descriptors;
use super::filter::{Filter, Filtered};
use super::tcp::{Phase, Tcp};
use crate::steady_clock::SteadyClock;
use crate::system::{NetworkConfig, NetworkError};

/// Maximum number of frames that one poll receives, so that a flood does not hold the caller.
const MAX_FRAMES: usize = 64;
/// Maximum number of rounds in which one poll sends; a round is one segment of each socket.
const MAX_ROUNDS: usize = 64;

/// Smallest MTU that IPv4 needs (RFC 791), in bytes.
const MIN_MTU: usize = 576;

/// Wait before the stack tries again what it could not do, such as to send into a full queue.
const RETRY: Duration = Duration::from_millis(1);

/// A stack, without its card.
pub struct Stack {
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    pub(super) tcp: Tcp,
    pub(super) descriptors: Descriptors,
    addresses: Addresses,
    filter: Filter,
    clock: SteadyClock,
    /// The clock's time of the last poll.
    pub(super) now: Instant,
    deadline: Option<Instant>,
    /// Whether the application has done something since the last poll.
    pub(super) is_dirty: bool,
    /// State of the generator of port numbers.
    ports: u64,
}

impl Stack {
    /// Starts the stack of a card with this Ethernet address.
    ///
    /// `seed` decides sequence numbers, ports and DHCP's transactions; it should be random. A clock
    /// in µs starts at `now_us`.
    ///
    /// # Errors
    /// The configuration makes no sense, or the card cannot be used.
    pub fn start<D: Device + ?Sized>(
        device: &mut D,
        mac: [u8; 6],
        config: &NetworkConfig,
        seed: u64,
        now_us: u64,
    ) -> Result<Stack, NetworkError> {
        let (mac, now) = (EthernetAddress(mac), instant(now_us));
        let capabilities = device.capabilities();
        if capabilities.medium != Medium::Ethernet || !mac.is_unicast() {
            return Err(NetworkError::Card);
        }
        let mtu = capabilities.max_transmission_unit.saturating_sub(ETHERNET_HEADER_BYTES);
        if mtu < MIN_MTU {
            return Err(NetworkError::Mtu(mtu));
        }
        let mut sockets = SocketSet::new(Vec::new());
        let addresses = Addresses::new(config, mac, &mut sockets, now)?;
        let mut interface_config = Config::new(mac.into());
        interface_config.random_seed = seed;
        let mut stack = Stack {
            interface: Interface::new(interface_config, device, now),
            sockets,
            tcp: Tcp::default(),
            descriptors: Descriptors::default(),
            addresses,
            filter: Filter::default(),
            clock: SteadyClock::default(),
            now,
            deadline: Some(now),
            is_dirty: true,
            ports: seed.rotate_left(32),
        };
        stack.update_addresses();
        Ok(stack)
    }

    /// Receives, sends, and runs timers that are due.
    ///
    /// Without frames, due timers and calls of the application, this costs one look at the card.
    pub fn poll<D: Device + ?Sized>(&mut self, device: &mut D, now_us: u64) {
        // The clock of the caller never goes back, but smoltcp would not take it well.
        let now_us = self.clock.read(now_us, self.deadline.map(micros));
        let now = instant(now_us).max(self.now);
        self.now = now;
        let is_due = self.deadline.is_some_and(|deadline| now >= deadline);
        if is_due {
            // A half-open connection may have to go before a frame opens another one.
            self.tend(Phase::Received);
        }
        let has_received = self.receive(device);
        if !has_received && !self.is_dirty && !is_due {
            return;
        }
        self.is_dirty = false;
        self.tend(Phase::Received);
        self.update_addresses();
        for _ in 0..MAX_ROUNDS {
            let sent = self.interface.poll_egress(now, device, &mut self.sockets);
            if sent == PollResult::None {
                break;
            }
        }
        self.addresses.solicit(device, now);
        self.tend(Phase::Sent);
        self.update_addresses();
        let timers = self.interface.poll_at(now, &self.sockets).into_iter();
        let others = self.addresses.deadline().into_iter().chain(self.tcp.deadline());
        // What is due already could not be done: the card's queue may be full.
        self.deadline = timers.chain(others).min().map(|deadline| deadline.max(now + RETRY));
    }

    /// Receives frames that are there; returns whether there was one.
    fn receive<D: Device + ?Sized>(&mut self, device: &mut D) -> bool {
        for n in 0..MAX_FRAMES {
            let mut device = Filtered { device: &mut *device, filter: &mut self.filter };
            let result =
                self.interface.poll_ingress_single(self.now, &mut device, &mut self.sockets);
            if result == PollIngressSingleResult::None {
                return n > 0;
            }
            // Before the next frame, another socket must listen.
            if core::mem::take(&mut self.filter.is_control) {
                self.tend(Phase::Received);
            }
            if let Some(over) = self.filter.reopened.take() {
                self.tcp.end(&mut self.sockets, over);
                self.brief_filter();
            }
            if let Some(advert) = self.filter.advert.take() {
                self.addresses.hear(&advert, self.now);
            }
        }
        true
    }

    fn tend(&mut self, phase: Phase) {
        if self.tcp.tend(&mut self.sockets, self.now, phase) {
            self.brief_filter();
        }
    }

    /// Gives the filter the connections that exist, and those that are refused.
    pub(super) fn brief_filter(&mut self) {
        self.filter.refusals = self.tcp.refusals();
        self.tcp.list_taken(&self.sockets, &mut self.filter.taken);
    }

    fn update_addresses(&mut self) {
        if self.addresses.update(&mut self.interface, &mut self.sockets, self.now) {
            let own = self.interface.ip_addrs().iter().map(IpCidr::address);
            self.filter.own = own.collect();
            for address in self.addresses.routable() {
                log::info!("network: the address is {address}");
            }
        }
    }

    /// The moment of the clock, in µs, when the stack next acts by itself.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadline = if self.is_dirty { Some(self.now) } else { self.deadline };
        deadline.map(|deadline| self.clock.machine_us(micros(deadline)))
    }

    /// The addresses that others reach the machine by, without the link-local one.
    pub fn addresses(&self) -> Vec<IpCidr> {
        self.addresses.routable()
    }

    /// The gateways of IPv4 and IPv6.
    pub fn gateways(&self) -> Vec<IpAddress> {
        self.addresses.gateways()
    }

    /// Number of sockets of TCP that have memory, and of those that nobody uses.
    pub fn pool(&self) -> (usize, usize) {
        self.tcp.sizes()
    }

    /// A port for a socket that asks for any (RFC 6335, 6: the dynamic ones).
    pub(super) fn any_port(&mut self) -> u16 {
        loop {
            // Knuth's generator for 64 bits; the upper bits are the better ones.
            self.ports = self.ports.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let port = 0xc000 | (self.ports >> 48) as u16;
            if !self.tcp.is_listening_on(port) {
                return port;
            }
        }
    }
}

/// Bytes of an Ethernet header, which smoltcp counts in its MTU.
pub const ETHERNET_HEADER_BYTES: usize = smoltcp::wire::ETHERNET_HEADER_LEN;

/// The moment at which a clock reads `us` µs.
fn instant(us: u64) -> Instant {
    Instant::from_micros(i64::try_from(us).unwrap_or(i64::MAX / 2))
}

fn micros(instant: Instant) -> u64 {
    u64::try_from(instant.total_micros()).unwrap_or(0)
}
