//! Gives frames to the TCP/IP stack, and lets a server use what comes of them.
#![no_main]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use fuzz::limits::Limits;
use kernel::runtime::net::sockets::{Family, SocketError, SocketId};
use kernel::runtime::net::stack::Stack;
use kernel::system::NetworkConfig;
use libfuzzer_sys::fuzz_target;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet,
    TcpPacket, TcpSeqNumber, UdpPacket,
};

/// The sockets take 69 times 48 KiB. Each frame costs a look at each of them.
const LIMITS: Limits = Limits { memory: (4, 16 << 20), ns_per_byte: 100_000 };

/// Ethernet address of the stack, and of the machine that frames without an address come from.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x15];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PORT: u16 = 8080;

fuzz_target!(|input: &[u8]| LIMITS.hold(input.len(), || check(input)));

/// A card that has the frames of the input.
#[derive(Default)]
struct Card {
    frames: VecDeque<Vec<u8>>,
    seen: Seen,
}

/// What a peer knows from the frames that the stack has sent.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Sequence number that follows the last SYN.
    acknowledgement: u32,
    /// DHCP's last transaction.
    transaction: [u8; 4],
}

struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

struct Answer<'a>(&'a mut Seen);

impl TxToken for Answer<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0xa5; len];
        let result = fill(&mut frame);
        let frame = EthernetFrame::new_checked(&frame[..]).expect("a whole frame");
        assert_eq!(frame.src_addr().0, MAC);
        let (protocol, payload) = match frame.ethertype() {
            EthernetProtocol::Ipv4 => {
                let packet = Ipv4Packet::new_checked(frame.payload()).expect("a whole packet");
                assert!(packet.verify_checksum());
                (packet.next_header(), packet.payload())
            }
            EthernetProtocol::Ipv6 => {
                let packet = Ipv6Packet::new_checked(frame.payload()).expect("a whole packet");
                (packet.next_header(), packet.payload())
            }
            _ => return result,
        };
        match protocol {
            IpProtocol::Tcp => {
                let segment = TcpPacket::new_checked(payload).expect("a whole segment");
                if segment.syn() {
                    self.0.acknowledgement = (segment.seq_number().0 as u32).wrapping_add(1);
                }
            }
            IpProtocol::Udp => {
                let datagram = UdpPacket::new_checked(payload).expect("a whole datagram");
                self.0.transaction.copy_from_slice(&datagram.payload()[4..8]);
            }
            _ => {}
        }
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Answer<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Answer<'_>)> {
        let frame = self.frames.pop_front()?;
        Some((Frame(frame), Answer(&mut self.seen)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Answer<'_>> {
        Some(Answer(&mut self.seen))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// The input is records: the kind, two bytes of a length or a time, and the bytes of a frame.
fn check(input: &[u8]) {
    let Some((&first, mut rest)) = input.split_first() else { return };
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let config = match first & 1 {
        0 => NetworkConfig::default(),
        _ => NetworkConfig {
            addresses: vec![(ip("10.0.2.15"), 24), (ip("fd00::15"), 64)],
            gateways: vec![ip("10.0.2.2")],
        },
    };
    let (mut card, mut now_us) = (Card::default(), 1_000_000);
    let started = Stack::start(&mut card, MAC, &config, first.into(), now_us);
    let mut stack = started.expect("a configuration that makes sense");
    let listener = stack.socket(Family::Ipv6, true).expect("room for a socket");
    let any = SocketAddr::new(ip("::"), PORT);
    stack.bind(listener, any).and_then(|()| stack.listen(listener, 4)).expect("a free port");
    let (mut open, pool) = (Vec::new(), stack.pool().0);
    while let Some((&[kind, a, b], after)) = rest.split_first_chunk::<3>() {
        rest = after;
        let number = u16::from_be_bytes([a, b]);
        match kind & 3 {
            // Time passes, up to four minutes.
            0 => now_us += u64::from(number) * if kind & 4 == 0 { 40 } else { 4000 },
            // A frame, whose checksums are made right, and perhaps what answers the stack.
            n => {
                let (frame, after) = rest.split_at(usize::from(number % 1600).min(rest.len()));
                rest = after;
                let mut frame = [&MAC[..], &PEER_MAC, frame].concat();
                if n > 1 {
                    mend(&mut frame, (n > 2).then_some(card.seen));
                }
                card.frames.push_back(frame);
            }
        }
        // Several frames may come between two polls.
        if kind & 8 == 0 {
            stack.poll(&mut card, now_us);
            serve(&mut stack, listener, &mut open);
            // Sockets of a flood are those that there were before.
            assert_eq!(stack.pool().0, pool);
        }
    }
    stack.poll(&mut card, now_us);
    // A stack that has done all asks for no poll at once.
    if card.frames.is_empty() {
        assert!(stack.next_deadline().is_none_or(|deadline| deadline > now_us));
    }
}

/// Sends back what comes, and closes what has ended.
fn serve(stack: &mut Stack, listener: SocketId, open: &mut Vec<SocketId>) {
    while let Ok((socket, _)) = stack.accept(listener) {
        open.push(socket);
    }
    open.retain(|&socket| {
        let readiness = stack.readiness(socket).expect("an open socket");
        let mut data = Vec::new();
        let received = stack.recv(socket, 3000, |part| data.extend_from_slice(part));
        match received {
            Err(SocketError::WouldBlock) => assert!(!readiness.is_readable),
            Ok(n) if n > 0 => {
                assert!(readiness.is_readable && n == data.len());
                let _ = stack.send(socket, &data);
            }
            _ => {
                stack.close(socket).expect("an open socket");
                return false;
            }
        }
        true
    });
}

/// Makes the checksums of a frame right, and what answers the stack if `seen` is there.
fn mend(frame: &mut [u8], seen: Option<Seen>) {
    let Ok(mut frame) = EthernetFrame::new_checked(frame) else { return };
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let Ok(mut packet) = Ipv4Packet::new_checked(frame.payload_mut()) else { return };
            packet.fill_checksum();
            let ends = [packet.src_addr().into(), packet.dst_addr().into()];
            mend_inner(packet.next_header(), ends, packet.payload_mut(), seen);
        }
        EthernetProtocol::Ipv6 => {
            let Ok(mut packet) = Ipv6Packet::new_checked(frame.payload_mut()) else { return };
            let ends = [packet.src_addr().into(), packet.dst_addr().into()];
            mend_inner(packet.next_header(), ends, packet.payload_mut(), seen);
        }
        _ => {}
    }
}

fn mend_inner(
    protocol: IpProtocol,
    [from, to]: [IpAddress; 2],
    payload: &mut [u8],
    seen: Option<Seen>,
) {
    match (protocol, from, to) {
        (IpProtocol::Tcp, ..) => {
            if let Ok(mut segment) = TcpPacket::new_checked(payload) {
                if let Some(seen) = seen.filter(|_| segment.ack()) {
                    // The input says how much of the stack's data is acknowledged.
                    let n = segment.ack_number().0 as u32 & 0xffff;
                    let number = seen.acknowledgement.wrapping_add(n);
                    segment.set_ack_number(TcpSeqNumber(number as i32));
                }
                segment.fill_checksum(&from, &to);
            }
        }
        (IpProtocol::Udp, ..) => {
            if let Ok(mut datagram) = UdpPacket::new_checked(payload) {
                if let (Some(seen), Some(place)) = (seen, datagram.payload_mut().get_mut(4..8)) {
                    place.copy_from_slice(&seen.transaction);
                }
                datagram.fill_checksum(&from, &to);
            }
        }
        (IpProtocol::Icmpv6, IpAddress::Ipv6(from), IpAddress::Ipv6(to)) => {
            if let Ok(mut message) = Icmpv6Packet::new_checked(payload) {
                message.fill_checksum(&from, &to);
            }
        }
        _ => {}
    }
}
