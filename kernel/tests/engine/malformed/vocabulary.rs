//! Faults of the vocabulary.

use kernel::llm::gguf::ValueType;

use super::file::{At, File, array, f32s, i32s, scalar, string, strings};
use super::{Fault, Parse, Sound, Unsupported, fault, model, try_all};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// The tokens of the model.
const TEXTS: [&str; 11] = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "ab", "▁a", "▁ab", "abc"];
const KINDS: [i32; 11] = [2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1];

/// Eleven times 1, as the file has it.
const TYPE_WORDS: [u8; 44] = {
    let mut words = [0; 44];
    let mut i = 0;
    while i < 44 {
        words[i] = 1;
        i += 4;
    }
    words
};

/// Sets one element of an array.
fn with<T: Copy, const N: usize>(mut values: [T; N], i: usize, value: T) -> [T; N] {
    values[i] = value;
    values
}

/// Faults of any vocabulary.
const FAULTS: &[Fault] = &[
    fault(
        "no vocabulary",
        |f| f.remove(MODEL),
        Parse("the key `tokenizer.ggml.model` is missing", At::EndOfKeys),
    ),
    fault(
        "a number",
        |f| f.set_u32(MODEL, 1),
        Parse("must be UTF-8 text but is 1", At::Value(MODEL, 0)),
    ),
    fault(
        "WordPiece",
        |f| f.set(MODEL, string(b"bert")),
        Unsupported("the tokenizer `bert` (WordPiece)"),
    ),
    fault(
        "an unknown kind",
        |f| f.set(MODEL, string(b"\x1b[")),
        Unsupported(r"the tokenizer `\u{1b}[`"),
    ),
    fault(
        "an endless name",
        |f| f.set(MODEL, string(&[b'x'; 4096])),
        Unsupported("xxx`; those that work are gpt2, llama"),
    ),
    fault(
        "no tokens",
        |f| f.remove(TOKENS),
        Parse("the key `tokenizer.ggml.tokens` is missing", At::EndOfKeys),
    ),
    fault(
        "tokens that are numbers",
        |f| f.set(TOKENS, i32s(&[0; 11])),
        Parse("must be an array of strings but is an array of 11 i32", At::Value(TOKENS, 0)),
    ),
    fault(
        "a list of no token",
        |f| f.set(TOKENS, strings::<&str>(&[])),
        Parse("must have between 1 and 2^31 elements", At::Value(TOKENS, 0)),
    ),
    fault(
        "a token twice",
        |f| f.set(TOKENS, strings(&with(TEXTS, 9, "c"))),
        // After the type, the elements' type, the length and nine texts with their lengths.
        Parse("tokens 6 and 9 have the same text", At::Value(TOKENS, 16 + 9 * 8 + 24)),
    ),
    fault(
        "fewer scores than tokens",
        |f| f.set(SCORES, f32s(&[0.0; 10])),
        Parse("has not one element for each token", At::Value(SCORES, 0)),
    ),
    fault(
        "scores in bytes",
        |f| f.set(SCORES, array(ValueType::U8, 11, &[1; 11])),
        Parse("must be an array of f32 or i32 but is an array of 11 u8", At::Value(SCORES, 0)),
    ),
    fault(
        "types of fewer tokens",
        |f| f.set(TYPES, i32s(&[1; 10])),
        Parse("has not one element for each token", At::Value(TYPES, 0)),
    ),
    fault(
        "types in bytes",
        |f| f.set(TYPES, array(ValueType::U8, 11, &[1; 11])),
        Parse("must be an array of i32 or u32 but is an array of 11 u8", At::Value(TYPES, 0)),
    ),
    fault(
        "a byte without its name",
        |f| f.set(TYPES, i32s(&with(KINDS, 4, 6))),
        Parse("token 4 is a byte but is not named <0xNN>", At::Value(TOKENS, 16 + 4 * 8 + 15)),
    ),
    fault(
        "a special token that is no number",
        |f| f.set(BOS, string(b"<s>")),
        Parse("must be a whole number but is \"<s>\"", At::Value(BOS, 0)),
    ),
    fault(
        "a negative special token",
        |f| f.set(BOS, scalar(ValueType::I32, &[255; 4])),
        Parse("must be a whole number but is -1", At::Value(BOS, 0)),
    ),
    fault(
        "a truth value that is a number",
        |f| f.set_u32(ADD_BOS, 1),
        Parse("must be true or false but is 1", At::Value(ADD_BOS, 0)),
    ),
    // llama.cpp takes these with a warning.
    fault("a special token that does not exist", |f| f.set_u32(BOS, 11), Sound),
    fault("no scores", |f| f.remove(SCORES), Sound),
    fault("more scores than tokens", |f| f.set(SCORES, f32s(&[0.0; 12])), Sound),
    fault("scores that are whole numbers", |f| f.set(SCORES, i32s(&[0; 11])), Sound),
    fault("types of more tokens", |f| f.set(TYPES, i32s(&[1; 12])), Sound),
    fault("the type 0", |f| f.set(TYPES, i32s(&with(KINDS, 5, 0))), Sound),
    fault("a type that does not exist", |f| f.set(TYPES, i32s(&with(KINDS, 5, 7))), Sound),
    fault("a negative type", |f| f.set(TYPES, i32s(&with(KINDS, 10, -1))), Sound),
    fault("types without a sign", |f| f.set(TYPES, array(ValueType::U32, 11, &TYPE_WORDS)), Sound),
    fault("no types", |f| f.remove(TYPES), Sound),
    fault("an empty token", |f| f.set(TOKENS, strings(&with(TEXTS, 7, ""))), Sound),
];

/// Faults that count where there are scores.
const SENTENCEPIECE: &[Fault] = &[
    fault(
        "a score that is no number",
        |f| f.set(SCORES, f32s(&with([0.0; 11], 8, f32::NAN))),
        Parse("has no number for token 8", At::Value(SCORES, 0)),
    ),
    fault("an endless score", |f| f.set(SCORES, f32s(&with([0.0; 11], 8, f32::INFINITY))), Sound),
];

/// Faults of merges.
const BYTE_LEVEL: &[Fault] = &[
    fault(
        "no merges",
        |f| f.remove(MERGES),
        Parse("the key `tokenizer.ggml.merges` is missing", At::EndOfKeys),
    ),
    fault(
        "merges that are numbers",
        |f| f.set(MERGES, i32s(&[1])),
        Parse("must be an array of strings but is an array of 1 i32", At::Value(MERGES, 0)),
    ),
    fault(
        "a pre-tokenizer with an endless name",
        |f| f.set(PRE, string(&[b'x'; 4096])),
        Unsupported("the pre-tokenizer `xxx"),
    ),
    fault(
        "an unknown pre-tokenizer",
        |f| f.set(PRE, string(b"qwen99")),
        Unsupported("the pre-tokenizer `qwen99`"),
    ),
    fault(
        "a pre-tokenizer that is a number",
        |f| f.set_u32(PRE, 3),
        Parse("must be UTF-8 text but is 3", At::Value(PRE, 0)),
    ),
    // llama.cpp takes these with a warning.
    fault("no pre-tokenizer", |f| f.remove(PRE), Sound),
    fault("merges of one text", |f| f.set(MERGES, strings(&["ab", "", " ", "a "])), Sound),
    fault("a merge twice", |f| f.set(MERGES, strings(&["a b", "a b"])), Sound),
    fault("merges of no tokens", |f| f.set(MERGES, strings(&["x y", "xy z"])), Sound),
];

/// The small `llama` with a vocabulary in GPT-2's manner.
pub fn byte_level() -> File {
    let mut file = model("llama");
    file.set(MODEL, string(b"gpt2"));
    file.set(PRE, string(b"gpt-2"));
    file.set(MERGES, strings(&["a b", "ab c"]));
    file
}

#[test]
fn faults_of_a_sentencepiece_vocabulary_are_named() {
    try_all(&model("llama"), FAULTS);
    try_all(&model("llama"), SENTENCEPIECE);
}

#[test]
fn faults_of_a_byte_level_vocabulary_are_named() {
    try_all(&byte_level(), FAULTS);
    try_all(&byte_level(), BYTE_LEVEL);
}
