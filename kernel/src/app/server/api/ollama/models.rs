//! What the server tells of its model: `/api/tags`, `/api/ps`, `/api/show`.

use alloc::format;
use alloc::string::{String, ToString};

use super::super::date::rfc3339;
use super::super::models::Listed;
use super::super::request::ollama::TAG;
use super::super::writer::Writer;
use super::super::{Endpoint, Served};

/// The time until ollama unloads a model that it keeps for ever: 292 years, in seconds.
const FOR_EVER: u64 = i64::MAX as u64 / 1_000_000_000;
/// The width of the names in a list of parameters, as in ollama.
const NAME_WIDTH: usize = 30;

/// The text of a date in seconds since 1970.
#[inline(never)]
fn date(seconds: u64) -> String {
    rfc3339(seconds.saturating_mul(1_000_000))
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

/// Writes what the model is.
fn details(served: &Served<'_>, out: &mut Writer) {
    let metadata = served.metadata;
    let mut details = Writer::new();
    details
        .text("parent_model", "")
        .text("format", "gguf")
        .text("family", &metadata.architecture)
        .list("families", &metadata.architecture)
        .text("parameter_size", &human(metadata.parameters))
        .text("quantization_level", &metadata.quantization);
    out.json("details", &details.end());
}

/// What a client can ask a model for. Tools are those of its chat template.
fn capabilities(served: Option<&Served<'_>>) -> &'static str {
    let template = served.and_then(|served| served.template);
    match template.is_some_and(|template| template.tools.is_some()) {
        true => "[\"completion\",\"tools\"]",
        false => "[\"completion\"]",
    }
}

/// A model in a list, without the fields that one list alone has.
///
/// What the header of the file says is not known before the model is loaded.
fn listed(model: &Listed<'_>) -> Writer {
    let name = format!("{}{TAG}", model.name);
    let digest = model.served.and_then(|served| served.digest);
    let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
    let mut out = Writer::new();
    out.text("name", &name).text("model", &name).number("size", model.bytes);
    out.text("digest", &digest);
    match &model.served {
        Some(served) => details(served, &mut out),
        None => {
            out.json(
                "details",
                &Writer::new().text("parent_model", "").text("format", "gguf").end(),
            );
        }
    }
    out
}

/// A list of models.
fn list(models: impl Iterator<Item = String>) -> String {
    let mut all = String::from("[");
    for model in models {
        if all.len() > 1 {
            all.push(',');
        }
        all.push_str(&model);
    }
    all.push(']');
    Writer::new().json("models", &all).end()
}

/// Answers `GET /api/tags`. `began` is the date of the models, in seconds since 1970.
pub fn tags(models: &[Listed<'_>], began: u64) -> String {
    list(models.iter().map(|model| {
        let mut out = listed(model);
        out.text("modified_at", &date(began));
        out.json("capabilities", capabilities(model.served.as_ref())).end()
    }))
}

/// Answers `GET /api/ps`. `now` is the date in seconds since 1970.
pub fn ps(models: &[Listed<'_>], now: u64) -> String {
    list(models.iter().filter_map(|model| {
        let n_ctx = model.served?.n_ctx;
        let mut out = listed(model);
        out.text("expires_at", &date(now.saturating_add(FOR_EVER)));
        // The weights are in the machine's own memory.
        Some(out.number("size_vram", 0).number("context_length", n_ctx as u64).end())
    }))
}

/// Answers `POST /api/show`. `began` is the date of the model, in seconds since 1970.
pub fn show(served: &Served<'_>, began: u64) -> String {
    let mut modelfile = format!("FROM {}\n", served.path);
    let mut parameters = String::new();
    settings(served, &mut |name, value| {
        modelfile.push_str(&format!("PARAMETER {name} {value}\n"));
        parameters.push_str(&format!("{name:<NAME_WIDTH$} {value}\n"));
    });
    let mut model = Writer::new();
    model.text("modelfile", &modelfile).text("parameters", parameters.trim_end());
    // llama.cpp's name of the template, in place of the program that this server does not run.
    model.text("template", served.metadata.chat.known.map_or("", |known| known.name));
    details(served, &mut model);
    model
        .json("model_info", &info(served))
        .json("capabilities", capabilities(Some(served)))
        .text("modified_at", &date(began))
        .end()
}

/// Gives the settings of a request that has none: those of the server, not those of ollama.
fn settings(served: &Served<'_>, give: &mut dyn FnMut(&str, String)) {
    let defaults = &served.defaults.sampling;
    let config = &defaults.config;
    for (name, n) in [
        ("num_ctx", served.n_ctx),
        ("top_k", config.top_k),
        ("repeat_last_n", config.penalty_last_n),
    ] {
        give(name, n.to_string());
    }
    if let Some(seed) = defaults.seed {
        give("seed", seed.to_string());
    }
    for (name, x) in [
        ("temperature", config.temperature),
        ("top_p", config.top_p),
        ("min_p", config.min_p),
        ("typical_p", config.typical_p),
        ("repeat_penalty", config.repeat_penalty),
        ("presence_penalty", config.presence_penalty),
        ("frequency_penalty", config.frequency_penalty),
    ] {
        give(name, x.to_string());
    }
}

/// Metadata under the names of GGUF.
fn info(served: &Served<'_>) -> String {
    let metadata = served.metadata;
    let mut info = Writer::new();
    info.text("general.architecture", &metadata.architecture)
        .text("general.basename", &metadata.name)
        .number("general.parameter_count", metadata.parameters);
    for (key, n) in [
        ("block_count", metadata.n_layer),
        ("context_length", metadata.n_ctx_train),
        ("embedding_length", metadata.n_embd),
        ("feed_forward_length", metadata.n_ff),
        ("attention.head_count", metadata.n_head),
        ("attention.head_count_kv", metadata.n_head_kv),
        ("vocab_size", metadata.n_vocab),
    ] {
        info.number(&format!("{}.{key}", metadata.architecture), n as u64);
    }
    info.end()
}

/// Answers a request without a prompt, which loads or unloads the model. `now` is the date in seconds.
pub fn without_text(endpoint: Endpoint, model: &str, reason: &str, now: u64) -> String {
    let mut answer = Writer::new();
    answer.text("model", model).text("created_at", &date(now));
    answer.ollama_text(endpoint == Endpoint::Chat, "", "[]");
    answer.json("done", "true").text("done_reason", reason).end()
}
