//! Nothing is allocated while tokens are generated.

use std::ops::ControlFlow;
use std::path::Path;

use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, TransformerBackend};
use kernel::llm::kv_cache::CacheType;
use kernel::llm::sampling::{LogitBias, Mirostat, SamplingConfig};
use kernel::llm::workers::SingleThread;

use crate::memory::COUNT;

fn allocations() -> usize {
    COUNT.get()
}

fn loaded(context: ContextOptions) -> TransformerBackend {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models/tiny.gguf");
    let model = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
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

#[test]
fn nothing_is_allocated_while_tokens_are_generated() {
    let mut logit_bias = LogitBias::NONE;
    logit_bias.push(7, -1.5).unwrap();
    // Fewer tokens than the text has, so that old ones are dropped.
    let every_step = SamplingConfig {
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
    };
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
