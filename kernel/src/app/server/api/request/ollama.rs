//! Bodies of ollama's clients.
//!
//! The options have the names of the other endpoints' fields, so one reader serves both. An option
//! or a field that ollama does not know is ignored there, and here.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::error::ApiError;
use super::super::{Ids, Served};
use super::chat::{Chat, Content};
use super::object::{List, Object};
use super::options::{MAX_PROBS, Options, Probs};
use super::{Asked, Endpoint, Parsed, constraint, fields};
use crate::llm::chat::conversation::{Ending, Message, Role, segments};
pub use keep_alive::KeepAlive;

mod keep_alive;

/// The tag of a name that gives none.
pub const TAG: &str = ":latest";

/// The most messages that are looked at for images: no chat has more.
const MAX_MESSAGES: usize = 4096;

const MESSAGES: &str = "messages";
const TOOLS: &str = "tools";

/// Fields for what this server does not have, and the values that ask for nothing.
const REFUSED: &[(&str, &[&str])] = &[
    // A chat has them.
    (TOOLS, &["[]"]),
    ("images", &["[]"]),
    ("template", &["\"\""]),
    ("suffix", &["\"\""]),
    // Answers give no context, so that no client has one. `/api/chat` takes the messages.
    ("context", &["[]"]),
    ("_debug_render_only", &["false"]),
];

/// A request for a text of the model.
#[derive(Debug)]
pub struct Body {
    /// The model's name, as the client wrote it.
    pub model: String,
    /// How long the model is to stay loaded, if the request says so.
    pub keep_alive: Option<KeepAlive>,
    /// What is to be done.
    pub task: Task,
}

/// What a request asks to do.
#[derive(Debug)]
pub enum Task {
    /// Answer.
    Answer(Box<Parsed>),
    /// Load the model; with [`KeepAlive::For`] 0, unload it.
    Load,
}

/// Reads the body of `/api/chat`, or of `/api/generate` as a completion.
///
/// # Errors
/// [`ApiError`]: the request is malformed, or asks for what is not supported.
pub fn read(
    endpoint: Endpoint,
    body: &[u8],
    served: &Served<'_>,
    ids: &Ids,
) -> Result<Body, ApiError> {
    let object = Object::from_body(body)?;
    let model = model_name(&object)?;
    let is_read = |name: &str| endpoint == Endpoint::Chat && name == TOOLS;
    let refused = object.fields().find(|(name, value)| {
        let is_wrong = |(field, values): &(&str, &[&str])| {
            field == name && !is_read(name) && !fields::is_one_of(value, values)
        };
        REFUSED.iter().any(is_wrong)
    });
    if let Some((name, _)) = refused {
        return Err(ApiError::unsupported(name));
    }
    check_thinking(&object, &model)?;
    let keep_alive = KeepAlive::read(&object)?;
    let asked = match endpoint {
        Endpoint::Chat => messages(&object, served)?,
        Endpoint::Completions | Endpoint::Completion => prompt(&object, served)?,
    };
    let task = match asked {
        None => Task::Load,
        Some(asked) => Task::Answer(Box::new(parse(&object, endpoint, asked, served, ids)?)),
    };
    Ok(Body { model, keep_alive, task })
}

/// Reads all but the prompt.
fn parse(
    object: &Object<'_>,
    endpoint: Endpoint,
    asked: Asked,
    served: &Served<'_>,
    ids: &Ids,
) -> Result<Parsed, ApiError> {
    const OPTIONS: &str = "options";
    let fields = match object.get(OPTIONS) {
        Some(value) => Object::from_value(OPTIONS, value)?,
        None => Object::default(),
    };
    let any = || i32::MIN.into()..=i32::MAX.into();
    // The context is the server's: clients send the number of the model that they know.
    fields.whole("num_ctx", any())?;
    // Each negative number is no limit: -1 for ever, -2 until the context is full.
    let max_tokens = fields.whole("num_predict", any())?;
    let options = Options {
        stream: object.switch("stream", true)?,
        // A comment would be no line of JSON.
        ping_interval_s: Some(0),
        max_tokens: max_tokens.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        probs: probs(object)?,
        ..Options::read(&Object::default(), endpoint)?
    };
    super::parse(&fields, endpoint, options, asked, served, ids)
}

/// Reads a chat; `None` if there are no messages.
fn messages(object: &Object<'_>, served: &Served<'_>) -> Result<Option<Asked>, ApiError> {
    let list = object.read::<List<'_, MAX_MESSAGES>>(MESSAGES)?;
    let Some(List(list)) = list.filter(|List(list)| !list.is_empty()) else { return Ok(None) };
    for (i, message) in list.into_iter().enumerate() {
        let message = Object::from_value(&format!("{MESSAGES}[{i}]"), message)?;
        if message.get("images").is_some_and(|images| !fields::is_one_of(images, &["[]"])) {
            return Err(ApiError::unsupported(&message.name("images")));
        }
    }
    // OpenAI's other fields of a chat are none here: the model calls tools as it likes.
    let chat = Chat::read(&object.only(&[MESSAGES, TOOLS]), served, Content::Optional)?;
    chat.asked(constraint::of_format(object, served.tokenizer)?, served).map(Some)
}

/// Reads a prompt, as a chat of one message; `None` if there is no prompt.
fn prompt(object: &Object<'_>, served: &Served<'_>) -> Result<Option<Asked>, ApiError> {
    let prompt = object.read::<String>("prompt")?.unwrap_or_default();
    let system = object.read::<String>("system")?.unwrap_or_default();
    let is_raw = object.switch("raw", false)?;
    if is_raw && !system.is_empty() {
        return Err(object.error("system", "`raw` takes the prompt alone"));
    }
    if prompt.is_empty() {
        return Ok(None);
    }
    let tokens = if is_raw {
        served.tokenizer.encode(&prompt, true, true)
    } else {
        let system = (!system.is_empty()).then(|| Message::new(Role::System, system));
        let user = Message::new(Role::User, prompt);
        let messages: Vec<Message> = system.into_iter().chain([user]).collect();
        let segments = segments(served.template, &messages, &[], Ending::Ask);
        served.tokenizer.encode_segments(&segments, true)
    };
    let grammar = constraint::of_format(object, served.tokenizer)?;
    Ok(Some(Asked { prompts: Vec::from([tokens]), grammar, ..Asked::default() }))
}

/// Refuses thoughts apart from the text, as ollama does for a model without them.
fn check_thinking(object: &Object<'_>, model: &str) -> Result<(), ApiError> {
    match object.get("think").is_some_and(|value| value.get() != "false") {
        true => Err(ApiError::invalid(format!("\"{model}\" does not support thinking"))),
        false => Ok(()),
    }
}

/// Reads how many probabilities to report. The number counts with the switch alone, as in ollama.
fn probs(object: &Object<'_>) -> Result<Option<Probs>, ApiError> {
    let n_top = object.whole("top_logprobs", 0..=MAX_PROBS)?.unwrap_or(0);
    Ok(object.switch("logprobs", false)?.then_some(Probs { n_top: n_top as usize }))
}

/// The name of the model, as a body has it.
///
/// # Errors
/// The body names no model.
pub fn model_name(object: &Object<'_>) -> Result<String, ApiError> {
    let name = match object.read::<String>("model")? {
        Some(name) if !name.is_empty() => name,
        // The older field.
        _ => object.read::<String>("name")?.unwrap_or_default(),
    };
    match name.is_empty() {
        true => Err(ApiError::invalid("model is required")),
        false => Ok(name),
    }
}

/// Whether a name, with or without a tag, is that of a model.
pub fn is_named(name: &str, model: &str) -> bool {
    name.strip_suffix(TAG).unwrap_or(name).eq_ignore_ascii_case(model)
}

/// Whether a body asks for the end of the model in memory, and for no answer.
///
/// # Errors
/// `keep_alive` is no time.
pub fn asks_to_unload(object: &Object<'_>) -> Result<bool, ApiError> {
    let asks = ["messages", "prompt"].into_iter().filter_map(|name| object.get(name));
    let has_text = asks.into_iter().any(|value| !fields::is_one_of(value, &["[]", "\"\""]));
    Ok(!has_text && KeepAlive::read(object)? == Some(KeepAlive::For(0)))
}
