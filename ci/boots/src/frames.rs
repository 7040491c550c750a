//! Frames of Ethernet for the guest, as attackers send them: well-formed ones, and damaged ones.
//!
//! The attackers' addresses are those of RFC 2544, 198.18.0.0/15, which no network has.

use std::net::{Ipv4Addr, SocketAddrV4};

use fastrand::Rng;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Icmpv4DstUnreachable, Icmpv4Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Address,
    Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

/// The Ethernet address of QEMU's first card.
const GUEST: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// The Ethernet address of the gateway in QEMU's network.
const GATEWAY: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);
/// The address that QEMU's network gives to the guest.
const GUEST_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The guest's link-local address, made of [`GUEST`].
const GUEST_IP6: Ipv6Address = Ipv6Address::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
/// The first two bytes of the attackers' addresses.
const ATTACKERS: [u8; 2] = [198, 18];

/// An attacker's address and port; 2^28 numbers have different ones.
pub fn attacker(number: u32) -> SocketAddrV4 {
    let [port_high, a, b, port_low] = number.to_be_bytes();
    let port = u16::from_be_bytes([port_high | 0x10, port_low]);
    SocketAddrV4::new([ATTACKERS[0], ATTACKERS[1], a, b].into(), port)
}

/// Whether a frame goes to an attacker.
pub fn is_for_attackers(frame: &[u8]) -> bool {
    is_ipv4(frame) && frame.get(30..32) == Some(&ATTACKERS[..])
}

/// Whether a frame is one of DHCP.
pub fn is_dhcp(frame: &[u8]) -> bool {
    let is_udp = is_ipv4(frame) && frame.get(23) == Some(&17);
    is_udp && matches!(frame.get(34..38), Some([0, 67 | 68, 0, 67 | 68]))
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0])
}

/// A frame from the gateway to the guest.
fn ethernet(ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = EthernetRepr { src_addr: GATEWAY, dst_addr: GUEST, ethertype };
    let mut frame = vec![0; repr.buffer_len() + payload.len()];
    let mut out = EthernetFrame::new_unchecked(&mut frame);
    repr.emit(&mut out);
    out.payload_mut().copy_from_slice(payload);
    frame
}

/// A packet of IPv4 from an attacker, in a frame.
fn ipv4(from: Ipv4Addr, next_header: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: from,
        dst_addr: GUEST_IP,
        next_header,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut packet = vec![0; repr.buffer_len() + payload.len()];
    let mut out = Ipv4Packet::new_unchecked(&mut packet);
    repr.emit(&mut out, &ChecksumCapabilities::default());
    out.payload_mut().copy_from_slice(payload);
    ethernet(EthernetProtocol::Ipv4, &packet)
}

/// A packet of IPv6 from the gateway's link-local address, in a frame.
fn ipv6(next_header: IpProtocol, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let src_addr = Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    let payload_len = payload.len();
    let repr = Ipv6Repr { src_addr, dst_addr: GUEST_IP6, next_header, payload_len, hop_limit };
    let mut packet = vec![0; repr.buffer_len() + payload_len];
    let mut out = Ipv6Packet::new_unchecked(&mut packet);
    repr.emit(&mut out);
    out.payload_mut().copy_from_slice(payload);
    ethernet(EthernetProtocol::Ipv6, &packet)
}

/// A segment of TCP.
fn tcp(from: SocketAddrV4, to_port: u16, control: TcpControl, payload: &[u8]) -> Vec<u8> {
    let is_syn = control == TcpControl::Syn;
    let repr = TcpRepr {
        src_port: from.port(),
        dst_port: to_port,
        control,
        seq_number: TcpSeqNumber(7),
        ack_number: (!is_syn).then_some(TcpSeqNumber(9)),
        window_len: 0x4000,
        window_scale: is_syn.then_some(3),
        max_seg_size: is_syn.then_some(1460),
        sack_permitted: is_syn,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let mut segment = vec![0; repr.buffer_len()];
    let (from_ip, to_ip) = (IpAddress::from(*from.ip()), IpAddress::from(GUEST_IP));
    let mut out = TcpPacket::new_unchecked(&mut segment);
    repr.emit(&mut out, &from_ip, &to_ip, &ChecksumCapabilities::default());
    ipv4(*from.ip(), IpProtocol::Tcp, &segment)
}

/// The start of a connection to a port of the guest.
pub fn syn(from: SocketAddrV4, to_port: u16) -> Vec<u8> {
    tcp(from, to_port, TcpControl::Syn, &[])
}

/// A datagram of UDP to a port of the guest.
pub fn udp(from: SocketAddrV4, to_port: u16, payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: from.port(), dst_port: to_port };
    let mut datagram = vec![0; repr.header_len() + payload.len()];
    let (from_ip, to_ip) = (IpAddress::from(*from.ip()), IpAddress::from(GUEST_IP));
    let mut out = UdpPacket::new_unchecked(&mut datagram);
    let fill = |buffer: &mut [u8]| buffer.copy_from_slice(payload);
    repr.emit(&mut out, &from_ip, &to_ip, payload.len(), fill, &ChecksumCapabilities::default());
    ipv4(*from.ip(), IpProtocol::Udp, &datagram)
}

/// Frames of each kind that the stack reads, or has to know as foreign.
fn well_formed(port: u16) -> Vec<Vec<u8>> {
    let from = attacker(0x0012_3456);
    let checksums = ChecksumCapabilities::default();
    let segment = |control, payload: &[u8]| tcp(from, port, control, payload);
    let mut frames = vec![
        segment(TcpControl::Syn, &[]),
        segment(TcpControl::None, b"GET / HTTP/1.1\r\n\r\n"),
        segment(TcpControl::Psh, b"{"),
        segment(TcpControl::Fin, &[]),
        segment(TcpControl::Rst, &[]),
        udp(from, 53, b"anything"),
        // An offer of DHCP: reply, Ethernet, 6 bytes of address, and the cookie behind 236 bytes.
        udp(SocketAddrV4::new(*from.ip(), 67), 68, &{
            let mut offer = vec![0; 300];
            offer[..4].copy_from_slice(&[2, 1, 6, 0]);
            offer[28..34].copy_from_slice(&GUEST.0);
            offer[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
            offer[240..243].copy_from_slice(&[53, 1, 2]);
            offer[243] = 255;
            offer
        }),
    ];
    let header = Ipv4Repr {
        src_addr: GUEST_IP,
        dst_addr: *from.ip(),
        next_header: IpProtocol::Udp,
        payload_len: 8,
        hop_limit: 64,
    };
    for icmp in [
        Icmpv4Repr::EchoRequest { ident: 1, seq_no: 2, data: b"ping" },
        Icmpv4Repr::EchoReply { ident: 1, seq_no: 2, data: b"ping" },
        Icmpv4Repr::DstUnreachable {
            reason: Icmpv4DstUnreachable::FragRequired,
            header,
            data: &[0; 8],
        },
    ] {
        let mut message = vec![0; icmp.buffer_len()];
        let mut out = smoltcp::wire::Icmpv4Packet::new_unchecked(&mut message);
        icmp.emit(&mut out, &checksums);
        frames.push(ipv4(*from.ip(), IpProtocol::Icmp, &message));
    }
    // IGMP, SCTP, and IPv6 within IPv4.
    for protocol in [2, 132, 41] {
        frames.push(ipv4(*from.ip(), IpProtocol::from(protocol), &[0x11; 40]));
    }
    // A neighbour that looks for the guest, a router, an echo, and headers before the last one.
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &GUEST_IP6.octets()].concat();
    let source = [1, 1, 0x52, 0x55, 10, 0, 2, 2];
    frames.push(ipv6(IpProtocol::Icmpv6, 255, &[&solicitation[..], &source].concat()));
    let lifetime = [134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frames.push(ipv6(IpProtocol::Icmpv6, 255, &[&lifetime[..], &source].concat()));
    frames.push(ipv6(IpProtocol::Icmpv6, 64, &[128, 0, 0, 0, 0, 1, 0, 2, b'p']));
    for header in [0, 43, 44, 60] {
        let options = [58, 0, 1, 4, 0, 0, 0, 0, 128, 0, 0, 0, 0, 1, 0, 2];
        frames.push(ipv6(IpProtocol::from(header), 64, &options));
    }
    let arp = |operation, target| {
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: GATEWAY,
            source_protocol_addr: *from.ip(),
            target_hardware_addr: GUEST,
            target_protocol_addr: target,
        };
        let mut packet = vec![0; repr.buffer_len()];
        repr.emit(&mut smoltcp::wire::ArpPacket::new_unchecked(&mut packet));
        ethernet(EthernetProtocol::Arp, &packet)
    };
    frames.push(arp(ArpOperation::Request, GUEST_IP));
    frames.push(arp(ArpOperation::Reply, GUEST_IP));
    // A tag of VLAN, LLDP, and a length where a type is expected.
    for ethertype in [0x8100, 0x88cc, 0x0040] {
        frames.push(ethernet(EthernetProtocol::from(ethertype), &[0x2a; 64]));
    }
    frames
}

/// Makes frames that are damaged in ways that a network damages none.
pub struct Damaged {
    frames: Vec<Vec<u8>>,
    rng: Rng,
}

impl Damaged {
    /// Frames for a guest that listens on this port; the same ones for the same seed.
    pub fn new(port: u16, seed: u64) -> Damaged {
        Damaged { frames: well_formed(port), rng: Rng::with_seed(seed) }
    }

    /// The next frame.
    pub fn next(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        let mut frame = self.frames[rng.usize(..self.frames.len())].clone();
        for _ in 0..rng.usize(1..4) {
            // The headers end within 80 bytes.
            let place = rng.usize(12..frame.len().clamp(13, 80));
            match rng.u32(..8) {
                // QEMU takes an empty datagram as the end of its network.
                0 => frame.truncate(rng.usize(1..=frame.len())),
                1 => frame.extend((0..rng.usize(..1500)).map(|_| rng.u8(..))),
                2 if frame.len() >= 30 => {
                    // Addresses that nobody sends from.
                    let odd = [[0; 4], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1], [10, 0, 2, 15]];
                    frame[26..30].copy_from_slice(&odd[rng.usize(..odd.len())]);
                }
                3 if frame.len() >= 6 => frame[..6].fill(0xff),
                4 => frame.get_mut(place).into_iter().for_each(|byte| *byte = 0),
                5 => frame.get_mut(place).into_iter().for_each(|byte| *byte = 0xff),
                _ => frame.get_mut(place).into_iter().for_each(|byte| *byte = rng.u8(..)),
            }
        }
        // Ethernet has at most 1514 bytes. Behind a wrong checksum, nothing is read any more.
        frame.truncate(1514);
        if rng.bool() {
            mend(&mut frame);
        }
        frame
    }
}

/// Makes the checksums of a frame right, as far as its headers can be read.
fn mend(frame: &mut [u8]) {
    let Ok(mut ethernet) = EthernetFrame::new_checked(frame) else { return };
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let Ok(mut packet) = Ipv4Packet::new_checked(ethernet.payload_mut()) else { return };
            packet.fill_checksum();
            let ends = (packet.src_addr().into(), packet.dst_addr().into());
            mend_payload(packet.next_header(), ends, packet.payload_mut());
        }
        EthernetProtocol::Ipv6 => {
            let Ok(mut packet) = Ipv6Packet::new_checked(ethernet.payload_mut()) else { return };
            let ends = (packet.src_addr().into(), packet.dst_addr().into());
            mend_payload(packet.next_header(), ends, packet.payload_mut());
        }
        _ => {}
    }
}

fn mend_payload(protocol: IpProtocol, (from, to): (IpAddress, IpAddress), payload: &mut [u8]) {
    match (protocol, from, to) {
        (IpProtocol::Tcp, ..) => {
            if let Ok(mut segment) = TcpPacket::new_checked(payload) {
                segment.fill_checksum(&from, &to);
            }
        }
        (IpProtocol::Udp, ..) => {
            if let Ok(mut datagram) = UdpPacket::new_checked(payload) {
                datagram.fill_checksum(&from, &to);
            }
        }
        (IpProtocol::Icmp, ..) => {
            if let Ok(mut message) = smoltcp::wire::Icmpv4Packet::new_checked(payload) {
                message.fill_checksum();
            }
        }
        (IpProtocol::Icmpv6, IpAddress::Ipv6(from), IpAddress::Ipv6(to)) => {
            if let Ok(mut message) = smoltcp::wire::Icmpv6Packet::new_checked(payload) {
                message.fill_checksum(&from, &to);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attackers_have_different_addresses() {
        let mut all: Vec<SocketAddrV4> = (0..0x2_0000).map(attacker).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 0x2_0000);
        assert!(all.iter().all(|address| address.port() >= 0x1000));
    }

    #[test]
    fn well_formed_frames_are_read_by_smoltcp() {
        for frame in well_formed(80) {
            let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
            assert_eq!(ethernet.dst_addr(), GUEST);
            let mut mended = frame.clone();
            mend(&mut mended);
            if ethernet.ethertype() == EthernetProtocol::Ipv4 {
                let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                assert!(packet.verify_checksum());
                assert_eq!(mended, frame, "its checksums are right");
            }
        }
    }

    #[test]
    fn frames_of_dhcp_and_for_attackers_are_known() {
        let from = attacker(1);
        let offer = udp(SocketAddrV4::new(*from.ip(), 67), 68, &[]);
        assert!(is_dhcp(&offer) && !is_for_attackers(&offer));
        let mut answer = syn(from, 80);
        assert!(!is_dhcp(&answer) && !is_for_attackers(&answer));
        let (source, target) = answer[26..34].split_at_mut(4);
        source.swap_with_slice(target);
        assert!(is_for_attackers(&answer));
    }

    #[test]
    fn damaged_frames_are_of_many_kinds() {
        let mut damaged = Damaged::new(80, 1);
        let frames: Vec<Vec<u8>> = (0..20_000).map(|_| damaged.next()).collect();
        let is_whole = |frame: &&Vec<u8>| EthernetFrame::new_checked(&frame[..]).is_ok();
        assert!((15_000..19_900).contains(&frames.iter().filter(is_whole).count()));
        assert!(frames.iter().any(|frame| frame.len() < 14));
        assert!(frames.iter().all(|frame| frame.len() <= 1514));
        let mut again = Damaged::new(80, 1);
        assert!(frames.iter().all(|frame| *frame == again.next()), "the seed decides");
    }
}
