//! Byte-level byte-pair encoding, as in GPT-2 (GGUF's tokenizer model `gpt2`).
//!
//! A pre-tokeniser cuts the text into words. Each word is joined from its bytes by a list of
//! merges, in the order of the list. The vocabulary writes bytes as visible characters: printable
//! Latin-1 characters as themselves, others as the characters from U+0100 on.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::merge::Merger;
use super::pre::PreTokenizer;
use super::slots::{Crowded, Slots, mix};
use super::split::split;
use super::vocab::Vocab;
use super::{TOKENS, shown};
use crate::llm::gguf::{Gguf, ValueType};
use crate::llm::{Error, with_capacity};

const MERGES: &str = "tokenizer.ggml.merges";

/// How the vocabulary writes each byte.
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let mut next = 0x100;
    let mut byte = 0;
    while byte < 256 {
        let code = match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte,
            _ => {
                next += 1;
                next - 1
            }
        };
        chars[byte as usize] = match char::from_u32(code) {
            Some(c) => c,
            None => unreachable!(),
        };
        byte += 1;
    }
    chars
};

/// The first character that stands for another byte than itself.
const FIRST_HIDDEN: usize = 0x100;

/// The bytes whose characters start at [`FIRST_HIDDEN`].
const HIDDEN: [u8; 68] = {
    let mut hidden = [0; 68];
    let mut byte = 0;
    loop {
        let code = CHARS[byte as usize] as usize;
        if code >= FIRST_HIDDEN {
            hidden[code - FIRST_HIDDEN] = byte;
        }
        if byte == u8::MAX {
            break hidden;
        }
        byte += 1;
    }
};

/// The byte that a character stands for.
fn byte_of(c: char) -> Option<u8> {
    match u8::try_from(c) {
        Ok(byte) => Some(byte).filter(|&byte| CHARS[usize::from(byte)] == c),
        Err(_) => HIDDEN.get((c as usize).checked_sub(FIRST_HIDDEN)?).copied(),
    }
}

/// Two texts that are joined, by their numbers, and the number of the joined text.
#[derive(Clone, Copy, Debug)]
struct Merge {
    left: u32,
    right: u32,
    joined: u32,
}

/// The byte-pair model: pre-tokeniser and merges.
pub struct Bpe {
    pre: &'static PreTokenizer,
    /// In order: the place of a merge is its rank.
    merges: Vec<Merge>,
    /// Ranks by the hashes of the two texts.
    slots: Slots,
    /// The number of each byte's character.
    byte_numbers: Vec<u32>,
}

impl core::fmt::Debug for Bpe {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bpe").field("merges", &self.merges.len()).finish_non_exhaustive()
    }
}

fn hash_of(left: u32, right: u32) -> u64 {
    mix(u64::from(left) << 32 | u64::from(right))
}

/// The pre-tokeniser of a model.
///
/// # Errors
/// [`Error::Unsupported`] if its name is unknown.
pub fn pre_tokenizer(gguf: &Gguf<'_>) -> Result<&'static PreTokenizer, Error> {
    let name = match gguf.string("tokenizer.ggml.pre")? {
        None | Some("") => {
            log::warn!(
                "the model does not name its pre-tokenizer: `default` is used, which is rarely \
                 right; a newer conversion of the model will answer better"
            );
            "default"
        }
        Some(name) => name,
    };
    PreTokenizer::named(name).ok_or_else(|| {
        let what = alloc::format!("the pre-tokenizer `{}`", shown(name));
        Error::Unsupported { what }
    })
}

impl Bpe {
    /// Reads the merges.
    ///
    /// Texts of merges that are no tokens get numbers after the tokens. A word may pass through
    /// such a text on its way to a token.
    ///
    /// # Errors
    /// [`Error::ParseError`], [`Error::OutOfMemory`].
    pub fn from_gguf(
        gguf: &Gguf<'_>,
        pre: &'static PreTokenizer,
        vocab: &mut Vocab,
    ) -> Result<Self, Error> {
        let Some(texts) = gguf.array(MERGES, ValueType::String)? else {
            return Err(gguf.missing(MERGES));
        };
        if i32::try_from(texts.len()).is_err() {
            return Err(gguf.invalid(MERGES, "must have under 2^31 elements"));
        }
        let at = gguf.entry(TOKENS).map_or(0, |tokens| tokens.at);
        let mut byte_numbers = Vec::with_capacity(CHARS.len());
        for c in CHARS {
            byte_numbers.push(vocab.number(c.encode_utf8(&mut [0; 4]).as_bytes(), at)?);
        }
        let lost = byte_numbers.iter().filter(|&&number| !vocab.contains(number)).count();
        if lost > 0 {
            log::warn!("`{TOKENS}` has no tokens for {lost} bytes, which prompts will lose");
        }
        let mut bpe = Bpe {
            pre,
            merges: with_capacity(texts.len(), "the tokenizer's merges")?,
            slots: Slots::with_room_for(texts.len(), "the tokenizer's merges")?,
            byte_numbers,
        };
        let mut joined = Vec::new();
        let mut malformed = 0_usize;
        for (text, at) in texts.strings() {
            let Some((left, right)) = two_texts(text) else {
                malformed = malformed.saturating_add(1);
                continue;
            };
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let merge = Merge {
                left: vocab.number(left, at)?,
                right: vocab.number(right, at)?,
                joined: vocab.number(&joined, at)?,
            };
            bpe.add(merge).map_err(|crowded| crowded.at(at))?;
        }
        if malformed > 0 {
            log::warn!("{malformed} of `{MERGES}` are no two texts with a space between");
        }
        Ok(bpe)
    }

    /// Adds a merge. Of several merges of the same two texts the first one counts.
    fn add(&mut self, merge: Merge) -> Result<(), Crowded> {
        if self.rank(merge.left, merge.right).is_none() {
            let rank = u32::try_from(self.merges.len()).map_err(|_| Crowded)?;
            self.slots.insert(hash_of(merge.left, merge.right), rank)?;
            self.merges.push(merge);
        }
        Ok(())
    }

    /// The place in the list of the merge of these two texts.
    fn rank(&self, left: u32, right: u32) -> Option<u32> {
        self.slots.find(hash_of(left, right), |rank| {
            let merge = self.merges[rank as usize];
            (merge.left, merge.right) == (left, right)
        })
    }

    /// Appends the tokens of a text of at most 1 GiB.
    ///
    /// Each byte that is not UTF-8 becomes U+FFFD. So does each byte of a surrogate, which
    /// llama.cpp lets pass.
    pub fn encode(&self, vocab: &Vocab, text: &[u8], out: &mut Vec<u32>) {
        let mut words = Words { bpe: self, vocab, merger: Merger::default(), name: String::new() };
        split(self.pre.stages, &valid(text), &mut |word| words.encode(word, out));
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let merges = self.merges.capacity().saturating_mul(size_of::<Merge>());
        merges.saturating_add(self.slots.memory_bytes())
    }
}

/// Encodes words, with buffers for all words.
struct Words<'a> {
    bpe: &'a Bpe,
    vocab: &'a Vocab,
    merger: Merger,
    /// The word as the vocabulary writes it.
    name: String,
}

impl Words<'_> {
    fn encode(&mut self, word: &str, out: &mut Vec<u32>) {
        let Words { bpe, vocab, merger, name } = self;
        if bpe.pre.ignore_merges {
            name.clear();
            name.extend(word.bytes().map(|byte| CHARS[usize::from(byte)]));
            if let Some(token) = vocab.find(name.as_bytes()) {
                return out.push(token);
            }
        }
        merger.start(word.bytes().map(|byte| (1, bpe.byte_numbers[usize::from(byte)])));
        merger.merge(|left, right| {
            let rank = bpe.rank(left.id, right.id)?;
            Some((rank, bpe.merges[rank as usize].joined))
        });
        for symbol in merger.symbols() {
            if vocab.contains(symbol.id) {
                out.push(symbol.id);
            } else {
                // As in llama.cpp, the bytes of the text's characters, not the bytes that they
                // stand for.
                let text = vocab.text(symbol.id);
                out.extend(text.iter().filter_map(|&byte| vocab.find(&[byte])));
            }
        }
    }
}

/// The two texts of a merge. A space may be the first character of the left one.
fn two_texts(merge: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, behind_first) = merge.split_first()?;
    let at = behind_first.iter().position(|&byte| byte == b' ')?;
    let (_space, right) = behind_first.get(at..)?.split_first()?;
    Some((merge.get(..=at)?, right))
}

/// The first character of a text, and the rest.
///
/// As in llama.cpp, overlong encodings are accepted.
fn split_char(text: &[u8]) -> Option<(char, &[u8])> {
    let &[first, ref rest @ ..] = text else { return None };
    let (bits, more) = match first {
        0x00..=0x7f => (first, 0),
        0xc0..=0xdf => (first & 0x1f, 1),
        0xe0..=0xef => (first & 0x0f, 2),
        0xf0..=0xf7 => (first & 0x07, 3),
        _ => return None,
    };
    let (more, rest) = rest.split_at_checked(more)?;
    let code = more.iter().try_fold(u32::from(bits), |code, &byte| {
        (byte & 0xc0 == 0x80).then(|| code << 6 | u32::from(byte & 0x3f))
    })?;
    Some((char::from_u32(code)?, rest))
}

/// The text, with U+FFFD for each byte that belongs to no character.
fn valid(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = core::str::from_utf8(text) {
        return Cow::Borrowed(text);
    }
    let mut valid = String::with_capacity(text.len().saturating_mul(3));
    let mut rest = text;
    while let Some((_, behind_byte)) = rest.split_first() {
        let (c, behind) = split_char(rest).unwrap_or((char::REPLACEMENT_CHARACTER, behind_byte));
        valid.push(c);
        rest = behind;
    }
    Cow::Owned(valid)
}

/// Appends the bytes that a normal token's text stands for.
///
/// Characters that stand for no byte are appended unchanged.
pub fn push_bytes(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of(c) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend_from_slice(chunk.invalid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_characters_are_one_to_one() {
        for byte in 0..=255u8 {
            assert_eq!(byte_of(CHARS[usize::from(byte)]), Some(byte));
        }
        assert_eq!((CHARS[usize::from(b' ')], CHARS[usize::from(b'\n')]), ('Ġ', 'Ċ'));
        for c in [' ', '\0', '\u{ad}', '\u{144}', '漢'] {
            assert_eq!(byte_of(c), None, "{c:?}");
        }
    }

    #[test]
    fn each_byte_that_is_no_utf8_is_replaced() {
        assert!(matches!(valid("naïve".as_bytes()), Cow::Borrowed("naïve")));
        assert_eq!(valid(b"a\xe2\x82b\xff\xc3"), "a\u{fffd}\u{fffd}b\u{fffd}\u{fffd}");
        assert_eq!(valid(b"\xed\xa0\x80 \xf5\x80\x80\x80").matches('\u{fffd}').count(), 7);
        // More bytes than needed.
        assert_eq!(valid(b"\xc0\xaf\xe0\x80\xb9\xf0\x82\x82\xac"), "/9\u{20ac}");
    }

    #[test]
    fn merges_that_are_made_to_crowd_are_refused() {
        let n = 1501;
        let mut bpe = Bpe {
            pre: PreTokenizer::named("gpt-2").unwrap(),
            merges: Vec::new(),
            slots: Slots::with_room_for(n, MERGES).unwrap(),
            byte_numbers: Vec::new(),
        };
        // Pairs of three thousand texts, the hashes of which differ in no bit that matters.
        let pairs = (0..3001).flat_map(|left| (0..3001).map(move |right| (left, right)));
        let mut crowding = pairs.filter(|&(left, right)| hash_of(left, right) >> 32 & 0xfff == 7);
        let mut add = |(left, right)| bpe.add(Merge { left, right, joined: 0 });
        let refused = crowding.by_ref().take(n).position(|pair| add(pair).is_err());
        assert_eq!(refused, Some(1024));
        // A pair that is there already is no more of them.
        assert_eq!((add((0, 1)), add((0, 1))), (Ok(()), Ok(())));
        assert!(crowding.next().is_some(), "too few pairs to crowd");
    }
}
