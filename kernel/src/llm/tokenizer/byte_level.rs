//! Byte-level byte-pair encoding, as GPT-2 introduced it (GGUF's tokenizer model `gpt2`): each word
//! starts as its bytes, and neighbours are merged by the rank of the pair in a list.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::merge::Merger;
use super::vocab::Vocab;
use super::words::{DEFAULT, Words};
use crate::llm::gguf::{Gguf, ValueType};
use crate::llm::{Error, with_capacity};

const MERGES: &str = "tokenizer.ggml.merges";
const PRE: &str = "tokenizer.ggml.pre";

/// The character by which vocabularies write a byte: itself where it is visible, else the next
/// unused one from U+0100 on.
fn character_of(byte: u8) -> char {
    let visible = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if visible(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !visible(b)).count() as u32;
    // There are 68 bytes that are not visible, so this is a character.
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character of a vocabulary stands for.
pub fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xff => (character_of(code as u8) == c).then_some(code as u8),
        0x100..=0x143 => (0..=u8::MAX).find(|&byte| character_of(byte) == c),
        _ => None,
    }
}

/// How words become tokens.
#[derive(Debug)]
pub struct ByteLevel {
    words: Words,
    /// How each byte is written.
    alphabet: Vec<char>,
    /// The pairs, the two texts of each joined by a space.
    bytes: Vec<u8>,
    /// Where each pair ends; its number is its rank.
    ends: Vec<usize>,
    /// The ranks, in the order of their pairs.
    by_pair: Vec<u32>,
}

impl ByteLevel {
    /// Reads the merges, and how texts are cut into words.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, Error> {
        let name = gguf.string(PRE)?;
        if name.is_none() {
            log::warn!(
                "the file does not say how texts are cut into words (`{PRE}`): the answers of a \
                 model whose way is not `{DEFAULT}` will be bad"
            );
        }
        let name = name.unwrap_or(DEFAULT);
        let Some(words) = Words::of(name) else {
            let what = alloc::format!("the pre-tokenizer `{name}` (`{PRE}`)");
            return Err(Error::Unsupported { what });
        };
        let Some(merges) = gguf.array(MERGES, ValueType::String)? else {
            return Err(gguf.missing(MERGES));
        };
        if u32::try_from(merges.len()).is_err() {
            return Err(gguf.invalid(MERGES, "has 2^32 elements or more"));
        }
        let what = "the tokenizer's merges";
        let n_bytes = merges.strings().map(|(text, _)| text.len()).sum();
        let mut bytes = with_capacity(n_bytes, what)?;
        let mut ends = with_capacity(merges.len(), what)?;
        let mut by_pair = with_capacity(merges.len(), what)?;
        for (rank, (text, _)) in (0..).zip(merges.strings()) {
            bytes.extend_from_slice(text);
            ends.push(bytes.len());
            by_pair.push(rank);
        }
        let alphabet = (0..=u8::MAX).map(character_of).collect();
        let mut merges = ByteLevel { words, alphabet, bytes, ends, by_pair: Vec::new() };
        // Of a pair that is there twice the first one counts.
        by_pair.sort_unstable_by(|&a, &b| merges.pair(a).cmp(merges.pair(b)).then(a.cmp(&b)));
        by_pair.dedup_by(|b, a| merges.pair(*a) == merges.pair(*b));
        merges.by_pair = by_pair;
        Ok(merges)
    }

    /// Whether texts begin with the beginning-of-text token, if the file does not say.
    pub fn adds_bos(&self) -> bool {
        self.words.adds_bos
    }

    fn pair(&self, rank: u32) -> &[u8] {
        let rank = rank as usize;
        let start = rank.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[rank]]
    }

    /// The rank of a pair: the lowest is merged first.
    fn rank(&self, left: &[u8], right: &[u8]) -> Option<u32> {
        let compare = |&rank: &u32| {
            let pair = self.pair(rank);
            let Some((head, tail)) = pair.split_at_checked(left.len()) else {
                // No shorter than the left text: the two can be equal in no more than a part.
                return pair.cmp(left);
            };
            head.cmp(left).then_with(|| match tail.split_first() {
                None => Ordering::Less,
                Some((first, tail)) => first.cmp(&b' ').then_with(|| tail.cmp(right)),
            })
        };
        self.by_pair.binary_search_by(compare).ok().map(|place| self.by_pair[place])
    }

    /// Appends the tokens of `text`. Bytes that no token has are left out.
    pub fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        // Lower ranks come first. Ranks are exact in F32: files hold fewer than 2^24 merges, and
        // larger ones would only be merged in a slightly other order.
        let mut merger = Merger::new(|left: &[u8], right: &[u8], _: &[u8]| {
            self.rank(left, right).map(|rank| -(rank as f32))
        });
        let mut written = String::new();
        for word in self.words.split(text) {
            written.clear();
            written.extend(word.bytes().map(|byte| self.alphabet[usize::from(byte)]));
            match vocab.find(written.as_bytes()).filter(|_| self.words.ignores_merges) {
                Some(token) => out.push(token),
                None => merger.merge(&written, |text| match vocab.find(text) {
                    Some(token) => out.push(token),
                    None => out.extend(text.iter().filter_map(|&byte| vocab.find(&[byte]))),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        for byte in 0..=u8::MAX {
            assert_eq!(byte_of(character_of(byte)), Some(byte));
        }
        // As GPT-2's vocabulary writes them.
        assert_eq!([b' ', b'\n', b'a', 0xad].map(character_of), ['Ġ', 'Ċ', 'a', 'Ń']);
        assert_eq!([' ', '\u{144}', 'Ω'].map(byte_of), [None; 3]);
    }
}
