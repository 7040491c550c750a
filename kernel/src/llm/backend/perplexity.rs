//! Perplexity: how little a text surprises a model. Measured as llama.cpp's `llama-perplexity` does:
//! the text is cut into pieces of the context's length, each starts anew with the beginning-of-text
//! token if the model has one, and the second half of each piece is predicted.

use alloc::format;
use core::ops::ControlFlow;

use super::{Loaded, Shared, TransformerBackend, required};
use crate::llm::Error;
use crate::llm::model::scratch::Scratch;
use crate::llm::model::{Context, batch};

/// A perplexity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// e to the mean of the negative log-likelihoods: the number of tokens among which the model,
    /// so to speak, has to guess.
    pub perplexity: f64,
    /// Its standard error.
    pub error: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Pieces that were measured.
    pub chunks: usize,
    /// Pieces there are.
    pub n_chunks: usize,
}

/// Sums of negative log-likelihoods.
#[derive(Default)]
struct Sums {
    nll: f64,
    nll_squared: f64,
    tokens: usize,
}

impl Sums {
    fn add(&mut self, logits: &[f32], token: u32) {
        let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, &x| largest.max(x));
        let sum: f64 = logits.iter().map(|x| f64::from(libm::expf(x - largest))).sum();
        let nll = libm::log(sum) - f64::from(logits[token as usize] - largest);
        self.nll += nll;
        self.nll_squared += nll * nll;
        self.tokens += 1;
    }

    fn perplexity(&self, chunks: usize, n_chunks: usize) -> Perplexity {
        let n = self.tokens as f64;
        let mean = self.nll / n;
        let variance = self.nll_squared / n - mean * mean;
        let perplexity = libm::exp(mean);
        let error = if variance > 0.0 && self.tokens > 1 {
            libm::sqrt(variance / (n - 1.0)) * perplexity
        } else {
            0.0
        };
        Perplexity { perplexity, error, tokens: self.tokens, chunks, n_chunks }
    }
}

impl TransformerBackend {
    /// Measures the perplexity of a text, in pieces of the context's length; what is left at its end
    /// does not count. `on_chunk` gets the figures after each piece and may end the measurement. The
    /// text so far is forgotten.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if there is no model or the text has not two pieces.
    pub fn perplexity(
        &mut self,
        text: &str,
        on_chunk: &mut dyn FnMut(&Perplexity) -> ControlFlow<()>,
    ) -> Result<Perplexity, Error> {
        self.reset();
        let workers = self.options.workers;
        let Loaded { shared, cache, arena, .. } = required(&mut self.loaded)?;
        let Shared { file, model, tokenizer, .. } = &**shared;
        let n_ctx = cache.n_ctx();
        let mut tokens = tokenizer.encode(text, true, false);
        let n_chunks = tokens.len() / n_ctx;
        if n_ctx < 2 || n_chunks < 2 {
            let n = tokens.len();
            let what = format!(
                "the text has {n} tokens; its perplexity in a context of {n_ctx} takes {}",
                2 * n_ctx.max(2)
            );
            return Err(Error::InvalidConfig { what });
        }
        let mut frame = arena.frame();
        let mut scratch = Scratch::take(&mut frame, model, cache.shape())?;
        let context = Context { file, workers, verbose: false };
        let mut sums = Sums::default();
        for (chunk, tokens) in tokens.chunks_exact_mut(n_ctx).enumerate() {
            cache.clear();
            if let Some(begin) = tokenizer.begin() {
                tokens[0] = begin;
            }
            let mut first = 0;
            for now in tokens.chunks(batch(n_ctx)) {
                let end = first + now.len();
                // What follows tokens of the second half is predicted.
                let from = end.min(first.max(n_ctx / 2));
                model.forward(context, now, end - from, cache, &mut scratch);
                for (i, &next) in tokens[from..].iter().skip(1).take(end - from).enumerate() {
                    model.logits(context, i, &mut scratch);
                    sums.add(scratch.logits, next);
                }
                first = end;
            }
            let so_far = sums.perplexity(chunk + 1, n_chunks);
            if on_chunk(&so_far).is_break() {
                cache.clear();
                return Ok(so_far);
            }
        }
        cache.clear();
        Ok(sums.perplexity(n_chunks, n_chunks))
    }
}
