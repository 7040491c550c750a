//! One prompt, one answer: streamed to the console, then reported.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::String;
use core::ops::ControlFlow;

use crate::app::error::Error;
use crate::app::os;
use crate::app::output::{emit, say, write_text};
use crate::backend::{InferenceResult, Progress, StopReason, TransformerBackend};
use crate::llm::chat::Segment;
use crate::report;

/// Input of an answer.
pub enum Prompt<'a> {
    /// A text that starts anew.
    Anew(&'a str),
    /// A text that continues the text so far.
    GoOn(&'a str),
    /// The next turn of a conversation.
    Turn(&'a [Segment<'a>]),
}

/// Generates from a prompt and reports the result, until `is_stopped`.
///
/// `is_stopped` is called after each text and between two chunks of the prompt.
///
/// # Errors Those of the engine; the usual one: the prompt does not fit in the context.
pub fn answer(
    backend: &mut TransformerBackend,
    prompt: Prompt<'_>,
    max_tokens: usize,
    is_stopped: &mut dyn FnMut() -> bool,
) -> Result<InferenceResult, Error> {
    let mut show = |progress: Progress<'_>| {
        if let Progress::Text(text) = progress {
            write_text(text);
        }
        if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = match prompt {
        Prompt::Anew(text) => backend.infer_streaming(text, max_tokens, &mut show),
        Prompt::GoOn(text) => backend.extend(text, max_tokens, &mut show),
        Prompt::Turn(turn) => backend.converse(turn, max_tokens, &mut show),
    }?;
    say!("");
    emit(&report::Event::Result(outcome(&result)));
    Ok(result)
}

/// Answers the configured prompt: prints prompt, answer and summary.
///
/// # Errors
/// Those of [`answer`].
pub fn generate(
    backend: &mut TransformerBackend,
    prompt: &str,
    max_tokens: usize,
) -> Result<(), Error> {
    write_text(prompt);
    let result = answer(backend, Prompt::Anew(prompt), max_tokens, &mut || false)?;
    say!("{}", summary(&result));
    Ok(())
}

/// The figures of an answer in one line.
pub fn summary(result: &InferenceResult) -> String {
    let stop = match result.stop {
        StopReason::EndOfSequence => "the text is finished",
        StopReason::MaxTokens => "max_tokens reached",
        StopReason::ContextFull => "the context is full",
        StopReason::Cancelled => "cancelled",
    };
    let shifts = match result.context_shifts {
        0 => String::new(),
        1 => "1 context shift; ".into(),
        n => format!("{n} context shifts; "),
    };
    let cut = match result.prompt_tokens_cut {
        0 => String::new(),
        n => format!(" ({n} more are cut)"),
    };
    format!(
        "[{} prompt tokens{cut} at {:.1}/s, first token after {:.3} s, {}; {shifts}{stop}]",
        result.prompt_tokens,
        result.prompt_tokens_per_s,
        result.first_token_us as f64 / 1e6,
        report::tokens_at(result.tokens_emitted, result.tokens_per_s),
    )
}

fn outcome(result: &InferenceResult) -> report::Outcome {
    report::Outcome {
        prompt_tokens: result.prompt_tokens,
        tokens_emitted: result.tokens_emitted,
        output: result.output.clone(),
        tokens: result.tokens.clone(),
        stop: match result.stop {
            StopReason::EndOfSequence => report::StopReason::EndOfSequence,
            StopReason::MaxTokens => report::StopReason::MaxTokens,
            StopReason::ContextFull => report::StopReason::ContextFull,
            StopReason::Cancelled => report::StopReason::Cancelled,
        },
        context_shifts: result.context_shifts,
        latency_us: result.latency_us,
        first_token_us: result.first_token_us,
        prompt_tokens_per_s: result.prompt_tokens_per_s,
        tokens_per_s: result.tokens_per_s,
        arena_bytes: result.arena_bytes as u64,
        arena_peak_bytes: result.arena_peak_bytes as u64,
        board: os::board(),
    }
}
