//! Nothing is allocated while tokens are generated.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, TransformerBackend};
use kernel::llm::engine::Engine;
use kernel::llm::kv_cache::CacheType;
use kernel::llm::plan::WorkspaceOptions;
use kernel::llm::sampling::{Breakers, DEFAULT_BREAKERS, LogitBias, Mirostat, SamplingConfig};
use kernel::llm::scheduler::{Request, Scheduler, SchedulerOptions, Update};
use kernel::llm::workers::SingleThread;
use kernel::llm::workspace::{Step, Workspace};

use crate::memory::COUNT;

fn allocations() -> usize {
    COUNT.get()
}

fn model(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn loaded(context: ContextOptions) -> TransformerBackend {
    let model = model("tiny.gguf");
    let options = BackendOptions { context, workers: &SingleThread, now_us: || 0 };
    let mut backend = TransformerBackend::with_options(options);
    backend.load_bytes(ModelBuffer::from(&model[..])).unwrap();
    backend
}

/// Generates, and returns the number of context shifts.
#[track_caller]
fn generate_without_allocating(backend: &mut TransformerBackend) -> usize {
    let mut counts = Vec::with_capacity(1000);
    let before = allocations();
    let result = backend.infer_streaming("Once upon a time", 61, &mut |_| {
        counts.push(allocations());
        ControlFlow::Continue(())
    });
    let result = result.unwrap();
    // The count works: the text that is kept was allocated.
    assert!(allocations() > before && !result.output.is_empty() && counts.len() > 10);
    assert_eq!(counts.first(), counts.last(), "{counts:?}");
    result.context_shifts
}

/// Settings with which every step of sampling has something to do.
fn every_step() -> SamplingConfig {
    let mut logit_bias = LogitBias::NONE;
    logit_bias.push(7, -1.5).unwrap();
    // Fewer tokens than the text has, so that old ones are dropped.
    SamplingConfig {
        logit_bias,
        penalty_last_n: 23,
        repeat_penalty: 1.1,
        frequency_penalty: 0.1,
        presence_penalty: 0.1,
        dry_multiplier: 0.8,
        dry_penalty_last_n: 23,
        top_n_sigma: 3.0,
        xtc_probability: 0.5,
        top_k: 101,
        typical_p: 0.98,
        ..SamplingConfig::creative()
    }
}

#[test]
fn nothing_is_allocated_while_tokens_are_generated() {
    let every_step = every_step();
    let mirostat = SamplingConfig { mirostat: Some(Mirostat::DEFAULT), ..every_step };
    let mut backend = loaded(ContextOptions::default());
    for sampling in [SamplingConfig::greedy(), SamplingConfig::creative(), every_step, mirostat] {
        backend.set_sampling_config(sampling);
        assert_eq!(generate_without_allocating(&mut backend), 0);
    }
    for kv_cache in CacheType::ALL {
        let context = ContextOptions { kv_cache, ..ContextOptions::default() };
        assert_eq!(generate_without_allocating(&mut loaded(context)), 0);
        let short = ContextOptions { n_ctx: Some(19), context_shift: true, keep: 3, ..context };
        assert!(generate_without_allocating(&mut loaded(short)) > 3);
    }
}

#[test]
fn no_step_of_the_scheduler_allocates() {
    let file = model("architectures/llama-Q8_0.gguf");
    let file = ModelBuffer::from(&file[..]);
    let engine = Arc::new(Engine::from_file(file, &SingleThread).unwrap());
    let breakers = Breakers::new(&DEFAULT_BREAKERS, engine.tokenizer()).unwrap();
    for context_shift in [false, true] {
        let context =
            ContextOptions { n_ctx: Some(101), context_shift, ..ContextOptions::default() };
        let workspace = Workspace::try_new(engine.clone(), context, 3, &SingleThread).unwrap();
        let options = SchedulerOptions { parallel: 3, queue: 8, now_us: || 0 };
        let mut scheduler = Scheduler::try_new(workspace, options).unwrap();
        let before = allocations();
        let settings = [SamplingConfig::creative(), every_step()];
        for (n, sampling) in settings.into_iter().cycle().take(8).enumerate() {
            let request = Request {
                tokens: (0..3 + 11 * n as u32).map(|i| 100 + i).collect(),
                sampling: SamplingConfig { seed: n as u64, ..sampling },
                breakers: Some(breakers.clone()),
                logit_bias: (0..50).map(|token| (token, -0.5)).collect(),
                constraint: None,
                max_tokens: 120,
                ignore_end: n.is_multiple_of(2),
                stop: vec!["ab".repeat(9), "not in the text".into(), "\n".repeat(n + 1)],
                n_probs: n,
                post_sampling_probs: n.is_multiple_of(3),
                cache_prompt: true,
                shown: Vec::new(),
            };
            scheduler.submit(request).unwrap();
        }
        // The count works.
        assert!(allocations() > before);
        let (mut n_tokens, mut n_ended) = (0, 0);
        while !scheduler.is_idle() {
            let before = allocations();
            let on_update = &mut |_, update: Update<'_>| match update {
                Update::Token { .. } => n_tokens += 1,
                Update::Finished(_) => n_ended += 1,
                _ => {}
            };
            scheduler.step(&mut || (), on_update).unwrap();
            assert_eq!(allocations(), before, "after {n_tokens} tokens");
        }
        assert!(n_tokens > 100, "{n_tokens}");
        assert_eq!(n_ended, 8);
    }
}

/// Texts that share pages, copy them, and evict those of texts that ended.
#[test]
fn no_shared_page_is_allocated() {
    let engine = Arc::new(
        Engine::from_file(ModelBuffer::from(&model("tiny.gguf")[..]), &SingleThread).unwrap(),
    );
    let context = ContextOptions { n_ctx: Some(97), ..ContextOptions::default() };
    let n_positions = Some(97 + 32);
    let options = WorkspaceOptions::new(context, 2);
    let options = WorkspaceOptions { n_positions, shares_prefixes: true, ..options };
    let mut workspace = Workspace::with_options(engine, options, &SingleThread).unwrap();
    let [mut first, mut second] = [0; 2].map(|_| workspace.session().unwrap());
    let (mut n_cached, mut n_waits) = (0, 0);
    let mut texts = [vec![1; 71], vec![1; 71], vec![1; 71], vec![2; 71]];
    texts[1][50] = 300;
    let before = allocations();
    for text in texts.iter().chain(&texts) {
        first.append(text).unwrap();
        n_cached += workspace.take_prefix(&mut first);
        second.append(&[4; 67]).unwrap();
        n_cached += workspace.take_prefix(&mut second);
        for _ in 0..11 {
            let steps = workspace.step(&mut [&mut first, &mut second]).unwrap();
            n_waits += steps.iter().filter(|&&step| step == Step::OutOfPages).count();
        }
        second.truncate(3);
        workspace.step(&mut [&mut second]).unwrap();
        second.clear();
        first.clear();
    }
    assert_eq!(allocations(), before);
    assert!(n_cached > 97 && n_waits > 0, "{n_cached} cached, {n_waits} waits");
}
