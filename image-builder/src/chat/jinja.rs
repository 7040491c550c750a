//! Runs a chat template as `transformers` and llama.cpp run it.

use std::env;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kernel::llm::chat::json::{self, Style};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde_json::value::RawValue;

/// The limit of a template's steps. The longest known templates take a hundredth.
const FUEL: u64 = 1_000_000;

/// A message with its role.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `system`, `user` or `assistant`.
    pub role: &'a str,
    /// The message's text.
    pub content: &'a str,
}

/// A model's chat template.
pub struct Program<'a> {
    environment: Environment<'a>,
    text: String,
    bos: &'a str,
    eos: &'a str,
    now: i64,
}

impl<'a> Program<'a> {
    /// The template `text`, with the texts of the bos and eos tokens.
    ///
    /// `now` is the time for dates, in seconds since 1970.
    pub fn new(text: &str, bos: &'a str, eos: &'a str, now: i64) -> Self {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().expect("the usual marks do not exclude each other"));
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // In Jinja, undefined is not iterable: `tools is iterable` asks whether there are tools.
        environment
            .add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", move |format: String| format_date(&format, now));
        Program { environment, text: without_generation_tags(text), bos, eos, now }
    }

    /// Renders the messages; with `ask`, followed by the prompt for an answer.
    ///
    /// # Errors
    /// The template is malformed, or refuses the messages.
    pub fn render(&self, messages: &[Message<'_>], ask: bool) -> Result<String> {
        let messages = messages
            .iter()
            .map(|message| context! { role => message.role, content => message.content })
            .collect();
        self.render_values(messages, Value::from(()), ask)
    }

    /// Renders messages with all of their fields, and tools: a list, or none.
    ///
    /// # Errors
    /// The template is malformed, or refuses the messages.
    pub fn render_values(&self, messages: Vec<Value>, tools: Value, ask: bool) -> Result<String> {
        let values = context! {
            messages,
            add_generation_prompt => ask,
            bos_token => self.bos,
            eos_token => self.eos,
            tools,
            documents => (),
            // llama.cpp gives these beside the values of `transformers`.
            enable_thinking => true,
            date_string => format_date("%d %b %Y", self.now)?,
            datetime => format_date("%b %d %Y", self.now)?,
        };
        self.environment.render_named_str("chat_template", &self.text, values).map_err(|error| {
            let place = error.line().map(|line| format!("line {line}: "));
            let why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            anyhow::anyhow!("{}{why}", place.unwrap_or_default())
        })
    }
}

/// An object of JSON, whose fields keep their order.
#[derive(Debug)]
struct Fields(Vec<(String, Value)>);

impl Object for Fields {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        self.0.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(key, _)| Value::from(key.clone())).collect())
    }
}

/// The value of a JSON text.
///
/// # Errors
/// The text is malformed.
pub fn from_json(text: &str) -> Result<Value> {
    let text = text.trim();
    if let Some(fields) = json::fields(text) {
        let field = |(key, value): (String, &str)| Ok((key, from_json(value)?));
        return Ok(Value::from_object(Fields(
            fields.into_iter().map(field).collect::<Result<_>>()?,
        )));
    }
    if text.starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(text)?;
        let values = elements.into_iter().map(|element| from_json(element.get()));
        return Ok(Value::from(values.collect::<Result<Vec<_>>>()?));
    }
    Ok(match serde_json::from_str(text)? {
        serde_json::Value::Bool(value) => Value::from(value),
        serde_json::Value::String(text) => Value::from(text),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::from(number),
            None => Value::from(number.as_f64()),
        },
        _ => Value::from(()),
    })
}

/// The filter `tojson` as `transformers` has it: without the escapes of HTML.
fn to_json(value: &Value, indent: Option<Value>, arguments: Kwargs) -> Result<Value, Error> {
    let wrong = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"));
    let indent = match indent {
        Some(indent) => Some(indent),
        None => arguments.get::<Option<Value>>("indent")?,
    };
    let indent = indent.filter(|indent| !indent.is_none()).map(usize::try_from).transpose()?;
    if arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false) {
        return Err(wrong("`ensure_ascii` is not supported"));
    }
    arguments.assert_all_used()?;
    let mut compact = String::new();
    push_json(value, &mut compact)?;
    let mut out = String::new();
    let style = indent.map_or(Style::Line, Style::Indented);
    json::reformat(&compact, style, &mut out).ok_or_else(|| wrong("a value is no JSON"))?;
    Ok(Value::from(out))
}

fn push_json(value: &Value, out: &mut String) -> Result<(), Error> {
    let mut between = "";
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for element in value.try_iter()? {
                out.push_str(between);
                push_json(&element, out)?;
                between = ",";
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for key in value.try_iter()? {
                out.push_str(between);
                json::push_text(&key.to_string(), out);
                out.push(':');
                push_json(&value.get_item(&key)?, out)?;
                between = ",";
            }
            out.push('}');
        }
        _ => json::push_text(&value.to_string(), out),
    }
    Ok(())
}

/// Replaces `{% generation %}` and its end by comments.
///
/// The tags mark the model's text for a trainer, and write nothing. The comments strip the blanks
/// around them as the tags do.
fn without_generation_tags(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((inside, after)) = tag.split_once("%}") else { break };
        out.push_str(before);
        let name = inside.trim_matches(['-', '+']).trim();
        if matches!(name, "generation" | "endgeneration") {
            let strips = |strips: bool| if strips { "-" } else { "" };
            let start = strips(inside.starts_with('-'));
            out.push_str(&format!("{{#{start}{}#}}", strips(inside.ends_with('-'))));
        } else {
            out.push_str(&format!("{{%{inside}%}}"));
        }
        rest = after;
    }
    out + rest
}

fn format_date(format: &str, now: i64) -> Result<String, Error> {
    let date = Timestamp::from_second(now).map(|time| time.to_zoned(TimeZone::UTC));
    date.and_then(|date| jiff::fmt::strtime::format(format, &date))
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// The time in seconds since 1970, by `SOURCE_DATE_EPOCH` or the clock.
///
/// With `SOURCE_DATE_EPOCH`, a disk can be made again bit for bit.
///
/// # Errors
/// `SOURCE_DATE_EPOCH` is not a number.
pub fn now() -> Result<i64> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds.parse().context("SOURCE_DATE_EPOCH is no number of seconds"),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().try_into()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> Result<String> {
        let question = Message { role: "user", content: "Who?" };
        Program::new(text, "<s>", "</s>", 1_136_214_245).render(&[question], true)
    }

    #[test]
    fn a_template_has_what_transformers_and_llama_cpp_give_it() {
        let text = "  {% if tools is none and documents is none and not x is defined %}\n\
            \x20   {{ bos_token ~ messages[0].content.upper().split('H') | tojson ~ eos_token }}\n\
            {% endif %}";
        assert_eq!(render(text).unwrap(), "    <s>[\"W\", \"O?\"]</s>\n");
        assert_eq!(render("{{ strftime_now('%d %b %Y, %H:%M') }}").unwrap(), "02 Jan 2006, 15:04");
        let of_llama_cpp = "{{ enable_thinking }}, {{ date_string }}, {{ datetime }}";
        assert_eq!(render(of_llama_cpp).unwrap(), "True, 02 Jan 2006, Jan 02 2006");
        let iterable = "{{ tools is iterable }}{{ messages is iterable }}{{ 'a' is iterable }}";
        assert_eq!(render(iterable).unwrap(), "FalseTrueTrue");
        assert_eq!(render("{% for i in range(7) %}{% break %}{% endfor %}a").unwrap(), "a");
    }

    #[test]
    fn what_a_template_refuses_it_says() {
        let error = |text| render(text).unwrap_err().to_string();
        assert_eq!(error("a\n{{ raise_exception('no, thanks') }}"), "line 2: no, thanks");
        assert!(error("{{ strftime_now('%!') }}").contains("line 1"));
        assert!(error("{% if %}").contains("line 1"));
        assert!(error("{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}").contains("fuel"));
    }

    #[test]
    fn tags_for_trainers_write_nothing() {
        let text = "a {%- generation -%} b {% endgeneration %} c {% if true %}d{% endif %}{%";
        assert_eq!(without_generation_tags(text), "a {#--#} b {##} c {% if true %}d{% endif %}{%");
        assert_eq!(render("a {%- generation %} b {%- endgeneration -%} c").unwrap(), "a bc");
    }
}
