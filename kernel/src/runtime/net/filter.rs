//! Filter of received frames: between a network card and smoltcp.
//!
//! smoltcp 0.14 panics on, or stumbles over, some frames that any neighbour may send. Such frames
//! are dropped here:
//!
//! - IPv4 from 0.0.0.0. An answer to that address is an assertion failure in smoltcp.
//! - TCP to an address that is not the interface's own. A listening socket would take such a
//!   segment, find no address to answer from, and listen no more.
//! - IPv4 fragments, and IPv6 packets with hop-by-hop options. The stack puts no fragments together
//!   and needs no options. A TCP header behind either would escape the rules here.
//! - A SYN to a listener whose backlog is full. smoltcp would answer with a reset. Without an
//!   answer, the client tries again.
//! - A SYN of a connection that exists: the network may have doubled it. smoltcp gives each segment
//!   to the first socket that takes it. A listening socket would become a second end of that
//!   connection. A SYN of a connection in TIME-WAIT ends that connection: the next SYN opens a new
//!   one.
//!
//! The filter also notes what the stack must act on before the next frame: TCP segments that open
//! or end a connection, and router advertisements.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, PacketMeta, RxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpAddress,
    IpEndpoint, IpProtocol, Ipv4Packet, Ipv6Packet, NdiscOption, NdiscOptionRepr, NdiscRepr,
    TcpPacket,
};

use super::slaac::{Advert, MAX_PREFIXES};
use super::tcp::{MAX_LISTENERS, Refusal, Taken};

/// Maximum number of the interface's own addresses: smoltcp's `iface-max-addr-count`.
pub const MAX_ADDRESSES: usize = 8;

/// The filter's rules, and its notes on the last frame.
#[derive(Debug, Default)]
pub struct Filter {
    /// The interface's own addresses.
    pub own: ArrayVec<IpAddress, MAX_ADDRESSES>,
    /// New connections that are refused.
    pub refusals: ArrayVec<Refusal, MAX_LISTENERS>,
    /// The connections that exist.
    pub taken: Vec<Taken>,
    /// A connection in TIME-WAIT that its client wants to open again.
    pub reopened: Option<Taken>,
    /// Whether a TCP segment with SYN, FIN or RST was let through since this was last cleared.
    pub is_control: bool,
    /// The last router advertisement that has not been taken.
    pub advert: Option<Advert>,
}

impl Filter {
    /// Judges a frame: whether smoltcp gets the frame.
    fn admits(&mut self, frame: &[u8]) -> bool {
        // smoltcp drops what is malformed.
        let Ok(frame) = EthernetFrame::new_checked(frame) else { return true };
        match frame.ethertype() {
            EthernetProtocol::Ipv4 => self.admits_ipv4(frame.payload()),
            EthernetProtocol::Ipv6 => self.admits_ipv6(frame.payload()),
            _ => true,
        }
    }

    fn admits_ipv4(&mut self, packet: &[u8]) -> bool {
        let Ok(packet) = Ipv4Packet::new_checked(packet) else { return true };
        if packet.src_addr().is_unspecified() || packet.more_frags() || packet.frag_offset() != 0 {
            return false;
        }
        match packet.next_header() {
            IpProtocol::Tcp => {
                let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
                self.admits_tcp(from, to, packet.payload())
            }
            _ => true,
        }
    }

    fn admits_ipv6(&mut self, packet: &[u8]) -> bool {
        let Ok(packet) = Ipv6Packet::new_checked(packet) else { return true };
        match packet.next_header() {
            IpProtocol::HopByHop => false,
            IpProtocol::Tcp => {
                let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
                self.admits_tcp(from, to, packet.payload())
            }
            IpProtocol::Icmpv6 => {
                self.advert = advert(&packet).or(self.advert.take());
                true
            }
            _ => true,
        }
    }

    fn admits_tcp(&mut self, from: IpAddress, to: IpAddress, segment: &[u8]) -> bool {
        let Ok(segment) = TcpPacket::new_checked(segment) else { return true };
        if !self.own.contains(&to) {
            return false;
        }
        if segment.syn() && !segment.ack() {
            let local = IpEndpoint::new(to, segment.dst_port());
            let remote = IpEndpoint::new(from, segment.src_port());
            let is_same = |taken: &&Taken| taken.local == local && taken.remote == remote;
            if let Some(taken) = self.taken.iter().find(is_same) {
                self.reopened = taken.is_over.then_some(*taken).or(self.reopened);
                return false;
            }
            if self.refusals.iter().any(|refusal| refusal.covers(local)) {
                return false;
            }
        }
        self.is_control |= segment.syn() || segment.fin() || segment.rst();
        true
    }
}

/// Reads a router advertisement (RFC 4861, 4.2); `None` for any other packet.
fn advert(packet: &Ipv6Packet<&[u8]>) -> Option<Advert> {
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    // A router sends from its link-local address, and no router forwards a hop limit of 255.
    if !from.is_unicast_link_local() || packet.hop_limit() != 255 {
        return None;
    }
    let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    if message.msg_type() != Icmpv6Message::RouterAdvert {
        return None;
    }
    let checksums = ChecksumCapabilities::default();
    let parsed = Icmpv6Repr::parse(&from, &to, &message, &checksums).ok()?;
    let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { router_lifetime, .. }) = parsed else {
        return None;
    };
    let mut prefixes = ArrayVec::<_, MAX_PREFIXES>::new();
    let mut options = message.payload();
    // smoltcp's parser keeps one prefix only.
    while let Ok(option) = NdiscOption::new_checked(options) {
        if let Ok(NdiscOptionRepr::PrefixInformation(prefix)) = NdiscOptionRepr::parse(&option) {
            // The prefixes beyond the most that are kept go.
            let _ = prefixes.try_push(prefix);
        }
        let bytes = usize::from(option.data_len()) * 8;
        options = options.get(bytes..).filter(|_| bytes > 0).unwrap_or_default();
        if options.is_empty() {
            break;
        }
    }
    Some(Advert { router: from, router_lifetime, prefixes })
}

/// A network card behind a filter.
pub struct Filtered<'a, D: ?Sized> {
    /// The card.
    pub device: &'a mut D,
    /// The filter.
    pub filter: &'a mut Filter,
}

impl<D: Device + ?Sized> Device for Filtered<'_, D> {
    type RxToken<'t>
        = FilteredToken<'t, D::RxToken<'t>>
    where
        Self: 't;
    type TxToken<'t>
        = D::TxToken<'t>
    where
        Self: 't;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (token, transmit) = self.device.receive(now)?;
        Some((FilteredToken { token, filter: self.filter }, transmit))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        self.device.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.device.capabilities()
    }
}

/// A received frame that has not passed the filter yet.
pub struct FilteredToken<'a, T> {
    token: T,
    filter: &'a mut Filter,
}

impl<T: RxToken> RxToken for FilteredToken<'_, T> {
    /// Gives the frame to `take`; a frame that is dropped is empty.
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        let FilteredToken { token, filter } = self;
        token.consume(|frame| if filter.admits(frame) { take(frame) } else { take(&[]) })
    }

    fn meta(&self) -> PacketMeta {
        self.token.meta()
    }
}
