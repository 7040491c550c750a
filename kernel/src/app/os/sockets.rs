//! Sockets: listeners and connections over TCP, and the wait for them.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hermit_abi as abi;

use super::{Errno, checked, close};

/// A TCP socket: a listener or a connection. No call waits; a call that would gives `EAGAIN`.
#[derive(Debug)]
pub struct Socket(i32);

/// Listens on a port, for IPv4 and IPv6; port 0 is any free one.
///
/// At most `backlog` connections wait for [`Socket::accept`].
///
/// # Errors
/// Those of the ABI's `socket`, `bind` and `listen`. `ENODEV` without a network.
pub fn listen(port: u16, backlog: usize) -> Result<Socket, Errno> {
    let kind = abi::SOCK_STREAM | abi::SOCK_NONBLOCK;
    // SAFETY: the call has no preconditions.
    let fd = unsafe { abi::socket(abi::AF_INET6, kind, abi::IPPROTO_TCP) };
    let socket = checked(fd as isize).map(|_| Socket(fd))?;
    let any = abi::sockaddr_in6 {
        sin6_len: size_of::<abi::sockaddr_in6>() as u8,
        sin6_family: abi::AF_INET6 as abi::sa_family_t,
        sin6_port: port.to_be(),
        ..abi::sockaddr_in6::default()
    };
    let size = size_of_val(&any) as abi::socklen_t;
    // SAFETY: `any` is an address of that size.
    checked(unsafe { abi::bind(fd, (&raw const any).cast(), size) } as isize)?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: the call has no preconditions.
    checked(unsafe { abi::listen(fd, backlog) } as isize)?;
    Ok(socket)
}

/// Converts an address of IPv4 or IPv6; IPv4 that is mapped into IPv6 becomes IPv4 again.
fn address(from: &abi::sockaddr_in6) -> SocketAddr {
    let port = u16::from_be(from.sin6_port);
    if i32::from(from.sin6_family) == abi::AF_INET6 {
        return SocketAddr::new(Ipv6Addr::from(from.sin6_addr.s6_addr).to_canonical(), port);
    }
    // The address of `sockaddr_in` lies where that of `sockaddr_in6` has the flow information.
    let ip = Ipv4Addr::from(from.sin6_flowinfo.to_ne_bytes());
    SocketAddr::new(IpAddr::V4(ip), port)
}

impl Socket {
    /// Takes the oldest connection that waits, and its peer's address.
    ///
    /// # Errors
    /// Those of the ABI's `accept`; `EAGAIN` if none waits.
    pub fn accept(&self) -> Result<(Socket, SocketAddr), Errno> {
        let mut peer = abi::sockaddr_in6::default();
        let mut size = size_of_val(&peer) as abi::socklen_t;
        // SAFETY: `peer` is valid for writes of `size` bytes.
        let fd = unsafe { abi::accept(self.0, (&raw mut peer).cast(), &raw mut size) };
        let socket = checked(fd as isize).map(|_| Socket(fd))?;
        let mut on = 1_i32;
        // SAFETY: `on` is valid for reads of an `i32`.
        checked(unsafe { abi::ioctl(fd, abi::FIONBIO, (&raw mut on).cast()) } as isize)?;
        let size = size_of_val(&on) as abi::socklen_t;
        let value = (&raw const on).cast();
        // SAFETY: `on` is valid for reads of `size` bytes.
        let set = unsafe { abi::setsockopt(fd, abi::IPPROTO_TCP, abi::TCP_NODELAY, value, size) };
        checked(set as isize)?;
        Ok((socket, address(&peer)))
    }

    /// The socket's own address.
    ///
    /// # Errors
    /// Those of the ABI's `getsockname`.
    #[cfg(test)]
    pub fn local(&self) -> Result<SocketAddr, Errno> {
        let mut local = abi::sockaddr_in6::default();
        let mut size = size_of_val(&local) as abi::socklen_t;
        // SAFETY: `local` is valid for writes of `size` bytes.
        let result = unsafe { abi::getsockname(self.0, (&raw mut local).cast(), &raw mut size) };
        checked(result as isize).map(|_| address(&local))
    }

    /// Takes received data; 0 means that the peer sends no more.
    ///
    /// # Errors
    /// Those of the ABI's `recv`; `EAGAIN` if there is no data yet.
    pub fn recv(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: `buf` is valid for writes of its length.
        checked(unsafe { abi::recv(self.0, buf.as_mut_ptr(), buf.len(), 0) })
    }

    /// Queues data for the peer; returns how many bytes had room.
    ///
    /// # Errors
    /// Those of the ABI's `send`; `EAGAIN` if there is no room.
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        // SAFETY: `bytes` is valid for reads of its length.
        checked(unsafe { abi::send(self.0, bytes.as_ptr().cast(), bytes.len(), 0) })
    }

    /// Tells the peer that no more data comes. Data can still be received.
    ///
    /// # Errors
    /// Those of the ABI's `shutdown`.
    pub fn shutdown_write(&self) -> Result<(), Errno> {
        // SAFETY: the call has no preconditions.
        checked(unsafe { abi::shutdown(self.0, abi::SHUT_WR) } as isize).map(drop)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// What [`PollSet::wait`] waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// A connection to accept, data, or the end of the peer's data.
    pub read: bool,
    /// Room for data to send.
    pub write: bool,
}

/// What an entry of a [`PollSet`] is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read gives something, or the end.
    pub read: bool,
    /// There is room for data to send.
    pub write: bool,
    /// The peer sends no more; known only to an entry that has an interest in reads.
    pub peer_done: bool,
    /// The connection has ended in both directions, or has failed.
    pub gone: bool,
}

/// The sockets, and perhaps the console, that a thread waits for.
///
/// A set keeps its memory when it is cleared.
#[derive(Debug)]
pub struct PollSet(Vec<abi::pollfd>);

impl PollSet {
    /// An empty set with memory for `n` entries.
    pub fn with_capacity(n: usize) -> PollSet {
        PollSet(Vec::with_capacity(n))
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a socket; returns the number of its entry.
    pub fn add(&mut self, socket: &Socket, interest: Interest) -> usize {
        let read = if interest.read { abi::POLLIN | abi::POLLRDHUP } else { 0 };
        let write = if interest.write { abi::POLLOUT } else { 0 };
        self.push(socket.0, read | write)
    }

    /// Adds the console's input; returns the number of its entry.
    pub fn add_console(&mut self) -> usize {
        self.push(abi::STDIN_FILENO, abi::POLLIN)
    }

    fn push(&mut self, fd: i32, events: i16) -> usize {
        self.0.push(abi::pollfd { fd, events, revents: 0 });
        self.0.len() - 1
    }

    /// Waits until an entry is ready, but at most `timeout_ms` ms; `None`: for ever.
    ///
    /// The result is the number of ready entries.
    ///
    /// # Errors
    /// Those of the ABI's `poll`.
    pub fn wait(&mut self, timeout_ms: Option<u32>) -> Result<usize, Errno> {
        let timeout = timeout_ms.map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX));
        let (start, n) = (self.0.as_mut_ptr(), self.0.len());
        // SAFETY: the `n` entries from `start` on are valid for reads and writes.
        checked(unsafe { abi::poll(start, n, timeout) } as isize)
    }

    /// What an entry is ready for, as [`PollSet::wait`] has found.
    pub fn readiness(&self, entry: usize) -> Readiness {
        let events = self.0.get(entry).map_or(0, |entry| entry.revents);
        let has = |event| events & event != 0;
        Readiness {
            read: has(abi::POLLIN),
            write: has(abi::POLLOUT),
            peer_done: has(abi::POLLRDHUP),
            gone: has(abi::POLLHUP | abi::POLLERR | abi::POLLNVAL),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
