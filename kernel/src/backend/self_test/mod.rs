//! Self test of the engine with a real model, of any architecture.
//!
//! The image runs the tests in `mode=test`. The host runs them as ignored tests
//! (`kernel/tests/real_model.rs`).
//!
//! The tests compare the engine with itself, so that no model needs goldens. Each test gives a
//! figure.

#![forbid(unsafe_code)]

pub mod shared_passes;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use spin::Mutex;

use crate::backend::{InferenceResult, Progress, SamplingConfig, StopReason, TransformerBackend};
use crate::llm::Error;
use crate::llm::plan::ContextOptions;
use crate::llm::session::Session;
use crate::llm::workers::{SingleThread, Workers};
use crate::llm::workspace::Workspace;

/// The machine as the tests need it.
#[derive(Clone, Copy)]
pub struct Machine {
    /// A monotonic clock, in µs.
    pub now_us: fn() -> u64,
    /// Free memory in bytes, from any fixed offset.
    pub memory_free: fn() -> u64,
    /// The machine's threads, for concurrent texts.
    pub threads: &'static dyn Workers,
}

/// The finding of a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The figure.
    pub figure: f64,
    /// A description, starting with the figure's unit.
    pub detail: String,
}

/// The finding of a test, or the reason of its failure.
pub type Outcome = Result<Finding, String>;

/// A test of a model that is loaded.
pub struct ModelTest {
    /// Its name.
    pub name: &'static str,
    run: fn(&mut TransformerBackend, Machine) -> Outcome,
}

impl ModelTest {
    /// Runs the test. Afterwards the backend samples greedily and has no text.
    pub fn run(&self, backend: &mut TransformerBackend, machine: Machine) -> Outcome {
        backend.set_sampling_config(SamplingConfig::greedy());
        // Measurements have a fixed length.
        backend.set_ignore_end(true);
        let outcome = (self.run)(backend, machine);
        backend.set_ignore_end(false);
        backend.set_sampling_config(SamplingConfig::greedy());
        backend.reset();
        outcome
    }
}

macro_rules! tests {
    ($($name:ident,)*) => {
        /// The tests, the quick ones first.
        pub const TESTS: &[ModelTest] =
            &[$(ModelTest { name: stringify!($name), run: $name }),*];
    };
}

tests! {
    test_load_real_model,
    test_generate_single_token,
    test_generate_multiple_tokens,
    test_sampling_strategies,
    test_performance_targets,
    test_long_generation,
    test_concurrent_inference,
    test_shared_passes,
    test_repeated_inference,
    test_kv_cache_speedup,
}

const PROMPT: &str = "Once upon a time";
/// Tokens of a medium answer.
const SEVERAL: usize = 16;
/// Tokens of a long answer, if the context has room for them.
const LONG: usize = 128;
/// Inferences that must not take memory.
const REPEATED: usize = 1000;
/// The least speed-up of the KV cache at [`LONG`] tokens.
const SPEEDUP: f64 = 10.0;

fn text_of(error: Error) -> String {
    error.to_string()
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn infer(
    backend: &mut TransformerBackend,
    prompt: &str,
    n: usize,
) -> Result<InferenceResult, String> {
    backend.infer(prompt, n).map_err(text_of)
}

/// Positions that an answer to [`PROMPT`] can take, at most [`LONG`].
fn room(backend: &mut TransformerBackend) -> Result<usize, String> {
    let n_prompt = infer(backend, PROMPT, 0)?.prompt_tokens;
    let n_ctx = backend.session().map_or(0, Session::n_ctx);
    Ok(LONG.min(n_ctx.saturating_sub(n_prompt)))
}

/// The metadata is consistent, and the memory in use is the planned memory.
fn test_load_real_model(backend: &mut TransformerBackend, _: Machine) -> Outcome {
    let model = backend.model_metadata().ok_or("no model is loaded")?.clone();
    let sizes = [model.n_layer, model.n_embd, model.n_head, model.n_head_kv, model.n_vocab];
    check(sizes.iter().all(|&size| size > 0), || format!("something is missing: {model:?}"))?;
    let n_ctx = backend.session().map_or(0, Session::n_ctx);
    check((1..=model.n_ctx_train).contains(&n_ctx), || {
        format!("the context is {n_ctx} of {}", model.n_ctx_train)
    })?;
    let result = infer(backend, PROMPT, 1)?;
    let arena_bytes = backend.workspace().map_or(0, Workspace::arena_bytes);
    check(result.arena_bytes == arena_bytes, || {
        format!("the arena has {} bytes, not {arena_bytes}", result.arena_bytes)
    })?;
    let (figure, name) = (model.parameters as f64 / 1e6, &model.architecture);
    Ok(Finding { figure, detail: format!("M parameters: {name} in {}", model.quantization) })
}

/// One token is generated, the same each time.
fn test_generate_single_token(backend: &mut TransformerBackend, _: Machine) -> Outcome {
    let first = infer(backend, PROMPT, 1)?;
    check(first.tokens.len() == 1 && first.tokens_emitted == 1, || format!("{first:?}"))?;
    check(first.stop == StopReason::MaxTokens, || format!("it stopped for {:?}", first.stop))?;
    let again = infer(backend, PROMPT, 1)?;
    check(first.tokens == again.tokens, || {
        format!("{:?} the first time, then {:?}", first.tokens, again.tokens)
    })?;
    let figure = again.first_token_us as f64 / 1e3;
    Ok(Finding { figure, detail: format!("ms to the first token, {:?}", again.output) })
}

/// Tokens generated at once equal tokens generated one by one.
fn test_generate_multiple_tokens(backend: &mut TransformerBackend, _: Machine) -> Outcome {
    let n = SEVERAL.min(room(backend)?);
    let together = infer(backend, PROMPT, n)?;
    check(together.tokens.len() == n, || format!("{} tokens", together.tokens.len()))?;
    let mut one_by_one = infer(backend, PROMPT, 1)?.tokens;
    while one_by_one.len() < n {
        let more = backend.extend("", 1, &mut |_| ControlFlow::Continue(())).map_err(text_of)?;
        one_by_one.extend(more.tokens);
    }
    check(one_by_one == together.tokens, || {
        format!("{:?} at once, {one_by_one:?} one by one", together.tokens)
    })?;
    let figure = together.tokens_per_s;
    Ok(Finding { figure, detail: format!("tokens/s over {n} tokens") })
}

/// Every strategy has greedy as its limit. Equal seeds repeat a draw, other seeds differ.
fn test_sampling_strategies(backend: &mut TransformerBackend, _: Machine) -> Outcome {
    let n = SEVERAL.min(room(backend)?);
    let mut answer = |config| {
        backend.set_sampling_config(config);
        infer(backend, PROMPT, n).map(|result| result.tokens)
    };
    let greedy = answer(SamplingConfig::greedy())?;
    let wild = SamplingConfig {
        temperature: 1.5,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        ..SamplingConfig::creative()
    };
    for (what, config) in [
        ("top_k = 1", SamplingConfig { top_k: 1, ..wild }),
        ("min_p = 1", SamplingConfig { min_p: 1.0, ..wild }),
        ("temperature = 1e-6", SamplingConfig { temperature: 1e-6, ..wild }),
    ] {
        let tokens = answer(config)?;
        check(tokens == greedy, || format!("{what}: {tokens:?} instead of {greedy:?}"))?;
    }
    let mut answers = BTreeSet::new();
    for seed in 0..5 {
        let config = SamplingConfig { seed, ..wild };
        let tokens = answer(config)?;
        check(answer(config)? == tokens, || format!("seed {seed} gives two answers"))?;
        answers.insert(tokens);
    }
    check(answers.len() > 1, || "five seeds give one answer".to_string())?;
    Ok(Finding { figure: answers.len() as f64, detail: "answers of five seeds".to_string() })
}

/// Measures the speed.
///
/// The checks do not depend on the speed: the memory in use equals the planned memory to the byte,
/// and the times add up.
fn test_performance_targets(backend: &mut TransformerBackend, _: Machine) -> Outcome {
    let n = room(backend)?;
    let result = infer(backend, PROMPT, n)?;
    check(result.arena_peak_bytes == result.arena_bytes, || {
        format!("{} of {} bytes of the arena used", result.arena_peak_bytes, result.arena_bytes)
    })?;
    check(result.first_token_us <= result.latency_us, || format!("{result:?}"))?;
    let detail = format!(
        "tokens/s over {n} tokens; {:.1} prompt tokens/s, first token after {:.1} ms",
        result.prompt_tokens_per_s,
        result.first_token_us as f64 / 1e3
    );
    Ok(Finding { figure: result.tokens_per_s, detail })
}

/// Generates more than a hundred tokens; the streamed text equals the output.
fn test_long_generation(backend: &mut TransformerBackend, _: Machine) -> Outcome {
    let n = room(backend)?;
    let mut streamed = String::new();
    let mut on_progress = |progress: Progress<'_>| {
        if let Progress::Text(text) = progress {
            streamed.push_str(text);
        }
        ControlFlow::Continue(())
    };
    let result = backend.infer_streaming(PROMPT, n, &mut on_progress).map_err(text_of)?;
    check(result.tokens_emitted == n, || format!("{} of {n} tokens", result.tokens_emitted))?;
    check(streamed == result.output, || format!("{streamed:?} is not {:?}", result.output))?;
    let figure = result.tokens_per_s;
    Ok(Finding { figure, detail: format!("tokens/s over {n} tokens") })
}

/// Concurrent texts on one model do not disturb each other.
fn test_concurrent_inference(backend: &mut TransformerBackend, machine: Machine) -> Outcome {
    const PROMPTS: [&str; 3] = [PROMPT, "The", "In the morning"];
    let n = SEVERAL.min(room(backend)?);
    let mut alone = Vec::new();
    for prompt in PROMPTS {
        alone.push(infer(backend, prompt, n)?.tokens);
    }
    let mut sessions = Vec::new();
    for _ in 0..machine.threads.count() {
        let session = backend.share(&SingleThread).map_err(text_of)?;
        sessions.push(Mutex::new((session, Ok(Vec::new()))));
    }
    machine.threads.run(&|thread| {
        let (session, answer) = &mut *sessions[thread].lock();
        *answer = infer(session, PROMPTS[thread % PROMPTS.len()], n).map(|result| result.tokens);
    });
    for (thread, session) in sessions.into_iter().enumerate() {
        let (_, answer) = session.into_inner();
        let (answer, alone) = (answer?, &alone[thread % PROMPTS.len()]);
        check(answer == *alone, || format!("thread {thread}: {answer:?} instead of {alone:?}"))?;
    }
    let threads = machine.threads.count();
    Ok(Finding { figure: threads as f64, detail: "threads on one model".to_string() })
}

/// Eight texts in shared passes equal each text alone, token for token.
fn test_shared_passes(backend: &mut TransformerBackend, machine: Machine) -> Outcome {
    let workspace = backend.workspace().ok_or("no model is loaded")?;
    let engine = workspace.engine();
    let n_ctx = shared_passes::N_CTX.min(engine.metadata().n_ctx_train);
    let context = ContextOptions { n_ctx: Some(n_ctx), ..workspace.context() };
    let make =
        |n| Workspace::try_new(Arc::clone(engine), context, n, machine.threads).map_err(text_of);
    let texts = shared_passes::texts(engine);
    let mut one = make(1)?;
    let mut alone = Vec::new();
    for text in &texts {
        alone.push(shared_passes::alone(&mut one, text).map_err(text_of)?);
    }
    let (answers, most) =
        shared_passes::together(&mut make(texts.len())?, &texts).map_err(text_of)?;
    for (i, (answer, alone)) in answers.iter().zip(&alone).enumerate() {
        check(answer == alone, || format!("text {i}: {answer:?} instead of {alone:?}"))?;
    }
    check(most == texts.len(), || format!("only {most} texts shared a pass"))?;
    let tokens: usize = answers.iter().map(Vec::len).sum();
    Ok(Finding { figure: tokens as f64, detail: format!("tokens of {most} texts") })
}

/// A thousand inferences give the same answer and leave the memory as it was.
fn test_repeated_inference(backend: &mut TransformerBackend, machine: Machine) -> Outcome {
    // The first inference allocates the memory that is allocated once.
    let first = infer(backend, PROMPT, 1)?.tokens;
    let free = (machine.memory_free)();
    for i in 0..REPEATED {
        let tokens = infer(backend, PROMPT, 1)?.tokens;
        check(tokens == first, || format!("inference {i}: {tokens:?} instead of {first:?}"))?;
    }
    let left = (machine.memory_free)();
    check(left == free, || format!("{free} bytes were free before, {left} after {REPEATED}"))?;
    Ok(Finding { figure: 0.0, detail: format!("bytes more in use after {REPEATED} inferences") })
}

/// The KV cache changes no token, and has the expected speed-up.
///
/// Without the cache, a text of n tokens takes about n/2 times as long. So the bound grows with n.
fn test_kv_cache_speedup(backend: &mut TransformerBackend, machine: Machine) -> Outcome {
    let n = room(backend)?;
    let start_us = (machine.now_us)();
    let cached = infer(backend, PROMPT, n)?.tokens;
    let middle_us = (machine.now_us)();
    let uncached = backend.infer_uncached(PROMPT, n).map_err(text_of)?;
    let end_us = (machine.now_us)();
    check(cached == uncached, || format!("{cached:?} with the cache, {uncached:?} without"))?;
    let figure = (end_us - middle_us) as f64 / (middle_us - start_us).max(1) as f64;
    let least = SPEEDUP * n as f64 / LONG as f64;
    check(figure >= least, || format!("{figure:.1} times as fast, not {least:.1}, at {n} tokens"))?;
    Ok(Finding { figure, detail: format!("times as fast with the KV cache at {n} tokens") })
}
