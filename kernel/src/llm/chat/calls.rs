//! Finds calls of tools in the text of an answer, while the text comes.
//!
//! The text of a call is that of the chat template, blanks aside: models leave blanks out, or add
//! some. A call begins once its name is that of a tool and its arguments begin as an object.
//! Everything before that moment is held back, and is plain text if it turns out to be no call.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::json::Scanner;
use super::tools::ToolTexts;
use crate::llm::tokenizer::Tokenizer;

/// The most bytes of text that are held back.
const MAX_HELD: usize = 4096;

/// What calls look like, and the functions that may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallForm {
    /// From the start of the first call to its name.
    prefix: String,
    /// From the name to the arguments.
    arguments_prefix: String,
    /// Texts behind the arguments: whether another call follows, and the text.
    ///
    /// [`ID`] stands for the ID of a call.
    ends: Vec<(bool, String)>,
    /// The names of the functions.
    names: Vec<String>,
    /// Whether an answer may have several calls.
    is_parallel: bool,
}

/// The byte that stands for an ID in [`CallForm::ends`].
const ID: char = '\0';

impl CallForm {
    /// The form of calls of these functions.
    pub fn new(texts: &ToolTexts, names: Vec<String>, is_parallel: bool) -> Self {
        let mut ends = Vec::new();
        let separator = texts.call_separator.as_ref().filter(|_| is_parallel);
        for (follows, end) in [(false, Some(&texts.call.suffix)), (true, separator)] {
            let Some(end) = end else { continue };
            let Some(prefix) = &texts.id_prefix else {
                ends.push((follows, end.clone()));
                continue;
            };
            // Some models leave IDs out, with the quotes around them.
            let is_quoted = prefix.trim_end().ends_with('"');
            let bare = end.strip_prefix('"').filter(|_| is_quoted);
            ends.push((follows, bare.unwrap_or(end).into()));
            let mut with_id = prefix.clone();
            with_id.push(ID);
            with_id.push_str(end);
            ends.push((follows, with_id));
        }
        CallForm {
            prefix: texts.call.prefix.clone(),
            arguments_prefix: texts.arguments_prefix.clone(),
            ends,
            names,
            is_parallel,
        }
    }

    /// The control tokens in the text of calls, whose names belong to the text of an answer.
    pub fn marks(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let ends = self.ends.iter().map(|(_, text)| text);
        let mut marks = Vec::new();
        let mut bytes = Vec::new();
        for text in [&self.prefix, &self.arguments_prefix].into_iter().chain(ends) {
            for token in tokenizer.encode(text, false, true) {
                bytes.clear();
                tokenizer.push_bytes(token, &mut bytes);
                let is_silent = bytes.is_empty() && !tokenizer.is_end(token);
                if is_silent && !marks.contains(&token) {
                    marks.push(token);
                }
            }
        }
        marks
    }

    /// Whether a call is JSON without a mark before it.
    ///
    /// Such a call counts at the start of an answer only.
    fn is_bare(&self) -> bool {
        self.prefix.trim_start().starts_with('{')
    }
}

/// A part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Text beside the calls.
    Text(&'a str),
    /// The start of a call.
    Call {
        /// The function's name.
        name: &'a str,
        /// The text up to the arguments, for an answer that may take a call back.
        source: &'a str,
    },
    /// The next piece of the arguments of the last call.
    Arguments(&'a str),
    /// The last call is complete.
    End,
    /// The last call is malformed: its arguments cannot go on as JSON.
    Broken,
}

/// Takes the parts of an answer.
pub type Sink<'a> = &'a mut dyn FnMut(Part<'_>);

/// The search for calls in one answer.
#[derive(Debug, Default)]
pub struct CallParser {
    state: State,
    /// Text that is not given out.
    held: String,
    /// Whether text other than blanks was given out.
    has_text: bool,
    /// Whether the next blanks only stand behind a call.
    is_behind_call: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Within the arguments of a call.
    Arguments(Scanner),
    /// Behind the arguments of a call.
    Behind,
    /// No further call may follow, and no text.
    Over,
}

/// How a text compares with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    /// The text begins with the whole pattern, which ends at this place.
    Whole(usize),
    /// The text is a start of the pattern.
    Partial,
    No,
}

impl CallParser {
    /// Takes the next text of the answer.
    pub fn push(&mut self, form: &CallForm, text: &str, sink: Sink<'_>) {
        self.held.push_str(text);
        while self.step(form, sink) {}
        if self.held.len() > MAX_HELD {
            self.state = State::Text;
            self.give_text(self.held.len(), sink);
        }
    }

    /// Ends the answer. `is_cut`: its length ended it, so that an open call is not malformed.
    pub fn finish(&mut self, is_cut: bool, sink: Sink<'_>) {
        match self.state {
            State::Text => self.give_text(self.held.len(), sink),
            State::Arguments(_) if !is_cut => sink(Part::Broken),
            _ => {}
        }
        self.state = State::Over;
        self.held.clear();
    }

    /// Takes what can be taken of the held text. Returns whether another step may take more.
    fn step(&mut self, form: &CallForm, sink: Sink<'_>) -> bool {
        match self.state {
            State::Text => self.search(form, sink),
            State::Arguments(_) => self.take_arguments(sink),
            State::Behind => self.end_call(form, sink),
            State::Over => {
                self.held.clear();
                false
            }
        }
    }

    /// Searches the start of a call.
    fn search(&mut self, form: &CallForm, sink: Sink<'_>) -> bool {
        let mut from = 0;
        let first = form.prefix.trim_start().chars().next();
        let find = |held: &str, from| Some((held.get(from..)?.find(first?)?, first?.len_utf8()));
        while let Some((place, len)) = find(&self.held, from) {
            let start = place.saturating_add(from);
            let before = self.held[..start].trim_end().len();
            let is_misplaced = form.is_bare() && (self.has_text || before > 0);
            let mut name_at = start;
            let found = match matches(&form.prefix, &self.held[start..]) {
                _ if is_misplaced => Match::No,
                Match::Whole(end) => {
                    name_at = start.saturating_add(end);
                    head(form, &self.held, name_at)
                }
                other => other,
            };
            match found {
                Match::Whole(end) => {
                    self.give_text(before, sink);
                    self.begin(name_at.saturating_sub(before)..end.saturating_sub(before), sink);
                    return true;
                }
                Match::Partial => {
                    self.give_text(before, sink);
                    return false;
                }
                Match::No => from = start.saturating_add(len),
            }
        }
        // Blanks wait: before a call, they are no part of the text.
        self.give_text(self.held.trim_end().len(), sink);
        false
    }

    /// Begins a call whose [`head`] is this part of the held text.
    fn begin(&mut self, head: Range<usize>, sink: Sink<'_>) {
        let name = name_at_start(&self.held[head.clone()]);
        sink(Part::Call { name, source: &self.held[..head.end] });
        self.held.drain(..head.end);
        self.state = State::Arguments(Scanner::default());
    }

    fn take_arguments(&mut self, sink: Sink<'_>) -> bool {
        let State::Arguments(scanner) = &mut self.state else { return false };
        let mut end = 0;
        let mut is_json = true;
        for byte in self.held.bytes() {
            is_json = scanner.push(byte).is_some();
            if !is_json {
                break;
            }
            end = usize::saturating_add(end, 1);
            if scanner.is_complete() {
                break;
            }
        }
        let is_complete = scanner.is_complete();
        // JSON ends between two characters: within one, the text is that of a string.
        if let Some(text) = self.held.get(..end).filter(|text| !text.is_empty()) {
            sink(Part::Arguments(text));
        }
        self.held.drain(..end);
        if !is_json {
            sink(Part::Broken);
            self.has_text = true;
            self.state = State::Text;
        } else if is_complete {
            sink(Part::End);
            self.is_behind_call = true;
            self.state = State::Behind;
        }
        !is_json || is_complete
    }

    /// Searches the end of a call.
    fn end_call(&mut self, form: &CallForm, sink: Sink<'_>) -> bool {
        let mut may_come = false;
        for (follows, pattern) in &form.ends {
            match matches(pattern, &self.held) {
                Match::Whole(end) if !follows => {
                    self.held.drain(..end);
                    self.state = if form.is_parallel { State::Text } else { State::Over };
                    return true;
                }
                Match::Whole(end) => match head(form, &self.held, end) {
                    Match::Whole(head_end) => {
                        self.begin(end..head_end, sink);
                        return true;
                    }
                    Match::Partial => may_come = true,
                    Match::No => {}
                },
                Match::Partial => may_come = true,
                Match::No => {}
            }
        }
        if !may_come {
            // The call is whole all the same.
            self.state = if form.is_parallel { State::Text } else { State::Over };
        }
        !may_come
    }

    /// Gives out the first `n` bytes as text.
    fn give_text(&mut self, n: usize, sink: Sink<'_>) {
        let Some(mut text) = self.held.get(..n) else { return };
        if self.is_behind_call {
            text = text.trim_start();
        }
        if !text.is_empty() {
            self.is_behind_call = false;
            self.has_text |= !text.trim().is_empty();
            sink(Part::Text(text));
        }
        self.held.drain(..n);
    }
}

/// Compares a text with a pattern. Blanks of both are left out.
fn matches(pattern: &str, text: &str) -> Match {
    let mut chars = text.char_indices().filter(|(_, c)| !c.is_ascii_whitespace()).peekable();
    let mut end = 0;
    for expected in pattern.chars().filter(|c| !c.is_ascii_whitespace()) {
        if expected == ID {
            while chars.next_if(|(_, c)| is_of_name(*c)).is_some() {}
            continue;
        }
        match chars.next() {
            None => return Match::Partial,
            Some((place, c)) if c == expected => end = place.saturating_add(c.len_utf8()),
            Some(_) => return Match::No,
        }
    }
    Match::Whole(end)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// The longest start of a text that may be a name.
fn name_at_start(text: &str) -> &str {
    let rest = text.trim_start_matches(is_of_name).len();
    text.get(..text.len().saturating_sub(rest)).unwrap_or_default()
}

/// Whether a name of a function and the start of its arguments stand at `name_at`.
///
/// The match ends where the arguments begin.
fn head(form: &CallForm, text: &str, name_at: usize) -> Match {
    let behind = text.get(name_at..).unwrap_or_default();
    let name = name_at_start(behind);
    if name.len() == behind.len() {
        let may_come = form.names.iter().any(|other| other.starts_with(name));
        return if may_come { Match::Partial } else { Match::No };
    }
    if !form.names.iter().any(|other| other == name) {
        return Match::No;
    }
    let rest = &behind[name.len()..];
    let Match::Whole(end) = matches(&form.arguments_prefix, rest) else {
        return matches(&form.arguments_prefix, rest);
    };
    let arguments = rest[end..].trim_ascii_start();
    match arguments.chars().next() {
        Some('{') => Match::Whole(text.len().saturating_sub(arguments.len())),
        Some(_) => Match::No,
        None => Match::Partial,
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

    use super::super::Around;
    use super::*;

    fn qwen() -> ToolTexts {
        ToolTexts {
            call: around("<tool_call>\n{\"name\": \"", "}\n</tool_call>"),
            arguments_prefix: "\", \"arguments\": ".into(),
            call_separator: Some("}\n</tool_call>\n<tool_call>\n{\"name\": \"".into()),
            text_suffix: Some("\n".into()),
            ..ToolTexts::default()
        }
    }

    fn llama() -> ToolTexts {
        ToolTexts {
            call: around("{\"name\": \"", "}"),
            arguments_prefix: "\", \"parameters\": ".into(),
            ..ToolTexts::default()
        }
    }

    fn mistral() -> ToolTexts {
        ToolTexts {
            call: around("[TOOL_CALLS][{\"name\": \"", "\"}]"),
            arguments_prefix: "\", \"arguments\": ".into(),
            id_prefix: Some(", \"id\": \"".into()),
            call_separator: Some("\"}, {\"name\": \"".into()),
            ..ToolTexts::default()
        }
    }

    fn around(prefix: &str, suffix: &str) -> Around {
        Around { prefix: prefix.into(), suffix: suffix.into() }
    }

    fn form(texts: &ToolTexts) -> CallForm {
        CallForm::new(texts, vec!["f".into(), "get_time".into(), "f2".into()], true)
    }

    /// The parts as text: `f(ARGUMENTS)` for a call, `!` where one is malformed.
    fn parse(form: &CallForm, pieces: &[&str], is_cut: bool) -> String {
        let mut out = String::new();
        let mut parser = CallParser::default();
        let mut sink = |part: Part<'_>| match part {
            Part::Text(text) => out.push_str(text),
            Part::Call { name, .. } => out.extend(["‹", name, "("]),
            Part::Arguments(text) => out.push_str(text),
            Part::End => out.push_str(")›"),
            Part::Broken => out.push('!'),
        };
        for piece in pieces {
            parser.push(form, piece, &mut sink);
        }
        parser.finish(is_cut, &mut sink);
        out
    }

    /// The outcome of a text, which does not depend on how it is split.
    #[track_caller]
    fn gives(form: &CallForm, text: &str, expected: &str) {
        assert_eq!(parse(form, &[text], false), expected, "{text}");
        let letters: Vec<String> = text.chars().map(|c| c.into()).collect();
        let letters: Vec<&str> = letters.iter().map(|c| &**c).collect();
        assert_eq!(parse(form, &letters, false), expected, "{text}, letter by letter");
        for (at, _) in text.char_indices() {
            let (a, b) = text.split_at(at);
            assert_eq!(parse(form, &[a, b], false), expected, "{a:?} and {b:?}");
        }
    }

    #[test]
    fn calls_are_found_in_the_text_of_each_family() {
        let qwen = form(&qwen());
        let call = |name: &str, arguments: &str| {
            format!(
                "<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>"
            )
        };
        let one = call("f", r#"{"a": "}</tool_call>", "b": [1, {"é": null}]}"#);
        let found = r#"‹f({"a": "}</tool_call>", "b": [1, {"é": null}]})›"#;
        gives(&qwen, &one, found);
        gives(&qwen, &format!("\n{one}\n"), found);
        gives(&qwen, &format!("Let me see.\n\n{one}"), &format!("Let me see.{found}"));
        let two = format!("{one}\n{}", call("get_time", "{}"));
        gives(&qwen, &two, &format!("{found}‹get_time({{}})›"));
        gives(&qwen, &format!("{two}\nDone. \n"), &format!("{found}‹get_time({{}})›Done. \n"));
        // Without some blanks, with others, and without an end.
        let odd = "<tool_call>{\"name\":\"f2\",\n\"arguments\":{\"a\":1 } } </tool_call>";
        gives(&qwen, odd, "‹f2({\"a\":1 })›");
        gives(&qwen, "<tool_call>{\"name\":\"f2\",\"arguments\":{}", "‹f2({})›");

        let llama = form(&llama());
        gives(&llama, "\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "‹f({\"a\": 1})›");

        let mistral = form(&mistral());
        let text = "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"123456789\"}, \
                    {\"name\": \"get_time\", \"arguments\": {}, \"id\": \"abcdefghi\"}]";
        gives(&mistral, text, "‹f({\"a\": 1})›‹get_time({})›");
        let bare = "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"get_time\", \
                    \"arguments\": {}}]";
        gives(&mistral, bare, "‹f({})›‹get_time({})›");
        // Marks alone stand around the parts of a call.
        let marks = ToolTexts {
            call: around("[TOOL_CALLS]", ""),
            arguments_prefix: "[ARGS]".into(),
            call_separator: Some("[TOOL_CALLS]".into()),
            ..ToolTexts::default()
        };
        let text_of_marks = "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]get_time[ARGS]{}";
        gives(&form(&marks), text_of_marks, "‹f({\"a\": 1})›‹get_time({})›");
        gives(
            &mistral,
            &text.replace("[TOOL_CALLS]", "Well: [TOOL_CALLS]"),
            "Well:‹f({\"a\": 1})›‹get_time({})›",
        );
    }

    #[test]
    fn what_is_no_call_is_text() {
        let qwen = form(&qwen());
        for text in [
            "",
            " \n",
            "a < b, <tool, <tool_call>, <tool_call>\n{\"name\": \"",
            "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>",
            "<tool_call>\n{\"name\": \"f3\", \"arguments\": {}}\n</tool_call>",
            "<tool_call>\n{\"name\": \"f\", \"arguments\": []}\n</tool_call>",
            "<tool_call>\n{\"name\": \"f\", \"parameters\": {}}\n</tool_call>",
            "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
            "{\"name\": \"f\", \"arguments\": {}}",
        ] {
            gives(&qwen, text, text);
        }
        gives(&qwen, "<<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "<‹f({})›");
        let llama = form(&llama());
        for text in [
            "As JSON: {\"name\": \"f\", \"parameters\": {}}",
            "{\"name\": \"g\", \"parameters\": {}}",
        ] {
            gives(&llama, text, text);
        }
        // Texts by hand may leave the call out.
        gives(&form(&ToolTexts::default()), "a {\"b\": 1}", "a {\"b\": 1}");
    }

    #[test]
    fn malformed_arguments_end_a_call() {
        let qwen = form(&qwen());
        let text =
            |arguments: &str| format!("<tool_call>{{\"name\":\"f\",\"arguments\":{arguments}");
        gives(&qwen, &text("{\"a\": Paris}} x"), "‹f({\"a\": !Paris}} x");
        gives(&qwen, &text("{\"a\": [1}"), "‹f({\"a\": [1!}");
        gives(&qwen, &text("{\"a\": \"b"), "‹f({\"a\": \"b!");
        let cut = text("{\"a\": \"b");
        assert_eq!(parse(&qwen, &[&cut], true), "‹f({\"a\": \"b");
        // The source of a call that is taken back is the whole text before the arguments.
        let mut source = String::new();
        let mut parser = CallParser::default();
        let mut sink = |part: Part<'_>| match part {
            Part::Call { source: text, .. } => source = text.into(),
            Part::Text(text) => assert_eq!(text, "x"),
            _ => {}
        };
        parser.push(&qwen, &format!("x \n{}", text("{}")), &mut sink);
        assert_eq!(source, " \n<tool_call>{\"name\":\"f\",\"arguments\":");
    }

    #[test]
    fn one_call_alone_ends_the_answer() {
        let two = "{\"name\": \"f\", \"parameters\": {}}{\"name\": \"f\", \"parameters\": {}} more";
        let form = CallForm::new(&llama(), vec!["f".into()], false);
        gives(&form, two, "‹f({})›");
    }

    #[test]
    fn what_is_held_back_has_a_limit() {
        let form = form(&qwen());
        for piece in [" ".repeat(64), format!("<tool_call>{}", " ".repeat(53))] {
            let (mut parser, mut n_text) = (CallParser::default(), 0);
            for _ in 0..1000 {
                let mut sink = |part: Part<'_>| match part {
                    Part::Text(text) => n_text += text.len(),
                    other => panic!("{other:?}"),
                };
                parser.push(&form, &piece, &mut sink);
                assert!(parser.held.len() <= MAX_HELD);
            }
            assert!(n_text >= 64_000 - MAX_HELD);
        }
    }
}
