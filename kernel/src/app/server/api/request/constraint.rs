//! The grammar of an answer: `grammar`, `json_schema`, `response_format`, and that of calls.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::super::{Served, schema};
use super::object::Object;
use super::tool_grammar::{self, ToolGrammar};
use super::tools::Tools;
use crate::llm::grammar::{Grammar, Trigger};
use crate::llm::scheduler::Constrained;
use crate::llm::tokenizer::Tokenizer;

/// A grammar and its text.
#[derive(Clone, Debug)]
pub struct GrammarOf {
    /// The text, in GBNF.
    pub text: Arc<str>,
    /// The grammar, and where it begins.
    pub constrained: Constrained,
}

impl GrammarOf {
    /// Reads a grammar; errors name the field that it is made of.
    fn new(
        field: &str,
        text: String,
        trigger: Trigger,
        tokenizer: &Tokenizer,
    ) -> Result<Self, ApiError> {
        let grammar =
            Grammar::parse(&text, tokenizer).map_err(|error| ApiError::field(field, error))?;
        let constrained = Constrained { grammar: Arc::new(grammar), trigger };
        Ok(GrammarOf { text: text.into(), constrained })
    }
}

/// Reads the grammar of the answer, if the request has one.
///
/// # Errors
/// The grammar or the schema is malformed or too large, or there are two of them.
pub fn read(object: &Object<'_>, tokenizer: &Tokenizer) -> Result<Option<GrammarOf>, ApiError> {
    let grammar = object.read::<String>("grammar")?.filter(|text| !text.is_empty());
    let mut found = grammar.map(|text| ("grammar", Ok(text)));
    let json_schema =
        object.get("json_schema").map(|schema| ("json_schema", of_schema(object, schema)));
    let format = response_format(object).map(|text| ("response_format", text));
    for (name, text) in json_schema.into_iter().chain(format) {
        if let Some((other, _)) = found {
            return Err(object.error(name, format!("cannot be used with `{other}`")));
        }
        found = Some((name, text));
    }
    let Some((name, text)) = found else { return Ok(None) };
    GrammarOf::new(&object.name(name), text?, Trigger::Start, tokenizer).map(Some)
}

/// The grammar of the calls of tools, if the answer may have calls.
///
/// `shown` are the control tokens in the text of calls.
///
/// # Errors
/// The schema of a tool is malformed or too large.
pub fn of_calls(
    tools: &Tools<'_>,
    shown: &[u32],
    served: &Served<'_>,
) -> Result<Option<GrammarOf>, ApiError> {
    let Some(texts) = tools.texts(served)? else { return Ok(None) };
    let marks = tool_grammar::marks(shown, served.tokenizer);
    let Some(ToolGrammar { text, trigger }) = tool_grammar::write(texts, tools, &marks)? else {
        return Ok(None);
    };
    GrammarOf::new("tools", text, trigger, served.tokenizer).map(Some)
}

fn of_schema(object: &Object<'_>, value: &RawValue) -> Result<String, ApiError> {
    schema::grammar(&object.name("json_schema"), value)
}

/// The grammar for ollama's `format`: `"json"`, or a JSON schema.
///
/// # Errors
/// The schema is malformed or too large.
pub fn of_format(
    object: &Object<'_>,
    tokenizer: &Tokenizer,
) -> Result<Option<GrammarOf>, ApiError> {
    const NAME: &str = "format";
    let text = match object.get(NAME) {
        None => return Ok(None),
        Some(value) if value.get().starts_with('{') => schema::grammar(NAME, value)?,
        Some(_) => match object.read::<String>(NAME)?.as_deref() {
            None | Some("") => return Ok(None),
            Some("json") => schema::any_object()?,
            Some(_) => return Err(object.error(NAME, "neither \"json\" nor a JSON schema")),
        },
    };
    GrammarOf::new(NAME, text, Trigger::Start, tokenizer).map(Some)
}

/// The grammar for a `response_format`; `None` if that is any text.
fn response_format(object: &Object<'_>) -> Option<Result<String, ApiError>> {
    const NAME: &str = "response_format";
    let read = || {
        let Some(format) = object.below(NAME)? else { return Ok(None) };
        let schema_of = |format: &Object<'_>| match format.get("schema") {
            Some(value) => schema::grammar(&format.name("schema"), value),
            None => schema::any_object(),
        };
        match format.require::<String>("type")?.as_str() {
            "text" => Ok(None),
            "json_object" => schema_of(&format).map(Some),
            "json_schema" => match format.below("json_schema")? {
                Some(format) => schema_of(&format).map(Some),
                None => Err(format.error("json_schema", "required")),
            },
            other => {
                let problem =
                    format!("`{other}` is not one of `text`, `json_object` and `json_schema`");
                Err(format.error("type", problem))
            }
        }
    };
    read().transpose()
}
