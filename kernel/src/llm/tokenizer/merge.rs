//! Joins neighbours until no two can be joined: always the pair of the lowest rank, and of equal
//! ones the leftmost.

use alloc::vec::Vec;
use core::ops::Range;

use super::queue::Queue;

/// No symbol, no text, no rank.
pub const NONE: u32 = u32::MAX;

/// A part of the text that will be a token. Those that were joined to their left neighbours stay
/// in the list, empty.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    start: u32,
    len: u32,
    /// The number of its text, or [`NONE`].
    pub id: u32,
    previous: u32,
    next: u32,
    /// The rank of the pair that this and the next one are; [`NONE`] if they can't be joined.
    rank: u32,
    /// The number of the text that the two are together.
    joined: u32,
}

impl Symbol {
    /// Its place in the text, in bytes.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// Its place and that of the next symbol together.
    pub fn range_with(&self, next: &Symbol) -> Range<usize> {
        self.start as usize..next.range().end
    }
}

/// A text being joined. Used again and again, it allocates no more than the longest text needs.
#[derive(Debug, Default)]
pub struct Merger {
    symbols: Vec<Symbol>,
    /// The pairs by their ranks and the places of their left symbols. A pair that is no longer
    /// what it was when it was queued is passed over.
    pairs: Queue,
}

impl Merger {
    /// Starts with symbols of these lengths in bytes, under 2^32 together, and numbers.
    pub fn start(&mut self, symbols: impl Iterator<Item = (u32, u32)>) {
        self.symbols.clear();
        let mut start = 0;
        for (i, (len, id)) in (0..).zip(symbols) {
            // The number before the first wraps around to NONE.
            let (previous, next) = (u32::wrapping_sub(i, 1), i + 1);
            self.symbols.push(Symbol { start, len, id, previous, next, rank: NONE, joined: NONE });
            start += len;
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
    }

    /// Joins all that can be joined. `rule` gives the rank of a pair, the lowest first, and the
    /// number of the joined text; `None` if the two can't be joined.
    pub fn merge(&mut self, rule: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for left in 0..self.symbols.len() as u32 {
            self.find_pair(left, &rule);
        }
        while let Some((rank, left)) = self.pairs.pop() {
            let l = self.symbols[left as usize];
            if l.rank != rank {
                continue;
            }
            let r = &mut self.symbols[l.next as usize];
            let (next, len) = (r.next, l.len + r.len);
            (r.len, r.rank) = (0, NONE);
            if let Some(next) = self.symbols.get_mut(next as usize) {
                next.previous = left;
            }
            self.symbols[left as usize] = Symbol { len, id: l.joined, next, ..l };
            self.find_pair(l.previous, &rule);
            self.find_pair(left, &rule);
        }
    }

    /// Looks at the pair of a symbol and the next one, one of which is new.
    fn find_pair(&mut self, left: u32, rule: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let Some(l) = self.symbols.get(left as usize) else { return };
        let pair = self.symbols.get(l.next as usize).and_then(|r| rule(l, r));
        let (rank, joined) = pair.unwrap_or((NONE, NONE));
        let l = &mut self.symbols[left as usize];
        (l.rank, l.joined) = (rank, joined);
        if pair.is_some() {
            self.pairs.push(rank, left);
        }
    }

    /// What is left, in order.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }
}
