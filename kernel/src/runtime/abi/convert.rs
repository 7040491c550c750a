//! Converts the types of the runtime to those of the ABI, and back.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hermit_abi::errno::{
    EAFNOSUPPORT, EBADF, EINVAL, EIO, EISDIR, EMFILE, ENODEV, ENOENT, ENOTDIR, ETIMEDOUT,
};
use hermit_abi::{
    AF_INET, AF_INET6, DT_DIR, DT_REG, S_IFBLK, S_IFDIR, S_IFREG, dirent64, sockaddr_in,
    sockaddr_in6, stat, timespec,
};

use crate::runtime::fs::files::{FileError, Handle, Kind, MAX_OPEN, Metadata};
use crate::runtime::fs::volume::Entry;
use crate::runtime::net::sockets::SocketId;

/// First descriptor of a file, after standard input, output and error.
const FIRST_FD: i32 = 3;
/// First descriptor of a socket, after all files.
const FIRST_SOCKET: i32 = FIRST_FD + MAX_OPEN as i32;

/// Size of the fixed part of a directory record, before the name, in bytes.
const DIRENT_HEADER_BYTES: usize = core::mem::offset_of!(dirent64, d_name);
/// Maximum length of a name in a directory record, in bytes, without the zero byte.
const LONGEST_NAME_BYTES: usize = 255;

const NS_PER_S: u64 = 1_000_000_000;

/// The error number of the ABI, positive.
pub fn errno(error: FileError) -> i32 {
    match error {
        FileError::NoVolume => ENODEV,
        FileError::NotFound => ENOENT,
        FileError::NotADirectory => ENOTDIR,
        FileError::IsADirectory => EISDIR,
        FileError::NotOpen => EBADF,
        FileError::TooManyOpen => EMFILE,
        FileError::Failed => EIO,
        FileError::Silent => ETIMEDOUT,
    }
}

/// The descriptor of an open file.
pub fn descriptor(handle: Handle) -> i32 {
    FIRST_FD + handle.0 as i32
}

/// Converts a descriptor to the handle of an open file.
///
/// # Errors
/// `EBADF` for a descriptor that no file has.
pub fn handle(fd: i32) -> Result<Handle, i32> {
    let number = fd.checked_sub(FIRST_FD).and_then(|number| usize::try_from(number).ok());
    number.map(Handle).ok_or(EBADF)
}

/// The descriptor of an open socket.
pub fn socket_descriptor(id: SocketId) -> i32 {
    FIRST_SOCKET + id.0 as i32
}

/// Converts a descriptor to the number of a socket; `None` for a descriptor that none can have.
pub fn socket_id(fd: i32) -> Option<SocketId> {
    fd.checked_sub(FIRST_SOCKET).and_then(|n| usize::try_from(n).ok()).map(SocketId)
}

/// Reads a socket address, which need not be aligned.
///
/// # Errors
/// `EINVAL` for too few bytes, `EAFNOSUPPORT` for a family other than IPv4 and IPv6.
pub fn address_from(bytes: &[u8]) -> Result<SocketAddr, i32> {
    // The layouts of both families start with length, family and port.
    let (&[_, family, port @ ..], rest) = bytes.split_first_chunk::<4>().ok_or(EINVAL)?;
    let ip = match i32::from(family) {
        AF_INET => IpAddr::V4(Ipv4Addr::from(*rest.first_chunk::<4>().ok_or(EINVAL)?)),
        AF_INET6 => {
            // The flow information comes first.
            let octets = rest.get(4..).and_then(<[u8]>::first_chunk::<16>).ok_or(EINVAL)?;
            IpAddr::V6(Ipv6Addr::from(*octets))
        }
        _ => return Err(EAFNOSUPPORT),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

/// Writes a socket address, cut to `room`; returns its whole size in bytes.
pub fn address_to(address: SocketAddr, room: &mut [MaybeUninit<u8>]) -> usize {
    let mut bytes = [0; size_of::<sockaddr_in6>()];
    let (family, size) = match address.ip() {
        IpAddr::V4(ip) => {
            bytes[4..8].copy_from_slice(&ip.octets());
            (AF_INET, size_of::<sockaddr_in>())
        }
        IpAddr::V6(ip) => {
            bytes[8..24].copy_from_slice(&ip.octets());
            (AF_INET6, size_of::<sockaddr_in6>())
        }
    };
    bytes[0] = size as u8;
    bytes[1] = family as u8;
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    let n = size.min(room.len());
    room[..n].write_copy_of_slice(&bytes[..n]);
    size
}

/// Converts the metadata of a file to the result of `fstat`.
pub fn status(metadata: Metadata) -> stat {
    let mode = match metadata.kind {
        Kind::File => S_IFREG | 0o444,
        Kind::Device => S_IFBLK | 0o444,
        Kind::Directory => S_IFDIR | 0o555,
    };
    let time = timespec { tv_sec: 0, tv_nsec: 0 };
    stat {
        st_nlink: 1,
        st_mode: mode,
        st_size: metadata.bytes as i64,
        st_blksize: metadata.block_bytes.into(),
        // The unit is 512 bytes, whatever the block size.
        st_blocks: metadata.bytes.div_ceil(512) as i64,
        st_atim: time,
        st_mtim: time,
        st_ctim: time,
        ..stat::default()
    }
}

/// Encodes a `dirent64`, cut after the end of the name and padded to its alignment.
///
/// `next` is the number of the entry after this one.
pub fn directory_record(entry: &Entry, next: u64) -> Vec<u8> {
    // A FAT name has at most 255 UTF-16 units. `d_name` has room for so many only if most are
    // ASCII.
    let mut end = entry.name.len().min(LONGEST_NAME_BYTES);
    while !entry.name.is_char_boundary(end) {
        end -= 1;
    }
    let name = &entry.name.as_bytes()[..end];
    let bytes = (DIRENT_HEADER_BYTES + name.len() + 1).next_multiple_of(align_of::<dirent64>());
    let mut record = Vec::with_capacity(bytes);
    // There is no inode number. The number 0 would mean a deleted entry.
    record.extend_from_slice(&1_u64.to_ne_bytes());
    record.extend_from_slice(&next.to_ne_bytes());
    record.extend_from_slice(&(bytes as u16).to_ne_bytes());
    record.push(if entry.is_dir { DT_DIR } else { DT_REG });
    record.extend_from_slice(name);
    record.resize(bytes, 0);
    record
}

/// Converts nanoseconds to a time.
pub fn time(ns: u64) -> timespec {
    timespec { tv_sec: (ns / NS_PER_S) as i64, tv_nsec: (ns % NS_PER_S) as i32 }
}

/// Converts `time` to µs, rounded up; `None` if `time` is negative or malformed.
pub fn microseconds(time: timespec) -> Option<u64> {
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let rest = u64::try_from(time.tv_nsec).ok().filter(|ns| *ns < NS_PER_S)?;
    Some(seconds.saturating_mul(NS_PER_S).saturating_add(rest).div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;

    #[test]
    fn names_are_whole_up_to_255_bytes_and_then_cut_at_a_character() {
        for (name, kept) in [
            ("a".repeat(252), 252),
            ("a".repeat(253), 253),
            ("a".repeat(254), 254),
            ("a".repeat(255), 255),
            ("ß".repeat(127), 254),
            ("ß".repeat(128), 254),
            ("a".to_owned() + &"ß".repeat(127), 255),
        ] {
            let expected = name[..kept].to_owned();
            let record = directory_record(&Entry { name, is_dir: false, bytes: 0 }, 1);
            assert!(record.len() <= size_of::<dirent64>());
            let end = record[19..].iter().position(|&byte| byte == 0).unwrap();
            assert_eq!(core::str::from_utf8(&record[19..19 + end]), Ok(&*expected));
        }
    }

    #[test]
    fn a_status_tells_files_directories_and_devices_apart() {
        let of = |kind, bytes| status(Metadata { kind, bytes, block_bytes: 2048 });
        let file = of(Kind::File, 10_007);
        assert_eq!((file.st_mode, file.st_size, file.st_blksize), (S_IFREG | 0o444, 10_007, 2048));
        assert_eq!(file.st_blocks, 20);
        let directory = of(Kind::Directory, 0);
        assert_eq!((directory.st_mode, directory.st_size), (S_IFDIR | 0o555, 0));
        assert_eq!(of(Kind::Device, 16 << 20).st_mode, S_IFBLK | 0o444);
    }

    #[test]
    fn descriptors_are_those_of_files_alone() {
        assert_eq!(descriptor(Handle(0)), 3);
        assert_eq!(handle(descriptor(Handle(31))), Ok(Handle(31)));
        for bad in [2, 0, -1, i32::MIN] {
            assert_eq!(handle(bad), Err(EBADF));
        }
    }

    #[test]
    fn no_file_has_the_descriptor_of_a_socket() {
        let last_file = descriptor(Handle(MAX_OPEN - 1));
        assert_eq!((socket_id(last_file), socket_id(2), socket_id(i32::MIN)), (None, None, None));
        assert_eq!(socket_descriptor(SocketId(0)), last_file + 1);
        assert_eq!(socket_id(socket_descriptor(SocketId(71))), Some(SocketId(71)));
    }

    #[test]
    fn times_are_rounded_up_and_must_make_sense() {
        let us = |tv_sec, tv_nsec| microseconds(timespec { tv_sec, tv_nsec });
        assert_eq!(us(3, 1), Some(3_000_001));
        assert_eq!(us(i64::MAX, 0), Some(u64::MAX.div_ceil(1000)));
        assert_eq!((us(-1, 0), us(0, -1), us(0, 1_000_000_000)), (None, None, None));
        let now = time(7_000_000_011);
        assert_eq!((now.tv_sec, now.tv_nsec), (7, 11));
    }
}
