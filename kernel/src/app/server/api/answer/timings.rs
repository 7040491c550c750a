//! `timings`, `usage` and `prompt_progress`.

use serde::Serialize;

use crate::llm::scheduler::Finished;

/// The tokens and times of an answer so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens of the prompt that were cached.
    pub n_cached: usize,
    /// Tokens of the prompt that are processed, cached ones included.
    pub n_processed: usize,
    /// Tokens generated.
    pub n_generated: usize,
    /// From the start of the request to its first token, in µs.
    pub prompt_us: u64,
    /// From the first token to the last, in µs.
    pub generated_us: u64,
}

impl From<&Finished> for Counts {
    fn from(finished: &Finished) -> Self {
        Counts {
            n_cached: finished.n_cached,
            n_processed: finished.n_prompt,
            n_generated: finished.n_generated,
            prompt_us: finished.prompt_us,
            generated_us: finished.generated_us,
        }
    }
}

/// llama-server's `timings`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timings {
    cache_n: usize,
    prompt_n: usize,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: usize,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
}

impl From<Counts> for Timings {
    fn from(counts: Counts) -> Self {
        let ms = |us: u64| us as f64 / 1e3;
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let prompt_n = counts.n_processed.saturating_sub(counts.n_cached);
        // The first token costs no decode step: its logits come with the prompt.
        let n_steps = counts.n_generated.saturating_sub(1);
        let (prompt_ms, predicted_ms) = (ms(counts.prompt_us), ms(counts.generated_us));
        Timings {
            cache_n: counts.n_cached,
            prompt_n,
            prompt_ms,
            prompt_per_token_ms: ratio(prompt_ms, prompt_n as f64),
            prompt_per_second: ratio(1e3, prompt_ms) * prompt_n as f64,
            predicted_n: counts.n_generated,
            predicted_ms,
            predicted_per_token_ms: ratio(predicted_ms, n_steps as f64),
            predicted_per_second: ratio(1e3, predicted_ms) * n_steps as f64,
        }
    }
}

/// OpenAI's `usage`: numbers of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    completion_tokens: usize,
    prompt_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokens,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct PromptTokens {
    cached_tokens: usize,
}

impl Usage {
    /// Adds an answer. The prompt of several answers counts once.
    pub fn add(&mut self, n_prompt: usize, counts: Counts, is_first_of_prompt: bool) {
        let add = |sum: &mut usize, n: usize| *sum = sum.saturating_add(n);
        add(&mut self.completion_tokens, counts.n_generated);
        if is_first_of_prompt {
            add(&mut self.prompt_tokens, n_prompt);
            add(&mut self.prompt_tokens_details.cached_tokens, counts.n_cached);
        }
        self.total_tokens = self.completion_tokens.saturating_add(self.prompt_tokens);
    }
}

/// llama-server's `prompt_progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Tokens of the prompt.
    pub total: usize,
    /// Tokens of the prompt that were cached.
    pub cache: usize,
    /// Tokens of the prompt that are processed, cached ones included.
    pub processed: usize,
    /// Time since the start of the request.
    pub time_ms: u64,
}
