//! Text generation: encodes the prompt, prefills, then decodes token by token.

#![forbid(unsafe_code)]

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use crate::llm::plan::{ENCODER_BYTES, answer_bytes};
use crate::llm::session::Session;
use crate::llm::tokenizer::{Decoder, Segment, Tokenizer};
use crate::llm::workspace::Workspace;
use crate::llm::{Error, with_capacity};

/// The name of an answer's memory in errors.
pub(super) const ANSWER: &str = "the answer";
/// The name of the encoder's memory in errors.
pub(super) const PROMPT: &str = "encoding the prompt";

/// The continuation of a text: a prompt, or a turn of a chat.
#[derive(Clone, Copy, Debug)]
pub enum Prompt<'a> {
    /// Plain text.
    Text(&'a str),
    /// A turn of a conversation. The turn starts with the text that ends the previous answer.
    Turn(&'a [Segment<'a>]),
}

impl Prompt<'_> {
    /// Size in bytes.
    fn len(self) -> usize {
        match self {
            Prompt::Text(text) => text.len(),
            Prompt::Turn(segments) => segments.iter().map(|segment| segment.text().len()).sum(),
        }
    }

    /// Whether the prompt starts with the text that ends the previous answer.
    fn ends_answers(self) -> bool {
        matches!(self, Prompt::Turn(_))
    }
}

/// Options of the prompt's encoding and of the answer's end.
#[derive(Clone, Copy, Debug)]
pub struct GenerateOptions {
    /// Tokens to generate, at most.
    pub max_tokens: usize,
    /// Whether generation goes on after an end-of-sequence token.
    ///
    /// The end token then counts and is shown like any other, for measurements of a fixed length.
    pub ignore_end: bool,
    /// Whether control tokens in a [`Prompt::Text`] are parsed by name ("</s>").
    ///
    /// Without it, the names are plain text.
    pub parse_special: bool,
    /// Whether to cut a [`Prompt::Text`] that begins a text and does not fit.
    ///
    /// The tokens after the first `keep` ones are removed.
    pub cut_prompt: bool,
    /// A monotonic clock, in µs.
    pub now_us: fn() -> u64,
}

/// The progress of generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A chunk of the prompt was processed (prefill); more chunks follow.
    Prefill {
        /// Tokens of the prompt that are processed.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// More text of the answer, in whole characters.
    Text(&'a str),
}

/// Why the generation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model gave an end-of-sequence token.
    EndOfSequence,
    /// The number of tokens asked for is reached.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The progress callback asked to stop.
    Cancelled,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct InferenceResult {
    /// The text generated.
    pub output: String,
    /// The tokens generated, an end-of-sequence token not included.
    pub tokens: Vec<u32>,
    /// Tokens processed before the first token was generated.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were cut.
    pub prompt_tokens_cut: usize,
    /// Number of tokens generated.
    pub tokens_emitted: usize,
    /// Why it ended.
    pub stop: StopReason,
    /// Number of context shifts.
    pub context_shifts: usize,
    /// From the call to the last token, in µs.
    pub latency_us: u64,
    /// From the call to the first token, in µs.
    pub first_token_us: u64,
    /// Prompt tokens a second.
    pub prompt_tokens_per_s: f64,
    /// Generated tokens a second, after the first token; 0 for one token.
    pub tokens_per_s: f64,
    /// Size of the scratch arena in bytes.
    pub arena_bytes: usize,
    /// The most bytes of the arena ever in use.
    pub arena_peak_bytes: usize,
}

/// Appends a prompt to a session's text, and returns the number of tokens cut.
///
/// # Errors
/// [`Error::ContextFull`] if the prompt does not fit, [`Error::InvalidConfig`] if there is no token
/// to process, [`Error::OutOfMemory`]; the text is as before.
fn append_prompt(
    tokenizer: &Tokenizer,
    session: &mut Session,
    prompt: Prompt<'_>,
    options: GenerateOptions,
) -> Result<usize, Error> {
    let is_fresh = session.is_empty();
    // The turn starts with the end of the answer, so an unprocessed end token is removed.
    let last = session.tokens().last().filter(|_| session.n_unprocessed() > 0);
    let n_taken_back =
        usize::from(prompt.ends_answers() && last.is_some_and(|&token| tokenizer.is_end(token)));
    let pending = session.n_used() + session.n_unprocessed() - n_taken_back;
    let n_ctx = session.n_usable();

    // A prompt that is too long for any encoding is refused before encoding takes time and memory.
    let cuts = options.cut_prompt && is_fresh && !prompt.ends_answers();
    let least = prompt.len().div_ceil(tokenizer.max_token_bytes().max(1));
    if pending + least > n_ctx && !cuts {
        return Err(Error::ContextFull { prompt: pending + least, n_ctx });
    }
    with_capacity::<u8>(prompt.len().saturating_mul(ENCODER_BYTES), PROMPT)?;
    let mut tokens = match prompt {
        Prompt::Text(text) => tokenizer.encode(text, is_fresh, options.parse_special),
        Prompt::Turn(segments) => tokenizer.encode_segments(segments, is_fresh),
    };
    let n_cut = if cuts { cut(&mut tokens, session.keep(), n_ctx, options.max_tokens) } else { 0 };
    if pending + tokens.len() > n_ctx {
        return Err(Error::ContextFull { prompt: pending + tokens.len(), n_ctx });
    }
    if session.n_unprocessed() - n_taken_back + tokens.len() == 0 {
        return Err(Error::InvalidConfig { what: "the prompt is empty".into() });
    }
    session.truncate(session.tokens().len() - n_taken_back);
    session.append(&tokens)?;
    Ok(n_cut)
}

/// Cuts a prompt of more than `n_ctx` tokens, and returns the number of cut tokens.
///
/// The cut is after the first `keep` tokens.
///
/// The cut leaves room for `max_tokens` more, but for at most half of the context behind `keep`.
/// Nothing is cut if the prompt fits, or if `keep` fills the context.
fn cut(tokens: &mut Vec<u32>, keep: usize, n_ctx: usize, max_tokens: usize) -> usize {
    if tokens.len() <= n_ctx || keep >= n_ctx {
        return 0;
    }
    let rest = n_ctx - keep;
    let last = rest - max_tokens.min(rest / 2);
    let n = tokens.len() - last - keep;
    tokens.drain(keep..keep + n);
    n
}

/// Goes on from a session's text with a prompt, and generates an answer.
///
/// `on_progress` gets the text as it comes. It may stop the generation between two chunks of the
/// prompt, and at each new text.
///
/// # Errors
/// [`Error::ContextFull`] if the prompt leaves no position for an answer, [`Error::InvalidConfig`]
/// if the prompt is empty, [`Error::OutOfMemory`]; the text is as before. [`Error::NotFinite`] if
/// the model computes NaN or infinity.
///
/// # Panics
/// The session is of another workspace.
pub fn generate(
    workspace: &mut Workspace,
    session: &mut Session,
    prompt: Prompt<'_>,
    options: GenerateOptions,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<InferenceResult, Error> {
    let GenerateOptions { max_tokens, ignore_end, now_us, .. } = options;
    let start_us = now_us();
    let engine = workspace.engine().clone();
    let tokenizer = engine.tokenizer();
    let prompt_tokens_cut = append_prompt(tokenizer, session, prompt, options)?;
    let prompt_tokens = session.n_unprocessed();

    // All that the answer needs is allocated here, before the first token.
    let left = session.n_ctx().saturating_sub(session.tokens().len()) + 1;
    let room = if session.can_shift() { max_tokens } else { max_tokens.min(left) };
    let mut tokens = with_capacity(room, ANSWER)?;
    let mut output = String::new();
    let asked = answer_bytes(room, tokenizer);
    let no_memory = |_| Error::OutOfMemory { what: ANSWER, asked: asked as u64 };
    output.try_reserve_exact(asked).map_err(no_memory)?;
    let mut decoder = Decoder::try_new(tokenizer.max_token_bytes())?;

    let shifts_before = session.context_shifts();
    let mut on_chunk = |left: usize| {
        on_progress(Progress::Prefill { done: prompt_tokens - left, total: prompt_tokens })
    };
    let is_prefilled = session.prefill(workspace, &mut on_chunk)?;
    let mut first_token_us = now_us() - start_us;
    let stop = loop {
        if !is_prefilled {
            break StopReason::Cancelled;
        }
        if tokens.len() == max_tokens {
            break StopReason::MaxTokens;
        }
        if session.is_full() {
            break StopReason::ContextFull;
        }
        let Some(token) = session.try_step(workspace)? else { break StopReason::EndOfSequence };
        if tokens.is_empty() {
            first_token_us = now_us() - start_us;
        }
        if tokenizer.is_end(token) && !ignore_end {
            // The end token stays part of the text, should the text go on.
            break StopReason::EndOfSequence;
        }
        tokens.push(token);
        let shown = output.len();
        decoder.push(tokenizer, token, &mut output);
        if output.len() > shown && on_progress(Progress::Text(&output[shown..])).is_break() {
            break StopReason::Cancelled;
        }
    };
    let latency_us = now_us() - start_us;
    let shown = output.len();
    decoder.finish(&mut output);
    if output.len() > shown && stop != StopReason::Cancelled {
        // The text is over, whatever the reader says.
        let _ = on_progress(Progress::Text(&output[shown..]));
    }
    Ok(InferenceResult {
        prompt_tokens,
        prompt_tokens_cut,
        tokens_emitted: tokens.len(),
        stop,
        context_shifts: session.context_shifts() - shifts_before,
        latency_us,
        first_token_us,
        prompt_tokens_per_s: per_second(prompt_tokens, first_token_us),
        tokens_per_s: per_second(tokens.len().saturating_sub(1), latency_us - first_token_us),
        arena_bytes: workspace.arena_bytes(),
        arena_peak_bytes: workspace.arena_peak_bytes(),
        output,
        tokens,
    })
}

fn per_second(n: usize, us: u64) -> f64 {
    if us == 0 { 0.0 } else { n as f64 * 1e6 / us as f64 }
}
