//! A Hermit application that tries the runtime out on the machine: the boot arguments name trials.
//!
//! The trials that check something print `NAME: ok` or `NAME: FAILED` and go on; those that break
//! something end the run with the report that they are to show, so that each needs a boot of its own.
//! `ci/runtime.sh` boots them all; by hand:
//!
//! ```text
//! cargo build --release -p kernel --bin probe --target aarch64-unknown-none \
//!     --target-dir target/bare
//! image-builder kernel --elf target/bare/aarch64-unknown-none/release/probe \
//!     --out target/probe.img
//! qemu-system-aarch64 -M virt -cpu cortex-a72 -smp 4 -m 256M -nic none -nographic \
//!     -kernel target/probe.img -append "threads futex sleep overflow"
//! ```
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program boots on bare aarch64");
}

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod trials {
    use alloc::boxed::Box;
    use alloc::ffi::CString;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::arch::asm;
    use core::ffi::{CStr, c_char};
    use core::hint::black_box;
    use core::ptr::{self, NonNull};
    use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

    use hermit_abi as abi;
    // The runtime too: entry, allocator, panic handler, and the ABI's functions.
    use kernel::app::load::{choose_model, for_backend, load};
    use kernel::app::sha256::{Digest, Sha256};
    use kernel::app::team::Team;
    use kernel::backend::{ContextOptions, Platform, TransformerBackend};
    use kernel::llm::workers::Workers;
    use kernel::system::{self, Application, Memory};
    use spin::Mutex;

    #[unsafe(no_mangle)]
    static APPLICATION: Application =
        Application { kernels: || "none", reboots: || REBOOTS.load(Ordering::Relaxed) };

    static REBOOTS: AtomicBool = AtomicBool::new(false);

    #[unsafe(no_mangle)]
    unsafe extern "C" fn runtime_entry(
        argc: i32,
        argv: *const *const c_char,
        _env: *const *const c_char,
    ) -> ! {
        let mut failed = 0;
        for i in 1..argc as usize {
            // SAFETY: the runtime gives `argc` C strings that live for ever.
            let word = unsafe { CStr::from_ptr(*argv.add(i)) }.to_str().unwrap_or("?");
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let passed = match name {
                "echo" => say(&format!("echo: [{value}]\n")),
                "early-map" => early_map(),
                "memory" => memory(),
                "threads" => threads(),
                "first-core" => first_core(value),
                "futex" => futex(),
                "sleep" => sleep(),
                "bounds" => bounds(),
                "quiet" => quiet(),
                "pieces" => pieces(),
                "file" => file(value),
                "no-file" => no_file(value),
                "input" => input(),
                "panic" => panic!("as asked"),
                "null" => read(NOWHERE),
                "call-null" => run(0),
                "write-code" => write(runtime_entry as *const () as usize),
                "protect" => protect(),
                "write-at" => write(hexadecimal(value)),
                "write-protected" => write_protected(),
                "write-model" => write_model(value),
                "write-constant" => write(ENTRY_POINTS.as_ptr() as usize),
                "run-stack" => run(black_box([RET]).as_ptr() as usize),
                "run-heap" => run(vec![RET; 1 << 20].as_ptr() as usize),
                "run-constant" => run((&raw const CONSTANT) as usize),
                "undefined" => undefined(),
                "misaligned-device" => misaligned_device(value),
                "user-page" => user_page(),
                "overflow" => recurse(1) > 0,
                "overflow-on" => on_core(value, overflow),
                "null-on" => on_core(value, read_null),
                "panic-on" => on_core(value, panic_there),
                "panic-all" => everywhere(panic_there),
                "null-all" => everywhere(read_null),
                "out-of-memory-all" => everywhere(out_of_memory),
                "exhaust" => exhaust(),
                "panic-in-noise" => panic_in_noise(),
                "panic-brittle" => panic!("{}", Brittle::new(value)),
                "panic-without-console" => panic_without_console(value),
                "stall" => stall(value),
                "job-in-job" => job_in_job(value),
                "stall-load" => stall_load(value),
                "abort" => abort(),
                "out-of-memory" => {
                    out_of_memory(0);
                    false
                }
                "reboot" => {
                    REBOOTS.store(true, Ordering::Relaxed);
                    true
                }
                "exit" => exit(value.parse().unwrap_or(-1)),
                _ => false,
            };
            // In pieces, as there may be no memory left to put them together.
            say(name);
            say(if passed { ": ok\n" } else { ": FAILED\n" });
            failed += i32::from(!passed);
        }
        exit(failed)
    }

    fn exit(status: i32) -> ! {
        // SAFETY: no preconditions.
        unsafe { abi::exit(status) }
    }

    fn say(text: &str) -> bool {
        // SAFETY: `text` is valid for reads of its length.
        let n = unsafe { abi::write(abi::STDOUT_FILENO, text.as_ptr(), text.len()) };
        n == text.len() as isize
    }

    fn now_us() -> u64 {
        let mut now = abi::timespec::default();
        // SAFETY: a valid place for the answer.
        unsafe { abi::clock_gettime(abi::CLOCK_MONOTONIC, &raw mut now) };
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
    }

    fn cores() -> usize {
        // SAFETY: no preconditions.
        unsafe { abi::available_parallelism() }
    }

    unsafe extern "C" {
        static early_tables: [u64; 512];
        static __image_start: u8;
        static __text_end: u8;
        static __image_end: u8;
    }

    /// In the tables of the early map, which nothing has used since, the image and what may be the
    /// device tree are memory, only the code is executable, and all else is device memory.
    fn early_map() -> bool {
        const BLOCK: u64 = 2 << 20;
        const NEVER_EXECUTE: u64 = 3 << 53;
        const MEMORY: u64 = 1 << 2;
        let place = |symbol: *const u8| symbol as u64;
        let start = place(&raw const __image_start);
        let code = start..place(&raw const __text_end);
        let image = start..place(&raw const __image_end);
        let holds =
            |of: &core::ops::Range<u64>, block: u64| block < of.end && of.start < block + BLOCK;
        // SAFETY: only `boot.s` and the processor have ever used the tables, each of which is whole.
        let table = |at: u64| unsafe { (at as *const [u64; 512]).read_volatile() };
        let below = |entry: u64| {
            (entry & 3 == 3).then(|| table(entry & 0xffff_ffff_f000)).into_iter().flatten()
        };
        let (mut right, mut of_image, mut of_tree) = (true, 0, 0);
        for large in table((&raw const early_tables) as u64).into_iter().flat_map(below) {
            // A block of 1 GiB is of devices.
            right &= large & 3 == 3 || large & (MEMORY | NEVER_EXECUTE) == NEVER_EXECUTE;
            for entry in below(large) {
                let block = entry & 0xffff_ffe0_0000;
                let executable = entry & NEVER_EXECUTE == 0;
                let is_memory = entry & MEMORY != 0;
                right &= entry & 3 == 1 && executable == holds(&code, block);
                right &= is_memory || entry & NEVER_EXECUTE == NEVER_EXECUTE;
                of_image += u64::from(is_memory && holds(&image, block));
                of_tree += u64::from(is_memory && !holds(&image, block));
            }
        }
        let blocks = image.end.div_ceil(BLOCK) - image.start / BLOCK;
        // QEMU's tree has 1 MiB; the names of functions behind the image may take a block more.
        right && of_image == blocks && of_tree <= 3
    }

    /// Bytes of the blocks that use up the heap.
    const PIECE: usize = 1 << 20;

    /// Blocks of many sizes keep what is written to them, come aligned, and can be had again.
    fn memory() -> bool {
        for _ in 0..3 {
            let sizes = [1, 31, 4096, 65_537, 3 << 20, 16 << 20];
            let mut blocks = Vec::new();
            for (i, size) in sizes.into_iter().enumerate() {
                // SAFETY: no preconditions.
                let block = unsafe { abi::alloc(size, 64) };
                if block.is_null() || !block.addr().is_multiple_of(64) {
                    return false;
                }
                // SAFETY: the block is that large and new.
                unsafe { block.write_bytes(i as u8 + 1, size) };
                blocks.push((block, size));
            }
            for (i, (block, size)) in blocks.into_iter().enumerate() {
                // SAFETY: written above.
                let bytes = unsafe { core::slice::from_raw_parts(block, size) };
                if bytes.iter().any(|&byte| byte != i as u8 + 1) {
                    return false;
                }
                // SAFETY: allocated above with this size and alignment, not used again.
                unsafe { abi::dealloc(block, size, 64) };
            }
        }
        // The heap gives all that it has, no block twice, and the same again once it is freed.
        let mut counts = [0; 2];
        for count in &mut counts {
            let mut blocks = Vec::with_capacity(8192);
            // SAFETY: no preconditions.
            while let Some(block) = NonNull::new(unsafe { abi::alloc(PIECE, 64) }.cast::<usize>()) {
                blocks.push(block);
            }
            *count = blocks.len();
            for (i, block) in blocks.iter().enumerate() {
                // SAFETY: the block is large enough and new.
                unsafe { block.write(i) };
            }
            for (i, block) in blocks.into_iter().enumerate() {
                // SAFETY: written above; allocated with this size and alignment, not used again.
                unsafe {
                    if block.read() != i {
                        return false;
                    }
                    abi::dealloc(block.as_ptr().cast(), PIECE, 64);
                }
            }
        }
        counts[0] > 10 && counts[0] == counts[1]
    }

    static STARTED: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count_in(by: usize) {
        STARTED.fetch_add(by, Ordering::SeqCst);
    }

    /// No core has an event stream, which nobody turns on where interrupts end the sleeps.
    fn quiet() -> bool {
        STARTED.store(0, Ordering::SeqCst);
        for core in 1..cores() {
            let mut id = 0;
            // SAFETY: the function may be called with any argument.
            let result =
                unsafe { abi::spawn(&raw mut id, count_event_stream, 0, 2, core as isize) };
            // SAFETY: no preconditions.
            if result != 0 || unsafe { abi::join(id) } != 0 {
                return false;
            }
        }
        count_event_stream(0);
        STARTED.load(Ordering::SeqCst) == 0
    }

    extern "C" fn count_event_stream(_: usize) {
        let setting: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, cntkctl_el1", out(reg) setting, options(nomem, nostack)) };
        STARTED.fetch_add(usize::from(setting != 0), Ordering::SeqCst);
    }

    /// Every other core runs threads, again and again, and none takes two.
    fn threads() -> bool {
        STARTED.store(0, Ordering::SeqCst);
        for _ in 0..13 {
            let mut ids = Vec::new();
            for core in 1..cores() {
                let mut id = 0;
                // SAFETY: the function may be called with any argument.
                let result = unsafe { abi::spawn(&raw mut id, count_in, 7, 2, core as isize) };
                if result != 0 {
                    return false;
                }
                ids.push(id);
            }
            // SAFETY: no preconditions.
            if ids.into_iter().any(|id| unsafe { abi::join(id) } != 0) {
                return false;
            }
        }
        // SAFETY: no preconditions.
        let nonsense = unsafe {
            abi::spawn(ptr::null_mut(), count_in, 0, 2, -1) == -abi::EINVAL
                && abi::spawn2(count_in, 0, 2, 0, 0) == 0
                && abi::spawn2(count_in, 0, 2, 1 << 30, -1) == 0
                && abi::spawn2(count_in, 0, 2, 0, 1000) == 0
                && abi::join(9999) == -abi::EINVAL
        };
        nonsense && STARTED.load(Ordering::SeqCst) == 13 * 7 * (cores() - 1)
    }

    /// The number of the calling core.
    fn this_core() -> usize {
        let core;
        // SAFETY: reads a register, which the runtime has set.
        unsafe { asm!("mrs {}, tpidr_el1", out(reg) core, options(nomem, nostack)) };
        core
    }

    /// The cores that have run `note_core`, a bit each.
    static CORES: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn note_core(_: usize) {
        CORES.fetch_or(1 << this_core(), Ordering::SeqCst);
    }

    /// The first thread runs on the core with this number, and threads can be started on each other one,
    /// the boot core among them, but not on its own.
    fn first_core(number: &str) -> bool {
        let mut id = 0;
        let mut spawn = |core| {
            // SAFETY: the function may be called with any argument.
            unsafe { abi::spawn(&raw mut id, note_core, 0, 2, core) == 0 && abi::join(id) == 0 }
        };
        let all = (1..cores()).all(|core| spawn(core as isize));
        let own = spawn(0);
        let others = ((1 << cores()) - 1) & !(1 << this_core());
        say(&format!("the first thread is on core {}\n", this_core()));
        all && !own
            && CORES.load(Ordering::SeqCst) == others
            && number == format!("{}", this_core())
    }

    static LOCK: AtomicU32 = AtomicU32::new(0);
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    const ROUNDS: usize = 2003;

    /// A lock of three states: 0 free, 1 taken, 2 taken and waited for.
    extern "C" fn count_under_lock(_: usize) {
        for _ in 0..ROUNDS {
            if LOCK.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                while LOCK.swap(2, Ordering::SeqCst) != 0 {
                    // SAFETY: the word is a static.
                    unsafe { abi::futex_wait(LOCK.as_ptr(), 2, ptr::null(), 0) };
                }
            }
            let seen = COUNT.load(Ordering::Relaxed);
            core::hint::spin_loop();
            COUNT.store(seen + 1, Ordering::Relaxed);
            if LOCK.swap(0, Ordering::SeqCst) == 2 {
                // SAFETY: the word is a static.
                unsafe { abi::futex_wake(LOCK.as_ptr(), 1) };
            }
        }
    }

    /// All cores count under one lock; waits time out, and refuse what they should.
    fn futex() -> bool {
        COUNT.store(0, Ordering::SeqCst);
        let mut ids = Vec::new();
        for _ in 1..cores() {
            // SAFETY: the function may be called with any argument.
            ids.push(unsafe { abi::spawn2(count_under_lock, 0, 2, 0, -1) });
        }
        count_under_lock(0);
        // SAFETY: no preconditions.
        let joined = ids.into_iter().all(|id| unsafe { abi::join(id) } == 0);
        let word = AtomicU32::new(5);
        let start = now_us();
        let timeout = abi::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        // SAFETY: word and timeout are valid for each call.
        let results = unsafe {
            [
                abi::futex_wait(word.as_ptr(), 5, &raw const timeout, 1) == -abi::ETIMEDOUT,
                (20_000..500_000).contains(&(now_us() - start)),
                // The absolute time is long past.
                abi::futex_wait(word.as_ptr(), 5, &raw const timeout, 0) == -abi::ETIMEDOUT,
                abi::futex_wait(word.as_ptr(), 6, ptr::null(), 0) == -abi::EAGAIN,
                abi::futex_wait(word.as_ptr(), 5, ptr::null(), 2) == -abi::EINVAL,
                abi::futex_wait(ptr::null_mut(), 5, ptr::null(), 0) == -abi::EINVAL,
                abi::futex_wake(word.as_ptr(), -1) == -abi::EINVAL,
                abi::futex_wake(word.as_ptr(), i32::MAX) == 0,
            ]
        };
        joined && results == [true; 8] && COUNT.load(Ordering::SeqCst) == ROUNDS * cores()
    }

    /// Sleeps last as long as they should.
    fn sleep() -> bool {
        [0, 50, 3_000, 70_000].into_iter().all(|us| {
            let start = now_us();
            // SAFETY: no preconditions.
            unsafe { abi::usleep(us) };
            (us..us + 400_000).contains(&(now_us() - start))
        })
    }

    /// Memory that is none is refused: more bytes than there can be, bytes past the last address,
    /// null pointers, words that lie askew.
    fn bounds() -> bool {
        let mut bytes = [0_u64; 4];
        let (start, most) = (bytes.as_mut_ptr().cast::<u8>(), isize::MAX as usize);
        let last = ptr::without_provenance_mut::<u8>(usize::MAX - 6);
        let (invalid, fault) = (-(abi::EINVAL as isize), -(abi::EFAULT as isize));
        let root = open(c"/", abi::O_DIRECTORY).unwrap_or(99);
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
        };
        let askew = start.wrapping_add(2).cast::<u32>();
        // SAFETY: the calls are to be refused.
        let words =
            unsafe { [abi::futex_wait(askew, 1, ptr::null(), 0), abi::futex_wake(askew, 1)] };
        // SAFETY: no preconditions.
        unsafe { abi::close(root) };
        refused && words == [-abi::EINVAL; 2] && bytes == [0; 4]
    }

    extern "C" fn write_line(core: usize) {
        for _ in 0..23 {
            say(&format!(
                "<{}>\n",
                [b'a' + core as u8; 61].map(char::from).iter().collect::<alloc::string::String>()
            ));
        }
    }

    /// All cores print at once; the reader of the log checks that each line is whole.
    fn pieces() -> bool {
        let start = |core| {
            // SAFETY: the function may be called with any argument.
            unsafe { abi::spawn2(write_line, core, 2, 0, core as isize) }
        };
        let ids: Vec<_> = (1..cores()).map(start).collect();
        write_line(0);
        // SAFETY: no preconditions.
        ids.into_iter().all(|id| unsafe { abi::join(id) } == 0)
    }

    /// The path that all cores read, and what became of it on each.
    static PATH: Mutex<Option<CString>> = Mutex::new(None);
    static READS: Mutex<Vec<Result<Digest, i32>>> = Mutex::new(Vec::new());

    /// Opens a path for reading, or gives the error number.
    fn open(path: &CStr, flags: i32) -> Result<i32, i32> {
        // SAFETY: the path ends with a zero byte.
        let fd = unsafe { abi::open(path.as_ptr(), flags, 0) };
        if fd < 0 { Err(-fd) } else { Ok(fd) }
    }

    /// The digest of a file that is read in pieces of `piece` bytes, or the error number.
    fn digest(path: &CStr, piece: usize) -> Result<Digest, i32> {
        let fd = open(path, abi::O_RDONLY)?;
        let mut buffer = vec![0; piece];
        let mut hash = Sha256::new();
        loop {
            // SAFETY: valid for writes of its length.
            match unsafe { abi::read(fd, buffer.as_mut_ptr(), buffer.len()) } {
                0 => break,
                n if n < 0 => return Err(-n as i32),
                n => hash.update(&buffer[..n as usize]),
            }
        }
        // SAFETY: no preconditions.
        match unsafe { abi::close(fd) } {
            0 => Ok(hash.finish()),
            error => Err(-error),
        }
    }

    extern "C" fn read_file(piece: usize) {
        let path = PATH.lock().clone().unwrap_or_default();
        let result = digest(&path, piece);
        READS.lock().push(result);
    }

    /// All cores read a file at once, each in pieces of its own size, and find the same: its digest
    /// is printed. If the disk fails, so is the reason.
    fn file(path: &str) -> bool {
        *PATH.lock() = CString::new(path).ok();
        READS.lock().clear();
        let start = |core: usize| {
            let piece = (1_000_003 * core) % (3 << 20) + 17;
            // SAFETY: the function may be called with any argument.
            unsafe { abi::spawn2(read_file, piece, 2, 0, core as isize) }
        };
        let ids: Vec<_> = (1..cores()).map(start).collect();
        read_file(4 << 20);
        // SAFETY: no preconditions.
        let joined = ids.into_iter().all(|id| unsafe { abi::join(id) } == 0);
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
    fn no_file(path: &str) -> bool {
        let path = CString::new(path).unwrap_or_default();
        let missing = open(&path, abi::O_RDONLY);
        memory_of_the_machine().total_bytes > 0
            && open(&path, abi::O_RDWR | abi::O_CREAT) == Err(abi::EROFS)
            && matches!(missing, Err(abi::ENOENT | abi::ENODEV))
    }

    /// Repeats the bytes that are typed, up to a `q`.
    fn input() -> bool {
        loop {
            let mut bytes = [0; 16];
            // SAFETY: valid for writes of its length.
            let n = unsafe { abi::read(abi::STDIN_FILENO, bytes.as_mut_ptr(), bytes.len()) };
            if n <= 0 || bytes.contains(&b'q') {
                return n > 0;
            }
            say(&format!("{:?}\n", &bytes[..n as usize]));
        }
    }

    /// Where nothing is, and what is no place for more than a byte.
    const NOWHERE: usize = 7;
    /// The instruction RET.
    const RET: u32 = 0xd65f_03c0;
    static CONSTANT: u32 = RET;
    static ENTRY_POINTS: [extern "C" fn(usize); 2] = [count_in, write_line];

    /// Says at which address the fault is to come, for the report to be compared.
    fn aim(address: usize) {
        say(&format!("aim: {address:#x}\n"));
    }

    #[inline(never)]
    fn read(address: usize) -> bool {
        aim(address);
        // SAFETY: none: it is to fault.
        unsafe { (address as *const u8).read_volatile() == 0 }
    }

    #[inline(never)]
    fn write(address: usize) -> bool {
        aim(address);
        // SAFETY: none: it is to fault.
        unsafe { (address as *mut u8).write_volatile(1) };
        false
    }

    #[inline(never)]
    fn run(address: usize) -> bool {
        aim(address);
        // SAFETY: none: it is to fault.
        unsafe { asm!("blr {}", in(reg) address, clobber_abi("C")) };
        false
    }

    const PAGE: usize = 4096;
    /// What the map has in one block, if it can.
    const BLOCK: usize = 2 << 20;
    const READ_WRITE: u32 = abi::PROT_READ | abi::PROT_WRITE;

    /// New pages, or the error.
    fn map(bytes: usize, flags: u32) -> Result<*mut u8, i32> {
        let mut start = ptr::null_mut();
        // SAFETY: a valid place for the answer.
        match unsafe { abi::mmap(bytes, flags, &mut start) } {
            0 => Ok(start),
            error => Err(-error),
        }
    }

    fn unmap(start: *mut u8, bytes: usize) -> i32 {
        // SAFETY: the memory is the trial's own, or the call is to be refused.
        unsafe { abi::munmap(start, bytes) }
    }

    fn set_protection(start: *mut u8, bytes: usize, flags: u32) -> i32 {
        // SAFETY: the memory is the trial's own, or the call is to be refused.
        unsafe { abi::mprotect(start, bytes, flags) }
    }

    fn memory_of_the_machine() -> Memory {
        system::get().map(|system| system.memory()).unwrap_or_default()
    }

    /// Bytes that the heap can still give.
    fn available() -> usize {
        memory_of_the_machine().free_bytes as usize
    }

    /// Bytes that other cores write to, again and again, until the first is taken away.
    static WORDS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

    #[inline(never)]
    extern "C" fn write_again(_: usize) {
        while WORDS[0].load(Ordering::SeqCst) != 0 {
            for word in &WORDS {
                let at = word.load(Ordering::SeqCst) as *mut u8;
                if !at.is_null() {
                    // SAFETY: a byte that the trial has for this, and that nobody reads.
                    unsafe { at.write_volatile(2) };
                }
            }
        }
    }

    /// Memory is made read-only and writable again, and comes and goes, while other cores use what lies
    /// beside it.
    fn protect() -> bool {
        let before = available();
        let bytes = BLOCK + 3 * PAGE;
        let Ok(start) = map(bytes - 17, READ_WRITE) else { return false };
        // What is behind the last page is somebody else's.
        let taken = before - available();
        let small =
            start.addr().is_multiple_of(PAGE) && (bytes..bytes + BLOCK / 8).contains(&taken);
        // The neighbours: a page in the same block that is split, and the heap.
        let neighbour = start.wrapping_add(bytes - 3 * PAGE);
        let mut heap = vec![0_u8; 64];
        WORDS[0].store(neighbour.addr(), Ordering::SeqCst);
        WORDS[1].store(heap.as_mut_ptr().expose_provenance(), Ordering::SeqCst);
        let writer = |_| {
            // SAFETY: the function may be called with any argument.
            unsafe { abi::spawn2(write_again, 0, 2, 0, -1) }
        };
        let writers: Vec<_> = (1..cores()).map(writer).collect();
        let second = neighbour.wrapping_add(PAGE);
        // SAFETY: as many bytes are there.
        unsafe { start.write_bytes(0, bytes - 3 * PAGE) };
        // SAFETY: it is writable.
        unsafe { second.write_volatile(0) };
        let good = (0..53_u8).all(|i| {
            let done = set_protection(second, PAGE + 1, abi::PROT_READ) == 0
                && set_protection(start, BLOCK, abi::PROT_READ) == 0;
            // SAFETY: as many bytes are there.
            let kept = unsafe { second.read_volatile() == i && start.read_volatile() == i };
            let undone = set_protection(second, 2 * PAGE, READ_WRITE) == 0
                && set_protection(start, BLOCK, READ_WRITE) == 0;
            for at in [start, second] {
                // SAFETY: it is writable again.
                unsafe { at.write_volatile(i + 1) };
            }
            let other = map(PAGE * (usize::from(i) + 1), abi::PROT_READ);
            let gone = other.map(|other| unmap(other, PAGE * (usize::from(i) + 1)));
            done && kept && undone && gone == Ok(0)
        });
        let image = (&raw const __image_start).cast_mut();
        let of_the_heap = vec![0_u8; 3 * PAGE];
        let heap_page = of_the_heap.as_ptr().cast_mut().map_addr(|at| at.next_multiple_of(PAGE));
        let refused = [
            set_protection(start, PAGE, abi::PROT_NONE),
            set_protection(start, PAGE, abi::PROT_READ | abi::PROT_EXEC),
            set_protection(start.wrapping_add(1), PAGE, abi::PROT_READ),
            set_protection(second, 3 * PAGE, abi::PROT_READ),
            set_protection(start, usize::MAX - PAGE + 1, abi::PROT_READ),
            set_protection(ptr::null_mut(), PAGE, abi::PROT_READ),
            set_protection(image, PAGE, READ_WRITE),
            set_protection(heap_page, PAGE, abi::PROT_READ),
            set_protection(ptr::without_provenance_mut(0x1000_0000_0000), PAGE, abi::PROT_READ),
            unmap(start, BLOCK),
            unmap(second, PAGE),
            unmap(heap_page, PAGE),
        ];
        let none = [map(0, READ_WRITE), map(PAGE, READ_WRITE | abi::PROT_EXEC)];
        // Of a block of 2 MiB, which the memory starts with where it is not mapped by pages, only all.
        let by_blocks = start.addr().is_multiple_of(BLOCK);
        let part = set_protection(start, PAGE, abi::PROT_READ);
        WORDS[0].store(0, Ordering::SeqCst);
        // SAFETY: no preconditions.
        let joined = writers.into_iter().all(|id| unsafe { abi::join(id) } == 0);
        small
            && good
            && joined
            && refused == [-abi::EINVAL; 12]
            && none == [Err(abi::EINVAL); 2]
            && map(usize::MAX / 2, READ_WRITE) == Err(abi::ENOMEM)
            && (part == 0 || (by_blocks && part == -abi::ENOMEM))
            // It goes back to the heap while it is read-only.
            && set_protection(start, bytes, abi::PROT_READ) == 0
            && unmap(start, bytes) == 0
            && before - available() < BLOCK / 8
    }

    /// Another core writes to memory, which this one makes read-only meanwhile.
    fn write_protected() -> bool {
        let Ok(first) = map(2 * PAGE, READ_WRITE) else { return false };
        let second = first.wrapping_add(PAGE);
        aim(second.addr());
        WORDS[0].store(first.addr(), Ordering::SeqCst);
        WORDS[1].store(second.addr(), Ordering::SeqCst);
        // SAFETY: the function may be called with any argument.
        unsafe { abi::spawn2(write_again, 0, 2, 0, 1) };
        let protected = sleep() && set_protection(second, PAGE, abi::PROT_READ) == 0;
        sleep();
        say(if protected { "it is still written to\n" } else { "it is not protected\n" });
        false
    }

    /// Loads the model on the disk as the application does, and writes to its first or last byte.
    fn write_model(place: &str) -> bool {
        let team: &'static Team = Box::leak(Box::new(Team::new(cores(), 60)));
        let context = ContextOptions::default();
        let loaded = choose_model(None).and_then(|path| load(&path, true, true, context, team, 60));
        let Ok(loaded) = loaded else { return false };
        let last = if place == "last" { loaded.weights.len() - 1 } else { 0 };
        let address = loaded.weights.as_ptr().expose_provenance() + last;
        let platform = Platform { workers: team, now_us, load: for_backend };
        let mut backend = TransformerBackend::on(platform, context);
        backend.load(loaded.plan, loaded.weights).is_ok() && write(address)
    }

    #[inline(never)]
    fn undefined() -> bool {
        // SAFETY: none: it is to fault.
        unsafe { asm!("udf #7") };
        false
    }

    /// The number in a boot argument, in hexadecimal.
    fn hexadecimal(text: &str) -> usize {
        usize::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0)
    }

    /// Reads a word that does not lie on a multiple of its size, near the register at `device`.
    #[inline(never)]
    fn misaligned_device(device: &str) -> bool {
        let address = hexadecimal(device) + 1;
        aim(address);
        // SAFETY: none: it is to fault.
        unsafe { asm!("ldr {:w}, [{}]", out(reg) _, in(reg) address) };
        false
    }

    /// Changes the descriptor that maps `address` in the tables that the processor walks.
    fn change_descriptor(address: usize, change: impl Fn(u64) -> u64) {
        let mut table: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, ttbr0_el1", out(reg) table) };
        for level in 0..4 {
            let index = address >> (39 - 9 * level) & 511;
            let entry = (table & 0xffff_ffff_f000) as *mut u64;
            // SAFETY: the tables are mapped where they lie, and nobody else changes them now.
            let value = unsafe { entry.add(index).read_volatile() };
            if level < 3 && value & 3 == 3 {
                table = value;
                continue;
            }
            // SAFETY: as above; what becomes of the address is up to the trial.
            unsafe {
                entry.add(index).write_volatile(change(value));
                asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb");
            }
            return;
        }
    }

    /// Reads memory that user mode may use, which PAN forbids.
    fn user_page() -> bool {
        let block = vec![0_u8; 4 << 20];
        let address = block.as_ptr() as usize + (2 << 20);
        change_descriptor(address, |entry| entry | 1 << 6);
        read(address)
    }

    #[inline(never)]
    #[expect(unconditional_recursion, reason = "it is to overflow the stack")]
    fn recurse(depth: u64) -> u64 {
        let frame = black_box([depth; 64]);
        recurse(depth + 1) + frame[black_box(3)]
    }

    extern "C" fn overflow(_: usize) {
        recurse(1);
    }

    extern "C" fn read_null(_: usize) {
        read(NOWHERE);
    }

    extern "C" fn panic_there(core: usize) {
        panic!("as asked, by {core}");
    }

    extern "C" fn out_of_memory(_: usize) {
        let mut kept = Vec::new();
        loop {
            kept.push(Vec::<u8>::with_capacity(black_box(13 << 20)));
        }
    }

    /// Runs the function on one other core.
    fn on_core(core: &str, function: extern "C" fn(usize)) -> bool {
        let core: usize = core.parse().unwrap_or(1);
        // SAFETY: the function may be called with any argument.
        let id = unsafe { abi::spawn2(function, core, 2, 0, core as isize) };
        // SAFETY: no preconditions.
        unsafe { abi::join(id) };
        false
    }

    /// Runs the function on all cores, as nearly at once as can be.
    fn everywhere(function: extern "C" fn(usize)) -> bool {
        for core in 1..cores() {
            // SAFETY: the function may be called with any argument.
            unsafe { abi::spawn2(function, core, 2, 0, core as isize) };
        }
        function(0);
        false
    }

    /// Takes all of the heap, to the last byte.
    fn exhaust() -> bool {
        let mut size = 16 << 20;
        while size > 0 {
            // SAFETY: no preconditions.
            if unsafe { abi::alloc(size, 1) }.is_null() {
                size /= 2;
            }
        }
        // Not even this has room now, so that what follows must do without.
        // SAFETY: no preconditions.
        unsafe { abi::alloc(1, 1) }.is_null()
    }

    /// Can be shown so many times; then that breaks.
    struct Brittle(AtomicUsize);

    impl Brittle {
        fn new(times: &str) -> Self {
            Brittle(AtomicUsize::new(times.parse().unwrap_or(0)))
        }
    }

    impl core::fmt::Display for Brittle {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            if self.0.fetch_sub(1, Ordering::Relaxed) == 0 {
                read(NOWHERE);
            }
            f.write_str("shown as long as it held")
        }
    }

    /// Panics with the console's registers gone: whatever is printed is another fault.
    fn panic_without_console(device: &str) -> bool {
        say("from here on there is no console\n");
        change_descriptor(hexadecimal(device), |_| 0);
        panic!("unheard");
    }

    extern "C" fn print_for_ever(_: usize) {
        loop {
            say("noise\n");
        }
    }

    /// The console and its lock are in use all the time.
    fn panic_in_noise() -> bool {
        for _ in 1..cores() {
            // SAFETY: the function may be called with any argument.
            unsafe { abi::spawn2(print_for_ever, 0, 2, 0, -1) };
        }
        sleep();
        panic!("in the middle of noise");
    }

    fn never_return() -> ! {
        loop {
            core::hint::spin_loop();
        }
    }

    /// A core that never comes to the end of its part of a job, which the others wait for.
    fn stall(core: &str) -> bool {
        let core: usize = core.parse().unwrap_or(1);
        Team::new(cores(), 2).run(&|member| {
            if member == core {
                never_return();
            }
        });
        false
    }

    /// A job that starts another one of its team: by the caller, or by another member.
    fn job_in_job(member: &str) -> bool {
        let (team, starter) = (Team::new(cores(), 60), member.parse().unwrap_or(0));
        team.run(&|member| {
            if member == starter {
                team.run(&|_| ());
            }
        });
        false
    }

    /// A team in which one member does nothing of its part of a job.
    struct Without<'a>(&'a Team, usize);

    impl Workers for Without<'_> {
        fn count(&self) -> usize {
            self.0.count()
        }

        fn run(&self, job: &(dyn Fn(usize) + Sync)) {
            self.0.run(&|member| {
                if member == self.1 {
                    never_return();
                }
                job(member);
            });
        }
    }

    /// A thread that never does its part when a model is loaded.
    fn stall_load(thread: &str) -> bool {
        let team = Team::new(cores(), 60);
        let workers = Without(&team, thread.parse().unwrap_or(0));
        choose_model(None)
            .and_then(|path| load(&path, true, true, ContextOptions::default(), &workers, 2))
            .is_err()
    }

    fn abort() -> bool {
        // SAFETY: no preconditions.
        unsafe { abi::abort() }
    }
}
