//! One thread on each core, working together on one job at a time.
//!
//! The threads are started once. Between jobs they spin for a moment, because the next job of a
//! forward pass comes within microseconds, and then sleep on a futex.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::mem::transmute;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::app::os;
use crate::llm::workers::Workers;

/// How often a waiting thread looks before it sleeps.
const SPINS: u32 = 2_000;

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
    round: AtomicU32,
    /// Members that have not finished the present job; the caller waits for 0.
    busy: AtomicU32,
    /// The present job.
    job: UnsafeCell<Option<Job>>,
}

// SAFETY: `job` is written only by the caller of `Team::run`, which holds `running`, while `busy`
// is 0, that is while no member reads it; the change of `round` publishes it to the members.
unsafe impl Sync for Shared {}

impl Team {
    /// A team of `wanted` threads, this one included; fewer if there are fewer free cores.
    pub fn new(wanted: usize) -> Team {
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            round: AtomicU32::new(0),
            busy: AtomicU32::new(0),
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
        shared.busy.store(self.members as u32 - 1, Ordering::Relaxed);
        shared.round.fetch_add(1, Ordering::Release);
        os::futex_wake_all(&shared.round);

        job(0);
        loop {
            let busy = shared.busy.load(Ordering::Acquire);
            if busy == 0 {
                return;
            }
            wait_while(&shared.busy, busy);
        }
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
        wait_while(&shared.round, round);
        let now = shared.round.load(Ordering::Acquire);
        if now == round {
            continue;
        }
        round = now;
        // SAFETY: see `Sync for Shared`: the job was written before `round` changed, and stays
        // until this member has taken itself off `busy`.
        if let Some(job) = unsafe { *shared.job.get() } {
            job(*index);
        }
        if shared.busy.fetch_sub(1, Ordering::Release) == 1 {
            os::futex_wake_all(&shared.busy);
        }
    }
}

/// Waits until `word` is no longer `value`: awake for a moment, then asleep. May return early.
fn wait_while(word: &AtomicU32, value: u32) {
    for _ in 0..SPINS {
        if word.load(Ordering::Acquire) != value {
            return;
        }
        spin_loop();
    }
    os::futex_wait(word, value);
}
