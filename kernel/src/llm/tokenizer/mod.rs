//! Tokenizers: text to tokens and back, as in llama.cpp's `llama-vocab.cpp`.
//!
//! There are two methods: SentencePiece's byte-pair models (GGUF's tokenizer model `llama`), and
//! GPT-2's byte-level byte-pair encoding (`gpt2`).
//!
//! [`Tokenizer::encode`] cuts special tokens out of the text (`special.rs`, `automaton.rs`). The
//! text between them goes to `sentencepiece.rs` or to `bpe.rs`. `bpe.rs` first cuts it into words
//! (`pre.rs`, `split.rs`). Both join neighbours with `merge.rs`.
//!
//! Encoding takes time in proportion to the text's length, times logarithms, for any vocabulary and
//! any text. `tests/hostile.rs` counts the steps.

#![forbid(unsafe_code)]
// No arithmetic wraps on a number of the file or of the text.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation))]

mod automaton;
mod bpe;
mod categories;
mod class;
mod decode;
mod merge;
mod pre;
mod queue;
mod segments;
mod sentencepiece;
mod slots;
mod special;
mod split;
mod step_count;
#[cfg(test)]
mod tests;
mod texts;
mod vocab;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bpe::Bpe;
pub use decode::Decoder;
pub use segments::Segment;
use sentencepiece::SentencePiece;
use special::{Part, Specials};
use vocab::{TokenKind, Vocab};

use crate::llm::Error;
use crate::llm::gguf::Gguf;

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Texts are encoded in chunks of at most this many bytes.
///
/// So 32 bits are enough for places in a chunk, whose spaces take three bytes each.
const CHUNK_BYTES: usize = 1 << 30;

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    method: Method,
    /// Begins each text, if the model wants it.
    bos: Option<u32>,
    add_bos: bool,
    eos: Option<u32>,
    add_eos: bool,
    /// Tokens that end a generation, in order.
    ends: Vec<u32>,
    /// Special tokens that are found in any text.
    user_defined: Specials,
    /// Special tokens that are found where control tokens are parsed.
    specials: Specials,
}

#[derive(Debug)]
enum Method {
    SentencePiece(SentencePiece),
    Bpe(Bpe),
}

/// The token that the file names with this key.
fn numbered(
    gguf: &Gguf<'_>,
    vocab: &Vocab,
    key: &str,
    default: Option<u32>,
) -> Result<Option<u32>, Error> {
    let default = default.filter(|&token| vocab.contains(token));
    let Some(number) = gguf.unsigned(key)? else { return Ok(default) };
    let token = u32::try_from(number).ok().filter(|&token| vocab.contains(token));
    if token.is_none() {
        log::warn!("`{key}` is {number}, which is no token: {default:?} is used");
    }
    Ok(token.or(default))
}

fn warn_kind(vocab: &Vocab, token: u32, kind: TokenKind) {
    let text = String::from_utf8_lossy(vocab.text(token));
    log::warn!("token {token} ({text:?}) is {:?} but is taken as {kind:?}", vocab.kind(token));
}

/// A name of the file's as errors quote it: not longer than a line.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

/// The error for a tokenizer of another kind.
fn unsupported(model: &str) -> Error {
    let kind = match model {
        "bert" => " (WordPiece)",
        "t5" => " (Unigram)",
        "rwkv" => " (RWKV)",
        "plamo2" => " (PLaMo-2)",
        "none" | "no_vocab" => " (no vocabulary)",
        _ => "",
    };
    let model = shown(model);
    let what = format!("the tokenizer `{model}`{kind}; those that work are gpt2, llama");
    Error::Unsupported { what }
}

impl Tokenizer {
    /// Reads the tokenizer of a model.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is of another kind, [`Error::ParseError`] if it is malformed,
    /// [`Error::OutOfMemory`].
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, Error> {
        let pre = match gguf.string("tokenizer.ggml.model")? {
            Some("llama") => None,
            Some("gpt2") => Some(bpe::pre_tokenizer(gguf)?),
            Some(other) => return Err(unsupported(other)),
            None => return Err(gguf.missing("tokenizer.ggml.model")),
        };
        let (bos, eos, unk) = match pre {
            None => (Some(1), Some(2), Some(0)),
            Some(pre) => (Some(11).filter(|_| pre.default_bos), Some(11), None),
        };
        let mut vocab = Vocab::from_gguf(gguf, pre.is_none())?;
        let bos = numbered(gguf, &vocab, "tokenizer.ggml.bos_token_id", bos)?;
        let eos = numbered(gguf, &vocab, "tokenizer.ggml.eos_token_id", eos)?;
        let unk = numbered(gguf, &vocab, "tokenizer.ggml.unknown_token_id", unk)?;
        let ends = special::find_ends(gguf, &mut vocab, eos)?;

        let flag = |key: &str, default| Ok(gguf.boolean(key)?.unwrap_or(default));
        let method = match pre {
            None => {
                let add_space_prefix = flag("tokenizer.ggml.add_space_prefix", true)?;
                Method::SentencePiece(SentencePiece::new(&vocab, unk, add_space_prefix)?)
            }
            Some(pre) => Method::Bpe(Bpe::from_gguf(gguf, pre, &mut vocab)?),
        };
        let name = gguf.shown("general.name").to_ascii_lowercase();
        let strips = name.contains("phi-3") || name.contains("phi3");
        Ok(Tokenizer {
            bos,
            add_bos: flag("tokenizer.ggml.add_bos_token", pre.is_none_or(|pre| pre.add_bos))?,
            eos,
            add_eos: flag("tokenizer.ggml.add_eos_token", false)?,
            ends,
            user_defined: Specials::new(&vocab, special::is_user_defined, strips)?,
            specials: Specials::new(&vocab, special::is_special, strips)?,
            method,
            vocab,
        })
    }

    /// The token with which texts begin, if the model wants one.
    pub fn begin(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// Number of tokens.
    pub fn n_vocab(&self) -> usize {
        self.vocab.len()
    }

    /// Whether this token ends a generation.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.binary_search(&token).is_ok()
    }

    /// The tokens that end a generation, in order.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Bytes of the longest token.
    pub fn max_token_bytes(&self) -> usize {
        self.vocab.max_text_bytes()
    }

    /// Memory that the tokenizer's tables take, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let method = match &self.method {
            Method::SentencePiece(method) => method.memory_bytes(),
            Method::Bpe(bpe) => bpe.memory_bytes(),
        };
        let specials = [&self.user_defined, &self.specials].map(Specials::memory_bytes);
        let tables = [self.vocab.memory_bytes(), method].into_iter().chain(specials);
        tables.fold(0, usize::saturating_add)
    }

    /// The tokens of `text`, which may be any bytes.
    ///
    /// With `add_special`, the model's begin and end tokens are added. With `parse_special`, names
    /// of control tokens become control tokens. Without it, the names are plain text.
    pub fn encode(
        &self,
        text: impl AsRef<[u8]>,
        add_special: bool,
        parse_special: bool,
    ) -> Vec<u32> {
        let mut tokens = Vec::new();
        if add_special {
            tokens.extend(self.begin());
        }
        let specials = if parse_special { &self.specials } else { &self.user_defined };
        let mut is_start = true;
        for part in specials.cut(text.as_ref()) {
            match part {
                Part::Special(token) => tokens.push(token),
                Part::Text(text) => self.encode_text(text, is_start, &mut tokens),
            }
            is_start = matches!(part, Part::Special(_));
        }
        if add_special && self.begins_twice(&tokens) {
            log::warn!(
                "the prompt begins with the token that is put before it anyway: it is there twice"
            );
        }
        if add_special && self.add_eos {
            tokens.extend(self.eos);
        }
        tokens
    }

    /// Whether a text brings along the token that begins each text.
    fn begins_twice(&self, tokens: &[u32]) -> bool {
        self.begin().is_some_and(|begin| tokens.starts_with(&[begin, begin]))
    }

    /// Appends the tokens of text without special tokens.
    fn encode_text(&self, text: &[u8], is_start: bool, out: &mut Vec<u32>) {
        for (i, chunk) in text.chunks(CHUNK_BYTES).enumerate() {
            match &self.method {
                Method::SentencePiece(method) => {
                    let prefix = method.add_space_prefix && is_start && i == 0;
                    method.encode(&self.vocab, prefix, chunk, out);
                }
                Method::Bpe(bpe) => bpe.encode(&self.vocab, chunk, out),
            }
        }
    }

    /// The bytes of a single token (llama.cpp's `token_to_piece`).
    ///
    /// Control tokens give their names. The space that is put before a text is left out.
    pub fn push_piece(&self, token: u32, out: &mut Vec<u8>) {
        let start = out.len();
        match self.vocab.contains(token).then(|| self.vocab.kind(token)) {
            Some(TokenKind::Control | TokenKind::Unknown) => {
                out.extend_from_slice(self.vocab.text(token));
            }
            _ => self.push_bytes(token, out),
        }
        let adds_space = matches!(&self.method, Method::SentencePiece(it) if it.add_space_prefix);
        if adds_space && out.get(start) == Some(&b' ') {
            out.remove(start);
        }
    }

    /// The text of these tokens.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the text of a token does not fit.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        let mut decoder = Decoder::try_new(self.max_token_bytes())?;
        let mut text = String::new();
        for &token in tokens {
            decoder.push(self, token, &mut text);
        }
        decoder.finish(&mut text);
        Ok(text)
    }

    /// Appends the bytes of a token as they appear in text.
    ///
    /// Control tokens have no bytes. The bytes may be part of a character; a [`Decoder`] joins
    /// them.
    pub fn push_bytes(&self, token: u32, out: &mut Vec<u8>) {
        if !self.vocab.contains(token) {
            return;
        }
        let text = self.vocab.text(token);
        match self.vocab.kind(token) {
            TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => {}
            TokenKind::UserDefined => out.extend_from_slice(text),
            TokenKind::Byte => out.extend(vocab::byte_of(text)),
            TokenKind::Normal => match self.method {
                Method::SentencePiece(_) => sentencepiece::push_bytes(text, out),
                Method::Bpe(_) => bpe::push_bytes(text, out),
            },
        }
    }
}
