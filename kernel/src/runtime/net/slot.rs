//! A socket of the pool: smoltcp's socket, what it is used for, and since when.

use alloc::vec;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::IpListenEndpoint;

use super::limits::{
    HALF_OPEN_TIMEOUT, KEEP_ALIVE, ORPHAN_GRACE, ORPHAN_TIMEOUT, RECEIVE_BYTES, TRANSMIT_BYTES,
};

/// Why a connection ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer has reset the connection.
    Reset,
    /// The peer has not answered in time, or the machine has lost its address.
    TimedOut,
}

/// The number of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(pub(super) usize);

/// What a socket of the pool is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
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
pub struct Slot {
    /// The socket.
    pub handle: SocketHandle,
    /// What the slot is used for.
    pub role: Role,
    /// The state when the slot was last tended.
    pub state: State,
    /// Serial number of the entry into the present phase; the oldest slot has the smallest.
    pub since: u64,
    /// Why the connection ended early, until the application has asked.
    pub failure: Option<Failure>,
    /// Whether the application wants no more data.
    pub is_read_shut: bool,
    /// Bytes that an orphan had left to send.
    left: usize,
    /// When an orphan last made progress, or when a connection became half-open.
    pub progress: Instant,
    /// When an orphan became one.
    orphaned: Instant,
}

/// Forgets a connection without a word to the peer.
fn clear(socket: &mut Socket<'_>) {
    socket.abort();
    // A socket that starts to listen forgets its connection; one that is aborted sends a reset.
    let _ = socket.listen(1);
    socket.close();
}

/// Takes all data that a socket has received.
pub fn discard(socket: &mut Socket<'_>) {
    while socket.can_recv() && socket.recv(|data| (data.len(), ())).is_ok() {}
}

impl Slot {
    /// A socket that nobody uses.
    pub fn new(sockets: &mut SocketSet<'static>) -> Slot {
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
            orphaned: Instant::ZERO,
        }
    }

    /// Forgets the connection.
    pub fn free(&mut self, socket: &mut Socket<'_>) {
        clear(socket);
        self.role = Role::Free;
        self.state = State::Closed;
    }

    /// Lets the socket listen, as part of a backlog.
    pub fn listen(&mut self, socket: &mut Socket<'_>, id: ListenerId, endpoint: IpListenEndpoint) {
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

    /// Makes the connection an orphan.
    pub fn orphan(&mut self, socket: &mut Socket<'_>, now: Instant) {
        discard(socket);
        self.role = Role::Orphan;
        self.left = socket.send_queue();
        self.progress = now;
        self.orphaned = now;
    }

    /// Tends an orphan; returns whether it has entered TIME-WAIT.
    pub fn tend_orphan(&mut self, socket: &mut Socket<'_>, before: State, now: Instant) -> bool {
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

    /// When an orphan's socket may be taken for a connection that waits for one.
    ///
    /// The peer of an orphan in FIN-WAIT-2 has all data. Others have some time to take the rest.
    pub fn grace_end(&self) -> Option<Instant> {
        match (self.role, self.state) {
            (Role::Orphan, State::FinWait2) => Some(self.orphaned),
            (Role::Orphan, State::TimeWait | State::Closed) => None,
            (Role::Orphan, _) => Some(self.orphaned + ORPHAN_GRACE),
            _ => None,
        }
    }
}
