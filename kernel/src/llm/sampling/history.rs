//! The last tokens of the text, for the penalties and for DRY.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The last `last_n` tokens of a text.
#[derive(Clone, Debug)]
pub struct History {
    tokens: VecDeque<u32>,
    /// Scratch space for the sorted tokens.
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

    /// Appends a token, and drops the oldest one if the history is full.
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

    /// The token `n` before the last one.
    ///
    /// # Panics
    /// There are fewer tokens.
    pub fn back(&self, n: usize) -> u32 {
        self.tokens[self.tokens.len() - 1 - n]
    }

    /// Each token with its number of occurrences.
    pub fn counts(&mut self) -> impl Iterator<Item = (u32, usize)> {
        self.sorted.clear();
        self.sorted.extend(&self.tokens);
        self.sorted.sort_unstable();
        self.sorted.chunk_by(|a, b| a == b).map(|same| (same[0], same.len()))
    }
}
