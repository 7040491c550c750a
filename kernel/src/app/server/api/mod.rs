//! The JSON of the server's endpoints, as pure code: bytes in, typed requests out; updates of the
//! scheduler in, JSON and server-sent events out.
//!
//! Names, shapes, errors and statuses are those of OpenAI's API and of llama-server. Paths under
//! `/api/` speak ollama's protocol ([`ollama`]).
//!
//! [`generate`] reads a request for answers and gives a [`Job`]. Its requests go to the
//! scheduler, whose updates go to [`Answer::on_update`]. The other endpoints are functions from a
//! body, or from the server's state, to a text.

#![forbid(unsafe_code)]
// No arithmetic wraps on a number of a request.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod answer;
mod date;
pub mod error;
mod job;
pub mod metrics;
pub mod models;
pub mod ollama;
pub mod request;
pub mod schema;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod writer;

use alloc::string::String;

use serde::Serialize;

pub use answer::Answer;
pub use error::{ApiError, ErrorKind};
pub use job::{Job, generate};
pub use request::sampling::SamplingDefaults;
pub use request::{Endpoint, Options};

use crate::app::sha256::Digest;
use crate::llm::chat::Template;
use crate::llm::plan::ModelMetadata;
use crate::llm::tokenizer::Tokenizer;

/// The version of the server, as llama-server's `system_fingerprint` and `build_info` give it.
pub const BUILD: &str = concat!("b", env!("CARGO_PKG_VERSION"), "-anchorite");

/// The content type of JSON.
pub const JSON: &str = "application/json; charset=utf-8";
/// The content type of a stream.
pub const EVENT_STREAM: &str = "text/event-stream";
/// The content type of ollama's streams: one JSON object a line.
pub const NDJSON: &str = "application/x-ndjson";
/// The content type of `GET /metrics`.
pub const METRICS: &str = "text/plain; version=0.0.4";

/// The comment that keeps a silent stream alive.
pub const PING: &str = ":\n\n";

/// The settings of a request that says nothing about them: those of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// The settings of sampling.
    pub sampling: SamplingDefaults,
    /// Tokens to generate, at most. `usize::MAX`: until the context is full.
    pub max_tokens: usize,
}

/// The model that is served, and the limits of requests.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// The name of the model in answers.
    pub model: &'a str,
    /// The path of the model's file.
    pub path: &'a str,
    /// Size of the model's file.
    pub bytes: u64,
    /// SHA-256 of the model's file, if it was computed.
    pub digest: Option<Digest>,
    /// The model's sizes.
    pub metadata: &'a ModelMetadata,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The chat template; `None`: the messages are plain text.
    pub template: Option<&'a Template>,
    /// The settings of a request that says nothing about them.
    pub defaults: &'a Defaults,
    /// Positions of a request's context.
    pub n_ctx: usize,
    /// Requests that run at once.
    pub parallel: usize,
    /// The most answers that one HTTP request may ask for, over all its prompts.
    pub max_answers: usize,
}

/// What makes an answer different from others: given in, so that answers can be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Random bits for the name of the answer.
    pub id: u128,
    /// Random bits for a request without a seed.
    pub seed: u64,
    /// The time in seconds since 1970.
    pub created: u64,
    /// The same time by the scheduler's clock, in µs.
    pub now_us: u64,
}

/// The JSON of a value.
fn to_json<T: Serialize>(value: &T) -> String {
    // The types here have no maps with other keys than texts, the one thing that can fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// Appends an event of a stream.
fn push_event(data: &str, out: &mut String) {
    out.push_str("data: ");
    out.push_str(data);
    out.push_str("\n\n");
}
