//! Trials of threads, locks and sleeps, and ways to run something on other cores.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use hermit_abi as abi;

use crate::os::{
    Function, NO_THREAD, Thread, cores, event_stream, futex_wait, futex_wake, join_all, now_us,
    say, sleep_us, spawn, spawn_with_stack, start, start_on_others, this_core,
};

static STARTED: AtomicUsize = AtomicUsize::new(0);

pub extern "C" fn count_in(by: usize) {
    STARTED.fetch_add(by, Ordering::SeqCst);
}

/// No core has an event stream, which nobody turns on where interrupts end the sleeps.
pub fn quiet() -> bool {
    STARTED.store(0, Ordering::SeqCst);
    let counted = (1..cores())
        .all(|core| spawn(count_event_stream, 0, core as isize).map(Thread::join) == Ok(0));
    count_event_stream(0);
    counted && STARTED.load(Ordering::SeqCst) == 0
}

extern "C" fn count_event_stream(_: usize) {
    STARTED.fetch_add(usize::from(event_stream() != 0), Ordering::SeqCst);
}

/// Every other core runs threads, again and again, and none takes two.
pub fn threads() -> bool {
    STARTED.store(0, Ordering::SeqCst);
    for _ in 0..13 {
        let threads: Result<Vec<Thread>, i32> =
            (1..cores()).map(|core| spawn(count_in, 7, core as isize)).collect();
        if !threads.is_ok_and(join_all) {
            return false;
        }
    }
    // SAFETY: the call is to be refused.
    let nowhere = unsafe { abi::spawn(ptr::null_mut(), count_in, 0, 2, -1) };
    nowhere == -abi::EINVAL
        && start(count_in, 0, 0).is_none()
        && spawn_with_stack(count_in, 0, 1 << 30, -1).is_none()
        && start(count_in, 0, 1000).is_none()
        && NO_THREAD.join() == -abi::EINVAL
        && STARTED.load(Ordering::SeqCst) == 13 * 7 * (cores() - 1)
}

/// The cores that have run `note_core`, a bit each.
static CORES: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note_core(_: usize) {
    CORES.fetch_or(1 << this_core(), Ordering::SeqCst);
}

/// The first thread runs on the core with this number. Threads can be started on each other one,
/// the boot core among them, but not on the first thread's own.
pub fn first_core(number: &str) -> bool {
    let runs = |core| spawn(note_core, 0, core).map(Thread::join) == Ok(0);
    let all = (1..cores()).all(|core| runs(core as isize));
    let own = runs(0);
    let others = ((1 << cores()) - 1) & !(1 << this_core());
    say(&format!("the first thread is on core {}\n", this_core()));
    all && !own && CORES.load(Ordering::SeqCst) == others && number == format!("{}", this_core())
}

static LOCK: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
const ROUNDS: usize = 2003;

/// A lock of three states: 0 free, 1 taken, 2 taken and waited for.
extern "C" fn count_under_lock(_: usize) {
    for _ in 0..ROUNDS {
        if LOCK.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            while LOCK.swap(2, Ordering::SeqCst) != 0 {
                futex_wait(&LOCK, 2, None, 0);
            }
        }
        let seen = COUNT.load(Ordering::Relaxed);
        core::hint::spin_loop();
        COUNT.store(seen + 1, Ordering::Relaxed);
        if LOCK.swap(0, Ordering::SeqCst) == 2 {
            futex_wake(&LOCK, 1);
        }
    }
}

/// All cores count under one lock; waits time out, and refuse what they should.
pub fn futex() -> bool {
    COUNT.store(0, Ordering::SeqCst);
    let threads: Vec<Thread> = (1..cores()).map(|_| start(count_under_lock, 0, -1)).collect();
    count_under_lock(0);
    let joined = join_all(threads);
    let word = AtomicU32::new(5);
    let begun = now_us();
    let timeout = abi::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let results = [
        futex_wait(&word, 5, Some(&timeout), 1) == -abi::ETIMEDOUT,
        (20_000..500_000).contains(&(now_us() - begun)),
        // The absolute time is long past.
        futex_wait(&word, 5, Some(&timeout), 0) == -abi::ETIMEDOUT,
        futex_wait(&word, 6, None, 0) == -abi::EAGAIN,
        futex_wait(&word, 5, None, 2) == -abi::EINVAL,
        // SAFETY: the call is to be refused.
        unsafe { abi::futex_wait(ptr::null_mut(), 5, ptr::null(), 0) } == -abi::EINVAL,
        futex_wake(&word, -1) == -abi::EINVAL,
        futex_wake(&word, i32::MAX) == 0,
    ];
    joined && results == [true; 8] && COUNT.load(Ordering::SeqCst) == ROUNDS * cores()
}

/// Sleeps last as long as they should.
pub fn sleep() -> bool {
    [0, 50, 3_000, 70_000].into_iter().all(|us| {
        let begun = now_us();
        sleep_us(us);
        (us..us + 400_000).contains(&(now_us() - begun))
    })
}

pub extern "C" fn write_line(core: usize) {
    for _ in 0..23 {
        let letters: String = [b'a' + core as u8; 61].map(char::from).iter().collect();
        say(&format!("<{letters}>\n"));
    }
}

/// All cores print at once; the reader of the log checks that each line is whole.
pub fn whole_lines() -> bool {
    let threads: Vec<Thread> = start_on_others(write_line).collect();
    write_line(0);
    join_all(threads)
}

/// Runs the function on one other core.
pub fn on_core(core: &str, function: Function) -> bool {
    let core: usize = core.parse().unwrap_or(1);
    start(function, core, core as isize).join();
    false
}

/// Runs the function on all cores, as nearly at once as can be.
pub fn everywhere(function: Function) -> bool {
    start_on_others(function).for_each(drop);
    function(0);
    false
}
