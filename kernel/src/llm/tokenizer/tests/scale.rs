//! Long texts and large vocabularies.

use std::time::{Duration, Instant};

use super::super::slots::{mix, unmix};
use super::llama_cpp::{keys, vocabulary};
use super::*;

/// 1 MiB of each kind of text that could take quadratic time.
fn long_texts() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    const LEN: usize = 1 << 20;
    let repeated = [
        " ",
        "\n",
        "a",
        "A",
        "É",
        "ÉA",
        "7",
        ".",
        "'",
        "<",
        "\u{a0}",
        "漢",
        "👩\u{200d}👧",
        "\u{301}",
        "a ",
        " \n",
        "\r\n\t",
        "<x>",
        "</s>",
        "'s",
        "The quick brown fox, jumping over 13 dogs. ",
    ];
    let repeated = repeated.map(|text| (text, text.bytes().cycle().take(LEN).collect()));
    let mut seed = 5u32;
    let word = core::iter::repeat_with(|| {
        seed = seed.wrapping_mul(0x01b3_7fd9).wrapping_add(17);
        b'a' + (seed >> 24) as u8 % 26
    });
    let word = ("one word", word.take(LEN).collect());
    let spaces = ("spaces, then a word", [vec![b' '; LEN - 1], vec![b'x']].concat());
    repeated.into_iter().chain([word, spaces])
}

#[test]
fn a_mebibyte_takes_no_quadratic_time() {
    let keys = keys("bpe");
    let mut tokenizers = Vec::from([("spm", vocabulary("spm"))]);
    for pre in ["default", "llama-bpe", "tekken", "deepseek-llm", "deepseek-v3", "bloom"] {
        tokenizers.push((pre, read(&keys.clone().string("tokenizer.ggml.pre", pre)).unwrap()));
    }
    for (name, text) in long_texts() {
        for (pre, t) in &tokenizers {
            let start = Instant::now();
            let tokens = t.encode(&text, false, true);
            // 2^40 steps would take a quarter of an hour at the least.
            let took = start.elapsed();
            assert!(took < Duration::from_secs(20), "{pre}: {name:?} took {took:?}");
            assert!(!tokens.is_empty());
        }
    }
}

#[test]
fn a_vocabulary_that_is_made_to_crowd_is_refused_at_once() {
    let words = (0..300_007_u64).map(|i| unmix(i) ^ mix(8));
    let texts: Vec<[u8; 8]> = words.map(u64::to_le_bytes).collect();
    let gguf = Builder::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &texts)
        .build();
    let gguf = Gguf::parse(&gguf).unwrap();
    let start = Instant::now();
    let error = Tokenizer::from_gguf(&gguf).unwrap_err();
    // A step for each pair of texts takes minutes.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(matches!(error, Error::ParseError { what, .. } if what.contains("looking them up")));
}
