//! Probabilities of tokens, in the shapes of OpenAI and of llama-server.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use crate::llm::scheduler::TokenProbs;
use crate::llm::tokenizer::Tokenizer;

use super::super::request::tokens::push_piece;

/// A token and its probability, as a logarithm or after the sampler chain.
#[derive(Debug, Serialize)]
pub struct Candidate {
    id: u32,
    token: String,
    bytes: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprob: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prob: Option<f32>,
}

/// A generated token, with the most probable ones.
#[derive(Debug, Serialize)]
pub struct Entry {
    #[serde(flatten)]
    chosen: Candidate,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<Candidate>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_probs: Option<Vec<Candidate>>,
}

/// How probabilities are reported.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The number of most probable tokens with each token.
    pub n_top: usize,
    /// Whether probabilities are those after the sampler chain.
    pub is_post_sampling: bool,
}

impl Form<'_> {
    fn candidate(&self, token: u32, logprob: f32, with_name: bool) -> Candidate {
        let mut bytes = Vec::new();
        match with_name {
            true => push_piece(self.tokenizer, token, &mut bytes),
            // A control token adds no text to the answer.
            false => self.tokenizer.push_bytes(token, &mut bytes),
        }
        let prob = libm::expf(logprob);
        // JSON has no infinity.
        let logprob = logprob.max(f32::MIN);
        Candidate {
            id: token,
            token: valid_text(&bytes).into(),
            bytes,
            logprob: (!self.is_post_sampling).then_some(logprob),
            prob: self.is_post_sampling.then_some(prob),
        }
    }

    /// The generated tokens.
    pub fn entries(&self, probs: &[TokenProbs]) -> Vec<Entry> {
        let entry = |probs: &TokenProbs| {
            let best = probs.top.iter().take(self.n_top);
            // After the sampler chain, excluded tokens are left out.
            let is_there =
                |(_, logprob): &&(u32, f32)| !self.is_post_sampling || libm::expf(*logprob) > 0.0;
            let top = best.filter(is_there);
            let top = top.map(|&(token, logprob)| self.candidate(token, logprob, true)).collect();
            let (top_logprobs, top_probs) = match self.is_post_sampling {
                false => (Some(top), None),
                true => (None, Some(top)),
            };
            let chosen = self.candidate(probs.token, probs.logprob, false);
            Entry { chosen, top_logprobs, top_probs }
        };
        probs.iter().map(entry).collect()
    }
}

/// The valid UTF-8 at the start: a token may hold a part of a character.
fn valid_text(bytes: &[u8]) -> &str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            str::from_utf8(valid).unwrap_or_default()
        }
    }
}

/// `logprobs` of a chat.
#[derive(Debug, Serialize)]
pub struct ChatLogprobs {
    content: Vec<Entry>,
}

impl ChatLogprobs {
    /// The probabilities of tokens.
    pub fn new(form: &Form<'_>, probs: &[TokenProbs]) -> Self {
        ChatLogprobs { content: form.entries(probs) }
    }
}

/// `logprobs` of OpenAI's older API, and llama-server's `content`.
#[derive(Debug, Serialize)]
pub struct CompletionLogprobs {
    content: Vec<Entry>,
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// Null if only the chosen tokens are asked for.
    top_logprobs: Option<Vec<BTreeMap<String, f32>>>,
    /// In characters from the start of the answer.
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// The probabilities of tokens. `offset` is the place of the first one, then of the next one.
    pub fn new(form: &Form<'_>, probs: &[TokenProbs], offset: &mut usize) -> Self {
        let top = |probs: &TokenProbs| {
            let mut best = BTreeMap::new();
            for &(token, logprob) in probs.top.iter().take(form.n_top) {
                // Of tokens with the same text, the best one.
                let logprob = logprob.max(f32::MIN);
                best.entry(form.candidate(token, logprob, true).token).or_insert(logprob);
            }
            best
        };
        let content = form.entries(probs);
        let tokens: Vec<String> = content.iter().map(|entry| entry.chosen.token.clone()).collect();
        let place = |text: &String| {
            let place = *offset;
            *offset = place.saturating_add(text.chars().count());
            place
        };
        CompletionLogprobs {
            text_offset: tokens.iter().map(place).collect(),
            tokens,
            token_logprobs: probs.iter().map(|probs| probs.logprob.max(f32::MIN)).collect(),
            top_logprobs: (form.n_top > 0).then(|| probs.iter().map(top).collect()),
            content,
        }
    }
}
