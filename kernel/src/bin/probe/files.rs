//! Trials of files, of the console's input, and of what the ABI must refuse.

use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::ptr;

use hermit_abi as abi;
// The runtime too: entry, allocator, panic handler, and the ABI's functions.
use kernel::app::load::{Meanwhile, at_once, choose_model, for_backend, load};
use kernel::app::sha256::{Digest, Sha256};
use kernel::app::thread_pool::ThreadPool;
use kernel::backend::{ContextOptions, Platform, TransformerBackend};
use kernel::system;
use spin::Mutex;

use crate::faults::write;
use crate::memory::memory_of_the_machine;
use crate::os::{Thread, close, cores, join_all, now_us, open, read, say, start};

/// Memory that is none is refused: more bytes than there can be, bytes past the last address,
/// null pointers, words that lie askew.
pub fn bounds() -> bool {
    let mut bytes = [0_u64; 4];
    let (start, most) = (bytes.as_mut_ptr().cast::<u8>(), isize::MAX as usize);
    let last = ptr::without_provenance_mut::<u8>(usize::MAX - 6);
    let (invalid, fault) = (-(abi::EINVAL as isize), -(abi::EFAULT as isize));
    let root = open(c"/", abi::O_DIRECTORY).unwrap_or(99);
    let askew = start.wrapping_add(2).cast::<u32>();
    // SAFETY: the calls are to be refused.
    let refused = unsafe {
        [most + 1, usize::MAX].into_iter().all(|len| {
            abi::read(abi::STDIN_FILENO, start, len) == invalid
                && abi::write(abi::STDOUT_FILENO, start, len) == invalid
                && abi::read(root, start, len) == invalid
                && abi::getdents64(root, start.cast(), len) == invalid as i64
        }) && [7, most].into_iter().all(|len| {
            abi::read(abi::STDIN_FILENO, last, len) == fault
                && abi::write(abi::STDOUT_FILENO, last, len) == fault
                && abi::read(root, last, len) == fault
                && abi::getdents64(root, last.cast(), len) == fault as i64
        }) && abi::read(abi::STDIN_FILENO, ptr::null_mut(), 1) == fault
            && abi::write(abi::STDOUT_FILENO, ptr::null(), 1) == fault
            && abi::futex_wait(askew, 1, ptr::null(), 0) == -abi::EINVAL
            && abi::futex_wake(askew, 1) == -abi::EINVAL
    };
    close(root);
    refused && bytes == [0; 4]
}

/// The path that all cores read, and what became of it on each.
static PATH: Mutex<Option<CString>> = Mutex::new(None);
static READS: Mutex<Vec<Result<Digest, i32>>> = Mutex::new(Vec::new());

/// The digest of a file that is read in chunks of `chunk` bytes, or the error number.
fn digest(path: &CStr, chunk: usize) -> Result<Digest, i32> {
    let fd = open(path, abi::O_RDONLY)?;
    let mut buffer = vec![0; chunk];
    let mut hash = Sha256::new();
    loop {
        match read(fd, &mut buffer) {
            0 => break,
            n if n < 0 => return Err(-n as i32),
            n => hash.update(&buffer[..n as usize]),
        }
    }
    match close(fd) {
        0 => Ok(hash.finish()),
        error => Err(-error),
    }
}

extern "C" fn read_file(chunk: usize) {
    let path = PATH.lock().clone().unwrap_or_default();
    let result = digest(&path, chunk);
    READS.lock().push(result);
}

/// All cores read a file at once, each in chunks of its own size, and find the same: its digest
/// is printed. If the disk fails, so is the reason.
pub fn file(path: &str) -> bool {
    *PATH.lock() = CString::new(path).ok();
    READS.lock().clear();
    let begin = |core: usize| {
        let chunk = (1_000_003 * core) % (3 << 20) + 17;
        start(read_file, chunk, core as isize)
    };
    let threads: Vec<Thread> = (1..cores()).map(begin).collect();
    read_file(4 << 20);
    let joined = join_all(threads);
    let reads = READS.lock();
    match reads[0] {
        Ok(digest) => say(&format!("{digest}  {path}\n")),
        Err(number) => say(&format!("error {number}: {}\n", disk_failure())),
    };
    joined && reads[0].is_ok() && *reads == vec![reads[0]; cores()]
}

/// Why the disk failed last.
fn disk_failure() -> String {
    let failure = system::get().and_then(|system| system.disk_failure());
    failure.map(|failure| failure.message).unwrap_or_default()
}

/// A path that is not there, or no disk at all; and nothing can be written.
pub fn no_file(path: &str) -> bool {
    let path = CString::new(path).unwrap_or_default();
    let missing = open(&path, abi::O_RDONLY);
    memory_of_the_machine().total_bytes > 0
        && open(&path, abi::O_RDWR | abi::O_CREAT) == Err(abi::EROFS)
        && matches!(missing, Err(abi::ENOENT | abi::ENODEV))
}

/// Repeats the bytes that are typed, up to a `q`.
pub fn input() -> bool {
    loop {
        let mut bytes = [0; 16];
        let n = read(abi::STDIN_FILENO, &mut bytes);
        if n <= 0 || bytes.contains(&b'q') {
            return n > 0;
        }
        say(&format!("{:?}\n", &bytes[..n as usize]));
    }
}

/// Loads the model on the disk as the application does, and writes to its first or last byte.
pub fn write_model(place: &str) -> bool {
    let pool: &'static ThreadPool = Box::leak(Box::new(ThreadPool::new(cores(), 60)));
    let context = ContextOptions::default();
    let loaded = choose_model(None).and_then(|path| {
        load(&path, true, true, context, pool, 60, Meanwhile::nothing(&mut at_once))
    });
    let Ok(loaded) = loaded else { return false };
    let last = if place == "last" { loaded.weights.len() - 1 } else { 0 };
    let address = loaded.weights.as_ptr().expose_provenance() + last;
    let platform = Platform { workers: pool, now_us, load: for_backend };
    let mut backend = TransformerBackend::on(platform, context);
    backend.load(loaded.plan, loaded.weights).is_ok() && write(address)
}
