//! The platform of a host: files, clock and thread pool of the standard library.

extern crate std;

use std::fs::File;
use std::io::Read;
use std::string::ToString;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

use alloc::boxed::Box;
use alloc::format;

use super::{LoadError, Loaded, ModelBuffer, Platform};
use crate::llm::plan::{ContextOptions, Plan};
use crate::llm::workers::Workers;

/// The platform of this host, with a thread for each of its cores.
pub(super) fn platform() -> Platform {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = POOL.get_or_init(|| ThreadPool::new(cores));
    Platform { workers, now_us, load }
}

/// The time in µs since the first call.
pub fn now_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// Reads a GGUF file.
fn load(path: &str, context: ContextOptions, _: &'static dyn Workers) -> Result<Loaded, LoadError> {
    let file_error = |why| LoadError::File { path: path.into(), why };
    let failed = |error: std::io::Error| file_error(error.to_string());
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let no_room = |needed: u64, free: u64, instead: &str| {
        let instead = if instead.is_empty() { "take a smaller model" } else { instead };
        file_error(format!("not enough memory: {needed} bytes needed, {free} free: {instead}"))
    };
    // Linux allocates more than it has, and kills the process later.
    let free = memory_available().unwrap_or(u64::MAX);
    if size > free {
        return Err(no_room(size, free, ""));
    }
    let mut bytes = ModelBuffer::try_new(usize::try_from(size).unwrap_or(usize::MAX))?;
    file.read_exact(&mut bytes).map_err(failed)?;
    let plan = Plan::read(&bytes, size)?;
    let needed = size.saturating_add(plan.needed(context)?.total() as u64);
    if needed > free {
        return Err(no_room(needed, free, &plan.settings_that_fit(context, free - size)));
    }
    Ok(Loaded { plan, weights: bytes.into() })
}

/// Bytes that are free for allocation, where the host is Linux.
fn memory_available() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Threads that wait for jobs.
pub struct ThreadPool {
    count: usize,
    shared: Arc<Shared>,
    /// Held while a job runs.
    one_job: Mutex<()>,
}

/// A job that lives until `busy` is 0 again.
type Job = &'static (dyn Fn(usize) + Sync);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts the jobs given out.
    round: u64,
    job: Option<Job>,
    /// Threads that have not finished the present job.
    busy: usize,
}

impl ThreadPool {
    /// A pool of `count` threads, including the caller of each job; at least 1.
    ///
    /// The threads live as long as the process.
    pub fn new(count: usize) -> ThreadPool {
        let shared = Arc::new(Shared::default());
        for i in 1..count {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.serve(i));
        }
        ThreadPool { count: count.max(1), shared, one_job: Mutex::new(()) }
    }

    /// A pool that lives as long as the process.
    pub fn leaked(count: usize) -> &'static ThreadPool {
        Box::leak(Box::new(ThreadPool::new(count)))
    }
}

/// Aborts if a job panics, as threads may still use the job's borrows.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Shared {
    fn serve(&self, i: usize) {
        let _abort = AbortOnPanic;
        let mut seen = 0;
        loop {
            let mut state = self.state.lock().expect("no thread panics");
            while state.round == seen {
                state = self.news.wait(state).expect("no thread panics");
            }
            seen = state.round;
            let job = state.job;
            drop(state);
            if let Some(job) = job {
                job(i);
            }
            let mut state = self.state.lock().expect("no thread panics");
            state.busy -= 1;
            if state.busy == 0 {
                self.done.notify_one();
            }
        }
    }
}

impl Workers for ThreadPool {
    fn count(&self) -> usize {
        self.count
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let _abort = AbortOnPanic;
        let _one_job = self.one_job.lock().expect("no thread panics");
        // SAFETY: only the lifetime changes. Threads use the job only while they are counted in
        // `busy`. This function returns once `busy` is 0, and a panic ends the process.
        #[allow(unsafe_code)]
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        let mut state = self.shared.state.lock().expect("no thread panics");
        state.job = Some(job);
        state.busy = self.count - 1;
        state.round += 1;
        drop(state);
        self.shared.news.notify_all();
        job(0);
        let mut state = self.shared.state.lock().expect("no thread panics");
        while state.busy > 0 {
            state = self.shared.done.wait(state).expect("no thread panics");
        }
        state.job = None;
    }
}
