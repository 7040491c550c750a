//! Probabilities of a generated token and of the most probable ones.

use alloc::vec::Vec;

use crate::llm::sampling::{Candidate, candidate_probabilities, logit_probabilities};
use crate::llm::{Error, with_capacity};

/// The probabilities at a token: natural logarithms.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenProbs {
    /// The token.
    pub token: u32,
    /// Its probability; `f32::MIN` stands for 0.
    pub logprob: f32,
    /// The most probable tokens with their probabilities, the best first.
    pub top: Vec<(u32, f32)>,
    /// Number of tokens in `top`, at most.
    n: usize,
    /// Whether the probabilities are those after the sampler chain.
    is_post_sampling: bool,
}

impl TokenProbs {
    /// The probabilities at `token`; `top` has the best first.
    pub fn new(token: u32, logprob: f32, top: Vec<(u32, f32)>) -> Self {
        TokenProbs { token, logprob, n: top.len(), top, is_post_sampling: false }
    }

    /// Room for `n` tokens.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn try_new(n: usize, is_post_sampling: bool) -> Result<Self, Error> {
        let top = with_capacity(n, "the probabilities of tokens")?;
        Ok(TokenProbs { token: 0, logprob: 0.0, top, n, is_post_sampling })
    }

    /// Whether the probabilities are those after the sampler chain.
    pub(super) fn is_post_sampling(&self) -> bool {
        self.is_post_sampling
    }

    /// Takes the softmax of the raw logits. `scratch` is as long as `logits`.
    pub(super) fn set_by_logits(&mut self, token: u32, logits: &[f32], scratch: &mut [Candidate]) {
        self.token = token;
        self.logprob = logit_probabilities(logits, token, self.n, scratch, &mut self.top);
    }

    /// Takes the candidates that the token was drawn from.
    pub(super) fn set_by_candidates(&mut self, token: u32, candidates: &mut [Candidate]) {
        self.token = token;
        self.logprob = candidate_probabilities(candidates, token, self.n, &mut self.top);
    }
}
