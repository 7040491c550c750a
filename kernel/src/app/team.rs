//! One thread on each core, working together on one job at a time.
//!
//! The threads are started once. Between jobs they spin for a while, because the next job of a
//! forward pass comes within microseconds, and only then sleep on a futex. While nobody sleeps, a job
//! takes no system call.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::mem::transmute;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::app::os;
use crate::llm::workers::Workers;

/// How long a waiting thread looks before it sleeps, in µs. It is to bridge what one thread does alone
/// between two jobs: under emulation, where a machine is slowest, some 100 µs. Longer, and cores that
/// the host shares with others would take its time from them for nothing.
const SPIN_US: u64 = 200;
/// How often it looks before it looks at the clock.
const LOOKS: u32 = 64;

/// Multiplications that take as long as it takes to share them: some microseconds.
const LEAST_WORK: usize = 1 << 14;

type Job = &'static (dyn Fn(usize) + Sync);

/// Threads on some of the cores, the one that made the team included.
pub struct Team {
    members: usize,
    shared: &'static Shared,
    running: spin::Mutex<()>,
}

/// What the members share. It lives for ever, as the threads do.
struct Shared {
    /// Counts the jobs given out; members wait for it to change.
    round: Signal,
    /// Members that have not finished the present job; the caller waits for 0.
    busy: Signal,
    /// The present job.
    job: UnsafeCell<Option<Job>>,
}

// SAFETY: `job` is written only by the caller of `Team::run`, which holds `running`, while `busy`
// is 0, that is while no member reads it; the change of `round` publishes it to the members.
unsafe impl Sync for Shared {}

/// A word that threads wait for to change, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Signal {
    word: AtomicU32,
    /// Threads that sleep or are about to.
    sleepers: AtomicU32,
}

impl Signal {
    /// Waits until the word is no longer `value`, awake for a while, then asleep. Returns what it is.
    fn wait_while(&self, value: u32) -> u32 {
        loop {
            let end_us = os::now_us() + SPIN_US;
            while os::now_us() < end_us {
                for _ in 0..LOOKS {
                    let now = self.word.load(Ordering::Acquire);
                    if now != value {
                        return now;
                    }
                    spin_loop();
                }
            }
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            // Returns at once if the word has changed.
            os::futex_wait(&self.word, value);
            self.sleepers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Wakes those who sleep; to be called after a sequentially consistent change of the word. Either
    /// the one who is about to sleep is seen here, or the change is seen there.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            os::futex_wake_all(&self.word);
        }
    }
}

impl Team {
    /// A team of `wanted` threads, this one included; fewer if there are fewer free cores.
    pub fn new(wanted: usize) -> Team {
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            round: Signal::default(),
            busy: Signal::default(),
            job: UnsafeCell::new(None),
        }));
        let mut members = 1;
        for core in 1..wanted.min(os::cores()) {
            let seat = Box::leak(Box::new(Seat { index: members, shared }));
            match os::spawn(core, member, (&raw const *seat).expose_provenance()) {
                Ok(()) => members += 1,
                Err(error) => log::warn!("core {core} stays idle: {error}"),
            }
        }
        Team { members, shared, running: spin::Mutex::new(()) }
    }
}

impl Workers for Team {
    fn count(&self) -> usize {
        self.members
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.members == 1 {
            return job(0);
        }
        let _one_job_at_a_time = self.running.lock();
        let shared = self.shared;
        // SAFETY: only the lifetime changes. Members use the job between the change of `round`
        // and their decrement of `busy`, and this function does not return before `busy` is 0.
        let job: Job = unsafe { transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: see `Sync for Shared`: `busy` is 0, so no member reads the job now.
        unsafe { *shared.job.get() = Some(job) };
        let mut busy = self.members as u32 - 1;
        shared.busy.word.store(busy, Ordering::Relaxed);
        shared.round.word.fetch_add(1, Ordering::SeqCst);
        shared.round.wake();

        job(0);
        while busy > 0 {
            busy = shared.busy.wait_while(busy);
        }
    }

    fn least_work(&self) -> usize {
        LEAST_WORK
    }
}

/// One thread's place in the team.
struct Seat {
    index: usize,
    shared: &'static Shared,
}

extern "C" fn member(seat: usize) {
    // SAFETY: `Team::new` passed a leaked `Seat`, which is never written to.
    let Seat { index, shared } = unsafe { &*core::ptr::with_exposed_provenance::<Seat>(seat) };
    let mut round = 0;
    loop {
        round = shared.round.wait_while(round);
        // SAFETY: see `Sync for Shared`: the job was written before `round` changed, and stays
        // until this member has taken itself off `busy`.
        if let Some(job) = unsafe { *shared.job.get() } {
            job(*index);
        }
        if shared.busy.word.fetch_sub(1, Ordering::SeqCst) == 1 {
            shared.busy.wake();
        }
    }
}
