//! Byte-level byte-pair encoding: any text with a trained vocabulary or with merges of the input's,
//! by any pre-tokeniser, and any file as a vocabulary.
#![no_main]

use std::collections::HashSet;
use std::sync::LazyLock;

use fuzz::limits::Limits;
use fuzz::text::{check_tokens, tokens_have_text};
use kernel::llm::gguf::write::Builder;
use kernel::llm::gguf::{Gguf, ValueType};
use kernel::llm::tokenizer::Tokenizer;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// With the trained vocabulary.
    Text { pre: u8, special: bool, text: &'a [u8] },
    /// A file whose tokenizer is of this kind.
    File(&'a [u8]),
    /// A vocabulary made by merges of tokens, which are named by their numbers.
    Merges { pre: u8, merges: Vec<(u16, u16)>, text: &'a [u8] },
    /// A vocabulary and merges of any texts.
    Texts { pre: u8, tokens: Vec<(&'a [u8], u8)>, merges: Vec<&'a [u8]>, text: &'a [u8] },
}

/// Pre-tokenisers of all forms.
const PRE_TOKENIZERS: [&str; 13] = [
    "default",
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "qwen35",
    "tekken",
    "gpt-4o",
    "smollm",
    "falcon",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "viking",
];

fn pre_tokenizer(number: u8) -> &'static str {
    PRE_TOKENIZERS[usize::from(number) % PRE_TOKENIZERS.len()]
}

fn trained(pre: &str) -> Tokenizer {
    let file = include_bytes!("../../test_models/vocabularies/bpe.gguf");
    let gguf = Gguf::parse(file).unwrap();
    let mut builder = Builder::new().string("tokenizer.ggml.model", "gpt2");
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.merges"] {
        let array = gguf.array(key, ValueType::String).unwrap().unwrap();
        builder = builder.strings(key, &array.strings().map(|(text, _)| text).collect::<Vec<_>>());
    }
    let file = builder.string("tokenizer.ggml.pre", pre).build();
    Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap()
}

static TRAINED: LazyLock<Vec<Tokenizer>> =
    LazyLock::new(|| PRE_TOKENIZERS.iter().map(|pre| trained(pre)).collect());

const LIMITS: Limits = Limits { memory: (512, 256 << 10), ns_per_byte: 20_000 };

fuzz_target!(|data: &[u8]| {
    LazyLock::force(&TRAINED);
    let Ok(input) = Input::arbitrary_take_rest(arbitrary::Unstructured::new(data)) else { return };
    LIMITS.hold(data.len(), || match input {
        Input::Text { pre, special, text } => {
            let tokenizer = &TRAINED[usize::from(pre) % TRAINED.len()];
            check_tokens(tokenizer, text, special);
            // The vocabulary's merges lead to `</s>`, which ends a text and is not shown.
            if let Ok(text) = str::from_utf8(text)
                && !text.contains("</s>")
            {
                assert_eq!(tokenizer.decode(&tokenizer.encode(text, false, false)).unwrap(), text);
            }
        }
        Input::File(file) => {
            if let Ok(tokenizer) = Gguf::parse(file).and_then(|gguf| Tokenizer::from_gguf(&gguf)) {
                check_tokens(&tokenizer, "Hello  wörld\n<s>🙂".as_bytes(), true);
            }
        }
        Input::Merges { pre, merges, text } => by_merges(pre, &merges, text),
        Input::Texts { pre, tokens, merges, text } => by_texts(pre, &tokens, &merges, text),
    });
});

/// How the vocabulary writes the bytes, in GPT-2's order.
fn characters() -> impl Iterator<Item = String> {
    let visible = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    visible.chain('\u{100}'..='\u{143}').map(String::from)
}

/// All bytes, and what the merges make of two tokens each.
fn by_merges(pre: u8, merges: &[(u16, u16)], text: &[u8]) {
    let mut tokens: Vec<String> = characters().collect();
    let mut known: HashSet<String> = tokens.iter().cloned().collect();
    let mut lines = Vec::new();
    for &(left, right) in merges {
        let [left, right] = [left, right].map(|n| &tokens[usize::from(n) % tokens.len()]);
        let joined = format!("{left}{right}");
        // Each may be twice as long as the longest before.
        if joined.len() > 64 {
            continue;
        }
        lines.push(format!("{left} {right}"));
        if known.insert(joined.clone()) {
            tokens.push(joined);
        }
    }
    let file = Builder::new()
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", pre_tokenizer(pre))
        .strings("tokenizer.ggml.tokens", &tokens)
        .strings("tokenizer.ggml.merges", &lines)
        .build();
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap();
    check_tokens(&tokenizer, text, true);
    // Each byte has a token, and so has all that they are joined to: no text is lost.
    if let Ok(text) = str::from_utf8(text)
        && tokens_have_text(&tokenizer)
    {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, false, false)).unwrap(), text);
    }
}

fn by_texts(pre: u8, tokens: &[(&[u8], u8)], merges: &[&[u8]], text: &[u8]) {
    let kinds: Vec<i32> = tokens.iter().map(|&(_, kind)| i32::from(kind % 8)).collect();
    let tokens: Vec<&[u8]> = tokens.iter().map(|&(text, _)| text).collect();
    let file = Builder::new()
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", pre_tokenizer(pre))
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .strings("tokenizer.ggml.merges", merges)
        .build();
    if let Ok(tokenizer) = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()) {
        check_tokens(&tokenizer, text, true);
    }
}
