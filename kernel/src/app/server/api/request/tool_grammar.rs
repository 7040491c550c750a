//! The grammar of calls: what keeps the model to the template's form and to the tools' schemas.
//!
//! [`write`] is the whole interface to a grammar engine. It writes GBNF, as llama.cpp reads it, and
//! leaves the schemas of the arguments to its caller. [`check`] is the one place where a request's
//! grammar goes to its answer.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::tools::{Choice, Tool, Tools};
use crate::llm::chat::tools::ToolTexts;

/// The grammar of the calls of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolGrammar {
    /// Rules in GBNF; the first one is `root`. The rules of the schemas are missing.
    pub rules: String,
    /// The text that puts the grammar in force, which begins there. `None`: it is in force from
    /// the start of the answer.
    pub trigger: Option<String>,
}

/// Refuses what needs a grammar, as the engine has none.
///
/// Once there is an engine, [`write`] replaces this function: its grammar becomes a field of the
/// scheduler's request beside `Request::shown`. The control tokens of `Request::shown` have their
/// names for text in the grammar too.
///
/// # Errors
/// The choice of the request cannot be kept without a grammar.
pub fn check(tools: &Tools<'_>) -> Result<(), ApiError> {
    match tools.choice {
        Choice::None | Choice::Auto => Ok(()),
        Choice::Required | Choice::Named(_) => Err(ApiError::field(
            "tool_choice",
            "`required` and a single function are not supported by this server",
        )),
    }
}

/// Writes the grammar of the calls that a request admits; `None` if it admits none.
///
/// `schema` takes the JSON schema of a function's arguments, and returns the name of a rule for a
/// value of that schema. It keeps the rule, and those that the rule uses. `None` stands for any
/// object. Names that start with `tool-` are taken, and `root` is.
///
/// # Errors
/// The error of `schema`.
pub fn write<E>(
    texts: &ToolTexts,
    tools: &Tools<'_>,
    schema: &mut dyn FnMut(Option<&RawValue>) -> Result<String, E>,
) -> Result<Option<ToolGrammar>, E> {
    let admitted: Vec<&Tool<'_>> = tools.callable().collect();
    if admitted.is_empty() || tools.choice == Choice::None {
        return Ok(None);
    }
    let mut rules = String::from("root ::= ");
    push_literal(&texts.call.prefix, &mut rules);
    rules.push_str(" tool-call");
    if let Some(separator) = texts.call_separator.as_ref().filter(|_| tools.is_parallel) {
        rules.push_str(" (");
        push_literal(separator, &mut rules);
        rules.push_str(" tool-call)*");
    }
    rules.push(' ');
    push_literal(&texts.call.suffix, &mut rules);
    rules.push_str("\ntool-call ::=");
    for i in 0..admitted.len() {
        rules.push_str(if i == 0 { " tool-" } else { " | tool-" });
        rules.push_str(&i.to_string());
    }
    for (i, tool) in admitted.into_iter().enumerate() {
        rules.extend(["\ntool-", &i.to_string(), " ::= "]);
        push_literal(&[tool.name, &texts.arguments_prefix].concat(), &mut rules);
        rules.extend([" ", &schema(tool.parameters)?]);
        if let Some(prefix) = &texts.id_prefix {
            rules.push(' ');
            push_literal(prefix, &mut rules);
            // Mistral's models have IDs of this length.
            rules.push_str(" [a-zA-Z0-9]{9}");
        }
    }
    rules.push('\n');
    let is_lazy = tools.choice == Choice::Auto;
    Ok(Some(ToolGrammar { rules, trigger: is_lazy.then(|| trigger(&texts.call.prefix).into()) }))
}

/// The first part of a call that no other text has: a tag, or the start of the JSON.
fn trigger(prefix: &str) -> &str {
    let close = match prefix.trim_start().chars().next() {
        Some('<') => '>',
        Some('[') => ']',
        _ => return prefix,
    };
    let end = prefix.find(close).map_or(prefix.len(), |end| end.saturating_add(close.len_utf8()));
    prefix.get(..end).unwrap_or(prefix)
}

/// Appends a literal of GBNF.
fn push_literal(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::format;

    use super::super::object::Object;
    use super::*;
    use crate::llm::chat::Around;

    const TOOLS: &str = r#"{"tools":[
        {"type":"function","function":{"name":"f","parameters":{"type":"object"}}},
        {"type":"function","function":{"name":"g"}}]"#;

    fn qwen() -> ToolTexts {
        let call = "<tool_call>\n{\"name\": \"";
        ToolTexts {
            call: Around { prefix: call.into(), suffix: "}\n</tool_call>".into() },
            arguments_prefix: "\", \"arguments\": ".into(),
            call_separator: Some(format!("}}\n</tool_call>\n{call}")),
            ..ToolTexts::default()
        }
    }

    /// The grammar for [`TOOLS`] and further fields. Each schema is its own rule.
    fn grammar(texts: &ToolTexts, fields: &str) -> Option<ToolGrammar> {
        let body = format!("{TOOLS}{fields}}}");
        let object = Object::from_body(body.as_bytes()).unwrap();
        let tools = Tools::read(&object).unwrap();
        let mut schema = |schema: Option<&RawValue>| -> Result<String, ()> {
            Ok(schema.map_or("any-object".into(), |schema| format!("<{}>", schema.get())))
        };
        write(texts, &tools, &mut schema).unwrap()
    }

    #[test]
    fn a_grammar_has_each_tool_that_the_choice_admits() {
        let f = r#""f\", \"arguments\": " <{"type":"object"}>"#;
        let g = r#""g\", \"arguments\": " any-object"#;
        let head = r#"root ::= "<tool_call>\n{\"name\": \"" tool-call"#;
        let more = r#" ("}\n</tool_call>\n<tool_call>\n{\"name\": \"" tool-call)*"#;
        let end = r#" "}\n</tool_call>""#;
        let rules = format!(
            "{head}{more}{end}\ntool-call ::= tool-0 | tool-1\ntool-0 ::= {f}\ntool-1 ::= {g}\n"
        );
        let lazy = ToolGrammar { rules: rules.clone(), trigger: Some("<tool_call>".into()) };
        assert_eq!(grammar(&qwen(), ""), Some(lazy));
        let required = ToolGrammar { rules, trigger: None };
        assert_eq!(grammar(&qwen(), r#","tool_choice":"required""#), Some(required));
        let one = format!("{head}{end}\ntool-call ::= tool-0\ntool-0 ::= {g}\n");
        let fields = r#","tool_choice":{"type":"function","function":{"name":"g"}},"parallel_tool_calls":false"#;
        assert_eq!(grammar(&qwen(), fields), Some(ToolGrammar { rules: one, trigger: None }));
        assert_eq!(grammar(&qwen(), r#","tool_choice":"none""#), None);
    }

    #[test]
    fn the_trigger_is_the_start_of_a_call_alone() {
        for (prefix, trigger) in [
            ("[TOOL_CALLS] [{\"name\": \"", "[TOOL_CALLS]"),
            ("{\"name\": \"", "{\"name\": \""),
            ("\n<tool_call>{", "\n<tool_call>"),
            ("<open", "<open"),
        ] {
            let call = Around { prefix: prefix.into(), suffix: "\"}]".into() };
            let id_prefix = Some(", \"id\": \"".into());
            let texts = ToolTexts { call, id_prefix, ..qwen() };
            let grammar = grammar(&texts, "").unwrap();
            assert_eq!(grammar.trigger.as_deref(), Some(trigger));
            assert!(grammar.rules.contains(r#" ", \"id\": \"" [a-zA-Z0-9]{9}"#));
        }
    }

    #[test]
    fn the_error_of_a_schema_is_that_of_the_grammar() {
        let body = format!("{TOOLS}}}");
        let object = Object::from_body(body.as_bytes()).unwrap();
        let tools = Tools::read(&object).unwrap();
        let mut schema = |_: Option<&RawValue>| Err(Box::<str>::from("no"));
        assert_eq!(write(&qwen(), &tools, &mut schema), Err("no".into()));
    }
}
