//! `mode=test`: tests of the image and its model on the machine, with one `test` event each.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::app::error::Error;
use crate::app::os;
use crate::app::output::{emit, say};
use crate::app::sha256;
use crate::backend::self_test::{Machine, TESTS};
use crate::backend::{SamplingConfig, TransformerBackend};
use crate::llm;
use crate::llm::workers::Workers;
use crate::report::{Event, Test};

/// Name of the test of [`TransformerBackend`].
const BACKEND: &str = "backend";

/// Result of a test: a finding, or the reason of the failure.
type Verdict = Result<String, String>;

/// The tests of one run.
pub struct SelfTests<'a> {
    /// A part of the names of the tests that run.
    wanted: &'a str,
    run: usize,
    failed: usize,
}

impl<'a> SelfTests<'a> {
    /// The tests whose names contain `wanted`.
    pub fn new(wanted: &'a str) -> Self {
        SelfTests { wanted, run: 0, failed: 0 }
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(self.wanted)
    }

    fn report(&mut self, name: &str, verdict: Verdict, figure: Option<f64>) {
        self.run += 1;
        let pass = verdict.is_ok();
        self.failed += usize::from(!pass);
        let (Ok(detail) | Err(detail)) = verdict;
        match figure {
            Some(figure) => say!("pass {name}: {figure:.1} {detail}"),
            None => say!("{} {name}: {detail}", if pass { "pass" } else { "FAIL" }),
        }
        emit(&Event::Test(Test { name: name.to_string(), pass, detail, figure }));
    }

    /// Runs the tests that need no model.
    pub fn run_engine(&mut self, workers: &dyn Workers) {
        if self.wants("clock") {
            self.report("clock", clock(), None);
        }
        if self.wants("sha256") {
            self.report("sha256", sha256(), None);
        }
        if self.wants("thread_pool") {
            self.report("thread_pool", thread_pool(workers), None);
        }
        for (name, outcome) in llm::self_tests() {
            if self.wants(&name) {
                self.report(&name, outcome, None);
            }
        }
    }

    /// Whether a wanted test needs a model.
    pub fn want_model(&self) -> bool {
        self.wants(BACKEND) || TESTS.iter().any(|test| self.wants(test.name))
    }

    /// Runs the test of [`TransformerBackend`], which loads the model at `path` by itself.
    pub fn run_backend(&mut self, path: &str) {
        // On a host, paths are those of the host's file system.
        if cfg!(target_os = "none") && self.wants(BACKEND) {
            self.report(BACKEND, backend(path).map_err(|error| error.to_string()), None);
        }
    }

    /// Runs the tests of a model.
    pub fn run_model(&mut self, backend: &mut TransformerBackend, pool: &'static dyn Workers) {
        let machine =
            Machine { now_us: os::now_us, memory_free: os::memory_available, threads: pool };
        let wanted = self.wanted;
        for test in TESTS.iter().filter(|test| test.name.contains(wanted)) {
            // Some tests take minutes.
            say!("run  {}", test.name);
            match test.run(backend, machine) {
                Ok(finding) => self.report(test.name, Ok(finding.detail), Some(finding.figure)),
                Err(error) => self.report(test.name, Err(error), None),
            }
        }
    }

    /// # Errors Tests failed, or no test has the wanted name.
    pub fn finish(self) -> Result<(), Error> {
        match self {
            SelfTests { run: 0, wanted, .. } => Err(Error::NoSuchTest(wanted.to_string())),
            SelfTests { failed: 0, .. } => Ok(()),
            SelfTests { failed, .. } => Err(Error::TestsFailed(failed)),
        }
    }
}

/// The calls of [`TransformerBackend`] as its first description has them.
fn backend(path: &str) -> Result<String, Box<dyn core::error::Error>> {
    let mut backend = TransformerBackend::new();
    backend.load_model(path)?;
    if !backend.is_loaded() {
        return Err("no model is loaded".into());
    }
    let n_layer = backend.model_metadata().unwrap().n_layer;
    backend.set_sampling_config(SamplingConfig::creative());
    backend.infer("The capital of France is", 10)?;
    backend.set_sampling_config(SamplingConfig::greedy());
    backend.set_verbose(true);
    let result = backend.infer("The capital of France is", 10)?;
    if result.output.is_empty() || result.tokens_emitted == 0 {
        return Err("an empty answer".into());
    }
    let (n, ms) = (result.tokens_emitted, result.latency_us as f64 / 1e3);
    Ok(format!("{n_layer} layers, {n} tokens in {ms:.1} ms: {:?}", result.output))
}

fn clock() -> Verdict {
    let mut last = os::now_us();
    let end = last + 2_000;
    let mut steps = 0;
    while last < end {
        let now = os::now_us();
        if now < last {
            return Err(format!("went back from {last} to {now} µs"));
        }
        steps += u32::from(now > last);
        last = now;
    }
    Ok(format!("{steps} steps in 2 ms"))
}

fn sha256() -> Verdict {
    match sha256::self_test() {
        Ok(name) => Ok(format!("{name} equals the portable one")),
        Err(length) => Err(format!("{} differs at length {length}", sha256::Sha256::name())),
    }
}

fn thread_pool(workers: &dyn Workers) -> Verdict {
    const ROUNDS: usize = 997;
    let count = workers.count();
    let seen: alloc::vec::Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
    for round in 0..ROUNDS {
        workers.run(&|worker| {
            seen[worker].fetch_add(round, Ordering::Relaxed);
        });
        // Every worker has taken part exactly once when a round is over.
        let sum = round * (round + 1) / 2;
        if let Some(late) = seen.iter().position(|count| count.load(Ordering::Relaxed) != sum) {
            return Err(format!("worker {late} of {count} missed round {round}"));
        }
    }
    Ok(format!("{ROUNDS} rounds of {count}"))
}
