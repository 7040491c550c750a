//! Sockets of the application: the calls of Berkeley sockets that a server needs.
//!
//! No call waits. A call that would have to gives [`SocketError::WouldBlock`]. Errors are typed
//! here; the ABI gives them numbers.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

use super::descriptors::{Kind, Open};
use super::stack::Stack;
use super::tcp::Connection;

pub use super::descriptors::{Family, MAX_SOCKETS, SocketError, SocketId};

/// What a socket is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// `accept` or `recv` would not wait.
    pub is_readable: bool,
    /// `send` would not wait.
    pub is_writable: bool,
    /// The peer sends no more.
    pub is_peer_done: bool,
    /// The connection has ended in both directions.
    pub is_hung_up: bool,
    /// The connection has failed.
    pub has_failed: bool,
}

/// Sides of a connection that are shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// No more is received.
    pub read: bool,
    /// No more is sent.
    pub write: bool,
}

/// Converts an endpoint of smoltcp for a socket of this family.
fn address_of(endpoint: IpEndpoint, family: Family) -> SocketAddr {
    let address = match (IpAddr::from(endpoint.addr), family) {
        (IpAddr::V4(address), Family::Ipv6) => address.to_ipv6_mapped().into(),
        (address, _) => address,
    };
    SocketAddr::new(address, endpoint.port)
}

impl Stack {
    /// Opens a socket for TCP.
    ///
    /// # Errors
    /// [`SocketError::TooManyOpen`].
    pub fn socket(
        &mut self,
        family: Family,
        is_nonblocking: bool,
    ) -> Result<SocketId, SocketError> {
        self.descriptors.insert(Open { kind: Kind::Unbound, family, is_nonblocking })
    }

    /// Whether calls of the socket never wait.
    ///
    /// # Errors
    /// [`SocketError::NotOpen`].
    pub fn is_nonblocking(&mut self, id: SocketId) -> Result<bool, SocketError> {
        Ok(self.descriptors.get(id)?.is_nonblocking)
    }

    /// Decides whether calls of the socket never wait.
    ///
    /// # Errors
    /// [`SocketError::NotOpen`].
    pub fn set_nonblocking(&mut self, id: SocketId, is: bool) -> Result<(), SocketError> {
        self.descriptors.get(id)?.is_nonblocking = is;
        Ok(())
    }

    /// Binds a socket to an address; port 0 is any free port.
    ///
    /// # Errors
    /// The socket is bound already, or the address is not of this machine or of another family.
    pub fn bind(&mut self, id: SocketId, address: SocketAddr) -> Result<(), SocketError> {
        let family = self.descriptors.get(id)?.family;
        let ip = address.ip().to_canonical();
        let is_any = ip.is_unspecified();
        if (family == Family::Ipv4) != address.is_ipv4() {
            return Err(SocketError::Invalid);
        }
        if !is_any && !self.addresses().iter().any(|own| IpAddr::from(own.address()) == ip) {
            return Err(SocketError::NoSuchAddress);
        }
        let port = if address.port() == 0 { self.any_port() } else { address.port() };
        let open = self.descriptors.get(id)?;
        let Kind::Unbound = open.kind else { return Err(SocketError::Invalid) };
        open.kind = Kind::Bound(IpListenEndpoint { addr: (!is_any).then(|| ip.into()), port });
        Ok(())
    }

    /// Lets a bound socket listen, with at most this many connections that wait for `accept`.
    ///
    /// # Errors
    /// The socket is not bound, or another one listens on the port, or too many sockets listen.
    pub fn listen(&mut self, id: SocketId, backlog: usize) -> Result<(), SocketError> {
        let Open { kind, family, .. } = *self.descriptors.get(id)?;
        let endpoint = match kind {
            Kind::Bound(endpoint) => endpoint,
            // The backlog stays as it is.
            Kind::Listener(..) => return Ok(()),
            _ => return Err(SocketError::Invalid),
        };
        if self.tcp.is_listening_on(endpoint.port) {
            return Err(SocketError::AddressInUse);
        }
        let is_ipv4_only = family == Family::Ipv4;
        let listener = self.tcp.listen(&mut self.sockets, endpoint, is_ipv4_only, backlog);
        let listener = listener.ok_or(SocketError::TooManyOpen)?;
        self.descriptors.get(id)?.kind = Kind::Listener(listener, endpoint);
        self.brief_filter();
        Ok(())
    }

    /// Takes the oldest connection of a listening socket, and its peer's address.
    ///
    /// # Errors
    /// There is none, or too many sockets are open, or the socket does not listen.
    pub fn accept(&mut self, id: SocketId) -> Result<(SocketId, SocketAddr), SocketError> {
        let Open { kind, family, .. } = *self.descriptors.get(id)?;
        let Kind::Listener(listener, _) = kind else { return Err(SocketError::Invalid) };
        if !self.descriptors.has_room() {
            return Err(SocketError::TooManyOpen);
        }
        let accepted = self.tcp.accept(&mut self.sockets, listener, self.now);
        let connection = accepted.ok_or(SocketError::WouldBlock)?;
        self.is_dirty = true;
        self.brief_filter();
        let kind = Kind::Connection(connection);
        let accepted = self.descriptors.insert(Open { kind, family, is_nonblocking: false })?;
        let unknown = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Ok((accepted, self.peer(accepted).unwrap_or(unknown)))
    }

    fn connection(&mut self, id: SocketId) -> Result<Connection, SocketError> {
        match self.descriptors.get(id)?.kind {
            Kind::Connection(connection) => Ok(connection),
            _ => Err(SocketError::NotConnected),
        }
    }

    /// Gives up to `most` received bytes to `take`, in one or two parts; returns their number.
    ///
    /// The result is 0 at the end of the peer's data, and for a `most` of 0.
    ///
    /// # Errors
    /// There is no data yet, or the connection has failed.
    pub fn recv(
        &mut self,
        id: SocketId,
        most: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Result<usize, SocketError> {
        let connection = self.connection(id)?;
        if most == 0 || self.tcp.is_read_shut(connection) {
            return Ok(0);
        }
        let socket = self.tcp.socket(&mut self.sockets, connection);
        let mut done = 0;
        // The buffer is a ring.
        while done < most && socket.can_recv() {
            let taken = socket.recv(|data| {
                let part = &data[..data.len().min(most - done)];
                take(part);
                (part.len(), part.len())
            });
            done += taken.unwrap_or(0);
        }
        let state = socket.state();
        if done > 0 {
            self.is_dirty = true;
            return Ok(done);
        }
        match self.tcp.take_failure(connection) {
            Some(failure) => Err(failure.into()),
            None if can_still_receive(state) => Err(SocketError::WouldBlock),
            None => Ok(0),
        }
    }

    /// Queues data for the peer; returns how many bytes had room.
    ///
    /// # Errors
    /// There is no room, or the connection has failed, or its sending side is closed.
    pub fn send(&mut self, id: SocketId, data: &[u8]) -> Result<usize, SocketError> {
        let connection = self.connection(id)?;
        if let Some(failure) = self.tcp.take_failure(connection) {
            return Err(failure.into());
        }
        let socket = self.tcp.socket(&mut self.sockets, connection);
        let sent = socket.send_slice(data).map_err(|_| SocketError::Closed)?;
        if sent == 0 && !data.is_empty() {
            return Err(SocketError::WouldBlock);
        }
        self.is_dirty = true;
        Ok(sent)
    }

    /// Ends one or both directions of a connection.
    ///
    /// # Errors
    /// The socket has no peer.
    pub fn shutdown(&mut self, id: SocketId, how: Shutdown) -> Result<(), SocketError> {
        let connection = self.connection(id)?;
        if how.read {
            self.tcp.shut_read(&mut self.sockets, connection);
        }
        if how.write {
            self.tcp.socket(&mut self.sockets, connection).close();
        }
        self.is_dirty = true;
        Ok(())
    }

    /// Closes a socket. The handshake that ends a connection goes on without the application.
    ///
    /// # Errors
    /// [`SocketError::NotOpen`].
    pub fn close(&mut self, id: SocketId) -> Result<(), SocketError> {
        match self.descriptors.get(id)?.kind {
            Kind::Unbound | Kind::Bound(_) => {}
            Kind::Listener(listener, _) => {
                self.tcp.close_listener(&mut self.sockets, listener, self.now);
                self.brief_filter();
            }
            Kind::Connection(connection) => {
                self.tcp.close(&mut self.sockets, connection, self.now);
            }
        }
        self.descriptors.remove(id);
        self.is_dirty = true;
        Ok(())
    }

    /// The address of the socket on this machine.
    ///
    /// # Errors
    /// [`SocketError::NotOpen`].
    pub fn local(&mut self, id: SocketId) -> Result<SocketAddr, SocketError> {
        let Open { kind, family, .. } = *self.descriptors.get(id)?;
        let any = match family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Ok(match kind {
            Kind::Unbound => SocketAddr::new(any, 0),
            Kind::Bound(endpoint) | Kind::Listener(_, endpoint) => match endpoint.addr {
                Some(address) => address_of(IpEndpoint::new(address, endpoint.port), family),
                None => SocketAddr::new(any, endpoint.port),
            },
            Kind::Connection(connection) => {
                let socket = self.tcp.socket(&mut self.sockets, connection);
                let local = socket.local_endpoint().map(|local| address_of(local, family));
                local.unwrap_or(SocketAddr::new(any, 0))
            }
        })
    }

    /// The address of the socket's peer.
    ///
    /// # Errors
    /// The socket has no peer, or none any more.
    pub fn peer(&mut self, id: SocketId) -> Result<SocketAddr, SocketError> {
        let (connection, family) = (self.connection(id)?, self.descriptors.get(id)?.family);
        let peer = self.tcp.socket(&mut self.sockets, connection).remote_endpoint();
        peer.map(|peer| address_of(peer, family)).ok_or(SocketError::NotConnected)
    }

    /// Decides whether small segments are sent at once, as they are by default.
    ///
    /// # Errors
    /// The socket has no peer.
    pub fn set_nodelay(&mut self, id: SocketId, is: bool) -> Result<(), SocketError> {
        let connection = self.connection(id)?;
        self.tcp.socket(&mut self.sockets, connection).set_nagle_enabled(!is);
        Ok(())
    }

    /// Whether small segments are sent at once.
    ///
    /// # Errors
    /// The socket has no peer.
    pub fn is_nodelay(&mut self, id: SocketId) -> Result<bool, SocketError> {
        let connection = self.connection(id)?;
        Ok(!self.tcp.socket(&mut self.sockets, connection).nagle_enabled())
    }

    /// Why the connection of a socket failed; later calls give `None`.
    ///
    /// # Errors
    /// [`SocketError::NotOpen`].
    pub fn take_error(&mut self, id: SocketId) -> Result<Option<SocketError>, SocketError> {
        Ok(match self.descriptors.get(id)?.kind {
            Kind::Connection(connection) => self.tcp.take_failure(connection).map(Into::into),
            _ => None,
        })
    }

    /// What the socket is ready for.
    ///
    /// # Errors
    /// [`SocketError::NotOpen`].
    pub fn readiness(&mut self, id: SocketId) -> Result<Readiness, SocketError> {
        let connection = match self.descriptors.get(id)?.kind {
            Kind::Unbound | Kind::Bound(_) => return Ok(Readiness::default()),
            Kind::Listener(listener, _) => {
                let is_readable = self.tcp.can_accept(listener);
                return Ok(Readiness { is_readable, ..Readiness::default() });
            }
            Kind::Connection(connection) => connection,
        };
        let is_read_shut = self.tcp.is_read_shut(connection);
        let has_failed = self.tcp.has_failed(connection);
        let socket = self.tcp.socket(&mut self.sockets, connection);
        let state = socket.state();
        let is_peer_done = !can_still_receive(state);
        Ok(Readiness {
            is_readable: is_read_shut || is_peer_done || socket.can_recv(),
            // A call on a closed side does not wait, but fails.
            is_writable: socket.can_send() || !socket.may_send(),
            is_peer_done,
            is_hung_up: matches!(state, State::Closed | State::TimeWait),
            has_failed,
        })
    }
}

/// Whether the peer of a connection in this state may send more.
fn can_still_receive(state: State) -> bool {
    matches!(state, State::Established | State::FinWait1 | State::FinWait2)
}
