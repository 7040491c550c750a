//! The calls of the ABI that the trials share, without `unsafe` where none is needed.

use core::arch::asm;
use core::ffi::CStr;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU32;

use hermit_abi as abi;

/// The value of a system register that may be read.
macro_rules! register {
    ($name:literal) => {{
        let value: usize;
        // SAFETY: reads a register.
        unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack)) };
        value
    }};
}

pub fn exit(status: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { abi::exit(status) }
}

pub fn say(text: &str) -> bool {
    // SAFETY: `text` is valid for reads of its length.
    let n = unsafe { abi::write(abi::STDOUT_FILENO, text.as_ptr(), text.len()) };
    n == text.len() as isize
}

pub fn now_us() -> u64 {
    let mut now = abi::timespec::default();
    // SAFETY: a valid place for the answer.
    unsafe { abi::clock_gettime(abi::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

pub fn sleep_us(us: u64) {
    // SAFETY: no preconditions.
    unsafe { abi::usleep(us) }
}

pub fn cores() -> usize {
    // SAFETY: no preconditions.
    unsafe { abi::available_parallelism() }
}

/// The number of the calling core.
pub fn this_core() -> usize {
    register!("tpidr_el1")
}

/// The settings of the event stream of the calling core.
pub fn event_stream() -> usize {
    register!("cntkctl_el1")
}

/// The table of the first level that the processor walks.
pub fn first_table() -> usize {
    register!("ttbr0_el1")
}

/// What a thread runs. Safe functions take any argument.
pub type Function = extern "C" fn(usize);

/// A thread that was started.
#[derive(Clone, Copy)]
#[must_use]
pub struct Thread(u32);

impl Thread {
    /// Waits for the end of the thread: 0, or an error number below 0.
    pub fn join(self) -> i32 {
        // SAFETY: no preconditions.
        unsafe { abi::join(self.0) }
    }
}

/// Waits for the ends of these threads: whether all were there.
pub fn join_all(threads: impl IntoIterator<Item = Thread>) -> bool {
    threads.into_iter().map(Thread::join).fold(true, |all, result| all & (result == 0))
}

/// Starts a thread; an error number below 0 if the core takes none.
pub fn spawn(function: Function, argument: usize, core: isize) -> Result<Thread, i32> {
    let mut id = 0;
    // SAFETY: a valid place for the answer, and a function that takes any argument.
    match unsafe { abi::spawn(&raw mut id, function, argument, 2, core) } {
        0 => Ok(Thread(id)),
        error => Err(error),
    }
}

/// Starts a thread by the older call, with a stack of this size; the thread 0 if that fails.
pub fn spawn_with_stack(
    function: Function,
    argument: usize,
    stack_bytes: usize,
    core: isize,
) -> Thread {
    // SAFETY: a function that takes any argument.
    Thread(unsafe { abi::spawn2(function, argument, 2, stack_bytes, core) })
}

/// Starts a thread on this core, -1 for any; the thread 0 if that fails.
pub fn start(function: Function, argument: usize, core: isize) -> Thread {
    spawn_with_stack(function, argument, 0, core)
}

/// Starts a thread on each other core, whose argument is the core's number.
pub fn start_on_others(function: Function) -> impl Iterator<Item = Thread> {
    (1..cores()).map(move |core| start(function, core, core as isize))
}

/// What no started thread has as its number.
pub const NO_THREAD: Thread = Thread(9999);

impl Thread {
    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Waits while the word has this value.
pub fn futex_wait(
    word: &AtomicU32,
    value: u32,
    timeout: Option<&abi::timespec>,
    flags: u32,
) -> i32 {
    let timeout = timeout.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: word and timeout are valid for the call.
    unsafe { abi::futex_wait(word.as_ptr(), value, timeout, flags) }
}

/// Wakes so many that wait for the word.
pub fn futex_wake(word: &AtomicU32, count: i32) -> i32 {
    // SAFETY: the word is valid for the call.
    unsafe { abi::futex_wake(word.as_ptr(), count) }
}

/// A block of the heap.
pub fn alloc(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    // SAFETY: no preconditions.
    NonNull::new(unsafe { abi::alloc(bytes, align) })
}

/// Opens a path, or gives the error number.
pub fn open(path: &CStr, flags: i32) -> Result<i32, i32> {
    // SAFETY: the path ends with a zero byte.
    let fd = unsafe { abi::open(path.as_ptr(), flags, 0) };
    if fd < 0 { Err(-fd) } else { Ok(fd) }
}

pub fn read(fd: i32, buffer: &mut [u8]) -> isize {
    // SAFETY: valid for writes of its length.
    unsafe { abi::read(fd, buffer.as_mut_ptr(), buffer.len()) }
}

/// Reads random bytes into a buffer; `None` is a null pointer to one byte.
pub fn read_entropy(buffer: Option<&mut [u8]>, flags: u32) -> isize {
    let (start, length) =
        buffer.map_or((ptr::null_mut(), 1), |buffer| (buffer.as_mut_ptr(), buffer.len()));
    // SAFETY: null, or valid for writes of its length.
    unsafe { abi::read_entropy(start, length, flags) }
}

pub fn close(fd: i32) -> i32 {
    // SAFETY: no preconditions.
    unsafe { abi::close(fd) }
}
