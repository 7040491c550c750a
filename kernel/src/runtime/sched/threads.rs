//! Threads: one a core.
//!
//! A thread is started on an idle core, runs there to its end, and nothing ever interrupts it. The
//! application's first thread runs on the boot core, or on a faster one ([`crate::runtime::sched::first_core`]); the boot
//! core then runs threads as the others do.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::futex::{Futexes, NotWoken};
use super::{cores, idle};
use crate::runtime::arch::lock::SpinLock;
use crate::runtime::arch::this_core::{self, MAX_CORES};

/// The number of a thread.
pub type Tid = u32;

/// The application's first thread.
const FIRST: Tid = 1;

/// The core that runs it. Set before any other thread is started.
static FIRST_CORE: AtomicUsize = AtomicUsize::new(0);

/// Who waits for what.
static FUTEXES: Futexes<MAX_CORES> = Futexes::new();

static SLOTS: [Slot; MAX_CORES] = [const { Slot::new() }; MAX_CORES];

/// The next thread's number.
static NEXT: AtomicU32 = AtomicU32::new(FIRST + 1);

/// What runs on a core.
struct Slot {
    /// The thread's number, [`NONE`] or [`TAKEN`]; a futex.
    tid: AtomicU32,
    /// What the thread is to run, from `spawn` until its core takes it.
    task: SpinLock<Option<Task>>,
}

/// What a thread runs: a function, as a pointer that Rust knows as one, and its argument.
struct Task {
    function: extern "C" fn(usize),
    argument: usize,
}

/// No thread runs.
const NONE: Tid = 0;
/// One is about to run.
const TAKEN: Tid = Tid::MAX;

impl Slot {
    const fn new() -> Self {
        Slot { tid: AtomicU32::new(NONE), task: SpinLock::new(None) }
    }
}

/// Runs `function` as the application's first thread, on this core. Called on the boot core, before any
/// other thread is started; it goes on as a core for other threads. Does nothing if the core is not up.
pub fn run_first(function: extern "C" fn(usize), core: usize) {
    if core == this_core::current() || !cores::is_up(core) {
        return;
    }
    FIRST_CORE.store(core, Ordering::SeqCst);
    start(core, FIRST, Task { function, argument: 0 });
    run(this_core::current());
}

/// Gives an idle core a thread.
fn start(core: usize, tid: Tid, task: Task) {
    let slot = &SLOTS[core];
    *slot.task.lock() = Some(task);
    slot.tid.store(tid, Ordering::SeqCst);
    idle::wake(core);
}

/// Starts a thread that runs `function(argument)`, on the core that is number `core` of those that
/// are up, or on any idle one. Returns its number; `None` if there is no such core or it is busy. The core
/// of the first thread is number 0, which is always busy.
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

/// Waits until thread `tid` has ended. False if there never was such a thread, or it is the
/// caller's.
pub fn join(tid: Tid) -> bool {
    if tid <= FIRST || tid >= NEXT.load(Ordering::Relaxed) || tid == current() {
        return false;
    }
    while let Some(slot) = SLOTS.iter().find(|slot| slot.tid.load(Ordering::SeqCst) == tid) {
        // Woken or changed, the loop looks again.
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

/// Waits until it is woken through `word`, if that holds `expected`, or until the clock reads
/// `deadline_us`.
///
/// # Errors
/// See [`NotWoken`].
pub fn wait(word: &AtomicU32, expected: u32, deadline_us: Option<u64>) -> Result<(), NotWoken> {
    FUTEXES.wait(this_core::current(), word, expected, |woken| idle::wait_until(woken, deadline_us))
}

/// Wakes up to `count` threads that wait for `word`; returns how many.
pub fn wake(word: &AtomicU32, count: usize) -> usize {
    FUTEXES.wake(word, count, idle::wake)
}

/// Runs the threads that are started on `core`, one after the other.
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
