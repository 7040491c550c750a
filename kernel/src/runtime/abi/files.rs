//! File calls: the ABI's descriptors, flags and records for [`crate::runtime::fs`].

use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;

use hermit_abi::errno::{EFAULT, EINVAL, ENOENT, EROFS};
use hermit_abi::{
    O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NONBLOCK, O_RDWR, O_TRUNC, O_WRONLY, dirent64, stat,
};

use super::convert::{self, descriptor, errno, handle};
use super::{lent, sockets};
use crate::runtime::dev::block::Buffer;
use crate::runtime::fs::{self, files::FileError};

/// Opens a file or directory for reading.
///
/// `mode` is for new files, and is ignored. The errors:
///
/// - `EFAULT`: `name` is null.
/// - `ENOENT`: `name` is no UTF-8. Every name on a FAT volume is Unicode.
/// - `EINVAL`: the ABI does not have these flags.
/// - `EROFS`: the flags ask for anything but reading.
///
/// # Safety
/// `name` is null or a C string.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_open(name: *const c_char, flags: i32, _mode: i32) -> i32 {
    const WRITING: i32 = O_WRONLY | O_RDWR | O_CREAT | O_EXCL | O_TRUNC | O_APPEND;
    if name.is_null() {
        return -EFAULT;
    }
    // SAFETY: the caller promises a C string.
    let Ok(path) = unsafe { CStr::from_ptr(name) }.to_str() else { return -ENOENT };
    if flags & !(WRITING | O_DIRECTORY | O_NONBLOCK) != 0 {
        return -EINVAL;
    }
    if flags & WRITING != 0 {
        return -EROFS;
    }
    let opened = if flags & O_DIRECTORY != 0 { fs::open_directory(path) } else { fs::open(path) };
    opened.map_or_else(|error| -errno(error), descriptor)
}

/// Closes a file, a directory or a socket.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
pub extern "C" fn sys_close(fd: i32) -> i32 {
    if let Some(socket) = convert::socket_id(fd) {
        return sockets::close(socket);
    }
    let closed = handle(fd).and_then(|handle| fs::close(handle).map_err(errno));
    closed.map_or_else(|error| -error, |()| 0)
}

/// Reads the metadata of an open file.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
extern "C" fn sys_fstat(fd: i32, result: Option<&mut MaybeUninit<stat>>) -> i32 {
    let metadata = handle(fd).and_then(|handle| fs::metadata(handle).map_err(errno));
    match (metadata, result) {
        (Err(error), _) => -error,
        (Ok(_), None) => -EFAULT,
        (Ok(metadata), Some(result)) => {
            result.write(convert::status(metadata));
            0
        }
    }
}

/// Reads entries of a directory.
///
/// The result is `EINVAL` for more than `isize::MAX` bytes, and for too few bytes for one record.
///
/// # Safety
/// As for [`read`].
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
unsafe extern "C" fn sys_getdents64(fd: i32, entries: *mut dirent64, bytes: usize) -> i64 {
    // SAFETY: the caller upholds what `room` asks for.
    let room = match unsafe { lent::room(entries.cast(), bytes) } {
        Ok(room) => room,
        Err(error) => return i64::from(-error),
    };
    let (mut used, mut is_full) = (0, false);
    let listed = handle(fd).and_then(|handle| {
        let listed = fs::list(handle, &mut |entry, next| {
            let record = convert::directory_record(entry, next);
            is_full = record.len() > room.len() - used;
            if !is_full {
                room[used..used + record.len()].write_copy_of_slice(&record);
                used += record.len();
            }
            !is_full
        });
        listed.map_err(errno)
    });
    match listed {
        Err(error) => i64::from(-error),
        Ok(()) if is_full && used == 0 => i64::from(-EINVAL),
        Ok(()) => used as i64,
    }
}

/// Reads up to `len` bytes of a file to `buffer`.
///
/// The error is that of the ABI, or `None` if the disk has gone silent.
///
/// A silent disk may still write to the caller's memory, at any time. The caller can neither use
/// nor free that memory. Nobody can warn the caller's own caller, so the run must end there.
///
/// # Safety
/// Unless `buffer` is null:
///
/// 1. The `len` bytes from `buffer` on are valid for writes. The bytes need not be initialised.
/// 2. Nobody else reads or writes the bytes before the call returns. After the error `None`, nobody
///    does so ever again.
pub unsafe fn read(fd: i32, buffer: *mut u8, len: usize) -> Result<usize, Option<i32>> {
    let memory = lent::memory(buffer, len)?;
    // SAFETY: 1 and 2 are what `Buffer::new` asks for.
    let buffer = unsafe { Buffer::new(memory) };
    fs::read(handle(fd)?, buffer).map_err(|error| match error {
        FileError::Silent => None,
        error => Some(errno(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::dev::block::fake;
    use crate::runtime::fs::testing::{LAYOUTS, content, volume};
    use hermit_abi::{DT_DIR, DT_REG, EBADF, EISDIR, ENOTDIR};
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    /// Reads the name and type of each record, and the bytes that the records took.
    fn list(fd: i32, bytes: usize) -> Result<(Vec<(String, u8)>, usize), i64> {
        let mut records = vec![0_u64; bytes.div_ceil(8)];
        // SAFETY: the buffer is valid for writes of its length, and the call alone uses the buffer.
        let used = unsafe { sys_getdents64(fd, records.as_mut_ptr().cast(), bytes) };
        let used = usize::try_from(used).map_err(|_| used)?;
        let bytes: Vec<u8> = records.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let (mut names, mut at) = (Vec::new(), 0);
        while at < used {
            let record = &bytes[at..];
            let name = record[19..].split(|&byte| byte == 0).next().unwrap();
            names.push((String::from_utf8(name.to_vec()).unwrap(), record[18]));
            let length = usize::from(u16::from_ne_bytes([record[16], record[17]]));
            assert!(length.is_multiple_of(8) && length > 19 + name.len());
            at += length;
        }
        assert_eq!(at, used);
        Ok((names, used))
    }

    fn open(name: &CStr, flags: i32) -> i32 {
        // SAFETY: `name` is a C string.
        unsafe { sys_open(name.as_ptr(), flags, 0) }
    }

    /// The only test of the machine's table of open files.
    #[test]
    fn a_volume_is_served_through_the_abi() {
        let data = content(20_011, 1);
        let files = [("models/a.gguf", data.clone()), ("models/sub/x", vec![])];
        let image = volume(LAYOUTS[1], &files, usize::MAX);
        fs::mount(vec![fake::disk(image, 512, 4).0], None).unwrap();

        for flags in [O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_RDWR | O_CREAT | O_EXCL] {
            assert_eq!(open(c"/models/a.gguf", flags), -EROFS);
        }
        assert_eq!(open(c"/models/a.gguf", 1 << 30), -EINVAL);
        assert_eq!(open(c"/models/a.gguf", O_DIRECTORY), -ENOTDIR);
        assert_eq!(open(c"/nothing", 0), -ENOENT);
        assert_eq!(open(c"/\xFF", 0), -ENOENT);
        // SAFETY: a null pointer is refused.
        assert_eq!(unsafe { sys_open(core::ptr::null(), 0, 0) }, -EFAULT);

        let fd = open(c"/models/a.gguf", 0);
        assert_eq!(fd, 3);
        let mut read_back = vec![0; 20_012];
        let (start, len) = (read_back.as_mut_ptr(), read_back.len());
        // SAFETY: the buffer is valid for writes of its length, and not used meanwhile. The other
        // calls are refused.
        unsafe {
            assert_eq!(read(fd, start, len), Ok(20_011));
            assert_eq!(read(fd, core::ptr::null_mut(), 1), Err(Some(EFAULT)));
            assert_eq!(read(fd, start, usize::MAX), Err(Some(EINVAL)));
            assert_eq!(read(2, start, len), Err(Some(EBADF)));
        }
        assert!(read_back[..20_011] == data);
        let mut result = MaybeUninit::zeroed();
        assert_eq!(sys_fstat(fd, Some(&mut result)), 0);
        // SAFETY: the call has written the result. Zeros would be a valid result too.
        assert_eq!(unsafe { result.assume_init() }.st_size, 20_011);
        assert_eq!(sys_fstat(fd, None), -EFAULT);
        assert_eq!(list(fd, 4096), Err(i64::from(-ENOTDIR)));
        assert_eq!((sys_close(fd), sys_close(fd)), (0, -EBADF));
        assert_eq!(sys_fstat(fd, Some(&mut result)), -EBADF);

        let expected = [(".", DT_DIR), ("..", DT_DIR), ("sub", DT_DIR), ("a.gguf", DT_REG)];
        let expected = expected.map(|(name, kind)| (String::from(name), kind));
        let fd = open(c"/models", O_DIRECTORY);
        let (names, used) = list(fd, 4096).unwrap();
        assert_eq!(names, expected);
        assert_eq!(list(fd, 4096), Ok((vec![], 0)));
        // SAFETY: the buffer is valid for writes of its length, and not used meanwhile. The other
        // calls are refused.
        unsafe {
            assert_eq!(read(fd, start, len), Err(Some(EISDIR)));
            assert_eq!(sys_getdents64(fd, core::ptr::null_mut(), 100), i64::from(-EFAULT));
            assert_eq!(sys_getdents64(fd, start.cast(), usize::MAX), i64::from(-EINVAL));
        }
        assert_eq!(sys_close(fd), 0);
        // The whole file, in as many calls as needed.
        let fd = open(c"/models", 0);
        let (mut names, first) = list(fd, used - 1).unwrap();
        assert_eq!(names.len(), 3);
        assert_eq!(list(fd, 23), Err(i64::from(-EINVAL)));
        let (rest, second) = list(fd, used - 1).unwrap();
        names.extend(rest);
        assert_eq!((names, first + second), (expected.to_vec(), used));
        assert_eq!(sys_close(fd), 0);
    }
}
