//! Special tokens: where they are in a text, and which of them end a generation.
//!
//! Source of the names: llama.cpp's `llama-vocab.cpp`.

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::automaton::{Automaton, Found};
use super::step_count::step;
use super::vocab::{TokenKind, Vocab};
use super::{numbered, warn_kind};
use crate::llm::Error;
use crate::llm::gguf::Gguf;

/// A use that a model has for a token.
struct Role {
    /// The file's keys for it; the last one counts.
    keys: &'static [&'static str],
    /// The role's usual texts, for files without the keys.
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

/// Finds the tokens that end a generation, in order.
///
/// Tokens with the text of a control token become control tokens.
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
    // In models with these tokens, `<|end|>` ends a part of an answer, and one of these tokens ends
    // the answer.
    let has = |vocab: &Vocab, text: &str| vocab.find(text.as_bytes()).is_some();
    let calls = has(vocab, "<|call|>") || has(vocab, "<|calls|>");
    if calls && (has(vocab, "<|return|>") || has(vocab, "<|flush|>")) {
        let part = vocab.find(b"<|end|>");
        ends.retain(|&token| Some(token) != part);
        make(vocab, part, TokenKind::UserDefined);
    }
    // In models with this token, `</s>` is plain text.
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
    texts: Automaton,
    /// Whether spaces after a special token belong to it, as in llama.cpp for Phi-3.
    strips: bool,
}

/// Special tokens after which spaces are never stripped.
const NEVER_STRIP: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];

/// The bytes that C's `isspace` accepts at the start of a text.
fn spaces(text: &[u8]) -> &[u8] {
    let is_space = |&byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    &text[..text.iter().take_while(|byte| is_space(byte)).count()]
}

/// User-defined tokens are found in any text.
pub fn is_user_defined(kind: TokenKind) -> bool {
    kind == TokenKind::UserDefined
}

/// All special tokens are found where special tokens are parsed.
pub fn is_special(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown)
}

impl Specials {
    /// The special tokens of a vocabulary of the kinds for which `is_one` holds.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(vocab: &Vocab, is_one: fn(TokenKind) -> bool, strips: bool) -> Result<Self, Error> {
        let texts = vocab.automaton(|kind, _| is_one(kind), "the special tokens")?;
        Ok(Specials { texts, strips })
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.texts.memory_bytes()
    }

    /// Cuts the special tokens out of a text: the longest first, then the leftmost.
    ///
    /// A token without room left is replaced by the longest shorter one that fits at the same
    /// place. The token that took the room is no shorter. So the room is less than half of the room
    /// before, and a place is replaced at most log2 of the text's length times.
    pub fn cut<'t>(&self, text: &'t [u8]) -> Vec<Part<'t>> {
        let by_length = |place, found| (self.texts.len(found), Reverse(place), found);
        let found = self.texts.find_all(text).map(|(place, found)| by_length(place, found));
        let mut waiting = BinaryHeap::from(found.collect::<Vec<_>>());
        // The tokens that were cut out: end and token, by start.
        let mut cut = BTreeMap::<usize, (usize, Found)>::new();
        while let Some((len, Reverse(start), found)) = waiting.pop() {
            step(1);
            let before = cut.range(..=start).next_back();
            if before.is_some_and(|(_, &(end, _))| end > start) {
                continue;
            }
            let next = cut.range(start..).next().map_or(text.len(), |(&next, _)| next);
            let room = &text[start..next];
            let Some((candidate, rest)) = room.split_at_checked(len) else {
                let shorter = self.texts.cut_to(found, room.len());
                waiting.extend(shorter.map(|found| by_length(start, found)));
                continue;
            };
            let strips = self.strips && !NEVER_STRIP.contains(&candidate);
            let stripped = if strips { spaces(rest).len() } else { 0 };
            let end = start.saturating_add(len).saturating_add(stripped);
            cut.insert(start, (end, found));
        }
        let mut parts = Vec::new();
        let mut done = 0;
        for (start, (end, found)) in cut {
            parts.extend([Part::Text(&text[done..start]), Part::Special(self.texts.number(found))]);
            done = end;
        }
        parts.push(Part::Text(&text[done..]));
        parts.retain(|part| *part != Part::Text(&[]));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::gguf::write::Builder;

    fn vocab(texts: &[Vec<u8>]) -> Vocab {
        let file = Builder::new()
            .strings("tokenizer.ggml.tokens", texts)
            .i32s("tokenizer.ggml.token_type", &alloc::vec![4; texts.len()])
            .build();
        Vocab::from_gguf(&Gguf::parse(&file).unwrap(), false).unwrap()
    }

    /// The expected result of [`Specials::cut`], by trying each text at each place.
    fn cut_slowly<'t>(vocab: &Vocab, text: &'t [u8], strips: bool) -> Vec<Part<'t>> {
        let mut parts = Vec::from([Part::Text(text)]);
        for len in (1..=vocab.max_text_bytes()).rev() {
            let mut finer = Vec::new();
            for part in parts {
                let Part::Text(mut text) = part else {
                    finer.push(part);
                    continue;
                };
                let mut at = 0;
                while let Some(candidate) = text.get(at..at + len) {
                    let Some(token) = vocab.find(candidate) else {
                        at += 1;
                        continue;
                    };
                    finer.extend([Part::Text(&text[..at]), Part::Special(token)]);
                    text = &text[at + len..];
                    if strips && !NEVER_STRIP.contains(&candidate) {
                        text = &text[spaces(text).len()..];
                    }
                    at = 0;
                }
                finer.push(Part::Text(text));
            }
            parts = finer;
        }
        parts.retain(|part| *part != Part::Text(&[]));
        parts
    }

    #[test]
    fn the_longest_come_first_and_then_the_leftmost() {
        let mut random = 9u64;
        let mut draw = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 16) % n
        };
        let mut cut_to_less = 0;
        for round in 0..1511 {
            // Few letters, so that texts overlap in all ways.
            let letters: &[u8] = [&b"ab"[..], b"ab ", b"a b\n<s>"][round % 3];
            let mut text_of = |n: u64| -> Vec<u8> {
                (0..draw(n)).map(|_| letters[draw(letters.len() as u64) as usize]).collect()
            };
            let mut texts: Vec<Vec<u8>> = (0..1 + round % 17).map(|_| text_of(13)).collect();
            if round % 5 == 0 {
                texts.push(b"<s>".to_vec());
            }
            texts.sort();
            texts.dedup();
            let vocab = vocab(&texts);
            let text = text_of(101);
            for strips in [false, true] {
                let specials = Specials::new(&vocab, is_user_defined, strips).unwrap();
                let parts = specials.cut(&text);
                let expected = cut_slowly(&vocab, &text, strips);
                assert_eq!(parts, expected, "{text:?} {texts:?} {strips}");
                // Whether one had to make way is seen by what starts where nothing longest does.
                let mut at = 0;
                for part in parts.iter().filter(|_| !strips) {
                    let len = match *part {
                        Part::Text(text) => text.len(),
                        Part::Special(token) => {
                            let longest = specials.texts.find_all(&text);
                            let longest = longest.filter(|&(place, _)| place == at).last().unwrap();
                            let len = vocab.text(token).len();
                            cut_to_less += usize::from(len < specials.texts.len(longest.1));
                            len
                        }
                    };
                    at += len;
                }
            }
        }
        assert!(cut_to_less > 100, "only {cut_to_less} had to make way");
    }
}
