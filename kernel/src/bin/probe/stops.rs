//! Trials that end the run by a panic, an abort, or a core that does not answer.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use hermit_abi as abi;
use kernel::app::load::{Meanwhile, at_once, choose_model, load};
use kernel::app::thread_pool::ThreadPool;
use kernel::backend::ContextOptions;
use kernel::llm::workers::Workers;

use crate::faults::{change_descriptor, hexadecimal, null};
use crate::os::{cores, say, start};
use crate::threads::sleep;

pub extern "C" fn panic_there(core: usize) {
    panic!("as asked, by {core}");
}

/// Can be shown so many times; then that breaks.
pub struct Brittle(AtomicUsize);

impl Brittle {
    pub fn new(times: usize) -> Self {
        Brittle(AtomicUsize::new(times))
    }
}

impl fmt::Display for Brittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 0 {
            null();
        }
        f.write_str("shown as long as it held")
    }
}

/// Panics with the console's registers gone: whatever is printed is another fault.
pub fn panic_without_console(device: &str) -> bool {
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
pub fn panic_in_noise() -> bool {
    (1..cores()).map(|_| start(print_for_ever, 0, -1)).for_each(drop);
    sleep();
    panic!("in the middle of noise");
}

fn never_return() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// A core that never comes to the end of its part of a job, which the others wait for.
pub fn stall(core: &str) -> bool {
    let core: usize = core.parse().unwrap_or(1);
    ThreadPool::new(cores(), 2).run(&|member| {
        if member == core {
            never_return();
        }
    });
    false
}

/// A job that starts another one of its pool: by the caller, or by another member.
pub fn job_in_job(member: &str) -> bool {
    let (pool, starter) = (ThreadPool::new(cores(), 60), member.parse().unwrap_or(0));
    pool.run(&|member| {
        if member == starter {
            pool.run(&|_| ());
        }
    });
    false
}

/// A pool in which one member does nothing of its part of a job.
struct Without<'a>(&'a ThreadPool, usize);

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
pub fn stall_load(thread: &str) -> bool {
    let pool = ThreadPool::new(cores(), 60);
    let workers = Without(&pool, thread.parse().unwrap_or(0));
    let context = ContextOptions::default();
    choose_model(None)
        .and_then(|path| {
            load(&path, true, true, context, &workers, 2, Meanwhile::nothing(&mut at_once))
        })
        .is_err()
}

pub fn abort() -> bool {
    // SAFETY: no preconditions.
    unsafe { abi::abort() }
}
