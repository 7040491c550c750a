//! Cuts a text into tokens: starts from its characters and merges neighbours, always the pair
//! whose token has the highest score, and of equal ones the leftmost.
//!
//! The pairs wait in a heap, so that a text of n characters takes n log n steps.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::SPACE;
use super::vocab::Vocab;

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
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of the two together: if they have changed since, so has this sum.
    len: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        // No score is NaN; 0 and -0 are equal, as in C.
        let scores = self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal);
        scores.then_with(|| other.left.cmp(&self.left))
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

struct Merger<'a> {
    vocab: &'a Vocab,
    text: &'a [u8],
    symbols: Vec<Symbol>,
    pairs: BinaryHeap<Pair>,
}

impl Merger<'_> {
    fn consider(&mut self, left: Option<usize>, right: Option<usize>) {
        let (Some(left), Some(right)) = (left, right) else { return };
        let start = self.symbols[left].start;
        let len = self.symbols[left].len + self.symbols[right].len;
        // Neighbours are next to each other in the text, so the two are one part of it.
        if let Some(token) = self.vocab.find(&self.text[start..start + len]) {
            self.pairs.push(Pair { score: self.vocab.score(token), left, right, len });
        }
    }

    fn merge_all(&mut self) {
        for right in 1..self.symbols.len() {
            self.consider(Some(right - 1), Some(right));
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
            self.consider(l.previous, Some(left));
            self.consider(Some(left), r.next);
        }
    }
}

/// Appends the tokens of `prefix` and `text` together; spaces in `text` are written as U+2581
/// first. Characters that no token has become their bytes' tokens, or `unk`.
pub fn encode(vocab: &Vocab, unk: Option<u32>, prefix: &str, text: &str, out: &mut Vec<u32>) {
    let escaped = [prefix, &text.replace(' ', SPACE)].concat();
    let n = escaped.chars().count();
    let symbols = escaped.char_indices().enumerate().map(|(i, (start, c))| Symbol {
        start,
        len: c.len_utf8(),
        previous: i.checked_sub(1),
        next: Some(i + 1).filter(|&next| next < n),
    });
    let symbols = symbols.collect();
    let mut merger = Merger { vocab, text: escaped.as_bytes(), symbols, pairs: BinaryHeap::new() };
    merger.merge_all();
    for symbol in merger.symbols.iter().filter(|symbol| symbol.len > 0) {
        let text = &merger.text[symbol.start..symbol.start + symbol.len];
        match vocab.find(text) {
            Some(token) => out.push(token),
            None => out.extend(text.iter().filter_map(|&byte| vocab.byte(byte).or(unk))),
        }
    }
}
