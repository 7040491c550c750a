//! A network in memory for tests: a wire with faults, and a second stack at its other end.

use std::collections::VecDeque;
use std::string::String;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time;
use std::vec;
use std::vec::Vec;

use core::net::{IpAddr, SocketAddr};

use smoltcp::iface::{Config, Interface, Route, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::Card;
use super::sockets::{Family, SocketError, SocketId};
use super::stack::Stack;
use crate::system::NetworkConfig;

/// The Ethernet address of the stack under test.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x15];
/// The Ethernet address of the other end.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The port of the tests' listeners.
pub const PORT: u16 = 8080;

/// A clock for tests in real time, in µs.
pub fn now_us() -> u64 {
    static START: LazyLock<time::Instant> = LazyLock::new(time::Instant::now);
    START.elapsed().as_micros() as u64
}

/// The console of tests, which has no input.
pub mod input {
    pub fn is_ready() -> bool {
        false
    }

    pub fn enable_wake() -> Option<u64> {
        None
    }

    pub fn disable_wake() {}
}

/// Numbers that look random, the same in each run.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 11) % n as u64) as usize
    }
}

/// Frames of a thousand that a wire loses, doubles, and lets others overtake.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub lost: usize,
    pub doubled: usize,
    pub overtaken: usize,
}

#[derive(Debug)]
struct Wire {
    /// Frames on the way to each end.
    queues: [VecDeque<Vec<u8>>; 2],
    faults: Faults,
    numbers: Numbers,
}

/// An end of a wire, which is a network card.
#[derive(Clone, Debug)]
pub struct End {
    wire: Arc<Mutex<Wire>>,
    side: usize,
    pub mac: [u8; 6],
    pub mtu: usize,
    /// Whether the card has no room for another frame.
    pub is_full: bool,
}

/// A wire: the end of the stack under test, and the other end.
pub fn wire(faults: Faults, seed: u64) -> (End, End) {
    let queues = [VecDeque::new(), VecDeque::new()];
    let wire = Arc::new(Mutex::new(Wire { queues, faults, numbers: Numbers::new(seed) }));
    let end = |side, mac| End { wire: Arc::clone(&wire), side, mac, mtu: 1514, is_full: false };
    (end(0, MAC), end(1, PEER_MAC))
}

impl End {
    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap()
    }

    /// Takes the oldest frame that has come.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.wire().queues[self.side].pop_front()
    }

    /// Sends a frame, with the wire's faults.
    pub fn put(&self, frame: Vec<u8>) {
        let mut wire = self.wire();
        let Wire { queues, faults, numbers } = &mut *wire;
        let queue = &mut queues[1 - self.side];
        if numbers.below(1000) < faults.lost {
            return;
        }
        if numbers.below(1000) < faults.doubled {
            queue.push_back(frame.clone());
        }
        let place = queue.len().saturating_sub(1);
        if numbers.below(1000) < faults.overtaken {
            queue.insert(place, frame);
        } else {
            queue.push_back(frame);
        }
    }

    /// Whether nothing is on the way.
    pub fn is_quiet(&self) -> bool {
        self.wire().queues.iter().all(VecDeque::is_empty)
    }
}

pub struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

pub struct ToSend(End);

impl phy::TxToken for ToSend {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        // The memory of a card holds an older frame.
        let mut frame = vec![0xa5; len];
        let result = fill(&mut frame);
        self.0.put(frame);
        result
    }
}

impl Device for End {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend;

    fn receive(&mut self, _: Instant) -> Option<(Received, ToSend)> {
        self.take().map(|frame| (Received(frame), ToSend(self.clone())))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToSend> {
        (!self.is_full).then(|| ToSend(self.clone()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

impl Card for End {
    fn name(&self) -> String {
        "wire".into()
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn enable_wake(&mut self) -> bool {
        self.wire().queues[self.side].is_empty()
    }

    fn disable_wake(&mut self) {}
}

/// Another machine, with a stack of smoltcp alone.
pub struct Peer {
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    pub end: End,
    port: u16,
}

impl Peer {
    /// A machine with these addresses.
    pub fn new(mut end: End, addresses: &[&str], seed: u64) -> Peer {
        let mut config = Config::new(EthernetAddress(end.mac).into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut end, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            list.extend(addresses.iter().map(|address| address.parse::<IpCidr>().unwrap()));
        });
        let route = Route::new_ipv4_gateway("10.0.2.15".parse().unwrap());
        interface.routes_mut().update(|routes| routes.push(route).unwrap());
        Peer { interface, sockets: SocketSet::new(Vec::new()), end, port: 40_000 }
    }

    pub fn poll(&mut self, now_us: u64) {
        self.interface.poll(micros(now_us), &mut self.end, &mut self.sockets);
    }

    /// Begins to connect, from a new port.
    pub fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 16 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        self.port += 1;
        socket.connect(self.interface.context(), to, self.port).unwrap();
        self.sockets.add(socket)
    }

    /// The port of a socket that is not closed.
    pub fn port_of(&self, handle: SocketHandle) -> u16 {
        self.sockets.get::<tcp::Socket<'_>>(handle).local_endpoint().unwrap().port
    }

    pub fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }
}

pub fn micros(us: u64) -> Instant {
    Instant::from_micros(us as i64)
}

/// The stack under test and a peer, on one wire and one clock.
pub struct World {
    pub stack: Stack,
    pub end: End,
    pub peer: Peer,
    pub now_us: u64,
}

/// The fixed addresses of most tests.
pub fn fixed() -> NetworkConfig {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    NetworkConfig {
        addresses: vec![(ip("10.0.2.15"), 24), (ip("fd00::15"), 64)],
        gateways: vec![ip("10.0.2.2")],
    }
}

pub fn server() -> SocketAddr {
    "10.0.2.15:8080".parse().unwrap()
}

pub fn server_v6() -> SocketAddr {
    "[fd00::15]:8080".parse().unwrap()
}

impl World {
    pub fn new(faults: Faults, seed: u64) -> World {
        World::with(&fixed(), faults, seed)
    }

    pub fn with(config: &NetworkConfig, faults: Faults, seed: u64) -> World {
        let (mut end, peer) = wire(faults, seed);
        let now_us = 5_000_000;
        let stack = Stack::start(&mut end, MAC, config, seed, now_us).unwrap();
        let peer = Peer::new(peer, &["10.0.2.2/24", "fe80::2/64", "fd00::2/64"], seed + 1);
        World { stack, end, peer, now_us }
    }

    /// A listening socket on [`PORT`].
    pub fn listen(&mut self, backlog: usize) -> SocketId {
        let id = self.stack.socket(Family::Ipv6, true).unwrap();
        let any = SocketAddr::new("::".parse().unwrap(), PORT);
        self.stack.bind(id, any).unwrap();
        self.stack.listen(id, backlog).unwrap();
        id
    }

    /// Polls both ends, and lets some time pass: little, or until an end has something to do.
    pub fn step(&mut self) {
        self.step_at_most(20_000);
    }

    fn step_at_most(&mut self, pause: u64) {
        self.stack.poll(&mut self.end, self.now_us);
        self.peer.poll(self.now_us);
        let pause = if self.end.is_quiet() { pause } else { 0 };
        let now = micros(self.now_us);
        let peer = self.peer.interface.poll_at(now, &self.peer.sockets).map(|at| at.total_micros());
        let next = peer.map(|at| at.max(0) as u64).into_iter().chain(self.stack.next_deadline());
        let next = next.chain([self.now_us + pause]).min().unwrap_or(0);
        self.now_us = next.max(self.now_us + 50);
    }

    /// Steps until `is_done`, for at most some seconds.
    #[track_caller]
    pub fn run(&mut self, seconds: u64, mut is_done: impl FnMut(&mut World) -> bool) {
        let end = self.now_us + seconds * 1_000_000;
        while !is_done(self) {
            assert!(self.now_us < end, "not done after {seconds} s");
            self.step();
        }
    }

    /// Steps for some seconds.
    pub fn pass(&mut self, seconds: u64) {
        let end = self.now_us + seconds * 1_000_000;
        while self.now_us < end {
            self.step_at_most(end - self.now_us);
        }
    }

    /// Receives what is there.
    pub fn recv(&mut self, id: SocketId) -> Result<Vec<u8>, SocketError> {
        let mut data = Vec::new();
        self.stack.recv(id, 5000, |part| data.extend(part))?;
        Ok(data)
    }
}

/// A server that sends back what it receives, and closes once its client has.
#[derive(Debug)]
pub struct Echo {
    listener: SocketId,
    open: Vec<(SocketId, Vec<u8>, bool)>,
    pub served: usize,
    pub failed: usize,
}

impl Echo {
    pub fn new(listener: SocketId) -> Echo {
        Echo { listener, open: Vec::new(), served: 0, failed: 0 }
    }

    pub fn serve(&mut self, world: &mut World) {
        while let Ok((id, _)) = world.stack.accept(self.listener) {
            self.open.push((id, Vec::new(), false));
        }
        let mut open = core::mem::take(&mut self.open);
        open.retain_mut(|(id, pending, is_done)| {
            while !*is_done && pending.len() < 20_000 {
                match world.recv(*id) {
                    Ok(data) if data.is_empty() => *is_done = true,
                    Ok(data) => pending.extend(data),
                    Err(SocketError::WouldBlock) => break,
                    Err(_) => {
                        self.failed += 1;
                        world.stack.close(*id).unwrap();
                        return false;
                    }
                }
            }
            if let Ok(n) = world.stack.send(*id, pending) {
                pending.drain(..n);
            }
            let is_over = *is_done && pending.is_empty();
            if is_over {
                self.served += 1;
                world.stack.close(*id).unwrap();
            }
            !is_over
        });
        self.open = open;
    }
}

/// Bytes that are not the same anywhere.
pub fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    (0..bytes).map(|_| numbers.next() as u8).collect()
}

/// A client that sends bytes, takes as many back, and closes.
pub struct Client {
    pub handle: SocketHandle,
    to_send: Vec<u8>,
    sent: usize,
    pub back: Vec<u8>,
}

impl Client {
    pub fn new(world: &mut World, to: SocketAddr, to_send: Vec<u8>) -> Client {
        Client { handle: world.peer.connect(to), to_send, sent: 0, back: Vec::new() }
    }

    /// Goes on; returns whether all has come back and the connection is closed.
    pub fn go_on(&mut self, world: &mut World) -> bool {
        let socket = world.peer.socket(self.handle);
        if socket.may_send() {
            self.sent += socket.send_slice(&self.to_send[self.sent..]).unwrap();
        }
        while socket.can_recv() {
            socket.recv(|data| (self.back.extend_from_slice(data), (data.len(), ())).1).unwrap();
        }
        if self.back.len() == self.to_send.len() && self.sent == self.back.len() {
            assert!(self.back == self.to_send, "what came back differs");
            socket.close();
            return matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
        }
        false
    }
}
