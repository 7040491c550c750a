//! Tokens that are more than text: where they stand in a text, and which of them end one.
//!
//! Source of the names: llama.cpp's `llama-vocab.cpp`.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::vocab::{TokenKind, Vocab};
use super::{numbered, warn_kind};
use crate::llm::Error;
use crate::llm::gguf::Gguf;

/// A use that a model has for a token.
struct Role {
    /// The file's keys for it; the last one counts.
    keys: &'static [&'static str],
    /// Its usual texts, for files without such a key.
    texts: &'static [&'static str],
    /// Whether it ends a generation.
    ends: bool,
}

const ROLES: &[Role] = &[
    Role {
        keys: &["tokenizer.ggml.eot_token_id"],
        texts: &[
            "<|eot_id|>",
            "<|im_end|>",
            "<|end|>",
            "<end_of_turn>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
            "_<EOT>",
            "[EOT]",
            "<｜end▁of▁sentence｜>",
            "<end_of_utterance>",
        ],
        ends: true,
    },
    Role { keys: &["tokenizer.ggml.eom_token_id"], texts: &["<|eom_id|>"], ends: true },
    Role {
        keys: &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
        texts: &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        ends: false,
    },
    Role {
        keys: &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
        texts: &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        ends: false,
    },
    Role {
        keys: &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
        texts: &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        ends: false,
    },
    Role {
        keys: &["tokenizer.ggml.fim_pad_token_id"],
        texts: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        ends: true,
    },
    Role {
        keys: &["tokenizer.ggml.fim_rep_token_id"],
        texts: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        ends: true,
    },
    Role { keys: &["tokenizer.ggml.fim_sep_token_id"], texts: &["<|file_sep|>"], ends: true },
];

/// Tokens of these texts end a generation, whatever else the file says.
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

/// Tokens of these texts are shown, and found in any text.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Finds the tokens that end a generation, in order; makes control tokens of those that are called
/// like one.
///
/// # Errors
/// [`Error::ParseError`] if a key has no number.
pub fn find_ends(gguf: &Gguf<'_>, vocab: &mut Vocab, eos: Option<u32>) -> Result<Vec<u32>, Error> {
    let mut ends: Vec<u32> = eos.into_iter().collect();
    for Role { keys, texts, ends: is_end } in ROLES {
        let mut token = None;
        for key in *keys {
            token = numbered(gguf, vocab, key, token)?;
        }
        if token.is_none() {
            token = texts.iter().find_map(|text| vocab.find(text.as_bytes()));
            make(vocab, token, TokenKind::Control);
        }
        ends.extend(token.filter(|_| *is_end));
    }
    for text in ENDS {
        let token = vocab.find(text.as_bytes());
        make(vocab, token, TokenKind::Control);
        ends.extend(token);
    }
    for text in SHOWN {
        let token = vocab.find(text.as_bytes());
        make(vocab, token, TokenKind::UserDefined);
    }
    // Where a model has these, an answer of several parts ends with one of them, each part with
    // `<|end|>`.
    let has = |vocab: &Vocab, text: &str| vocab.find(text.as_bytes()).is_some();
    let calls = has(vocab, "<|call|>") || has(vocab, "<|calls|>");
    if calls && (has(vocab, "<|return|>") || has(vocab, "<|flush|>")) {
        let part = vocab.find(b"<|end|>");
        ends.retain(|&token| Some(token) != part);
        make(vocab, part, TokenKind::UserDefined);
    }
    // Where a model has this, `</s>` is text.
    if has(vocab, "<|tool_response>") {
        let text = vocab.find(b"</s>");
        ends.retain(|&token| Some(token) != text);
        make(vocab, text, TokenKind::Normal);
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

fn make(vocab: &mut Vocab, token: Option<u32>, kind: TokenKind) {
    if let Some(token) = token.filter(|&token| vocab.kind(token) != kind) {
        warn_kind(vocab, token, kind);
        vocab.set_kind(token, kind);
    }
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    /// Text without special tokens.
    Text(&'t [u8]),
    /// A special token.
    Special(u32),
}

/// The texts of special tokens, to be found in other texts.
#[derive(Debug)]
pub struct Specials {
    /// The bytes with which one starts.
    firsts: [bool; 256],
    /// The lengths that there are, the longest first.
    lengths: Vec<usize>,
    /// Those that are searched for.
    is_one: fn(TokenKind) -> bool,
    /// Whether spaces after one belong to it: llama.cpp has it so for models of the name Phi-3.
    strips: bool,
}

/// These are followed by what stands there, whatever the model.
const NEVER_STRIP: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];

/// The text without what C's `isspace` accepts at its start.
fn trim_start(text: &[u8]) -> &[u8] {
    let is_space = |&byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    &text[text.iter().take_while(|byte| is_space(byte)).count()..]
}

/// User-defined tokens are found in any text.
pub fn is_user_defined(kind: TokenKind) -> bool {
    kind == TokenKind::UserDefined
}

/// Others are found where they are asked for.
pub fn is_special(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown)
}

impl Specials {
    /// Of a vocabulary, those of some kinds.
    pub fn new(vocab: &Vocab, is_one: fn(TokenKind) -> bool, strips: bool) -> Self {
        let mut firsts = [false; 256];
        let mut lengths = BTreeSet::new();
        for (token, _) in vocab.kinds().filter(|&(_, kind)| is_one(kind)) {
            if let text @ [first, ..] = vocab.text(token) {
                firsts[usize::from(*first)] = true;
                lengths.insert(text.len());
            }
        }
        let lengths = lengths.into_iter().rev().collect();
        Specials { firsts, lengths, is_one, strips }
    }

    /// Cuts the special tokens out of a text: the longest first, wherever it stands, and of
    /// equally long ones the leftmost.
    pub fn cut<'t>(&self, vocab: &Vocab, text: &'t [u8]) -> Vec<Part<'t>> {
        let mut parts = Vec::from([Part::Text(text)]);
        for &len in &self.lengths {
            if len > text.len() {
                continue;
            }
            let mut finer = Vec::with_capacity(parts.len());
            for part in parts {
                match part {
                    Part::Text(text) => self.cut_length(vocab, text, len, &mut finer),
                    Part::Special(_) => finer.push(part),
                }
            }
            parts = finer;
        }
        parts.retain(|part| *part != Part::Text(&[]));
        parts
    }

    fn cut_length<'t>(
        &self,
        vocab: &Vocab,
        mut text: &'t [u8],
        len: usize,
        out: &mut Vec<Part<'t>>,
    ) {
        let mut at = 0;
        while let Some(candidate) = text.get(at..at + len) {
            let token = match self.firsts[usize::from(candidate[0])] {
                true => vocab.find(candidate).filter(|&token| (self.is_one)(vocab.kind(token))),
                false => None,
            };
            match token {
                Some(token) => {
                    out.extend([Part::Text(&text[..at]), Part::Special(token)]);
                    text = &text[at + len..];
                    if self.strips && !NEVER_STRIP.contains(&candidate) {
                        text = trim_start(text);
                    }
                    at = 0;
                }
                None => at += 1,
            }
        }
        out.push(Part::Text(text));
    }
}
