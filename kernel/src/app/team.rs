//! One thread on each core, working together on one job at a time.
//!
//! The threads are started once. Between jobs they spin for a while, because the next job of a
//! forward pass comes within microseconds, and only then sleep on a futex. While nobody sleeps, a job
//! takes one system call: for the number of the calling thread.

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
    /// The other members' places: their indices are from 1 on.
    seats: Vec<&'static Seat>,
    shared: &'static Shared,
    timeout_s: u32,
    /// Held by the thread that gives out a job, until all have done their parts.
    running: spin::Mutex<()>,
    /// The number of that thread; [`NOBODY`] while no job runs.
    caller: AtomicU32,
}

/// The number of no thread.
const NOBODY: u32 = 0;

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
    /// Waits until the word is no longer `value`, awake for a while, then asleep. Returns what it is;
    /// `None` if it stays that for `timeout_s` seconds, where such a bound is given.
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

    /// Wakes those who sleep; to be called after a sequentially consistent change of the word. Either
    /// the one who is about to sleep is seen here, or the change is seen there.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            os::futex_wake_all(&self.word);
        }
    }
}

impl Team {
    /// A team of `wanted` threads, this one included; fewer if there are fewer free cores. When one of
    /// them has not done its part of a job `timeout_s` seconds after the last of the others, the run
    /// ends with a panic that names its core.
    pub fn new(wanted: usize, timeout_s: u32) -> Team {
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            round: Signal::default(),
            busy: Signal::default(),
            job: UnsafeCell::new(None),
        }));
        let mut seats = Vec::new();
        for core in 1..wanted.min(os::cores()) {
            let index = seats.len() + 1;
            let (thread, done) = (AtomicU32::new(NOBODY), AtomicU32::new(0));
            let seat: &'static Seat =
                Box::leak(Box::new(Seat { index, core, shared, thread, done }));
            match os::spawn(core, member, (&raw const *seat).expose_provenance()) {
                Ok(()) => seats.push(seat),
                Err(error) => log::warn!("core {core} stays idle: {error}"),
            }
        }
        let (running, caller) = (spin::Mutex::new(()), AtomicU32::new(NOBODY));
        Team { seats, shared, timeout_s, running, caller }
    }

    /// Waits until the calling thread, whose number is `me`, may give out a job.
    ///
    /// # Panics
    /// The thread is in the middle of a job of this team, which would never end.
    fn take_turn(&self, me: u32) -> spin::MutexGuard<'_, ()> {
        self.running.try_lock().unwrap_or_else(|| {
            // Each number is read by the thread that it belongs to, which finds its own in order.
            let is_mine = |thread: &AtomicU32| thread.load(Ordering::Relaxed) == me;
            let is_in_a_job =
                is_mine(&self.caller) || self.seats.iter().any(|s| is_mine(&s.thread));
            assert!(!is_in_a_job, "a job of a team must not start another job of that team");
            self.running.lock()
        })
    }
}

/// Ends the program if a job is left before all members have done their parts.
///
/// A panic that unwinds out of [`Team::run`] would free what the job borrows, while other cores use
/// it. On the machine a panic never unwinds; on a host it does.
struct MustNotUnwind;

impl Drop for MustNotUnwind {
    fn drop(&mut self) {
        // A panic during the unwinding of another one ends the program at once.
        panic!("a panic left a job that other cores may still run");
    }
}

/// The cores of a team that have not done their part of a job: "core 2", "cores 2, 5".
struct Late<'a> {
    team: &'a Team,
    /// The number of the job.
    round: u32,
}

impl fmt::Display for Late<'_> {
    /// Allocates nothing, as a core that is late may hold the heap.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seats = self.team.seats.iter();
        let late = seats.filter(|seat| seat.done.load(Ordering::Acquire) != self.round);
        f.write_str(if late.clone().count() == 1 { "core" } else { "cores" })?;
        for (i, seat) in late.enumerate() {
            write!(f, "{} {}", if i == 0 { "" } else { "," }, seat.core)?;
        }
        Ok(())
    }
}

impl Workers for Team {
    fn count(&self) -> usize {
        self.seats.len() + 1
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.seats.is_empty() {
            return job(0);
        }
        let me = os::thread();
        let _turn = self.take_turn(me);
        self.caller.store(me, Ordering::Relaxed);
        let must_not_unwind = MustNotUnwind;
        let shared = self.shared;
        // SAFETY: only the lifetime changes. Members use the job between the change of `round`
        // and their decrement of `busy`. This function does not return before `busy` is 0, and
        // `must_not_unwind` ends the program if it is left in another way.
        let job: Job = unsafe { transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: see `Sync for Shared`: `busy` is 0, so no member reads the job now.
        unsafe { *shared.job.get() = Some(job) };
        let mut busy = self.seats.len() as u32;
        shared.busy.word.store(busy, Ordering::Relaxed);
        let round = shared.round.word.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        shared.round.wake();

        job(0);
        while busy > 0 {
            busy = match shared.busy.wait_while(busy, Some(self.timeout_s)) {
                Some(busy) => busy,
                None => panic!(
                    "{} did not answer for {} s in the middle of a job",
                    Late { team: self, round },
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

/// One thread's place in the team, on cache lines of its own.
#[repr(align(128))]
struct Seat {
    index: usize,
    core: usize,
    shared: &'static Shared,
    /// The number of its thread; [`NOBODY`] until that runs.
    thread: AtomicU32,
    /// The last round that it has done its part in; looked at only when that is late.
    done: AtomicU32,
}

extern "C" fn member(seat: usize) {
    // SAFETY: `Team::new` passed a leaked `Seat`, to which nobody has a mutable reference.
    let seat = unsafe { &*core::ptr::with_exposed_provenance::<Seat>(seat) };
    let shared = seat.shared;
    seat.thread.store(os::thread(), Ordering::Relaxed);
    let mut round = 0;
    // Any time may pass until there is a job.
    while let Some(now) = shared.round.wait_while(round, None) {
        round = now;
        // SAFETY: see `Sync for Shared`: the job was written before `round` changed, and stays
        // until this member has taken itself off `busy`.
        if let Some(job) = unsafe { *shared.job.get() } {
            job(seat.index);
        }
        seat.done.store(round, Ordering::Release);
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
    fn what_the_members_write_is_there_when_the_job_is_done() {
        const COLUMNS: usize = 31;
        run_in_world(
            |world| world.cores = 3,
            || {
                let team = Team::new(3, TIMEOUT_S);
                assert_eq!(team.count(), 3);
                let mut columns = [0; COLUMNS];
                for job in 0..JOBS {
                    // It is on this stack and gone after the job. What claims the columns puts nothing
                    // in order: only the team does.
                    let (added, bands) = ([job], Bands::new(&mut columns, COLUMNS));
                    team.run(&|_| {
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
    fn each_member_does_its_part_of_each_job_once() {
        run_in_world(
            |world| world.cores = 4,
            || {
                // No more members than cores.
                let team = Team::new(7, TIMEOUT_S);
                let parts = [const { AtomicU32::new(0) }; 7];
                for _ in 0..JOBS {
                    team.run(&|member| {
                        parts[member].fetch_add(1, Ordering::Relaxed);
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
                let team = Team::new(2, TIMEOUT_S);
                thread::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| {
                            for _ in 0..JOBS {
                                let parts = [const { AtomicU32::new(0) }; 2];
                                team.run(&|member| {
                                    // Whoever does not wait for its turn has time to come between.
                                    thread::yield_now();
                                    parts[member].fetch_add(1, Ordering::Relaxed);
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
                    Team::new(4, 1).run(&|member| {
                        if member == 2 {
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
                    let team = Team::new(2, TIMEOUT_S);
                    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| {
                        let data = vec![1_u64; 1009];
                        team.run(&|member| match member {
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
                    let team = Team::new(2, TIMEOUT_S);
                    team.run(&|member| {
                        if member == 0 {
                            team.run(&|_| ());
                        }
                    });
                },
            );
        });
        assert!(said.contains("must not start another job of that team"), "{said}");
        assert_eq!(signal, ABORTED, "{said}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "starts a process")]
    fn a_job_within_another_member_s_part_is_refused() {
        let name = "a_job_within_another_member_s_part_is_refused";
        let (said, signal) = end_of_a_process(name, || {
            run_in_world(
                |world| world.cores = 3,
                || {
                    let team = Team::new(3, TIMEOUT_S);
                    team.run(&|member| {
                        if member == 2 {
                            team.run(&|_| ());
                        }
                    });
                },
            );
        });
        assert!(said.contains("must not start another job of that team"), "{said}");
        assert_eq!(signal, ABORTED, "{said}");
    }
}
