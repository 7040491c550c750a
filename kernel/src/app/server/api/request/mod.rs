//! Requests: from the bytes of a body to requests for the scheduler.

mod call_ids;
pub mod chat;
mod constraint;
mod fields;
mod logit_bias;
pub mod object;
pub mod ollama;
mod options;
mod prompt;
pub mod sampling;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod tool_grammar;
mod tools;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use chat::{Chat, Content};
use constraint::GrammarOf;
pub use fields::{FIELDS, Support};
use object::Object;
pub use options::Options;
use prompt::Prompts;

use super::error::ApiError;
use super::{Ids, Served};
use crate::llm::chat::calls::CallForm;
use crate::llm::sampling::{Breakers, LogitBias};
use crate::llm::scheduler::Request;

/// An endpoint that generates text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`: OpenAI's chats.
    Chat,
    /// `POST /v1/completions`: OpenAI's older API.
    Completions,
    /// `POST /completion`: llama-server's own API.
    Completion,
}

impl Endpoint {
    /// The path.
    pub fn path(self) -> &'static str {
        match self {
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
            Endpoint::Completion => "/completion",
        }
    }
}

/// A request for one or several answers.
#[derive(Debug)]
pub struct Parsed {
    /// The form of the answers.
    pub options: Options,
    /// A request for each answer: all of the first prompt, then all of the next one.
    pub requests: Vec<Request>,
    /// The text of each request's prompt, if the answers show it; else an empty text.
    pub prompts: Vec<String>,
    /// DRY's sequence breakers.
    pub breakers: Vec<String>,
    /// The text of the grammar.
    pub grammar: Option<Arc<str>>,
    /// The form of calls in the answers, if they may have any.
    pub call_form: Option<CallForm>,
}

/// Reads the body of a request for answers.
///
/// # Errors
/// [`ApiError`]: the request is malformed, or asks for what is not supported.
pub fn read(
    endpoint: Endpoint,
    body: &[u8],
    served: &Served<'_>,
    ids: &Ids,
) -> Result<Parsed, ApiError> {
    let object = Object::from_body(body)?;
    fields::check(&object, endpoint)?;
    let options = Options::read(&object, endpoint)?;
    let grammar = constraint::read(&object, served.tokenizer)?;
    let asked = match endpoint {
        Endpoint::Chat => Chat::read(&object, served, Content::Required)?.asked(grammar, served)?,
        Endpoint::Completions | Endpoint::Completion => {
            let Prompts(prompts) = object.require("prompt")?;
            let name = object.name("prompt");
            let tokens =
                |prompt: prompt::Prompt| prompt.tokens(&name, served.tokenizer, true, true);
            let prompts = prompts.into_iter().map(tokens).collect::<Result<_, _>>()?;
            Asked { prompts, grammar, ..Asked::default() }
        }
    };
    parse(&object, endpoint, options, asked, served, ids)
}

/// The prompts of a request, and what their answers may hold.
#[derive(Debug, Default)]
struct Asked {
    /// The tokens of each prompt.
    prompts: Vec<Vec<u32>>,
    /// The grammar of the answers.
    grammar: Option<GrammarOf>,
    /// The control tokens whose names belong to the text of the answers.
    shown: Vec<u32>,
    /// The form of calls in the answers, if they may have any.
    call_form: Option<CallForm>,
}

/// Reads the settings of the sampler, and makes the requests.
fn parse(
    object: &Object<'_>,
    endpoint: Endpoint,
    options: Options,
    asked: Asked,
    served: &Served<'_>,
    ids: &Ids,
) -> Result<Parsed, ApiError> {
    let Asked { prompts: all, grammar, shown, call_form } = asked;
    if all.is_empty() || all.iter().any(Vec::is_empty) {
        return Err(ApiError::field("prompt", "no tokens"));
    }
    if all.len().saturating_mul(options.n) > served.max_answers {
        let problem = format!("at most {} answers at once", served.max_answers);
        return Err(ApiError::field("n", problem));
    }
    let breakers = sampling::breakers(object, &served.defaults.sampling.breakers)?;
    let constraint = grammar.as_ref().map(|of| of.constrained.clone());
    let request =
        Request { constraint, shown, ..request(object, served, ids, &options, &breakers)? };
    let with_prompt = endpoint == Endpoint::Completion || options.verbose;
    let mut requests = Vec::new();
    let mut prompts = Vec::new();
    for tokens in all {
        for i in 0..options.n {
            let text = with_prompt.then(|| tokens::text(served.tokenizer, &tokens));
            let mut request = Request { tokens: tokens.clone(), ..request.clone() };
            // Each answer to a prompt has a seed of its own.
            request.sampling.seed = request.sampling.seed.wrapping_add(i as u64);
            prompts.push(text.unwrap_or_default());
            requests.push(request);
        }
    }
    let grammar = grammar.map(|of| of.text);
    Ok(Parsed { options, requests, prompts, breakers, grammar, call_form })
}

/// Reads the field `model` of a body.
///
/// # Errors
/// The body is no JSON object, or the field is no text.
pub fn model(body: &[u8]) -> Result<Option<String>, ApiError> {
    Object::from_body(body)?.read("model")
}

/// Reads all but the prompt.
fn request(
    object: &Object<'_>,
    served: &Served<'_>,
    ids: &Ids,
    options: &Options,
    breakers: &[String],
) -> Result<Request, ApiError> {
    let defaults = &served.defaults.sampling;
    // 32 bits, so that each client can send the seed again.
    let mut sampling = sampling::read(object, defaults, ids.seed >> 32)?;
    let breakers = match sampling.mirostat.is_none() && sampling.dry_multiplier > 0.0 {
        true => Some(Breakers::new(breakers, served.tokenizer)?),
        false => None,
    };
    let logit_bias = logit_bias::read(object, served.tokenizer)?;
    if logit_bias.is_some() {
        sampling.logit_bias = LogitBias::NONE;
    }
    let max_tokens = options.max_tokens.unwrap_or(served.defaults.max_tokens);
    Ok(Request {
        tokens: Vec::new(),
        sampling,
        breakers,
        logit_bias: logit_bias.unwrap_or_default(),
        constraint: None,
        max_tokens,
        ignore_end: object.switch("ignore_eos", false)?,
        stop: options::stop(object)?,
        n_probs: options.probs.map_or(0, |probs| probs.n_asked()),
        post_sampling_probs: options.post_sampling_probs,
        cache_prompt: object.switch("cache_prompt", true)?,
        shown: Vec::new(),
    })
}
