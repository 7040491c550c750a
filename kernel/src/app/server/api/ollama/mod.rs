//! ollama's protocol: paths, names of models, errors, and the answers without the model.
//!
//! Bodies that ask for a text of the model are read by [`super::request::ollama`]. [`super::answer`] writes
//! the lines of the answer.

mod models;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use super::models::Listed;
use super::request::object::Object;
use super::request::ollama::{Body, KeepAlive, Task, asks_to_unload, is_named, model_name, read};
use super::writer::Writer;
use super::{ApiError, Endpoint, ErrorKind, Ids, JSON, Job, NDJSON, Served, job};

/// What answers `GET /` where no page is asked for. Clients look for the text.
pub const RUNNING: &str = "Ollama is running";

/// The release of ollama whose protocol this is. Clients compare the number with the one they need.
const VERSION: &str = "0.12.11";

/// What an ollama client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The version.
    Version,
    /// The models that there are.
    Tags,
    /// The models that are loaded.
    Ps,
    /// All of one model.
    Show,
    /// The next message of a chat.
    Chat,
    /// The answer to a prompt.
    Generate,
    /// Embeddings.
    Embed,
    /// A model from a registry.
    Pull,
    /// A model to a registry.
    Push,
    /// A new model.
    Create,
    /// A model under a further name.
    Copy,
    /// One model less.
    Delete,
}

/// All paths of the protocol but `/`.
pub const PATHS: &[(&str, Call)] = &[
    ("/api/version", Call::Version),
    ("/api/tags", Call::Tags),
    ("/api/ps", Call::Ps),
    ("/api/show", Call::Show),
    ("/api/chat", Call::Chat),
    ("/api/generate", Call::Generate),
    ("/api/embed", Call::Embed),
    ("/api/embeddings", Call::Embed),
    ("/api/pull", Call::Pull),
    ("/api/push", Call::Push),
    ("/api/create", Call::Create),
    ("/api/copy", Call::Copy),
    ("/api/delete", Call::Delete),
];

impl Call {
    /// The call of a path.
    pub fn of(path: &str) -> Option<Call> {
        PATHS.iter().find(|(of, _)| *of == path).map(|(_, call)| *call)
    }

    /// Whether the call takes a body.
    pub fn takes_body(self) -> bool {
        !matches!(self, Call::Version | Call::Tags | Call::Ps)
    }
}

/// Whether a path is one of ollama's, whose errors have ollama's form.
pub fn has(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// Answers `GET /api/version`.
pub fn version() -> String {
    Writer::new().text("version", VERSION).end()
}

/// What answers a call.
#[derive(Debug)]
pub enum Found {
    /// A text of this content type.
    Text(&'static str, String),
    /// The model of this place in the list, by [`reply`].
    Model(usize),
}

/// What a model answers.
#[derive(Debug)]
pub enum Reply {
    /// A JSON text. `unloads`: the model is to be unloaded.
    Text {
        /// The text.
        text: String,
        /// Whether the model is to be unloaded.
        unloads: bool,
    },
    /// An answer of the model.
    Job {
        /// The answer.
        job: Box<Job>,
        /// Whether the model is to be unloaded behind the answer.
        unloads: bool,
    },
}

/// Answers a call, or finds the model that answers.
///
/// `began` and `now` are dates in seconds since 1970: those of the server and of the request.
///
/// # Errors
/// [`ApiError`]: the request is malformed, or asks for what is not supported.
pub fn find(
    call: Call,
    body: &[u8],
    list: &[Listed<'_>],
    began: u64,
    now: u64,
) -> Result<Found, ApiError> {
    let endpoint = match call {
        Call::Version => return Ok(Found::Text(JSON, version())),
        Call::Tags => return Ok(Found::Text(JSON, models::tags(list, began))),
        Call::Ps => return Ok(Found::Text(JSON, models::ps(list, now))),
        Call::Embed => return Err(missing("no embeddings")),
        Call::Push => return Err(missing("no registry to push models to")),
        Call::Create | Call::Copy | Call::Delete => {
            return Err(missing("no way to change the models: they lie on the machine's disk"));
        }
        Call::Show | Call::Pull => None,
        Call::Chat => Some(Endpoint::Chat),
        Call::Generate => Some(Endpoint::Completions),
    };
    let object = Object::from_body(body)?;
    let name = model_name(&object)?;
    let is_it = |listed: &Listed<'_>| is_named(&name, listed.name);
    let Some(number) = list.iter().position(is_it) else {
        let pulls = if call == Call::Pull { ", and this server pulls none" } else { "" };
        let message = format!("model '{name}' not found{pulls}");
        return Err(ApiError::new(ErrorKind::NotFound, message));
    };
    if call == Call::Pull {
        return pull(&object);
    }
    let is_loaded = list.get(number).is_some_and(|listed| listed.served.is_some());
    match endpoint {
        // Nothing is loaded to be unloaded.
        Some(endpoint) if !is_loaded && asks_to_unload(&object)? => {
            Ok(Found::Text(JSON, models::without_text(endpoint, &name, UNLOADED, now)))
        }
        _ => Ok(Found::Model(number)),
    }
}

/// The reasons for an end without an answer.
const LOADED: &str = "load";
const UNLOADED: &str = "unload";

/// Answers a call by a model that was loaded at the date `began`, in seconds since 1970.
///
/// # Errors
/// [`ApiError`]: the request is malformed, or asks for what is not supported.
pub fn reply(
    call: Call,
    body: &[u8],
    served: &Served<'_>,
    began: u64,
    ids: &Ids,
) -> Result<Reply, ApiError> {
    let endpoint = match call {
        Call::Chat => Endpoint::Chat,
        Call::Generate => Endpoint::Completions,
        _ => return Ok(Reply::Text { text: models::show(served, began), unloads: false }),
    };
    let Body { model, keep_alive, task } = read(endpoint, body, served, ids)?;
    let unloads = keep_alive == Some(KeepAlive::For(0));
    match task {
        Task::Answer(parsed) => {
            let mut job = job::of(endpoint, *parsed, served, ids)?;
            job.answer.speak_ollama(model, ids.now_us);
            Ok(Reply::Job { job: Box::new(job), unloads })
        }
        Task::Load => {
            let reason = if unloads { UNLOADED } else { LOADED };
            let text = models::without_text(endpoint, &model, reason, ids.created);
            Ok(Reply::Text { text, unloads })
        }
    }
}

/// The error of a call for what the server does not have.
fn missing(what: &str) -> ApiError {
    ApiError::new(ErrorKind::NotSupported, format!("this server has {what}"))
}

/// Answers `POST /api/pull` of a model that is there: it needs no more bytes.
fn pull(object: &Object<'_>) -> Result<Found, ApiError> {
    let text = "{\"status\":\"success\"}";
    Ok(match object.switch("stream", true)? {
        true => Found::Text(NDJSON, format!("{text}\n")),
        false => Found::Text(JSON, text.into()),
    })
}
