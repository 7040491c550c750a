//! Errors of the API: llama-server's error objects.

use alloc::format;
use alloc::string::{String, ToString};

use serde::Serialize;

use super::to_json;
use super::writer::Writer;
use crate::llm;
use crate::llm::scheduler::SubmitError;

/// A message has at most this many bytes, as it may quote the request.
const MAX_MESSAGE: usize = 300;

/// The kind of an error: llama-server's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is malformed, or asks for what is not supported.
    InvalidRequest,
    /// The API key is missing or wrong.
    Authentication,
    /// The endpoint is forbidden.
    Permission,
    /// There is no such path.
    NotFound,
    /// The server failed.
    Server,
    /// The endpoint is not there, or is switched off.
    NotSupported,
    /// The server is busy, or loads its model.
    Unavailable,
    /// The prompt does not fit in the context.
    ExceedContextSize,
}

impl ErrorKind {
    /// The name in error objects, and the HTTP status.
    fn name_and_status(self) -> (&'static str, u16) {
        match self {
            ErrorKind::InvalidRequest => ("invalid_request_error", 400),
            ErrorKind::Authentication => ("authentication_error", 401),
            ErrorKind::Permission => ("permission_error", 403),
            ErrorKind::NotFound => ("not_found_error", 404),
            ErrorKind::Server => ("server_error", 500),
            ErrorKind::NotSupported => ("not_supported_error", 501),
            ErrorKind::Unavailable => ("unavailable_error", 503),
            ErrorKind::ExceedContextSize => ("exceed_context_size_error", 400),
        }
    }
}

/// A prompt that does not fit in the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ContextSize {
    /// Tokens of the prompt.
    pub n_prompt_tokens: usize,
    /// Positions of the context.
    pub n_ctx: usize,
}

/// An error for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The kind.
    pub kind: ErrorKind,
    /// The sentence for a person.
    pub message: String,
    /// The sizes of [`ErrorKind::ExceedContextSize`].
    pub context: Option<ContextSize>,
}

impl ApiError {
    /// An error with the usual status of its kind. A long message is cut.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        ApiError::of(kind, message.into())
    }

    #[inline(never)]
    fn of(kind: ErrorKind, mut message: String) -> Self {
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        ApiError { status: kind.name_and_status().1, kind, message, context: None }
    }

    /// A malformed request.
    pub fn invalid(message: impl Into<String>) -> Self {
        ApiError::new(ErrorKind::InvalidRequest, message)
    }

    /// A field with a wrong value.
    pub fn field(name: &str, problem: impl core::fmt::Display) -> Self {
        ApiError::field_of(name, &problem)
    }

    /// The same for all types of problems: code of its own for each would take much room.
    #[cold]
    #[inline(never)]
    fn field_of(name: &str, problem: &dyn core::fmt::Display) -> Self {
        ApiError::invalid(format!("`{name}`: {problem}"))
    }

    /// A field, or a value of one, that is known and not supported.
    pub fn unsupported(name: &str) -> Self {
        ApiError::field(name, "not supported by this server")
    }

    /// The server has no room for another request. `Retry-After` belongs to the answer.
    pub fn busy() -> Self {
        ApiError::new(ErrorKind::Unavailable, "too many requests are waiting, try again later")
    }

    /// The model is not loaded yet.
    pub fn loading() -> Self {
        ApiError::new(ErrorKind::Unavailable, "Loading model")
    }

    /// A missing or wrong API key.
    pub fn wrong_key() -> Self {
        ApiError::new(ErrorKind::Authentication, "Invalid API Key")
    }

    /// A path without an endpoint.
    pub fn not_found() -> Self {
        ApiError::new(ErrorKind::NotFound, "File Not Found")
    }

    /// A prompt that does not fit in the context.
    pub fn exceeds_context(n_prompt_tokens: usize, n_ctx: usize) -> Self {
        let message = format!(
            "request ({n_prompt_tokens} tokens) exceeds the available context size ({n_ctx} \
             tokens), try increasing it"
        );
        let context = Some(ContextSize { n_prompt_tokens, n_ctx });
        ApiError { context, ..ApiError::new(ErrorKind::ExceedContextSize, message) }
    }

    /// The same error with another HTTP status, as HTTP itself has more than llama-server.
    pub fn with_status(self, status: u16) -> Self {
        ApiError { status, ..self }
    }

    /// The body of the answer in ollama's form.
    pub fn ollama_body(&self) -> String {
        Writer::new().text("error", &self.message).end()
    }

    /// The error object: the body of the answer.
    pub fn body(&self) -> String {
        #[derive(Serialize)]
        struct Error<'a> {
            code: u16,
            message: &'a str,
            #[serde(rename = "type")]
            kind: &'static str,
            #[serde(flatten)]
            context: Option<ContextSize>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }
        let kind = self.kind.name_and_status().0;
        let Self { status: code, message, context, .. } = self;
        to_json(&Body { error: Error { code: *code, message, kind, context: *context } })
    }
}

impl From<llm::Error> for ApiError {
    fn from(error: llm::Error) -> Self {
        match error {
            llm::Error::ContextFull { prompt, n_ctx } => ApiError::exceeds_context(prompt, n_ctx),
            llm::Error::InvalidConfig { what } => ApiError::invalid(what),
            llm::Error::OutOfMemory { .. } => {
                ApiError::new(ErrorKind::Unavailable, error.to_string())
            }
            error => ApiError::new(ErrorKind::Server, error.to_string()),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull => ApiError::busy(),
            SubmitError::ContextFull { n_prompt, n_ctx } => {
                ApiError::exceeds_context(n_prompt, n_ctx)
            }
            SubmitError::Refused(error) => error.into(),
        }
    }
}
