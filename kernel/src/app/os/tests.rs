use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use std::vec::Vec;

use hermit_abi as abi;

use crate::app::fake_abi::{World, run_in_world};
use crate::app::os::sockets::Readiness;
use crate::app::os::{Errno, Interest, PollSet, Socket, configure_network, listen, network};
use crate::system::{Network, NetworkConfig, NetworkError};

fn card() -> Network {
    Network {
        name: "wire".into(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        addresses: Vec::from([("127.0.0.1".parse().unwrap(), 8)]),
        gateways: Vec::new(),
    }
}

fn with_card(world: &mut World) {
    world.network = Some(card());
}

const READ: Interest = Interest { read: true, write: false };
const BOTH: Interest = Interest { read: true, write: true };

/// Waits for one socket; returns what it is ready for.
fn wait_for(socket: &Socket, interest: Interest) -> Readiness {
    let mut set = PollSet::with_capacity(4);
    let entry = set.add(socket, interest);
    assert_eq!(set.wait(Some(10_000)), Ok(1));
    set.readiness(entry)
}

#[test]
fn without_a_card_there_is_no_socket() {
    run_in_world(
        |_| (),
        || {
            let error = configure_network(&NetworkConfig::default());
            assert_eq!((error, network()), (Err(NetworkError::NoCard), None));
            assert_eq!(listen(0, 4).map(drop), Err(Errno(abi::ENODEV)));
        },
    );
}

#[test]
fn a_client_is_served_and_its_end_is_seen() {
    run_in_world(with_card, || {
        assert_eq!(
            (configure_network(&NetworkConfig::default()), network()),
            (Ok(()), Some(card()))
        );
        let listener = listen(0, 4).unwrap();
        let address = listener.local().unwrap();
        assert!(address.ip().is_ipv4() && address.port() != 0);
        assert_eq!(listen(address.port(), 4).map(drop), Err(Errno(abi::EADDRINUSE)));
        assert_eq!(listener.accept().map(drop), Err(Errno(abi::EAGAIN)));
        let mut set = PollSet::with_capacity(4);
        set.add(&listener, READ);
        let start = Instant::now();
        assert_eq!(set.wait(Some(20)), Ok(0));
        assert!(start.elapsed() >= Duration::from_millis(20));

        let client = thread::spawn(move || {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            (client.local_addr().unwrap(), answer)
        });
        assert!(wait_for(&listener, READ).read);
        let (socket, peer) = listener.accept().unwrap();
        let mut request = [0; 100];
        let ready = wait_for(&socket, READ);
        assert_eq!(ready, Readiness { read: true, ..Readiness::default() });
        let n = socket.recv(&mut request).unwrap();
        assert_eq!(&request[..n], b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(socket.recv(&mut request), Err(Errno(abi::EAGAIN)));
        assert!(wait_for(&socket, BOTH).write);
        assert_eq!(socket.send(b"hello"), Ok(5));
        socket.shutdown_write().unwrap();
        let (address, answer) = client.join().unwrap();
        assert_eq!((address, &answer[..]), (peer, &b"hello"[..]));
        assert!(wait_for(&socket, READ).peer_done);
        assert_eq!(socket.recv(&mut request), Ok(0));
        assert_eq!(socket.send(b"x").map_err(|errno| errno.0), Err(abi::EPIPE));
    });
}

#[test]
fn a_client_that_reads_slowly_holds_the_sender_back() {
    run_in_world(with_card, || {
        let listener = listen(0, 4).unwrap();
        let mut client = TcpStream::connect(listener.local().unwrap()).unwrap();
        wait_for(&listener, READ);
        let (socket, _) = listener.accept().unwrap();
        let data = std::vec![7; 1 << 20];
        let mut sent = 0;
        let error = loop {
            match socket.send(&data) {
                Ok(n) => sent += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error, Errno(abi::EAGAIN));
        let mut set = PollSet::with_capacity(4);
        let entry = set.add(&socket, BOTH);
        assert_eq!((set.wait(Some(0)), set.readiness(entry)), (Ok(0), Readiness::default()));
        let mut back = std::vec![0; sent];
        client.read_exact(&mut back).unwrap();
        assert!(wait_for(&socket, BOTH).write);
        // A client that goes without taking what was sent resets the connection.
        assert!(socket.send(&data).is_ok());
        client.shutdown(Shutdown::Both).unwrap();
        drop(client);
        assert!(wait_for(&socket, READ).read);
        let gone = loop {
            match socket.send(&data) {
                Ok(_) => wait_for(&socket, BOTH),
                Err(Errno(abi::EAGAIN)) => wait_for(&socket, BOTH),
                Err(error) => break error,
            };
        };
        assert!([abi::ECONNRESET, abi::EPIPE].contains(&gone.0), "{gone}");
        // A set that is used again has no old entries, and may wait for the console alone.
        set.clear();
        let console = set.add_console();
        assert_eq!((set.wait(Some(0)), set.readiness(console)), (Ok(0), Readiness::default()));
        let refused = TcpStream::connect(listener.local().unwrap());
        assert!(refused.is_ok());
        let address = listener.local().unwrap();
        drop((listener, refused));
        let refused = TcpStream::connect(address).map_err(|error| error.kind());
        assert!(matches!(refused, Err(ErrorKind::ConnectionRefused)));
    });
}
