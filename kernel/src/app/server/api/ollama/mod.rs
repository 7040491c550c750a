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

use super::request::object::Object;
use super::request::ollama::{Asked, KeepAlive, TAG, Task, check_model, read};
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

/// What a client gets.
#[derive(Debug)]
pub enum Reply {
    /// A text of this content type, at once.
    Text(&'static str, String),
    /// An answer of the model.
    Job(Box<Job>),
}

/// Answers a call. `began` is the date of the model, in seconds since 1970.
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
    let text = match call {
        Call::Version => version(),
        Call::Tags => models::tags(served, began),
        Call::Ps => models::ps(served, ids.created),
        Call::Show => {
            check_model(&Object::from_body(body)?, served)?;
            models::show(served, began)
        }
        Call::Chat => return generate(Endpoint::Chat, body, served, ids),
        Call::Generate => return generate(Endpoint::Completions, body, served, ids),
        Call::Pull => return pull(body, served),
        Call::Embed => return Err(missing("no embeddings")),
        Call::Push => return Err(missing("no registry to push models to")),
        Call::Create | Call::Copy | Call::Delete => {
            return Err(missing("no way to change the models: they lie on the machine's disk"));
        }
    };
    Ok(Reply::Text(JSON, text))
}

/// The error of a call for what the server does not have.
fn missing(what: &str) -> ApiError {
    ApiError::new(ErrorKind::NotSupported, format!("this server has {what}"))
}

/// Starts an answer of the model; or tells that the model is loaded.
fn generate(
    endpoint: Endpoint,
    body: &[u8],
    served: &Served<'_>,
    ids: &Ids,
) -> Result<Reply, ApiError> {
    let Asked { model, keep_alive, task } = read(endpoint, body, served, ids)?;
    match task {
        Task::Answer(parsed) => {
            let mut job = job::of(endpoint, parsed, served, ids)?;
            job.answer.speak_ollama(model, ids.now_us);
            Ok(Reply::Job(Box::new(job)))
        }
        // One model is served, which stays loaded whatever a client asks for.
        Task::Load if keep_alive == Some(KeepAlive::For(0)) => {
            Err(ApiError::new(ErrorKind::NotSupported, "the model stays loaded on this server"))
        }
        Task::Load => Ok(Reply::Text(JSON, models::loaded(endpoint, &model, ids.created))),
    }
}

/// Answers `POST /api/pull`: a model that is there needs no more bytes.
fn pull(body: &[u8], served: &Served<'_>) -> Result<Reply, ApiError> {
    let object = Object::from_body(body)?;
    check_model(&object, served).map_err(|error| match error.kind {
        ErrorKind::NotFound => {
            let message = format!("{}, and this server pulls none", error.message);
            ApiError::new(error.kind, message)
        }
        _ => error,
    })?;
    let text = "{\"status\":\"success\"}";
    Ok(match object.switch("stream", true)? {
        true => Reply::Text(NDJSON, format!("{text}\n")),
        false => Reply::Text(JSON, text.into()),
    })
}

/// The name of the model in lists.
fn listed_name(served: &Served<'_>) -> String {
    format!("{}{TAG}", served.model)
}
