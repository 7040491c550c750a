//! The thread pool: one thread on each core, working together on one job at a time.
//!
//! The threads are started once. Between jobs the workers spin for a while, because the next job of
//! a forward pass comes within microseconds. Then the workers sleep on a futex. While no worker
//! sleeps, a job takes one system call: for the number of the calling thread.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::fmt;
use core::hint::spin_loop;
use core::mem::{forget, transmute};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::app::os;
use crate::app::timeout::Timeout;
use crate::llm::workers::Workers;

/// Time that a waiting thread spins before it sleeps, in µs.
///
/// The time bridges the work of a single thread between two jobs: some 100 µs under emulation,
/// where a machine is slowest. More would waste the time of cores that the host shares with others.
const SPIN_US: u64 = 200;
/// Looks at the word between two looks at the clock.
const LOOKS: u32 = 64;

/// Multiplications that take as long as sharing a job takes: some microseconds.
const LEAST_WORK: usize = 1 << 14;

type Job = &'static (dyn Fn(usize) + Sync);

/// Threads on some of the cores, the thread that made the pool included.
pub struct ThreadPool {
    /// One slot for each worker; the workers' indices start at 1.
    slots: Vec<&'static Slot>,
    shared: &'static Shared,
    timeout_s: u32,
    /// Held by the thread that gives out a job, until all workers have done their parts.
    running: spin::Mutex<()>,
    /// The number of that thread; [`NOBODY`] while no job runs.
    caller: AtomicU32,
}

/// The number of no thread.
const NOBODY: u32 = 0;

/// State that the workers share. The state is never freed, as the threads never end.
struct Shared {
    /// Number of jobs given out; workers wait for a change of the number.
    round: Signal,
    /// Number of workers that have not finished the present job; the caller waits for 0.
    busy: Signal,
    /// The present job.
    job: UnsafeCell<Option<Job>>,
}

// SAFETY: only the caller of `ThreadPool::run` writes `job`. The caller holds `running`, and `busy`
// is 0, so that no worker reads `job`. The change of `round` publishes `job` to the workers.
unsafe impl Sync for Shared {}

/// A word whose changes threads wait for, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Signal {
    word: AtomicU32,
    /// Threads that sleep or are about to.
    sleepers: AtomicU32,
}

impl Signal {
    /// Waits until the word is no longer `value`, first awake, then asleep. Returns the new value;
    /// `None` if the word does not change for `timeout_s` seconds.
    fn wait_while(&self, value: u32, timeout_s: Option<u32>) -> Option<u32> {
        let mut timeout = Timeout::new(timeout_s);
        loop {
            let end_us = os::now_us() + SPIN_US;
            // Look before the clock is read: a change must be seen however slow the machine is.
            loop {
                for _ in 0..LOOKS {
                    let now = self.word.load(Ordering::Acquire);
                    if now != value {
                        return Some(now);
                    }
                    spin_loop();
                }
                if os::now_us() >= end_us {
                    break;
                }
            }
            if timeout.is_over() {
                return None;
            }
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            // Returns at once if the word has changed.
            timeout.sleep(&self.word, value);
            self.sleepers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Wakes the sleepers, after a sequentially consistent change of the word. Either this function
    /// sees the thread that is about to sleep, or that thread sees the change.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            os::futex_wake_all(&self.word);
        }
    }
}

impl ThreadPool {
    /// A pool of `wanted` threads, the calling thread included; fewer if there are fewer free
    /// cores.
    ///
    /// The run ends if a worker has not done its part of a job `timeout_s` seconds after the last
    /// of the others. The panic names the worker's core.
    pub fn new(wanted: usize, timeout_s: u32) -> ThreadPool {
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            round: Signal::default(),
            busy: Signal::default(),
            job: UnsafeCell::new(None),
        }));
        let mut slots = Vec::new();
        for core in 1..wanted.min(os::cores()) {
            let index = slots.len() + 1;
            let (thread, done) = (AtomicU32::new(NOBODY), AtomicU32::new(0));
            let slot: &'static Slot =
                Box::leak(Box::new(Slot { index, core, shared, thread, done }));
            match os::spawn(core, worker, (&raw const *slot).expose_provenance()) {
                Ok(()) => slots.push(slot),
                Err(error) => log::warn!("core {core} stays idle: {error}"),
            }
        }
        let (running, caller) = (spin::Mutex::new(()), AtomicU32::new(NOBODY));
        ThreadPool { slots, shared, timeout_s, running, caller }
    }

    /// Waits until the calling thread, whose number is `me`, may give out a job.
    ///
    /// # Panics
    /// The thread is in the middle of a job of this pool: the new job would never end.
    fn take_turn(&self, me: u32) -> spin::MutexGuard<'_, ()> {
        self.running.try_lock().unwrap_or_else(|| {
            // `Relaxed` suffices: only the thread that wrote a number finds its own.
            let is_mine = |thread: &AtomicU32| thread.load(Ordering::Relaxed) == me;
            let is_in_a_job =
                is_mine(&self.caller) || self.slots.iter().any(|s| is_mine(&s.thread));
            assert!(!is_in_a_job, "a job of a thread pool must not start another job of that pool");
            self.running.lock()
        })
    }
}

/// Ends the program if a job is left before all workers have done their parts.
///
/// A panic that unwinds out of [`ThreadPool::run`] would free data that the job borrows, while
/// other cores use the data. On the machine a panic never unwinds; on a host a panic does.
struct MustNotUnwind;

impl Drop for MustNotUnwind {
    fn drop(&mut self) {
        // A panic during the unwinding of another one ends the program at once.
        panic!("a panic left a job that other cores may still run");
    }
}

/// The cores of a pool that have not done their part of a job: "core 2", "cores 2, 5".
struct Late<'a> {
    pool: &'a ThreadPool,
    /// The number of the job.
    round: u32,
}

impl fmt::Display for Late<'_> {
    /// Allocates nothing, as a core that is late may hold the heap.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.pool.slots.iter();
        let late = slots.filter(|slot| slot.done.load(Ordering::Acquire) != self.round);
        f.write_str(if late.clone().count() == 1 { "core" } else { "cores" })?;
        for (i, slot) in late.enumerate() {
            write!(f, "{} {}", if i == 0 { "" } else { "," }, slot.core)?;
        }
        Ok(())
    }
}

impl Workers for ThreadPool {
    fn count(&self) -> usize {
        self.slots.len() + 1
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.slots.is_empty() {
            return job(0);
        }
        let me = os::thread();
        let _turn = self.take_turn(me);
        self.caller.store(me, Ordering::Relaxed);
        let must_not_unwind = MustNotUnwind;
        let shared = self.shared;
        // SAFETY: only the lifetime changes. Workers use the job between the change of `round` and
        // their decrement of `busy`. This function does not return before `busy` is 0, and
        // `must_not_unwind` ends the program if a panic leaves the function.
        let job: Job = unsafe { transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: see `Sync for Shared`: `busy` is 0, so no worker reads the job now.
        unsafe { *shared.job.get() = Some(job) };
        let mut busy = self.slots.len() as u32;
        shared.busy.word.store(busy, Ordering::Relaxed);
        let round = shared.round.word.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        shared.round.wake();

        job(0);
        while busy > 0 {
            busy = match shared.busy.wait_while(busy, Some(self.timeout_s)) {
                Some(busy) => busy,
                None => panic!(
                    "{} did not answer for {} s in the middle of a job",
                    Late { pool: self, round },
                    self.timeout_s
                ),
            };
        }
        forget(must_not_unwind);
        self.caller.store(NOBODY, Ordering::Relaxed);
    }

    fn least_work(&self) -> usize {
        LEAST_WORK
    }
}

/// One worker's slot in the pool, on cache lines of its own.
#[repr(align(128))]
struct Slot {
    index: usize,
    core: usize,
    shared: &'static Shared,
    /// The number of the worker's thread; [`NOBODY`] until the thread runs.
    thread: AtomicU32,
    /// The last round in which the worker has done its part; read only when the worker is late.
    done: AtomicU32,
}

extern "C" fn worker(slot: usize) {
    // SAFETY: `ThreadPool::new` passed a leaked `Slot`, and no mutable reference to the slot
    // exists.
    let slot = unsafe { &*core::ptr::with_exposed_provenance::<Slot>(slot) };
    let shared = slot.shared;
    slot.thread.store(os::thread(), Ordering::Relaxed);
    let mut round = 0;
    // Any time may pass until there is a job.
    while let Some(now) = shared.round.wait_while(round, None) {
        round = now;
        // SAFETY: see `Sync for Shared`: the job was written before `round` changed, and stays
        // until this worker has decremented `busy`.
        if let Some(job) = unsafe { *shared.job.get() } {
            job(slot.index);
        }
        slot.done.store(round, Ordering::Release);
        if shared.busy.word.fetch_sub(1, Ordering::SeqCst) == 1 {
            shared.busy.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::fake_abi::run_in_world;
    use crate::app::timeout::TIMEOUT_S;
    use crate::llm::workers::Bands;
    use std::format;
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::panic::AssertUnwindSafe;
    use std::process::{Command, Stdio};
    use std::string::String;
    use std::thread;
    use std::time::{Duration, Instant};
    use std::vec;

    /// How many jobs a test gives out; in Miri each takes long.
    const JOBS: usize = if cfg!(miri) { 7 } else { 1009 };

    #[test]
    fn what_the_workers_write_is_there_when_the_job_is_done() {
        const COLUMNS: usize = 31;
        run_in_world(
            |world| world.cores = 3,
            || {
                let pool = ThreadPool::new(3, TIMEOUT_S);
                assert_eq!(pool.count(), 3);
                let mut columns = [0; COLUMNS];
                for job in 0..JOBS {
                    // It is on this stack and gone after the job. What claims the columns puts
                    // nothing in order: only the pool does.
                    let (added, bands) = ([job], Bands::new(&mut columns, COLUMNS));
                    pool.run(&|_| {
                        while let Some(mut band) = bands.claim(|first| first + 1) {
                            band.row(0)[0] += added[0];
                        }
                    });
                    if job % 3 == 0 {
                        // Long enough for the others to fall asleep.
                        thread::sleep(Duration::from_micros(5 * SPIN_US));
                    }
                }
                assert_eq!(columns, [JOBS * (JOBS - 1) / 2; COLUMNS]);
            },
        );
    }

    #[test]
    fn each_worker_does_its_part_of_each_job_once() {
        run_in_world(
            |world| world.cores = 4,
            || {
                // No more workers than cores.
                let pool = ThreadPool::new(7, TIMEOUT_S);
                let parts = [const { AtomicU32::new(0) }; 7];
                for _ in 0..JOBS {
                    pool.run(&|worker| {
                        parts[worker].fetch_add(1, Ordering::Relaxed);
                    });
                }
                let jobs = JOBS as u32;
                let parts = parts.map(AtomicU32::into_inner);
                assert_eq!(parts, [jobs, jobs, jobs, jobs, 0, 0, 0]);
            },
        );
    }

    #[test]
    fn callers_take_turns() {
        run_in_world(
            |world| world.cores = 2,
            || {
                let pool = ThreadPool::new(2, TIMEOUT_S);
                thread::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| {
                            for _ in 0..JOBS {
                                let parts = [const { AtomicU32::new(0) }; 2];
                                pool.run(&|worker| {
                                    // Whoever does not wait for its turn has time to come between.
                                    thread::yield_now();
                                    parts[worker].fetch_add(1, Ordering::Relaxed);
                                });
                                assert_eq!(parts.map(AtomicU32::into_inner), [1, 1]);
                            }
                        });
                    }
                });
            },
        );
    }

    /// Runs `end`, which must end the program, in a process of its own: the test `name`, started
    /// anew. Gives what that process said, and the signal that ended it.
    fn end_of_a_process(name: &str, end: impl FnOnce()) -> (String, Option<i32>) {
        /// Tells the process what it is there for.
        const IN_PROCESS: &str = "ANCHORITE_TEST_ENDS_THE_PROCESS";
        /// More than such a process takes, on a busy host too.
        const TIMEOUT: Duration = Duration::from_secs(30);

        if std::env::var_os(IN_PROCESS).is_some() {
            end();
            std::process::exit(0);
        }
        let (_, module) = module_path!().split_once("::").unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([&format!("{module}::{name}"), "--exact", "--nocapture"])
            .env(IN_PROCESS, "")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let status = loop {
            match process.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() < TIMEOUT => thread::sleep(Duration::from_millis(10)),
                None => {
                    process.kill().unwrap();
                    break process.wait().unwrap();
                }
            }
        };
        let mut said = String::new();
        process.stderr.unwrap().read_to_string(&mut said).unwrap();
        (said, status.signal())
    }

    /// The signal of a program that ends itself, `SIGABRT`.
    const ABORTED: Option<i32> = Some(6);

    #[test]
    #[cfg_attr(miri, ignore = "starts a process")]
    fn a_core_that_does_not_come_back_is_named() {
        let (said, signal) = end_of_a_process("a_core_that_does_not_come_back_is_named", || {
            run_in_world(
                |world| world.cores = 4,
                || {
                    ThreadPool::new(4, 1).run(&|worker| {
                        if worker == 2 {
                            loop {
                                thread::park();
                            }
                        }
                    });
                },
            );
        });
        assert!(said.contains("core 2 did not answer for 1 s in the middle of a job"), "{said}");
        assert_eq!(signal, ABORTED, "{said}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "starts a process")]
    fn a_job_that_panics_ends_the_program_before_its_data_is_freed() {
        let name = "a_job_that_panics_ends_the_program_before_its_data_is_freed";
        let (said, signal) = end_of_a_process(name, || {
            run_in_world(
                |world| world.cores = 2,
                || {
                    let pool = ThreadPool::new(2, TIMEOUT_S);
                    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| {
                        let data = vec![1_u64; 1009];
                        pool.run(&|worker| match worker {
                            0 => panic!("the caller's part breaks"),
                            // The other part uses the data for as long as it is there.
                            _ => while data.iter().all(|&number| number == 1) {},
                        });
                    }));
                },
            );
        });
        assert!(said.contains("the caller's part breaks"), "{said}");
        assert!(said.contains("a panic left a job that other cores may still run"), "{said}");
        assert_eq!(signal, ABORTED, "{said}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "starts a process")]
    fn a_job_within_a_job_is_refused() {
        let (said, signal) = end_of_a_process("a_job_within_a_job_is_refused", || {
            run_in_world(
                |world| world.cores = 2,
                || {
                    let pool = ThreadPool::new(2, TIMEOUT_S);
                    pool.run(&|worker| {
                        if worker == 0 {
                            pool.run(&|_| ());
                        }
                    });
                },
            );
        });
        assert!(said.contains("must not start another job of that pool"), "{said}");
        assert_eq!(signal, ABORTED, "{said}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "starts a process")]
    fn a_job_within_another_worker_s_part_is_refused() {
        let name = "a_job_within_another_worker_s_part_is_refused";
        let (said, signal) = end_of_a_process(name, || {
            run_in_world(
                |world| world.cores = 3,
                || {
                    let pool = ThreadPool::new(3, TIMEOUT_S);
                    pool.run(&|worker| {
                        if worker == 2 {
                            pool.run(&|_| ());
                        }
                    });
                },
            );
        });
        assert!(said.contains("must not start another job of that pool"), "{said}");
        assert_eq!(signal, ABORTED, "{said}");
    }
}
