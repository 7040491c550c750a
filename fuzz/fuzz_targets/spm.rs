//! SentencePiece's byte-pair models: any text with a trained vocabulary or with one of the input's,
//! and any file as a vocabulary.
#![no_main]

use std::sync::LazyLock;

use fuzz::limits::Limits;
use fuzz::text::{byte_tokens, check_tokens, tokens_have_text};
use kernel::llm::gguf::Gguf;
use kernel::llm::gguf::write::Builder;
use kernel::llm::tokenizer::Tokenizer;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// With the trained vocabulary.
    Text { special: bool, text: &'a [u8] },
    /// A file whose tokenizer is of this kind.
    File(&'a [u8]),
    /// A vocabulary: texts with scores, behind the tokens of all bytes.
    Vocabulary { pieces: Vec<(&'a [u8], i8)>, kinds: Option<Vec<u8>>, prefix: bool, text: &'a [u8] },
}

static TRAINED: LazyLock<Tokenizer> = LazyLock::new(|| {
    let file = include_bytes!("../../test_models/vocabularies/spm.gguf");
    Tokenizer::from_gguf(&Gguf::parse(file).unwrap()).unwrap()
});

const LIMITS: Limits = Limits { memory: (512, 128 << 10), ns_per_byte: 20_000 };

fuzz_target!(|data: &[u8]| {
    LazyLock::force(&TRAINED);
    let Ok(input) = Input::arbitrary_take_rest(arbitrary::Unstructured::new(data)) else { return };
    LIMITS.hold(data.len(), || match input {
        Input::Text { special, text } => check_tokens(&TRAINED, text, special),
        Input::File(file) => {
            if let Ok(tokenizer) = Gguf::parse(file).and_then(|gguf| Tokenizer::from_gguf(&gguf)) {
                check_tokens(&tokenizer, "Hello  wörld\n<s>🙂".as_bytes(), true);
            }
        }
        Input::Vocabulary { pieces, kinds, prefix, text } => {
            vocabulary(&pieces, kinds.as_deref(), prefix, text);
        }
    });
});

fn vocabulary(pieces: &[(&[u8], i8)], kinds: Option<&[u8]>, prefix: bool, text: &[u8]) {
    let bytes = byte_tokens().map(String::into_bytes);
    let texts: Vec<Vec<u8>> = bytes.chain(pieces.iter().map(|(piece, _)| piece.to_vec())).collect();
    let scores: Vec<f32> =
        [0.0; 256].into_iter().chain(pieces.iter().map(|&(_, score)| score.into())).collect();
    let mut all_kinds: Vec<i32> = (0..texts.len()).map(|i| if i < 256 { 6 } else { 1 }).collect();
    for (to, &kind) in all_kinds.iter_mut().skip(256).zip(kinds.unwrap_or_default()) {
        *to = i32::from(kind % 8);
    }
    let file = Builder::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &texts)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &all_kinds)
        .bool("tokenizer.ggml.add_space_prefix", prefix)
        .build();
    let Ok(tokenizer) = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()) else { return };
    check_tokens(&tokenizer, text, true);
    // Where each byte has a token and none is lost, each text comes back as the vocabulary has it.
    if kinds.is_none() && tokens_have_text(&tokenizer) {
        let tokens = tokenizer.encode(text, false, false);
        let mut back = Vec::new();
        tokens.iter().for_each(|&token| tokenizer.push_bytes(token, &mut back));
        let spaced = [if prefix && !text.is_empty() { &b" "[..] } else { b"" }, text].concat();
        assert_eq!(with_spaces(&back), with_spaces(&spaced));
    }
}

/// The text with a space for each U+2581, which both stand for.
fn with_spaces(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let space = rest.strip_prefix("\u{2581}".as_bytes());
        out.push(if space.is_some() { b' ' } else { *first });
        rest = space.unwrap_or(tail);
    }
    out
}
