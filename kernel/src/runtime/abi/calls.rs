//! The exported functions except calls of files and sockets: memory, time, threads, console, end.
//!
//! A core runs one thread, so priorities have no meaning. Each thread has [`stacks::STACK_SIZE`]
//! bytes of stack.

use core::mem::MaybeUninit;
use core::ptr;

use alloc::alloc::{Layout, alloc, dealloc};
use hermit_abi::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, EBADF, EINVAL, ENODEV, ENOMEM, ENOSYS, ETIMEDOUT,
    FUTEX_RELATIVE_TIMEOUT, PROT_READ, PROT_WRITE, STDERR_FILENO, STDIN_FILENO, STDOUT_FILENO, Tid,
    clockid_t, pid_t, timespec,
};

use super::{convert, files, lent, sockets};
use crate::report::Code;
use crate::runtime::arch::time;
use crate::runtime::dev::entropy;
use crate::runtime::end::{fault, power};
use crate::runtime::fs;
use crate::runtime::io::{input, output};
use crate::runtime::mem::mmu::MapError;
use crate::runtime::mem::{pages, stacks};
use crate::runtime::sched::futex::NotWoken;
use crate::runtime::sched::{cores, idle, threads};

// Memory.

/// Allocates `size` bytes on a multiple of `align`.
///
/// The result is null if no such block is free, if `size` is 0, or if both make no valid layout.
#[unsafe(no_mangle)]
extern "C" fn sys_alloc(size: usize, align: usize) -> *mut u8 {
    match Layout::from_size_align(size, align) {
        // SAFETY: the size is not zero.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => ptr::null_mut(),
    }
}

/// Frees a block.
///
/// # Safety
/// The block is one of [`sys_alloc`], with that size and alignment. The block is not used
/// afterwards.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_dealloc(ptr: *mut u8, size: usize, align: usize) {
    if let Ok(layout) = Layout::from_size_align(size, align)
        && !ptr.is_null()
        && size > 0
    {
        // SAFETY: the caller vouches for the block.
        unsafe { dealloc(ptr, layout) };
    }
}

/// Whether memory with these flags is writable; `None` for unsupported flags.
///
/// Data is always readable, and never executable.
fn is_writable(prot_flags: u32) -> Option<bool> {
    match prot_flags {
        PROT_READ => Some(false),
        flags if flags == PROT_READ | PROT_WRITE => Some(true),
        _ => None,
    }
}

/// The result code of a change of the map.
fn mapped(result: Result<(), MapError>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(MapError::BadRange { .. }) => -EINVAL,
        Err(_) => -ENOMEM,
    }
}

/// Maps new pages of at least `size` bytes, and writes their address to `ret`.
///
/// The pages are contiguous, and keep their old contents. The result is `EINVAL` for a `size` of 0,
/// and for flags other than `PROT_READ` and `PROT_READ | PROT_WRITE`. The result is `ENOMEM` if
/// there is no such contiguous memory.
#[unsafe(no_mangle)]
extern "C" fn sys_mmap(
    size: usize,
    prot_flags: u32,
    ret: Option<&mut MaybeUninit<*mut u8>>,
) -> i32 {
    let (Some(writable), Some(ret)) = (is_writable(prot_flags).filter(|_| size > 0), ret) else {
        return -EINVAL;
    };
    let Some(start) = pages::map(size) else { return -ENOMEM };
    ret.write(start.as_ptr());
    // SAFETY: nobody else has the pages yet.
    if writable { 0 } else { mapped(unsafe { pages::set_writable(start.as_ptr(), size, false) }) }
}

/// Unmaps pages, which are all pages of one [`sys_mmap`].
///
/// The result is `EINVAL` for any other range.
///
/// # Safety
/// The pages are not used afterwards.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_munmap(ptr: *mut u8, size: usize) -> i32 {
    // SAFETY: upheld by the caller.
    mapped(unsafe { pages::unmap(ptr, size) })
}

/// Makes pages of [`sys_mmap`] read-only or writable, on all cores.
///
/// The flags are `PROT_READ`, or `PROT_READ | PROT_WRITE`. The result is `EINVAL` for other flags
/// and for other memory. The result is `ENOMEM` for memory that is mapped in larger blocks.
///
/// # Safety
/// Nobody writes to read-only pages.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_mprotect(ptr: *mut u8, size: usize, prot_flags: u32) -> i32 {
    let Some(writable) = is_writable(prot_flags) else { return -EINVAL };
    // SAFETY: upheld by the caller.
    mapped(unsafe { pages::set_writable(ptr, size, writable) })
}

// Time.

/// Reads a clock.
///
/// `CLOCK_REALTIME` is the date, in UTC. Without a real-time clock it counts from power on, as
/// `CLOCK_MONOTONIC` does.
#[unsafe(no_mangle)]
extern "C" fn sys_clock_gettime(clock: clockid_t, tp: Option<&mut MaybeUninit<timespec>>) -> i32 {
    let ns = match clock {
        CLOCK_MONOTONIC => time::now_ns(),
        CLOCK_REALTIME => time::date_ns(),
        _ => return -EINVAL,
    };
    let Some(tp) = tp else { return -EINVAL };
    tp.write(convert::time(ns));
    0
}

/// Sleeps for at least `us` microseconds.
#[unsafe(no_mangle)]
extern "C" fn sys_usleep(us: u64) {
    idle::wait_until(&|| false, Some(time::now_us().saturating_add(us)));
}

// Threads.

fn core_of(core_id: isize) -> Option<usize> {
    usize::try_from(core_id).ok()
}

/// Starts a thread on the core `core_id`, or on any core if `core_id` is negative.
///
/// The number of the thread goes to `id`. The result is `EAGAIN` if the core does not exist or is
/// busy. The result is `EINVAL` if `id` is null: nobody could ever join a thread without a name.
#[unsafe(no_mangle)]
extern "C" fn sys_spawn(
    id: Option<&mut MaybeUninit<Tid>>,
    function: extern "C" fn(usize),
    argument: usize,
    _priority: u8,
    core_id: isize,
) -> i32 {
    let Some(id) = id else { return -EINVAL };
    let Some(tid) = threads::spawn(function, argument, core_of(core_id)) else { return -EAGAIN };
    id.write(tid);
    0
}

/// Starts a thread as [`sys_spawn`] does, with `stack_size` bytes of stack or more.
///
/// The result is the thread's number. If the thread does not start, the result is 0, which is no
/// thread's number.
#[unsafe(no_mangle)]
extern "C" fn sys_spawn2(
    function: extern "C" fn(usize),
    argument: usize,
    _priority: u8,
    stack_size: usize,
    core_id: isize,
) -> Tid {
    if stack_size as u64 > stacks::STACK_SIZE {
        return 0;
    }
    threads::spawn(function, argument, core_of(core_id)).unwrap_or(0)
}

/// Waits until the thread has ended.
#[unsafe(no_mangle)]
extern "C" fn sys_join(id: Tid) -> i32 {
    if threads::join(id) { 0 } else { -EINVAL }
}

/// The number of the calling thread.
#[unsafe(no_mangle)]
extern "C" fn sys_getpid() -> pid_t {
    threads::current() as pid_t
}

/// Number of cores that are up, which is the number of threads that can run.
#[unsafe(no_mangle)]
extern "C" fn sys_available_parallelism() -> usize {
    cores::count()
}

/// Sleeps until a wake-up through `address`, if the word there is `expected`.
///
/// The contract is that of `hermit-abi`. The result is `EINVAL` for an address that is null or no
/// multiple of 4.
///
/// # Safety
/// `address` is null or valid for atomic reads and writes.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_futex_wait(
    address: *mut u32,
    expected: u32,
    timeout: Option<&timespec>,
    flags: u32,
) -> i32 {
    // SAFETY: the caller promises that the word is only accessed atomically.
    let word = match unsafe { lent::word(address) } {
        Ok(word) if flags & !FUTEX_RELATIVE_TIMEOUT == 0 => word,
        _ => return -EINVAL,
    };
    let deadline = match timeout.map(|timeout| convert::microseconds(*timeout)) {
        None => None,
        Some(None) => return -EINVAL,
        Some(Some(us)) => {
            let start = if flags & FUTEX_RELATIVE_TIMEOUT != 0 { time::now_us() } else { 0 };
            Some(start.saturating_add(us))
        }
    };
    match threads::wait(word, expected, deadline) {
        Ok(()) => 0,
        Err(NotWoken::Changed) => -EAGAIN,
        Err(NotWoken::TimedOut) => -ETIMEDOUT,
    }
}

/// Wakes up to `count` threads that sleep on `address`; returns their number.
///
/// The result is `EINVAL` for an address that is null or no multiple of 4.
///
/// # Safety
/// `address` is null or valid for atomic reads and writes.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_futex_wake(address: *mut u32, count: i32) -> i32 {
    let Ok(count) = usize::try_from(count) else { return -EINVAL };
    let count = if count == i32::MAX as usize { usize::MAX } else { count };
    // SAFETY: the caller promises that the word is only accessed atomically.
    match unsafe { lent::word(address) } {
        Ok(word) => threads::wake(word, count) as i32,
        Err(error) => -error,
    }
}

// The end.

/// Ends the program: reports `status`, then powers off or restarts the machine.
#[unsafe(no_mangle)]
extern "C" fn sys_exit(status: i32) -> ! {
    power::exit(status)
}

/// Ends the program with a panic and its report.
#[unsafe(no_mangle)]
extern "C" fn sys_abort() -> ! {
    panic!("the application aborts")
}

// Files and the console.

/// Fills `len` bytes with random bytes that are fit for secrets.
///
/// The result is `len`. The result is `ENOSYS` on a machine without a source of such bytes, and
/// `EINVAL` for flags and for more than `isize::MAX` bytes.
///
/// # Safety
/// As for [`sys_read`].
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_read_entropy(buf: *mut u8, len: usize, flags: u32) -> isize {
    if flags != 0 {
        return -(EINVAL as isize);
    }
    // SAFETY: the caller upholds what `room` asks for.
    let has_filled = unsafe { lent::room(buf, len) }.map(entropy::fill_uninit);
    match has_filled {
        Ok(true) => len as isize,
        Ok(false) => -(ENOSYS as isize),
        Err(error) => -error as isize,
    }
}

/// Reads from an open file or a connection, or from the console as soon as a byte is there.
///
/// The result is `ENODEV` if the machine has no serial port to read from. The result is `EINVAL`
/// for more than `isize::MAX` bytes.
///
/// # Safety
/// Unless `buf` is null:
///
/// 1. The `len` bytes from `buf` on are valid for writes. The bytes need not be initialised.
/// 2. Nobody else reads or writes the bytes before the call returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_read(fd: i32, buf: *mut u8, len: usize) -> isize {
    match fd {
        // SAFETY: 1 and 2 are what `room` asks for.
        STDIN_FILENO => match unsafe { lent::room(buf, len) } {
            Ok(room) => input::read(room).map_or(-(ENODEV as isize), |n| n as isize),
            Err(error) => -error as isize,
        },
        // SAFETY: 1 and 2 are what `recv` asks for.
        _ if convert::socket_id(fd).is_some() => unsafe { sockets::recv(fd, buf, len) },
        // SAFETY: 1 and 2 are what `read` asks for. If the disk has gone silent, the run ends here.
        _ => match unsafe { files::read(fd, buf, len) } {
            Ok(n) => n as isize,
            Err(Some(error)) => -error as isize,
            Err(None) => end_of_silent_disk(),
        },
    }
}

/// Ends the run, because the disk may still write to memory lent to it.
fn end_of_silent_disk() -> ! {
    let failure = fs::failure().map(|failure| failure.message).unwrap_or_default();
    let hint = "see whether the host's storage is stuck or overloaded, and boot again";
    fault::end(Code::DiskError, format_args!("{failure}"), hint, &|_| Ok(()))
}

/// Writes to a connection, or to the console without another core's text in between.
///
/// The result is `EINVAL` for more than `isize::MAX` bytes.
///
/// # Safety
/// Unless `buf` is null:
///
/// 1. The `len` bytes from `buf` on are valid for reads, and initialised.
/// 2. Nobody writes to the bytes before the call returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_write(fd: i32, buf: *const u8, len: usize) -> isize {
    if convert::socket_id(fd).is_some() {
        // SAFETY: 1 and 2 are what `send` asks for.
        return unsafe { sockets::send(fd, buf, len) };
    }
    // SAFETY: 1 and 2 are what `bytes` asks for.
    match unsafe { lent::bytes(buf, len) } {
        Err(error) => -error as isize,
        Ok(_) if !matches!(fd, STDOUT_FILENO | STDERR_FILENO) => -EBADF as isize,
        Ok(bytes) => {
            output::write(bytes);
            bytes.len() as isize
        }
    }
}
