//! The grammar of calls: what keeps the model to the template's form and to the tools' schemas.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::error::ApiError;
use super::super::schema::{GrammarText, quoted};
use super::tools::{Choice, Tool, Tools};
use crate::llm::chat::tools::ToolTexts;
use crate::llm::grammar::Trigger;
use crate::llm::tokenizer::Tokenizer;

/// The grammar of the calls of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolGrammar {
    /// The text, in GBNF.
    pub text: String,
    /// Where the grammar begins: at the start of the answer, or at the first call.
    pub trigger: Trigger,
}

/// A control token in the text of calls, and its name.
type Mark = (u32, String);

/// Control tokens, with their names.
pub fn marks(tokens: &[u32], tokenizer: &Tokenizer) -> Vec<Mark> {
    let name = |token: u32| {
        let mut name = Vec::new();
        tokenizer.push_piece(token, &mut name);
        (token, String::from_utf8_lossy(&name).into_owned())
    };
    tokens.iter().map(|&token| name(token)).filter(|(_, name)| !name.is_empty()).collect()
}

/// Writes the grammar of the calls that a request admits; `None` if it admits none.
///
/// `marks` are the control tokens in the text of calls. The grammar has them as tokens.
///
/// # Errors
/// The schema of a tool is malformed or too large.
pub fn write(
    texts: &ToolTexts,
    tools: &Tools<'_>,
    marks: &[Mark],
) -> Result<Option<ToolGrammar>, ApiError> {
    let admitted: Vec<&Tool<'_>> = tools.callable().collect();
    if admitted.is_empty() || tools.choice == Choice::None {
        return Ok(None);
    }
    let mut text = GrammarText::new();
    let mut calls = Vec::new();
    for tool in admitted {
        let arguments = match tool.parameters {
            Some(schema) => text.schema(&format!("tools.{}.parameters", tool.name), schema)?,
            None => text.object()?,
        };
        let start = [tool.name, &texts.arguments_prefix].concat();
        let mut call = format!("{} {arguments}", literal(&start, marks));
        if let Some(prefix) = &texts.id_prefix {
            // Mistral's models have IDs of this length.
            call = format!("{call} {} [a-zA-Z0-9]{{9}}", literal(prefix, marks));
        }
        calls.push(text.add("call", call)?);
    }
    let call = text.add("call", calls.join(" | "))?;
    let more = match texts.call_separator.as_ref().filter(|_| tools.is_parallel) {
        Some(separator) => format!("({} {call})*", literal(separator, marks)),
        None => String::new(),
    };
    let (prefix, suffix) = (&texts.call.prefix, &texts.call.suffix);
    text.root(format!("{} {call} {more} {}", literal(prefix, marks), literal(suffix, marks)))?;
    let trigger = match tools.choice {
        Choice::Auto => trigger(prefix, marks),
        _ => Trigger::Start,
    };
    Ok(Some(ToolGrammar { text: text.finish(), trigger }))
}

/// The first part of a call that no other text has: a token, a tag, or the start of the JSON.
fn trigger(prefix: &str, marks: &[Mark]) -> Trigger {
    if let Some((token, _)) = marks.iter().find(|(_, name)| prefix.starts_with(&**name)) {
        return Trigger::Token(*token);
    }
    let close = match prefix.trim_start().chars().next() {
        Some('<') => '>',
        Some('[') => ']',
        _ => return Trigger::StartingText(prefix.into()),
    };
    let end = prefix.find(close).map_or(prefix.len(), |end| end.saturating_add(close.len_utf8()));
    Trigger::Text(prefix.get(..end).unwrap_or(prefix).into())
}

/// A text in GBNF, with the control tokens as tokens.
fn literal(text: &str, marks: &[Mark]) -> String {
    let place = |(token, name): &Mark| text.find(&**name).map(|at| (at, *token, name.len()));
    match marks.iter().filter_map(place).min() {
        Some((at, token, n)) => {
            let (before, after) = (&text[..at], &text[at.saturating_add(n)..]);
            format!("{} <[{token}]> {}", quoted(before), literal(after, marks))
        }
        None => quoted(text),
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::super::super::testing;
    use super::super::object::Object;
    use super::*;
    use crate::llm::chat::Around;
    use crate::llm::grammar::Grammar;

    const TOOLS: &str = r#"{"tools":[
        {"type":"function","function":{"name":"f","parameters":
            {"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}}},
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

    /// The grammar for [`TOOLS`] and further fields.
    fn grammar(texts: &ToolTexts, marks: &[Mark], fields: &str) -> Option<ToolGrammar> {
        let body = format!("{TOOLS}{fields}}}");
        let object = Object::from_body(body.as_bytes()).unwrap();
        write(texts, &Tools::read(&object).unwrap(), marks).unwrap()
    }

    fn reads(grammar: &ToolGrammar, text: &str) -> bool {
        let parsed = Grammar::parse(&grammar.text, &testing::tokenizer());
        Arc::new(parsed.unwrap()).reads(text.as_bytes()).unwrap()
    }

    /// A call in Qwen's form.
    fn call(name: &str, arguments: &str) -> String {
        format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
    }

    #[test]
    fn a_grammar_has_each_tool_that_the_choice_admits() {
        let auto = grammar(&qwen(), &[], "").unwrap();
        assert_eq!(auto.trigger, Trigger::Text("<tool_call>".into()));
        let required = grammar(&qwen(), &[], r#","tool_choice":"required""#).unwrap();
        assert_eq!(required.trigger, Trigger::Start);
        let (f, g) = (call("f", r#"{"n": 7}"#), call("g", r#"{"any": ["x"]}"#));
        for grammar in [&auto, &required] {
            for text in [&f, &g, &format!("{f}\n{g}"), &format!("{g}\n{f}\n{f}")] {
                assert!(reads(grammar, text), "{text}");
            }
            for text in [&call("f", "{}"), &call("h", "{}"), &call("g", "[]"), "", "no", &g[1..]] {
                assert!(!reads(grammar, text), "{text}");
            }
        }
        let fields = r#","tool_choice":{"type":"function","function":{"name":"g"}},"parallel_tool_calls":false"#;
        let one = grammar(&qwen(), &[], fields).unwrap();
        assert!(reads(&one, &g) && !reads(&one, &f) && !reads(&one, &format!("{g}\n{g}")));
        assert_eq!(grammar(&qwen(), &[], r#","tool_choice":"none""#), None);
    }

    #[test]
    fn the_trigger_is_the_start_of_a_call_alone() {
        for (prefix, trigger) in [
            ("[TOOL_CALLS] [{\"name\": \"", Trigger::Text("[TOOL_CALLS]".into())),
            ("{\"name\": \"", Trigger::StartingText("{\"name\": \"".into())),
            ("\n<tool_call>{", Trigger::Text("\n<tool_call>".into())),
            ("<open", Trigger::Text("<open".into())),
        ] {
            let call = Around { prefix: prefix.into(), suffix: "\"}]".into() };
            let id_prefix = Some(", \"id\": \"".into());
            let texts = ToolTexts { call, id_prefix, ..qwen() };
            let grammar = grammar(&texts, &[], "").unwrap();
            assert_eq!(grammar.trigger, trigger);
            let with_id =
                |id: &str| format!("{prefix}g\", \"arguments\": {{}}, \"id\": \"{id}\"}}]");
            assert!(reads(&grammar, &with_id("aB3456789")) && !reads(&grammar, &with_id("short")));
        }
    }

    #[test]
    fn control_tokens_are_tokens_in_the_grammar() {
        let texts = ToolTexts {
            call: Around { prefix: "<|im_start|>[\"".into(), suffix: "]<|im_end|>".into() },
            ..qwen()
        };
        let all = marks(&[testing::IM_START, testing::IM_END], &testing::tokenizer());
        assert_eq!(all[0], (testing::IM_START, "<|im_start|>".into()));
        let grammar = grammar(&texts, &all, "").unwrap();
        assert_eq!(grammar.trigger, Trigger::Token(testing::IM_START));
        let (start, end) = (testing::IM_START, testing::IM_END);
        assert!(
            grammar.text.contains(&format!(r#"root ::= "" <[{start}]> "\["#)),
            "{}",
            grammar.text
        );
        assert!(grammar.text.contains(&format!(r#""\]" <[{end}]> """#)), "{}", grammar.text);
        Grammar::parse(&grammar.text, &testing::tokenizer()).unwrap();
    }

    #[test]
    fn a_malformed_schema_of_a_tool_is_refused_by_name() {
        let body = r#"{"tools":[{"type":"function","function":{"name":"f",
            "parameters":{"properties":{"n":{"type":"x"}}}}}]}"#;
        let object = Object::from_body(body.as_bytes()).unwrap();
        let error = write(&qwen(), &Tools::read(&object).unwrap(), &[]).unwrap_err();
        assert!(error.message.starts_with("`tools.f.parameters.properties.n.type`: "), "{error:?}");
    }
}
