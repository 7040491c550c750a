//! The tools of a chat, and how a client wants them called.

#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::super::Served;
use super::super::error::ApiError;
use super::object::{List, Object, parse};
use crate::llm::chat::calls::CallForm;
use crate::llm::chat::tools::ToolTexts;

/// The most tools of a request, and calls of a message, as OpenAI.
pub const MAX_TOOLS: usize = 128;
/// The longest name of a function, in bytes, as OpenAI.
const MAX_NAME: usize = 64;
/// The longest JSON of a tool, in bytes.
const MAX_TOOL_BYTES: usize = 64 << 10;
/// The most bytes of all tools as the chat template writes them: far beyond any context.
const MAX_WRITTEN: usize = 4 << 20;

const CHOICE: &str = "tool_choice";

/// A function that the model may call.
#[derive(Clone, Copy, Debug)]
pub struct Tool<'a> {
    /// The function's name: letters and digits of ASCII, `_` and `-`.
    pub name: &'a str,
    /// The JSON of the whole tool.
    pub text: &'a RawValue,
    /// The JSON schema of the arguments, an object.
    pub parameters: Option<&'a RawValue>,
}

/// Whether the model calls a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// No: calls in its text are text.
    None,
    /// As the model likes.
    Auto,
    /// Yes, any of them.
    Required,
    /// Yes, the function of this name.
    Named(String),
}

/// The tools of a request.
#[derive(Clone, Debug)]
pub struct Tools<'a> {
    /// The functions.
    pub tools: Vec<Tool<'a>>,
    /// Whether the model calls them.
    pub choice: Choice,
    /// Whether an answer may have several calls.
    pub is_parallel: bool,
    /// Whether calls are cut out of the text.
    is_parsed: bool,
}

impl<'a> Tools<'a> {
    /// Reads the tools of a request.
    ///
    /// # Errors
    /// A tool has a wrong form, or the choice does not fit the tools.
    pub fn read(object: &Object<'a>) -> Result<Self, ApiError> {
        const NAME: &str = "tools";
        let list = object.read::<List<'_, MAX_TOOLS>>(NAME)?.unwrap_or(List(Vec::new()));
        let mut tools: Vec<Tool<'_>> = Vec::with_capacity(list.0.len());
        for (i, text) in list.0.into_iter().enumerate() {
            let place = format!("{}[{i}]", object.name(NAME));
            let tool = tool(&place, text)?;
            if tools.iter().any(|other| other.name == tool.name) {
                return Err(ApiError::field(&place, format!("a second `{}`", tool.name)));
            }
            tools.push(tool);
        }
        let choice = choice(object)?;
        match &choice {
            Choice::Required if tools.is_empty() => {
                return Err(object.error(CHOICE, "`required` needs `tools`"));
            }
            Choice::Named(name) if !tools.iter().any(|tool| tool.name == name) => {
                return Err(object.error(CHOICE, format!("there is no tool `{name}`")));
            }
            _ => {}
        }
        Ok(Tools {
            tools,
            choice,
            is_parallel: object.switch("parallel_tool_calls", true)?,
            is_parsed: object.switch("parse_tool_calls", true)?,
        })
    }

    /// The texts of the chat template for these tools; `None` without tools.
    ///
    /// # Errors
    /// The template has no texts for tools.
    pub fn texts<'s>(&self, served: &Served<'s>) -> Result<Option<&'s ToolTexts>, ApiError> {
        if self.tools.is_empty() {
            return Ok(None);
        }
        texts(served).map(Some).map_err(|problem| ApiError::field("tools", problem))
    }

    /// The tools as the chat template writes them.
    ///
    /// # Errors
    /// A text of a tool is no Unicode, or the texts are too long.
    pub fn written(&self, texts: &ToolTexts) -> Result<Vec<String>, ApiError> {
        let mut all = Vec::with_capacity(self.tools.len());
        let mut n_bytes: usize = 0;
        for (i, tool) in self.tools.iter().enumerate() {
            let written = texts.form.write(tool.text.get());
            let written = written.ok_or_else(|| ApiError::field(&format!("tools[{i}]"), UNFIT))?;
            n_bytes = n_bytes.saturating_add(written.len());
            if n_bytes > MAX_WRITTEN {
                return Err(ApiError::field("tools", "too long in the form of the chat template"));
            }
            all.push(written);
        }
        Ok(all)
    }

    /// The form of the calls to cut out of an answer, if calls are asked for.
    pub fn call_form(&self, texts: &ToolTexts) -> Option<CallForm> {
        if !self.is_parsed || self.choice == Choice::None {
            return None;
        }
        let names = self.callable().map(|tool| tool.name.to_string()).collect();
        Some(CallForm::new(texts, names, self.is_parallel))
    }

    /// The functions that the choice admits.
    pub fn callable(&self) -> impl Iterator<Item = &Tool<'a>> {
        self.tools.iter().filter(|tool| match &self.choice {
            Choice::Named(name) => tool.name == name,
            _ => true,
        })
    }
}

/// The problem with a tool that has no written form: a lone surrogate, or much within much.
const UNFIT: &str = "a text is no Unicode, or arrays and objects are too deep";

/// The texts of the chat template around tools, or why there are none.
pub fn texts<'s>(served: &Served<'s>) -> Result<&'s ToolTexts, &'static str> {
    let template = served.template.ok_or("tools need a chat template, which the model lacks")?;
    template
        .tools
        .as_deref()
        .ok_or("the chat template has no texts for tools; `image-builder inspect` names the reason")
}

/// Whether a function may have this name. Such a name needs no escapes in a JSON string.
pub fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_allowed)
}

/// The problem with another name.
pub fn wrong_name() -> String {
    format!("a name has 1 to {MAX_NAME} letters and digits of ASCII, `_` and `-`")
}

fn tool<'a>(place: &str, text: &'a RawValue) -> Result<Tool<'a>, ApiError> {
    if text.get().len() > MAX_TOOL_BYTES {
        return Err(ApiError::field(place, format!("more than {MAX_TOOL_BYTES} bytes")));
    }
    let object = Object::from_value(place, text)?;
    match object.require::<String>("type")?.as_str() {
        "function" => {}
        other => return Err(object.error("type", format!("`{other}` is not supported"))),
    }
    const FUNCTION: &str = "function";
    let function = Object::from_value(&object.name(FUNCTION), object.require(FUNCTION)?)?;
    // A name that is allowed has no escapes, so it can be borrowed.
    let quoted = function.require::<&RawValue>("name")?;
    parse::<String>(&function.name("name"), quoted)?;
    let name = quoted.get().trim_matches('"');
    if !is_name(name) {
        return Err(function.error("name", wrong_name()));
    }
    function.read::<String>("description")?;
    let parameters = function.get("parameters");
    if parameters.is_some_and(|value| !value.get().starts_with('{')) {
        return Err(function.error("parameters", "a JSON schema must be an object"));
    }
    Ok(Tool { name, text, parameters })
}

fn choice(object: &Object<'_>) -> Result<Choice, ApiError> {
    let Some(value) = object.get(CHOICE) else { return Ok(Choice::Auto) };
    if !value.get().starts_with('{') {
        return match parse::<String>(&object.name(CHOICE), value)?.as_str() {
            "none" => Ok(Choice::None),
            "auto" => Ok(Choice::Auto),
            "required" => Ok(Choice::Required),
            other => Err(object.error(CHOICE, format!("there is no choice `{other}`"))),
        };
    }
    let choice = Object::from_value(&object.name(CHOICE), value)?;
    match choice.require::<String>("type")?.as_str() {
        "function" => {}
        other => return Err(choice.error("type", format!("`{other}` is not supported"))),
    }
    let function = Object::from_value(&choice.name("function"), choice.require("function")?)?;
    Ok(Choice::Named(function.require("name")?))
}
