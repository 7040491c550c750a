//! Socket calls: the ABI's descriptors, addresses and flags for [`crate::runtime::net`].
//!
//! The calls are those of a server over TCP. Each call polls the stack first. A blocking call, and
//! [`sys_poll`], sleep until a frame comes or the stack has work.
//!
//! Without a network, [`sys_socket`] gives `ENODEV`, and no other call has a descriptor to work on.

use core::ffi::c_void;
use core::net::SocketAddr;

use hermit_abi::errno::{
    EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBADF, ECONNRESET, EINVAL, EMFILE, ENODEV,
    ENOTCONN, EPIPE, EPROTONOSUPPORT, ETIMEDOUT,
};
use hermit_abi::{
    AF_INET, AF_INET6, F_GETFL, F_SETFL, FIONBIO, IPPROTO_IP, IPPROTO_TCP, O_NONBLOCK, O_RDWR,
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRNORM, SHUT_RD,
    SHUT_RDWR, SHUT_WR, SO_ERROR, SO_KEEPALIVE, SO_REUSEADDR, SOCK_CLOEXEC, SOCK_NONBLOCK,
    SOCK_STREAM, SOL_SOCKET, STDIN_FILENO, TCP_NODELAY, nfds_t, pollfd, sockaddr, socklen_t,
};

use super::convert::{address_from, address_to, socket_descriptor, socket_id};
use super::lent;
#[cfg(target_os = "none")]
use crate::runtime::arch::time::now_us;
#[cfg(target_os = "none")]
use crate::runtime::io::input;
use crate::runtime::net;
use crate::runtime::net::sockets::{Family, Readiness, Shutdown, SocketError, SocketId};
use crate::runtime::net::stack::Stack;
#[cfg(not(target_os = "none"))]
use crate::runtime::net::testing::{input, now_us};

/// The error number of the ABI, positive.
fn errno(error: SocketError) -> i32 {
    match error {
        SocketError::NotOpen => EBADF,
        SocketError::TooManyOpen => EMFILE,
        SocketError::WouldBlock => EAGAIN,
        SocketError::Invalid => EINVAL,
        SocketError::NotConnected => ENOTCONN,
        SocketError::AddressInUse => EADDRINUSE,
        SocketError::NoSuchAddress => EADDRNOTAVAIL,
        SocketError::Closed => EPIPE,
        SocketError::Reset => ECONNRESET,
        SocketError::TimedOut => ETIMEDOUT,
    }
}

/// Does `work` on a socket.
///
/// # Errors
/// `EBADF` for a descriptor that no socket has. Else the error of `work`.
fn on_socket<R>(
    fd: i32,
    work: impl FnOnce(&mut Stack, SocketId) -> Result<R, SocketError>,
) -> Result<R, i32> {
    let id = socket_id(fd).ok_or(EBADF)?;
    let result = net::with_stack(now_us(), |stack| work(stack, id)).ok_or(EBADF)?;
    result.map_err(errno)
}

/// Does `work` on a socket, again and again while `work` would have to wait and the socket blocks.
///
/// # Errors
/// As for [`on_socket`].
fn until_done<R>(
    fd: i32,
    mut work: impl FnMut(&mut Stack, SocketId) -> Result<R, SocketError>,
) -> Result<R, i32> {
    loop {
        let (result, never_waits) =
            on_socket(fd, |stack, id| Ok((work(stack, id), stack.is_nonblocking(id)?)))?;
        match result {
            Err(SocketError::WouldBlock) if !never_waits => net::wait(None, &|| false),
            result => return result.map_err(errno),
        }
    }
}

/// The result code of a call that returns nothing else.
fn code(result: Result<(), i32>) -> i32 {
    result.map_or_else(|error| -error, |()| 0)
}

/// The result of a call that returns a number of bytes.
fn count(result: Result<usize, i32>) -> isize {
    result.map_or_else(|error| -error as isize, |n| n as isize)
}

/// Writes a socket address where a caller wants it; null pointers want none.
///
/// # Errors
/// `EINVAL` and `EFAULT` for memory that makes no sense.
///
/// # Safety
/// 1. `size` is null or valid for reads and writes, and initialised.
/// 2. Unless a pointer is null, the `*size` bytes from `name` on are valid for writes.
/// 3. Nobody else uses that memory before the call returns.
unsafe fn give_address(
    address: SocketAddr,
    name: *mut sockaddr,
    size: *mut socklen_t,
) -> Result<(), i32> {
    if name.is_null() || size.is_null() {
        return Ok(());
    }
    // SAFETY: 1 and 3 are what `values` asks for.
    let size = unsafe { lent::values(size, 1) }?;
    // SAFETY: 2 and 3 are what `room` asks for.
    let room = unsafe { lent::room(name.cast(), size[0] as usize) }?;
    size[0] = address_to(address, room) as socklen_t;
    Ok(())
}

/// Opens a socket for TCP.
///
/// The errors:
///
/// - `ENODEV`: there is no network, or it has not started.
/// - `EAFNOSUPPORT`: the family is neither `AF_INET` nor `AF_INET6`.
/// - `EPROTONOSUPPORT`: the type is not `SOCK_STREAM`, or the protocol is not TCP.
/// - `EMFILE`: too many sockets are open.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
extern "C" fn sys_socket(domain: i32, kind: i32, protocol: i32) -> i32 {
    let family = match domain {
        AF_INET => Family::Ipv4,
        AF_INET6 => Family::Ipv6,
        _ => return -EAFNOSUPPORT,
    };
    let is_tcp = matches!(protocol, IPPROTO_IP | IPPROTO_TCP);
    if kind & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != SOCK_STREAM || !is_tcp {
        return -EPROTONOSUPPORT;
    }
    let never_waits = kind & SOCK_NONBLOCK != 0;
    match net::with_stack(now_us(), |stack| stack.socket(family, never_waits)) {
        None => -ENODEV,
        Some(Err(error)) => -errno(error),
        Some(Ok(id)) => socket_descriptor(id),
    }
}

/// Binds a socket to an address; port 0 is any free port.
///
/// # Safety
/// `name` is null, or its `size` bytes are valid for reads and initialised.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_bind(fd: i32, name: *const sockaddr, size: socklen_t) -> i32 {
    // SAFETY: the caller vouches for the memory, which nobody writes to.
    let address = unsafe { lent::bytes(name.cast(), size as usize) }.and_then(address_from);
    code(address.and_then(|address| on_socket(fd, |stack, id| stack.bind(id, address))))
}

/// Lets a bound socket listen.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
extern "C" fn sys_listen(fd: i32, backlog: i32) -> i32 {
    let backlog = usize::try_from(backlog).unwrap_or(0);
    code(on_socket(fd, |stack, id| stack.listen(id, backlog)))
}

/// Accepts a connection; the peer's address goes to `name`.
///
/// # Safety
/// As for [`sys_getsockname`].
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_accept(fd: i32, name: *mut sockaddr, size: *mut socklen_t) -> i32 {
    let (id, peer) = match until_done(fd, Stack::accept) {
        Ok(accepted) => accepted,
        Err(error) => return -error,
    };
    let descriptor = socket_descriptor(id);
    // SAFETY: upheld by the caller.
    match unsafe { give_address(peer, name, size) } {
        Ok(()) => descriptor,
        Err(error) => {
            close(id);
            -error
        }
    }
}

/// Receives up to `len` bytes of a connection; 0 at the end of the peer's data.
///
/// The result is `EINVAL` for `flags` other than 0.
///
/// # Safety
/// As for [`recv`].
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_recv(fd: i32, buf: *mut u8, len: usize, flags: i32) -> isize {
    // SAFETY: upheld by the caller.
    if flags == 0 { unsafe { recv(fd, buf, len) } } else { -EINVAL as isize }
}

/// Receives up to `len` bytes of a connection.
///
/// # Safety
/// Unless `buf` is null:
///
/// 1. The `len` bytes from `buf` on are valid for writes. The bytes need not be initialised.
/// 2. Nobody else reads or writes the bytes before the call returns.
pub unsafe fn recv(fd: i32, buf: *mut u8, len: usize) -> isize {
    // SAFETY: 1 and 2 are what `room` asks for.
    let room = unsafe { lent::room(buf, len) };
    count(room.and_then(|room| {
        until_done(fd, |stack, id| {
            let mut done = 0;
            stack.recv(id, room.len(), |part| {
                room[done..done + part.len()].write_copy_of_slice(part);
                done += part.len();
            })
        })
    }))
}

/// Sends up to `len` bytes on a connection; returns how many had room.
///
/// The result is `EINVAL` for `flags` other than 0.
///
/// # Safety
/// As for [`send`].
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_send(fd: i32, mem: *const c_void, len: usize, flags: i32) -> isize {
    // SAFETY: upheld by the caller.
    if flags == 0 { unsafe { send(fd, mem.cast(), len) } } else { -EINVAL as isize }
}

/// Sends up to `len` bytes on a connection.
///
/// # Safety
/// Unless `buf` is null:
///
/// 1. The `len` bytes from `buf` on are valid for reads, and initialised.
/// 2. Nobody writes to the bytes before the call returns.
pub unsafe fn send(fd: i32, buf: *const u8, len: usize) -> isize {
    // SAFETY: 1 and 2 are what `bytes` asks for.
    let bytes = unsafe { lent::bytes(buf, len) };
    count(bytes.and_then(|bytes| until_done(fd, |stack, id| stack.send(id, bytes))))
}

/// Ends one or both directions of a connection.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
extern "C" fn sys_shutdown(fd: i32, how: i32) -> i32 {
    let how = match how {
        SHUT_RD => Shutdown { read: true, write: false },
        SHUT_WR => Shutdown { read: false, write: true },
        SHUT_RDWR => Shutdown { read: true, write: true },
        _ => return -EINVAL,
    };
    code(on_socket(fd, |stack, id| stack.shutdown(id, how)))
}

/// The older name of [`sys_shutdown`].
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
extern "C" fn sys_shutdown_socket(fd: i32, how: i32) -> i32 {
    sys_shutdown(fd, how)
}

/// Closes a socket; the end of its connection is the stack's affair.
pub fn close(id: SocketId) -> i32 {
    let closed = net::with_stack(now_us(), |stack| stack.close(id));
    code(closed.unwrap_or(Err(SocketError::NotOpen)).map_err(errno))
}

/// Writes the address of a socket on this machine to `name`.
///
/// # Safety
/// 1. `size` is null or valid for reads and writes, and initialised.
/// 2. Unless a pointer is null, the `*size` bytes from `name` on are valid for writes.
/// 3. Nobody else uses that memory before the call returns.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_getsockname(fd: i32, name: *mut sockaddr, size: *mut socklen_t) -> i32 {
    // SAFETY: 1, 2 and 3 are what `give_address` asks for.
    code(on_socket(fd, Stack::local).and_then(|local| unsafe { give_address(local, name, size) }))
}

/// Writes the address of a socket's peer to `name`.
///
/// # Safety
/// As for [`sys_getsockname`].
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_getpeername(fd: i32, name: *mut sockaddr, size: *mut socklen_t) -> i32 {
    // SAFETY: upheld by the caller.
    code(on_socket(fd, Stack::peer).and_then(|peer| unsafe { give_address(peer, name, size) }))
}

/// Sets an option of a socket: `TCP_NODELAY`.
///
/// `SO_REUSEADDR` and `SO_KEEPALIVE` change nothing: a port is free at once, and each connection is
/// kept alive. The result is `EINVAL` for any other option.
///
/// # Safety
/// `value` is null, or its `size` bytes are valid for reads and initialised.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_setsockopt(
    fd: i32,
    level: i32,
    option: i32,
    value: *const c_void,
    size: socklen_t,
) -> i32 {
    // SAFETY: the caller vouches for the memory, which nobody writes to.
    let value = match unsafe { lent::bytes(value.cast(), size as usize) } {
        Ok(bytes) => bytes.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes)),
        Err(error) => return -error,
    };
    match (level, option, value) {
        (IPPROTO_TCP, TCP_NODELAY, Some(value)) => {
            code(on_socket(fd, |stack, id| stack.set_nodelay(id, value != 0)))
        }
        (SOL_SOCKET, SO_REUSEADDR | SO_KEEPALIVE, Some(_)) => {
            code(on_socket(fd, |stack, id| stack.is_nonblocking(id).map(drop)))
        }
        _ => -EINVAL,
    }
}

/// Reads an option of a socket: `SO_ERROR`, which reading clears, or `TCP_NODELAY`.
///
/// The result is `EINVAL` for any other option.
///
/// # Safety
/// 1. `size` is null or valid for reads and writes, and initialised.
/// 2. `value` is null, or its `*size` bytes are valid for writes.
/// 3. Nobody else uses that memory before the call returns.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_getsockopt(
    fd: i32,
    level: i32,
    option: i32,
    value: *mut c_void,
    size: *mut socklen_t,
) -> i32 {
    // SAFETY: 1 and 3 are what `values` asks for.
    let size = match unsafe { lent::values(size, 1) } {
        Ok(size) => size,
        Err(error) => return -error,
    };
    // SAFETY: 2 and 3 are what `room` asks for.
    let room = match unsafe { lent::room(value.cast(), size[0] as usize) } {
        Ok(room) => room,
        Err(error) => return -error,
    };
    let answer = match (level, option) {
        (SOL_SOCKET, SO_ERROR) => {
            on_socket(fd, Stack::take_error).map(|error| error.map_or(0, errno))
        }
        (IPPROTO_TCP, TCP_NODELAY) => on_socket(fd, Stack::is_nodelay).map(i32::from),
        _ => Err(EINVAL),
    };
    code(answer.and_then(|answer| {
        let answer = answer.to_ne_bytes();
        let place = room.get_mut(..answer.len()).ok_or(EINVAL)?;
        place.write_copy_of_slice(&answer);
        size[0] = answer.len() as socklen_t;
        Ok(())
    }))
}

/// Decides whether calls of a socket wait (`FIONBIO`); `EINVAL` for any other command.
///
/// # Safety
/// `argument` is null or valid for reads of an `i32`, and initialised.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_ioctl(fd: i32, command: i32, argument: *mut c_void) -> i32 {
    if command != FIONBIO {
        return -EINVAL;
    }
    // SAFETY: the caller vouches for the memory, which nobody writes to.
    let argument = match unsafe { lent::bytes(argument.cast(), size_of::<i32>()) } {
        Ok(bytes) => bytes.iter().any(|&byte| byte != 0),
        Err(error) => return -error,
    };
    code(on_socket(fd, |stack, id| stack.set_nonblocking(id, argument)))
}

/// Reads or sets the flags of a socket, of which there is `O_NONBLOCK`.
///
/// The result is `EINVAL` for commands other than `F_GETFL` and `F_SETFL`.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
extern "C" fn sys_fcntl(fd: i32, command: i32, argument: i32) -> i32 {
    match command {
        F_GETFL => match on_socket(fd, Stack::is_nonblocking) {
            Ok(never_waits) => O_RDWR | if never_waits { O_NONBLOCK } else { 0 },
            Err(error) => -error,
        },
        F_SETFL => {
            let never_waits = argument & O_NONBLOCK != 0;
            code(on_socket(fd, |stack, id| stack.set_nonblocking(id, never_waits)))
        }
        _ => -EINVAL,
    }
}

/// Waits until an entry is ready; returns the number of ready entries.
///
/// The entries are sockets and the console's input. `timeout` is in ms; 0 means no wait, a negative
/// timeout means none. An entry with a negative descriptor is never ready. An entry with any other
/// descriptor gets `POLLNVAL`.
///
/// # Safety
/// `fds` is null or valid for reads and writes of `nfds` entries.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_poll(fds: *mut pollfd, nfds: nfds_t, timeout: i32) -> i32 {
    // SAFETY: the caller upholds what `values` asks for.
    let entries = match unsafe { lent::values(fds, nfds) } {
        Ok(entries) => entries,
        // A wait for nothing but the timeout needs no memory.
        Err(_) if nfds == 0 => &mut [],
        Err(error) => return -error,
    };
    let timeout = u64::try_from(timeout).ok();
    let deadline = timeout.map(|ms| now_us().saturating_add(ms * 1000));
    loop {
        let ready = look(entries);
        if ready > 0 || deadline.is_some_and(|deadline| now_us() >= deadline) {
            return ready;
        }
        let has_console = entries.iter().any(wants_input);
        sleep(deadline, has_console);
    }
}

fn wants_input(entry: &pollfd) -> bool {
    entry.fd == STDIN_FILENO && entry.events & POLLIN != 0
}

/// Sleeps until an entry may be ready.
fn sleep(deadline: Option<u64>, has_console: bool) {
    let period = if has_console { input::enable_wake() } else { None };
    let look_again = period.map(|us| now_us().saturating_add(us));
    let end = deadline.into_iter().chain(look_again).min();
    net::wait(end, &|| has_console && input::is_ready());
    if has_console {
        input::disable_wake();
    }
}

/// Fills in what each entry is ready for; returns the number of ready entries.
fn look(entries: &mut [pollfd]) -> i32 {
    for entry in &mut *entries {
        entry.revents = match entry.fd {
            fd if fd < 0 => 0,
            STDIN_FILENO if wants_input(entry) && input::is_ready() => POLLIN,
            STDIN_FILENO => 0,
            _ => POLLNVAL,
        };
    }
    // Without a network no descriptor is a socket's.
    let _ = net::with_stack(now_us(), |stack| {
        for entry in &mut *entries {
            let readiness = socket_id(entry.fd).map(|id| stack.readiness(id));
            if let Some(Ok(readiness)) = readiness {
                entry.revents = events(readiness, entry.events);
            }
        }
    });
    entries.iter().filter(|entry| entry.revents != 0).count() as i32
}

/// The events of a socket; `POLLERR` and `POLLHUP` need no wish.
fn events(readiness: Readiness, wanted: i16) -> i16 {
    let asked = [
        (readiness.is_readable, POLLIN | POLLRDNORM),
        (readiness.is_writable, POLLOUT | POLLWRNORM),
        (readiness.is_peer_done, POLLRDHUP),
    ];
    let mut events = 0;
    for (holds, event) in asked {
        events |= if holds { event & wanted } else { 0 };
    }
    events |= if readiness.is_hung_up { POLLHUP } else { 0 };
    events | if readiness.has_failed { POLLERR } else { 0 }
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;
