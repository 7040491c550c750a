mod answers;
mod cached;
mod identity;
mod passes;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;

use super::{Finished, Request, RequestId, Scheduler, SchedulerOptions, Stop, TokenProbs, Update};
use crate::llm::Error;
use crate::llm::arena::ModelBuffer;
use crate::llm::engine::Engine;
use crate::llm::plan::ContextOptions;
use crate::llm::sampling::SamplingConfig;
use crate::llm::workers::{SingleThread, Workers};
use crate::llm::workspace::Workspace;

/// Random weights, quick to run; each byte is a token.
const SMALL: &[u8] = include_bytes!("../../../../test_models/architectures/llama-Q8_0.gguf");
/// As `SMALL`, with an output that is not the embedding.
const UNTIED: &[u8] = include_bytes!("../../../../test_models/architectures/qwen2-Q8_0.gguf");
/// A larger model.
const TINY: &[u8] = include_bytes!("../../../../test_models/tiny.gguf");
/// Layers with a window of 11 positions among them.
const WINDOWED: &[u8] = include_bytes!("../../../../test_models/architectures/gemma2-Q8_0.gguf");
/// Positions of each slot.
const N_CTX: usize = 128;

std::thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// A clock that advances by 1 ms with each call.
fn now_us() -> u64 {
    NOW.set(NOW.get() + 1000);
    NOW.get()
}

fn engine(file: &[u8]) -> Arc<Engine> {
    Arc::new(Engine::from_file(ModelBuffer::from(file), &SingleThread).unwrap())
}

/// A scheduler with as many waiting requests as anyone likes.
fn scheduler_in(
    engine: &Arc<Engine>,
    context: ContextOptions,
    parallel: usize,
    workers: &'static dyn Workers,
) -> Scheduler {
    let workspace = Workspace::try_new(Arc::clone(engine), context, parallel, workers).unwrap();
    Scheduler::try_new(workspace, SchedulerOptions { parallel, queue: 101, now_us }).unwrap()
}

fn scheduler(engine: &Arc<Engine>, parallel: usize) -> Scheduler {
    let context = ContextOptions { n_ctx: Some(N_CTX), ..ContextOptions::default() };
    scheduler_in(engine, context, parallel, &SingleThread)
}

/// A prompt of so many tokens; another one for each seed.
fn prompt(engine: &Engine, seed: usize, len: usize) -> Vec<u32> {
    let n_vocab = engine.metadata().n_vocab;
    (0..len).map(|i| ((seed * 4099 + i * i * 31 + 7 * i + 5) % n_vocab) as u32).collect()
}

/// A request without anything special. The end of the text does not end it.
fn request(tokens: Vec<u32>, max_tokens: usize) -> Request {
    Request {
        tokens,
        sampling: SamplingConfig::greedy(),
        breakers: None,
        constraint: None,
        logit_bias: Vec::new(),
        max_tokens,
        ignore_end: true,
        stop: Vec::new(),
        n_probs: 0,
        post_sampling_probs: false,
        cache_prompt: true,
        shown: Vec::new(),
    }
}

/// What a request gave, without times.
#[derive(Clone, Debug, Default, PartialEq)]
struct Outcome {
    text: String,
    tokens: Vec<u32>,
    probs: Vec<TokenProbs>,
    /// Reason, tokens of the prompt, generated ones, dropped ones.
    end: Option<(Stop, usize, usize, usize)>,
    error: Option<Error>,
}

/// What requests gave, and what their updates said.
#[derive(Debug, Default)]
struct Client {
    outcomes: BTreeMap<RequestId, Outcome>,
    /// The slot and the cached tokens of those that started.
    started: BTreeMap<RequestId, (usize, usize)>,
    /// The last progress of the prompt.
    prefill: BTreeMap<RequestId, (usize, usize)>,
    finished: BTreeMap<RequestId, Finished>,
}

impl Client {
    /// Takes an update, which must be one that may come now.
    fn take(&mut self, id: RequestId, update: Update<'_>) {
        let is_started = self.started.contains_key(&id);
        let outcome = self.outcomes.entry(id).or_default();
        assert!(outcome.end.is_none() && outcome.error.is_none(), "{id} goes on after its end");
        match update {
            Update::Started { slot, n_cached } => {
                assert!(self.started.insert(id, (slot, n_cached)).is_none(), "{id} starts twice");
            }
            Update::Prefill { done, total } => {
                let before = self.prefill.insert(id, (done, total));
                let n_cached = self.started[&id].1;
                let before = before.map_or(n_cached, |(before, _)| before);
                assert!(before < done && done <= total, "{id}: {before}, {done} of {total}");
                assert!(outcome.tokens.is_empty());
            }
            Update::Token { token, text, probs } => {
                let (done, total) = self.prefill[&id];
                assert_eq!(done, total);
                outcome.text.push_str(text);
                outcome.tokens.push(token);
                outcome.probs.extend(probs.cloned());
            }
            Update::Finished(finished) => {
                assert!(is_started);
                let Finished { stop, n_prompt, n_generated, n_dropped, .. } = finished;
                assert_eq!(n_generated, outcome.tokens.len());
                assert_eq!(finished.n_cached, self.started[&id].1);
                outcome.text.push_str(&finished.text);
                outcome.end = Some((stop, n_prompt, n_generated, n_dropped));
                self.finished.insert(id, finished);
            }
            Update::Failed(error) => outcome.error = Some(error),
        }
    }

    fn step(&mut self, scheduler: &mut Scheduler) {
        scheduler.step(&mut || (), &mut |id, update| self.take(id, update)).unwrap();
    }

    /// Runs a scheduler until it is idle, and returns the number of passes.
    fn run(&mut self, scheduler: &mut Scheduler) -> u64 {
        let before = scheduler.counters().n_decode_total;
        while !scheduler.is_idle() {
            self.step(scheduler);
        }
        scheduler.counters().n_decode_total - before
    }
}

/// What a request gives in a scheduler that has nothing else to do.
fn run_one(scheduler: &mut Scheduler, request: &Request) -> (Outcome, usize) {
    let mut client = Client::default();
    let id = scheduler.submit(request.clone()).unwrap();
    client.run(scheduler);
    let outcome = client.outcomes.remove(&id).unwrap();
    (outcome, client.started.get(&id).map_or(0, |&(_, n_cached)| n_cached))
}

/// What a request gives in a new scheduler.
fn alone(engine: &Arc<Engine>, request: &Request) -> Outcome {
    run_one(&mut scheduler(engine, 1), request).0
}
