//! Encodes any text with vocabularies of each kind, or a text with any vocabulary. The first byte
//! of the input says what the others are.
#![no_main]

use std::sync::LazyLock;

use kernel::llm::gguf::build::Builder;
use kernel::llm::gguf::{Gguf, ValueType};
use kernel::llm::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

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

fn byte_level(pre: &str) -> Tokenizer {
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

static BYTE_LEVEL: LazyLock<Vec<Tokenizer>> =
    LazyLock::new(|| PRE_TOKENIZERS.iter().map(|pre| byte_level(pre)).collect());

static SENTENCEPIECE: LazyLock<Tokenizer> = LazyLock::new(|| {
    let file = include_bytes!("../../test_models/vocabularies/spm.gguf");
    Tokenizer::from_gguf(&Gguf::parse(file).unwrap()).unwrap()
});

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else { return };
    if kind == b'v' {
        if let Ok(tokenizer) = Gguf::parse(data).and_then(|gguf| Tokenizer::from_gguf(&gguf)) {
            tokenizer.decode(&tokenizer.encode("Hello  wörld\n<s>🙂", true, true)).unwrap();
        }
        return;
    }
    SENTENCEPIECE.decode(&SENTENCEPIECE.encode(data, true, true)).unwrap();
    let tokenizer = &BYTE_LEVEL[usize::from(kind) % BYTE_LEVEL.len()];
    let text = tokenizer.decode(&tokenizer.encode(data, false, false)).unwrap();
    // The vocabulary's merges lead to `</s>`, which ends a text and is not shown.
    if let Ok(data) = std::str::from_utf8(data)
        && !data.contains("</s>")
    {
        assert_eq!(text, data);
    }
});
