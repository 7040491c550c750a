//! Byte-level encoding against llama.cpp's, on the texts of `test_models/byte_level.py`.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::*;
use crate::llm::gguf::build::Builder;

#[derive(Deserialize)]
struct Goldens {
    vocabulary: Vec<String>,
    special: Vec<String>,
    merges: Vec<String>,
    texts: Vec<String>,
    ways: BTreeMap<String, Way>,
}

#[derive(Deserialize)]
struct Way {
    adds_bos: bool,
    tokens: Vec<Vec<u32>>,
    /// With what begins a text, and with special tokens found by their names.
    with_special: Vec<Vec<u32>>,
}

fn goldens() -> Goldens {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../test_models/goldens/byte_level.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn builder(goldens: &Goldens) -> Builder {
    let texts: Vec<&str> = goldens.vocabulary.iter().map(String::as_str).collect();
    let merges: Vec<&str> = goldens.merges.iter().map(String::as_str).collect();
    let kind = |text: &String| if goldens.special.contains(text) { 3 } else { 1 };
    let kinds: Vec<i32> = goldens.vocabulary.iter().map(kind).collect();
    Builder::new()
        .string("tokenizer.ggml.model", "gpt2")
        .strings("tokenizer.ggml.tokens", &texts)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .strings("tokenizer.ggml.merges", &merges)
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 0)
}

fn read(builder: Builder) -> Result<Tokenizer, Error> {
    let file = builder.build();
    Tokenizer::from_gguf(&Gguf::parse(&file).unwrap())
}

fn tokenizer(goldens: &Goldens, pre: &str) -> Tokenizer {
    read(builder(goldens).string("tokenizer.ggml.pre", pre)).unwrap()
}

fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> String {
    let mut decoder = Decoder::new(tokenizer.max_token_bytes());
    let mut text = String::new();
    for &token in tokens {
        decoder.push(tokenizer, token, &mut text);
    }
    decoder.finish(&mut text);
    text
}

#[test]
fn tokens_are_those_of_llama_cpp() {
    let goldens = goldens();
    assert!(goldens.ways.len() >= 12 && goldens.texts.len() > 100);
    let mut faults = Vec::new();
    for (pre, way) in &goldens.ways {
        let tokenizer = tokenizer(&goldens, pre);
        assert_eq!(tokenizer.begin().is_some(), way.adds_bos, "{pre}");
        for (i, text) in goldens.texts.iter().enumerate() {
            let plain = tokenizer.encode(text, false, false);
            let special = tokenizer.encode(text, true, true);
            if plain != way.tokens[i] || special != way.with_special[i] {
                faults.push(alloc::format!("{pre}: {text:?}"));
            }
            assert_eq!(decode(&tokenizer, &plain), *text, "{pre}");
        }
    }
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_name_of_a_way_has_a_family_with_goldens() {
    let goldens = goldens();
    for words in words::ALL {
        let names = words.names;
        assert!(names.iter().any(|name| goldens.ways.contains_key(*name)), "{names:?}");
    }
}

#[test]
fn files_that_do_not_say_enough_are_refused() {
    let goldens = goldens();
    let error = read(builder(&goldens).string("tokenizer.ggml.pre", "nonsense")).unwrap_err();
    let Error::Unsupported { what } = error else { panic!("{error}") };
    assert!(what.contains("`nonsense`"), "{what}");
    let bare = Builder::new()
        .string("tokenizer.ggml.model", "gpt2")
        .strings("tokenizer.ggml.tokens", &["a"]);
    let error = read(bare).unwrap_err();
    assert!(matches!(&error, Error::ParseError { what, .. } if what.contains("merges")), "{error}");
    // Without a name the default way serves.
    let unnamed = read(builder(&goldens)).unwrap();
    let text = "a1b22 c333!? d";
    let default = tokenizer(&goldens, "default").encode(text, false, false);
    assert_eq!(unnamed.encode(text, false, false), default);
}

/// A quadratic step would take hours here.
#[test]
fn long_texts_of_one_kind_are_encoded() {
    let goldens = goldens();
    let tokenizer = tokenizer(&goldens, "gpt-4o");
    for unit in ["a", " ", "\n", "aB", "1", "!", "é", "word ", " \n", "'"] {
        let text = unit.repeat((1 << 20) / unit.len());
        let tokens = tokenizer.encode(&text, false, false);
        assert!(decode(&tokenizer, &tokens) == text, "{unit:?}");
    }
}
