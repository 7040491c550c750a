//! `mode=perplexity`: how well the model predicts the text of the prompt.

#![forbid(unsafe_code)]

use core::ops::ControlFlow;

use crate::app::error::Error;
use crate::app::os;
use crate::app::output::{emit, say};
use crate::backend::TransformerBackend;
use crate::report::{self, Event};

/// Measures the perplexity of `text`: a line after each chunk, an event at the end.
///
/// # Errors
/// The text is too short, or the model computes NaN or infinity.
pub fn perplexity(backend: &mut TransformerBackend, text: &str) -> Result<(), Error> {
    let start_us = os::now_us();
    let result = backend.perplexity(text, &mut |so_far| {
        say!("chunk {} of {}: {:.4}", so_far.chunks, so_far.n_chunks, so_far.perplexity);
        ControlFlow::Continue(())
    })?;
    let time_us = os::now_us() - start_us;
    say!(
        "perplexity {:.4} ± {:.4} over {} tokens in {:.1} s",
        result.perplexity,
        result.error,
        result.tokens,
        time_us as f64 / 1e6
    );
    emit(&Event::Perplexity(report::Perplexity {
        perplexity: result.perplexity,
        error: result.error,
        tokens: result.tokens,
        pieces: result.chunks,
        time_us,
    }));
    Ok(())
}
