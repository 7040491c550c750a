//! The open sockets of the application by their numbers.

use alloc::vec::Vec;

use smoltcp::wire::IpListenEndpoint;

use super::tcp::{Connection, Failure, ListenerId, MAX_CONNECTIONS, MAX_LISTENERS};

/// Maximum number of sockets: connections, listeners, and a few that are neither yet.
pub const MAX_SOCKETS: usize = MAX_CONNECTIONS + 2 * MAX_LISTENERS;

/// The number of a socket, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketId(pub usize);

/// The family of a socket's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 alone.
    Ipv4,
    /// IPv6, and IPv4 as mapped addresses.
    Ipv6,
}

/// Why a call of a socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketError {
    /// No socket has the number.
    NotOpen,
    /// [`MAX_SOCKETS`] are open already.
    TooManyOpen,
    /// The call would have to wait.
    WouldBlock,
    /// The socket is in no state for the call.
    Invalid,
    /// The socket has no peer.
    NotConnected,
    /// Another socket listens on the port.
    AddressInUse,
    /// The machine does not have the address.
    NoSuchAddress,
    /// The sending side is closed.
    Closed,
    /// The peer has reset the connection.
    Reset,
    /// The peer is gone.
    TimedOut,
}

impl From<Failure> for SocketError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reset => SocketError::Reset,
            Failure::TimedOut => SocketError::TimedOut,
        }
    }
}

/// The kind of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Unbound,
    Bound(IpListenEndpoint),
    Listener(ListenerId, IpListenEndpoint),
    Connection(Connection),
}

/// An open socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub kind: Kind,
    pub family: Family,
    pub is_nonblocking: bool,
}

/// The open sockets by their numbers.
#[derive(Debug)]
pub struct Descriptors(Vec<Option<Open>>);

impl Default for Descriptors {
    fn default() -> Self {
        Descriptors(Vec::with_capacity(MAX_SOCKETS))
    }
}

impl Descriptors {
    /// Adds a socket.
    ///
    /// # Errors
    /// [`SocketError::TooManyOpen`].
    pub(super) fn insert(&mut self, socket: Open) -> Result<SocketId, SocketError> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if free == MAX_SOCKETS {
            return Err(SocketError::TooManyOpen);
        }
        if free == self.0.len() {
            self.0.push(None);
        }
        self.0[free] = Some(socket);
        Ok(SocketId(free))
    }

    /// The socket of a number.
    ///
    /// # Errors
    /// [`SocketError::NotOpen`].
    pub(super) fn get(&mut self, id: SocketId) -> Result<&mut Open, SocketError> {
        self.0.get_mut(id.0).and_then(Option::as_mut).ok_or(SocketError::NotOpen)
    }

    /// Whether another socket may be added.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < MAX_SOCKETS || self.0.iter().any(Option::is_none)
    }

    /// Removes a socket.
    pub(super) fn remove(&mut self, id: SocketId) {
        if let Some(place) = self.0.get_mut(id.0) {
            *place = None;
        }
    }
}
