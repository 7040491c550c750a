//! The Hermit ABI: the functions of `hermit-abi` 0.5 that the application calls.
//!
//! Signatures, flags and error numbers are those of that crate; where it leaves something open, what
//! Hermit's kernel does. A call that fails returns a negative error number, which `sys_errno` gives
//! again. There is one thread a core, so priorities mean nothing, and each thread has
//! [`stacks::STACK_SIZE`] bytes of stack.

use core::ffi::c_char;
use core::ptr;
use core::sync::atomic::{AtomicI32, Ordering};

use alloc::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use hermit_abi::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, EBADF, EINVAL, ENODEV, ENOMEM, ENOSYS, ETIMEDOUT,
    FUTEX_RELATIVE_TIMEOUT, O_DIRECTORY, POLLIN, POLLNVAL, PROT_READ, PROT_WRITE, STDERR_FILENO,
    STDIN_FILENO, STDOUT_FILENO, Tid, clockid_t, dirent64, nfds_t, pid_t, pollfd, stat, timespec,
};

use super::lent;
use crate::report::Code;
use crate::runtime::arch::this_core::{self, MAX_CORES};
use crate::runtime::arch::time;
use crate::runtime::end::{fault, power};
use crate::runtime::fs;
use crate::runtime::io::{input, output};
use crate::runtime::mem::mmu::{self, MapError};
use crate::runtime::mem::{pages, stacks};
use crate::runtime::sched::futex::NotWoken;
use crate::runtime::sched::{cores, idle, threads};

/// The last error number of each core's thread.
static ERRNO: [AtomicI32; MAX_CORES] = [const { AtomicI32::new(0) }; MAX_CORES];

/// What a call returns: a result of 0 or more, or a negative error number, which is kept.
fn returned<T: Copy + TryInto<i64>>(result: T) -> T {
    if let Ok(number @ i64::MIN..0) = result.try_into() {
        ERRNO[this_core::current()].store(-(number as i32), Ordering::Relaxed);
    }
    result
}

/// The error number of the calling thread's last call that failed.
#[unsafe(no_mangle)]
extern "C" fn sys_errno() -> i32 {
    ERRNO[this_core::current()].load(Ordering::Relaxed)
}

/// Same as [`sys_errno`].
#[unsafe(no_mangle)]
extern "C" fn sys_get_errno() -> i32 {
    sys_errno()
}

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

/// As [`sys_alloc`], filled with zeros.
#[unsafe(no_mangle)]
extern "C" fn sys_alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    match Layout::from_size_align(size, align) {
        // SAFETY: the size is not zero.
        Ok(layout) if size > 0 => unsafe { alloc_zeroed(layout) },
        _ => ptr::null_mut(),
    }
}

/// Makes a block larger or smaller; it may move. Null, and the block as it was, if that fails.
///
/// # Safety
/// The block is one of [`sys_alloc`] and its siblings, with that size and alignment.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_realloc(
    ptr: *mut u8,
    size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    let fits = |size| Layout::from_size_align(size, align).is_ok();
    match Layout::from_size_align(size, align) {
        Ok(layout) if !ptr.is_null() && size > 0 && new_size > 0 && fits(new_size) => {
            // SAFETY: the caller vouches for the block; the new size is not zero and, rounded up
            // to the alignment, no more than an isize holds.
            unsafe { realloc(ptr, layout, new_size) }
        }
        _ => ptr::null_mut(),
    }
}

/// Gives a block back.
///
/// # Safety
/// As for [`sys_realloc`]; the block is not used afterwards.
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

/// Same as [`sys_alloc`].
#[unsafe(no_mangle)]
extern "C" fn sys_malloc(size: usize, align: usize) -> *mut u8 {
    sys_alloc(size, align)
}

/// Same as [`sys_dealloc`].
///
/// # Safety
/// As for [`sys_dealloc`].
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_free(ptr: *mut u8, size: usize, align: usize) {
    // SAFETY: upheld by the caller.
    unsafe { sys_dealloc(ptr, size, align) }
}

/// Bytes of a page.
#[unsafe(no_mangle)]
extern "C" fn sys_getpagesize() -> i32 {
    mmu::PAGE_SIZE as i32
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
        Err(MapError::BadRange { .. }) => returned(-EINVAL),
        Err(_) => returned(-ENOMEM),
    }
}

/// New pages of memory, at least `size` bytes; their address goes to `ret`. What is in them is left from
/// before. `EINVAL` for no bytes, or flags other than `PROT_READ` and `PROT_READ | PROT_WRITE`; `ENOMEM` if
/// there is no such memory in one piece.
///
/// # Safety
/// `ret` is null or valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_mmap(size: usize, prot_flags: u32, ret: *mut *mut u8) -> i32 {
    let Some(writable) = is_writable(prot_flags).filter(|_| size > 0 && !ret.is_null()) else {
        return returned(-EINVAL);
    };
    let Some(start) = pages::map(size) else { return returned(-ENOMEM) };
    // SAFETY: valid for a write, says the caller.
    unsafe { ret.write(start.as_ptr()) };
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
    let Some(writable) = is_writable(prot_flags) else { return returned(-EINVAL) };
    // SAFETY: upheld by the caller.
    mapped(unsafe { pages::set_writable(ptr, size, writable) })
}

// Time.

/// Nanoseconds in `time`; `None` for one that is negative or malformed.
fn nanoseconds(time: timespec) -> Option<u64> {
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let rest = u64::try_from(time.tv_nsec).ok().filter(|ns| *ns < 1_000_000_000)?;
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(rest))
}

/// The time. There is no clock that knows the date: both clocks count from power on.
///
/// # Safety
/// `tp` is null or valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_clock_gettime(clock: clockid_t, tp: *mut timespec) -> i32 {
    if tp.is_null() || !matches!(clock, CLOCK_MONOTONIC | CLOCK_REALTIME) {
        return returned(-EINVAL);
    }
    let now = time::now_ns();
    let now =
        timespec { tv_sec: (now / 1_000_000_000) as i64, tv_nsec: (now % 1_000_000_000) as i32 };
    // SAFETY: valid for a write, says the caller.
    unsafe { tp.write(now) };
    0
}

fn sleep_us(us: u64) {
    idle::wait_until(&|| false, Some(time::now_us().saturating_add(us)));
}

/// Sleeps for at least `us` microseconds.
#[unsafe(no_mangle)]
extern "C" fn sys_usleep(us: u64) {
    sleep_us(us);
}

/// Sleeps for at least this time.
///
/// # Safety
/// `time` is null or valid for a read.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_nanosleep(time: *const timespec) -> i32 {
    // SAFETY: null or valid for a read, says the caller.
    match unsafe { time.as_ref() }.copied().and_then(nanoseconds) {
        Some(ns) => {
            sleep_us(ns.div_ceil(1000));
            0
        }
        None => returned(-EINVAL),
    }
}

// Threads.

fn core_of(core_id: isize) -> Option<usize> {
    usize::try_from(core_id).ok()
}

/// Starts a thread on the core `core_id`, or on any if that is negative; its number goes to `id`.
/// `EAGAIN` if there is no such core or it is busy, `EINVAL` if `id` is null: a thread that nobody
/// can name could never be joined.
///
/// # Safety
/// `id` is null or valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_spawn(
    id: *mut Tid,
    function: extern "C" fn(usize),
    argument: usize,
    _priority: u8,
    core_id: isize,
) -> i32 {
    if id.is_null() {
        return returned(-EINVAL);
    }
    let Some(tid) = threads::spawn(function, argument, core_of(core_id)) else {
        return returned(-EAGAIN);
    };
    // SAFETY: valid for a write, says the caller.
    unsafe { id.write(tid) };
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
        returned(-EINVAL);
        return 0;
    }
    threads::spawn(function, argument, core_of(core_id)).unwrap_or_else(|| {
        returned(-EAGAIN);
        0
    })
}

/// Waits until the thread has ended.
#[unsafe(no_mangle)]
extern "C" fn sys_join(id: Tid) -> i32 {
    if threads::join(id) { 0 } else { returned(-EINVAL) }
}

/// Lets others run: each thread has a core of its own, so this is only a hint to the processor.
#[unsafe(no_mangle)]
extern "C" fn sys_yield() {
    core::hint::spin_loop();
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
/// 1. `address` is null or valid for atomic reads and writes.
/// 2. `timeout` is null or valid for a read.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_futex_wait(
    address: *mut u32,
    expected: u32,
    timeout: *const timespec,
    flags: u32,
) -> i32 {
    // SAFETY: the word is only read and written atomically, says the caller.
    let word = match unsafe { lent::word(address) } {
        Ok(word) if flags & !FUTEX_RELATIVE_TIMEOUT == 0 => word,
        _ => return returned(-EINVAL),
    };
    // SAFETY: null or valid for a read, says the caller.
    let deadline = match unsafe { timeout.as_ref() }.map(|timeout| nanoseconds(*timeout)) {
        None => None,
        Some(None) => return returned(-EINVAL),
        Some(Some(ns)) => {
            let us = ns.div_ceil(1000);
            let start = if flags & FUTEX_RELATIVE_TIMEOUT != 0 { time::now_us() } else { 0 };
            Some(start.saturating_add(us))
        }
    };
    match threads::wait(word, expected, deadline) {
        Ok(()) => 0,
        Err(NotWoken::Changed) => returned(-EAGAIN),
        Err(NotWoken::TimedOut) => returned(-ETIMEDOUT),
    }
}

/// Wakes up to `count` threads that sleep on `address`; returns how many. `EINVAL` for an address
/// that is null or no multiple of 4.
///
/// # Safety
/// `address` is null or valid for atomic reads and writes.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_futex_wake(address: *mut u32, count: i32) -> i32 {
    let Ok(count) = usize::try_from(count) else { return returned(-EINVAL) };
    let count = if count == i32::MAX as usize { usize::MAX } else { count };
    // SAFETY: the word is only read and written atomically, says the caller.
    match unsafe { lent::word(address) } {
        Ok(word) => threads::wake(word, count) as i32,
        Err(error) => returned(-error),
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
    returned(-(if flags == 0 { ENOSYS } else { EINVAL } as isize))
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
    // SAFETY: 1 and 2 are what `room` asks for.
    returned(match unsafe { lent::room(buf, len) } {
        Err(error) => -error as isize,
        Ok(room) if fd == STDIN_FILENO => {
            input::read(room).map_or(-(ENODEV as isize), |n| n as isize)
        }
        Ok(_) if matches!(fd, STDOUT_FILENO | STDERR_FILENO) => -EBADF as isize,
        // SAFETY: 1 and 2 are what `read` asks for; where the disk has gone silent, the run ends below.
        Ok(_) => match unsafe { fs::read(fd, buf, len) } {
            result if result == -(ETIMEDOUT as isize) => {
                let hint = "see whether the host's storage is stuck or overloaded, and boot again";
                fault::end(Code::DiskError, format_args!("{}", fs::last_error()), hint, &|_| Ok(()))
            }
            result => result,
        },
    })
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
        Ok(_) if timeout != 0 => return returned(-EINVAL),
        Ok(entries) => entries,
        Err(error) => return returned(-error),
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

/// Opens a file or directory for reading.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_open(name: *const c_char, flags: i32, mode: i32) -> i32 {
    // SAFETY: upheld by the caller.
    returned(unsafe { fs::open(name, flags, mode) })
}

/// Opens a directory.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_opendir(name: *const c_char) -> i32 {
    // SAFETY: upheld by the caller.
    returned(unsafe { fs::open(name, O_DIRECTORY, 0) })
}

/// Closes a file or directory.
#[unsafe(no_mangle)]
extern "C" fn sys_close(fd: i32) -> i32 {
    returned(fs::close(fd))
}

/// Moves the place of the next read.
#[unsafe(no_mangle)]
extern "C" fn sys_lseek(fd: i32, offset: isize, whence: i32) -> isize {
    returned(fs::lseek(fd, offset, whence))
}

/// Says what an open file is.
///
/// # Safety
/// `result` is null or valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_fstat(fd: i32, result: *mut stat) -> i32 {
    // SAFETY: upheld by the caller.
    returned(unsafe { fs::fstat(fd, result) })
}

/// Says what a path leads to.
///
/// # Safety
/// `name` is null or a C string, `result` null or valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_stat(name: *const c_char, result: *mut stat) -> i32 {
    // SAFETY: upheld by the caller.
    returned(unsafe { fs::stat(name, result) })
}

/// Reads entries of a directory. `EINVAL` for more than `isize::MAX` bytes.
///
/// # Safety
/// As for [`sys_read`].
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getdents64(fd: i32, entries: *mut dirent64, bytes: usize) -> i64 {
    // SAFETY: upheld by the caller.
    returned(unsafe { fs::getdents64(fd, entries, bytes) })
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
    returned(match unsafe { lent::bytes(buf, len) } {
        Err(error) => -error as isize,
        Ok(_) if !matches!(fd, STDOUT_FILENO | STDERR_FILENO) => -EBADF as isize,
        Ok(bytes) => {
            output::write(bytes);
            bytes.len() as isize
        }
    })
}
