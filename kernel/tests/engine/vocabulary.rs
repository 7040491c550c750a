//! The cost of large vocabularies and long prompts.

use std::collections::HashSet;
use std::time::Instant;

use kernel::llm::gguf::Gguf;
use kernel::llm::gguf::write::Builder;
use kernel::llm::tokenizer::Tokenizer;

use crate::memory::{COUNT, LIVE, PEAK};

/// The result of `run`, its number of allocations, and its peak memory in bytes.
fn counted<T>(run: impl FnOnce() -> T) -> (T, usize, usize) {
    let (count, live) = (COUNT.get(), LIVE.get());
    PEAK.set(live);
    let made = run();
    (made, COUNT.get() - count, PEAK.get() - live)
}

/// A byte-level vocabulary of Qwen 2's size.
///
/// Each token joins two earlier tokens, so there are nearly as many merges.
fn large_vocabulary() -> Vec<u8> {
    const N: usize = 151_936;
    let visible = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('\u{100}'..='\u{143}');
    let mut tokens: Vec<String> = visible.map(String::from).collect();
    let mut known: HashSet<String> = tokens.iter().cloned().collect();
    let mut merges = Vec::new();
    let mut random = 3u64;
    while tokens.len() < N {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let left = &tokens[(random >> 33) as usize % tokens.len().min(3001)];
        let right = &tokens[(random >> 17) as usize % 256];
        let joined = format!("{left}{right}");
        if known.insert(joined.clone()) {
            merges.push(format!("{left} {right}"));
            tokens.push(joined);
        }
    }
    Builder::new()
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "qwen2")
        .strings("tokenizer.ggml.tokens", &tokens)
        .strings("tokenizer.ggml.merges", &merges)
        .build()
}

#[test]
fn memory_is_what_is_said() {
    let file = large_vocabulary();
    let gguf = Gguf::parse(&file).unwrap();
    let start = Instant::now();
    let (tokenizer, count, peak) = counted(|| Tokenizer::from_gguf(&gguf).unwrap());
    let took = start.elapsed();
    let said = tokenizer.memory_bytes();
    println!("151936 tokens: {} KiB in {count} allocations, {took:?}", said / 1024);
    // Not one for each token.
    assert!(count < 64, "{count} allocations");
    assert!(peak <= said + 4096, "{peak} bytes at the most, {said} are said");
    assert!(said < 12 << 20, "{said} bytes");

    // The backend's reserve for each byte of a prompt is enough.
    for unit in ["a", " ", "\n", "a ", "É", "漢"] {
        let text = unit.repeat((1 << 18) / unit.len());
        let (tokens, _, peak) = counted(|| tokenizer.encode(&text, false, false));
        println!("{unit:?}: {} bytes for each byte", peak / text.len());
        assert!(tokens.len() > 1000 && peak < 384 * text.len(), "{unit:?}: {peak}");
    }
}
