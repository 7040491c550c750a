//! One answer, held to a grammar.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Grammar;
use super::index::TokenIndex;
use super::matcher::Matcher;
use super::stacks::Overflow;
use crate::llm::Error;
use crate::llm::sampling::{Candidate, Sampler, TokenMask};

/// The name of a constraint's memory in errors.
const WHAT: &str = "the tokens that a grammar allows";

/// The start of the part of an answer that a grammar holds, as llama.cpp's `grammar_lazy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The whole answer.
    Start,
    /// This text, wherever it is in the answer. The grammar begins with the text.
    Text(String),
    /// This text at the start of the answer. The grammar begins with the text.
    StartingText(String),
    /// This token. The grammar begins with the token.
    Token(u32),
}

/// The reason for which no token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The logit of the chosen token is NaN or infinity.
    NotFinite,
    /// The answer is complete, and no token ends it.
    Complete,
    /// The grammar goes on with characters that no token of the model has.
    NoToken,
    /// The stacks of the grammar are too many.
    Overflow(Overflow),
}

impl Halt {
    /// The error of an answer that ends so.
    pub fn error(self) -> Error {
        match self {
            Halt::Overflow(overflow) => overflow.error(),
            Halt::NotFinite | Halt::Complete | Halt::NoToken => Error::InvalidConfig {
                what: "the grammar goes on with a character that no token of the model has".into(),
            },
        }
    }
}

impl From<Overflow> for Halt {
    fn from(overflow: Overflow) -> Self {
        Halt::Overflow(overflow)
    }
}

/// Holds an answer to a grammar.
#[derive(Debug)]
pub struct Constraint {
    index: Arc<TokenIndex>,
    trigger: Trigger,
    /// Whether the trigger has not come yet.
    waits: bool,
    /// The end of the answer, as far as the trigger may begin there.
    tail: Vec<u8>,
    matcher: Matcher,
    /// The tokens that may come next.
    mask: TokenMask,
}

impl Constraint {
    /// A constraint for an empty answer.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the grammar begins in too many ways, [`Error::OutOfMemory`].
    pub fn try_new(
        grammar: Arc<Grammar>,
        trigger: Trigger,
        index: Arc<TokenIndex>,
    ) -> Result<Self, Error> {
        let mask = TokenMask::try_new(index.n_vocab(), WHAT)?;
        let matcher = Matcher::try_new(grammar, index.budget()).map_err(Overflow::error)?;
        let waits = trigger != Trigger::Start;
        Ok(Constraint { index, trigger, waits, tail: Vec::new(), matcher, mask })
    }

    /// Samples the next token of the answer, and appends it.
    ///
    /// Gives the candidates that the token was drawn from, too. As in llama.cpp, the sampler draws
    /// from all tokens first. Only if the grammar refuses the token, the sampler draws again, from
    /// those that the grammar allows.
    ///
    /// # Errors
    /// No token may come next.
    pub fn sample<'c>(
        &mut self,
        sampler: &mut Sampler,
        logits: &[f32],
        candidates: &'c mut [Candidate],
    ) -> Result<(u32, &'c mut [Candidate]), Halt> {
        let base = candidates.as_ptr().addr();
        let (token, drawn) = sampler.sample_from(logits, candidates);
        let start = (drawn.as_ptr().addr() - base) / size_of::<Candidate>();
        let place = start..start + drawn.len();
        if self.allows(token)? {
            self.accept(token)?;
            return Ok((token, &mut candidates[place]));
        }
        if !self.fill_mask()? {
            return Err(match !self.waits && self.matcher.may_end() {
                true => Halt::Complete,
                false => Halt::NoToken,
            });
        }
        let (token, drawn) = sampler.sample_among(logits, candidates, Some(&self.mask));
        self.accept(token)?;
        Ok((token, drawn))
    }

    /// Whether a token may come next.
    fn allows(&mut self, token: u32) -> Result<bool, Halt> {
        if self.waits {
            return Ok(match self.triggered(token) {
                Some(Triggered::Token) => self.matcher.allows(token, &self.index)?,
                Some(Triggered::Bytes(bytes)) => self.matcher.allows_bytes(&bytes)?,
                None => true,
            });
        }
        match self.index.is_end(token) {
            true => Ok(self.matcher.may_end()),
            false => Ok(self.matcher.allows(token, &self.index)?),
        }
    }

    /// Finds the tokens that may come next; returns whether there is one.
    fn fill_mask(&mut self) -> Result<bool, Halt> {
        if !self.waits {
            return Ok(self.matcher.fill_mask(&self.index, &mut self.mask)?);
        }
        // A token that completes the trigger may go on in a way that the grammar refuses.
        for token in 0..self.index.n_vocab() as u32 {
            let is_allowed = self.allows(token)?;
            self.mask.set(token, is_allowed);
        }
        Ok(!self.mask.is_empty())
    }

    /// Appends a token that may come next.
    fn accept(&mut self, token: u32) -> Result<(), Halt> {
        let is_allowed = if !self.waits {
            self.index.is_end(token) || self.matcher.accept(token, &self.index)?
        } else {
            match self.triggered(token) {
                Some(triggered) => {
                    self.waits = false;
                    self.tail = Vec::new();
                    match triggered {
                        Triggered::Token => self.matcher.accept(token, &self.index)?,
                        Triggered::Bytes(bytes) => self.matcher.accept_bytes(&bytes)?,
                    }
                }
                None => {
                    self.remember(token);
                    true
                }
            }
        };
        // The mask and the answer cannot differ.
        if is_allowed { Ok(()) } else { Err(Halt::NoToken) }
    }

    /// What the grammar begins with, if the trigger comes with this token.
    fn triggered(&self, token: u32) -> Option<Triggered> {
        let (text, at_start) = match &self.trigger {
            Trigger::Token(trigger) => return (*trigger == token).then_some(Triggered::Token),
            Trigger::Start => return None,
            Trigger::Text(text) => (text.as_bytes(), false),
            Trigger::StartingText(text) => (text.as_bytes(), true),
        };
        let mut bytes = self.tail.clone();
        bytes.extend_from_slice(self.index.bytes(token));
        let at = match at_start {
            true => bytes.starts_with(text).then_some(0),
            false => bytes.windows(text.len()).position(|window| window == text),
        };
        Some(Triggered::Bytes(bytes.split_off(at?)))
    }

    /// Remembers the bytes of a token before the trigger, as far as the trigger may begin there.
    fn remember(&mut self, token: u32) {
        self.tail.extend_from_slice(self.index.bytes(token));
        match &self.trigger {
            Trigger::Text(text) => {
                let surplus = (self.tail.len() + 1).saturating_sub(text.len());
                self.tail.drain(..surplus.min(self.tail.len()));
            }
            // A start that is another one stays another one.
            Trigger::StartingText(text) => self.tail.truncate(text.len()),
            Trigger::Start | Trigger::Token(_) => self.tail.clear(),
        }
    }
}

/// What the grammar begins with.
enum Triggered {
    /// The token itself.
    Token,
    /// The trigger's text, and the rest of the token.
    Bytes(Vec<u8>),
}
