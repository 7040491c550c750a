//! Connections from the first segment to the last, on wires with faults.

use std::net::SocketAddr;
use std::vec::Vec;

use smoltcp::socket::tcp::{Socket, State};

use crate::runtime::net::sockets::{Family, Readiness, Shutdown, SocketError};
use crate::runtime::net::tcp::MAX_CONNECTIONS;
use crate::runtime::net::testing::{Client, Echo, Faults, PORT, World, content, server, server_v6};

/// Wires from a good one to a very bad one.
const WIRES: [Faults; 4] = [
    Faults { lost: 0, doubled: 0, overtaken: 0 },
    Faults { lost: 30, doubled: 0, overtaken: 0 },
    Faults { lost: 0, doubled: 300, overtaken: 300 },
    Faults { lost: 50, doubled: 100, overtaken: 200 },
];

#[test]
fn what_a_client_sends_comes_back_on_any_wire() {
    for (seed, faults) in WIRES.into_iter().enumerate() {
        for (to, seed) in [(server(), seed as u64), (server_v6(), 100 + seed as u64)] {
            let mut world = World::new(faults, seed);
            let mut echo = Echo::new(world.listen(4));
            let mut client = Client::new(&mut world, to, content(100_003, seed));
            world.run(600, |world| {
                echo.serve(world);
                client.go_on(world)
            });
            world.run(200, |world| {
                echo.serve(world);
                echo.served == 1
            });
            assert_eq!(echo.failed, 0);
        }
    }
}

#[test]
fn eight_clients_at_once_are_kept_apart_on_a_bad_wire() {
    let mut world = World::new(WIRES[3], 77);
    let mut echo = Echo::new(world.listen(8));
    let mut clients: Vec<Client> =
        (0..8).map(|i| Client::new(&mut world, server(), content(9001, i))).collect();
    world.run(900, |world| {
        echo.serve(world);
        clients.retain_mut(|client| !client.go_on(world));
        clients.is_empty()
    });
    world.run(200, |world| {
        echo.serve(world);
        echo.served == 8
    });
    assert_eq!(echo.failed, 0);
}

#[test]
fn as_many_connections_as_there_is_room_for_are_open_at_once() {
    let mut world = World::new(Faults::default(), 5);
    let listener = world.listen(16);
    // A backlog of sixteen does not hold them: the others try again.
    let clients: Vec<_> = (0..MAX_CONNECTIONS + 1).map(|_| world.peer.connect(server())).collect();
    let mut accepted = Vec::new();
    world.run(60, |world| {
        accepted.extend(world.stack.accept(listener).ok());
        accepted.len() == MAX_CONNECTIONS
    });
    world.pass(20);
    assert_eq!(world.stack.accept(listener), Err(SocketError::WouldBlock));
    assert!(!world.stack.readiness(listener).unwrap().is_readable);
    // Each client is served by its own connection.
    for (i, (id, peer)) in accepted.iter().enumerate() {
        let text = std::format!("to {i}");
        assert_eq!(world.stack.send(*id, text.as_bytes()), Ok(text.len()));
        let client =
            *clients.iter().find(|&&client| world.peer.port_of(client) == peer.port()).unwrap();
        world.run(10, |world| world.peer.socket(client).recv_queue() == text.len());
        let (n, same) = world
            .peer
            .socket(client)
            .recv(|data| (data.len(), (data.len(), data == text.as_bytes())))
            .unwrap();
        assert!(same && n == text.len());
    }
    // The last one gets its turn when another has gone, by itself.
    world.stack.close(accepted[7].0).unwrap();
    let port = accepted[7].1.port();
    let gone = *clients.iter().find(|&&client| world.peer.port_of(client) == port).unwrap();
    world.peer.socket(gone).close();
    world.run(60, |world| world.stack.readiness(listener).unwrap().is_readable);
    assert!(world.stack.accept(listener).is_ok());
}

#[test]
fn both_sides_may_close_first() {
    for server_first in [true, false] {
        let mut world = World::new(Faults::default(), 9);
        let listener = world.listen(4);
        let client = world.peer.connect(server());
        let mut accepted = None;
        world.run(10, |world| {
            accepted = accepted.or(world.stack.accept(listener).ok());
            accepted.is_some()
        });
        let (id, peer) = accepted.unwrap();
        assert_eq!(peer.ip().to_canonical(), "10.0.2.2".parse::<std::net::IpAddr>().unwrap());
        assert_eq!(world.stack.peer(id), Ok(peer));
        let local: SocketAddr = "[::ffff:10.0.2.15]:8080".parse().unwrap();
        assert_eq!(world.stack.local(id), Ok(local));
        if server_first {
            world.stack.shutdown(id, Shutdown { read: false, write: true }).unwrap();
            world.run(10, |world| world.peer.socket(client).state() == State::CloseWait);
            assert_eq!(world.stack.send(id, b"x"), Err(SocketError::Closed));
            assert_eq!(world.recv(id), Err(SocketError::WouldBlock));
            // The other direction is open.
            world.peer.socket(client).send_slice(b"still here").unwrap();
            world.run(10, |world| world.stack.readiness(id).unwrap().is_readable);
            assert_eq!(world.recv(id).unwrap(), b"still here");
            world.peer.socket(client).close();
        } else {
            world.peer.socket(client).send_slice(b"bye").unwrap();
            world.peer.socket(client).close();
            world.run(10, |world| world.stack.readiness(id).unwrap().is_peer_done);
            assert_eq!(world.recv(id).unwrap(), b"bye");
            assert_eq!(world.recv(id).unwrap(), b"");
            assert_eq!(world.stack.send(id, b"good bye"), Ok(8));
            world.stack.shutdown(id, Shutdown { read: true, write: true }).unwrap();
        }
        world.run(30, |world| world.stack.readiness(id).unwrap().is_hung_up);
        assert_eq!(world.recv(id).unwrap(), b"");
        assert_eq!(world.stack.take_error(id), Ok(None));
        world.run(30, |world| {
            matches!(world.peer.socket(client).state(), State::Closed | State::TimeWait)
        });
        world.stack.close(id).unwrap();
        assert_eq!(world.stack.close(id), Err(SocketError::NotOpen));
        world.pass(30);
        let (all, free) = world.stack.pool();
        assert_eq!(all - free, 5, "only the backlog is in use");
    }
}

#[test]
fn a_reset_in_mid_stream_is_told_once_and_ends_the_connection() {
    let mut world = World::new(Faults::default(), 11);
    let listener = world.listen(2);
    let client = world.peer.connect(server());
    world.run(10, |world| world.stack.readiness(listener).unwrap().is_readable);
    let (id, _) = world.stack.accept(listener).unwrap();
    world.stack.send(id, &content(30_000, 1)).unwrap();
    world.peer.socket(client).send_slice(b"half a requ").unwrap();
    world.run(10, |world| world.stack.readiness(id).unwrap().is_readable);
    world.peer.socket(client).abort();
    world.run(10, |world| world.stack.readiness(id).unwrap().has_failed);
    let ready = world.stack.readiness(id).unwrap();
    assert!(ready.is_readable && ready.is_writable && ready.is_peer_done && ready.is_hung_up);
    // What came before is still there.
    assert_eq!(world.recv(id).unwrap(), b"half a requ");
    assert_eq!(world.recv(id), Err(SocketError::Reset));
    assert_eq!(world.recv(id).unwrap(), b"");
    assert_eq!(world.stack.send(id, b"x"), Err(SocketError::Closed));
    world.stack.close(id).unwrap();
    world.pass(1);
    let (all, free) = world.stack.pool();
    assert_eq!(all - free, 3);
}

#[test]
fn a_peer_that_is_gone_times_out() {
    let mut world = World::new(Faults::default(), 13);
    let listener = world.listen(2);
    let client = world.peer.connect(server());
    world.run(10, |world| world.stack.readiness(listener).unwrap().is_readable);
    let (id, _) = world.stack.accept(listener).unwrap();
    // An idle peer that answers stays.
    world.pass(600);
    assert!(!world.stack.readiness(id).unwrap().has_failed);
    world.peer.sockets.remove(client);
    world.peer.interface.update_ip_addrs(|list| list.clear());
    world.run(200, |world| world.stack.readiness(id).unwrap().has_failed);
    assert_eq!(world.stack.take_error(id), Ok(Some(SocketError::TimedOut)));
    assert_eq!(world.recv(id).unwrap(), b"");
}

#[test]
fn a_standstill_ends_no_connection() {
    let mut world = World::new(Faults::default(), 14);
    let listener = world.listen(2);
    let client = world.peer.connect(server());
    world.run(10, |world| world.stack.readiness(listener).unwrap().is_readable);
    let (id, _) = world.stack.accept(listener).unwrap();
    for (seconds, is_left_out) in [(20, true), (130, true), (590, true), (700, false)] {
        // The text is on its way, and nothing has come back, when the machine stands still.
        world.stack.send(id, b"text").unwrap();
        world.stack.poll(&mut world.end, world.now_us);
        world.now_us += seconds * 1_000_000;
        world.pass(5);
        let readiness = world.stack.readiness(id).unwrap();
        assert_eq!(!readiness.has_failed, is_left_out, "{seconds} s");
    }
    let received = world.peer.sockets.get::<Socket<'_>>(client).recv_queue();
    assert!(received >= 3 * b"text".len(), "the peer has received {received} bytes");
}

#[test]
fn a_window_of_zero_holds_data_back_in_both_directions() {
    let mut world = World::new(Faults::default(), 15);
    let listener = world.listen(2);
    let client = world.peer.connect(server());
    world.run(10, |world| world.stack.readiness(listener).unwrap().is_readable);
    let (id, _) = world.stack.accept(listener).unwrap();

    // The client takes nothing for a minute: buffers fill, and the connection stays.
    let data = content(200_000, 3);
    let mut sent = 0;
    let end = world.now_us + 60_000_000;
    while world.now_us < end {
        sent += world.stack.send(id, &data[sent..]).unwrap_or(0);
        world.step();
    }
    assert!((32 << 10..100_000).contains(&sent), "{sent}");
    assert_eq!(world.stack.send(id, &data[sent..]), Err(SocketError::WouldBlock));
    let ready = world.stack.readiness(id).unwrap();
    assert_eq!(ready, Readiness::default());
    let mut back = Vec::new();
    world.run(60, |world| {
        sent += world.stack.send(id, &data[sent..]).unwrap_or(0);
        let socket = world.peer.socket(client);
        while socket.can_recv() {
            socket.recv(|part| (part.len(), back.extend_from_slice(part))).unwrap();
        }
        back.len() == data.len()
    });
    assert!(back == data);

    // The server takes nothing for a minute.
    let (mut sent, mut got) = (0, Vec::new());
    let end = world.now_us + 60_000_000;
    while world.now_us < end {
        sent += world.peer.socket(client).send_slice(&data[sent..]).unwrap();
        world.step();
    }
    assert!((16 << 10..100_000).contains(&sent), "{sent}");
    world.run(60, |world| {
        sent += world.peer.socket(client).send_slice(&data[sent..]).unwrap();
        while let Ok(part) = world.recv(id) {
            got.extend(part);
        }
        got.len() == data.len()
    });
    assert!(got == data);
}

#[test]
fn a_socket_keeps_to_its_family_port_and_address() {
    let mut world = World::new(Faults::default(), 17);
    let ip = |text: &str| text.parse::<SocketAddr>().unwrap();
    let stack = &mut world.stack;
    let id = stack.socket(Family::Ipv4, true).unwrap();
    assert_eq!(stack.listen(id, 1), Err(SocketError::Invalid));
    assert_eq!(stack.bind(id, ip("[::]:80")), Err(SocketError::Invalid));
    assert_eq!(stack.bind(id, ip("10.0.2.16:80")), Err(SocketError::NoSuchAddress));
    stack.bind(id, ip("0.0.0.0:8080")).unwrap();
    assert_eq!(stack.bind(id, ip("0.0.0.0:8081")), Err(SocketError::Invalid));
    stack.listen(id, 2).unwrap();
    assert_eq!(stack.local(id), Ok(ip("0.0.0.0:8080")));
    assert_eq!(stack.accept(id), Err(SocketError::WouldBlock));
    assert_eq!(stack.send(id, b"x"), Err(SocketError::NotConnected));
    let second = stack.socket(Family::Ipv6, true).unwrap();
    stack.bind(second, ip("[::]:8080")).unwrap();
    assert_eq!(stack.listen(second, 1), Err(SocketError::AddressInUse));
    let any = stack.socket(Family::Ipv6, true).unwrap();
    stack.bind(any, ip("[fd00::15]:0")).unwrap();
    let port = stack.local(any).unwrap().port();
    assert!(port >= 0xc000, "{port}");

    // IPv4 comes in, IPv6 does not.
    let v6 = world.peer.connect(server_v6());
    let v4 = world.peer.connect(server());
    world.run(10, |world| world.peer.socket(v4).state() == State::Established);
    world.pass(5);
    assert_eq!(world.peer.socket(v6).state(), State::SynSent);
    let (accepted, peer) = world.stack.accept(id).unwrap();
    assert!(peer.is_ipv4() && world.stack.local(accepted) == Ok(server()));
    // Where nobody listens, the answer is a reset.
    let refused = world.peer.connect(ip("10.0.2.15:81"));
    world.run(10, |world| world.peer.socket(refused).state() == State::Closed);
    // A listener that is closed resets what waits for it, and its port is free again.
    let waiting = world.peer.connect(server());
    world.run(10, |world| world.peer.socket(waiting).state() == State::Established);
    world.stack.close(id).unwrap();
    world.run(10, |world| world.peer.socket(waiting).state() == State::Closed);
    world.stack.listen(second, 1).unwrap();
    assert_eq!(world.stack.local(second).unwrap().port(), PORT);
}
