//! Every architecture against llama.cpp.
//!
//! Small models of random weights, in F16, Q8_0, Q4_0 and mixes of K-quants.
//! `test_models/architectures.py` made models and goldens.

use std::collections::BTreeSet;

use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, TransformerBackend};
use kernel::llm::gguf::Gguf;
use kernel::llm::model::{ARCHITECTURES, Architecture};
use kernel::llm::workers::SingleThread;
use serde::Deserialize;

use crate::runs::Goldens;
use crate::support::{read, read_model};
use crate::text;

#[derive(Deserialize)]
struct Run {
    prompt: String,
    prompt_tokens: Vec<u32>,
    tokens: Vec<u32>,
    first_logits: Vec<f32>,
}

fn goldens() -> Goldens<Run> {
    serde_json::from_slice(&read("goldens/architectures.json")).unwrap()
}

fn models(goldens: &Goldens<Run>) -> impl Iterator<Item = (&str, Vec<u8>, &[Run])> {
    goldens.models.iter().map(|(name, golden)| {
        let file = read_model(&format!("architectures/{name}.gguf"), &golden.sha256);
        (&name[..], file, &golden.runs[..])
    })
}

#[test]
fn every_architecture_has_goldens_in_four_types() {
    let goldens = goldens();
    for Architecture { name, .. } in ARCHITECTURES {
        for kind in ["F16", "Q8_0", "Q4_0", "Q4_K_M"] {
            assert!(goldens.models.contains_key(&format!("{name}-{kind}")), "{name} in {kind}");
        }
    }
}

#[test]
fn every_k_type_is_in_one_of_the_models() {
    let mut kinds = BTreeSet::new();
    for (_, file, _) in models(&goldens()) {
        let gguf = Gguf::parse(&file).unwrap();
        kinds.extend(gguf.tensors().iter().map(|tensor| tensor.kind.name));
    }
    for kind in ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"] {
        assert!(kinds.contains(kind), "{kind} is in none");
    }
}

#[test]
fn greedy_tokens_are_those_of_llama_cpp() {
    let goldens = goldens();
    let mut faults = Vec::new();
    for (name, file, runs) in models(&goldens) {
        let n_ctx = Some(goldens.settings.n_ctx);
        let context = ContextOptions { n_ctx, ..ContextOptions::default() };
        let options = BackendOptions { context, workers: &SingleThread, now_us: || 0 };
        let mut backend = TransformerBackend::with_options(options);
        backend.set_ignore_end(true);
        backend.load_bytes(ModelBuffer::from(&file[..])).unwrap();
        assert!(runs.len() >= 3);
        for run in runs {
            assert_eq!(run.tokens.len(), goldens.n_generated);
            let result = backend.infer(&run.prompt, goldens.n_generated).unwrap();
            assert_eq!(result.prompt_tokens, run.prompt_tokens.len());
            if result.tokens != run.tokens {
                let same = result.tokens.iter().zip(&run.tokens).take_while(|(a, b)| a == b);
                faults.push(format!("{name}, {:?}: from token {}", run.prompt, same.count()));
            }
        }
    }
    assert!(faults.is_empty(), "{} runs differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn first_logits_are_those_of_llama_cpp() {
    let goldens = goldens();
    let mut worst = (0.0_f32, 0.0_f64);
    for (name, file, runs) in models(&goldens) {
        for run in runs {
            let logits = logits(&file, &run.prompt_tokens, goldens.settings.n_ctx);
            assert_eq!(logits.len(), run.first_logits.len());
            let pairs = logits.iter().zip(&run.first_logits);
            let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let divergence = kl_divergence(&run.first_logits, &logits);
            assert!(difference < 1e-2, "{name}, {:?}: a logit is off by {difference}", run.prompt);
            assert!(divergence < 1e-4, "{name}, {:?}: KL divergence {divergence}", run.prompt);
            worst = (worst.0.max(difference), worst.1.max(divergence));
        }
    }
    println!("largest difference of a logit {}, largest KL divergence {:.2e}", worst.0, worst.1);
}

/// The logits after these tokens.
fn logits(file: &[u8], tokens: &[u32], n_ctx: usize) -> Vec<f32> {
    let context = ContextOptions { n_ctx: Some(n_ctx), ..ContextOptions::default() };
    let mut started = text::start(file, context, &SingleThread);
    text::logits(&mut started, tokens, tokens.len() - 1).remove(0)
}

/// How much information is lost if one takes the second distribution for the first.
fn kl_divergence(first: &[f32], second: &[f32]) -> f64 {
    let log_probabilities = |logits: &[f32]| -> Vec<f64> {
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        logits.iter().map(|&x| f64::from(x) - sum.ln()).collect()
    };
    let (first, second) = (log_probabilities(first), log_probabilities(second));
    first.iter().zip(&second).map(|(p, q)| p.exp() * (p - q)).sum()
}
