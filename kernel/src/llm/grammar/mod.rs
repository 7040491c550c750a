//! Grammars: which tokens may continue an answer, by a context-free grammar in GBNF.
//!
//! GBNF is llama.cpp's form of BNF (`grammars/README.md` there); the meaning here is the same.
//! [`Grammar::parse`] reads a grammar. A [`Constraint`] holds one answer to it: it follows the
//! tokens of the answer, and the sampler chooses among the tokens that the grammar allows.
//!
//! A grammar has rules. A rule has alternatives, each a list of [`Element`]s. The state of an
//! answer is a set of stacks: what may follow, for each way to read the answer (`stacks.rs`).
//! `matcher.rs` moves the stacks over the bytes of tokens. `index.rs` sorts the vocabulary, so that
//! tokens with a common start are tried at once.

#![forbid(unsafe_code)]

mod constraint;
mod index;
mod left_recursion;
mod matcher;
mod parse;
mod stacks;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

pub use constraint::{Constraint, Halt, Trigger};
pub use index::TokenIndex;
use matcher::Matcher;
use stacks::Overflow;

use crate::llm::Error;
use crate::llm::tokenizer::Tokenizer;

/// The most visits of stacks for a whole text.
const READ_BUDGET: u64 = 1 << 23;

/// A part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    /// The end of the rule.
    End,
    /// The end of an alternative; another one follows.
    Or,
    /// A rule, by its number.
    Rule(u32),
    /// A character.
    Char(u32),
    /// Any character.
    Any,
    /// A character of `len` ranges from `start` on, or a character of none of them.
    Set { is_negated: bool, len: u16, start: u32 },
    /// A token.
    Token(u32),
    /// Any other token.
    NotToken(u32),
}

impl Element {
    /// Whether an alternative ends here.
    fn is_end(self) -> bool {
        matches!(self, Element::End | Element::Or)
    }
}

/// A grammar: a set of rules, of which one is named `root`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar {
    /// All rules, one behind the other.
    elements: Vec<Element>,
    /// The place of each rule's first element.
    rules: Vec<u32>,
    /// First and last character of each range.
    ranges: Vec<(u32, u32)>,
    root: u32,
}

impl Grammar {
    /// Reads a grammar in GBNF, with the rule `root`.
    ///
    /// `tokenizer` finds the tokens that the grammar names (`<name>`).
    ///
    /// # Errors
    /// The grammar is malformed or too large, or a rule calls itself before any character.
    pub fn parse(text: &str, tokenizer: &Tokenizer) -> Result<Grammar, GrammarError> {
        let grammar = parse::parse(text, tokenizer)?;
        left_recursion::check(&grammar, text)?;
        Ok(grammar)
    }

    /// Whether a text is one of the grammar.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the grammar can read the text in too many ways,
    /// [`Error::OutOfMemory`].
    pub fn reads(self: &Arc<Self>, text: &[u8]) -> Result<bool, Error> {
        let read = || {
            let mut matcher = Matcher::try_new(self.clone(), READ_BUDGET)?;
            Ok((text.is_empty() || matcher.accept_bytes(text)?) && matcher.may_end())
        };
        read().map_err(Overflow::error)
    }

    fn element(&self, position: u32) -> Element {
        self.elements[position as usize]
    }

    /// Whether an element is a character, or a set that contains it.
    fn matches(&self, element: Element, character: u32) -> bool {
        match element {
            Element::Char(one) => one == character,
            Element::Any => true,
            Element::Set { is_negated, len, start } => {
                let is_in = |&(first, last): &(u32, u32)| first <= character && character <= last;
                self.set(start, len).iter().any(is_in) != is_negated
            }
            _ => false,
        }
    }

    /// The ranges of a set.
    fn set(&self, start: u32, len: u16) -> &[(u32, u32)] {
        &self.ranges[start as usize..][..usize::from(len)]
    }
}

/// The reason for refusing a grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrammarError {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// The problem.
    pub problem: String,
}

impl GrammarError {
    /// A problem at a byte of the grammar's text.
    fn at(text: &str, byte: usize, problem: impl Into<String>) -> Self {
        let before = &text[..text.floor_char_boundary(byte)];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[start..].chars().count() + 1;
        GrammarError { line, column, problem: problem.into() }
    }
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.problem)
    }
}
