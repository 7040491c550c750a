//! The messages of a chat, and the prompt that a chat template makes of them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::super::Served;
use super::super::error::ApiError;
use super::Asked;
use super::call_ids::CallIds;
use super::constraint::{self, GrammarOf};
use super::object::{List, Object, parse};
use super::tools::{self, MAX_TOOLS, Tools};
use crate::llm::chat::Segment;
use crate::llm::chat::calls::CallForm;
pub use crate::llm::chat::conversation::{Call, Ending, Message, Role, segments, text};
use crate::llm::chat::json::{self, Style};
use crate::llm::chat::tools::ToolTexts;

/// The most messages of a chat.
const MAX_MESSAGES: usize = 4096;
/// The most parts of a message.
const MAX_PARTS: usize = 256;

/// The field that asks to continue the last message.
const CONTINUE: &str = "continue_final_message";
const CALLS: &str = "tool_calls";
const CALL_ID: &str = "tool_call_id";

/// A chat: what makes a prompt, and what its answer may hold.
#[derive(Debug)]
pub struct Chat<'a> {
    messages: Vec<Message>,
    ending: Ending,
    /// The tools, as the chat template writes them.
    written: Vec<String>,
    /// The tools of the request.
    tools: Tools<'a>,
    /// The form of calls in the answer, if it may have any.
    call_form: Option<CallForm>,
}

/// Whether messages of users, tools and the system need a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Yes, though it may be empty.
    Required,
    /// No: ollama's Python package leaves out what is empty.
    Optional,
}

impl<'a> Chat<'a> {
    /// Reads a chat.
    ///
    /// # Errors
    /// A message or a tool has a wrong form, or contents that are not supported.
    pub fn read(
        object: &Object<'a>,
        served: &Served<'_>,
        needs: Content,
    ) -> Result<Self, ApiError> {
        let messages = messages(object, served, needs)?;
        let ending = ending(object, &messages)?;
        let tools = Tools::read(object)?;
        let texts = tools.texts(served)?;
        let written = texts.map(|texts| tools.written(texts)).transpose()?.unwrap_or_default();
        let call_form = texts.and_then(|texts| tools.call_form(texts));
        Ok(Chat { messages, ending, written, tools, call_form })
    }

    /// The segments of the prompt.
    pub fn segments<'t>(&'t self, served: &Served<'t>) -> Vec<Segment<'t>> {
        segments(served.template, &self.messages, &self.written, self.ending)
    }

    /// The prompt, and what the answer may hold.
    ///
    /// `grammar` is the one that the request has.
    ///
    /// # Errors
    /// The request has tools too, or the schema of a tool is malformed or too large.
    pub(super) fn asked(
        self,
        grammar: Option<GrammarOf>,
        served: &Served<'_>,
    ) -> Result<Asked, ApiError> {
        let prompt = served.tokenizer.encode_segments(&self.segments(served), true);
        let form = self.call_form.as_ref();
        let shown = form.map(|form| form.marks(served.tokenizer)).unwrap_or_default();
        let of_calls = constraint::of_calls(&self.tools, &shown, served)?;
        if grammar.is_some() && of_calls.is_some() {
            let problem = "cannot be used with a grammar or a schema of the answer";
            return Err(ApiError::field("tools", problem));
        }
        let call_form = self.call_form;
        Ok(Asked { prompts: Vec::from([prompt]), grammar: grammar.or(of_calls), shown, call_form })
    }
}

/// Reads the messages.
fn messages(
    object: &Object<'_>,
    served: &Served<'_>,
    needs: Content,
) -> Result<Vec<Message>, ApiError> {
    const NAME: &str = "messages";
    let List(list) = object.require::<List<'_, MAX_MESSAGES>>(NAME)?;
    let Some(last) = list.len().checked_sub(1) else {
        return Err(object.error(NAME, "at least one message is needed"));
    };
    let may_continue = object.switch(CONTINUE, true)?;
    let mut ids = CallIds::default();
    let read = |(i, value)| {
        let object = Object::from_value(&format!("{NAME}[{i}]"), value)?;
        message(&object, may_continue && i == last, needs, &mut ids, served)
    };
    list.into_iter().enumerate().map(read).collect()
}

/// Reads a message. `may_continue`: an answer of the assistant here is one to continue.
fn message(
    object: &Object<'_>,
    may_continue: bool,
    needs: Content,
    ids: &mut CallIds,
    served: &Served<'_>,
) -> Result<Message, ApiError> {
    let role = match object.require::<String>("role")?.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        "function" => return Err(object.error("role", "`function` is not supported")),
        other => return Err(object.error("role", format!("there is no role `{other}`"))),
    };
    let read = match role {
        Role::Assistant => Some(CALLS),
        Role::Tool => Some(CALL_ID),
        _ => None,
    };
    // Clients send an answer back as they got it, with empty fields.
    for name in [CALLS, "function_call", "audio", CALL_ID] {
        if read != Some(name) && object.get(name).is_some_and(|value| value.get() != "[]") {
            return Err(ApiError::unsupported(&object.name(name)));
        }
    }
    let texts = |field: &str| tools::texts(served).map_err(|problem| object.error(field, problem));
    let mut calls = match object.get(CALLS) {
        Some(value) if role == Role::Assistant && value.get() != "[]" => {
            calls(&object.name(CALLS), value, texts(CALLS)?)?
        }
        _ => Vec::new(),
    };
    ids.add(&mut calls);
    // As in llama-server, blank lines stand between the parts of an answer to continue.
    let between = if may_continue && role == Role::Assistant { "\n\n" } else { "\n" };
    let mut text = match object.get("content") {
        Some(value) => content(&object.name("content"), value, between)?,
        None if role == Role::Assistant || needs == Content::Optional => String::new(),
        None => return Err(object.error("content", "required")),
    };
    let mut call_id = String::new();
    if role == Role::Tool {
        text = texts("role")?.result(text);
        // The function's name: in ollama's form, and in OpenAI's older one.
        let name = ["tool_name", "name"].into_iter().find_map(|field| object.get(field));
        let name = name.and_then(|name| json::string(name.get())).unwrap_or_default();
        call_id = ids.of_result(object.read(CALL_ID)?.unwrap_or_default(), &name);
    }
    Ok(Message { role, text, calls, call_id })
}

/// Reads the calls of an answer.
fn calls(name: &str, value: &RawValue, texts: &ToolTexts) -> Result<Vec<Call>, ApiError> {
    let List(list) = parse::<List<'_, MAX_TOOLS>>(name, value)?;
    if list.len() > 1 && texts.call_separator.is_none() {
        return Err(ApiError::field(name, "the chat template takes one call an answer"));
    }
    let read = |(i, value)| {
        let call = Object::from_value(&format!("{name}[{i}]"), value)?;
        let function = Object::from_value(&call.name("function"), call.require("function")?)?;
        let function_name = function.require::<String>("name")?;
        if !tools::is_name(&function_name) {
            return Err(function.error("name", tools::wrong_name()));
        }
        Ok(Call {
            id: call.read("id")?.unwrap_or_default(),
            name: function_name,
            arguments: arguments(&function)?,
        })
    };
    list.into_iter().enumerate().map(read).collect()
}

/// Reads the arguments of a call: JSON in a text, as OpenAI has them, or an object.
fn arguments(function: &Object<'_>) -> Result<String, ApiError> {
    const NAME: &str = "arguments";
    let Some(value) = function.get(NAME) else { return Ok("{}".into()) };
    let quoted;
    let object = match value.get().starts_with('"') {
        true => {
            quoted = function.require::<String>(NAME)?;
            // A call without arguments, in the answers of some servers.
            if quoted.trim().is_empty() { "{}" } else { quoted.trim() }
        }
        false => value.get(),
    };
    let mut out = String::new();
    match json::reformat(object, Style::Line, &mut out).filter(|()| object.starts_with('{')) {
        Some(()) => Ok(out),
        None => Err(function.error(NAME, "no JSON object")),
    }
}

/// Reads the content of a message: a text, or a list of parts with `between` between them.
fn content(name: &str, value: &RawValue, between: &str) -> Result<String, ApiError> {
    if !value.get().starts_with('[') {
        return parse(name, value);
    }
    let List(parts) = parse::<List<'_, MAX_PARTS>>(name, value)?;
    let mut text = String::new();
    for (i, part) in parts.into_iter().enumerate() {
        let part = Object::from_value(&format!("{name}[{i}]"), part)?;
        match part.require::<String>("type")?.as_str() {
            "text" => {
                if !text.is_empty() {
                    text.push_str(between);
                }
                text.push_str(&part.require::<String>("text")?);
            }
            other => return Err(part.error("type", format!("`{other}` is not supported"))),
        }
    }
    Ok(text)
}

/// Reads how the prompt ends.
///
/// As in llama-server, an answer at the end is continued, unless the request says otherwise. An
/// answer with calls is complete.
fn ending(object: &Object<'_>, messages: &[Message]) -> Result<Ending, ApiError> {
    let asks = object.read::<bool>("add_generation_prompt")?;
    let is_assistant = |message: Option<&Message>| {
        message.is_some_and(|it| it.role == Role::Assistant && it.calls.is_empty())
    };
    let ends_in_answer = is_assistant(messages.last());
    match (object.read(CONTINUE)?, asks) {
        (Some(true), Some(true)) => {
            Err(object.error(CONTINUE, "cannot be true with `add_generation_prompt`"))
        }
        (Some(true), _) if !ends_in_answer => {
            Err(object.error(CONTINUE, "the last message is not the assistant's"))
        }
        (Some(true), _) => Ok(Ending::Continue),
        (None, _) if ends_in_answer => {
            let before = messages.len().checked_sub(2).and_then(|i| messages.get(i));
            match is_assistant(before) {
                true => Err(object.error("messages", "two of the assistant's at the end")),
                false => Ok(Ending::Continue),
            }
        }
        (_, Some(false)) => Ok(Ending::Close),
        (_, _) => Ok(Ending::Ask),
    }
}
