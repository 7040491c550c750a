//! The form of an answer, and its end.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::Endpoint;
use super::object::{Object, Texts, parse};
use crate::app::server::api::error::ApiError;

/// The most stop strings of a request.
const MAX_STOPS: usize = 128;
/// The longest stop string, in bytes.
const MAX_STOP_BYTES: usize = 1024;
/// The most probable tokens to report with each token, as OpenAI.
pub const MAX_PROBS: i128 = 20;
/// The most fields that `response_fields` selects.
const MAX_RESPONSE_FIELDS: usize = 64;

/// The probabilities that an answer reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probs {
    /// The number of most probable tokens with each token, which may be 0.
    pub n_top: usize,
}

impl Probs {
    /// The number of most probable tokens that the scheduler reports: for it, 0 is none at all.
    pub fn n_asked(self) -> usize {
        self.n_top.max(1)
    }
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Whether the answer is a stream of server-sent events.
    pub stream: bool,
    /// Whether the last event of a stream has the numbers of tokens.
    pub include_usage: bool,
    /// Seconds of silence after which a stream gets a comment; `None`: the server's own number. 0:
    /// no comments.
    pub ping_interval_s: Option<u32>,
    /// Answers to each prompt.
    pub n: usize,
    /// Tokens to generate, at most, if the request says so.
    pub max_tokens: Option<usize>,
    /// The probabilities to report.
    pub probs: Option<Probs>,
    /// Whether probabilities are those after the sampler chain.
    pub post_sampling_probs: bool,
    /// Whether each event has the times so far.
    pub timings_per_token: bool,
    /// Whether a stream reports the processing of the prompt.
    pub return_progress: bool,
    /// Whether the answer as a whole has its tokens.
    pub return_tokens: bool,
    /// The fields of the answer to return; empty: all.
    pub response_fields: Vec<String>,
    /// Whether the answer has llama-server's answer in its field `__verbose`.
    pub verbose: bool,
}

impl Options {
    /// Reads the form of an answer.
    ///
    /// # Errors
    /// A field has a wrong type, or is out of range.
    pub fn read(object: &Object<'_>, endpoint: Endpoint) -> Result<Self, ApiError> {
        let include_usage = match object.get("stream_options") {
            Some(value) => {
                let options = Object::from_value(&object.name("stream_options"), value)?;
                options.switch("include_usage", false)?
            }
            None => false,
        };
        let ping = object.whole("sse_ping_interval", -1..=i32::MAX.into())?;
        // With several names, the order is llama-server's.
        let mut max_tokens = None;
        for name in ["max_tokens", "max_completion_tokens", "n_predict"] {
            max_tokens = object.whole(name, -1..=i32::MAX.into())?.or(max_tokens);
        }
        let mut n = 1;
        for name in ["n", "n_cmpl"] {
            n = object.whole(name, 1..=i32::MAX.into())?.unwrap_or(n);
        }
        let Texts(response_fields) = object
            .read::<Texts<MAX_RESPONSE_FIELDS>>("response_fields")?
            .unwrap_or_else(|| Texts(Vec::new()));
        Ok(Options {
            stream: object.switch("stream", false)?,
            include_usage,
            ping_interval_s: ping.map(|s| u32::try_from(s).unwrap_or(0)),
            n: n as usize,
            max_tokens: max_tokens.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            probs: probs(object, endpoint)?,
            post_sampling_probs: object.switch("post_sampling_probs", false)?,
            timings_per_token: object.switch("timings_per_token", false)?,
            return_progress: object.switch("return_progress", false)?,
            return_tokens: object.switch("return_tokens", false)?,
            response_fields,
            verbose: object.switch("verbose", false)?,
        })
    }
}

/// Reads how many probabilities to report.
///
/// A chat has a switch and a number, OpenAI's older API a number, of which 0 asks for the chosen
/// tokens alone. With `n_probs`, 0 asks for nothing.
fn probs(object: &Object<'_>, endpoint: Endpoint) -> Result<Option<Probs>, ApiError> {
    let number = |name| object.whole(name, 0..=MAX_PROBS);
    let by_logprobs = match endpoint {
        Endpoint::Chat => {
            let n_top = number("top_logprobs")?;
            match (object.switch("logprobs", false)?, n_top) {
                (true, n_top) => Some(n_top.unwrap_or(0)),
                (false, None) => None,
                (false, Some(_)) => {
                    return Err(object.error("top_logprobs", "needs `logprobs`"));
                }
            }
        }
        // Some clients send the switch of chats.
        _ if object.get("logprobs").is_some_and(|value| value.get() == "false") => None,
        Endpoint::Completions => number("logprobs")?,
        // llama-server's other name for `n_probs`.
        Endpoint::Completion => number("logprobs")?.filter(|&n| n > 0),
    };
    let n_top = match number("n_probs")? {
        Some(0) | None => by_logprobs,
        Some(n) => Some(n),
    };
    Ok(n_top.map(|n| Probs { n_top: n as usize }))
}

/// Reads the stop strings: a text, or a list. Empty ones are left out.
///
/// # Errors
/// The field has another type, or the texts are too many or too long.
pub fn stop(object: &Object<'_>) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "stop";
    let Some(value) = object.get(NAME) else { return Ok(Vec::new()) };
    let name = object.name(NAME);
    let mut texts = match value.get().starts_with('[') {
        true => parse::<Texts<MAX_STOPS>>(&name, value)?.0,
        false => vec![parse(&name, value)?],
    };
    texts.retain(|text| !text.is_empty());
    match texts.iter().any(|text| text.len() > MAX_STOP_BYTES) {
        true => Err(object.error(NAME, format!("a text has more than {MAX_STOP_BYTES} bytes"))),
        false => Ok(texts),
    }
}
