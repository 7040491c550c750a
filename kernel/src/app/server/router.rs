//! Which request is for what: paths, methods, keys, and origins of other sites.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::hint::black_box;

use super::api::ollama::{self, Call};
use super::api::request::Endpoint;
use super::api::{ApiError, ErrorKind, JSON};
use super::http::{Headers, Method, Request, Response};
use crate::app::sha256::{Digest, Sha256};
use crate::settings::Cors;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The chat page.
    Page,
    /// Whether the server is ready.
    Health,
    /// The model, for OpenAI's clients.
    Models,
    /// The model and the defaults, for llama-server's clients.
    Props,
    /// What each slot does.
    Slots,
    /// Counters for Prometheus.
    Metrics,
    /// Text of the model.
    Generate(Endpoint),
    /// The tokens of a text.
    Tokenize,
    /// The text of tokens.
    Detokenize,
    /// The text of a chat.
    ApplyTemplate,
    /// The number of tokens of a chat.
    CountTokens,
    /// The load of a model.
    Load,
    /// The end of a model in memory.
    Unload,
    /// What ollama's clients ask for.
    Ollama(Call),
}

use Route::{
    ApplyTemplate, CountTokens, Detokenize, Generate, Health, Load, Metrics, Models, Ollama, Page,
    Props, Slots, Tokenize, Unload,
};

/// All paths but ollama's. Those without `/v1` are llama-server's.
const PATHS: &[(&str, Route)] = &[
    ("/", Page),
    ("/index.html", Page),
    ("/health", Health),
    ("/v1/health", Health),
    ("/models", Models),
    ("/v1/models", Models),
    ("/models/load", Load),
    ("/models/unload", Unload),
    ("/props", Props),
    ("/slots", Slots),
    ("/metrics", Metrics),
    ("/chat/completions", Generate(Endpoint::Chat)),
    ("/v1/chat/completions", Generate(Endpoint::Chat)),
    ("/v1/completions", Generate(Endpoint::Completions)),
    ("/completion", Generate(Endpoint::Completion)),
    ("/completions", Generate(Endpoint::Completion)),
    ("/tokenize", Tokenize),
    ("/detokenize", Detokenize),
    ("/apply-template", ApplyTemplate),
    ("/chat/completions/input_tokens", CountTokens),
    ("/v1/chat/completions/input_tokens", CountTokens),
];

impl Route {
    /// The route of a path.
    pub fn of(path: &str) -> Option<Route> {
        let own = PATHS.iter().find(|(of, _)| *of == path).map(|(_, route)| *route);
        own.or_else(|| Call::of(path).map(Ollama))
    }

    /// Whether the route takes a body, by `POST`. All others are for `GET` and `HEAD`.
    pub fn takes_body(self) -> bool {
        match self {
            Generate(_) | Tokenize | Detokenize | ApplyTemplate | CountTokens | Load | Unload => {
                true
            }
            Ollama(call) => call.takes_body(),
            Page | Health | Models | Props | Slots | Metrics => false,
        }
    }

    /// Whether a request has the route's method, and the methods that there are.
    fn allows(self, method: &Method) -> (bool, &'static str) {
        match self {
            Ollama(Call::Delete) => (*method == Method::Delete, "DELETE, OPTIONS"),
            _ if self.takes_body() => (*method == Method::Post, "POST, OPTIONS"),
            _ => (matches!(method, Method::Get | Method::Head), "GET, HEAD, OPTIONS"),
        }
    }

    /// Whether the route needs no key.
    fn is_public(self) -> bool {
        matches!(self, Page | Health)
    }
}

/// Who may ask for what.
pub struct Access {
    /// Digests of the keys. Without keys, all routes are public.
    keys: Vec<Digest>,
    cors: Cors,
}

impl Access {
    /// Rules for these keys and these origins of other sites.
    pub fn new(keys: &[String], cors: Cors) -> Self {
        Access { keys: keys.iter().map(|key| digest(key.as_bytes())).collect(), cors }
    }

    /// The route of a request by its head.
    ///
    /// # Errors
    /// The response that refuses the request, or that answers `OPTIONS`.
    pub fn route(&self, request: &Request) -> Result<Route, Response> {
        if request.method == Method::Options {
            return Err(preflight());
        }
        let Some(route) = Route::of(&request.path) else {
            return Err(refusal(&request.path, &ApiError::not_found()));
        };
        let (fits, allow) = route.allows(&request.method);
        if !fits {
            let error = ApiError::new(ErrorKind::InvalidRequest, format!("use {allow}"));
            let error = error.with_status(405);
            return Err(refusal(&request.path, &error).header("Allow", allow));
        }
        if !route.is_public() && !self.has_key(&request.headers) {
            let response = refusal(&request.path, &ApiError::wrong_key());
            return Err(response.header("WWW-Authenticate", "Bearer"));
        }
        Ok(route)
    }

    /// Whether a request has one of the keys: `Authorization: Bearer KEY` or `X-Api-Key: KEY`.
    fn has_key(&self, headers: &Headers) -> bool {
        let bearer = headers.all("Authorization").filter_map(|value| {
            let (scheme, key) = value.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
        });
        let mut given = bearer.chain(headers.all("X-Api-Key").map(<[u8]>::trim_ascii));
        self.keys.is_empty() || given.any(|key| self.is_key(key))
    }

    /// Compares a key with all keys. The time does not depend on where they differ.
    fn is_key(&self, key: &[u8]) -> bool {
        let given = digest(key);
        let mut is_one = false;
        for key in &self.keys {
            let differences = key.0.iter().zip(&given.0).fold(0, |all, (a, b)| all | (a ^ b));
            is_one |= black_box(differences) == 0;
        }
        is_one
    }

    /// Adds the headers for a page of another site (CORS) to a response.
    pub fn with_cors(&self, response: Response, origin: Option<&str>) -> Response {
        let Some(origin) = origin else { return response };
        let response = response.header("Vary", "Origin");
        if !self.cors.allows(origin) {
            return response;
        }
        response
            .header("Access-Control-Allow-Origin", origin)
            .header("Access-Control-Allow-Credentials", "true")
            .header("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS")
            .header("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key, *")
            .header("Access-Control-Max-Age", "86400")
    }
}

fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hasher.finish()
}

/// Answers `OPTIONS`.
fn preflight() -> Response {
    Response::new(200)
}

/// The response of an error, in the form of the path's protocol.
pub fn refusal(path: &str, error: &ApiError) -> Response {
    let body = if ollama::has(path) { error.ollama_body() } else { error.body() };
    Response::new(error.status).with_body(JSON, body.into_bytes())
}

#[cfg(test)]
mod tests;
