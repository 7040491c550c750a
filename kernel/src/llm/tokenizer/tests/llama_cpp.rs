//! The tokens that llama.cpp gives. `test_models/vocabularies.py` made the files that this reads.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::super::pre::PreTokenizer;
use super::super::{SCORES, TOKENS, TYPES};
use super::*;
use crate::llm::gguf::ValueType;

#[derive(Deserialize)]
struct Goldens {
    strings_hex: Vec<String>,
    /// For each string, the ways in which it is encoded.
    encodings: Vec<Vec<Vec<u32>>>,
    /// For each pre-tokeniser, the way of each string.
    pre_tokenizers: BTreeMap<String, Vec<usize>>,
    /// For each pre-tokeniser, the tokens of a text with the model's begin token.
    names: BTreeMap<String, Vec<u32>>,
    vocabularies: BTreeMap<String, Golden>,
}

#[derive(Deserialize)]
struct Golden {
    strings: Vec<Vec<u32>>,
    /// Texts, whether a text's begin and end are added, and the tokens.
    special: Vec<(String, bool, Vec<u32>)>,
    pieces: Vec<String>,
    ends: Vec<u32>,
}

fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn goldens() -> Goldens {
    serde_json::from_slice(&file("goldens/vocabularies.json")).unwrap()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// One of the vocabularies.
pub fn vocabulary(name: &str) -> Tokenizer {
    let bytes = file(&format!("vocabularies/{name}.gguf"));
    Tokenizer::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap()
}

/// The keys of a vocabulary.
pub fn keys(name: &str) -> Builder {
    let bytes = file(&format!("vocabularies/{name}.gguf"));
    let gguf = Gguf::parse(&bytes).unwrap();
    let strings = |key: &str| -> Vec<Vec<u8>> {
        let array = gguf.array(key, ValueType::String).unwrap().unwrap();
        array.strings().map(|(text, _)| text.to_vec()).collect()
    };
    let kinds = gguf.array(TYPES, ValueType::I32).unwrap().unwrap();
    let mut builder = Builder::new()
        .string("tokenizer.ggml.model", gguf.string("tokenizer.ggml.model").unwrap().unwrap())
        .strings(TOKENS, &strings(TOKENS))
        .i32s(TYPES, &kinds.i32s().collect::<Vec<_>>());
    if let Some(scores) = gguf.array(SCORES, ValueType::F32).unwrap() {
        builder = builder.f32s(SCORES, &scores.f32s().collect::<Vec<_>>());
    } else {
        builder = builder.strings("tokenizer.ggml.merges", &strings("tokenizer.ggml.merges"));
    }
    for key in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"] {
        if let Some(token) = gguf.unsigned(key).unwrap() {
            builder = builder.u32(key, token as u32);
        }
    }
    builder
}

#[test]
fn every_pre_tokenizer_cuts_as_llama_cpp_does() {
    let Goldens { strings_hex, encodings, pre_tokenizers, .. } = goldens();
    let keys = keys("bpe");
    assert!(strings_hex.len() > 300 && pre_tokenizers.len() == 20);
    let mut faults = Vec::new();
    for (pre, ways) in &pre_tokenizers {
        let t = read(&keys.clone().string("tokenizer.ggml.pre", pre)).unwrap();
        for ((text, encodings), &way) in strings_hex.iter().zip(&encodings).zip(ways) {
            let text = bytes_of(text);
            let tokens = t.encode(&text, false, false);
            if tokens != encodings[way] {
                let text = String::from_utf8_lossy(&text);
                faults.push(format!("{pre}: {text:?}: {tokens:?}, not {:?}", encodings[way]));
            }
        }
    }
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_name_of_a_pre_tokenizer_has_its_golden() {
    let names = goldens().names;
    assert!(names.keys().map(String::as_str).eq({
        let mut ours: Vec<_> = PreTokenizer::names().collect();
        ours.sort_unstable();
        ours
    }));
    let keys = keys("bpe");
    for (name, tokens) in &names {
        let t = read(&keys.clone().string("tokenizer.ggml.pre", name)).unwrap();
        assert_eq!(&t.encode("It's ABC'S  1234567 é\n /x", true, false), tokens, "{name}");
    }
}

#[test]
fn vocabularies_are_those_of_llama_cpp() {
    let Goldens { strings_hex, vocabularies, .. } = goldens();
    assert_eq!(vocabularies.len(), 4);
    for (name, golden) in &vocabularies {
        let t = vocabulary(name);
        assert_eq!(t.n_vocab(), golden.pieces.len());
        for (text, tokens) in strings_hex.iter().zip(&golden.strings) {
            let text = bytes_of(text);
            let shown = String::from_utf8_lossy(&text);
            assert_eq!(&t.encode(&text, false, false), tokens, "{name}: {shown:?}");
        }
        for (text, add_special, tokens) in &golden.special {
            let ours = t.encode(text, *add_special, true);
            assert_eq!(&ours, tokens, "{name}: {text:?}, {add_special}");
        }
        for (token, piece) in (0..).zip(&golden.pieces) {
            let mut bytes = Vec::new();
            t.push_bytes(token, &mut bytes);
            assert_eq!(bytes, bytes_of(piece), "{name}: token {token}");
        }
        let ends: Vec<u32> = (0..t.n_vocab() as u32).filter(|&token| t.is_end(token)).collect();
        assert_eq!(ends, golden.ends, "{name}");
    }
}
