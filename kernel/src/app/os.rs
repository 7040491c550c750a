//! Safe wrappers of the Hermit ABI: the application's only way to the machine.
//!
//! Declarations and error numbers are those of `hermit-abi` 0.5. [`crate::system`] contains what
//! that ABI has no call for.

mod sockets;

use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;
use core::mem::offset_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU32;

use hermit_abi as abi;

use crate::llm::arena::Pages;
use crate::system::{self, DiskFailure, Memory, Network, NetworkConfig, NetworkError};

pub use sockets::{Interest, PollSet, Socket, listen};

/// An error number of the ABI, positive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Whether a call that never waits had nothing to do yet.
    pub fn would_block(self) -> bool {
        self.0 == abi::EAGAIN
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            abi::ENOENT => "no such file",
            abi::EIO => "input/output error",
            abi::EAGAIN => "not now",
            abi::ENODEV => "no such device",
            abi::ENOTDIR => "not a directory",
            abi::EISDIR => "is a directory",
            abi::EINVAL => "invalid argument",
            abi::ETIMEDOUT => "timed out",
            abi::EMFILE => "too many open files",
            abi::EPIPE => "the sending side is closed",
            abi::EADDRINUSE => "the port is in use",
            abi::ECONNRESET => "the peer has reset the connection",
            number => return write!(f, "error {number}"),
        };
        f.write_str(name)
    }
}

/// Converts a call's result: a count, or a negative error number.
fn checked(returned: isize) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| Errno(returned.unsigned_abs() as i32))
}

fn clock(clock: abi::clockid_t) -> abi::timespec {
    let mut time = abi::timespec::default();
    // SAFETY: `time` is a valid place for the answer.
    unsafe { abi::clock_gettime(clock, &raw mut time) };
    time
}

/// The time since some fixed moment in µs, which never goes back.
pub fn now_us() -> u64 {
    let time = clock(abi::CLOCK_MONOTONIC);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// The date in seconds since 1970, UTC; the time since the start if no clock knows the date.
pub fn date() -> u64 {
    clock(abi::CLOCK_REALTIME).tv_sec as u64
}

/// Number of cores that threads can run on.
pub fn cores() -> usize {
    // SAFETY: the call has no preconditions.
    unsafe { abi::available_parallelism() }
}

/// Bits that differ from run to run, good enough to seed a sampler.
///
/// The bits are random where the machine has random bits. Otherwise the bits are the time.
pub fn entropy() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: `bytes` is valid for writes of its length.
    let n = unsafe { abi::read_entropy(bytes.as_mut_ptr(), bytes.len(), 0) };
    if checked(n) == Ok(bytes.len()) { u64::from_ne_bytes(bytes) } else { now_us() }
}

/// Writes all of `bytes` to the console.
pub fn write_console(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: `bytes` is valid for reads of its length.
        let n = unsafe { abi::write(abi::STDOUT_FILENO, bytes.as_ptr(), bytes.len()) };
        match checked(n) {
            Ok(n) if n > 0 => bytes = &bytes[n..],
            // There is no other place to report that the console does not work.
            _ => return,
        }
    }
}

/// Waits for input on the console; returns how many bytes of `buf` were filled.
///
/// The result is 0 at the end of the input.
///
/// # Errors
/// Those of the ABI's `read`.
pub fn read_console(buf: &mut [u8]) -> Result<usize, Errno> {
    read(abi::STDIN_FILENO, buf)
}

/// Reads up to `buf.len()` bytes of a descriptor.
fn read(fd: i32, buf: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: `buf` is valid for writes of its length.
    checked(unsafe { abi::read(fd, buf.as_mut_ptr(), buf.len()) })
}

/// Whether the console has input, so that [`read_console`] would not wait.
pub fn console_has_input() -> bool {
    let mut console = abi::pollfd { fd: abi::STDIN_FILENO, events: abi::POLLIN, revents: 0 };
    // SAFETY: `console` is the one entry, valid for reads and writes.
    unsafe { abi::poll(&raw mut console, 1, 0) };
    console.revents & abi::POLLIN != 0
}

/// A file that is open for reading.
pub struct File(i32);

impl File {
    /// Opens the file or directory at this absolute path.
    ///
    /// # Errors
    /// Those of the ABI's `open`; `EINVAL` for a path that holds a NUL.
    pub fn open(path: &str) -> Result<File, Errno> {
        let path = CString::new(path).map_err(|_| Errno(abi::EINVAL))?;
        // SAFETY: `path` is a C string that outlives the call.
        let fd = unsafe { abi::open(path.as_ptr(), abi::O_RDONLY, 0) };
        checked(fd as isize).map(|_| File(fd))
    }

    /// Size of the file in bytes.
    ///
    /// # Errors
    /// Those of the ABI's `fstat`.
    pub fn size(&self) -> Result<u64, Errno> {
        let mut stat = abi::stat::default();
        // SAFETY: `stat` is a valid place for the answer.
        checked(unsafe { abi::fstat(self.0, &raw mut stat) } as isize)?;
        Ok(stat.st_size as u64)
    }

    /// Reads up to `buf.len()` bytes from the current position; 0 means the end.
    ///
    /// # Errors
    /// Those of the ABI's `read`.
    pub fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        read(self.0, buf)
    }

    /// Fills `buf` from the current position.
    ///
    /// # Errors
    /// Those of the ABI's `read`. `EIO` if the file ends earlier than its size says.
    pub fn read_full(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < buf.len() {
            match self.read(&mut buf[done..])? {
                0 => return Err(Errno(abi::EIO)),
                n => done += n,
            }
        }
        Ok(done)
    }

    /// Reads the rest of the file, at most `limit` bytes.
    ///
    /// # Errors
    /// Those of the ABI's `read`. `EFBIG` if the rest is longer.
    pub fn read_all(&self, limit: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        let mut buf = [0; 512];
        loop {
            let n = self.read(&mut buf)?;
            if n == 0 {
                return Ok(bytes);
            }
            if bytes.len() + n > limit {
                return Err(Errno(abi::EFBIG));
            }
            bytes.extend_from_slice(&buf[..n]);
        }
    }

    /// Reads the names of the files in this directory, in the disk's order.
    ///
    /// # Errors
    /// Those of the ABI's `getdents64`.
    pub fn entries(&self) -> Result<Vec<String>, Errno> {
        const NAME: usize = offset_of!(abi::dirent64, d_name);
        #[repr(align(8))]
        struct Aligned([u8; 2048]);

        let mut names = Vec::new();
        let mut buf = Aligned([0; 2048]);
        loop {
            // SAFETY: the buffer is aligned for the entries and valid for writes of its length.
            let n = unsafe { abi::getdents64(self.0, buf.0.as_mut_ptr().cast(), buf.0.len()) };
            let n = checked(n as isize)?;
            if n == 0 {
                return Ok(names);
            }
            let mut rest = &buf.0[..n];
            while rest.len() > NAME {
                let length = offset_of!(abi::dirent64, d_reclen);
                let length = usize::from(u16::from_ne_bytes([rest[length], rest[length + 1]]));
                let (entry, after) = rest.split_at_checked(length).ok_or(Errno(abi::EIO))?;
                let name = entry.get(NAME..).ok_or(Errno(abi::EIO))?;
                let name = CStr::from_bytes_until_nul(name).map_err(|_| Errno(abi::EIO))?;
                if let Ok(name) = name.to_str()
                    && !matches!(name, "." | "..")
                {
                    names.push(name.into());
                }
                rest = after;
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// Closes a descriptor, which has one owner and is not used afterwards.
fn close(fd: i32) {
    // SAFETY: the call has no preconditions.
    unsafe { abi::close(fd) };
}

/// Starts the network.
///
/// # Errors
/// See [`NetworkError`].
pub fn configure_network(config: &NetworkConfig) -> Result<(), NetworkError> {
    system::get().ok_or(NetworkError::NoCard)?.configure_network(config)
}

/// The network card and its present addresses; `None` before the network has started.
///
/// Addresses appear and change while the network is polled: by [`PollSet::wait`], for example.
pub fn network() -> Option<Network> {
    system::get().and_then(|system| system.network())
}

/// Memory that can be made read-only.
pub static PAGES: &dyn Pages = &MappedPages;

/// The pages that the ABI maps.
#[derive(Debug)]
struct MappedPages;

// SAFETY: `mmap` gives whole pages of memory, which start on a multiple of 4096. The pages belong
// to the caller alone until `munmap`. `mprotect` does not change the contents of the pages.
unsafe impl Pages for MappedPages {
    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        let mut start = ptr::null_mut();
        // SAFETY: `start` is a valid place for the answer.
        let result = unsafe { abi::mmap(bytes, abi::PROT_READ | abi::PROT_WRITE, &mut start) };
        checked(result as isize).ok().and_then(|_| NonNull::new(start))
    }

    /// Logs a failure: memory that cannot be protected still works.
    unsafe fn protect(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: upheld by the caller.
        match checked(unsafe { abi::mprotect(start.as_ptr(), bytes, abi::PROT_READ) } as isize) {
            Ok(_) => log::info!("{bytes} bytes of memory are read-only"),
            Err(errno) => log::warn!("memory cannot be made read-only: {errno}"),
        }
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: upheld by the caller.
        if let Err(errno) = checked(unsafe { abi::munmap(start.as_ptr(), bytes) } as isize) {
            log::warn!("memory cannot be given back: {errno}");
        }
    }
}

fn memory() -> Memory {
    system::get().map(|system| system.memory()).unwrap_or_default()
}

/// Free memory of the machine in bytes; 0 without a system.
pub fn memory_available() -> u64 {
    memory().free_bytes
}

/// Memory of the machine in use, in bytes, whatever uses the memory.
pub fn memory_in_use() -> u64 {
    let Memory { total_bytes, free_bytes } = memory();
    total_bytes.saturating_sub(free_bytes)
}

/// The board's present readings, `NAME=VALUE` each; none without a system.
pub fn board() -> Vec<String> {
    system::get().map(|system| system.board()).unwrap_or_default()
}

/// The last failure of the disk, if there was one.
pub fn disk_failure() -> Option<DiskFailure> {
    system::get().and_then(|system| system.disk_failure())
}

/// The message of the disk's last failure; empty if there was none.
pub fn disk_error() -> String {
    disk_failure().map(|failure| failure.message).unwrap_or_default()
}

/// Starts a thread on a core; the thread runs `entry(argument)`.
///
/// # Errors
/// Those of the ABI's `spawn`: above all, there is no such core, or the core is busy.
pub fn spawn(core: usize, entry: extern "C" fn(usize), argument: usize) -> Result<(), Errno> {
    let mut id: abi::Tid = 0;
    let priority = abi::NORMAL_PRIO.into();
    // SAFETY: `id` is a valid place for the answer, and `entry` may be called with any argument.
    let returned = unsafe { abi::spawn(&raw mut id, entry, argument, priority, core as isize) };
    checked(returned as isize).map(drop)
}

/// The number of the calling thread, which is unique and not 0.
pub fn thread() -> u32 {
    // SAFETY: the call has no preconditions.
    unsafe { abi::getpid() }.cast_unsigned()
}

/// Sleeps while `word` is `expected`, until [`futex_wake_all`], or for a timeout.
///
/// The timeout is `timeout_us` µs, and its end gives false. The thread may wake for no reason.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout_us: Option<u64>) -> bool {
    let timeout = timeout_us.map(|us| abi::timespec {
        tv_sec: (us / 1_000_000) as i64,
        tv_nsec: (us % 1_000_000 * 1000) as i32,
    });
    let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    let flags = abi::FUTEX_RELATIVE_TIMEOUT;
    // SAFETY: `word` and the timeout are valid for the whole call. A null timeout means none.
    unsafe { abi::futex_wait(word.as_ptr(), expected, timeout, flags) != -abi::ETIMEDOUT }
}

/// Wakes all threads that sleep on `word`.
pub fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: `word` is valid for the whole call.
    unsafe { abi::futex_wake(word.as_ptr(), i32::MAX) };
}

/// Ends the program; the machine powers off, or restarts.
#[cfg(target_os = "none")]
pub fn exit(status: i32) -> ! {
    // SAFETY: the call has no preconditions.
    unsafe { abi::exit(status) }
}
