//! The grammar of an answer: `grammar`, `json_schema` and `response_format`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::super::schema;
use super::object::Object;
use crate::llm::grammar::Grammar;
use crate::llm::tokenizer::Tokenizer;

/// A grammar and its text.
#[derive(Clone, Debug)]
pub struct GrammarOf {
    /// The text, in GBNF.
    pub text: Arc<str>,
    /// The grammar.
    pub grammar: Arc<Grammar>,
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
    let text = text?;
    let grammar = Grammar::parse(&text, tokenizer).map_err(|error| object.error(name, error))?;
    Ok(Some(GrammarOf { text: text.into(), grammar: Arc::new(grammar) }))
}

fn of_schema(object: &Object<'_>, value: &RawValue) -> Result<String, ApiError> {
    schema::grammar(&object.name("json_schema"), value)
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
