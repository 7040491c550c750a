//! The last tokens of the text, for the penalties and for DRY.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The last tokens, up to a number set at the start.
#[derive(Clone, Debug)]
pub struct History {
    tokens: VecDeque<u32>,
    /// Room for them in order.
    sorted: Vec<u32>,
    last_n: usize,
}

impl History {
    /// An empty history of up to `last_n` tokens, which never allocates again.
    pub fn new(last_n: usize) -> Self {
        History {
            tokens: VecDeque::with_capacity(last_n),
            sorted: Vec::with_capacity(last_n),
            last_n,
        }
    }

    /// Takes a token in, and drops the oldest one if there is no room.
    pub fn push(&mut self, token: u32) {
        if self.last_n == 0 {
            return;
        }
        if self.tokens.len() == self.last_n {
            self.tokens.pop_front();
        }
        self.tokens.push_back(token);
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.tokens.clear();
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The token that came so many before the last one.
    ///
    /// # Panics
    /// There are not as many.
    pub fn back(&self, n: usize) -> u32 {
        self.tokens[self.tokens.len() - 1 - n]
    }

    /// Each of the tokens with how often it is there.
    pub fn counts(&mut self) -> impl Iterator<Item = (u32, usize)> {
        self.sorted.clear();
        self.sorted.extend(&self.tokens);
        self.sorted.sort_unstable();
        self.sorted.chunk_by(|a, b| a == b).map(|same| (same[0], same.len()))
    }
}
