//! A set of tokens.

use alloc::vec::Vec;

use crate::llm::{Error, with_capacity};

/// A set of tokens, as a bit for each token of the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    bits: Vec<u64>,
}

impl TokenMask {
    /// An empty set, for a vocabulary of `n_vocab` tokens. `what` names its memory in errors.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(n_vocab: usize, what: &'static str) -> Result<Self, Error> {
        let n = n_vocab.div_ceil(64);
        let mut bits = with_capacity(n, what)?;
        bits.resize(n, 0);
        Ok(TokenMask { bits })
    }

    /// Whether the set has the token.
    pub fn contains(&self, token: u32) -> bool {
        self.bits.get(token as usize / 64).is_some_and(|bits| bits >> (token % 64) & 1 == 1)
    }

    /// Puts a token in, or takes it out. Nothing happens to a token beyond the vocabulary.
    pub fn set(&mut self, token: u32, is_in: bool) {
        let bit = 1 << (token % 64);
        if let Some(bits) = self.bits.get_mut(token as usize / 64) {
            *bits = if is_in { *bits | bit } else { *bits & !bit };
        }
    }

    /// Takes all tokens out.
    pub fn clear(&mut self) {
        self.bits.fill(0);
    }

    /// Whether the set has no token.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|&bits| bits == 0)
    }
}
