//! KV caches of every type, and texts that outgrow the context, against llama.cpp.
//! `test_models/kv_cache.py` made the file that this reads.

use std::collections::BTreeMap;

use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, TransformerBackend};
use kernel::llm::kv_cache::CacheType;
use kernel::llm::workers::SingleThread;
use serde::Deserialize;

use crate::runs::Goldens;
use crate::support::{read, read_model};
use crate::text;

#[derive(Deserialize)]
struct Run {
    kv_type: String,
    prompt: String,
    prompt_tokens: Vec<u32>,
    tokens: Vec<u32>,
    /// The best tokens after the prompt, and after the last but one of `tokens`.
    first_logits: Vec<(u32, f32)>,
    last_logits: Vec<(u32, f32)>,
    /// Context shift: the context, the kept positions, and the number of shifts.
    n_ctx: Option<usize>,
    n_keep: Option<usize>,
    n_shifts: Option<usize>,
}

impl Run {
    fn kv_cache(&self) -> CacheType {
        self.kv_type.parse().unwrap()
    }
}

/// Each model of the goldens with its bytes.
fn models() -> (Goldens<Run>, Vec<(String, Vec<u8>)>) {
    let goldens: Goldens<Run> = serde_json::from_slice(&read("goldens/kv_cache.json")).unwrap();
    let files =
        goldens.models.iter().map(|(name, model)| (name.clone(), read_model(name, &model.sha256)));
    let files = files.collect();
    (goldens, files)
}

/// The tolerance of a logit.
///
/// llama.cpp itself, with repacked weights, is off by a tenth for the trained models, whose weights
/// have four bits. The other models are in F16.
fn limit(name: &str) -> f32 {
    if name.starts_with("tiny") { 0.2 } else { 0.02 }
}

#[test]
fn every_type_of_cache_and_every_way_to_shift_has_goldens() {
    let (goldens, _) = models();
    let runs = || goldens.models.values().flat_map(|model| &model.runs);
    for kind in CacheType::ALL {
        let of_kind = || runs().filter(move |run| run.kv_cache() == kind);
        assert!(of_kind().filter(|run| run.n_ctx.is_none()).count() >= 2, "{kind}");
        let shifting = of_kind().filter(|run| run.n_shifts.is_some_and(|n| n > 1));
        let n_keep: Vec<_> = shifting.filter_map(|run| run.n_keep).collect();
        assert!(n_keep.contains(&1) && n_keep.iter().any(|&n| n > 1), "{kind}: {n_keep:?}");
    }
}

#[test]
fn greedy_tokens_are_those_of_llama_cpp() {
    let (goldens, files) = models();
    let mut faults = Vec::new();
    for (name, file) in &files {
        for run in &goldens.models[name].runs {
            assert_eq!(run.tokens.len(), goldens.n_generated);
            let tokens = generate(file, run, run.n_ctx.unwrap_or(goldens.settings.n_ctx));
            let same = tokens.iter().zip(&run.tokens).take_while(|(a, b)| a == b).count();
            if same < run.tokens.len() {
                let Run { kv_type, prompt, n_keep, .. } = run;
                faults.push(format!("{name}, {kv_type}, {prompt:?}, {n_keep:?}: from {same}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} runs differ:\n{}", faults.len(), faults.join("\n"));
}

fn context(run: &Run, n_ctx: usize) -> ContextOptions {
    ContextOptions {
        n_ctx: Some(n_ctx),
        kv_cache: run.kv_cache(),
        context_shift: run.n_ctx.is_some(),
        // The goldens count the token that begins the text too.
        keep: run.n_keep.unwrap_or(1) - 1,
    }
}

/// The tokens that the backend generates.
fn generate(file: &[u8], run: &Run, n_ctx: usize) -> Vec<u32> {
    let context = context(run, n_ctx);
    let mut backend = TransformerBackend::with_options(BackendOptions {
        context,
        workers: &SingleThread,
        now_us: || 0,
    });
    backend.set_ignore_end(true);
    backend.load_bytes(ModelBuffer::from(file)).unwrap();
    let result = backend.infer(&run.prompt, run.tokens.len()).unwrap();
    assert_eq!(result.prompt_tokens, run.prompt_tokens.len());
    assert_eq!(result.context_shifts, run.n_shifts.unwrap_or(0));
    result.tokens
}

#[test]
fn logits_are_near_those_of_llama_cpp() {
    let (goldens, files) = models();
    let mut largest: BTreeMap<(&str, &str, bool), f32> = BTreeMap::new();
    for (name, file) in &files {
        for run in &goldens.models[name].runs {
            let [first, last] = logits(file, run, run.n_ctx.unwrap_or(goldens.settings.n_ctx));
            let theirs = run.first_logits.iter().zip(std::iter::repeat(&first));
            let theirs = theirs.chain(run.last_logits.iter().zip(std::iter::repeat(&last)));
            for (&(token, logit), ours) in theirs {
                let difference = (ours[token as usize] - logit).abs();
                let place = (&name[..], &run.kv_type[..], run.n_ctx.is_some());
                let largest = largest.entry(place).or_default();
                *largest = largest.max(difference);
            }
        }
    }
    println!("{largest:#.4?}");
    for ((name, kind, shifts), difference) in largest {
        assert!(difference < limit(name), "{name}, {kind}, shifts: {shifts}: {difference}");
    }
}

/// The logits after the prompt, and after all but the last of the golden's tokens.
fn logits(file: &[u8], run: &Run, n_ctx: usize) -> [Vec<f32>; 2] {
    let mut started = text::start(file, context(run, n_ctx), &SingleThread);
    let first = text::logits(&mut started, &run.prompt_tokens, run.prompt_tokens.len() - 1);
    let mut last = Vec::new();
    for &token in &run.tokens[..run.tokens.len() - 1] {
        last = text::logits(&mut started, &[token], 0);
    }
    [first, last].map(|mut logits| logits.remove(0))
}
