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
//! A connection that the application has closed is an *orphan*: its FIN handshake goes on. While no
//! other socket is free, orphans give their sockets to connections that wait for `accept`. Those in
//! TIME-WAIT go first. Others are reset: in FIN-WAIT-2 at once, else after
//! [`ORPHAN_GRACE`](super::limits::ORPHAN_GRACE).

use alloc::vec::Vec;
use core::mem;

use arrayvec::ArrayVec;
use smoltcp::iface::SocketSet;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant;
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};

use super::limits::{ORPHAN_TIMEOUT, TIMEOUT, YOUNG};
use super::slot::{Role, Slot, discard};

pub use super::limits::{MAX_BACKLOG, MAX_CONNECTIONS, MAX_LISTENERS};
pub use super::slot::{Failure, ListenerId};

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
    /// Whether a connection waits for `accept` that no other socket can replace.
    is_short: bool,
    /// Whether the application has changed what slots are used for, since the last [`Tcp::tend`].
    has_changed: bool,
}

fn is_established(state: State) -> bool {
    matches!(state, State::Established | State::CloseWait)
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

    /// Brings all sockets up to date, after `phase`; returns whether one has changed.
    pub fn tend(&mut self, sockets: &mut SocketSet<'static>, now: Instant, phase: Phase) -> bool {
        let mut has_changed = mem::take(&mut self.has_changed);
        let mut has_half_open = false;
        for slot in &mut self.slots {
            let socket = sockets.get_mut::<Socket<'_>>(slot.handle);
            let state = socket.state();
            let before = mem::replace(&mut slot.state, state);
            has_changed |= state != before;
            has_half_open |= state == State::SynReceived;
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
                    has_changed |= slot.role == Role::Free;
                }
            }
        }
        // Without a change, only time can make room.
        if has_changed || has_half_open || self.is_short {
            self.reclaim(sockets, now);
            for i in 0..MAX_LISTENERS {
                self.make_room(sockets, ListenerId(i), now);
            }
        }
        has_changed || has_half_open
    }

    /// Resets an orphan where a connection waits for its socket.
    fn reclaim(&mut self, sockets: &mut SocketSet<'static>, now: Instant) {
        let waits =
            |slot: &Slot| matches!(slot.role, Role::Backlog(_)) && is_established(slot.state);
        self.is_short = self.slots.iter().any(waits) && self.free_slot(sockets).is_none();
        if !self.is_short {
            return;
        }
        let ends = self.slots.iter().filter_map(|slot| Some((slot.grace_end()?, slot.handle)));
        if let Some((end, handle)) = ends.min_by_key(|(end, _)| *end)
            && end <= now
        {
            sockets.get_mut::<Socket<'_>>(handle).abort();
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

    /// Lists the connections that exist. The list takes the memory for all slots once.
    pub fn list_taken(&self, sockets: &SocketSet<'static>, list: &mut Vec<Taken>) {
        list.clear();
        list.reserve_exact(self.slots.len());
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
                self.has_changed = true;
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
        self.has_changed = true;
        Some(id)
    }

    /// A free slot, or that of the oldest orphan that has nothing to say but a reset.
    fn free_slot(&self, sockets: &SocketSet<'static>) -> Option<usize> {
        let free = self.oldest(sockets, Role::Free, |_| true);
        let is_over = |state| matches!(state, State::TimeWait | State::Closed);
        free.or_else(|| self.oldest(sockets, Role::Orphan, is_over))
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
        self.has_changed = true;
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
        self.has_changed = true;
    }

    /// Stops to listen; connections of the backlog are reset.
    pub fn close_listener(
        &mut self,
        sockets: &mut SocketSet<'static>,
        id: ListenerId,
        now: Instant,
    ) {
        self.listeners[id.0] = None;
        self.has_changed = true;
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

    /// The moment when an orphan is reset, or a half-open connection may go.
    pub fn deadline(&self) -> Option<Instant> {
        let is_full = |id: ListenerId| self.listeners[id.0].is_some_and(|l| l.is_full);
        let deadlines = self.slots.iter().filter_map(|slot| match (slot.role, slot.state) {
            (Role::Orphan, state) if state != State::TimeWait => {
                let timeout = slot.progress + ORPHAN_TIMEOUT;
                let grace_end = slot.grace_end().filter(|_| self.is_short);
                Some(grace_end.map_or(timeout, |end| timeout.min(end)))
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
