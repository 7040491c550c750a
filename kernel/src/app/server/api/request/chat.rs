//! The messages of a chat, and the prompt that a chat template makes of them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::object::{List, Object, parse};
use crate::llm::chat::{Segment, Template};

/// The most messages of a chat.
const MAX_MESSAGES: usize = 4096;
/// The most parts of a message.
const MAX_PARTS: usize = 256;

/// The field that asks to continue the last message.
const CONTINUE: &str = "continue_final_message";

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The client's program; OpenAI's `developer` too.
    System,
    /// A person.
    User,
    /// The model.
    Assistant,
}

/// A message of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The author.
    pub role: Role,
    /// The text.
    pub text: String,
}

/// The end of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The texts that ask for an answer: `add_generation_prompt`.
    Ask,
    /// The last message with the texts behind it.
    Close,
    /// The last message, which the answer continues: `continue_final_message`.
    Continue,
}

/// Reads the messages.
///
/// # Errors
/// A message has a wrong form, or contents that are not supported.
pub fn messages(object: &Object<'_>) -> Result<Vec<Message>, ApiError> {
    const NAME: &str = "messages";
    let List(list) = object.require::<List<'_, MAX_MESSAGES>>(NAME)?;
    let Some(last) = list.len().checked_sub(1) else {
        return Err(object.error(NAME, "at least one message is needed"));
    };
    let may_continue = object.switch(CONTINUE, true)?;
    let read = |(i, value)| message(&format!("{NAME}[{i}]"), value, may_continue && i == last);
    list.into_iter().enumerate().map(read).collect()
}

/// Reads a message. `may_continue`: an answer of the assistant here is one to continue.
fn message(place: &str, value: &RawValue, may_continue: bool) -> Result<Message, ApiError> {
    let object = Object::from_value(place, value)?;
    let role = match object.require::<String>("role")?.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other @ ("tool" | "function") => {
            return Err(object.error("role", format!("`{other}` is not supported")));
        }
        other => return Err(object.error("role", format!("there is no role `{other}`"))),
    };
    // Clients send an answer back as they got it, with empty fields.
    for name in ["tool_calls", "function_call", "audio", "tool_call_id"] {
        if object.get(name).is_some_and(|value| value.get() != "[]") {
            return Err(ApiError::unsupported(&object.name(name)));
        }
    }
    // As in llama-server, blank lines stand between the parts of an answer to continue.
    let between = if may_continue && role == Role::Assistant { "\n\n" } else { "\n" };
    let text = match object.get("content") {
        Some(value) => content(&object.name("content"), value, between)?,
        None if role == Role::Assistant => String::new(),
        None => return Err(object.error("content", "required")),
    };
    Ok(Message { role, text })
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
/// As in llama-server, an answer at the end is continued, unless the request says otherwise.
///
/// # Errors
/// The fields contradict each other or the messages.
pub fn ending(object: &Object<'_>, messages: &[Message]) -> Result<Ending, ApiError> {
    let asks = object.read::<bool>("add_generation_prompt")?;
    let is_assistant =
        |message: Option<&Message>| message.is_some_and(|message| message.role == Role::Assistant);
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

/// The segments of a prompt. Without a template, blank lines stand between the messages.
///
/// System messages and those of users are trimmed, as most templates do. An answer stays as it is,
/// so that its tokens are those that the KV cache holds. An empty system message counts as none.
pub fn segments<'t>(
    template: Option<&'t Template>,
    messages: &'t [Message],
    ending: Ending,
) -> Vec<Segment<'t>> {
    use Segment::Template as Text;
    let mut segments = Vec::new();
    let Some(template) = template else {
        for message in messages {
            if !segments.is_empty() {
                segments.push(Text("\n\n"));
            }
            segments.push(Segment::Message(&message.text));
        }
        return segments;
    };
    let is_there =
        |message: &&Message| message.role != Role::System || !message.text.trim().is_empty();
    let mut before = None;
    for Message { role, text } in messages.iter().filter(is_there) {
        let around = match role {
            Role::System => &template.system,
            Role::User => &template.user,
            Role::Assistant => &template.assistant,
        };
        let special = match (role, before) {
            (Role::User, None) => template.first_user_prefix.as_ref(),
            (Role::User, Some(Role::System)) => template.after_system_prefix.as_ref(),
            _ => None,
        };
        let text = if *role == Role::Assistant { text } else { text.trim() };
        segments.extend([
            Text(special.unwrap_or(&around.prefix)),
            Segment::Message(text),
            Text(&around.suffix),
        ]);
        before = Some(*role);
    }
    match ending {
        Ending::Ask => segments.push(Text(&template.assistant.prefix)),
        Ending::Close => {}
        Ending::Continue => drop(segments.pop()),
    }
    segments
}

/// The text of a prompt.
pub fn text(segments: &[Segment<'_>]) -> String {
    segments.iter().map(|segment| segment.text().to_string()).collect()
}
