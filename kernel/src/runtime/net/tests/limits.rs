//! What many clients, or bad ones, cannot do.

use std::vec;
use std::vec::Vec;

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol,
    Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::runtime::net::sockets::{SocketError, SocketId};
use crate::runtime::net::tcp::MAX_CONNECTIONS;
use crate::runtime::net::testing::{
    Client, Echo, Faults, MAC, PEER_MAC, PORT, World, content, server,
};

/// A frame with a TCP segment to the server's port.
pub fn segment(from: [u8; 4], port: u16, to: [u8; 4], control: TcpControl, seq: i32) -> Vec<u8> {
    let mss = (control == TcpControl::Syn).then_some(1460);
    segment_of(from, to, &tcp(port, control, seq, None, mss))
}

fn tcp(
    port: u16,
    control: TcpControl,
    seq: i32,
    ack: Option<TcpSeqNumber>,
    mss: Option<u16>,
) -> TcpRepr<'static> {
    TcpRepr {
        src_port: port,
        dst_port: PORT,
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: ack,
        window_len: 8192,
        window_scale: None,
        max_seg_size: mss,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

fn segment_of(from: [u8; 4], to: [u8; 4], tcp: &TcpRepr<'_>) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: from.into(),
        dst_addr: to.into(),
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(PEER_MAC),
        dst_addr: EthernetAddress(MAC),
        ethertype: EthernetProtocol::Ipv4,
    };
    let checksums = ChecksumCapabilities::default();
    let mut frame = vec![0; ethernet.buffer_len() + ip.buffer_len() + tcp.buffer_len()];
    let mut ethernet_frame = EthernetFrame::new_unchecked(&mut frame[..]);
    ethernet.emit(&mut ethernet_frame);
    let mut packet = Ipv4Packet::new_unchecked(ethernet_frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    let ends = (IpAddress::from(ip.src_addr), IpAddress::from(ip.dst_addr));
    tcp.emit(&mut TcpPacket::new_unchecked(packet.payload_mut()), &ends.0, &ends.1, &checksums);
    frame
}

const SERVER: [u8; 4] = [10, 0, 2, 15];

fn accept(world: &mut World, listener: SocketId) -> SocketId {
    world.run(10, |world| world.stack.readiness(listener).unwrap().is_readable);
    world.stack.accept(listener).unwrap().0
}

#[test]
fn a_thousand_half_open_connections_keep_no_client_out() {
    let mut world = World::new(Faults::default(), 21);
    let mut echo = Echo::new(world.listen(8));
    let sizes = world.stack.pool();
    // Before, between and after the others, and in one burst with them.
    let mut clients: Vec<Client> = Vec::new();
    for n in 0..1000_u16 {
        if n % 250 == 0 {
            clients.push(Client::new(&mut world, server(), content(3000, n.into())));
            world.peer.poll(world.now_us);
        }
        let from = [10, 0, 3 + (n >> 8) as u8, n as u8];
        world.peer.end.put(segment(from, 1000 + n, SERVER, TcpControl::Syn, 7 * i32::from(n)));
        if n % 100 == 0 {
            world.step();
        }
    }
    clients.push(Client::new(&mut world, server(), content(3000, 1)));
    world.run(60, |world| {
        echo.serve(world);
        clients.retain_mut(|client| !client.go_on(world));
        clients.is_empty()
    });
    // The pool has not grown, and what is half open is forgotten.
    world.pass(30);
    echo.serve(&mut world);
    world.pass(30);
    assert_eq!((echo.served, world.stack.pool()), (5, sizes));
}

#[test]
fn a_flood_that_goes_on_keeps_no_client_out() {
    let mut world = World::new(Faults::default(), 30);
    let mut echo = Echo::new(world.listen(16));
    let mut client = None;
    let (start, mut n) = (world.now_us, 0);
    // 200 a second, for ten seconds.
    while n < 2000 {
        if world.now_us >= start + 5000 * n {
            let from = [10, 0, 3 + (n >> 8) as u8, n as u8];
            let port = 1000 + n as u16;
            world.peer.end.put(segment(from, port, SERVER, TcpControl::Syn, 7 * n as i32));
            n += 1;
        }
        if n == 400 && client.is_none() {
            client = Some(Client::new(&mut world, server(), content(20_000, 3)));
        }
        echo.serve(&mut world);
        if client.as_mut().is_some_and(|client| client.go_on(&mut world)) {
            assert!(n < 1000, "{n}");
            return;
        }
        world.step();
    }
    panic!("the client was kept out");
}

#[test]
fn half_open_connections_make_room_though_nothing_happens() {
    let mut world = World::new(Faults::default(), 38);
    let listener = world.listen(1);
    for port in [900, 901] {
        let from = [10, 0, 3, 1];
        world.peer.end.put(segment(from, port, SERVER, TcpControl::Syn, 1000));
    }
    world.pass(1);
    let start = world.now_us;
    world.peer.connect(server());
    accept(&mut world, listener);
    assert!(world.now_us < start + 500_000, "the client had to try again");
}

#[test]
fn a_reset_of_a_half_open_connection_leaves_a_socket_that_listens_afresh() {
    let mut world = World::new(Faults::default(), 22);
    let mut echo = Echo::new(world.listen(1));
    for n in 0..20 {
        let from = [10, 0, 2, 2];
        world.peer.end.put(segment(from, 900, SERVER, TcpControl::Syn, 1000 * n));
        world.peer.end.put(segment(from, 900, SERVER, TcpControl::Rst, 1000 * n + 1));
        world.peer.end.put(segment(from, 901, SERVER, TcpControl::Syn, i32::MAX - 7 * n));
        world.step();
    }
    let mut client = Client::new(&mut world, server(), content(20_000, 1));
    world.run(60, |world| {
        echo.serve(world);
        client.go_on(world)
    });
}

#[test]
fn a_full_backlog_drops_a_syn_and_takes_the_next_once_there_is_room() {
    let mut world = World::new(Faults::default(), 23);
    let listener = world.listen(2);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(world.peer.connect(server()));
        world.pass(3);
    }
    let states: Vec<State> =
        clients.iter().map(|&client| world.peer.socket(client).state()).collect();
    assert_eq!(states, [State::Established, State::Established, State::SynSent]);
    accept(&mut world, listener);
    world.run(20, |world| world.peer.socket(clients[2]).state() == State::Established);
}

#[test]
fn segments_to_addresses_of_many_take_no_socket() {
    let mut world = World::new(Faults::default(), 24);
    let listener = world.listen(1);
    let first = world.peer.connect("10.0.2.15:9".parse().unwrap());
    world.run(10, |world| world.peer.socket(first).state() == State::Closed);
    for to in [[255; 4], [10, 0, 2, 255], [224, 0, 0, 1]] {
        world.peer.end.put(segment([10, 0, 2, 2], 1234, to, TcpControl::Syn, 1));
    }
    // An answer to this one would go to the address of nobody.
    world.peer.end.put(segment([0; 4], 1234, SERVER, TcpControl::Syn, 1));
    // The client's SYN is received with them.
    let client = world.peer.connect(server());
    world.peer.poll(world.now_us);
    let start = world.now_us;
    accept(&mut world, listener);
    assert_eq!(world.peer.socket(client).state(), State::Established);
    assert!(world.now_us < start + 500_000, "the client had to try again");
}

#[test]
fn a_syn_that_comes_twice_makes_no_second_end() {
    let mut world = World::new(Faults::default(), 32);
    let listener = world.listen(2);
    // The peers know each other, and the first socket of the backlog is half open.
    let first = world.peer.connect("10.0.2.15:9".parse().unwrap());
    world.run(10, |world| world.peer.socket(first).state() == State::Closed);
    world.peer.end.put(segment([10, 0, 2, 2], 900, SERVER, TcpControl::Syn, 1000));
    world.stack.poll(&mut world.end, world.now_us);
    while world.peer.end.take().is_some() {}
    let client = world.peer.connect(server());
    world.peer.poll(world.now_us);
    let syn = world.end.take().unwrap();
    world.peer.end.put(syn.clone());
    let id = accept(&mut world, listener);
    // The first socket listens again, and would take the copy.
    world.peer.end.put(segment([10, 0, 2, 2], 900, SERVER, TcpControl::Rst, 1001));
    world.peer.end.put(syn);
    world.pass(1);
    world.peer.socket(client).send_slice(b"one end").unwrap();
    world.run(5, |world| world.stack.readiness(id).unwrap().is_readable);
    assert_eq!(world.recv(id).unwrap(), b"one end");
}

#[test]
fn nothing_of_a_half_open_connection_that_was_reset_is_left() {
    let mut world = World::new(Faults::default(), 33);
    let listener = world.listen(1);
    let (from, first) = ([10, 0, 2, 2], world.peer.connect("10.0.2.15:9".parse().unwrap()));
    world.run(10, |world| world.peer.socket(first).state() == State::Closed);
    // Both sockets of the backlog hear of tiny segments.
    for port in [900, 901] {
        let syn = tcp(port, TcpControl::Syn, 1000, None, Some(100));
        world.peer.end.put(segment_of(from, SERVER, &syn));
    }
    world.stack.poll(&mut world.end, world.now_us);
    for port in [900, 901] {
        world.peer.end.put(segment(from, port, SERVER, TcpControl::Rst, 1001));
    }
    world.stack.poll(&mut world.end, world.now_us);
    while world.peer.end.take().is_some() {}
    // A client that says nothing of sizes.
    let syn = tcp(902, TcpControl::Syn, 5000, None, None);
    world.peer.end.put(segment_of(from, SERVER, &syn));
    world.stack.poll(&mut world.end, world.now_us);
    let answer = world.peer.end.take().expect("no SYN|ACK");
    let number = TcpPacket::new_checked(&answer[34..]).unwrap().seq_number() + 1;
    let ack = tcp(902, TcpControl::None, 5001, Some(number), None);
    world.peer.end.put(segment_of(from, SERVER, &ack));
    world.stack.poll(&mut world.end, world.now_us);
    let (id, _) = world.stack.accept(listener).unwrap();
    world.stack.send(id, &content(2000, 1)).unwrap();
    world.stack.poll(&mut world.end, world.now_us);
    let data = world.peer.end.take().expect("no data");
    // The size that TCP assumes (RFC 9293, 3.7.1).
    assert_eq!(TcpPacket::new_checked(&data[34..]).unwrap().payload().len(), 536);
}

#[test]
fn a_card_without_room_is_tried_again_after_a_while() {
    let mut world = World::new(Faults::default(), 34);
    let listener = world.listen(1);
    let client = world.peer.connect(server());
    let id = accept(&mut world, listener);
    world.pass(1);
    world.end.is_full = true;
    assert_eq!(world.stack.send(id, b"later"), Ok(5));
    world.stack.poll(&mut world.end, world.now_us);
    assert_eq!(world.stack.next_deadline(), Some(world.now_us + 1000));
    world.end.is_full = false;
    world.run(1, |world| world.peer.socket(client).recv_queue() == 5);
}

#[test]
fn connections_in_time_wait_give_their_sockets_back() {
    let mut world = World::new(Faults::default(), 25);
    let listener = world.listen(4);
    let start = world.now_us;
    // Each is closed by the server first, so that the server has TIME-WAIT.
    for n in 0..2 * MAX_CONNECTIONS {
        let client = world.peer.connect(server());
        let id = accept(&mut world, listener);
        world.stack.close(id).unwrap();
        world.run(10, |world| world.peer.socket(client).state() == State::CloseWait);
        world.peer.socket(client).close();
        world.run(10, |world| world.peer.socket(client).state() == State::Closed);
        world.peer.sockets.remove(client);
        assert!(world.now_us < start + 9_000_000, "{n} took longer than TIME-WAIT");
    }
    world.pass(15);
    let (all, free) = world.stack.pool();
    assert_eq!((all, all - free), (MAX_CONNECTIONS + 5, 5));
}

/// Fills all sockets with orphans, whose clients take nothing and never close.
///
/// The server sends `data` on each connection before it closes it.
fn fill_with_orphans(world: &mut World, listener: SocketId, data: &[u8]) -> Vec<SocketHandle> {
    let connect = |_| {
        let client = world.peer.connect(server());
        let id = accept(world, listener);
        assert_eq!(world.stack.send(id, data), Ok(data.len()));
        world.stack.close(id).unwrap();
        client
    };
    (0..MAX_CONNECTIONS).map(connect).collect()
}

#[test]
fn clients_that_never_close_keep_nobody_out() {
    let mut world = World::new(Faults::default(), 35);
    let listener = world.listen(4);
    let clients = fill_with_orphans(&mut world, listener, b"the end");
    world.pass(1);
    // Each newcomer takes the place of the oldest, whose client hears of that.
    for (n, &client) in clients.iter().enumerate() {
        let states = clients.iter().map(|&client| world.peer.socket(client).state());
        let closed = states.filter(|&state| state == State::Closed).count();
        assert_eq!((closed, world.peer.socket(client).state()), (n, State::CloseWait));
        let start = world.now_us;
        let newcomer = world.peer.connect(server());
        let id = accept(&mut world, listener);
        world.stack.send(id, b"hello").unwrap();
        world.run(1, |world| world.peer.socket(newcomer).recv_queue() == 5);
        world.run(1, |world| world.peer.socket(client).state() == State::Closed);
        assert!(world.now_us < start + 500_000, "newcomer {n} had to wait");
    }
}

#[test]
fn clients_that_take_no_data_keep_others_out_for_a_while_alone() {
    let mut world = World::new(Faults::default(), 36);
    let listener = world.listen(4);
    let start = world.now_us;
    let clients = fill_with_orphans(&mut world, listener, &content(32 << 10, 5));
    let filled = world.now_us;
    world.peer.connect(server());
    accept(&mut world, listener);
    assert!(world.now_us >= start + 10_000_000 && world.now_us < filled + 11_000_000);
    assert_eq!(world.peer.socket(clients[1]).state(), State::Established);
}

#[test]
fn a_reset_that_cannot_be_sent_holds_no_socket() {
    let mut world = World::new(Faults::default(), 37);
    let listener = world.listen(4);
    fill_with_orphans(&mut world, listener, b"the end");
    world.pass(1);
    world.peer.connect(server());
    world.peer.poll(world.now_us);
    world.stack.poll(&mut world.end, world.now_us);
    world.peer.poll(world.now_us);
    world.end.is_full = true;
    world.stack.poll(&mut world.end, world.now_us);
    assert!(world.stack.accept(listener).is_ok());
}

#[test]
fn a_client_may_use_its_port_again_during_time_wait() {
    let mut world = World::new(Faults::default(), 26);
    let listener = world.listen(4);
    let client = world.peer.connect(server());
    let id = accept(&mut world, listener);
    world.stack.close(id).unwrap();
    world.run(10, |world| world.peer.socket(client).state() == State::CloseWait);
    let port = world.peer.socket(client).local_endpoint().unwrap().port;
    world.peer.socket(client).close();
    world.run(10, |world| world.peer.socket(client).state() == State::Closed);
    let (all, free) = world.stack.pool();
    assert_eq!(all - free, 6, "the server is in TIME-WAIT");
    let again = world.now_us;
    let interface = &mut world.peer.interface;
    let socket = world.peer.sockets.get_mut::<smoltcp::socket::tcp::Socket<'_>>(client);
    socket.connect(interface.context(), server(), port).unwrap();
    world.run(5, |world| world.peer.socket(client).state() == State::Established);
    assert!(world.now_us < again + 5_000_000);
    let id = accept(&mut world, listener);
    world.stack.send(id, b"again").unwrap();
    world.run(5, |world| world.peer.socket(client).recv_queue() == 5);
}

#[test]
fn a_closed_connection_whose_client_never_closes_is_reset_after_a_minute() {
    let mut world = World::new(Faults::default(), 27);
    let listener = world.listen(2);
    let client = world.peer.connect(server());
    let id = accept(&mut world, listener);
    world.stack.send(id, b"the end").unwrap();
    world.stack.close(id).unwrap();
    // The client goes on sending, which changes nothing and does not stop it from reading.
    for _ in 0..50 {
        let sent = world.peer.socket(client).send_slice(&[7; 5000]);
        assert_eq!(sent, Ok(5000));
        world.pass(1);
    }
    let socket = world.peer.socket(client);
    assert_eq!((socket.state(), socket.recv_queue()), (State::CloseWait, 7));
    world.run(20, |world| world.peer.socket(client).state() == State::Closed);
    world.pass(1);
    let (all, free) = world.stack.pool();
    assert_eq!(all - free, 3);
}

#[test]
fn an_answer_reaches_a_slow_client_though_its_connection_is_closed() {
    let mut world = World::new(Faults::default(), 28);
    let listener = world.listen(2);
    let client = world.peer.connect(server());
    let id = accept(&mut world, listener);
    let data = content(32 << 10, 4);
    assert_eq!(world.stack.send(id, &data), Ok(data.len()));
    world.stack.close(id).unwrap();
    // A few bytes every ten seconds, for more than five minutes.
    let mut back = Vec::new();
    while back.len() < data.len() {
        let socket = world.peer.socket(client);
        assert!(socket.may_recv(), "after {} bytes", back.len());
        socket
            .recv(|part| {
                let n = part.len().min(1000);
                back.extend_from_slice(&part[..n]);
                (n, ())
            })
            .unwrap();
        world.pass(10);
    }
    assert!(back == data);
}

#[test]
fn an_idle_stack_asks_for_no_poll() {
    let mut world = World::new(Faults::default(), 29);
    let listener = world.listen(16);
    world.pass(5);
    assert_eq!(world.stack.next_deadline(), None);
    // An open connection is asked for a sign of life every half minute.
    let client = world.peer.connect(server());
    let id = accept(&mut world, listener);
    world.pass(5);
    let wait = world.stack.next_deadline().unwrap() - world.now_us;
    assert!((10_000_000..31_000_000).contains(&wait), "{wait}");
    world.peer.socket(client).close();
    world.stack.close(id).unwrap();
    world.pass(30);
    assert_eq!(world.stack.next_deadline(), None);
    assert_eq!(world.recv(id), Err(SocketError::NotOpen));
}
