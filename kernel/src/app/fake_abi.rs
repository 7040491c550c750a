//! A fake Hermit ABI and [`System`] on the host, for the application's tests.
//!
//! The host's standard library plays both. Files and console are in memory. Threads, clock and
//! sockets are those of the host.

mod sockets;

use std::alloc::Layout;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{ptr, slice, thread};

use hermit_abi as abi;

use crate::system::{self, DiskFailure, Memory, Network, NetworkConfig, NetworkError, System};

/// The world that the program can reach.
pub struct World {
    /// The files by their absolute paths. A directory exists as long as it has a file.
    pub files: BTreeMap<&'static str, Vec<u8>>,
    /// The text that the program wrote to the console.
    pub console: Vec<u8>,
    /// The input that the program may still read from the console.
    pub input: VecDeque<u8>,
    /// The memory of the machine. What is mapped counts as used if `counts_mapped`.
    pub memory: Memory,
    /// Whether mapped memory is taken from the free memory, and cannot be larger.
    pub counts_mapped: bool,
    /// Bytes that are mapped now.
    pub mapped: u64,
    /// The board's readings.
    pub board: Vec<std::string::String>,
    /// The last failure of the disk.
    pub disk_failure: Option<DiskFailure>,
    /// The network card, if the machine has one.
    pub network: Option<Network>,
    /// Whether the next send fails with ECONNRESET, without a word of it in polls.
    pub send_fails: bool,
    /// Whether there is no disk, so that no file can be reached.
    pub no_disk: bool,
    /// Whether reads from the console fail with EIO once `input` is empty.
    pub input_fails: bool,
    /// Number of cores for the program.
    pub cores: usize,
    /// Sizes that `fstat` gives for some files instead of their own.
    pub sizes: BTreeMap<&'static str, i64>,
    /// Number of reads from models that still succeed; later reads fail with EIO.
    pub reads_left: usize,
    /// How long each read from the disk takes.
    pub read_takes: Duration,
    /// Requested bytes of each read from a model.
    pub reads: Vec<usize>,
    /// The program's protections of memory: start, bytes and flags of each call.
    pub protected: Vec<(usize, usize, u32)>,
    open: BTreeMap<i32, Open>,
}

struct Open {
    path: std::string::String,
    position: usize,
}

impl World {
    /// A machine of two cores without files.
    const fn new() -> World {
        World {
            files: BTreeMap::new(),
            console: Vec::new(),
            input: VecDeque::new(),
            memory: Memory { total_bytes: 128 << 20, free_bytes: 64 << 20 },
            counts_mapped: false,
            mapped: 0,
            board: Vec::new(),
            disk_failure: None,
            network: None,
            send_fails: false,
            no_disk: false,
            input_fails: false,
            cores: 2,
            sizes: BTreeMap::new(),
            reads_left: usize::MAX,
            read_takes: Duration::ZERO,
            reads: Vec::new(),
            protected: Vec::new(),
            open: BTreeMap::new(),
        }
    }
}

impl World {
    fn memory_now(&self) -> Memory {
        let used = if self.counts_mapped { self.mapped } else { 0 };
        Memory { free_bytes: self.memory.free_bytes.saturating_sub(used), ..self.memory }
    }
}

static WORLD: Mutex<World> = Mutex::new(World::new());
/// The sleepers of each futex, by the word's address.
///
/// A finished test leaves idle threads. They must not wake with the threads of a running test.
static FUTEXES: Mutex<BTreeMap<usize, Arc<Condvar>>> = Mutex::new(BTreeMap::new());
static ONE_PROGRAM_AT_A_TIME: Mutex<()> = Mutex::new(());

fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `program` in the world of `set_up`; the console's text is returned too.
pub fn run_in_world<R>(
    set_up: impl FnOnce(&mut World),
    program: impl FnOnce() -> R,
) -> (R, std::string::String) {
    let _alone = ONE_PROGRAM_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let mut world = world();
        *world = World::new();
        set_up(&mut world);
    }
    system::install(&FakeSystem);
    // This fails from the second program on: the logger is set already.
    let _ = log::set_logger(&Logger);
    let returned = program();
    let world = world();
    assert!(world.open.is_empty(), "the program left files open");
    assert!(sockets::are_closed(), "the program left sockets open");
    (returned, std::string::String::from_utf8(world.console.clone()).unwrap())
}

/// Looks at the world in which a program runs, and may change it.
pub fn in_world<R>(change: impl FnOnce(&mut World) -> R) -> R {
    change(&mut world())
}

/// Types on the console of the world in which a program runs.
pub fn press(keys: &[u8]) {
    world().input.extend(keys);
}

/// Lets the next send on a socket fail, in the world in which a program runs.
pub fn fail_next_send() {
    world().send_fails = true;
}

/// Requested bytes of each read from a model in this world.
pub fn reads_so_far() -> Vec<usize> {
    world().reads.clone()
}

/// The protections of memory in this world.
pub fn protected_so_far() -> Vec<(usize, usize, u32)> {
    world().protected.clone()
}

/// The [`System`] of the world.
struct FakeSystem;

impl System for FakeSystem {
    fn memory(&self) -> Memory {
        world().memory_now()
    }

    fn board(&self) -> Vec<std::string::String> {
        world().board.clone()
    }

    fn disk_failure(&self) -> Option<DiskFailure> {
        world().disk_failure.clone()
    }

    fn configure_network(&self, _: &NetworkConfig) -> Result<(), NetworkError> {
        match world().network {
            Some(_) => Ok(()),
            None => Err(NetworkError::NoCard),
        }
    }

    fn network(&self) -> Option<Network> {
        world().network.clone()
    }
}

/// Shows the application's log on the fake console.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // Other tests of the process log too, but not as the application.
        metadata.target().starts_with("kernel::app")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = std::format!("{:5} {}\n", record.level(), record.args());
            world().console.extend_from_slice(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn is_directory(world: &World, path: &str) -> bool {
    world.files.keys().any(|file| file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
}

/// The date at the start of the clock, since 1970.
pub const DATE: Duration = Duration::from_secs(1_800_000_000);

#[unsafe(no_mangle)]
extern "C" fn sys_clock_gettime(clock: abi::clockid_t, time: *mut abi::timespec) -> i32 {
    static START: Mutex<Option<Instant>> = Mutex::new(None);
    let mut elapsed = START.lock().unwrap().get_or_insert_with(Instant::now).elapsed();
    if clock == abi::CLOCK_REALTIME {
        elapsed += DATE;
    }
    // SAFETY: the caller passes a valid place for the answer.
    unsafe {
        (*time).tv_sec = elapsed.as_secs() as i64;
        (*time).tv_nsec = elapsed.subsec_nanos() as i32;
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn sys_available_parallelism() -> usize {
    world().cores
}

#[unsafe(no_mangle)]
extern "C" fn sys_read_entropy(buf: *mut u8, len: usize, _flags: u32) -> isize {
    // SAFETY: the caller passes a buffer valid for writes of its length.
    unsafe { slice::from_raw_parts_mut(buf, len) }.fill(7);
    len as isize
}

#[unsafe(no_mangle)]
extern "C" fn sys_write(fd: i32, buf: *const u8, len: usize) -> isize {
    assert_eq!(fd, abi::STDOUT_FILENO);
    // SAFETY: the caller passes a buffer valid for reads of its length.
    let bytes = unsafe { slice::from_raw_parts(buf, len) };
    // At most half of a long text is written, and the program must cope with that.
    let n = if len > 16 { len / 2 } else { len };
    let console = &mut world().console;
    // The console puts an event on a line of its own.
    if bytes[0] == 0x1e && console.last().is_some_and(|&last| last != b'\n') {
        console.push(b'\n');
    }
    console.extend_from_slice(&bytes[..n]);
    n as isize
}

#[unsafe(no_mangle)]
extern "C" fn sys_read(fd: i32, buf: *mut u8, len: usize) -> isize {
    // SAFETY: the caller passes a buffer valid for writes of its length.
    let buf = unsafe { slice::from_raw_parts_mut(buf, len) };
    let pause = world().read_takes;
    if fd != abi::STDIN_FILENO && !pause.is_zero() {
        thread::sleep(pause);
    }
    let mut world = world();
    if fd == abi::STDIN_FILENO {
        if world.input.is_empty() && world.input_fails {
            return -(abi::EIO as isize);
        }
        let n = len.min(world.input.len());
        for (byte, input) in buf.iter_mut().zip(world.input.drain(..n)) {
            *byte = input;
        }
        return n as isize;
    }
    let World { files, open, reads_left, reads, .. } = &mut *world;
    let file = open.get_mut(&fd).unwrap();
    if file.path.starts_with("/models/") {
        if *reads_left == 0 {
            return -(abi::EIO as isize);
        }
        *reads_left -= 1;
        if file.path.ends_with(".gguf") {
            reads.push(len);
        }
    }
    let Some(bytes) = files.get(file.path.as_str()) else { return -(abi::EISDIR as isize) };
    let rest = &bytes[file.position..];
    let n = rest.len().min(len);
    buf[..n].copy_from_slice(&rest[..n]);
    file.position += n;
    n as isize
}

#[unsafe(no_mangle)]
extern "C" fn sys_open(name: *const c_char, _flags: i32, _mode: i32) -> i32 {
    // SAFETY: the caller passes a C string.
    let path = unsafe { CStr::from_ptr(name) }.to_str().unwrap();
    let mut world = world();
    if world.no_disk {
        return -abi::ENODEV;
    }
    if !world.files.contains_key(path) && !is_directory(&world, path) {
        return -abi::ENOENT;
    }
    let fd = world.open.keys().last().map_or(3, |last| last + 1);
    world.open.insert(fd, Open { path: path.into(), position: 0 });
    fd
}

#[unsafe(no_mangle)]
extern "C" fn sys_close(fd: i32) -> i32 {
    if world().open.remove(&fd).is_some() { 0 } else { sockets::close(fd) }
}

#[unsafe(no_mangle)]
extern "C" fn sys_fstat(fd: i32, stat: *mut abi::stat) -> i32 {
    let world = world();
    let path = world.open[&fd].path.as_str();
    let size = world.sizes.get(path).copied().unwrap_or(world.files[path].len() as i64);
    // SAFETY: the caller passes a valid place for the answer.
    unsafe { (*stat).st_size = size };
    0
}

#[unsafe(no_mangle)]
extern "C" fn sys_getdents64(fd: i32, entries: *mut abi::dirent64, count: usize) -> i64 {
    const NAME: usize = std::mem::offset_of!(abi::dirent64, d_name);
    let mut world = world();
    let World { files, open, .. } = &mut *world;
    let directory = open.get_mut(&fd).unwrap();
    let mut names: Vec<&str> = Vec::from([".", ".."]);
    names.extend(files.keys().filter_map(|file| {
        file.strip_prefix(directory.path.as_str())?.strip_prefix('/').filter(|n| !n.contains('/'))
    }));
    let mut written = 0;
    for name in &names[directory.position..] {
        let length = (NAME + name.len() + 1).next_multiple_of(8);
        if written + length > count {
            break;
        }
        // SAFETY: the entry lies within the caller's buffer of `count` bytes, at a multiple of 8
        // bytes from the aligned start. Only the first `length` bytes of the entry are written.
        unsafe {
            let entry = entries.byte_add(written);
            (&raw mut (*entry).d_reclen).write(length as u16);
            let place = entry.byte_add(NAME).cast::<u8>();
            ptr::copy_nonoverlapping(name.as_ptr(), place, name.len());
            place.add(name.len()).write(0);
        }
        written += length;
        directory.position += 1;
    }
    written as i64
}

#[unsafe(no_mangle)]
extern "C" fn sys_spawn(
    id: *mut abi::Tid,
    entry: extern "C" fn(usize),
    argument: usize,
    _priority: u8,
    core: isize,
) -> i32 {
    // SAFETY: the caller passes a valid place for the answer.
    unsafe { *id = core as abi::Tid };
    thread::spawn(move || entry(argument));
    0
}

#[unsafe(no_mangle)]
extern "C" fn sys_getpid() -> abi::pid_t {
    static LAST: AtomicI32 = AtomicI32::new(0);
    std::thread_local! {
        static NUMBER: i32 = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    }
    NUMBER.with(|&number| number)
}

#[unsafe(no_mangle)]
extern "C" fn sys_futex_wait(
    word: *mut u32,
    expected: u32,
    timeout: *const abi::timespec,
    flags: u32,
) -> i32 {
    // SAFETY: the caller passes null or a valid timeout.
    let timeout = unsafe { timeout.as_ref() }.map(|timeout| {
        assert_eq!(flags, abi::FUTEX_RELATIVE_TIMEOUT);
        Duration::new(timeout.tv_sec as u64, timeout.tv_nsec as u32)
    });
    // SAFETY: the caller passes a word that lives as long as the call, and only ever accesses it
    // atomically.
    let word = unsafe { AtomicU32::from_ptr(word) };
    let start = Instant::now();
    let mut futexes = FUTEXES.lock().unwrap();
    let sleepers = Arc::clone(futexes.entry(word.as_ptr().addr()).or_default());
    while word.load(Ordering::SeqCst) == expected {
        let Some(timeout) = timeout else {
            drop(sleepers.wait(futexes));
            return 0;
        };
        let Some(left) = timeout.checked_sub(start.elapsed()) else { return -abi::ETIMEDOUT };
        futexes = sleepers.wait_timeout(futexes, left).unwrap().0;
    }
    -abi::EAGAIN
}

#[unsafe(no_mangle)]
extern "C" fn sys_futex_wake(word: *mut u32, _count: i32) -> i32 {
    if let Some(sleepers) = FUTEXES.lock().unwrap().get(&word.addr()) {
        sleepers.notify_all();
    }
    0
}

/// The host's own `mprotect`: a write to read-only memory ends the test program.
mod host {
    unsafe extern "C" {
        pub safe fn getpagesize() -> i32;
        pub fn mprotect(start: *mut u8, bytes: usize, flags: i32) -> i32;
    }
}

/// Whole pages of the host for `size` bytes.
fn pages(size: usize) -> Option<Layout> {
    let page = host::getpagesize() as usize;
    Layout::from_size_align(size.checked_next_multiple_of(page)?, page).ok()
}

#[unsafe(no_mangle)]
extern "C" fn sys_mmap(size: usize, flags: u32, start: &mut *mut u8) -> i32 {
    assert!(size > 0 && flags == abi::PROT_READ | abi::PROT_WRITE);
    let Some(layout) = pages(size) else { return -abi::ENOMEM };
    let mut world = world();
    if world.counts_mapped && world.memory_now().free_bytes < layout.size() as u64 {
        return -abi::ENOMEM;
    }
    // SAFETY: the size is not 0.
    *start = unsafe { std::alloc::alloc(layout) };
    if start.is_null() {
        return -abi::ENOMEM;
    }
    world.mapped += layout.size() as u64;
    0
}

#[unsafe(no_mangle)]
extern "C" fn sys_mprotect(start: *mut u8, size: usize, flags: u32) -> i32 {
    world().protected.push((start.addr(), size, flags));
    let bytes = pages(size).map_or(0, |layout| layout.size());
    // SAFETY: the caller passes what `sys_mmap` gave it, and the flags have the host's values.
    match unsafe { host::mprotect(start, bytes, flags as i32) } {
        0 => 0,
        _ => -abi::EINVAL,
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_munmap(start: *mut u8, size: usize) -> i32 {
    let writable = abi::PROT_READ | abi::PROT_WRITE;
    let Some(layout) = pages(size).filter(|_| sys_mprotect(start, size, writable) == 0) else {
        return -abi::EINVAL;
    };
    // SAFETY: `sys_mmap` allocated the memory with this layout, and the caller does not use it any
    // more.
    unsafe { std::alloc::dealloc(start, layout) };
    world().mapped -= layout.size() as u64;
    0
}
