//! The shapes of answers and of the events of a stream.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::{Map, Value};

use super::probs::{ChatLogprobs, CompletionLogprobs, Entry};
use super::settings::Settings;
use super::timings::{Progress, Timings, Usage};
use crate::llm::scheduler::Stop;

/// OpenAI's `finish_reason`.
pub fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Word(_) => "stop",
        Stop::MaxTokens | Stop::ContextFull => "length",
    }
}

/// llama-server's `stop_type`.
pub fn stop_type(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "eos",
        Stop::Word(_) => "word",
        Stop::MaxTokens | Stop::ContextFull => "limit",
    }
}

/// OpenAI's answer, or an event of its stream.
#[derive(Debug, Serialize)]
pub struct Envelope<'a, C> {
    pub choices: Vec<C>,
    pub created: u64,
    pub model: &'a str,
    pub system_fingerprint: &'static str,
    pub object: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    pub id: &'a str,
    #[serde(rename = "__verbose", skip_serializing_if = "Option::is_none")]
    pub verbose: Option<Native<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_progress: Option<Progress>,
}

/// An answer of a chat.
#[derive(Debug, Serialize)]
pub struct ChatChoice<'a> {
    pub finish_reason: &'static str,
    pub index: usize,
    pub message: ChatMessage<'a>,
    pub logprobs: Option<ChatLogprobs>,
}

/// The message of an answer.
#[derive(Debug, Serialize)]
pub struct ChatMessage<'a> {
    pub role: &'static str,
    /// Null in an answer that consists of calls.
    pub content: Option<&'a str>,
    /// Always null; strict clients want the field.
    pub refusal: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall<'a>>,
}

/// A part of a chat's answer in a stream.
#[derive(Debug, Serialize)]
pub struct ChatChunk<'a> {
    pub finish_reason: Option<&'static str>,
    pub index: usize,
    pub delta: Delta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChatLogprobs>,
}

/// What a part adds to the message.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Delta<'a> {
    /// The first part: the author, and no text yet.
    Role { role: &'static str, content: Option<&'static str> },
    /// Text.
    Content { content: &'a str },
    /// A part of a call.
    Calls { tool_calls: [ToolCall<'a>; 1] },
    /// The last part: nothing.
    End {},
}

/// A call, or a part of one in a stream.
#[derive(Debug, Serialize)]
pub struct ToolCall<'a> {
    /// The number of the call in its answer, in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    pub function: Function<'a>,
}

/// The function of a call.
#[derive(Debug, Serialize)]
pub struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// The arguments: the text of a JSON object, or a piece of it.
    pub arguments: &'a str,
}

/// An answer of OpenAI's older API, or a part of one.
#[derive(Debug, Serialize)]
pub struct TextChoice<'a> {
    pub text: &'a str,
    pub index: usize,
    pub logprobs: Option<CompletionLogprobs>,
    pub finish_reason: Option<&'static str>,
}

/// llama-server's own answer, also the last event of its stream.
#[derive(Debug, Serialize)]
pub struct Native<'a> {
    pub index: usize,
    pub content: &'a str,
    pub tokens: &'a [u32],
    pub id_slot: usize,
    pub stop: bool,
    pub model: &'a str,
    pub tokens_predicted: usize,
    pub tokens_evaluated: usize,
    pub generation_settings: Settings,
    pub prompt: &'a str,
    pub has_new_line: bool,
    pub truncated: bool,
    pub stop_type: &'static str,
    pub stopping_word: String,
    pub tokens_cached: usize,
    pub timings: Timings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_probabilities: Option<Vec<Entry>>,
}

/// An event of llama-server's own stream.
#[derive(Debug, Serialize)]
pub struct NativeChunk<'a> {
    pub index: usize,
    pub content: &'a str,
    pub tokens: &'a [u32],
    pub stop: bool,
    pub id_slot: usize,
    pub tokens_predicted: usize,
    pub tokens_evaluated: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_probabilities: Option<Vec<Entry>>,
}

/// The selected fields of an answer; a slash goes into an object. Missing ones are left out.
pub fn select(answer: &Native<'_>, fields: &[String]) -> Value {
    let answer = serde_json::to_value(answer).unwrap_or_default();
    let mut selected = Map::new();
    for path in fields {
        let found = path.split('/').try_fold(&answer, |value, name| value.as_object()?.get(name));
        if let Some(value) = found {
            selected.insert(path.clone(), value.clone());
        }
    }
    Value::Object(selected)
}
