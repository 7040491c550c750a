//! The types of the scheduler's interface: requests, updates, counters, slots.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::probs::TokenProbs;
use crate::llm::Error;
use crate::llm::grammar::{Grammar, Trigger};
use crate::llm::sampling::{Breakers, SamplingConfig};

/// The name of a request, unique in its scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

impl RequestId {
    /// The number: 1 for a scheduler's first request, if it was not set otherwise.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A prompt, and what is asked of its continuation.
#[derive(Clone, Debug)]
pub struct Request {
    /// The whole prompt, with the token that begins a text.
    pub tokens: Vec<u32>,
    /// Settings of sampling. The seed is decided.
    pub sampling: SamplingConfig,
    /// DRY's sequence breakers.
    pub breakers: Option<Breakers>,
    /// Biases of logits, beside those of `sampling`, of any number.
    ///
    /// Negative infinity bans a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// The grammar of the answer.
    pub constraint: Option<Constrained>,
    /// Tokens to generate, at most. `usize::MAX`: until the context is full.
    ///
    /// With 0, the prompt is processed and cached, and nothing is generated.
    pub max_tokens: usize,
    /// Whether the tokens that end a generation are banned, as llama-server's `ignore_eos` does.
    pub ignore_end: bool,
    /// Stop strings. An empty one never matches.
    pub stop: Vec<String>,
    /// Number of most probable tokens to report with each token. 0: no probabilities.
    pub n_probs: usize,
    /// Whether probabilities are those after the sampler chain.
    ///
    /// Otherwise they are the softmax of the raw logits.
    pub post_sampling_probs: bool,
    /// Whether a cached prefix may be used.
    pub cache_prompt: bool,
    /// Control tokens whose names belong to the text of the answer.
    ///
    /// All others add nothing to the text.
    pub shown: Vec<u32>,
}

/// The grammar that holds an answer, or the end of it.
#[derive(Clone, Debug)]
pub struct Constrained {
    /// The grammar.
    pub grammar: Arc<Grammar>,
    /// Where the part of the answer begins that the grammar holds.
    pub trigger: Trigger,
}

/// News of a request.
///
/// The order: [`Update::Started`], one or more [`Update::Prefill`], [`Update::Token`] for each
/// token, and [`Update::Finished`]. Or [`Update::Failed`] at any point, as the last one.
#[derive(Debug)]
pub enum Update<'a> {
    /// The request left the queue.
    Started {
        /// The number of the slot.
        slot: usize,
        /// Tokens of the prompt that are cached.
        n_cached: usize,
    },
    /// A chunk of the prompt was processed.
    Prefill {
        /// Tokens of the prompt that are processed, cached ones included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was generated; the token that ends the answer comes too.
    Token {
        /// The token.
        token: u32,
        /// The next text of the answer, in whole characters.
        ///
        /// Empty while the text is held back: a part of a character, or the possible start of a
        /// stop string.
        text: &'a str,
        /// The probabilities, if the request asks for them.
        probs: Option<&'a TokenProbs>,
    },
    /// The answer is complete.
    Finished(Finished),
    /// The request ended with an error.
    Failed(Error),
}

/// The end of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The rest of the text, which was held back.
    pub text: String,
    /// The reason for the end.
    pub stop: Stop,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Tokens of the prompt that were cached.
    pub n_cached: usize,
    /// Tokens generated, with the token that ended the answer.
    pub n_generated: usize,
    /// The last tokens that added nothing to the answer: they belong to the stop string.
    pub n_dropped: usize,
    /// From the start of the request to its first token, in µs.
    pub prompt_us: u64,
    /// From the first token to the last, in µs: the time of `n_generated - 1` decode steps.
    pub generated_us: u64,
}

/// The reason for the end of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model gave a token that ends a generation.
    End,
    /// The number of tokens asked for is reached.
    MaxTokens,
    /// The text holds the stop string of this number.
    ///
    /// Neither the match nor later text is part of the answer. Of several matches, the one that
    /// ends first counts; of those, the longest.
    Word(usize),
    /// Prompt and answer have as many tokens as the context has positions.
    ContextFull,
}

/// The reason for refusing a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// As many requests are waiting as may wait.
    QueueFull,
    /// The prompt leaves no position for an answer.
    ContextFull {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Positions of the context.
        n_ctx: usize,
    },
    /// The request makes no sense ([`Error::InvalidConfig`]), or its memory is not there
    /// ([`Error::OutOfMemory`]).
    Refused(Error),
}

impl From<Error> for SubmitError {
    fn from(error: Error) -> Self {
        SubmitError::Refused(error)
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::QueueFull => f.write_str("too many requests are waiting"),
            SubmitError::ContextFull { n_prompt, n_ctx } => {
                write!(f, "the prompt has {n_prompt} tokens, the context {n_ctx} positions")
            }
            SubmitError::Refused(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SubmitError {}

/// A slot: one of the sequences that share forward passes.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotStatus {
    /// The number of the slot.
    pub slot: usize,
    /// Positions of the slot's context.
    pub n_ctx: usize,
    /// Tokens of the slot's text, which stays after its request.
    pub n_tokens: usize,
    /// The running request.
    pub request: Option<RequestStatus>,
}

/// A running request.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestStatus {
    /// The request.
    pub id: RequestId,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Tokens of the prompt that were cached.
    pub n_cached: usize,
    /// Tokens of the prompt that were processed, without the cached ones.
    pub n_processed: usize,
    /// Tokens generated so far.
    pub n_generated: usize,
    /// Tokens to generate, at most.
    pub max_tokens: usize,
    /// Settings of sampling.
    pub sampling: SamplingConfig,
}

/// Sums over all requests so far, under llama-server's names for `GET /metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tokens of prompts that were processed, without cached ones.
    pub prompt_tokens_total: u64,
    /// Tokens of prompts that were cached.
    pub prompt_tokens_cached_total: u64,
    /// Time of the processing of prompts, summed over the requests, in µs.
    pub prompt_us_total: u64,
    /// Tokens generated.
    pub tokens_predicted_total: u64,
    /// Decode steps: tokens generated, without the first one of each request.
    ///
    /// The logits of the first one come with the prompt's last chunk.
    pub decode_steps_total: u64,
    /// Time of the decode steps, summed over the requests, in µs.
    pub tokens_predicted_us_total: u64,
    /// Forward passes.
    pub n_decode_total: u64,
    /// Sequences of all passes; divided by the passes: `n_busy_slots_per_decode`.
    pub n_busy_slots_total: u64,
    /// The most tokens that the text of a slot ever had.
    pub n_tokens_max: u64,
}

impl Counters {
    /// What was added since an earlier reading; `n_tokens_max` stays.
    pub fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            prompt_tokens_total: self.prompt_tokens_total - earlier.prompt_tokens_total,
            prompt_tokens_cached_total: self.prompt_tokens_cached_total
                - earlier.prompt_tokens_cached_total,
            prompt_us_total: self.prompt_us_total - earlier.prompt_us_total,
            tokens_predicted_total: self.tokens_predicted_total - earlier.tokens_predicted_total,
            decode_steps_total: self.decode_steps_total - earlier.decode_steps_total,
            tokens_predicted_us_total: self.tokens_predicted_us_total
                - earlier.tokens_predicted_us_total,
            n_decode_total: self.n_decode_total - earlier.n_decode_total,
            n_busy_slots_total: self.n_busy_slots_total - earlier.n_busy_slots_total,
            n_tokens_max: self.n_tokens_max,
        }
    }

    /// The sums over the requests of two schedulers.
    pub fn plus(&self, other: &Counters) -> Counters {
        Counters {
            prompt_tokens_total: self.prompt_tokens_total + other.prompt_tokens_total,
            prompt_tokens_cached_total: self.prompt_tokens_cached_total
                + other.prompt_tokens_cached_total,
            prompt_us_total: self.prompt_us_total + other.prompt_us_total,
            tokens_predicted_total: self.tokens_predicted_total + other.tokens_predicted_total,
            decode_steps_total: self.decode_steps_total + other.decode_steps_total,
            tokens_predicted_us_total: self.tokens_predicted_us_total
                + other.tokens_predicted_us_total,
            n_decode_total: self.n_decode_total + other.n_decode_total,
            n_busy_slots_total: self.n_busy_slots_total + other.n_busy_slots_total,
            n_tokens_max: self.n_tokens_max.max(other.n_tokens_max),
        }
    }

    /// Tokens of prompts a second, for each request; 0 without any.
    pub fn prompt_tokens_per_s(&self) -> f64 {
        per_second(self.prompt_tokens_total, self.prompt_us_total)
    }

    /// Generated tokens a second, for each request; 0 without any.
    pub fn predicted_tokens_per_s(&self) -> f64 {
        per_second(self.decode_steps_total, self.tokens_predicted_us_total)
    }
}

fn per_second(n: u64, us: u64) -> f64 {
    if us == 0 { 0.0 } else { n as f64 * 1e6 / us as f64 }
}
