//! Aho-Corasick automaton: finds all texts of a set in another text.
//!
//! The time is linear in the other text, whatever the set is (A. V. Aho and M. J. Corasick,
//! "Efficient String Matching", 1975).
//!
//! Texts are read backwards. So the automaton, having read down to a place, knows the longest text
//! that starts there. Its nodes are the suffixes of the texts, numbered by length: the children of
//! a node are consecutive. A node takes 13 bytes, and the set has at most one node for each byte.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::step_count::step;
use crate::llm::{Error, with_capacity};

/// The node of the empty suffix.
const ROOT: usize = 0;

/// A text of the set, found in another text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found(u32);

/// No text; every text has another number.
const NOTHING: Found = Found(0);

/// A text of the set.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The caller's number for it.
    number: u32,
    len: u32,
    /// The longest shorter text of the set that this text starts with.
    shorter: Found,
    /// Number of shorter texts that this text starts with.
    n_shorter: u32,
    /// A shorter text further on, so that few steps lead to any of them (E. W. Myers, "An
    /// Applicative Random-Access Stack", 1983).
    jump: Found,
}

/// The set of texts.
#[derive(Debug)]
pub struct Automaton {
    /// The byte that leads to each node from its parent.
    labels: Vec<u8>,
    /// The first child of each node.
    ///
    /// The children reach up to the next node's first child, in the order of their labels.
    children: Vec<u32>,
    /// The longest other node that each node's text starts with, read forwards.
    fails: Vec<u32>,
    /// The longest text of the set that each node's text starts with.
    longest: Vec<Found>,
    /// The texts, shorter ones first, behind [`NOTHING`].
    entries: Vec<Entry>,
}

/// The order of texts read backwards.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    a.iter().rev().cmp(b.iter().rev())
}

/// The `n`th byte from the end.
fn from_end(text: &[u8], n: usize) -> Option<u8> {
    text.iter().nth_back(n).copied()
}

impl Automaton {
    /// Builds the set of these texts with their numbers.
    ///
    /// No text may be empty or a duplicate. `what` names the texts in the error.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(mut texts: Vec<(&[u8], u32)>, what: &'static str) -> Result<Self, Error> {
        texts.sort_unstable_by(|(a, _), (b, _)| compare(a, b));
        // A text has a node for each byte that it does not share with the one before it.
        let mut n_nodes = 1_usize;
        let mut previous: &[u8] = &[];
        for &(text, _) in &texts {
            let shared = text.iter().rev().zip(previous.iter().rev()).take_while(|(a, b)| a == b);
            n_nodes = n_nodes.saturating_add(text.len().saturating_sub(shared.count()));
            previous = text;
        }
        if u32::try_from(n_nodes).is_err() {
            return Err(Error::OutOfMemory { what, asked: n_nodes as u64 });
        }
        let mut automaton = Automaton {
            labels: with_capacity(n_nodes, what)?,
            children: with_capacity(n_nodes.saturating_add(1), what)?,
            fails: with_capacity(n_nodes, what)?,
            longest: with_capacity(n_nodes, what)?,
            entries: with_capacity(texts.len().saturating_add(1), what)?,
        };
        let nothing = Entry { number: 0, len: 0, shorter: NOTHING, n_shorter: 0, jump: NOTHING };
        automaton.entries.push(nothing);
        automaton.add_node(0, ROOT, None);
        // For each node of one length, the texts that end with it.
        let mut level = Vec::from([&texts[..]]);
        let mut below = Vec::new();
        for len in 0.. {
            for texts in level.drain(..) {
                let node = automaton.children.len();
                automaton.children.push(index(automaton.labels.len()));
                // The text that is all of the node comes first.
                let longer = texts.iter().position(|(text, _)| text.len() > len);
                let longer = longer.map_or(&[][..], |first| &texts[first..]);
                for texts in longer.chunk_by(|a, b| from_end(a.0, len) == from_end(b.0, len)) {
                    let [(text, number), ..] = *texts else { continue };
                    let byte = from_end(text, len).unwrap_or_default();
                    let fail = match node {
                        ROOT => ROOT,
                        _ => automaton.read(automaton.fails[node] as usize, byte),
                    };
                    let is_whole = from_end(text, len.saturating_add(1)).is_none();
                    automaton.add_node(byte, fail, is_whole.then_some((number, text.len())));
                    below.push(texts);
                }
            }
            if below.is_empty() {
                break;
            }
            core::mem::swap(&mut level, &mut below);
        }
        automaton.children.push(index(automaton.labels.len()));
        Ok(automaton)
    }

    /// Adds the next node, with number and length of its text, if it is one.
    fn add_node(&mut self, label: u8, fail: usize, text: Option<(u32, usize)>) {
        let shorter = self.longest.get(fail).copied().unwrap_or(NOTHING);
        let longest = match text {
            Some((number, len)) => self.add_entry(number, index(len), shorter),
            None => shorter,
        };
        self.labels.push(label);
        self.fails.push(index(fail));
        self.longest.push(longest);
    }

    fn add_entry(&mut self, number: u32, len: u32, shorter: Found) -> Found {
        let found = Found(index(self.entries.len()));
        let parent = self.entry(shorter);
        let jump = self.entry(parent.jump);
        // Two jumps of equal length become one.
        let is_pair = parent.n_shorter.abs_diff(jump.n_shorter)
            == jump.n_shorter.abs_diff(self.entry(jump.jump).n_shorter);
        let jump = if is_pair { jump.jump } else { shorter };
        let n_shorter = parent.n_shorter.saturating_add(1);
        self.entries.push(Entry { number, len, shorter, n_shorter, jump });
        found
    }

    fn entry(&self, found: Found) -> &Entry {
        &self.entries[found.0 as usize]
    }

    fn child(&self, node: usize, byte: u8) -> Option<usize> {
        let &[first, end] = self.children.get(node..)?.first_chunk()?;
        let labels = self.labels.get(first as usize..end as usize)?;
        labels.binary_search(&byte).ok().map(|at| at.saturating_add(first as usize))
    }

    /// The node after one more byte.
    fn read(&self, mut node: usize, byte: u8) -> usize {
        loop {
            step(1);
            match self.child(node, byte) {
                Some(child) => return child,
                None if node == ROOT => return ROOT,
                None => node = self.fails[node] as usize,
            }
        }
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.entries.len() <= 1
    }

    /// The places at which texts of the set start, the last place first.
    ///
    /// Each place comes with the longest text that starts there.
    pub fn find_all(&self, text: &[u8]) -> impl Iterator<Item = (usize, Found)> {
        let mut node = ROOT;
        text.iter().enumerate().rev().filter_map(move |(place, &byte)| {
            node = self.read(node, byte);
            Some((place, self.longest[node])).filter(|&(_, found)| found != NOTHING)
        })
    }

    /// The number of a text.
    pub fn number(&self, found: Found) -> u32 {
        self.entry(found).number
    }

    /// Bytes of a text.
    pub fn len(&self, found: Found) -> usize {
        self.entry(found).len as usize
    }

    /// The longest text of at most `most` bytes that starts as this one does.
    ///
    /// The text itself if it is short enough.
    pub fn cut_to(&self, mut found: Found, most: usize) -> Option<Found> {
        while self.len(found) > most {
            step(1);
            let Entry { shorter, jump, .. } = *self.entry(found);
            found = if self.len(jump) > most { jump } else { shorter };
        }
        Some(found).filter(|&found| found != NOTHING)
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        const NODE: usize = size_of::<u8>() + 2 * size_of::<u32>() + size_of::<Found>();
        let nodes = self.labels.capacity().saturating_mul(NODE);
        nodes.saturating_add(self.entries.capacity().saturating_mul(size_of::<Entry>()))
    }
}

/// The number of a node or an entry, below 2^32: see [`Automaton::new`].
fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::step_count;
    use super::*;

    fn automaton(texts: &[&[u8]]) -> Automaton {
        Automaton::new(texts.iter().copied().zip(0..).collect(), "the test").unwrap()
    }

    #[test]
    fn all_texts_are_found_where_they_start() {
        let texts: [&[u8]; 8] = [b"a", b"ab", b"abc", b"bc", b"cab", b"abcabca", b"xb", b"\xff"];
        let automaton = automaton(&texts);
        let text = b"abcabcabcxbc\xffab";
        let mut n = 0;
        for (place, longest) in automaton.find_all(text) {
            let rest = &text[place..];
            for most in 0..9 {
                let expected = texts.iter().filter(|it| it.len() <= most && rest.starts_with(it));
                let expected = expected.max_by_key(|it| it.len());
                let found = automaton.cut_to(longest, most);
                assert_eq!(
                    found.map(|found| texts[automaton.number(found) as usize]),
                    expected.copied(),
                    "{place} {most}"
                );
                assert_eq!(found.map(|found| automaton.len(found)), expected.map(|it| it.len()));
            }
            n += 1;
        }
        let starts = |place: &usize| texts.iter().any(|it| text[*place..].starts_with(it));
        assert_eq!(n, (0..text.len()).filter(starts).count());
        assert!(super::Automaton::new(Vec::new(), "the test").unwrap().is_empty());
    }

    #[test]
    fn few_steps_lead_to_any_shorter_text() {
        let longest = [b'a'; 1009];
        let texts: Vec<&[u8]> = (1..=longest.len()).map(|len| &longest[..len]).collect();
        let automaton = automaton(&texts);
        let (_, found) = automaton.find_all(&longest).last().unwrap();
        for most in 1..=longest.len() {
            let (cut, steps) = step_count::of(|| automaton.cut_to(found, most).unwrap());
            assert_eq!(automaton.len(cut), most);
            assert!(steps < 30, "{steps} steps to {most}");
        }
    }
}
