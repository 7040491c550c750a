//! The socket calls of the fake ABI: TCP of the host, on its loopback interface.
//!
//! All sockets of the host are non-blocking, as the application's are. Without a network in the
//! world there are no sockets.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem, slice, thread};

use hermit_abi as abi;

use super::world;

/// Descriptors of sockets, which no file has.
const FIRST: i32 = 1000;

enum Open {
    /// The port to listen on.
    Bound(u16),
    Listener {
        listener: TcpListener,
        /// A connection that a poll has accepted.
        ahead: Option<(TcpStream, SocketAddr)>,
    },
    Stream(TcpStream),
}

static SOCKETS: Mutex<BTreeMap<i32, Open>> = Mutex::new(BTreeMap::new());

fn sockets() -> MutexGuard<'static, BTreeMap<i32, Open>> {
    SOCKETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether no socket is open; all are closed afterwards.
pub fn are_closed() -> bool {
    mem::take(&mut *sockets()).is_empty()
}

/// Closes a socket, as `close` does for its descriptor.
pub fn close(fd: i32) -> i32 {
    sockets().remove(&fd).map_or(-abi::EBADF, |_| 0)
}

fn insert(open: Open) -> i32 {
    let mut sockets = sockets();
    let fd = (FIRST..).find(|fd| !sockets.contains_key(fd)).unwrap();
    sockets.insert(fd, open);
    fd
}

fn errno(error: &io::Error) -> i32 {
    match error.kind() {
        ErrorKind::WouldBlock => abi::EAGAIN,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => abi::ECONNRESET,
        ErrorKind::BrokenPipe => abi::EPIPE,
        ErrorKind::NotConnected => abi::ENOTCONN,
        ErrorKind::AddrInUse => abi::EADDRINUSE,
        ErrorKind::TimedOut => abi::ETIMEDOUT,
        _ => abi::EIO,
    }
}

/// Writes an address as IPv6, as a socket of `AF_INET6` has it.
fn give(address: SocketAddr, name: *mut abi::sockaddr, size: *mut abi::socklen_t) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let whole = abi::sockaddr_in6 {
        sin6_len: mem::size_of::<abi::sockaddr_in6>() as u8,
        sin6_family: abi::AF_INET6 as u8,
        sin6_port: address.port().to_be(),
        sin6_addr: abi::in6_addr { s6_addr: ip.octets() },
        ..abi::sockaddr_in6::default()
    };
    // SAFETY: the caller passes a place for an address of IPv6, and its size.
    unsafe {
        assert_eq!(*size as usize, mem::size_of_val(&whole));
        name.cast::<abi::sockaddr_in6>().write(whole);
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_socket(domain: i32, kind: i32, protocol: i32) -> i32 {
    assert_eq!((domain, protocol), (abi::AF_INET6, abi::IPPROTO_TCP));
    assert_eq!(kind, abi::SOCK_STREAM | abi::SOCK_NONBLOCK);
    if world().network.is_none() {
        return -abi::ENODEV;
    }
    insert(Open::Bound(0))
}

#[unsafe(no_mangle)]
extern "C" fn sys_bind(fd: i32, name: *const abi::sockaddr, size: abi::socklen_t) -> i32 {
    assert_eq!(size as usize, mem::size_of::<abi::sockaddr_in6>());
    // SAFETY: the caller passes an address of that size.
    let name = unsafe { name.cast::<abi::sockaddr_in6>().read() };
    let is_any = name.sin6_addr.s6_addr == [0; 16];
    assert!(is_any && i32::from(name.sin6_family) == abi::AF_INET6);
    sockets().insert(fd, Open::Bound(u16::from_be(name.sin6_port)));
    0
}

#[unsafe(no_mangle)]
extern "C" fn sys_listen(fd: i32, _backlog: i32) -> i32 {
    let mut sockets = sockets();
    let Some(Open::Bound(port)) = sockets.get(&fd) else { return -abi::EINVAL };
    // Tests are for the loopback interface alone.
    let listener = match TcpListener::bind(("127.0.0.1", *port)) {
        Ok(listener) => listener,
        Err(error) => return -errno(&error),
    };
    listener.set_nonblocking(true).unwrap();
    sockets.insert(fd, Open::Listener { listener, ahead: None });
    0
}

#[unsafe(no_mangle)]
extern "C" fn sys_accept(fd: i32, name: *mut abi::sockaddr, size: *mut abi::socklen_t) -> i32 {
    let accepted = match sockets().get_mut(&fd) {
        Some(Open::Listener { listener, ahead }) => {
            ahead.take().map_or_else(|| listener.accept(), Ok)
        }
        _ => return -abi::EINVAL,
    };
    match accepted {
        Ok((stream, peer)) => {
            give(peer, name, size);
            insert(Open::Stream(stream))
        }
        Err(error) => -errno(&error),
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_ioctl(fd: i32, command: i32, argument: *mut c_void) -> i32 {
    // SAFETY: the caller passes a number.
    assert_eq!((command, unsafe { argument.cast::<i32>().read() }), (abi::FIONBIO, 1));
    match sockets().get(&fd) {
        Some(Open::Stream(stream)) => {
            stream.set_nonblocking(true).unwrap();
            0
        }
        _ => -abi::EBADF,
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_setsockopt(
    fd: i32,
    level: i32,
    option: i32,
    _value: *const c_void,
    _size: abi::socklen_t,
) -> i32 {
    assert_eq!((level, option), (abi::IPPROTO_TCP, abi::TCP_NODELAY));
    match sockets().get(&fd) {
        Some(Open::Stream(stream)) => {
            // A peer that has reset the connection already leaves no socket to set.
            let _ = stream.set_nodelay(true);
            0
        }
        _ => -abi::EBADF,
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_getsockname(fd: i32, name: *mut abi::sockaddr, size: *mut abi::socklen_t) -> i32 {
    let local = match sockets().get(&fd) {
        Some(Open::Listener { listener, .. }) => listener.local_addr(),
        Some(Open::Stream(stream)) => stream.local_addr(),
        _ => return -abi::EBADF,
    };
    give(local.unwrap(), name, size);
    0
}

/// Does `work` on a connection.
fn on_stream(fd: i32, work: impl FnOnce(&mut TcpStream) -> io::Result<usize>) -> isize {
    match sockets().get_mut(&fd) {
        Some(Open::Stream(stream)) => match work(stream) {
            Ok(n) => n as isize,
            Err(error) => -errno(&error) as isize,
        },
        _ => -abi::ENOTCONN as isize,
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_recv(fd: i32, buf: *mut u8, len: usize, flags: i32) -> isize {
    assert_eq!(flags, 0);
    // SAFETY: the caller passes a buffer valid for writes of its length.
    let buf = unsafe { slice::from_raw_parts_mut(buf, len) };
    on_stream(fd, |stream| stream.read(buf))
}

#[unsafe(no_mangle)]
extern "C" fn sys_send(fd: i32, data: *const c_void, len: usize, flags: i32) -> isize {
    assert_eq!(flags, 0);
    // SAFETY: the caller passes a buffer valid for reads of its length.
    let bytes = unsafe { slice::from_raw_parts(data.cast::<u8>(), len) };
    if mem::take(&mut world().send_fails) {
        return -abi::ECONNRESET as isize;
    }
    on_stream(fd, |stream| stream.write(bytes))
}

#[unsafe(no_mangle)]
extern "C" fn sys_shutdown(fd: i32, how: i32) -> i32 {
    assert_eq!(how, abi::SHUT_WR);
    on_stream(fd, |stream| stream.shutdown(Shutdown::Write).map(|()| 0)) as i32
}

/// The host's own `poll`, for connections.
mod host {
    use std::os::fd::AsRawFd;

    use super::{Open, TcpStream};

    #[repr(C)]
    pub struct PollFd {
        fd: i32,
        pub events: i16,
        pub revents: i16,
    }

    unsafe extern "C" {
        fn poll(fds: *mut PollFd, n: usize, timeout: i32) -> i32;
    }

    pub const IN: i16 = 1;
    pub const OUT: i16 = 4;
    pub const ERR: i16 = 8;
    pub const HUP: i16 = 0x10;
    pub const RDHUP: i16 = 0x2000;

    /// The events of a connection that have come.
    pub fn events(stream: &TcpStream, events: i16) -> i16 {
        let mut entry = PollFd { fd: stream.as_raw_fd(), events, revents: 0 };
        // SAFETY: the call gets one entry that is valid for reads and writes, and does not wait.
        unsafe { poll(&raw mut entry, 1, 0) };
        entry.revents
    }

    /// Accepts ahead, and tells whether there is a connection to take.
    pub fn is_readable(open: &mut Open) -> bool {
        let Open::Listener { listener, ahead } = open else { return false };
        if ahead.is_none() {
            *ahead = listener.accept().ok();
        }
        ahead.is_some()
    }
}

/// What an entry of a poll is ready for.
fn look(entry: &abi::pollfd) -> i16 {
    if entry.fd == abi::STDIN_FILENO {
        let has_input = entry.events & abi::POLLIN != 0 && !world().input.is_empty();
        return if has_input { abi::POLLIN } else { 0 };
    }
    match sockets().get_mut(&entry.fd) {
        None => abi::POLLNVAL,
        Some(Open::Stream(stream)) => {
            let pairs = [
                (abi::POLLIN, host::IN),
                (abi::POLLOUT, host::OUT),
                (abi::POLLRDHUP, host::RDHUP),
                (abi::POLLHUP, host::HUP),
                (abi::POLLERR, host::ERR),
            ];
            let to = |events: i16, (from, to): (i16, i16)| if events & from != 0 { to } else { 0 };
            let wanted = pairs.iter().fold(0, |all, &pair| all | to(entry.events, pair));
            let come = host::events(stream, wanted);
            pairs.iter().fold(0, |all, &(ours, host)| all | to(come, (host, ours)))
        }
        Some(listener) => {
            let is_readable = entry.events & abi::POLLIN != 0 && host::is_readable(listener);
            if is_readable { abi::POLLIN } else { 0 }
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_poll(fds: *mut abi::pollfd, nfds: abi::nfds_t, timeout: i32) -> i32 {
    let mut none = [];
    let entries = match nfds {
        0 => &mut none[..],
        // SAFETY: the caller passes so many valid entries.
        n => unsafe { slice::from_raw_parts_mut(fds, n) },
    };
    let timeout = u64::try_from(timeout).ok().map(Duration::from_millis);
    let start = Instant::now();
    loop {
        for entry in &mut *entries {
            entry.revents = look(entry);
        }
        let ready = entries.iter().filter(|entry| entry.revents != 0).count();
        if ready > 0 || timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            return ready as i32;
        }
        thread::sleep(Duration::from_micros(200));
    }
}
