//! Threads: at most one on each core.
//!
//! A thread starts on an idle core and runs there to its end. Nothing ever interrupts a thread. The
//! application's first thread runs on the boot core, or on a faster core
//! ([`first_core`](super::first_core)). The boot core then runs threads as the others do.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::futex::{Futexes, NotWoken};
use super::{cores, idle};
use crate::runtime::arch::lock::SpinLock;
use crate::runtime::arch::this_core::{self, MAX_CORES};

/// The number of a thread.
pub type Tid = u32;

/// The number of the application's first thread.
const FIRST: Tid = 1;

/// The core of the first thread, set before any other thread starts.
static FIRST_CORE: AtomicUsize = AtomicUsize::new(0);

/// The waiting threads.
static FUTEXES: Futexes<MAX_CORES> = Futexes::new();

static SLOTS: [Slot; MAX_CORES] = [const { Slot::new() }; MAX_CORES];

/// The number of the next thread.
static NEXT: AtomicU32 = AtomicU32::new(FIRST + 1);

/// The thread of a core.
struct Slot {
    /// The thread's number, [`NONE`] or [`TAKEN`]. The word is a futex.
    tid: AtomicU32,
    /// The task of the thread, from `spawn` until the thread's core takes the task.
    task: SpinLock<Option<Task>>,
}

/// The task of a thread: a function and its argument.
///
/// The function is a function pointer, whose type Rust knows.
struct Task {
    function: extern "C" fn(usize),
    argument: usize,
}

/// No thread runs on the core.
const NONE: Tid = 0;
/// A thread is about to run on the core.
const TAKEN: Tid = Tid::MAX;

impl Slot {
    const fn new() -> Self {
        Slot { tid: AtomicU32::new(NONE), task: SpinLock::new(None) }
    }
}

/// Runs `function` as the application's first thread, on `core`.
///
/// The boot core calls this before any other thread starts, and then runs other threads. The call
/// does nothing if `core` is the boot core, or is not up.
pub fn run_first(function: extern "C" fn(usize), core: usize) {
    if core == this_core::current() || !cores::is_up(core) {
        return;
    }
    FIRST_CORE.store(core, Ordering::SeqCst);
    start(core, FIRST, Task { function, argument: 0 });
    run(this_core::current());
}

/// Gives a thread to an idle core.
fn start(core: usize, tid: Tid, task: Task) {
    let slot = &SLOTS[core];
    *slot.task.lock() = Some(task);
    slot.tid.store(tid, Ordering::SeqCst);
    idle::wake(core);
}

/// Starts a thread that runs `function(argument)`; returns the thread's number.
///
/// `core` counts among the cores that are up; without `core`, the thread starts on any idle core.
/// The core of the first thread is number 0, which is always busy. The result is `None` if the core
/// does not exist or is busy.
pub fn spawn(function: extern "C" fn(usize), argument: usize, core: Option<usize>) -> Option<Tid> {
    let first = FIRST_CORE.load(Ordering::SeqCst);
    let take = |core: &usize| {
        let tid = &SLOTS[*core].tid;
        *core != first
            && tid.compare_exchange(NONE, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    let others = (0..MAX_CORES).filter(|&core| core != first && cores::is_up(core));
    let mut up = core::iter::once(first).chain(others);
    let core = match core {
        Some(n) => up.nth(n).filter(take)?,
        None => up.find(take)?,
    };
    let tid = NEXT.fetch_add(1, Ordering::Relaxed);
    start(core, tid, Task { function, argument });
    Some(tid)
}

/// Waits until thread `tid` has ended.
///
/// The result is false if there never was such a thread, or if the thread is the caller.
pub fn join(tid: Tid) -> bool {
    if tid <= FIRST || tid >= NEXT.load(Ordering::Relaxed) || tid == current() {
        return false;
    }
    while let Some(slot) = SLOTS.iter().find(|slot| slot.tid.load(Ordering::SeqCst) == tid) {
        // After a wake-up or a change, the loop checks again.
        let _ = wait(&slot.tid, tid, None);
    }
    true
}

/// The number of the calling thread.
pub fn current() -> Tid {
    match this_core::current() {
        core if core == FIRST_CORE.load(Ordering::Relaxed) => FIRST,
        core => SLOTS[core].tid.load(Ordering::Relaxed),
    }
}

/// Waits for a wake-up through `word`, if `word` holds `expected`.
///
/// The wait ends at the latest when the clock reads `deadline_us`.
///
/// # Errors
/// See [`NotWoken`].
pub fn wait(word: &AtomicU32, expected: u32, deadline_us: Option<u64>) -> Result<(), NotWoken> {
    FUTEXES.wait(this_core::current(), word, expected, |woken| idle::wait_until(woken, deadline_us))
}

/// Wakes up to `count` threads that wait for `word`; returns their number.
pub fn wake(word: &AtomicU32, count: usize) -> usize {
    FUTEXES.wake(word, count, idle::wake)
}

/// Runs the threads that are started on `core`, one after another.
pub fn run(core: usize) -> ! {
    let slot = &SLOTS[core];
    let tid = || slot.tid.load(Ordering::SeqCst);
    loop {
        idle::wait_until(&|| !matches!(tid(), NONE | TAKEN), None);
        let task = slot.task.lock().take();
        if let Some(Task { function, argument }) = task {
            function(argument);
        }
        slot.tid.store(NONE, Ordering::SeqCst);
        wake(&slot.tid, usize::MAX);
    }
}
