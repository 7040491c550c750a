//! Frames of any bytes.

use std::vec;
use std::vec::Vec;

use smoltcp::wire::{
    DhcpMessageType, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpAddress,
    IpProtocol, Ipv4Address, Ipv4Packet, Ipv6Address, Ipv6Packet, NdiscRepr, TcpControl, TcpPacket,
    UdpPacket,
};

use super::addresses::{advert, dhcp, icmpv6, ipv4};
use super::limits::segment;
use crate::runtime::net::testing::{
    Client, Echo, Faults, Numbers, PEER_MAC, World, content, fixed, server, server_v6,
};
use crate::system::NetworkConfig;

/// Rounds of the test; fewer without optimisation.
const FRAMES: usize = if cfg!(debug_assertions) { 30_000 } else { 200_000 };

/// Frames of each kind that the stack knows.
fn seeds() -> Vec<Vec<u8>> {
    let (peer, own) = (Ipv4Address::new(10, 0, 2, 2), Ipv4Address::new(10, 0, 2, 15));
    let [router, own_v6] = ["fe80::2", "fd00::15"].map(|text| text.parse::<Ipv6Address>().unwrap());
    let solicit = NdiscRepr::NeighborSolicit {
        target_addr: own_v6,
        lladdr: Some(
            smoltcp::wire::HardwareAddress::from(smoltcp::wire::EthernetAddress(PEER_MAC)).into(),
        ),
    };
    let mut with_data = segment([10, 0, 2, 2], 900, [10, 0, 2, 15], TcpControl::None, 1);
    with_data.extend([7; 40]);
    vec![
        segment([10, 0, 2, 2], 900, [10, 0, 2, 15], TcpControl::Syn, 0),
        segment([10, 0, 2, 2], 900, [10, 0, 2, 15], TcpControl::Rst, 1),
        segment([10, 0, 2, 2], 900, [10, 0, 2, 15], TcpControl::Fin, 1),
        with_data,
        advert(Ipv6Address::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 100),
        icmpv6(router, own_v6, &Icmpv6Repr::Ndisc(solicit)),
        icmpv6(router, own_v6, &Icmpv6Repr::EchoRequest { ident: 1, seq_no: 2, data: &[9; 60] }),
        dhcp(DhcpMessageType::Offer, 0, peer, peer),
        dhcp(DhcpMessageType::Ack, 0, peer, peer),
        ipv4(peer, own, IpProtocol::Icmp, 40, |place| place.fill(8)),
        ipv4(peer, own, IpProtocol::Udp, 40, |place| place.fill(0)),
        ipv4(peer, own, IpProtocol::Unknown(200), 700, |place| place.fill(1)),
    ]
}

/// Makes the checksums of a frame right, so that more than checksums is tested.
fn mend(frame: &mut [u8]) {
    let Ok(mut frame) = EthernetFrame::new_checked(frame) else { return };
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let Ok(mut packet) = Ipv4Packet::new_checked(frame.payload_mut()) else { return };
            packet.fill_checksum();
            let ends: [IpAddress; 2] = [packet.src_addr().into(), packet.dst_addr().into()];
            let protocol = packet.next_header();
            mend_inner(protocol, &ends, packet.payload_mut());
        }
        EthernetProtocol::Ipv6 => {
            let Ok(mut packet) = Ipv6Packet::new_checked(frame.payload_mut()) else { return };
            let ends: [IpAddress; 2] = [packet.src_addr().into(), packet.dst_addr().into()];
            let protocol = packet.next_header();
            mend_inner(protocol, &ends, packet.payload_mut());
        }
        _ => {}
    }
}

fn mend_inner(protocol: IpProtocol, ends: &[IpAddress; 2], payload: &mut [u8]) {
    match (protocol, ends) {
        (IpProtocol::Tcp, [from, to]) => {
            if let Ok(mut segment) = TcpPacket::new_checked(payload) {
                segment.fill_checksum(from, to);
            }
        }
        (IpProtocol::Udp, [from, to]) => {
            if let Ok(mut datagram) = UdpPacket::new_checked(payload) {
                datagram.fill_checksum(from, to);
            }
        }
        (IpProtocol::Icmpv6, [IpAddress::Ipv6(from), IpAddress::Ipv6(to)]) => {
            if let Ok(mut message) = Icmpv6Packet::new_checked(payload) {
                message.fill_checksum(from, to);
            }
        }
        _ => {}
    }
}

/// Changes some bytes or the length of a frame.
fn change(frame: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..numbers.below(4) {
        // The headers are the interesting part. Few frames are for other machines.
        let at = 12 + numbers.below(frame.len().min(120) - 12);
        let odd = [0, 1, 0x7f, 0x80, 0xff, numbers.next() as u8];
        frame[at] = odd[numbers.below(odd.len())];
    }
    if numbers.below(8) == 0 {
        frame.truncate(14 + numbers.below(frame.len() - 13));
    }
}

#[test]
fn no_frame_makes_the_stack_panic_and_a_client_is_served_after_all_of_them() {
    for (seed, config) in [(41, fixed()), (42, NetworkConfig::default())] {
        let mut world = World::with(&config, Faults::default(), seed);
        let is_fixed = config == fixed();
        let listener = world.listen(3);
        let mut echo = Echo::new(listener);
        let (mut numbers, seeds) = (Numbers::new(seed), seeds());
        for n in 0..FRAMES {
            let mut frame = seeds[numbers.below(seeds.len())].clone();
            change(&mut frame, &mut numbers);
            if numbers.below(10) > 0 {
                mend(&mut frame);
            }
            world.peer.end.put(frame);
            if n % 7 == 0 {
                world.stack.poll(&mut world.end, world.now_us);
                // What the stack says is of no interest.
                while world.peer.end.take().is_some() {}
                echo.serve(&mut world);
                world.now_us += 1000 + numbers.next() % 100_000;
            }
        }
        if !is_fixed {
            continue;
        }
        for to in [server(), server_v6()] {
            let mut client = Client::new(&mut world, to, content(5000, seed));
            world.run(300, |world| {
                echo.serve(world);
                client.go_on(world)
            });
        }
    }
}
