//! Derives fixed texts around messages from a model's chat template.
//!
//! The template runs once on marker messages, to find what it writes around messages. The kernel
//! has no space for Jinja, and takes these texts from its configuration.

mod jinja;
#[cfg(test)]
mod tests;
mod tools;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
pub use jinja::now;
use jinja::{Message, Program};
use kernel::llm::chat::tools::ToolTexts;
use kernel::llm::chat::{Around, Declared, Segment, Template, template};
use kernel::llm::gguf::Gguf;
use kernel::llm::tokenizer::Tokenizer;
use serde::Serialize;

/// Marker messages that no template writes by itself.
const SYSTEM: &str = "anchorite-system-message";
const QUESTIONS: [&str; 3] =
    ["anchorite-question-one", "anchorite-question-two", "anchorite-question-three"];
const ANSWERS: [&str; 2] = ["anchorite-answer-one", "anchorite-answer-two"];
const ANSWER: Message<'_> = Message { role: "assistant", content: ANSWERS[0] };

/// The key of a template for conversations with tools, beside that for others.
const TOOL_TEMPLATE: &str = "tokenizer.chat_template.tool_use";

/// The result of the search in a model's chat template.
#[derive(Serialize)]
pub struct Found {
    /// llama.cpp's name of the template, if the kernel recognises it.
    pub recognised: Option<&'static str>,
    /// The texts by the kernel's settings; `None` if the template gives none.
    pub settings: Option<BTreeMap<&'static str, String>>,
    /// Whether it takes a system message. If not, that goes before the first message.
    pub takes_system: bool,
    /// Why there are no texts, or where they differ from the template.
    pub problem: Option<String>,
    /// Why there are no texts around tools.
    pub tools_problem: Option<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.recognised {
            Some(name) => writeln!(f, "Chat template (the kernel recognises it as {name})")?,
            None => writeln!(f, "Chat template (none that the kernel recognises)")?,
        }
        for line in self.settings.as_ref().map(to_toml).iter().flat_map(|text| text.lines()) {
            writeln!(f, "    {line}")?;
        }
        if self.settings.is_some() && !self.takes_system {
            writeln!(
                f,
                "    It has no place for a system message, which goes before the first message."
            )?;
        }
        if let Some(problem) = &self.problem {
            writeln!(f, "    Incomplete: {problem}")?;
        }
        match &self.tools_problem {
            Some(problem) => writeln!(f, "    No tools: {problem}"),
            None => Ok(()),
        }
    }
}

/// Examines a model's chat template.
///
/// The result is `None` if the model has no template, or no tokenizer of the kernel's. `now` is the
/// time for dates, in seconds since 1970.
///
/// A template that cannot be run prevents only the chat, as in the kernel. A tokenizer that cannot
/// be used prevents the model from running; [`crate::model::ModelFile::memory_needed`] reports
/// that.
pub fn find(gguf: &Gguf<'_>, now: i64) -> Option<Found> {
    let declared = Declared::from_gguf(gguf);
    let recognised = declared.known.map(|known| known.name);
    let text = match template(gguf) {
        Ok(text) => text?,
        Err(error) => {
            let problem = Some(error.to_string());
            let (settings, tools_problem) = (None, None);
            return Some(Found {
                recognised,
                settings,
                takes_system: false,
                problem,
                tools_problem,
            });
        }
    };
    // The kernel puts the bos token before each text, so the texts do not need it.
    let begin = match Tokenizer::from_gguf(gguf).ok()?.begin() {
        Some(_) => declared.bos.as_str(),
        None => "",
    };
    let program = Program::new(text, &declared.bos, &declared.eos, now);
    let mut derived = Derived::from_program(&program, begin);
    let mut tools_problem = None;
    if let Ok(derived) = &mut derived {
        // Some models have a template of their own for conversations with tools.
        let own = gguf.string(TOOL_TEMPLATE).ok().flatten();
        let own = own.map(|text| Program::new(text, &declared.bos, &declared.eos, now));
        let (with_tools, is_own) = (own.as_ref().unwrap_or(&program), own.is_some());
        match tools::find(with_tools, derived, begin, is_own) {
            Ok(texts) => derived.template.tools = Some(Box::new(texts)),
            Err(error) => tools_problem = Some(format!("{error:#}")),
        }
    }
    Some(Found {
        recognised,
        tools_problem,
        takes_system: derived.as_ref().is_ok_and(|derived| derived.takes_system),
        settings: derived.as_ref().ok().map(|derived| settings(&derived.template)),
        problem: match derived {
            Ok(derived) => derived.difference(&program, begin),
            Err(error) => Some(format!("{error:#}")),
        },
    })
}

/// The kernel's settings for these texts, without default values.
fn settings(template: &Template) -> BTreeMap<&'static str, String> {
    let Template { system, user, assistant, first_user_prefix, after_system_prefix, tools } =
        template;
    let mut settings = BTreeMap::new();
    let given = [
        ("chat_system_prefix", Some(&system.prefix)),
        ("chat_system_suffix", Some(&system.suffix)),
        ("chat_user_prefix", Some(&user.prefix)),
        ("chat_user_suffix", Some(&user.suffix)),
        ("chat_assistant_prefix", Some(&assistant.prefix)),
        ("chat_assistant_suffix", Some(&assistant.suffix)),
        ("chat_first_user_prefix", first_user_prefix.as_ref()),
        ("chat_after_system_prefix", after_system_prefix.as_ref()),
    ];
    settings.extend(given.into_iter().filter_map(|(key, text)| Some((key, text?.clone()))));
    if let Some(tools) = tools {
        settings.extend(tool_settings(tools));
    }
    settings
}

/// The kernel's settings for the texts around tools, without default values.
fn tool_settings(texts: &ToolTexts) -> impl Iterator<Item = (&'static str, String)> {
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let results_form = if texts.quotes_results { "quoted" } else { "plain" };
    let settings = [
        ("chat_tools_place", Some(texts.place.name().to_owned())),
        ("chat_tools_form", Some(texts.form.name().to_owned())),
        ("chat_tools_prefix", some(&texts.tools.prefix)),
        ("chat_tools_suffix", some(&texts.tools.suffix)),
        ("chat_tools_separator", some(&texts.separator)),
        ("chat_tools_system_prefix", some(&texts.system.prefix)),
        ("chat_tools_system_suffix", some(&texts.system.suffix)),
        ("chat_tools_user_prefix", texts.user_prefix.clone()),
        ("chat_calls_prefix", some(&texts.call.prefix)),
        ("chat_calls_arguments_prefix", some(&texts.arguments_prefix)),
        ("chat_calls_id_prefix", texts.id_prefix.clone()),
        ("chat_calls_separator", texts.call_separator.clone()),
        ("chat_calls_suffix", some(&texts.call.suffix)),
        ("chat_calls_text_suffix", texts.text_suffix.clone()),
        ("chat_results_form", Some(results_form.to_owned())),
        ("chat_results_prefix", some(&texts.results.prefix)),
        ("chat_results_id_prefix", texts.result_id_prefix.clone()),
        ("chat_results_separator", some(&texts.result_separator)),
        ("chat_results_suffix", some(&texts.results.suffix)),
        ("chat_results_last_suffix", texts.last_result_suffix.clone()),
    ];
    settings.into_iter().filter_map(|(key, text)| Some((key, text?)))
}

/// Formats settings as lines of TOML.
pub fn to_toml(settings: &BTreeMap<&'static str, String>) -> String {
    let line = |(key, text): (&&str, &String)| {
        // TOML's strings are JSON's, but DEL must be escaped too.
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        format!("{key} = {}\n", quoted.replace('\x7f', "\\u007F"))
    };
    settings.iter().map(line).collect()
}

/// A conversation of marker questions, with answers between them.
fn conversation(with_system: bool, questions: usize) -> Vec<Message<'static>> {
    let mut messages = Vec::new();
    if with_system {
        messages.push(Message { role: "system", content: SYSTEM });
    }
    for (i, question) in QUESTIONS.into_iter().take(questions).enumerate() {
        if i > 0 {
            messages.push(Message { role: "assistant", content: ANSWERS[i - 1] });
        }
        messages.push(Message { role: "user", content: question });
    }
    messages
}

/// Splits a text at a marker, which must occur once.
fn around<'t>(text: &'t str, mark: &str) -> Result<(&'t str, &'t str)> {
    let parts = text.split_once(mark).context("it leaves a message out, or changes it")?;
    ensure!(!parts.1.contains(mark), "it repeats a message");
    Ok(parts)
}

/// The fixed texts of a template, found by running it.
struct Derived {
    template: Template,
    takes_system: bool,
    /// Whether it writes a generation prompt; else the text before answers is used.
    asks: bool,
    /// Blanks before an answer, which the model writes by itself.
    lead: String,
}

impl Derived {
    /// Finds the texts. `begin` is the text of the bos token that the kernel adds.
    ///
    /// # Errors
    /// The template refuses a conversation, or does not write each message once, in order and
    /// unchanged.
    fn from_program(program: &Program<'_>, begin: &str) -> Result<Derived> {
        let without_begin = |text: &str| text.strip_prefix(begin).unwrap_or(text).to_owned();
        let one = program.render(&conversation(false, 1), true)?;
        let two = program.render(&conversation(false, 2), true)?;
        let (opening, asking) = around(&one, QUESTIONS[0])?;
        let (_, rest) = around(&two, QUESTIONS[0])?;
        let (before_answer, rest) = around(rest, ANSWERS[0])?;
        let (between, _) = around(rest, QUESTIONS[1])?;

        // A message's end shows if no answer is asked for. Not every template takes such a
        // conversation. Then the text between two messages belongs to the second one.
        let end_of = |messages: &[Message<'_>]| {
            let last = messages.last().map_or("", |message| message.content);
            let text = program.render(messages, false).ok()?;
            Some(around(&text, last).ok()?.1.to_owned())
        };
        let split = |text: &str, end: Option<String>| match end {
            Some(end) if text.starts_with(&end) => (end.clone(), text[end.len()..].to_owned()),
            _ => (String::new(), text.to_owned()),
        };
        let (user_suffix, mut asking) = split(asking, end_of(&conversation(false, 1)));
        let answered = [&conversation(false, 2)[..1], &[ANSWER]].concat();
        let (assistant_suffix, user_prefix) = split(between, end_of(&answered));

        let before_answer = before_answer.strip_prefix(&user_suffix).unwrap_or_default();
        let asks = !asking.is_empty() || before_answer.trim().is_empty();
        if !asks {
            asking = before_answer.to_owned();
        }
        let lead = before_answer.strip_prefix(&asking).unwrap_or_default();
        let lead = if lead.trim().is_empty() { lead } else { "" };

        let opening = without_begin(opening);
        let with_system = program.render(&conversation(true, 1), true).ok();
        let system = with_system.as_deref().and_then(|text| {
            let (before, rest) = around(text, SYSTEM).ok()?;
            Some((without_begin(before), around(rest, QUESTIONS[0]).ok()?.0))
        });
        let takes_system = system.is_some();
        // llama.cpp also puts the system message there if a template has no place for it.
        let (system_prefix, behind) = system.unwrap_or((opening.clone(), "\n\n"));
        let own = behind.strip_suffix(&user_prefix);
        let template = Template {
            system: Around { prefix: system_prefix, suffix: own.unwrap_or(behind).to_owned() },
            after_system_prefix: own.is_none().then(String::new),
            tools: None,
            first_user_prefix: (opening != user_prefix).then_some(opening),
            user: Around { prefix: user_prefix, suffix: user_suffix },
            assistant: Around { prefix: asking, suffix: assistant_suffix },
        };
        Ok(Derived { template, takes_system, asks, lead: lead.to_owned() })
    }

    /// The segments of a conversation.
    fn compose<'t>(&'t self, messages: &[Message<'t>]) -> Vec<Segment<'t>> {
        let (system, rest) = match messages {
            [system, rest @ ..] if system.role == "system" => (system.content, rest),
            rest => ("", rest),
        };
        let mut segments = Vec::new();
        for (i, message) in rest.iter().enumerate() {
            segments.extend(match message.role {
                "assistant" => {
                    vec![Segment::Message(&self.lead), Segment::Message(message.content)]
                }
                _ if i == 0 => self.template.open(system, message.content),
                _ => self.template.go_on(message.content),
            });
        }
        segments
    }

    /// The first conversation where the template's text differs; `None` if none does.
    fn difference(&self, program: &Program<'_>, begin: &str) -> Option<String> {
        for with_system in [false, true] {
            for questions in 1..=QUESTIONS.len() {
                if with_system && !self.takes_system {
                    continue;
                }
                let messages = conversation(with_system, questions);
                let which = format!(
                    "with {questions} question{}{}",
                    if questions == 1 { "" } else { "s" },
                    if with_system { " and a system message" } else { "" }
                );
                let expected = match program.render(&messages, true) {
                    Ok(text) => text,
                    Err(error) => return Some(format!("{which} it fails: {error}")),
                };
                let mut expected = expected.strip_prefix(begin).unwrap_or(&expected).to_owned();
                if !self.asks {
                    expected.push_str(&self.template.assistant.prefix);
                }
                let given = text_of(&self.compose(&messages));
                if given != expected {
                    let (given, expected) = parting(&given, &expected);
                    return Some(format!(
                        "{which} it writes {expected:?}, the texts give {given:?}"
                    ));
                }
            }
        }
        None
    }
}

fn text_of(segments: &[Segment<'_>]) -> String {
    segments.iter().map(|segment| segment.text()).collect()
}

/// An excerpt of both texts, from shortly before their first difference.
fn parting<'t>(a: &'t str, b: &'t str) -> (&'t str, &'t str) {
    const BEFORE: usize = 20;
    const SHOWN: usize = 60;
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let excerpt = |text: &'t str| {
        let place = |n| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
        let start = same.saturating_sub(BEFORE);
        &text[place(start)..place(start + SHOWN)]
    };
    (excerpt(a), excerpt(b))
}
