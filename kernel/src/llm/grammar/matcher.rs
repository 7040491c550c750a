//! The place of an answer in its grammar, and the tokens that may come next.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::index::TokenIndex;
use super::stacks::{DONE, Overflow, Stacks};
use super::{Element, Grammar};
use crate::llm::sampling::TokenMask;

/// The first bytes of a character in UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Partial {
    /// The bits so far.
    value: u32,
    /// Bytes that are missing.
    n_missing: u32,
}

impl Partial {
    /// With another byte; `None` if this is not UTF-8.
    fn with(self, byte: u8) -> Option<Partial> {
        let (value, n_missing) = match (self.n_missing, byte) {
            (0, 1..=0x7f) => (byte, 0),
            (0, 0xc2..=0xdf) => (byte & 0x1f, 1),
            (0, 0xe0..=0xef) => (byte & 0x0f, 2),
            (0, 0xf0..=0xf4) => (byte & 0x07, 3),
            (1.., 0x80..=0xbf) => (byte & 0x3f, self.n_missing - 1),
            _ => return None,
        };
        let before = if self.n_missing == 0 { 0 } else { self.value << 6 };
        let value = before | u32::from(value);
        // Characters have one form, and some numbers are none (Unicode, table 3-7).
        let is_one = match (self.n_missing, n_missing) {
            (2, 1) => value >= 0x20 && !(0x360..=0x37f).contains(&value),
            (3, 2) => (0x10..=0x10f).contains(&value),
            _ => true,
        };
        is_one.then_some(Partial { value, n_missing })
    }

    /// The first and the last character that these bytes may begin.
    fn characters(self) -> (u32, u32) {
        let bits = 6 * self.n_missing;
        let low = self.value << bits;
        let least = match (low, self.n_missing) {
            (0, 2) => 1 << 11,
            (0, 3) => 1 << 16,
            _ => low,
        };
        (least, low | ((1 << bits) - 1))
    }
}

/// The stacks behind the first bytes of a token.
#[derive(Clone, Debug)]
struct Frame {
    /// Their place in the list of stacks.
    stacks: Range<usize>,
    /// Nodes of stacks so far.
    n_nodes: usize,
    partial: Partial,
}

/// Follows an answer by its grammar.
#[derive(Debug)]
pub struct Matcher {
    grammar: Arc<Grammar>,
    /// The most visits of stacks for one token.
    budget: u64,
    stacks: Stacks,
    /// Lists of stacks: that of the answer, then those of the frames.
    lists: Vec<u32>,
    /// The answer, then the bytes of a token that is tried.
    frames: Vec<Frame>,
}

impl Matcher {
    /// An empty answer. A token may take `budget` visits of stacks.
    ///
    /// # Errors
    /// The grammar begins in too many ways.
    pub fn try_new(grammar: Arc<Grammar>, budget: u64) -> Result<Self, Overflow> {
        let mut stacks = Stacks::try_new()?;
        stacks.set_budget(budget);
        stacks.begin_search();
        let mut lists = Vec::new();
        stacks.find_start(&grammar, &mut lists)?;
        let partial = Partial::default();
        let answer = Frame { stacks: 0..lists.len(), n_nodes: stacks.len(), partial };
        Ok(Matcher { grammar, budget, stacks, lists, frames: Vec::from([answer]) })
    }

    /// Whether the answer may end here.
    pub fn may_end(&self) -> bool {
        self.frames[0].partial.n_missing == 0 && self.stacks_of_answer().contains(&DONE)
    }

    /// Nodes of stacks in use.
    #[cfg(test)]
    pub fn n_nodes(&self) -> usize {
        self.stacks.len()
    }

    fn stacks_of_answer(&self) -> &[u32] {
        &self.lists[self.frames[0].stacks.clone()]
    }

    /// Whether an element of the grammar that is a token allows this one.
    fn allows_as_token(&self, token: u32) -> bool {
        let allows = |&stack: &u32| is_token(self.stacks.top(&self.grammar, stack), token);
        self.stacks_of_answer().iter().any(allows)
    }

    /// Whether the bytes may come next.
    ///
    /// # Errors
    /// The stacks are too many.
    pub fn allows_bytes(&mut self, bytes: &[u8]) -> Result<bool, Overflow> {
        self.stacks.set_budget(self.budget);
        self.go_back(0);
        Ok(self.go_over(bytes)? == bytes.len() && self.may_pause())
    }

    /// Whether a token may come next, which ends no generation.
    ///
    /// # Errors
    /// The stacks are too many.
    pub fn allows(&mut self, token: u32, index: &TokenIndex) -> Result<bool, Overflow> {
        if self.allows_as_token(token) {
            return Ok(true);
        }
        let bytes = index.bytes(token);
        Ok(!bytes.is_empty() && self.allows_bytes(bytes)?)
    }

    /// Puts all tokens into `mask` that may come next, and takes the others out.
    ///
    /// The tokens that end a generation are among them if the answer may end. Returns whether there
    /// is any token.
    ///
    /// # Errors
    /// The stacks are too many.
    pub fn fill_mask(
        &mut self,
        index: &TokenIndex,
        mask: &mut TokenMask,
    ) -> Result<bool, Overflow> {
        mask.clear();
        self.stacks.set_budget(self.budget);
        self.go_back(0);
        for i in self.frames[0].stacks.clone() {
            match self.stacks.top(&self.grammar, self.lists[i]) {
                Some(Element::Token(token)) => mask.set(token, true),
                Some(Element::NotToken(token)) => {
                    let is_there = mask.contains(token);
                    (0..index.n_vocab() as u32).for_each(|other| mask.set(other, true));
                    mask.set(token, is_there);
                }
                _ => {}
            }
        }
        // Bytes of the token before that the grammar allows, and the first one it does not.
        let mut n_allowed = 0;
        let mut refused = usize::MAX;
        for &(token, n_common) in index.sorted() {
            let n_common = n_common as usize;
            if n_common > refused {
                continue;
            }
            self.go_back(n_common.min(n_allowed));
            let bytes = index.bytes(token);
            n_allowed = self.frames.len() - 1 + self.go_over(&bytes[self.frames.len() - 1..])?;
            refused = if n_allowed < bytes.len() { n_allowed } else { usize::MAX };
            if n_allowed == bytes.len() && self.may_pause() {
                mask.set(token, true);
            }
        }
        self.go_back(0);
        for &token in index.end_tokens() {
            mask.set(token, self.may_end());
        }
        Ok(!mask.is_empty())
    }

    /// Appends a token to the answer, which ends no generation.
    ///
    /// Returns whether the grammar allows it. If not, the answer is as before.
    ///
    /// # Errors
    /// The stacks are too many.
    pub fn accept(&mut self, token: u32, index: &TokenIndex) -> Result<bool, Overflow> {
        self.advance(Some(token), index.bytes(token))
    }

    /// Appends bytes to the answer, as [`Matcher::accept`].
    ///
    /// # Errors
    /// The stacks are too many.
    pub fn accept_bytes(&mut self, bytes: &[u8]) -> Result<bool, Overflow> {
        self.advance(None, bytes)
    }

    fn advance(&mut self, token: Option<u32>, bytes: &[u8]) -> Result<bool, Overflow> {
        self.stacks.set_budget(self.budget);
        self.go_back(0);
        let goes_on = !bytes.is_empty() && self.go_over(bytes)? == bytes.len() && self.may_pause();
        let Frame { stacks, partial, .. } = self.frames[self.frames.len() - 1].clone();
        let from = self.lists.len();
        // The search of the last character found these already.
        if goes_on {
            self.lists.extend_from_within(stacks);
        } else {
            self.stacks.begin_search();
        }
        for i in self.frames[0].stacks.clone() {
            let stack = self.lists[i];
            if token.is_some_and(|token| is_token(self.stacks.top(&self.grammar, stack), token)) {
                self.stacks.find_behind(&self.grammar, stack, &mut self.lists)?;
            }
        }
        if self.lists.len() == from {
            self.go_back(0);
            return Ok(false);
        }
        self.lists.drain(..from);
        self.stacks.keep(&mut self.lists);
        self.lists.sort_unstable();
        self.lists.dedup();
        self.frames.truncate(1);
        let partial = if goes_on { partial } else { Partial::default() };
        self.frames[0] = Frame { stacks: 0..self.lists.len(), n_nodes: self.stacks.len(), partial };
        Ok(true)
    }

    /// Leaves the first `n` bytes of the token that is tried.
    fn go_back(&mut self, n: usize) {
        self.frames.truncate(n + 1);
        let Frame { stacks, n_nodes, .. } = &self.frames[n];
        self.lists.truncate(stacks.end);
        self.stacks.truncate(*n_nodes);
    }

    /// Appends bytes to the token that is tried, up to one that the grammar refuses.
    ///
    /// Returns the number of appended bytes.
    fn go_over(&mut self, bytes: &[u8]) -> Result<usize, Overflow> {
        for (n, &byte) in bytes.iter().enumerate() {
            if !self.go_on(byte)? {
                return Ok(n);
            }
        }
        Ok(bytes.len())
    }

    /// Appends a byte to the token that is tried; `false` if the grammar refuses it.
    fn go_on(&mut self, byte: u8) -> Result<bool, Overflow> {
        let Frame { stacks, partial, .. } = self.frames[self.frames.len() - 1].clone();
        let Some(partial) = partial.with(byte) else { return Ok(false) };
        self.stacks.spend(stacks.len())?;
        let stacks = if partial.n_missing > 0 {
            // A frame within a character has the stacks before that character.
            let may_begin = |&stack: &u32| self.may_begin(stack, partial);
            if !self.lists[stacks.clone()].iter().any(may_begin) {
                return Ok(false);
            }
            stacks
        } else {
            let start = self.lists.len();
            self.stacks.begin_search();
            for i in stacks {
                let stack = self.lists[i];
                let top = self.stacks.top(&self.grammar, stack);
                if top.is_some_and(|top| self.grammar.matches(top, partial.value)) {
                    self.stacks.find_behind(&self.grammar, stack, &mut self.lists)?;
                }
            }
            start..self.lists.len()
        };
        if stacks.is_empty() {
            return Ok(false);
        }
        self.frames.try_reserve(1).map_err(|_| Overflow::NoMemory)?;
        self.frames.push(Frame { stacks, n_nodes: self.stacks.len(), partial });
        Ok(true)
    }

    /// Whether the top of a stack may match a character with these first bytes.
    fn may_begin(&self, stack: u32, partial: Partial) -> bool {
        match self.stacks.top(&self.grammar, stack) {
            Some(Element::Set { is_negated: true, .. }) => true,
            top => self.overlaps(top, partial),
        }
    }

    /// Whether a token may end with the bytes so far.
    ///
    /// As in llama.cpp, a set that excludes some of the characters with these first bytes does not
    /// allow them at the end of a token.
    fn may_pause(&self) -> bool {
        let Frame { stacks, partial, .. } = &self.frames[self.frames.len() - 1];
        let overlaps =
            |&stack: &u32| self.overlaps(self.stacks.top(&self.grammar, stack), *partial);
        partial.n_missing == 0 || self.lists[stacks.clone()].iter().any(overlaps)
    }

    /// Whether an element allows some of the characters with these first bytes, and excludes none.
    fn overlaps(&self, element: Option<Element>, partial: Partial) -> bool {
        let (low, high) = partial.characters();
        match element {
            Some(Element::Any) => true,
            Some(Element::Char(one)) => low <= one && one <= high,
            Some(Element::Set { is_negated, len, start }) => {
                let meets = |&(first, last): &(u32, u32)| first <= high && low <= last;
                self.grammar.set(start, len).iter().any(meets) != is_negated
            }
            _ => false,
        }
    }
}

/// Whether an element is a token, and allows this one.
fn is_token(element: Option<Element>, token: u32) -> bool {
    match element {
        Some(Element::Token(one)) => one == token,
        Some(Element::NotToken(one)) => one != token,
        _ => false,
    }
}
