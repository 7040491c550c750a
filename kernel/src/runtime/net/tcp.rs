//! TCP sockets: a pool of smoltcp's, listeners with a backlog, connections, and what is left of
//! closed ones.
//!
//! A socket of smoltcp is one connection, and a socket that listens turns into its connection. So a
//! listener is several sockets that listen on one port, the *backlog*. The backlog holds sockets in
//! LISTEN, half-open connections (SYN-RECEIVED) and established ones that wait for `accept`. A
//! backlog of n connections has n + 1 sockets:
//!
//! - An accepted connection leaves the backlog, and a free socket takes its place.
//! - If no socket is left in LISTEN, the oldest half-open connection is forgotten. Its peer has
//!   [`YOUNG`](super::limits::YOUNG) to answer before that.
//! - If n connections are established, or no socket is left in LISTEN, a SYN is dropped, and its
//!   client tries again: see [`Refusal`].
//!
//! All buffers are allocated by [`Tcp::listen`]. The pool has [`MAX_CONNECTIONS`] sockets beside the
//! backlogs.
//!
//! A connection that the application has closed is an *orphan*: its FIN handshake goes on. Orphans
//! in TIME-WAIT give their socket back when no other socket is free.

use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use arrayvec::ArrayVec;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};

use super::limits::{
    HALF_OPEN_TIMEOUT, KEEP_ALIVE, ORPHAN_TIMEOUT, RECEIVE_BYTES, TIMEOUT, TRANSMIT_BYTES, YOUNG,
};

pub use super::limits::{MAX_BACKLOG, MAX_CONNECTIONS, MAX_LISTENERS};

/// Why a connection ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer has reset the connection.
    Reset,
    /// The peer has not answered in time, or the machine has lost its address.
    TimedOut,
}

/// Connections to a port that are refused by dropping their SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    port: u16,
    /// Whether the backlog has no room, so that IPv4 is refused too.
    is_full: bool,
}

impl Refusal {
    /// Whether a SYN to this address and port is refused.
    pub fn covers(&self, to: IpEndpoint) -> bool {
        to.port == self.port && (self.is_full || matches!(to.addr, IpAddress::Ipv6(_)))
    }
}

/// The ends of a connection that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The end on this machine.
    pub local: IpEndpoint,
    /// The end of the peer.
    pub remote: IpEndpoint,
    /// Whether the connection is an orphan in TIME-WAIT.
    pub is_over: bool,
}

/// The number of a connection in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection(usize);

/// The number of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// In CLOSED, and used for nothing.
    Free,
    /// Part of a listener's backlog.
    Backlog(ListenerId),
    /// Accepted by the application.
    Connection,
    /// Closed by the application.
    Orphan,
}

/// A socket of the pool.
#[derive(Debug)]
struct Slot {
    handle: SocketHandle,
    role: Role,
    /// The state when the slot was last tended.
    state: State,
    /// Serial number of the entry into the present phase; the oldest slot has the smallest.
    since: u64,
    /// Why the connection ended early, until the application has asked.
    failure: Option<Failure>,
    /// Whether the application wants no more data.
    is_read_shut: bool,
    /// Bytes that an orphan had left to send.
    left: usize,
    /// When an orphan last made progress, or when a connection became half-open.
    progress: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Listener {
    endpoint: IpListenEndpoint,
    is_ipv4_only: bool,
    /// Connections that may wait for `accept`.
    backlog: usize,
    /// Whether so many wait, or no socket is in LISTEN.
    is_full: bool,
    /// Whether one waits, and there is a socket to replace it.
    is_ready: bool,
}

/// What has just happened when the pool is tended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Segments were received.
    Received,
    /// Segments were sent, and timers ran.
    Sent,
}

/// The pool.
#[derive(Debug, Default)]
pub struct Tcp {
    slots: Vec<Slot>,
    listeners: [Option<Listener>; MAX_LISTENERS],
    serial: u64,
}

fn is_established(state: State) -> bool {
    matches!(state, State::Established | State::CloseWait)
}

/// Forgets a connection without a word to the peer.
fn clear(socket: &mut Socket<'_>) {
    socket.abort();
    // A socket that starts to listen forgets its connection; one that is aborted sends a reset.
    let _ = socket.listen(1);
    socket.close();
}

/// Takes all data that a socket has received.
fn discard(socket: &mut Socket<'_>) {
    while socket.can_recv() && socket.recv(|data| (data.len(), ())).is_ok() {}
}

impl Slot {
    fn new(sockets: &mut SocketSet<'static>) -> Slot {
        let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(RECEIVE_BYTES), buffer(TRANSMIT_BYTES));
        socket.set_ack_delay(None);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        Slot {
            handle: sockets.add(socket),
            role: Role::Free,
            state: State::Closed,
            since: 0,
            failure: None,
            is_read_shut: false,
            left: 0,
            progress: Instant::ZERO,
        }
    }

    fn free(&mut self, socket: &mut Socket<'_>) {
        clear(socket);
        self.role = Role::Free;
        self.state = State::Closed;
    }

    fn listen(&mut self, socket: &mut Socket<'_>, id: ListenerId, endpoint: IpListenEndpoint) {
        socket.abort();
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(HALF_OPEN_TIMEOUT));
        // The socket is closed and the port is not 0, so nothing can fail.
        let _ = socket.listen(endpoint);
        self.role = Role::Backlog(id);
        self.state = State::Listen;
        self.failure = None;
        self.is_read_shut = false;
    }

    fn orphan(&mut self, socket: &mut Socket<'_>, now: Instant) {
        discard(socket);
        self.role = Role::Orphan;
        self.left = socket.send_queue();
        self.progress = now;
    }

    /// Tends an orphan; returns whether it has entered TIME-WAIT.
    fn tend_orphan(&mut self, socket: &mut Socket<'_>, before: State, now: Instant) -> bool {
        discard(socket);
        let (state, left) = (socket.state(), socket.send_queue());
        let is_over = now >= self.progress + ORPHAN_TIMEOUT;
        if state == State::Closed && (socket.remote_endpoint().is_none() || is_over) {
            self.free(socket);
        } else if state != before || left != self.left {
            self.left = left;
            self.progress = now;
        } else if is_over && state != State::TimeWait {
            socket.abort();
            // The reset has its time too.
            self.progress = now;
        }
        state == State::TimeWait && before != State::TimeWait
    }
}

impl Tcp {
    /// The state of each slot of a kind, with its number.
    fn of_role<'a>(
        &'a self,
        sockets: &'a SocketSet<'static>,
        role: Role,
    ) -> impl Iterator<Item = (usize, &'a Slot, State)> {
        let slots = self.slots.iter().enumerate().filter(move |(_, slot)| slot.role == role);
        slots.map(|(i, slot)| (i, slot, sockets.get::<Socket<'_>>(slot.handle).state()))
    }

    /// The oldest slot of a kind in a state.
    fn oldest(
        &self,
        sockets: &SocketSet<'static>,
        role: Role,
        is_wanted: impl Fn(State) -> bool,
    ) -> Option<usize> {
        let wanted = self.of_role(sockets, role).filter(|(.., state)| is_wanted(*state));
        wanted.min_by_key(|(_, slot, _)| slot.since).map(|(i, ..)| i)
    }

    fn next_serial(serial: &mut u64) -> u64 {
        *serial += 1;
        *serial
    }

    /// Brings all sockets up to date, after `phase`.
    pub fn tend(&mut self, sockets: &mut SocketSet<'static>, now: Instant, phase: Phase) {
        for slot in &mut self.slots {
            let socket = sockets.get_mut::<Socket<'_>>(slot.handle);
            let state = socket.state();
            let before = mem::replace(&mut slot.state, state);
            match slot.role {
                Role::Free => {}
                Role::Backlog(id) => {
                    let is_new = state != before;
                    match state {
                        State::Listen if !is_new => {}
                        State::SynReceived if is_new => {
                            slot.since = Self::next_serial(&mut self.serial);
                            slot.progress = now;
                        }
                        State::SynReceived => {}
                        state if is_established(state) => {
                            if !is_established(before) {
                                socket.set_timeout(Some(TIMEOUT));
                                slot.since = Self::next_serial(&mut self.serial);
                            }
                        }
                        // The connection has ended. After a reset in SYN-RECEIVED the socket
                        // listens again, but keeps numbers of the connection that is gone.
                        _ => {
                            if let Some(listener) = self.listeners[id.0] {
                                slot.listen(socket, id, listener.endpoint);
                            }
                        }
                    }
                }
                Role::Connection => {
                    let was_closing =
                        matches!(before, State::LastAck | State::TimeWait | State::Closed);
                    if state == State::Closed && !was_closing {
                        slot.failure = Some(match phase {
                            Phase::Received => Failure::Reset,
                            Phase::Sent => Failure::TimedOut,
                        });
                    }
                    if slot.is_read_shut {
                        discard(socket);
                    }
                }
                Role::Orphan => {
                    if slot.tend_orphan(socket, before, now) {
                        slot.since = Self::next_serial(&mut self.serial);
                    }
                }
            }
        }
        for i in 0..MAX_LISTENERS {
            self.make_room(sockets, ListenerId(i), now);
        }
    }

    /// Lets one socket of the backlog be in LISTEN if that is possible.
    fn make_room(&mut self, sockets: &mut SocketSet<'static>, id: ListenerId, now: Instant) {
        let Some(Listener { endpoint, backlog, .. }) = self.listeners[id.0] else { return };
        let states = || self.of_role(sockets, Role::Backlog(id)).map(|(.., state)| state);
        let n_established = states().filter(|&state| is_established(state)).count();
        let mut has_room = states().any(|state| state == State::Listen);
        let is_half_open = |state| state == State::SynReceived;
        let oldest = self.oldest(sockets, Role::Backlog(id), is_half_open);
        if let (false, Some(oldest)) = (has_room, oldest) {
            let slot = &mut self.slots[oldest];
            has_room = now >= slot.progress + YOUNG;
            if has_room {
                slot.listen(sockets.get_mut(slot.handle), id, endpoint);
            }
        }
        let is_ready = n_established > 0 && self.free_slot(sockets).is_some();
        if let Some(listener) = &mut self.listeners[id.0] {
            listener.is_full = n_established >= backlog || !has_room;
            listener.is_ready = is_ready;
        }
    }

    /// The connections that are refused at present.
    pub fn refusals(&self) -> ArrayVec<Refusal, MAX_LISTENERS> {
        let refusing = self.listeners.iter().flatten().filter(|l| l.is_full || l.is_ipv4_only);
        refusing.map(|l| Refusal { port: l.endpoint.port, is_full: l.is_full }).collect()
    }

    /// Lists the connections that exist.
    pub fn list_taken(&self, sockets: &SocketSet<'static>, list: &mut Vec<Taken>) {
        list.clear();
        for slot in self.slots.iter().filter(|slot| slot.role != Role::Free) {
            let socket = sockets.get::<Socket<'_>>(slot.handle);
            if let (Some(local), Some(remote)) = (socket.local_endpoint(), socket.remote_endpoint())
            {
                let is_over = slot.role == Role::Orphan && socket.state() == State::TimeWait;
                list.push(Taken { local, remote, is_over });
            }
        }
    }

    /// Ends an orphan in TIME-WAIT.
    pub fn end(&mut self, sockets: &mut SocketSet<'static>, over: Taken) {
        for slot in self.slots.iter_mut().filter(|slot| slot.role == Role::Orphan) {
            let socket = sockets.get_mut::<Socket<'_>>(slot.handle);
            let ends = (socket.local_endpoint(), socket.remote_endpoint());
            if socket.state() == State::TimeWait && ends == (Some(over.local), Some(over.remote)) {
                slot.free(socket);
            }
        }
    }

    /// Whether a listener has the port.
    pub fn is_listening_on(&self, port: u16) -> bool {
        self.listeners.iter().flatten().any(|listener| listener.endpoint.port == port)
    }

    /// Starts to listen, with this many connections in the backlog; `None` for too many listeners.
    ///
    /// `endpoint` has a port that no other listener has.
    pub fn listen(
        &mut self,
        sockets: &mut SocketSet<'static>,
        endpoint: IpListenEndpoint,
        is_ipv4_only: bool,
        backlog: usize,
    ) -> Option<ListenerId> {
        let id = ListenerId(self.listeners.iter().position(Option::is_none)?);
        let backlog = backlog.clamp(1, MAX_BACKLOG);
        let in_backlogs = |slot: &&Slot| matches!(slot.role, Role::Backlog(_));
        let in_backlogs = self.slots.iter().filter(in_backlogs).count();
        let wanted = MAX_CONNECTIONS + in_backlogs + backlog + 1;
        while self.slots.len() < wanted {
            self.slots.push(Slot::new(sockets));
        }
        for _ in 0..=backlog {
            let Some(free) = self.free_slot(sockets) else { break };
            let slot = &mut self.slots[free];
            slot.listen(sockets.get_mut(slot.handle), id, endpoint);
        }
        self.listeners[id.0] =
            Some(Listener { endpoint, is_ipv4_only, backlog, is_full: false, is_ready: false });
        Some(id)
    }

    /// A free slot, or that of the oldest orphan in TIME-WAIT.
    fn free_slot(&self, sockets: &SocketSet<'static>) -> Option<usize> {
        let free = self.oldest(sockets, Role::Free, |_| true);
        free.or_else(|| self.oldest(sockets, Role::Orphan, |state| state == State::TimeWait))
    }

    /// Whether [`Tcp::accept`] would have given a connection at the last poll.
    pub fn can_accept(&self, id: ListenerId) -> bool {
        self.listeners[id.0].is_some_and(|listener| listener.is_ready)
    }

    /// Takes the oldest established connection out of a backlog.
    ///
    /// The result is `None` without one, and while [`MAX_CONNECTIONS`] are in use.
    pub fn accept(
        &mut self,
        sockets: &mut SocketSet<'static>,
        id: ListenerId,
        now: Instant,
    ) -> Option<Connection> {
        let accepted = self.oldest(sockets, Role::Backlog(id), is_established)?;
        let free = self.free_slot(sockets)?;
        let endpoint = self.listeners[id.0]?.endpoint;
        self.slots[accepted].role = Role::Connection;
        let slot = &mut self.slots[free];
        slot.listen(sockets.get_mut(slot.handle), id, endpoint);
        self.make_room(sockets, id, now);
        Some(Connection(accepted))
    }

    /// The socket of a connection.
    pub fn socket<'a>(
        &self,
        sockets: &'a mut SocketSet<'static>,
        connection: Connection,
    ) -> &'a mut Socket<'static> {
        sockets.get_mut(self.slots[connection.0].handle)
    }

    /// Why the connection ended early; later calls give `None`.
    pub fn take_failure(&mut self, connection: Connection) -> Option<Failure> {
        self.slots[connection.0].failure.take()
    }

    /// Whether the connection ended early, and the application has not asked why.
    pub fn has_failed(&self, connection: Connection) -> bool {
        self.slots[connection.0].failure.is_some()
    }

    /// Whether the application wants no more data of the connection.
    pub fn is_read_shut(&self, connection: Connection) -> bool {
        self.slots[connection.0].is_read_shut
    }

    /// Drops all data that the connection receives from now on.
    pub fn shut_read(&mut self, sockets: &mut SocketSet<'static>, connection: Connection) {
        self.slots[connection.0].is_read_shut = true;
        discard(self.socket(sockets, connection));
    }

    /// Closes a connection; its FIN handshake goes on.
    pub fn close(
        &mut self,
        sockets: &mut SocketSet<'static>,
        connection: Connection,
        now: Instant,
    ) {
        let slot = &mut self.slots[connection.0];
        let socket = sockets.get_mut::<Socket<'_>>(slot.handle);
        socket.close();
        slot.orphan(socket, now);
    }

    /// Stops to listen; connections of the backlog are reset.
    pub fn close_listener(
        &mut self,
        sockets: &mut SocketSet<'static>,
        id: ListenerId,
        now: Instant,
    ) {
        self.listeners[id.0] = None;
        for slot in self.slots.iter_mut().filter(|slot| slot.role == Role::Backlog(id)) {
            let socket = sockets.get_mut::<Socket<'_>>(slot.handle);
            if socket.state() == State::Listen {
                slot.free(socket);
            } else {
                socket.abort();
                slot.orphan(socket, now);
            }
        }
    }

    /// The moment when an orphan without progress is reset, or a half-open connection may go.
    pub fn deadline(&self) -> Option<Instant> {
        let is_full = |id: ListenerId| self.listeners[id.0].is_some_and(|l| l.is_full);
        let deadlines = self.slots.iter().filter_map(|slot| match (slot.role, slot.state) {
            (Role::Orphan, state) if state != State::TimeWait => {
                Some(slot.progress + ORPHAN_TIMEOUT)
            }
            (Role::Backlog(id), State::SynReceived) if is_full(id) => Some(slot.progress + YOUNG),
            _ => None,
        });
        deadlines.min()
    }

    /// Number of sockets in the pool, and of those that are free.
    pub fn sizes(&self) -> (usize, usize) {
        let free = self.slots.iter().filter(|slot| slot.role == Role::Free).count();
        (self.slots.len(), free)
    }
}
