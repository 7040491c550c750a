//! What the server tells of its model: `/api/tags`, `/api/ps`, `/api/show`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::{Map, Value};

use super::listed_name;
use crate::app::server::api::date::rfc3339;
use crate::app::server::api::{Endpoint, Served, to_json};

/// The time until ollama unloads a model that it keeps for ever: 292 years, in seconds.
const FOR_EVER: u64 = i64::MAX as u64 / 1_000_000_000;
/// What a client can ask the model for.
const CAPABILITIES: &[&str] = &["completion"];
/// The width of the names in a list of parameters, as in ollama.
const NAME_WIDTH: usize = 30;

/// The text of a date in seconds since 1970.
fn date(seconds: u64) -> String {
    rfc3339(seconds.saturating_mul(1_000_000))
}

#[derive(Serialize)]
struct Details<'a> {
    parent_model: &'static str,
    format: &'static str,
    family: &'a str,
    families: [&'a str; 1],
    parameter_size: String,
    quantization_level: &'a str,
}

impl<'a> Details<'a> {
    fn of(served: &Served<'a>) -> Self {
        let metadata = served.metadata;
        Details {
            parent_model: "",
            format: "gguf",
            family: &metadata.architecture,
            families: [&metadata.architecture],
            parameter_size: human(metadata.parameters),
            quantization_level: &metadata.quantization,
        }
    }
}

/// A number of weights as ollama writes it: 134.52M, 1.1B.
fn human(n: u64) -> String {
    let (unit, letter, digits) = match n {
        0..1_000 => return n.to_string(),
        1_000..1_000_000 => (1_000, 'K', 0),
        1_000_000..1_000_000_000 => (1_000_000, 'M', 2),
        _ => (1_000_000_000, 'B', 1),
    };
    let digits = if n.is_multiple_of(unit) { 0 } else { digits };
    format!("{:.digits$}{letter}", n as f64 / unit as f64)
}

/// SHA-256 of the model's file, or an empty text if it is not known.
fn digest(served: &Served<'_>) -> String {
    served.digest.map(|digest| digest.to_string()).unwrap_or_default()
}

/// Answers `GET /api/tags`. `began` is the date of the model, in seconds since 1970.
pub fn tags(served: &Served<'_>, began: u64) -> String {
    #[derive(Serialize)]
    struct Model<'a> {
        name: &'a str,
        model: &'a str,
        modified_at: String,
        size: u64,
        digest: String,
        details: Details<'a>,
        capabilities: &'static [&'static str],
    }
    #[derive(Serialize)]
    struct Models<'a> {
        models: [Model<'a>; 1],
    }
    let name = listed_name(served);
    let model = Model {
        name: &name,
        model: &name,
        modified_at: date(began),
        size: served.bytes,
        digest: digest(served),
        details: Details::of(served),
        capabilities: CAPABILITIES,
    };
    to_json(&Models { models: [model] })
}

/// Answers `GET /api/ps`. `now` is the date in seconds since 1970.
pub fn ps(served: &Served<'_>, now: u64) -> String {
    #[derive(Serialize)]
    struct Model<'a> {
        name: &'a str,
        model: &'a str,
        size: u64,
        digest: String,
        details: Details<'a>,
        expires_at: String,
        /// The weights are in the machine's own memory.
        size_vram: u64,
        context_length: usize,
    }
    #[derive(Serialize)]
    struct Models<'a> {
        models: [Model<'a>; 1],
    }
    let name = listed_name(served);
    let model = Model {
        name: &name,
        model: &name,
        size: served.bytes,
        digest: digest(served),
        details: Details::of(served),
        expires_at: date(now.saturating_add(FOR_EVER)),
        size_vram: 0,
        context_length: served.n_ctx,
    };
    to_json(&Models { models: [model] })
}

/// Answers `POST /api/show`. `began` is the date of the model, in seconds since 1970.
pub fn show(served: &Served<'_>, began: u64) -> String {
    #[derive(Serialize)]
    struct Model<'a> {
        modelfile: String,
        parameters: String,
        /// llama.cpp's name of the template, in place of the program that this server does not run.
        template: &'a str,
        details: Details<'a>,
        model_info: Map<String, Value>,
        capabilities: &'static [&'static str],
        modified_at: String,
    }
    let parameters = parameters(served);
    let mut modelfile = format!("FROM {}\n", served.path);
    for (name, value) in &parameters {
        modelfile.push_str(&format!("PARAMETER {name} {value}\n"));
    }
    let line = |(name, value): &(&str, String)| format!("{name:<NAME_WIDTH$} {value}");
    to_json(&Model {
        modelfile,
        parameters: parameters.iter().map(line).collect::<Vec<_>>().join("\n"),
        template: served.metadata.chat.known.map_or("", |known| known.name),
        details: Details::of(served),
        model_info: info(served),
        capabilities: CAPABILITIES,
        modified_at: date(began),
    })
}

/// The settings of a request that gives none: those of the server, not those of ollama.
fn parameters(served: &Served<'_>) -> Vec<(&'static str, String)> {
    let defaults = &served.defaults.sampling;
    let config = &defaults.config;
    let numbers = [
        ("temperature", config.temperature),
        ("top_p", config.top_p),
        ("min_p", config.min_p),
        ("typical_p", config.typical_p),
        ("repeat_penalty", config.repeat_penalty),
        ("presence_penalty", config.presence_penalty),
        ("frequency_penalty", config.frequency_penalty),
    ];
    let wholes = [
        ("num_ctx", Some(served.n_ctx as u64)),
        ("top_k", Some(config.top_k as u64)),
        ("repeat_last_n", Some(config.penalty_last_n as u64)),
        ("seed", defaults.seed),
    ];
    let numbers = numbers.iter().map(|(name, x)| (*name, x.to_string()));
    let wholes = wholes.iter().filter_map(|(name, n)| Some((*name, (*n)?.to_string())));
    wholes.chain(numbers).collect()
}

/// Metadata under the names of GGUF.
fn info(served: &Served<'_>) -> Map<String, Value> {
    let metadata = served.metadata;
    let architecture = &metadata.architecture;
    let texts = [("architecture", architecture), ("basename", &metadata.name)];
    let texts = texts.iter().filter(|(_, text)| !text.is_empty());
    let texts = texts.map(|(key, text)| (format!("general.{key}"), (*text).clone().into()));
    let numbers = [
        ("block_count", metadata.n_layer),
        ("context_length", metadata.n_ctx_train),
        ("embedding_length", metadata.n_embd),
        ("feed_forward_length", metadata.n_ff),
        ("attention.head_count", metadata.n_head),
        ("attention.head_count_kv", metadata.n_head_kv),
        ("vocab_size", metadata.n_vocab),
    ];
    let numbers = numbers.iter().map(|(key, n)| (format!("{architecture}.{key}"), (*n).into()));
    let parameters = ("general.parameter_count".into(), metadata.parameters.into());
    texts.chain([parameters]).chain(numbers).collect()
}

/// Answers a request without a prompt, which asks to load the model. `now` is the date in seconds.
pub fn loaded(endpoint: Endpoint, model: &str, now: u64) -> String {
    #[derive(Serialize)]
    struct Message {
        role: &'static str,
        content: &'static str,
    }
    #[derive(Serialize)]
    struct Loaded<'a> {
        model: &'a str,
        created_at: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<Message>,
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<&'static str>,
        done: bool,
        done_reason: &'static str,
    }
    let is_chat = endpoint == Endpoint::Chat;
    to_json(&Loaded {
        model,
        created_at: date(now),
        message: is_chat.then_some(Message { role: "assistant", content: "" }),
        response: (!is_chat).then_some(""),
        done: true,
        done_reason: "load",
    })
}
