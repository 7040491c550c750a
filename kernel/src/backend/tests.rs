//! The engine from end to end, with a small model of random weights.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;

mod answers;
mod prefixes;
mod sessions;

use super::{
    BackendOptions, ContextOptions, ModelBuffer, Progress, StopReason, TransformerBackend,
};
use crate::backend::self_test::{Machine, TESTS};
use crate::llm::engine_tests::synthetic::Synthetic;
use crate::llm::gguf::Gguf;
use crate::llm::quantize::WeightType;
use crate::llm::tokenizer::Tokenizer;
use crate::llm::workers::SingleThread;

fn backend(kind: WeightType) -> TransformerBackend {
    let options =
        BackendOptions { context: ContextOptions::default(), workers: &SingleThread, now_us: || 0 };
    let mut backend = TransformerBackend::with_options(options);
    let file = Synthetic::new(kind).builder().build();
    backend.load_bytes(ModelBuffer::from(&file[..])).unwrap();
    backend
}

#[test]
fn test_complete_inference_pipeline_stub() {
    let file = Synthetic::new(WeightType::Q4_0).builder().build();
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap();
    let mut backend = backend(WeightType::Q4_0);
    let mut streamed = String::new();
    let mut on_progress = |progress: Progress<'_>| {
        if let Progress::Text(text) = progress {
            streamed.push_str(text);
        }
        ControlFlow::Continue(())
    };
    let result = backend.infer_streaming("ab abc", 23, &mut on_progress).unwrap();
    assert_eq!(result.prompt_tokens, tokenizer.encode("ab abc", true, false).len());
    assert_eq!((result.tokens.len(), result.stop), (23, StopReason::MaxTokens));
    assert_eq!(result.output, tokenizer.decode(&result.tokens).unwrap());
    assert_eq!(result.output, streamed);
    assert!(result.output.chars().count() > 3, "{:?}", result.output);
}

#[test]
fn test_tokenizer_roundtrip() {
    let file = Synthetic::new(WeightType::F32).builder().build();
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap();
    for text in ["abc ab", "  two spaces\tand\n lines", "naïve 漢字 🙂👨‍👩‍👧", "<s> is text"]
    {
        let tokens = tokenizer.encode(text, true, false);
        // The space comes from the start of the text.
        assert_eq!(tokenizer.decode(&tokens).unwrap(), [" ", text].concat(), "{tokens:?}");
    }
}

#[test]
fn test_kv_cache() {
    let mut backend = backend(WeightType::Q8_0);
    let cached = backend.infer("abc", 31).unwrap();
    assert_eq!(backend.infer_uncached("abc", 31).unwrap(), cached.tokens);
    assert!(cached.tokens.iter().any(|token| *token != cached.tokens[0]));
}

#[test]
fn backends_that_share_a_model_have_texts_of_their_own() {
    let mut first = backend(WeightType::Q4_0);
    let answer = |backend: &mut TransformerBackend, prompt| {
        backend.extend(prompt, 7, &mut |_| ControlFlow::Continue(())).unwrap().tokens
    };
    let expected: Vec<_> = ["abc", "b a"].map(|prompt| answer(&mut first, prompt)).into();
    first.reset();
    let mut second = first.share(&SingleThread).unwrap();
    for (prompt, expected) in ["abc", "b a"].into_iter().zip(expected) {
        assert_eq!(answer(&mut first, prompt), expected);
        assert_eq!(answer(&mut second, prompt), expected);
    }
    drop(first);
    second.reset();
    assert_eq!(answer(&mut second, "abc").len(), 7);
}

/// A clock that advances by 1 ms with each call, so that the cache saves no time.
fn now_us() -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering};
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(1000, Ordering::Relaxed)
}

/// Free memory that falls with each call.
fn memory_free() -> u64 {
    u64::MAX - now_us()
}

#[test]
fn the_tests_of_a_real_model_find_faults() {
    let mut backend = backend(WeightType::Q8_0);
    let machine = Machine { now_us, memory_free, threads: &SingleThread };
    let failed: Vec<_> = TESTS
        .iter()
        .filter_map(|test| test.run(&mut backend, machine).err().map(|error| (test.name, error)))
        .collect();
    let names: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["test_repeated_inference", "test_kv_cache_speedup"], "{failed:?}");
}
