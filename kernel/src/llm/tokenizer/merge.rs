//! Byte-pair merging: joins neighbours until no pair can be joined.
//!
//! The pair of the lowest rank comes first; of equal ranks, the leftmost.

use alloc::vec::Vec;
use core::ops::Range;

use super::queue::Queue;
use super::step_count::step;

/// No symbol, no text, no rank.
pub const NONE: u32 = u32::MAX;

/// A part of the text that will be a token.
///
/// A symbol that was joined to its left neighbour stays in the list, empty.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    start: u32,
    end: u32,
    /// The number of its text, or [`NONE`].
    pub id: u32,
    previous: u32,
    next: u32,
    /// The rank of the pair with the next symbol; [`NONE`] if it cannot be joined.
    rank: u32,
    /// The number of the pair's joined text.
    joined: u32,
}

impl Symbol {
    /// Its place in the text, in bytes.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The places of the symbol and the next symbol together.
    pub fn range_with(&self, next: &Symbol) -> Range<usize> {
        self.start as usize..next.end as usize
    }
}

/// A text being joined. Used again and again, it allocates no more than the longest text needs.
#[derive(Debug, Default)]
pub struct Merger {
    symbols: Vec<Symbol>,
    /// The pairs by rank and place of the left symbol. A pair that changed after it was queued is
    /// skipped.
    pairs: Queue,
}

impl Merger {
    /// Starts with symbols, given by length in bytes and number. All lengths together are below
    /// 2^32.
    pub fn start(&mut self, symbols: impl Iterator<Item = (u32, u32)>) {
        self.symbols.clear();
        let (mut start, mut previous) = (0_u32, NONE);
        for (i, (len, id)) in (0_u32..).zip(symbols) {
            let (end, next) = (start.saturating_add(len), i.saturating_add(1));
            self.symbols.push(Symbol { start, end, id, previous, next, rank: NONE, joined: NONE });
            (start, previous) = (end, i);
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
    }

    /// Joins pairs until none is left.
    ///
    /// `rule` gives the rank of a pair, the lowest first, and the number of the joined text; `None`
    /// if the pair cannot be joined.
    pub fn merge(&mut self, rule: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for (left, _) in (0..NONE).zip(0..self.symbols.len()) {
            self.find_pair(left, &rule);
        }
        while let Some((rank, left)) = self.pairs.pop() {
            step(1);
            let l = self.symbols[left as usize];
            if l.rank != rank {
                continue;
            }
            let r = &mut self.symbols[l.next as usize];
            let (next, end) = (r.next, r.end);
            (r.start, r.rank) = (end, NONE);
            if let Some(next) = self.symbols.get_mut(next as usize) {
                next.previous = left;
            }
            self.symbols[left as usize] = Symbol { end, id: l.joined, next, ..l };
            self.find_pair(l.previous, &rule);
            self.find_pair(left, &rule);
        }
    }

    /// Looks up the pair of a symbol and the next symbol, one of which is new.
    fn find_pair(&mut self, left: u32, rule: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        step(1);
        let Some(l) = self.symbols.get(left as usize) else { return };
        let pair = self.symbols.get(l.next as usize).and_then(|r| rule(l, r));
        let (rank, joined) = pair.unwrap_or((NONE, NONE));
        let l = &mut self.symbols[left as usize];
        (l.rank, l.joined) = (rank, joined);
        if pair.is_some() {
            self.pairs.push(rank, left);
        }
    }

    /// The remaining symbols, in order.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.start < symbol.end)
    }
}
