//! JSON schemas as grammars: the texts in JSON that a schema allows, in GBNF.
//!
//! Schemas mean what they mean for llama.cpp (`common/json-schema-to-grammar.cpp`). The properties
//! of an object come in the order of the schema. An object with `properties` has no others, unless
//! `additionalProperties` allows them. Keywords that are not in this module are ignored, such as
//! `uniqueItems`, or `minimum` for a `number`.
//!
//! Two things differ. A pattern without a form in GBNF is an error; in llama.cpp it allows any
//! string. And a pattern never allows what breaks the JSON, such as a quotation mark for `.`.

#![forbid(unsafe_code)]

mod integer;
mod members;
mod pattern;
#[cfg(test)]
mod tests;
mod text;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::error::ApiError;
use super::request::object::{List, Object, Texts, parse};
use crate::llm::chat::json::{self, Style};
use text::push_escaped;
pub use text::{GrammarText, quoted};

/// The most schemas within a schema, each use of a reference or of a type counted.
const MAX_SCHEMAS: usize = 4096;
/// The most schemas within each other.
const MAX_DEPTH: usize = 64;
/// The most values of an `enum`, and elements of other lists.
const MAX_ELEMENTS: usize = 4096;
/// The most bytes of a schema's path that errors show.
const MAX_PATH: usize = 100;
/// The most characters of a rule's name that come from the schema.
const MAX_NAME: usize = 24;

/// The grammar of the texts that a schema allows.
///
/// # Errors
/// The schema is malformed, or too large.
pub fn grammar(place: &str, schema: &RawValue) -> Result<String, ApiError> {
    let mut text = GrammarText::new();
    let rule = text.schema(place, schema)?;
    text.root(rule)?;
    Ok(text.finish())
}

/// The grammar of any JSON object.
///
/// # Errors
/// None.
pub fn any_object() -> Result<String, ApiError> {
    let mut text = GrammarText::new();
    let rule = text.object()?;
    text.root(rule)?;
    Ok(text.finish())
}

/// A schema, and where it is.
#[derive(Clone, Copy)]
struct Place<'p, 'a> {
    /// The start of its rule's name.
    hint: &'p str,
    /// Its path in the request.
    path: &'p str,
    schema: &'a RawValue,
    /// The number of schemas around it.
    depth: usize,
}

impl<'a> Place<'_, 'a> {
    fn error(&self, problem: impl core::fmt::Display) -> ApiError {
        ApiError::field(self.path, problem)
    }
}

/// Turns a schema into rules.
struct Converter<'t, 'a> {
    text: &'t mut GrammarText,
    root: &'a RawValue,
    /// Each `$ref` and the name of its rule.
    references: Vec<(String, String)>,
}

impl<'a> Converter<'_, 'a> {
    /// Adds a rule for the texts that a schema allows, and returns its name.
    fn visit(&mut self, place: &Place<'_, 'a>) -> Result<String, ApiError> {
        self.visit_as(place, None)
    }

    /// Visits a schema within another one.
    fn visit_in(
        &mut self,
        place: &Place<'_, 'a>,
        hint: &str,
        below: &str,
        schema: &'a RawValue,
    ) -> Result<String, ApiError> {
        let path = format!("{}.{below}", place.path);
        let cut = path.ceil_char_boundary(path.len().saturating_sub(MAX_PATH));
        let path = if cut > 0 { format!("…{}", &path[cut..]) } else { path };
        self.visit(&Place { hint, path: &path, schema, depth: place.depth.saturating_add(1) })
    }

    /// Visits a schema, as if `type` were this one.
    fn visit_as(&mut self, place: &Place<'_, 'a>, only: Option<&str>) -> Result<String, ApiError> {
        self.text.n_schemas = self.text.n_schemas.saturating_add(1);
        if place.depth > MAX_DEPTH || self.text.n_schemas > MAX_SCHEMAS {
            return Err(place.error("the JSON schema is too large, or has too many levels"));
        }
        if place.schema.get() == "true" {
            return self.text.use_rule("value");
        }
        let object = Object::from_value(place.path, place.schema)?;
        if let Some(reference) = object.read::<String>("$ref")? {
            return self.reference(place, reference);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(value) = object.get(key) {
                let List(all) = parse::<List<'_, MAX_ELEMENTS>>(&object.name(key), value)?;
                return self.any_of(place, key, &all);
            }
        }
        let kind = match object.get("type") {
            _ if only.is_some() => only.map(ToString::to_string),
            Some(value) if value.get().starts_with('[') => {
                let Texts(kinds) = parse::<Texts<16>>(&object.name("type"), value)?;
                return self.any_type(place, &kinds);
            }
            Some(value) => Some(parse::<String>(&object.name("type"), value)?),
            None => None,
        };
        // `get` takes null for a missing field, but null is a value here.
        if let Some((_, value)) = object.all().find(|(name, _)| *name == "const") {
            return self.text.add(place.hint, literal(value));
        }
        if let Some(value) = object.get("enum") {
            let List(all) = parse::<List<'_, MAX_ELEMENTS>>(&object.name("enum"), value)?;
            let values: Vec<String> = all.into_iter().map(literal).collect();
            return match values.is_empty() {
                true => Err(object.error("enum", "an empty list allows nothing")),
                false => self.text.add(place.hint, values.join(" | ")),
            };
        }
        let has = |key: &str| object.get(key).is_some();
        let additional = object.get("additionalProperties").map(RawValue::get);
        let has_properties = has("properties") || additional.is_some_and(|value| value != "true");
        match kind.as_deref() {
            None if has_properties => self.object(place, &object),
            None | Some("string") if has("allOf") => self.all_of(place, &object),
            Some("object") if has("allOf") && !has_properties => self.all_of(place, &object),
            Some("object") => self.object(place, &object),
            Some("array") => self.array(place, &object),
            None if has("items") || has("prefixItems") => self.array(place, &object),
            Some("string") => self.string(place, &object),
            None if has("pattern") || has("minLength") || has("maxLength") => {
                self.string(place, &object)
            }
            None if format_of(&object)?.is_some() => self.string(place, &object),
            None => self.text.use_rule("value"),
            Some("integer") => self.integer(place, &object),
            Some("number") => self.text.use_rule("number"),
            Some("boolean") => self.text.use_rule("boolean"),
            Some("null") => self.text.use_rule("null"),
            Some(other) => Err(object.error("type", format!("there is no type `{other}`"))),
        }
    }

    /// A reference to a schema of the same document.
    fn reference(&mut self, place: &Place<'_, 'a>, to: String) -> Result<String, ApiError> {
        if let Some((_, rule)) = self.references.iter().find(|(other, _)| *other == to) {
            return Ok(rule.clone());
        }
        let schema = self.target(place, &to)?;
        let hint = name_of(to.rsplit('/').next().unwrap_or_default());
        // The rule has its name before its body, so that a schema may contain itself.
        let rule = self.text.name(&hint);
        self.references.push((to, rule.clone()));
        let depth = place.depth.saturating_add(1);
        let body = self.visit(&Place { hint: &hint, schema, depth, ..*place })?;
        self.text.push(rule.clone(), body)?;
        Ok(rule)
    }

    /// The schema that a reference names by its path: `#/$defs/name`.
    fn target(&self, place: &Place<'_, 'a>, to: &str) -> Result<&'a RawValue, ApiError> {
        let error = |problem| place.error(format!("`$ref` is `{to}`, {problem}"));
        let Some(path) = to.strip_prefix('#') else {
            return Err(error("but only references within the schema (`#/…`) are supported"));
        };
        let mut target = self.root;
        for step in path.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let found = match target.get().starts_with('[') {
                true => {
                    let List(all) = parse::<List<'_, MAX_ELEMENTS>>(place.path, target)?;
                    step.parse::<usize>().ok().and_then(|i| all.get(i).copied())
                }
                false => Object::from_value(place.path, target)?.get(&step),
            };
            target = found.ok_or_else(|| error("which is not there"))?;
        }
        Ok(target)
    }

    fn any_of(
        &mut self,
        place: &Place<'_, 'a>,
        key: &str,
        all: &[&'a RawValue],
    ) -> Result<String, ApiError> {
        if all.is_empty() {
            return Err(place.error(format!("`{key}`: an empty list allows nothing")));
        }
        let mut rules = Vec::new();
        for (i, schema) in all.iter().enumerate() {
            rules.push(self.visit_in(place, place.hint, &format!("{key}[{i}]"), schema)?);
        }
        self.text.add(place.hint, rules.join(" | "))
    }

    /// A schema with several types.
    fn any_type(&mut self, place: &Place<'_, 'a>, kinds: &[String]) -> Result<String, ApiError> {
        let mut rules = Vec::new();
        for kind in kinds {
            let depth = place.depth.saturating_add(1);
            rules.push(self.visit_as(&Place { depth, ..*place }, Some(kind))?);
        }
        match rules.is_empty() {
            true => Err(place.error("`type`: an empty list allows nothing")),
            false => self.text.add(place.hint, rules.join(" | ")),
        }
    }

    fn array(&mut self, place: &Place<'_, 'a>, object: &Object<'a>) -> Result<String, ApiError> {
        let key = if object.get("items").is_some() { "items" } else { "prefixItems" };
        let items = object.get(key);
        if let Some(List(tuple)) = items
            .filter(|items| items.get().starts_with('['))
            .map(|items| parse::<List<'_, MAX_ELEMENTS>>(&object.name(key), items))
            .transpose()?
        {
            let mut rules = Vec::new();
            for (i, schema) in tuple.into_iter().enumerate() {
                rules.push(self.visit_in(place, "item", &format!("{key}[{i}]"), schema)?);
            }
            let body = format!("\"[\" space {} space \"]\"", rules.join(" \",\" space "));
            return self.text.add(place.hint, body);
        }
        let item = match items {
            Some(items) => self.visit_in(place, "item", key, items)?,
            None => self.text.use_rule("value")?,
        };
        let (least, most) = counts(object, "minItems", "maxItems")?;
        let more = |least: usize, most: Option<usize>| {
            times(&format!("(\",\" space {item})"), least, most)
        };
        let items = match (least, most) {
            (_, Some(0)) => String::new(),
            (0, most) => {
                format!("({item} {})?", more(0, most.map(|most| most.saturating_sub(1))))
            }
            (least, most) => {
                let most = most.map(|most| most.saturating_sub(1));
                format!("{item} {}", more(least.saturating_sub(1), most))
            }
        };
        self.text.add(place.hint, format!("\"[\" space {items} space \"]\""))
    }

    fn string(&mut self, place: &Place<'_, 'a>, object: &Object<'a>) -> Result<String, ApiError> {
        if let Some(pattern) = object.read::<String>("pattern")? {
            let body = pattern::rule(&pattern).map_err(|(at, problem)| {
                object
                    .error("pattern", format!("{problem} (at character {})", at.saturating_add(1)))
            })?;
            self.text.use_rule("char")?;
            return self.text.add(place.hint, body);
        }
        match format_of(object)? {
            Some("uuid") => return self.text.use_rule("uuid"),
            Some("date-time") => {
                let (date, time) = (self.text.use_rule("date")?, self.text.use_rule("time")?);
                return self.text.add(place.hint, format!(r#""\"" {date} "T" {time} "\"""#));
            }
            Some(part) => {
                let part = self.text.use_rule(part)?;
                return self.text.add(place.hint, format!(r#""\"" {part} "\"""#));
            }
            None => {}
        }
        let (least, most) = counts(object, "minLength", "maxLength")?;
        if (least, most) == (0, None) {
            return self.text.use_rule("string");
        }
        self.text.use_rule("char")?;
        let body = format!(r#""\"" {} "\"""#, times("char", least, most));
        self.text.add(place.hint, body)
    }

    fn integer(&mut self, place: &Place<'_, 'a>, object: &Object<'a>) -> Result<String, ApiError> {
        match integer::rule(object)? {
            Some(body) => self.text.add(place.hint, body),
            None => self.text.use_rule("integer"),
        }
    }
}

/// The format of a text, if the grammar knows it.
fn format_of(object: &Object<'_>) -> Result<Option<&'static str>, ApiError> {
    Ok(match object.read::<String>("format")?.as_deref() {
        Some("date") => Some("date"),
        Some("time") => Some("time"),
        Some("date-time") => Some("date-time"),
        Some("uuid" | "uuid1" | "uuid2" | "uuid3" | "uuid4" | "uuid5") => Some("uuid"),
        _ => None,
    })
}

/// A lower and an upper bound.
fn counts(
    object: &Object<'_>,
    least: &str,
    most: &str,
) -> Result<(usize, Option<usize>), ApiError> {
    let read = |key| object.whole(key, 0..=i32::MAX.into());
    let (low, high) = (read(least)?.unwrap_or(0) as usize, read(most)?.map(|n| n as usize));
    match high.is_some_and(|high| high < low) {
        true => Err(object.error(most, format!("below `{least}`"))),
        false => Ok((low, high)),
    }
}

/// An item of a rule, so many times.
fn times(item: &str, least: usize, most: Option<usize>) -> String {
    match (least, most) {
        (0, None) => format!("{item}*"),
        (least, None) => format!("{item}{{{least},}}"),
        (_, Some(0)) => String::new(),
        (least, Some(most)) => format!("{item}{{{least},{most}}}"),
    }
}

/// A JSON value as a text in GBNF, without blanks.
///
/// Its texts have the escapes that a model learns, whatever those of the request. A value with a
/// lone surrogate, or with too much within each other, stays as it is written.
fn literal(value: &RawValue) -> String {
    let mut compact = String::new();
    match json::reformat(value.get(), Style::Compact, &mut compact) {
        Some(()) => quoted(&compact),
        None => quoted(value.get()),
    }
}

/// A part of a rule's name, from a text of the schema.
fn name_of(text: &str) -> String {
    let letters = text.chars().filter(char::is_ascii_alphanumeric).take(MAX_NAME);
    let name: String = letters.collect();
    if name.is_empty() { "key".into() } else { name }
}
