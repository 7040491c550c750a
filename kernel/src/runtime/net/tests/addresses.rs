//! Addresses: fixed ones, DHCP's, those of routers; and what answers at them.

use std::net::IpAddr;
use std::vec;
use std::vec::Vec;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, Ipv6Address, Ipv6Packet, Ipv6Repr,
    NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags, UdpPacket, UdpRepr,
};

use crate::runtime::net::stack::Stack;
use crate::runtime::net::testing::{End, Faults, MAC, PEER_MAC, World, fixed, wire};
use crate::system::{NetworkConfig, NetworkError};

const SERVER: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const LEASED: Ipv4Address = Ipv4Address::new(10, 0, 2, 77);
const ROUTER: Ipv6Address = Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// A frame from the peer with an IPv4 packet.
pub fn ipv4(
    from: Ipv4Address,
    to: Ipv4Address,
    protocol: IpProtocol,
    bytes: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: bytes,
        hop_limit: 64,
    };
    ethernet(EthernetProtocol::Ipv4, ip.buffer_len() + bytes, |payload| {
        let mut packet = Ipv4Packet::new_unchecked(payload);
        ip.emit(&mut packet, &ChecksumCapabilities::default());
        fill(packet.payload_mut());
    })
}

/// A frame from the peer with an ICMPv6 message.
pub fn icmpv6(from: Ipv6Address, to: Ipv6Address, message: &Icmpv6Repr<'_>) -> Vec<u8> {
    let ip = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: 255,
    };
    ethernet(EthernetProtocol::Ipv6, ip.buffer_len() + ip.payload_len, |payload| {
        let mut packet = Ipv6Packet::new_unchecked(payload);
        ip.emit(&mut packet);
        let mut place = Icmpv6Packet::new_unchecked(packet.payload_mut());
        message.emit(&from, &to, &mut place, &ChecksumCapabilities::default());
    })
}

fn ethernet(kind: EthernetProtocol, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let repr = EthernetRepr {
        src_addr: EthernetAddress(PEER_MAC),
        dst_addr: EthernetAddress(MAC),
        ethertype: kind,
    };
    let mut buffer = vec![0; repr.buffer_len() + bytes];
    let mut frame = EthernetFrame::new_unchecked(&mut buffer[..]);
    repr.emit(&mut frame);
    fill(frame.payload_mut());
    buffer
}

/// A router advertisement from [`ROUTER`].
pub fn advert(prefix: Ipv6Address, lifetime: u64) -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: Duration::from_secs(lifetime),
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: None,
        mtu: None,
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: 64,
            flags: NdiscPrefixInfoFlags::ADDRCONF,
            valid_lifetime: Duration::from_secs(lifetime),
            preferred_lifetime: Duration::from_secs(lifetime),
            prefix,
        }),
    });
    icmpv6(ROUTER, Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 1), &message)
}

/// A message of a DHCP server, in answer to a client's.
pub fn dhcp(
    kind: DhcpMessageType,
    transaction: u32,
    router: Ipv4Address,
    from: Ipv4Address,
) -> Vec<u8> {
    let message = DhcpRepr {
        message_type: kind,
        transaction_id: transaction,
        secs: 0,
        client_hardware_address: EthernetAddress(MAC),
        client_ip: Ipv4Address::UNSPECIFIED,
        your_ip: LEASED,
        server_ip: SERVER,
        router: Some(router),
        subnet_mask: Some(Ipv4Address::new(255, 255, 255, 0)),
        relay_agent_ip: Ipv4Address::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(SERVER),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: Some(1000),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let udp = UdpRepr { src_port: 67, dst_port: 68 };
    let bytes = udp.header_len() + message.buffer_len();
    ipv4(from, LEASED, IpProtocol::Udp, bytes, |payload| {
        udp.emit(
            &mut UdpPacket::new_unchecked(payload),
            &from.into(),
            &LEASED.into(),
            message.buffer_len(),
            |place| message.emit(&mut DhcpPacket::new_unchecked(place)).unwrap(),
            &ChecksumCapabilities::default(),
        );
    })
}

/// A DHCP server, which also answers ARP.
struct Server {
    end: End,
    router: Ipv4Address,
    from: Ipv4Address,
    is_silent: bool,
    /// Kinds of the messages that came, and whether each came to the server alone.
    heard: Vec<(DhcpMessageType, bool)>,
}

impl Server {
    fn serve(&mut self) {
        while let Some(frame) = self.end.take() {
            let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
            match frame.ethertype() {
                EthernetProtocol::Arp => self.answer_arp(frame.payload()),
                EthernetProtocol::Ipv4 => self.answer(frame.payload()),
                _ => {}
            }
        }
    }

    fn answer_arp(&self, packet: &[u8]) {
        let asked = ArpRepr::parse(&ArpPacket::new_checked(packet).unwrap()).unwrap();
        let ArpRepr::EthernetIpv4 { source_protocol_addr, target_protocol_addr, .. } = asked else {
            return;
        };
        let answer = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(PEER_MAC),
            source_protocol_addr: target_protocol_addr,
            target_hardware_addr: EthernetAddress(MAC),
            target_protocol_addr: source_protocol_addr,
        };
        self.end.put(ethernet(EthernetProtocol::Arp, answer.buffer_len(), |payload| {
            answer.emit(&mut ArpPacket::new_unchecked(payload));
        }));
    }

    fn answer(&mut self, packet: &[u8]) {
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        let message = DhcpPacket::new_checked(udp.payload()).unwrap();
        let message = DhcpRepr::parse(&message).unwrap();
        self.heard.push((message.message_type, ip.dst_addr() == SERVER));
        let kind = match message.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            _ => DhcpMessageType::Ack,
        };
        if !self.is_silent {
            self.end.put(dhcp(kind, message.transaction_id, self.router, self.from));
        }
    }
}

/// Polls both for some seconds.
fn pass(stack: &mut Stack, end: &mut End, server: &mut Server, now_us: &mut u64, seconds: u64) {
    let until = *now_us + seconds * 1_000_000;
    while *now_us < until {
        stack.poll(end, *now_us);
        server.serve();
        let next = if end.is_quiet() { stack.next_deadline().unwrap_or(until) } else { 0 };
        *now_us = next.clamp(*now_us + 50, until);
    }
}

fn leased(router: Ipv4Address, from: Ipv4Address) -> (Stack, End, Server, u64) {
    let (mut end, peer) = wire(Faults::default(), 1);
    let now_us = 3_000_000;
    let stack = Stack::start(&mut end, MAC, &NetworkConfig::default(), 7, now_us).unwrap();
    let server = Server { end: peer, router, from, is_silent: false, heard: Vec::new() };
    (stack, end, server, now_us)
}

fn shown(stack: &Stack) -> Vec<std::string::String> {
    stack.addresses().iter().map(|cidr| std::format!("{cidr}")).collect()
}

#[test]
fn a_lease_is_taken_renewed_and_given_up_once_nobody_renews_it() {
    use DhcpMessageType::{Discover, Request};
    let (mut stack, mut end, mut server, mut now_us) = leased(SERVER, SERVER);
    pass(&mut stack, &mut end, &mut server, &mut now_us, 5);
    assert_eq!(shown(&stack), ["10.0.2.77/24"]);
    assert_eq!(stack.gateways(), [SERVER.into()]);
    assert_eq!(server.heard, [(Discover, false), (Request, false)]);
    // Half of 1000 s later the lease is renewed.
    pass(&mut stack, &mut end, &mut server, &mut now_us, 490);
    assert_eq!(server.heard.len(), 2);
    pass(&mut stack, &mut end, &mut server, &mut now_us, 20);
    assert_eq!(server.heard[2..], [(Request, true)]);
    // Nobody renews it: it lasts to its end, and then goes with its route.
    server.is_silent = true;
    pass(&mut stack, &mut end, &mut server, &mut now_us, 900);
    assert_eq!((shown(&stack).len(), stack.gateways().len()), (1, 1));
    assert!(server.heard[3..].iter().all(|(kind, _)| *kind == Request));
    pass(&mut stack, &mut end, &mut server, &mut now_us, 150);
    assert_eq!((shown(&stack).len(), stack.gateways().len()), (0, 0));
    assert_eq!(server.heard.last(), Some(&(Discover, false)));
    // A server that is back gives a new one.
    server.is_silent = false;
    pass(&mut stack, &mut end, &mut server, &mut now_us, 30);
    assert_eq!(shown(&stack), ["10.0.2.77/24"]);
}

#[test]
fn a_dhcp_server_that_makes_no_sense_does_no_harm() {
    // A router that no one machine can be.
    for router in [Ipv4Address::new(224, 0, 0, 1), Ipv4Address::UNSPECIFIED, Ipv4Address::BROADCAST]
    {
        let (mut stack, mut end, mut server, mut now_us) = leased(router, SERVER);
        pass(&mut stack, &mut end, &mut server, &mut now_us, 5);
        assert_eq!((shown(&stack).len(), stack.gateways()), (1, Vec::new()));
        // A packet that would be routed.
        let far = Ipv4Address::new(192, 0, 2, 1);
        end_echo(&server.end, far, LEASED);
        pass(&mut stack, &mut end, &mut server, &mut now_us, 5);
    }
    // A server without an address, which a renewal would go to.
    let (mut stack, mut end, mut server, mut now_us) = leased(SERVER, Ipv4Address::UNSPECIFIED);
    pass(&mut stack, &mut end, &mut server, &mut now_us, 900);
    assert_eq!(shown(&stack).len(), 0);
}

#[test]
fn a_router_gives_addresses_and_a_route_for_as_long_as_it_says() {
    let (mut end, peer) = wire(Faults::default(), 1);
    let mut now_us = 1_000_000;
    let mut stack = Stack::start(&mut end, MAC, &NetworkConfig::default(), 7, now_us).unwrap();
    stack.poll(&mut end, now_us);
    let solicits = |peer: &End| {
        let mut count = 0;
        while let Some(frame) = peer.take() {
            let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
            if frame.ethertype() == EthernetProtocol::Ipv6 {
                let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
                let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
                assert!(message.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
                let checksums = ChecksumCapabilities::default();
                let parsed =
                    Icmpv6Repr::parse(&packet.src_addr(), &packet.dst_addr(), &message, &checksums);
                assert!(matches!(parsed, Ok(Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { .. }))));
                assert_eq!(frame.dst_addr(), EthernetAddress([0x33, 0x33, 0, 0, 0, 2]));
                count += 1;
            }
        }
        count
    };
    assert_eq!(solicits(&peer), 1);
    // Prefixes of others than routers, and of groups, count for nothing.
    let prefix = Ipv6Address::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, 0);
    let group = Ipv6Address::new(0xff0e, 0xdb8, 0, 7, 0, 0, 0, 0);
    peer.put(advert(group, 100));
    let mut forwarded = advert(prefix, 100);
    forwarded[14 + 7] = 254;
    peer.put(forwarded);
    let mut damaged = advert(prefix, 100);
    *damaged.last_mut().unwrap() ^= 1;
    peer.put(damaged);
    stack.poll(&mut end, now_us + 1);
    assert_eq!((shown(&stack), stack.gateways()), (Vec::new(), vec![ROUTER.into()]));
    peer.put(advert(prefix, 100));
    stack.poll(&mut end, now_us + 2);
    assert_eq!(shown(&stack), ["2001:db8:0:7:0:ff:fe00:15/64"]);
    // It goes at its end, and not before.
    let mut pass = |stack: &mut Stack, seconds: u64| {
        for _ in 0..seconds {
            now_us += 1_000_000;
            stack.poll(&mut end, now_us);
        }
    };
    pass(&mut stack, 99);
    assert_eq!(shown(&stack).len(), 1);
    pass(&mut stack, 2);
    assert_eq!((shown(&stack).len(), stack.gateways().len()), (0, 0));
}

#[test]
fn without_a_router_three_solicitations_are_all() {
    let (mut end, peer) = wire(Faults::default(), 1);
    let mut now_us = 0;
    let mut stack = Stack::start(&mut end, MAC, &NetworkConfig::default(), 7, now_us).unwrap();
    let (mut polls, mut to_routers) = (0, 0);
    while now_us < 100_000_000 {
        stack.poll(&mut end, now_us);
        polls += 1;
        while let Some(frame) = peer.take() {
            to_routers += usize::from(frame[..6] == [0x33, 0x33, 0, 0, 0, 2]);
        }
        let next = stack.next_deadline().unwrap();
        assert!(next > now_us, "a deadline in the past");
        now_us = next;
    }
    assert_eq!(to_routers, 3);
    assert!(polls < 50, "{polls} polls for a DHCP client that asks every ten seconds");
}

/// Sends an echo request from the end of a wire.
fn end_echo(end: &End, from: Ipv4Address, to: Ipv4Address) {
    let echo = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 3, data: b"are you there?" };
    end.put(ipv4(from, to, IpProtocol::Icmp, echo.buffer_len(), |place| {
        echo.emit(&mut Icmpv4Packet::new_unchecked(place), &ChecksumCapabilities::default());
    }));
}

#[test]
fn echo_requests_are_answered() {
    let mut world = World::new(Faults::default(), 31);
    let client = world.peer.connect("10.0.2.15:9".parse().unwrap());
    let client_v6 = world.peer.connect("[fd00::15]:9".parse().unwrap());
    // By now both know each other's Ethernet addresses.
    world.pass(3);
    world.peer.sockets.remove(client);
    world.peer.sockets.remove(client_v6);

    end_echo(&world.peer.end, SERVER, Ipv4Address::new(10, 0, 2, 15));
    world.stack.poll(&mut world.end, world.now_us);
    let frame = world.peer.end.take().expect("no answer");
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    let answer = Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).unwrap();
    let expected = Icmpv4Repr::EchoReply { ident: 7, seq_no: 3, data: b"are you there?" };
    assert_eq!((answer, packet.dst_addr()), (expected, SERVER));

    let [from, to] = ["fd00::2", "fd00::15"].map(|text| text.parse::<Ipv6Address>().unwrap());
    let echo = Icmpv6Repr::EchoRequest { ident: 7, seq_no: 3, data: b"and you?" };
    world.peer.end.put(icmpv6(from, to, &echo));
    world.stack.poll(&mut world.end, world.now_us);
    let frame = world.peer.end.take().expect("no answer");
    let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    let answer = Icmpv6Repr::parse(&to, &from, &message, &ChecksumCapabilities::default());
    let expected = Icmpv6Repr::EchoReply { ident: 7, seq_no: 3, data: b"and you?" };
    assert_eq!((answer.unwrap(), packet.dst_addr()), (expected, from));
    assert_eq!(world.peer.end.take(), None);
}

#[test]
fn fixed_addresses_that_make_no_sense_are_refused() {
    let (mut end, _) = wire(Faults::default(), 1);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut start = |mac, addresses: &[(&str, u8)], gateways: &[&str]| {
        let addresses = addresses.iter().map(|&(address, prefix)| (ip(address), prefix)).collect();
        let gateways = gateways.iter().map(|&gateway| ip(gateway)).collect();
        let config = NetworkConfig { addresses, gateways };
        Stack::start(&mut end, mac, &config, 1, 0).map(drop)
    };
    for (address, prefix) in [
        ("0.0.0.0", 24),
        ("127.0.0.1", 8),
        ("255.255.255.255", 24),
        ("224.0.0.5", 24),
        ("10.0.2.15", 0),
        ("10.0.2.15", 33),
        ("::", 64),
        ("::1", 64),
        ("ff02::1", 64),
        ("fd00::1", 129),
    ] {
        let error = NetworkError::Address(ip(address));
        assert_eq!(start(MAC, &[(address, prefix)], &[]), Err(error), "{address}/{prefix}");
    }
    let eight = [("10.0.2.15", 24); 8];
    assert_eq!(start(MAC, &eight, &[]), Err(NetworkError::Address(ip("10.0.2.15"))));
    assert_eq!(start(MAC, &eight[..7], &["10.0.2.2", "fe80::2"]), Ok(()));
    let one = [("10.0.2.15", 24)];
    for gateway in ["10.0.3.2", "10.0.2.2.", "fd00::2"].map(|text| text.trim_end_matches('.')) {
        let expected =
            if gateway == "10.0.2.2" { Ok(()) } else { Err(NetworkError::Gateway(ip(gateway))) };
        assert_eq!(start(MAC, &one, &[gateway]), expected);
    }
    let second = Err(NetworkError::Gateway(ip("10.0.2.3")));
    assert_eq!(start(MAC, &one, &["10.0.2.2", "10.0.2.3"]), second);
    // A gateway without an address.
    assert_eq!(start(MAC, &[], &["10.0.2.2"]), Err(NetworkError::Gateway(ip("10.0.2.2"))));
    assert_eq!(start([1, 0, 0, 0, 0, 1], &one, &[]), Err(NetworkError::Card));
    end.mtu = 500;
    let small = Stack::start(&mut end, MAC, &fixed(), 1, 0).map(drop);
    assert_eq!(small, Err(NetworkError::Mtu(486)));
}
