//! Stop strings: finds the first match in a text that comes byte by byte.
//!
//! The Knuth-Morris-Pratt automaton of each string: constant time a byte, for any string and text.

use alloc::vec::Vec;

use crate::llm::{Error, with_capacity};

/// The name of the automata's memory in errors.
const WHAT: &str = "the stop strings";

/// A match of a stop string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The number of the string.
    pub word: usize,
    /// The string's bytes.
    pub len: usize,
}

/// The automata of all stop strings.
#[derive(Debug)]
pub struct StopWords {
    words: Vec<StopWord>,
}

/// The automaton of one string.
#[derive(Debug)]
struct StopWord {
    number: usize,
    /// The string; not empty.
    bytes: Vec<u8>,
    /// For each prefix but the empty one: its longest proper prefix that is its suffix too.
    borders: Vec<usize>,
    /// The longest prefix of the string at the end of the text.
    matched: usize,
}

impl StopWord {
    fn try_new(number: usize, bytes: Vec<u8>) -> Result<Self, Error> {
        let mut borders = with_capacity(bytes.len(), WHAT)?;
        borders.push(0);
        let mut border: usize = 0;
        for &byte in &bytes[1..] {
            while border > 0 && bytes[border] != byte {
                border = borders[border - 1];
            }
            border += usize::from(bytes[border] == byte);
            borders.push(border);
        }
        Ok(StopWord { number, bytes, borders, matched: 0 })
    }

    /// Appends a byte of the text, and returns whether the text ends with the string.
    fn push(&mut self, byte: u8) -> bool {
        if self.matched == self.bytes.len() {
            self.matched = self.borders[self.matched - 1];
        }
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        self.matched == self.bytes.len()
    }
}

impl StopWords {
    /// The automata for an empty text.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(
        strings: impl ExactSizeIterator<Item = impl Into<Vec<u8>>>,
    ) -> Result<Self, Error> {
        let mut words = with_capacity(strings.len(), WHAT)?;
        for (number, string) in strings.enumerate() {
            let bytes = string.into();
            if !bytes.is_empty() {
                words.push(StopWord::try_new(number, bytes)?);
            }
        }
        Ok(StopWords { words })
    }

    /// Bytes of the longest string.
    pub fn longest(&self) -> usize {
        self.words.iter().map(|word| word.bytes.len()).max().unwrap_or(0)
    }

    /// Bytes at the end of the text that may be the start of a match.
    pub fn n_held(&self) -> usize {
        self.words.iter().map(|word| word.matched).max().unwrap_or(0)
    }

    /// Appends a byte of the text, and returns the longest match that ends with the byte.
    pub fn push(&mut self, byte: u8) -> Option<Match> {
        let mut longest: Option<Match> = None;
        for word in &mut self.words {
            let len = word.bytes.len();
            if word.push(byte) && longest.is_none_or(|longest| len > longest.len) {
                longest = Some(Match { word: word.number, len });
            }
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    /// The first match and the bytes before it; or the text that is not held back.
    fn find(words: &[&str], text: &str) -> (Option<usize>, String) {
        let mut words = StopWords::try_new(words.iter().copied()).unwrap();
        for (end, byte) in text.bytes().enumerate() {
            if let Some(Match { word, len }) = words.push(byte) {
                return (Some(word), text[..end + 1 - len].into());
            }
        }
        (None, text[..text.len() - words.n_held()].into())
    }

    #[test]
    fn the_match_that_ends_first_is_found_and_of_those_the_longest() {
        for (words, text, word, before) in [
            (&["b"][..], "abab", Some(0), "a"),
            (&["abc", "b"], "abc", Some(1), "a"),
            (&["b", "ab"], "xab", Some(1), "x"),
            (&["b", "b"], "ab", Some(0), "a"),
            (&["aab"], "aaab", Some(0), "a"),
            (&["abab!"], "ababab!", Some(0), "ab"),
            (&["", "\n\n"], "a\n\nb", Some(1), "a"),
            // A part of a match is held back, and given out once it cannot be one.
            (&["abc"], "xab", None, "x"),
            (&["abc"], "xabd", None, "xabd"),
            (&["abc", "bd"], "xab", None, "x"),
            (&["é!"], "né", None, "n"),
            (&[""], "abc", None, "abc"),
            (&[], "abc", None, "abc"),
        ] {
            assert_eq!(find(words, text), (word, before.into()), "{words:?} in {text:?}");
        }
    }

    #[test]
    fn automata_find_what_a_naive_search_finds() {
        // All texts of up to nine letters of two, all pairs of words of up to four.
        let texts = |n: u32| {
            (0..=n).flat_map(|len| {
                (0..1_u32 << len).map(move |bits| {
                    (0..len).map(|i| if bits >> i & 1 == 0 { 'a' } else { 'b' }).collect::<String>()
                })
            })
        };
        let naive = |words: &[String], text: &str| {
            for end in 1..=text.len() {
                let ends = words
                    .iter()
                    .enumerate()
                    .filter(|(_, word)| !word.is_empty() && text[..end].ends_with(word.as_str()));
                // The longest; of equal ones the first.
                if let Some((number, word)) = ends.rev().max_by_key(|(_, word)| word.len()) {
                    return (Some(number), String::from(&text[..end - word.len()]));
                }
            }
            let held = |word: &String| {
                (0..=word.len()).rev().find(|&n| text.ends_with(&word[..n])).unwrap_or(0)
            };
            let held = words.iter().map(held).max().unwrap_or(0);
            (None, text[..text.len() - held].into())
        };
        for first in texts(4) {
            for second in texts(2) {
                let words = vec![first.clone(), second];
                let borrowed: Vec<&str> = words.iter().map(String::as_str).collect();
                for text in texts(9) {
                    assert_eq!(find(&borrowed, &text), naive(&words, &text), "{words:?} in {text}");
                }
            }
        }
    }
}
