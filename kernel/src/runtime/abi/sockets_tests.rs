use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ptr;
use std::string::String;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::vec::Vec;

use hermit_abi::errno::EFAULT;
use hermit_abi::{AF_VSOCK, SOCK_DGRAM, STDOUT_FILENO, sockaddr_in, sockaddr_in6};
use smoltcp::socket::tcp::State;

use super::*;
use crate::runtime::net::testing::{Faults, MAC, PORT, Peer, fixed, micros, server, wire};
use crate::system::NetworkError;

fn bytes_of(address: SocketAddr) -> Vec<u8> {
    let mut room = [MaybeUninit::new(0xee); 40];
    let size = address_to(address, &mut room);
    // SAFETY: all of it was initialised above.
    room[..size].iter().map(|byte| unsafe { byte.assume_init() }).collect()
}

#[test]
fn addresses_have_the_layout_of_the_abi() {
    let v4: SocketAddr = "10.0.2.15:8080".parse().unwrap();
    let v6: SocketAddr = "[fd00::15]:443".parse().unwrap();
    let bytes = [bytes_of(v4), bytes_of(v6)];
    // SAFETY: the bytes are a whole address, and any bits are one.
    let first = unsafe { bytes[0].as_ptr().cast::<sockaddr_in>().read_unaligned() };
    assert_eq!((first.sin_len, i32::from(first.sin_family)), (16, AF_INET));
    assert_eq!(first.sin_port.to_ne_bytes(), [0x1f, 0x90]);
    assert_eq!(first.sin_addr.s_addr.to_ne_bytes(), [10, 0, 2, 15]);
    // SAFETY: as above.
    let second = unsafe { bytes[1].as_ptr().cast::<sockaddr_in6>().read_unaligned() };
    assert_eq!((second.sin6_len, i32::from(second.sin6_family)), (28, AF_INET6));
    assert_eq!(second.sin6_port, 443_u16.to_be());
    assert_eq!(IpAddr::from(second.sin6_addr.s6_addr), v6.ip());
    for address in [v4, v6] {
        let bytes = bytes_of(address);
        assert_eq!(address_from(&bytes), Ok(address));
        for n in 0..8 {
            assert_eq!(address_from(&bytes[..n]), Err(EINVAL), "{n}");
        }
    }
    assert_eq!(address_from(&bytes_of(v6)[..23]), Err(EINVAL));
    assert_eq!(address_from(&[28, AF_VSOCK as u8, 0, 80, 1, 2, 3, 4]), Err(EAFNOSUPPORT));
    // A place that is too small gets a part; the result is the whole size.
    let mut room = [MaybeUninit::new(0xee); 5];
    assert_eq!(address_to(v4, &mut room[..3]), 16);
    // SAFETY: all of it was initialised above.
    assert_eq!(unsafe { room[3].assume_init() }, 0xee);
}

fn poll_one(fd: i32, events: i16, timeout: i32) -> (i32, i16) {
    let mut entry = pollfd { fd, events, revents: -1 };
    // SAFETY: there is one entry.
    let ready = unsafe { sys_poll(&raw mut entry, 1, timeout) };
    (ready, entry.revents)
}

fn text_of(fd: i32) -> Result<String, i32> {
    let mut room = [0; 4000];
    // SAFETY: the room is valid for writes of its length.
    let n = unsafe { sys_recv(fd, room.as_mut_ptr(), room.len(), 0) };
    let n = usize::try_from(n).map_err(|_| -n as i32)?;
    Ok(String::from_utf8(room[..n].to_vec()).unwrap())
}

fn send_text(fd: i32, text: &str) -> isize {
    // SAFETY: the text is valid for reads of its length.
    unsafe { sys_send(fd, text.as_ptr().cast(), text.len(), 0) }
}

fn bind_and_listen(fd: i32, address: &str) -> i32 {
    let address = bytes_of(address.parse().unwrap());
    // SAFETY: the bytes are valid for reads.
    let bound = unsafe { sys_bind(fd, address.as_ptr().cast(), address.len() as u32) };
    if bound == 0 { sys_listen(fd, 4) } else { bound }
}

fn option(fd: i32, level: i32, option: i32) -> Result<i32, i32> {
    let (mut value, mut size) = (-7_i32, 4);
    // SAFETY: the value and its size are valid for reads and writes.
    let result =
        unsafe { sys_getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut size) };
    if result == 0 { Ok(value) } else { Err(-result) }
}

fn name_of(
    fd: i32,
    call: unsafe extern "C" fn(i32, *mut sockaddr, *mut socklen_t) -> i32,
) -> Result<(i32, SocketAddr), i32> {
    let (mut room, mut size) = ([0_u8; 28], 28);
    // SAFETY: the room has the size.
    let result = unsafe { call(fd, room.as_mut_ptr().cast(), &raw mut size) };
    if result < 0 { Err(-result) } else { Ok((result, address_from(&room).unwrap())) }
}

/// The only test of the machine's network. A client on another thread plays the network.
#[test]
fn a_client_is_served_through_the_abi() {
    assert_eq!(sys_socket(AF_INET, SOCK_STREAM, 0), -ENODEV);
    assert_eq!(net::configure(&fixed(), now_us()), Err(NetworkError::NoCard));
    assert_eq!(poll_one(1000, POLLIN, 0), (1, POLLNVAL));
    let (end, peer) = wire(Faults::default(), 1);
    net::attach(end, 7);
    assert_eq!(sys_socket(AF_INET, SOCK_STREAM, 0), -ENODEV);
    net::configure(&fixed(), now_us()).unwrap();
    assert_eq!(net::configure(&fixed(), now_us()), Err(NetworkError::Started));
    let network = net::network().unwrap();
    assert_eq!((network.mac, network.mtu, network.addresses), (MAC, 1500, fixed().addresses));

    assert_eq!(sys_socket(AF_VSOCK, SOCK_STREAM, 0), -EAFNOSUPPORT);
    assert_eq!(sys_socket(AF_INET, SOCK_DGRAM, 0), -EPROTONOSUPPORT);
    assert_eq!(sys_socket(AF_INET, SOCK_STREAM, 17), -EPROTONOSUPPORT);
    let listener = sys_socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP);
    assert_eq!(listener, 35, "the descriptor after the last file");
    assert_eq!(sys_listen(listener, 4), -EINVAL);
    // SAFETY: a null pointer is refused.
    assert_eq!(unsafe { sys_bind(listener, ptr::null(), 16) }, -EFAULT);
    assert_eq!(bind_and_listen(listener, "[fd00::16]:8080"), -EADDRNOTAVAIL);
    assert_eq!(bind_and_listen(listener, "[::]:8080"), 0);
    let second = sys_socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_eq!(bind_and_listen(second, "[::]:8080"), -EADDRINUSE);
    assert_eq!(crate::runtime::abi::files::sys_close(second), 0);
    assert_eq!(text_of(listener), Err(ENOTCONN));
    assert_eq!(text_of(second), Err(EBADF));
    assert_eq!(poll_one(listener, POLLIN | POLLOUT, 0), (0, 0));
    let start = now_us();
    assert_eq!(poll_one(listener, POLLIN, 30), (0, 0));
    assert!(now_us() >= start + 30_000);
    assert_eq!(poll_one(-1, POLLIN, 0), (0, 0));
    assert_eq!(poll_one(STDOUT_FILENO, POLLIN, 0), (1, POLLNVAL));

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = Peer::new(peer, &["10.0.2.2/24", "fd00::2/64"], 3);
            thread::sleep(std::time::Duration::from_millis(30));
            let (first, second) = (peer.connect(server()), peer.connect(server()));
            let mut answer = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                peer.poll(now_us());
                let socket = peer.socket(first);
                if socket.can_recv() {
                    socket.recv(|part| (part.len(), answer.extend_from_slice(part))).unwrap();
                }
                match &answer[..] {
                    b"hello" => {
                        socket.send_slice(b"good day").unwrap();
                        answer.clear();
                    }
                    b"thanks" => socket.close(),
                    _ => {}
                }
                let socket = peer.socket(second);
                if socket.state() == State::Established && socket.recv_queue() == 4 {
                    socket.abort();
                }
                let _ = peer.interface.poll_at(micros(now_us()), &peer.sockets);
                thread::sleep(std::time::Duration::from_micros(100));
            }
        });
        // `accept` waits.
        let (first, peer) = name_of(listener, sys_accept).unwrap();
        assert_eq!(peer.ip().to_canonical(), fixed().gateways[0]);
        assert_eq!(poll_one(listener, POLLIN, 10_000), (1, POLLIN));
        assert_eq!(sys_fcntl(listener, F_SETFL, O_NONBLOCK), 0);
        let (second, other) = name_of(listener, sys_accept).unwrap();
        // SAFETY: null pointers ask for nothing.
        assert_eq!(unsafe { sys_accept(listener, ptr::null_mut(), ptr::null_mut()) }, -EAGAIN);
        let (first, second) =
            if peer.port() < other.port() { (first, second) } else { (second, first) };

        assert_eq!(name_of(first, sys_getsockname).unwrap().1.port(), PORT);
        assert_eq!(name_of(listener, sys_getpeername), Err(ENOTCONN));
        assert_eq!(sys_fcntl(first, F_GETFL, 0), O_RDWR);
        assert_eq!(option(first, IPPROTO_TCP, TCP_NODELAY), Ok(1));
        assert_eq!(option(first, SOL_SOCKET, SO_REUSEADDR), Err(EINVAL));
        let off = 0_i32;
        let value = (&raw const off).cast();
        // SAFETY: the value is valid for reads.
        unsafe {
            assert_eq!(sys_setsockopt(first, IPPROTO_TCP, TCP_NODELAY, value, 4), 0);
            assert_eq!(sys_setsockopt(first, SOL_SOCKET, SO_REUSEADDR, value, 4), 0);
            assert_eq!(sys_setsockopt(first, SOL_SOCKET, SO_ERROR, value, 4), -EINVAL);
            assert_eq!(sys_setsockopt(first, IPPROTO_TCP, TCP_NODELAY, value, 3), -EINVAL);
        }
        assert_eq!(option(first, IPPROTO_TCP, TCP_NODELAY), Ok(0));

        assert_eq!(poll_one(first, POLLIN | POLLOUT, 0), (1, POLLOUT));
        assert_eq!(send_text(first, "hello"), 5);
        // `recv` waits.
        assert_eq!(text_of(first).unwrap(), "good day");
        let mut on = 1_i32;
        // SAFETY: the argument is a number.
        unsafe {
            assert_eq!(sys_ioctl(first, FIONBIO, (&raw mut on).cast()), 0);
            assert_eq!(sys_ioctl(first, 7, (&raw mut on).cast()), -EINVAL);
        }
        assert_eq!(sys_fcntl(first, F_GETFL, 0), O_RDWR | O_NONBLOCK);
        assert_eq!(text_of(first), Err(EAGAIN));
        assert_eq!(send_text(first, "thanks"), 6);
        assert_eq!(poll_one(first, POLLIN | POLLRDHUP, 10_000), (1, POLLIN | POLLRDHUP));
        assert_eq!(text_of(first).unwrap(), "");
        assert_eq!((sys_shutdown(first, 7), sys_shutdown_socket(first, SHUT_WR)), (-EINVAL, 0));
        assert_eq!(send_text(first, "x"), -EPIPE as isize);

        assert_eq!(send_text(second, "four"), 4);
        let (ready, events) = poll_one(second, POLLIN, 10_000);
        assert_eq!((ready, events), (1, POLLIN | POLLHUP | POLLERR));
        assert_eq!(option(second, SOL_SOCKET, SO_ERROR), Ok(ECONNRESET));
        assert_eq!(option(second, SOL_SOCKET, SO_ERROR), Ok(0));
        assert_eq!(text_of(second).unwrap(), "");
        for fd in [first, second, listener] {
            assert_eq!(crate::runtime::abi::files::sys_close(fd), 0);
            assert_eq!(crate::runtime::abi::files::sys_close(fd), -EBADF);
        }
        is_over.store(true, Ordering::SeqCst);
    });
}
