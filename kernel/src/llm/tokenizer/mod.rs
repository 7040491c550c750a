//! Text to tokens and back, as llama.cpp's `llama-vocab.cpp` does it: SentencePiece's byte-pair
//! models (GGUF's tokenizer model `llama`) and byte-level ones (`gpt2`).

#![forbid(unsafe_code)]

mod byte_level;
#[cfg(test)]
mod byte_level_tests;
mod decode;
mod merge;
mod pattern;
mod sentence_piece;
#[cfg(test)]
mod tests;
mod vocab;
mod words;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use byte_level::ByteLevel;
pub use decode::Decoder;
use vocab::Vocab;

use crate::llm::Error;
use crate::llm::gguf::Gguf;

/// What stands for a space in the vocabulary: U+2581.
const SPACE: &str = "\u{2581}";

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    model: Model,
    /// Begins each text, if the model wants it.
    bos: Option<u32>,
    add_bos: bool,
    eos: Option<u32>,
    add_eos: bool,
    /// Stands for bytes that no token has.
    unk: Option<u32>,
    /// Tokens that end a generation, in order.
    ends: Vec<u32>,
    /// Tokens that are found in the text before it is cut into pieces, longest first.
    specials: Vec<u32>,
}

/// How text becomes tokens, and what the tokens' texts mean.
#[derive(Debug)]
enum Model {
    /// Spaces are written as [`SPACE`].
    SentencePiece {
        /// Whether a text begins with a space, whatever it begins with.
        add_space_prefix: bool,
    },
    /// Bytes are written as visible characters.
    ByteLevel(ByteLevel),
}

/// Texts of tokens that end a generation, whatever the file says of them.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// What a token is, by its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for what the vocabulary does not have.
    Unknown,
    /// Steers the model and has no text.
    Control,
    /// Added to the model by hand, found in any text.
    UserDefined,
    /// Of no use.
    Unused,
    /// One byte.
    Byte,
}

impl Tokenizer {
    /// Reads the tokenizer of a model.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is of another kind, [`Error::ParseError`] if it is malformed.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, Error> {
        let flag = |key: &str, default| Ok(gguf.boolean(key)?.unwrap_or(default));
        const MODEL: &str = "tokenizer.ggml.model";
        let model = match gguf.string(MODEL)? {
            Some("llama") => Model::SentencePiece {
                add_space_prefix: flag("tokenizer.ggml.add_space_prefix", true)?,
            },
            Some("gpt2") => Model::ByteLevel(ByteLevel::from_gguf(gguf)?),
            Some(other) => {
                let what = format!("the tokenizer `{other}`; those that work are gpt2, llama");
                return Err(Error::Unsupported { what });
            }
            None => return Err(gguf.missing(MODEL)),
        };
        let vocab = Vocab::from_gguf(gguf)?;
        let special = |key: &str, default: Option<u32>| -> Result<Option<u32>, Error> {
            let default = default.filter(|&id| vocab.contains(id));
            match gguf.unsigned(key)? {
                None => Ok(default),
                Some(id) => match u32::try_from(id).ok().filter(|&id| vocab.contains(id)) {
                    Some(id) => Ok(Some(id)),
                    None => {
                        log::warn!("`{key}` is {id}, which is no token: {default:?} is used");
                        Ok(default)
                    }
                },
            }
        };
        let (bos, eos, unk, add_bos) = match &model {
            Model::SentencePiece { .. } => (Some(1), Some(2), Some(0), true),
            Model::ByteLevel(merges) => (Some(11), Some(11), None, merges.adds_bos()),
        };
        let bos = special("tokenizer.ggml.bos_token_id", bos)?;
        let eos = special("tokenizer.ggml.eos_token_id", eos)?;
        let unk = special("tokenizer.ggml.unknown_token_id", unk)?;
        let mut ends: Vec<u32> = eos.into_iter().collect();
        for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            ends.extend(special(key, None)?);
        }
        ends.extend(ENDS.iter().filter_map(|text| vocab.find(text.as_bytes())));
        ends.sort_unstable();
        ends.dedup();

        let mut specials =
            vocab.of_kinds(&[TokenKind::Control, TokenKind::UserDefined, TokenKind::Unknown]);
        specials.retain(|&id| !vocab.text(id).is_empty());
        specials.sort_by_key(|&id| core::cmp::Reverse(vocab.text(id).len()));
        Ok(Tokenizer {
            bos,
            model,
            add_bos: flag("tokenizer.ggml.add_bos_token", add_bos)?,
            eos,
            add_eos: flag("tokenizer.ggml.add_eos_token", false)?,
            unk,
            ends,
            specials,
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

    /// Bytes of the longest token.
    pub fn max_token_bytes(&self) -> usize {
        self.vocab.max_text_bytes()
    }

    /// The tokens of `text`. With `add_special` those that begin and end a text are added, as the
    /// model wants it. With `parse_special` control tokens in the text are found by their names;
    /// without, such names are text like any other.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let mut tokens = Vec::new();
        if add_special {
            tokens.extend(self.begin());
        }
        let mut after_special = true;
        for part in self.split_specials(text, parse_special) {
            match part {
                Part::Special(token) => tokens.push(token),
                Part::Text(text) => match &self.model {
                    Model::SentencePiece { add_space_prefix } => {
                        let prefix = if *add_space_prefix && after_special { SPACE } else { "" };
                        sentence_piece::encode(&self.vocab, self.unk, prefix, text, &mut tokens);
                    }
                    Model::ByteLevel(merges) => merges.encode(&self.vocab, text, &mut tokens),
                },
            }
            after_special = matches!(part, Part::Special(_));
        }
        if add_special && self.add_eos {
            tokens.extend(self.eos);
        }
        tokens
    }

    /// Cuts special tokens out of the text: the longest first, wherever it stands, as llama.cpp
    /// does.
    fn split_specials<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        for &token in &self.specials {
            if self.vocab.kind(token) != TokenKind::UserDefined && !parse_special {
                continue;
            }
            let Ok(name) = core::str::from_utf8(self.vocab.text(token)) else { continue };
            if !parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains(name))) {
                continue;
            }
            let mut cut = Vec::new();
            for part in parts {
                let Part::Text(text) = part else {
                    cut.push(part);
                    continue;
                };
                for (i, text) in text.split(name).enumerate() {
                    if i > 0 {
                        cut.push(Part::Special(token));
                    }
                    if !text.is_empty() {
                        cut.push(Part::Text(text));
                    }
                }
            }
            parts = cut;
        }
        parts
    }

    /// The bytes of a token as they appear in text: none for control tokens. They may be a part
    /// of a character only; a [`Decoder`] joins them.
    pub fn push_bytes(&self, token: u32, out: &mut Vec<u8>) {
        if !self.vocab.contains(token) {
            return;
        }
        let text = self.vocab.text(token);
        match self.vocab.kind(token) {
            TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => {}
            TokenKind::UserDefined => out.extend_from_slice(text),
            TokenKind::Byte => out.extend(vocab::byte_of(text)),
            TokenKind::Normal => match self.model {
                Model::SentencePiece { .. } => {
                    let mut rest = text;
                    while let Some((&first, tail)) = rest.split_first() {
                        if let Some(tail) = rest.strip_prefix(SPACE.as_bytes()) {
                            out.push(b' ');
                            rest = tail;
                        } else {
                            out.push(first);
                            rest = tail;
                        }
                    }
                }
                Model::ByteLevel(_) => {
                    for c in String::from_utf8_lossy(text).chars() {
                        match byte_level::byte_of(c) {
                            Some(byte) => out.push(byte),
                            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                        }
                    }
                }
            },
        }
    }
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'t> {
    Text(&'t str),
    Special(u32),
}
