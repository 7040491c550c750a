//! Perplexity: how little a text surprises a model.
//!
//! Measured as llama.cpp's `llama-perplexity` does. The text is cut into chunks of the context's
//! length. Each chunk starts anew, with the beginning-of-text token if the model has one. The
//! second half of each chunk is predicted.

#![forbid(unsafe_code)]

use alloc::format;
use core::ops::ControlFlow;

use crate::llm::Error;
use crate::llm::session::Session;
use crate::llm::workspace::Workspace;

/// A perplexity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// e to the power of the mean negative log-likelihood.
    ///
    /// So to speak the number of tokens among which the model has to guess.
    pub perplexity: f64,
    /// The standard error of the perplexity.
    pub error: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Chunks that were measured.
    pub chunks: usize,
    /// Chunks of the text.
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

/// Measures the perplexity of a text, in chunks of the context's length.
///
/// A rest at the end of the text does not count. `on_chunk` gets the figures after each chunk and
/// may end the measurement. The session's text is forgotten.
///
/// # Errors
/// [`Error::InvalidConfig`] if the text has not two chunks, [`Error::NotFinite`] if the model
/// computes NaN or infinity, [`Error::OutOfMemory`].
///
/// # Panics
/// The session is of another workspace.
pub fn perplexity(
    workspace: &mut Workspace,
    session: &mut Session,
    text: &str,
    parse_special: bool,
    on_chunk: &mut dyn FnMut(&Perplexity) -> ControlFlow<()>,
) -> Result<Perplexity, Error> {
    let engine = workspace.engine().clone();
    let tokenizer = engine.tokenizer();
    let n_ctx = session.n_ctx();
    let mut tokens = tokenizer.encode(text, true, parse_special);
    let n_chunks = tokens.len() / n_ctx;
    if n_ctx < 2 || n_chunks < 2 {
        let n = tokens.len();
        let what = format!(
            "the text has {n} tokens; its perplexity in a context of {n_ctx} takes {}",
            2 * n_ctx.max(2)
        );
        return Err(Error::InvalidConfig { what });
    }
    let mut sums = Sums::default();
    let mut so_far = sums.perplexity(0, n_chunks);
    for (chunk, tokens) in tokens.chunks_exact_mut(n_ctx).enumerate() {
        session.clear();
        if let Some(begin) = tokenizer.begin() {
            tokens[0] = begin;
        }
        // The tokens after those of the second half are predicted.
        let predicted = n_ctx / 2..n_ctx - 1;
        workspace.evaluate(session, tokens, predicted, &mut |i, logits| {
            sums.add(logits, tokens[i + 1]);
        })?;
        so_far = sums.perplexity(chunk + 1, n_chunks);
        if !so_far.perplexity.is_finite() {
            return Err(workspace.find_fault(session)?);
        }
        if on_chunk(&so_far).is_break() {
            break;
        }
    }
    session.clear();
    Ok(so_far)
}
