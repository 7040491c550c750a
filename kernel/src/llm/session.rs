//! One text: its tokens, its state and its sampler.
//!
//! [`crate::llm::workspace`] runs sessions: `Session::prefill` and `Session::step` are there.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::llm::grammar::{Constraint, Halt};
use crate::llm::model::batch;
use crate::llm::plan::ContextOptions;
use crate::llm::sampling::{Candidate, Sampler};
use crate::llm::state::{KvMemory, State};
use crate::llm::{Error, with_capacity};

/// Positions that the first prompt leaves free in a context that shifts (llama.cpp's).
const LEAST_LEFT: usize = 4;

/// One text of a model.
///
/// [`Workspace::session`](crate::llm::workspace::Workspace::session) makes a session.
///
/// The tokens are the source of truth. The state holds the first [`Session::n_past`] tokens. The
/// rest is unprocessed, and goes through the model with the next pass.
#[derive(Debug)]
pub struct Session {
    pub(super) state: State,
    /// All tokens: first the processed ones, then the unprocessed ones.
    pub(super) tokens: Vec<u32>,
    sampler: Sampler,
    constraint: Option<Box<Constraint>>,
    context_shift: bool,
    /// Tokens at the start of the first prompt that a context shift keeps, at most.
    keep: usize,
    /// Tokens at the start of the first prompt that a context shift does keep.
    n_keep: usize,
    context_shifts: usize,
}

impl Session {
    pub(super) fn try_new(
        state: State,
        context: ContextOptions,
        keep: usize,
        sampler: Sampler,
    ) -> Result<Self, Error> {
        let tokens = with_capacity(state.n_ctx() + 1, "the text's tokens")?;
        Ok(Session {
            state,
            tokens,
            sampler,
            constraint: None,
            context_shift: context.context_shift,
            keep,
            n_keep: 0,
            context_shifts: 0,
        })
    }

    /// The tokens of the text.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of processed tokens: the tokens in the KV cache.
    pub fn n_past(&self) -> usize {
        self.state.len()
    }

    /// Tokens at the start of `tokens` that the cache may know: an upper bound for
    /// [`Workspace::take_prefix`](crate::llm::workspace::Workspace::take_prefix).
    pub fn known_prefix(&self, tokens: &[u32]) -> usize {
        self.state.known_prefix(tokens)
    }

    /// Number of unprocessed tokens.
    pub fn n_unprocessed(&self) -> usize {
        self.tokens.len() - self.state.len()
    }

    /// Positions of the context.
    pub fn n_ctx(&self) -> usize {
        self.state.n_ctx()
    }

    /// Positions that tokens may take without a context shift.
    pub fn n_usable(&self) -> usize {
        if self.context_shift { self.n_ctx() - LEAST_LEFT } else { self.n_ctx() }
    }

    /// Used positions that no context shift frees.
    pub fn n_used(&self) -> usize {
        if self.context_shift { self.n_keep } else { self.n_past() }
    }

    /// Tokens at the start of the first prompt that a context shift keeps, at most.
    pub fn keep(&self) -> usize {
        self.keep
    }

    /// Whether a full context shifts.
    pub fn can_shift(&self) -> bool {
        self.context_shift
    }

    /// Number of context shifts.
    pub fn context_shifts(&self) -> usize {
        self.context_shifts
    }

    /// Whether no token can be processed any more.
    pub fn is_full(&self) -> bool {
        !self.context_shift && self.state.len() == self.n_ctx()
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Replaces the sampler, and gives the text to the new one.
    pub fn set_sampler(&mut self, mut sampler: Sampler) {
        sampler.set_text(&self.tokens);
        self.sampler = sampler;
    }

    /// Forgets the text. The sampler's generator goes on where it is.
    pub fn clear(&mut self) {
        self.truncate(0);
        self.sampler.forget();
        self.n_keep = 0;
    }

    /// Keeps the first `n` tokens.
    ///
    /// The state keeps `n` positions, too, or none. It keeps none if a layer with a window has
    /// overwritten positions that the last token sees. Then the next pass processes all `n` tokens
    /// again.
    pub fn truncate(&mut self, n: usize) {
        if n < self.tokens.len() {
            self.tokens.truncate(n);
            self.sampler.set_text(&self.tokens);
        }
        self.state.truncate(n);
        self.n_keep = self.n_keep.min(n);
    }

    /// Appends tokens, unprocessed. With the first tokens of a text, the sampler restarts.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if the tokens do not fit, [`Error::OutOfMemory`]; the text is as
    /// before.
    pub fn append(&mut self, tokens: &[u32]) -> Result<(), Error> {
        let prompt = self.n_used() + self.n_unprocessed() + tokens.len();
        if prompt > self.n_usable() {
            return Err(Error::ContextFull { prompt, n_ctx: self.n_usable() });
        }
        // Generated tokens allocate nothing: there is one more than positions at most.
        let room = (self.n_ctx() + 1).max(self.tokens.len() + tokens.len());
        let more = room - self.tokens.len();
        let asked = (more * size_of::<u32>()) as u64;
        let no_memory = |_| Error::OutOfMemory { what: "the text's tokens", asked };
        self.tokens.try_reserve_exact(more).map_err(no_memory)?;
        if self.is_empty() {
            self.sampler.restart();
            self.n_keep = tokens.len().min(self.keep);
        }
        self.tokens.extend_from_slice(tokens);
        tokens.iter().for_each(|&token| self.sampler.accept(token));
        Ok(())
    }

    /// Makes a prompt the text, whose first tokens the text holds already, with a new sampler.
    ///
    /// # Errors
    /// As [`Session::append`].
    ///
    /// # Panics
    /// The text is longer than the prompt.
    pub(super) fn begin(&mut self, prompt: &[u32], sampler: Sampler) -> Result<(), Error> {
        debug_assert!(prompt.starts_with(&self.tokens), "another text");
        self.set_sampler(sampler);
        self.append(&prompt[self.tokens.len()..])?;
        self.n_keep = prompt.len().min(self.keep);
        Ok(())
    }

    /// Number of tokens for the next pass, which may shift the context first.
    pub(super) fn n_next(&self) -> usize {
        let left = self.n_ctx() - self.state.len();
        let room = match self.context_shift {
            false => left,
            // The last position stays free, and a shift frees half of the positions behind
            // `n_keep`.
            true if left > 1 => left - 1,
            true => (self.state.len() - self.n_keep) / 2,
        };
        self.n_unprocessed().min(room).min(batch(self.n_ctx()))
    }

    /// Prepares a pass of up to `limit` tokens, and returns their number.
    ///
    /// A full context shifts. A processed text gives its last token again. Fewer tokens are
    /// prepared if there are pages of the KV cache for fewer.
    ///
    /// # Errors
    /// [`Error::OutOfPages`] if there is a page for none. Nothing of the text is lost.
    pub(super) fn begin_pass(
        &mut self,
        memory: &mut KvMemory,
        limit: usize,
        shift: impl FnOnce(&mut State, &mut KvMemory, usize) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        if self.n_unprocessed() == 0 {
            assert!(!self.is_empty(), "a session without tokens");
            self.state.truncate(self.tokens.len() - 1);
        }
        let n = self.n_next();
        if self.context_shift && self.state.len() + 1 == self.n_ctx() {
            let n_dropped = shift(&mut self.state, memory, self.n_keep)?;
            self.tokens.drain(self.n_keep..self.n_keep + n_dropped);
            self.context_shifts += 1;
        }
        assert!(n > 0, "a session whose context is full");
        match self.state.reserve(memory, n.min(limit)) {
            0 => Err(Error::OutOfPages),
            n => Ok(n),
        }
    }

    /// Holds the tokens sampled from now on to a grammar, or to none.
    pub fn set_constraint(&mut self, constraint: Option<Constraint>) {
        self.constraint = constraint.map(Box::new);
    }

    /// Samples the next token and appends it.
    ///
    /// Gives the candidates that the token was drawn from, too.
    ///
    /// # Errors
    /// The token's logit is not finite, or the grammar allows no token.
    pub(super) fn sample<'c>(
        &mut self,
        logits: &[f32],
        candidates: &'c mut [Candidate],
    ) -> Result<(u32, &'c mut [Candidate]), Halt> {
        let (token, drawn_from) = match &mut self.constraint {
            None => self.sampler.sample_from(logits, candidates),
            Some(constraint) => constraint.sample(&mut self.sampler, logits, candidates)?,
        };
        if !logits[token as usize].is_finite() {
            return Err(Halt::NotFinite);
        }
        self.sampler.accept(token);
        self.tokens.push(token);
        Ok((token, drawn_from))
    }
}
