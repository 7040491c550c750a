//! Tools as Hermes' templates write them: with a Python signature in the description.
//!
//! The text is what Jinja makes of those templates, with their oddities. Line ends and quotes in a
//! description have no escapes. The elements of a list have no type.

use alloc::string::String;
use alloc::vec::Vec;

use super::json::{self, Style};

/// The most objects within each other whose types are written.
const MAX_DEPTH: usize = 16;

/// Fields of a JSON object.
struct Object<'a>(Vec<(String, &'a str)>);

impl<'a> Object<'a> {
    fn read(text: &'a str) -> Option<Self> {
        json::fields(text).map(Object)
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(other, _)| other == key).map(|(_, value)| *value)
    }

    /// A field's text; empty if the field is missing or has another type.
    fn text(&self, key: &str) -> String {
        self.get(key).and_then(json::string).unwrap_or_default()
    }

    fn object(&self, key: &str) -> Object<'a> {
        self.get(key).and_then(Object::read).unwrap_or(Object(Vec::new()))
    }
}

/// Appends the object `function` of a tool.
pub fn push(function: &str, out: &mut String) -> Option<()> {
    let function = Object::read(function)?;
    let name = function.text("name");
    let parameters = function.object("parameters");
    let properties = parameters.object("properties");
    out.extend(["{\"name\": \"", &name, "\", \"description\": \"", &name, "("]);
    for (i, (key, value)) in properties.0.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        out.extend([key, ": "]);
        push_type(value, MAX_DEPTH, out);
    }
    out.push(')');
    let returned = function.get("return");
    if let Some(value) = returned {
        out.push_str(" -> ");
        push_type(value, MAX_DEPTH, out);
    }
    out.extend([" - ", &function.text("description"), "\n\n"]);
    for (i, (key, value)) in properties.0.iter().enumerate() {
        out.push_str(if i == 0 { "    Args:\n" } else { "" });
        out.extend(["        ", key, "("]);
        push_type(value, MAX_DEPTH, out);
        let description = Object::read(value).map(|it| it.text("description"));
        out.extend(["): ", description.unwrap_or_default().trim()]);
    }
    if let Some(value) =
        returned.and_then(Object::read).filter(|it| it.get("description").is_some())
    {
        out.extend(["\n    Returns:\n        ", &value.text("description")]);
    }
    out.push_str("\", \"parameters\": ");
    match (properties.0.is_empty(), function.get("parameters")) {
        (false, Some(parameters)) => json::reformat(parameters, Style::Line, out)?,
        _ => out.push_str("{}"),
    }
    out.push('}');
    Some(())
}

/// Appends the Python type of a schema.
fn push_type(schema: &str, depth: usize, out: &mut String) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let schema = Object::read(schema).unwrap_or(Object(Vec::new()));
    let kind = schema.get("type");
    let name = kind.and_then(json::string);
    match name.as_deref() {
        Some(name) => push_name(name, &schema, depth, out),
        None => {
            // A list of types, or none.
            out.push_str("Union[");
            let kinds = kind.unwrap_or_default().trim_matches(['[', ']']).split(',');
            for (i, name) in kinds.filter_map(json::string).enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                push_name(&name, &Object(Vec::new()), depth, out);
            }
            out.push(']');
        }
    }
}

fn push_name(name: &str, schema: &Object<'_>, depth: usize, out: &mut String) {
    let name = match name {
        "string" => "str",
        "number" => "float",
        "integer" => "int",
        "boolean" => "bool",
        "array" => "list[Union[]]",
        "object" => {
            let Some(values) = schema.get("additionalProperties") else {
                out.push_str("dict");
                return;
            };
            out.push_str("dict[str, ");
            push_type(values, depth, out);
            "]"
        }
        // Jinja would not end here: it takes each letter of the name for a type.
        _ => "Any",
    };
    out.push_str(name);
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    /// What Jinja makes of the template of Hermes 3 for these properties.
    #[test]
    fn signatures_are_those_of_jinja() {
        for (properties, signature, arguments) in [
            (
                r#"{"a": {"type": "array", "items": {"type": "string"}}}"#,
                "a: list[Union[]]",
                "        a(list[Union[]]): ",
            ),
            (
                r#"{"a": {}, "b": {"type": ["string", "integer"]}, "c": {"type": "object"}, "d": {"type": "object", "additionalProperties": {"type": "integer"}}}"#,
                "a: Union[], b: Union[str,int], c: dict, d: dict[str, int]",
                "        a(Union[]):         b(Union[str,int]):         c(dict):         d(dict[str, int]): ",
            ),
            (
                r#"{"a": {"type": "string", "description": "x "}, "b": {"enum": ["a"], "description": " é "}}"#,
                "a: str, b: Union[]",
                "        a(str): x        b(Union[]): é",
            ),
        ] {
            let parameters = format!(r#"{{"type": "object", "properties": {properties}}}"#);
            let function = format!(r#"{{"name":"f","description":"D","parameters":{parameters}}}"#);
            let expected = format!(
                "{{\"name\": \"f\", \"description\": \"f({signature}) - D\n\n    Args:\n{arguments}\", \"parameters\": {parameters}}}"
            );
            let mut out = String::new();
            push(&function, &mut out).unwrap();
            assert_eq!(out, expected);
        }
        let mut out = String::new();
        let function = r#"{"name":"f","description":"D","parameters":{},"return":{"type":"integer","description":"n"}}"#;
        push(function, &mut out).unwrap();
        let expected = "{\"name\": \"f\", \"description\": \"f() -> int - D\n\n\n    Returns:\n        n\", \"parameters\": {}}";
        assert_eq!(out, expected);
    }

    #[test]
    fn types_within_types_end() {
        let mut schema = format!(r#"{{"type":"{}"}}"#, "null");
        for _ in 0..40 {
            schema = format!(r#"{{"type":"object","additionalProperties":{schema}}}"#);
        }
        let mut out = String::new();
        push_type(&schema, MAX_DEPTH, &mut out);
        assert_eq!(out.matches("dict[str, ").count(), MAX_DEPTH);
        let mut out = String::new();
        push_type(r#"{"type":"null"}"#, MAX_DEPTH, &mut out);
        assert_eq!(out, "Any");
    }
}
