//! The exported functions, but those of files: memory, time, threads, the console, the end.
//!
//! There is one thread a core, so priorities mean nothing, and each thread has
//! [`stacks::STACK_SIZE`] bytes of stack.

use core::mem::MaybeUninit;
use core::ptr;

use alloc::alloc::{Layout, alloc, dealloc};
use hermit_abi::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, EBADF, EINVAL, ENODEV, ENOMEM, ENOSYS, ETIMEDOUT,
    FUTEX_RELATIVE_TIMEOUT, POLLIN, POLLNVAL, PROT_READ, PROT_WRITE, STDERR_FILENO, STDIN_FILENO,
    STDOUT_FILENO, Tid, clockid_t, nfds_t, pid_t, pollfd, timespec,
};

use super::{convert, files, lent};
use crate::report::Code;
use crate::runtime::arch::time;
use crate::runtime::end::{fault, power};
use crate::runtime::fs;
use crate::runtime::io::{input, output};
use crate::runtime::mem::mmu::MapError;
use crate::runtime::mem::{pages, stacks};
use crate::runtime::sched::futex::NotWoken;
use crate::runtime::sched::{cores, idle, threads};

// Memory.

/// A block of `size` bytes on a multiple of `align`; null if there is none or these make no sense.
#[unsafe(no_mangle)]
extern "C" fn sys_alloc(size: usize, align: usize) -> *mut u8 {
    match Layout::from_size_align(size, align) {
        // SAFETY: the size is not zero.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => ptr::null_mut(),
    }
}

/// Gives a block back.
///
/// # Safety
/// The block is one of [`sys_alloc`], with that size and alignment. It is not used afterwards.
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

/// Whether memory with these flags is writable; `None` for those that there is no memory with: data is
/// never executable, and always readable.
fn is_writable(prot_flags: u32) -> Option<bool> {
    match prot_flags {
        PROT_READ => Some(false),
        flags if flags == PROT_READ | PROT_WRITE => Some(true),
        _ => None,
    }
}

/// What a change of the map returns.
fn mapped(result: Result<(), MapError>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(MapError::BadRange { .. }) => -EINVAL,
        Err(_) => -ENOMEM,
    }
}

/// New pages of memory, at least `size` bytes; their address goes to `ret`. What is in them is left from
/// before. `EINVAL` for no bytes, or flags other than `PROT_READ` and `PROT_READ | PROT_WRITE`; `ENOMEM` if
/// there is no such memory in one piece.
///
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

/// Gives pages back: all those of one [`sys_mmap`]. `EINVAL` if they are not.
///
/// # Safety
/// They are not used afterwards.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_munmap(ptr: *mut u8, size: usize) -> i32 {
    // SAFETY: upheld by the caller.
    mapped(unsafe { pages::unmap(ptr, size) })
}

/// Makes pages of [`sys_mmap`] read-only (`PROT_READ`) or writable again (`PROT_READ | PROT_WRITE`), on all
/// cores. `EINVAL` for other flags and other memory; `ENOMEM` for memory that is mapped in larger blocks.
///
/// # Safety
/// Nobody writes to what is read-only.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_mprotect(ptr: *mut u8, size: usize, prot_flags: u32) -> i32 {
    let Some(writable) = is_writable(prot_flags) else { return -EINVAL };
    // SAFETY: upheld by the caller.
    mapped(unsafe { pages::set_writable(ptr, size, writable) })
}

// Time.

/// The time. There is no clock that knows the date: both clocks count from power on.
#[unsafe(no_mangle)]
extern "C" fn sys_clock_gettime(clock: clockid_t, tp: Option<&mut MaybeUninit<timespec>>) -> i32 {
    match (clock, tp) {
        (CLOCK_MONOTONIC | CLOCK_REALTIME, Some(tp)) => {
            tp.write(convert::time(time::now_ns()));
            0
        }
        _ => -EINVAL,
    }
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

/// Starts a thread on the core `core_id`, or on any if that is negative; its number goes to `id`.
/// `EAGAIN` if there is no such core or it is busy, `EINVAL` if `id` is null: a thread that nobody
/// can name could never be joined.
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

/// As [`sys_spawn`], with at least `stack_size` bytes of stack. Returns the thread's number, or 0,
/// which is none's, if it does not start.
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

/// The calling thread's number.
#[unsafe(no_mangle)]
extern "C" fn sys_getpid() -> pid_t {
    threads::current() as pid_t
}

/// Cores that are up, which is how many threads can run.
#[unsafe(no_mangle)]
extern "C" fn sys_available_parallelism() -> usize {
    cores::count()
}

/// Sleeps until it is woken through `address`, if that holds `expected`: see `hermit-abi`. `EINVAL`
/// for an address that is null or no multiple of 4.
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
    // SAFETY: the word is only read and written atomically, says the caller.
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

/// Wakes up to `count` threads that sleep on `address`; returns how many. `EINVAL` for an address
/// that is null or no multiple of 4.
///
/// # Safety
/// `address` is null or valid for atomic reads and writes.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_futex_wake(address: *mut u32, count: i32) -> i32 {
    let Ok(count) = usize::try_from(count) else { return -EINVAL };
    let count = if count == i32::MAX as usize { usize::MAX } else { count };
    // SAFETY: the word is only read and written atomically, says the caller.
    match unsafe { lent::word(address) } {
        Ok(word) => threads::wake(word, count) as i32,
        Err(error) => -error,
    }
}

// The end.

/// Ends the program: `status` is reported and the machine powers off.
#[unsafe(no_mangle)]
extern "C" fn sys_exit(status: i32) -> ! {
    power::exit(status)
}

/// Ends the program as one that broke, with a report.
#[unsafe(no_mangle)]
extern "C" fn sys_abort() -> ! {
    panic!("the application aborts")
}

// Files and the console.

/// There is no source of bits fit for secrets, which is what the ABI promises: `ENOSYS`.
#[unsafe(no_mangle)]
extern "C" fn sys_read_entropy(_buf: *mut u8, _len: usize, flags: u32) -> isize {
    -(if flags == 0 { ENOSYS } else { EINVAL } as isize)
}

/// Reads from an open file, or from the console as soon as it has at least one byte. `ENODEV` if the
/// machine has no serial port to read from, `EINVAL` for more than `isize::MAX` bytes.
///
/// # Safety
/// Unless `buf` is null:
///
/// 1. The `len` bytes from `buf` on are valid for writes. They need not be initialised.
/// 2. Nobody else reads or writes them before the call returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_read(fd: i32, buf: *mut u8, len: usize) -> isize {
    match fd {
        // SAFETY: 1 and 2 are what `room` asks for.
        STDIN_FILENO => match unsafe { lent::room(buf, len) } {
            Ok(room) => input::read(room).map_or(-(ENODEV as isize), |n| n as isize),
            Err(error) => -error as isize,
        },
        // SAFETY: 1 and 2; where the disk has gone silent, the run ends here.
        _ => match unsafe { files::read(fd, buf, len) } {
            Ok(n) => n as isize,
            Err(Some(error)) => -error as isize,
            Err(None) => end_of_silent_disk(),
        },
    }
}

/// Ends the run because the disk may still write to memory that was lent to it.
fn end_of_silent_disk() -> ! {
    let failure = fs::failure().map(|failure| failure.message).unwrap_or_default();
    let hint = "see whether the host's storage is stuck or overloaded, and boot again";
    fault::end(Code::DiskError, format_args!("{failure}"), hint, &|_| Ok(()))
}

/// Says whether the console has input, and returns how many entries are ready.
///
/// It waits for nothing: `EINVAL` for a timeout other than 0. `POLLNVAL` for what is not the
/// console's input.
///
/// # Safety
/// `fds` is null or valid for reads and writes of `nfds` entries.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_poll(fds: *mut pollfd, nfds: nfds_t, timeout: i32) -> i32 {
    // SAFETY: the caller upholds what `values` asks for.
    let entries = match unsafe { lent::values(fds, nfds) } {
        Ok(_) if timeout != 0 => return -EINVAL,
        Ok(entries) => entries,
        Err(error) => return -error,
    };
    for entry in &mut *entries {
        entry.revents = match entry.fd {
            STDIN_FILENO if entry.events & POLLIN != 0 && input::is_ready() => POLLIN,
            STDIN_FILENO => 0,
            _ => POLLNVAL,
        };
    }
    entries.iter().filter(|entry| entry.revents != 0).count() as i32
}

/// Writes to the console, in one piece. `EINVAL` for more than `isize::MAX` bytes.
///
/// # Safety
/// Unless `buf` is null:
///
/// 1. The `len` bytes from `buf` on are valid for reads, and initialised.
/// 2. Nobody writes to them before the call returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_write(fd: i32, buf: *const u8, len: usize) -> isize {
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
