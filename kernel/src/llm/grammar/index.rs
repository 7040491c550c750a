//! The vocabulary in the order of the tokens' bytes.

use alloc::vec::Vec;
use core::ops::Range;

use crate::llm::tokenizer::Tokenizer;
use crate::llm::{Error, with_capacity};

/// The name of the index's memory in errors.
const WHAT: &str = "the vocabulary's index for grammars";

/// Visits of stacks for one token that no vocabulary makes too many.
const LEAST_BUDGET: u64 = 1 << 18;

/// The bytes of all tokens, sorted.
///
/// Tokens that no text of a grammar contains are left out: those that end a generation, those
/// without bytes, and those with a byte 0.
#[derive(Debug)]
pub struct TokenIndex {
    /// All tokens' bytes, one behind the other.
    bytes: Vec<u8>,
    /// The end of each token's bytes.
    ends: Vec<u32>,
    /// The tokens by their bytes, and the number of bytes that each has in common with the one
    /// before.
    sorted: Vec<(u32, u32)>,
    /// Tokens that end a generation, in order.
    end_tokens: Vec<u32>,
}

impl TokenIndex {
    /// Sorts the vocabulary.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(tokenizer: &Tokenizer) -> Result<Self, Error> {
        let n = tokenizer.n_vocab();
        let mut bytes: Vec<u8> = Vec::new();
        let mut ends = with_capacity(n, WHAT)?;
        let mut sorted = with_capacity(n, WHAT)?;
        let mut end_tokens = with_capacity(tokenizer.ends().len(), WHAT)?;
        end_tokens.extend_from_slice(tokenizer.ends());
        for token in 0..n as u32 {
            let start = bytes.len();
            let asked = tokenizer.max_token_bytes();
            let no_memory = |_| Error::OutOfMemory { what: WHAT, asked: asked as u64 };
            bytes.try_reserve(asked).map_err(no_memory)?;
            tokenizer.push_bytes(token, &mut bytes);
            let own = &bytes[start..];
            if !tokenizer.is_end(token) && !own.is_empty() && !own.contains(&0) {
                sorted.push((token, 0));
            }
            ends.push(bytes.len() as u32);
        }
        let mut index = TokenIndex { bytes, ends, sorted, end_tokens };
        let mut sorted = core::mem::take(&mut index.sorted);
        sorted.sort_unstable_by(|&(a, _), &(b, _)| (index.bytes(a), a).cmp(&(index.bytes(b), b)));
        let mut before: &[u8] = &[];
        for (token, common) in &mut sorted {
            let own = index.bytes(*token);
            *common = own.iter().zip(before).take_while(|(a, b)| a == b).count() as u32;
            before = own;
        }
        index.sorted = sorted;
        Ok(index)
    }

    /// Number of tokens.
    pub fn n_vocab(&self) -> usize {
        self.ends.len()
    }

    /// The most visits of stacks for one token.
    ///
    /// A look at all tokens visits less than one stack a byte, where the grammar has one way to read
    /// each. So a grammar may take as long as eight ways would.
    pub fn budget(&self) -> u64 {
        LEAST_BUDGET + 8 * self.bytes.len() as u64
    }

    /// The bytes of a token.
    pub fn bytes(&self, token: u32) -> &[u8] {
        &self.bytes[self.range(token)]
    }

    /// The place of a token's bytes.
    pub fn range(&self, token: u32) -> Range<usize> {
        let start = match token.checked_sub(1) {
            Some(before) => self.ends[before as usize] as usize,
            None => 0,
        };
        start..self.ends[token as usize] as usize
    }

    /// The tokens by their bytes, each with the number of bytes that it has in common with the one
    /// before.
    pub fn sorted(&self) -> &[(u32, u32)] {
        &self.sorted
    }

    /// Whether a token ends a generation.
    pub fn is_end(&self, token: u32) -> bool {
        self.end_tokens.binary_search(&token).is_ok()
    }

    /// The tokens that end a generation, in order.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }
}
