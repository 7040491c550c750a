use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::naive;
use super::synthetic::Synthetic;
use crate::llm::arena::ModelBuffer;
use crate::llm::engine::Engine;
use crate::llm::gguf::Gguf;
use crate::llm::kv_cache::CacheType;
use crate::llm::plan::{ContextOptions, Plan};
use crate::llm::quantize::WeightType;
use crate::llm::workers::threads::Threads;
use crate::llm::workers::{SingleThread, Workers};
use crate::llm::workspace::Workspace;

const TOKENS: [u32; 11] = [1, 260, 7, 263, 100, 2, 261, 261, 0, 265, 31];
const N_CTX: usize = 13;

/// The engine's logits after each of the tokens.
fn logits(file: &[u8], kv_cache: CacheType, workers: &'static dyn Workers) -> Vec<Vec<f32>> {
    let context = ContextOptions { n_ctx: Some(N_CTX), kv_cache, ..ContextOptions::default() };
    let needed = Plan::read(file, file.len() as u64).unwrap().needed(context).unwrap();
    let engine = Engine::from_file(ModelBuffer::from(file), &SingleThread).unwrap();
    let mut workspace = Workspace::try_new(Arc::new(engine), context, 1, workers).unwrap();
    let mut session = workspace.session().unwrap();
    let mut all = Vec::new();
    let mut on_logits = |_, logits: &[f32]| all.push(logits.to_vec());
    workspace.evaluate(&mut session, &TOKENS, 0..TOKENS.len(), &mut on_logits).unwrap();
    // The sizes were counted exactly.
    assert_eq!(workspace.arena_peak_bytes(), needed.arena_bytes);
    all
}

/// The error of the engine's logits, relative to the naive logits.
fn error(file: &[u8], kv_cache: CacheType) -> f64 {
    let gguf = Gguf::parse(file).unwrap();
    let mut worst = 0.0_f64;
    for (i, actual) in logits(file, kv_cache, &SingleThread).iter().enumerate() {
        let expected = naive::logits(&gguf, &TOKENS[..=i]);
        assert_eq!(actual.len(), expected.len());
        let size: f64 = expected.iter().map(|x| x * x).sum();
        let pairs = actual.iter().zip(&expected);
        let difference: f64 = pairs.map(|(&a, e)| (f64::from(a) - e).powi(2)).sum();
        worst = worst.max((difference / size).sqrt());
    }
    worst
}

#[test]
fn the_forward_pass_is_the_textbook_one() {
    for (kind, limit) in [
        // The remaining error: the rounding of keys, values, queries and probabilities to F16.
        (WeightType::F32, 2e-3),
        (WeightType::F16, 3e-3),
        // Activations in 8 bits, with one scale for 32 or for 256; random weights amplify that.
        (WeightType::Q8_0, 6e-2),
        (WeightType::Q4_0, 4e-2),
        (WeightType::Q6_K, 1e-1),
    ] {
        let error = error(&Synthetic::new(kind).builder().build(), CacheType::F16);
        assert!(error < limit, "{kind:?}: {error}");
        // Were it exactly the same, the two would not be independent.
        assert!(error > 0.0);
    }
}

#[test]
fn the_cache_of_every_type_is_the_textbook_one() {
    // Heads of one block, and of two, over which numbers are spread.
    for n_head in [4, 8] {
        let synthetic = Synthetic { n_head, n_rot: 32, ..Synthetic::new(WeightType::Q8_0) };
        let file = Synthetic { kind: WeightType::F32, ..synthetic }.builder().build();
        let errors = CacheType::ALL.map(|kind| error(&file, kind));
        let [f32, f16, q8_0] = errors;
        assert!(f32 < 2e-6 && f16 < 2e-3 && q8_0 < 3e-2, "{errors:?}");
        assert!(0.0 < f32 && 100.0 * f32 < f16 && 5.0 * f16 < q8_0, "{errors:?}");
    }
}

#[test]
fn every_variant_is_the_textbook_one() {
    let plain = Synthetic::new(WeightType::F32);
    for synthetic in [
        Synthetic { tied: true, ..plain.clone() },
        Synthetic { rope_factors: true, ..plain.clone() },
        Synthetic { n_head_kv: 6, ..plain.clone() },
        Synthetic { n_head_kv: 1, n_layer: 1, ..plain.clone() },
    ] {
        let error = error(&synthetic.builder().build(), CacheType::F16);
        assert!(error < 2e-3, "{synthetic:?}: {error}");
    }
    let stretched = plain.builder().f32("llama.rope.scaling.factor", 4.0).build();
    assert!(error(&stretched, CacheType::F16) < 2e-3);
    let logits = |file: &[u8]| logits(file, CacheType::F16, &SingleThread);
    assert_ne!(logits(&stretched), logits(&plain.builder().build()));
}

#[test]
fn a_wrong_weight_shows() {
    // The comparison above can fail: one weight of the last layer is enough.
    let builder = Synthetic::new(WeightType::F32).builder();
    let file = builder.build();
    let gguf = Gguf::parse(&file).unwrap();
    let place = gguf.range(gguf.tensor("blk.1.ffn_down.weight").unwrap()).unwrap().start;
    let mut damaged = file.clone();
    damaged[place..place + 4].copy_from_slice(&3.0_f32.to_le_bytes());
    let expected = naive::logits(&gguf, &TOKENS);
    let actual = &logits(&damaged, CacheType::F16, &SingleThread)[TOKENS.len() - 1];
    let pairs = actual.iter().zip(&expected);
    assert!(pairs.map(|(&a, e)| (f64::from(a) - e).abs()).fold(0.0, f64::max) > 1e-2);
}

#[test]
fn threads_change_nothing() {
    for kind in [WeightType::F32, WeightType::Q4_0, WeightType::Q6_K] {
        let file = Synthetic::new(kind).builder().build();
        let alone = logits(&file, CacheType::F16, &SingleThread);
        for n in [2, 3, 7] {
            let threads = Box::leak(Box::new(Threads(n)));
            assert_eq!(logits(&file, CacheType::F16, threads), alone);
        }
    }
}
