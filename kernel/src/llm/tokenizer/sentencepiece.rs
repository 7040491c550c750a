//! SentencePiece's byte-pair models (GGUF's tokenizer model `llama`).
//!
//! The pair of neighbours whose joined text is the token with the highest score is joined first.
//!
//! Spaces are written as U+2581. As in llama.cpp, `tokenizer.ggml.remove_extra_whitespaces` changes
//! nothing for this kind of tokenizer.

use alloc::vec::Vec;
use core::ops::Range;

use super::automaton::Automaton;
use super::merge::{Merger, NONE};
use super::vocab::{Vocab, byte_name};
use crate::llm::Error;

/// The vocabulary's character for a space: U+2581.
const SPACE: &[u8] = "\u{2581}".as_bytes();

/// Texts of up to this many bytes are looked up by hash.
///
/// Longer tokens are rare. Hashing a growing text again and again would take quadratic time, so the
/// automaton finds them.
const HASHED_BYTES: usize = 128;

/// The SentencePiece model: byte tokens and long tokens.
#[derive(Debug)]
pub struct SentencePiece {
    /// Whether a space is put before a text and after each special token.
    pub add_space_prefix: bool,
    /// The token of each byte, for characters without a token.
    byte_tokens: Vec<Option<u32>>,
    /// The tokens of more than [`HASHED_BYTES`] bytes.
    long: Automaton,
}

/// Bytes of the character that starts with this one, if it is whole.
fn char_len(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

/// The rank of a score: the highest score has the lowest rank.
///
/// Zeros of both signs have the same rank.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    // The bits of numbers rise with them, or fall with them below zero.
    if score < 0.0 { bits } else { bits ^ i32::MAX.unsigned_abs() }
}

impl SentencePiece {
    /// `unk` stands for bytes that have no token.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(vocab: &Vocab, unk: Option<u32>, add_space_prefix: bool) -> Result<Self, Error> {
        let token = |byte| vocab.find(&byte_name(byte)).or_else(|| vocab.find(&[byte])).or(unk);
        Ok(SentencePiece {
            add_space_prefix,
            byte_tokens: (0..=u8::MAX).map(token).collect(),
            long: vocab.automaton(|_, text| text.len() > HASHED_BYTES, "the vocabulary")?,
        })
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.long.memory_bytes()
    }

    /// Appends the tokens of a text of at most 1 GiB.
    ///
    /// With `prefix`, a space is put before the text. Characters without a token become the tokens
    /// of their bytes.
    pub fn encode(&self, vocab: &Vocab, prefix: bool, text: &[u8], out: &mut Vec<u32>) {
        let spaces = text.iter().filter(|&&byte| byte == b' ').count();
        let spaces_len = spaces.saturating_add(1).saturating_mul(SPACE.len());
        let mut escaped = Vec::with_capacity(text.len().saturating_add(spaces_len));
        if prefix {
            escaped.extend_from_slice(SPACE);
        }
        for &byte in text {
            match byte {
                b' ' => escaped.extend_from_slice(SPACE),
                _ => escaped.push(byte),
            }
        }
        // The longest of the long tokens that start at each byte.
        let mut long_at = Vec::new();
        if !self.long.is_empty() {
            long_at.resize(escaped.len(), None);
            for (at, found) in self.long.find_all(&escaped) {
                long_at[at] = Some(found);
            }
        }
        let find = |range: Range<usize>| {
            let len = range.len();
            if len <= HASHED_BYTES {
                return vocab.find(&escaped[range]);
            }
            let longest = long_at.get(range.start).copied().flatten()?;
            let found = self.long.cut_to(longest, len)?;
            (self.long.len(found) == len).then(|| self.long.number(found))
        };
        let mut rest = &escaped[..];
        let mut merger = Merger::default();
        merger.start(core::iter::from_fn(|| {
            let len = char_len(*rest.first()?);
            let (symbol, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            rest = after;
            Some((u32::try_from(symbol.len()).ok()?, NONE))
        }));
        merger.merge(|left, right| {
            let joined = left.range_with(right);
            if joined.len() > vocab.max_text_bytes() {
                return None;
            }
            let token = find(joined)?;
            Some((rank(vocab.score(token)), token))
        });
        for symbol in merger.symbols() {
            match find(symbol.range()) {
                Some(token) => out.push(token),
                None => {
                    let bytes = escaped[symbol.range()].iter().map(|&byte| usize::from(byte));
                    out.extend(bytes.filter_map(|byte| self.byte_tokens[byte]));
                }
            }
        }
    }
}

/// Appends the bytes that the text of a normal token stands for.
pub fn push_bytes(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = match rest.strip_prefix(SPACE) {
            Some(tail) => {
                out.push(b' ');
                tail
            }
            None => {
                out.push(first);
                tail
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_scores_come_first() {
        let scores =
            [f32::INFINITY, f32::MAX, 2.5, 1.0, 1e-40, 0.0, -1e-40, -1.0, -2.5, f32::NEG_INFINITY];
        assert!(scores.windows(2).all(|w| rank(w[0]) < rank(w[1])), "{:?}", scores.map(rank));
        assert_eq!(rank(0.0), rank(-0.0));
    }
}
