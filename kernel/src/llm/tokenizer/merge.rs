//! Byte-pair encoding: starts from a text's characters and merges neighbours, always the pair of the
//! highest priority, and of equal ones the leftmost.
//!
//! The pairs wait in a heap, so that a text of n characters takes n log n steps.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// A part of the text that will be a token. Merged ones stay in the list, empty.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that may be merged.
struct Pair {
    priority: f32,
    left: usize,
    right: usize,
    /// Bytes of the two together: if they have changed since, so has this sum.
    len: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        // No priority is NaN; 0 and -0 are equal, as in C.
        let priorities = self.priority.partial_cmp(&other.priority).unwrap_or(Ordering::Equal);
        priorities.then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// Merges texts. `priority` gives that of a pair from its two texts and from both together, if they
/// may be merged.
pub struct Merger<F> {
    priority: F,
    symbols: Vec<Symbol>,
    pairs: BinaryHeap<Pair>,
}

impl<F: Fn(&[u8], &[u8], &[u8]) -> Option<f32>> Merger<F> {
    /// A merger that can be used for one text after the other.
    pub fn new(priority: F) -> Self {
        Merger { priority, symbols: Vec::new(), pairs: BinaryHeap::new() }
    }

    fn consider(&mut self, text: &[u8], left: Option<usize>, right: Option<usize>) {
        let (Some(left), Some(right)) = (left, right) else { return };
        let start = self.symbols[left].start;
        let len = self.symbols[left].len + self.symbols[right].len;
        // Neighbours are next to each other in the text, so the two are one part of it.
        let both = &text[start..start + len];
        let (l, r) = both.split_at(self.symbols[left].len);
        if let Some(priority) = (self.priority)(l, r, both) {
            self.pairs.push(Pair { priority, left, right, len });
        }
    }

    /// Merges a text as far as it goes and calls `part` for each part that is left.
    pub fn merge(&mut self, text: &str, mut part: impl FnMut(&[u8])) {
        self.symbols.clear();
        let mut next = 0;
        self.symbols.extend(text.char_indices().map(|(start, c)| {
            next += 1;
            let (len, previous) = (c.len_utf8(), usize::checked_sub(next, 2));
            Symbol { start, len, previous, next: Some(next) }
        }));
        if let Some(last) = self.symbols.last_mut() {
            last.next = None;
        }
        let text = text.as_bytes();
        for right in 1..self.symbols.len() {
            self.consider(text, Some(right - 1), Some(right));
        }
        while let Some(Pair { left, right, len, .. }) = self.pairs.pop() {
            let (l, r) = (self.symbols[left], self.symbols[right]);
            // One of the two was merged with another since the pair was found.
            if l.len == 0 || r.len == 0 || l.len + r.len != len {
                continue;
            }
            self.symbols[left] = Symbol { len, next: r.next, ..l };
            self.symbols[right].len = 0;
            if let Some(next) = r.next {
                self.symbols[next].previous = Some(left);
            }
            self.consider(text, l.previous, Some(left));
            self.consider(text, Some(left), r.next);
        }
        for symbol in self.symbols.iter().filter(|symbol| symbol.len > 0) {
            part(&text[symbol.start..symbol.start + symbol.len]);
        }
    }
}
