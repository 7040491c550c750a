//! Finds the texts of a chat template around tools, calls and results.
//!
//! The template runs on marker tools, calls and results, as it does on marker messages.

use anyhow::{Context, Result, bail, ensure};
use kernel::llm::chat::conversation::{self, Call, Ending, Role};
use kernel::llm::chat::tools::{ToolForm, ToolPlace, ToolTexts};
use kernel::llm::chat::{Around, Template, json};
use minijinja::Value;

use super::jinja::{Program, from_json};
use super::{ANSWERS, Derived, QUESTIONS, SYSTEM, around, parting};

/// Marker tools. Their texts show which escapes the template writes.
const TOOLS: [&str; 2] = [
    r#"{"type":"function","function":{"name":"anchorite_tool_one","description":"The \"first\"\none, <é>","parameters":{"type":"object","properties":{"anchorite_b":{"type":"string","description":"B"},"anchorite_a":{"type":"integer","description":"A"}},"required":["anchorite_b"]}}}"#,
    r#"{"type":"function","function":{"name":"anchorite_tool_two","description":"The second","parameters":{"type":"object","properties":{"anchorite_c":{"type":"array","description":"C"}}}}}"#,
];

/// The arguments of marker calls.
const ARGUMENTS: [&str; 2] =
    [r#"{"anchorite_b": "\"one\"\n<é>", "anchorite_a": 1}"#, r#"{"anchorite_c": [2, null]}"#];
/// The names of marker calls.
const NAMES: [&str; 2] = ["anchorite_tool_one", "anchorite_tool_two"];
/// IDs of marker calls. Mistral's templates take no others than those of nine letters and digits.
const IDS: [&str; 2] = ["anchorit1", "anchorit2"];
/// The results of marker calls.
const RESULTS: [&str; 2] = ["anchorite \"result\"\none", "anchorite result two"];

/// A message of a marker conversation.
#[derive(Clone, Copy)]
enum Turn {
    System,
    Question(usize),
    Answer(usize),
    /// A text, if any, and so many calls.
    Calls(&'static str, usize),
    Result(usize),
}

impl Turn {
    /// The message as the template takes it.
    fn value(self) -> Result<Value> {
        let quoted = |text: &str| {
            let mut out = String::new();
            json::push_text(text, &mut out);
            out
        };
        let plain = |role, text| format!(r#"{{"role":"{role}","content":{}}}"#, quoted(text));
        from_json(&match self {
            Turn::System => plain("system", SYSTEM),
            Turn::Question(i) => plain("user", QUESTIONS[i]),
            Turn::Answer(i) => plain("assistant", ANSWERS[i]),
            Turn::Calls(text, n) => {
                let call = |i: usize| {
                    let [id, name, arguments] = [IDS[i], NAMES[i], ARGUMENTS[i]];
                    format!(
                        r#"{{"id":"{id}","type":"function","function":{{"name":"{name}","arguments":{arguments}}}}}"#
                    )
                };
                let calls: Vec<String> = (0..n).map(call).collect();
                let text = quoted(text);
                let calls = calls.join(",");
                format!(r#"{{"role":"assistant","content":{text},"tool_calls":[{calls}]}}"#)
            }
            Turn::Result(i) => format!(
                r#"{{"role":"tool","content":{},"tool_call_id":"{}","name":"{}"}}"#,
                quoted(RESULTS[i]),
                IDS[i],
                NAMES[i]
            ),
        })
    }

    /// The message as the kernel takes it. Blanks before an answer are `lead`.
    fn message(self, texts: &ToolTexts, lead: &str) -> conversation::Message {
        let plain = |role, text: &str| conversation::Message::new(role, text);
        match self {
            Turn::System => plain(Role::System, SYSTEM),
            Turn::Question(i) => plain(Role::User, QUESTIONS[i]),
            Turn::Answer(i) => plain(Role::Assistant, &[lead, ANSWERS[i]].concat()),
            Turn::Calls(text, n) => {
                let call = |i: usize| Call {
                    id: IDS[i].into(),
                    name: NAMES[i].into(),
                    arguments: ARGUMENTS[i].into(),
                };
                let calls = (0..n).map(call).collect();
                conversation::Message { calls, ..plain(Role::Assistant, text) }
            }
            Turn::Result(i) => conversation::Message {
                call_id: IDS[i].into(),
                ..plain(Role::Tool, &texts.result(RESULTS[i].into()))
            },
        }
    }
}

/// The search in one template.
struct Search<'p> {
    program: &'p Program<'p>,
    derived: &'p Derived,
    /// The text of the bos token that the kernel adds.
    begin: &'p str,
    /// Whether the template has to do with conversations with tools alone.
    is_own: bool,
}

/// Finds the texts around tools in a template.
///
/// The other texts are known. `is_own`: they are those of another template of the model.
///
/// # Errors
/// The template takes no tools, or writes them in no form that fixed texts give.
pub fn find(
    program: &Program<'_>,
    derived: &Derived,
    begin: &str,
    is_own: bool,
) -> Result<ToolTexts> {
    let search = Search { program, derived, begin, is_own };
    let mut texts = search.tools()?;
    search.calls(&mut texts).context("calls of tools")?;
    search.results(&mut texts).context("results of tools")?;
    search.check(&texts)?;
    Ok(texts)
}

impl Search<'_> {
    fn template(&self) -> &Template {
        &self.derived.template
    }

    /// The text of a conversation with so many tools, without what comes by itself.
    fn render(&self, n_tools: usize, turns: &[Turn], ask: bool) -> Result<String> {
        let turns = turns.iter().map(|turn| turn.value()).collect::<Result<_>>()?;
        let tools = match n_tools {
            0 => Value::from(()),
            n => Value::from(TOOLS[..n].iter().map(|t| from_json(t)).collect::<Result<Vec<_>>>()?),
        };
        let mut text = self.program.render_values(turns, tools, ask)?;
        if ask && !self.derived.asks {
            text.push_str(&self.template().assistant.prefix);
        }
        Ok(text.strip_prefix(self.begin).unwrap_or(&text).to_owned())
    }

    /// The form of tools in a text, and the texts before and behind them.
    fn form<'t>(&self, n: usize, text: &'t str) -> Option<(ToolForm, Vec<&'t str>)> {
        // The longest form first: a tool holds its function.
        ToolForm::ALL.into_iter().find_map(|form| {
            let mut parts = Vec::new();
            let mut rest = text;
            for tool in &TOOLS[..n] {
                let (before, behind) = around(rest, &form.write(tool)?).ok()?;
                parts.push(before);
                rest = behind;
            }
            parts.push(rest);
            Some((form, parts))
        })
    }

    /// Finds the texts around the tools.
    fn tools(&self) -> Result<ToolTexts> {
        let template = self.template();
        let first_prefix = template.first_user_prefix.as_ref().unwrap_or(&template.user.prefix);
        let question = [Turn::Question(0)];
        let with_tools = self.render(1, &question, true)?;
        ensure!(with_tools.contains(NAMES[0]), "it leaves tools out");
        let (form, one) =
            self.form(1, &with_tools).context("it writes tools in a form of its own")?;
        let two = self.render(2, &question, true)?;
        let (other, two) = self.form(2, &two).context("it writes two tools in another form")?;
        ensure!(other == form && two[0] == one[0], "it writes two tools in another form");
        let (behind, _) =
            around(one[1], QUESTIONS[0]).context("the tools stand behind the question")?;
        let mut texts = ToolTexts { form, separator: two[1].to_owned(), ..ToolTexts::default() };

        let later =
            self.render(1, &[Turn::Question(0), Turn::Answer(0), Turn::Question(1)], true)?;
        let (_, later) = self.form(1, &later).context("it leaves tools out of a second round")?;
        if later[0].contains(QUESTIONS[0]) {
            texts.place = ToolPlace::LastUser;
            let suffix = behind.strip_suffix(&**first_prefix);
            let suffix = suffix.context("tools change the text before a question")?;
            texts.tools = Around { prefix: one[0].to_owned(), suffix: suffix.to_owned() };
            return Ok(texts);
        }
        let own = behind.strip_suffix(&*template.user.prefix);
        texts.user_prefix = own.is_none().then(String::new);
        texts.tools =
            Around { prefix: one[0].to_owned(), suffix: own.unwrap_or(behind).to_owned() };
        if !self.derived.takes_system {
            // As without tools: the system message stands before the first message.
            texts.system = template.system.clone();
            return Ok(texts);
        }
        let with_system = self.render(1, &[Turn::System, Turn::Question(0)], true)?;
        let (_, parts) = self.form(1, &with_system).context("a system message moves the tools")?;
        let (system, place) = match around(parts[0], SYSTEM) {
            Ok((prefix, suffix)) => {
                let behind = around(parts[1], QUESTIONS[0])?.0;
                let behind =
                    behind.strip_suffix(if own.is_some() { &*template.user.prefix } else { "" });
                ensure!(behind == Some(&*texts.tools.suffix), "a system message changes the tools");
                ((prefix, suffix), ToolPlace::AfterSystem)
            }
            Err(_) => {
                ensure!(parts[0] == texts.tools.prefix, "a system message changes the tools");
                let (prefix, rest) = around(parts[1], SYSTEM)?;
                let (suffix, _) = around(rest, QUESTIONS[0])?;
                let suffix = match own {
                    Some(_) => suffix.strip_suffix(&*template.user.prefix),
                    None => Some(suffix),
                };
                let suffix =
                    suffix.context("a system message changes the text before a question")?;
                ((prefix, suffix), ToolPlace::BeforeSystem)
            }
        };
        texts.place = place;
        texts.system = Around { prefix: system.0.to_owned(), suffix: system.1.to_owned() };
        Ok(texts)
    }

    /// The text of an answer with calls, without what stands around each answer.
    ///
    /// The answer is not the last message, where the template admits that: some templates write
    /// the last message in another way.
    fn answer(&self, texts: &ToolTexts, text: &'static str, n_calls: usize) -> Result<String> {
        let Template { user, assistant, .. } = self.template();
        let turns = [Turn::Question(0), Turn::Calls(text, n_calls), Turn::Question(1)];
        let all = match self.render(TOOLS.len(), &turns, false) {
            Ok(text) => {
                let (text, _) = around(&text, QUESTIONS[1])?;
                let before_question = match texts.place {
                    ToolPlace::LastUser => &texts.tools.prefix,
                    _ => &user.prefix,
                };
                let end = [&*assistant.suffix, before_question].concat();
                let end = text.rfind(&end).context("the text behind an answer is another one")?;
                text[..end].to_owned()
            }
            Err(_) => {
                let text = self.render(TOOLS.len(), &turns[..2], false)?;
                let end = text.strip_suffix(&*assistant.suffix);
                end.context("the text behind an answer is another one")?.to_owned()
            }
        };
        let (_, answer) = around(&all, QUESTIONS[0])?;
        let answer = answer.strip_prefix(&*user.suffix).context("a call changes the question")?;
        let answer = answer.strip_prefix(&*assistant.prefix);
        Ok(answer.context("the text before an answer is another one")?.to_owned())
    }

    /// Finds the texts around the calls of an answer.
    fn calls(&self, texts: &mut ToolTexts) -> Result<()> {
        let one = self.answer(texts, "", 1)?;
        let (prefix, rest) = around(&one, NAMES[0])?;
        ensure!(!prefix.contains(IDS[0]), "the ID of a call stands before its name");
        ensure!(!prefix.trim().is_empty(), "nothing marks the start of a call");
        let (arguments_prefix, rest) =
            around(rest, ARGUMENTS[0]).context("it writes the arguments in a form of its own")?;
        let (id_prefix, suffix) = match around(rest, IDS[0]) {
            Ok((id_prefix, rest)) => (Some(id_prefix.to_owned()), rest),
            Err(_) => (None, rest),
        };
        texts.call = Around { prefix: prefix.to_owned(), suffix: suffix.to_owned() };
        texts.arguments_prefix = arguments_prefix.to_owned();
        texts.id_prefix = id_prefix;

        let two = self.answer(texts, "", 2).ok();
        texts.call_separator = two.as_deref().and_then(|two| {
            let (_, rest) = around(two, ARGUMENTS[0]).ok()?;
            let rest = match texts.id_prefix {
                Some(_) => around(rest, IDS[0]).ok()?.1,
                None => rest,
            };
            Some(around(rest, NAMES[1]).ok()?.0.to_owned())
        });

        let with_text = self.answer(texts, ANSWERS[0], 1)?;
        if let Ok((_, rest)) = around(&with_text, ANSWERS[0]) {
            let (between, _) = around(rest, NAMES[0])?;
            let between = between.strip_suffix(prefix);
            texts.text_suffix =
                Some(between.context("a text changes the call behind it")?.to_owned());
        }
        Ok(())
    }

    /// Finds the texts around the results of calls.
    fn results(&self, texts: &mut ToolTexts) -> Result<()> {
        let template = self.template();
        let quoted = |i: usize| {
            let mut out = String::new();
            json::push_text(RESULTS[i], &mut out);
            out
        };
        let calls = if texts.call_separator.is_some() { 2 } else { 1 };
        let open = [Turn::Question(0), Turn::Calls("", calls)];
        let before = self.compose(texts, 2, &open, Ending::Close).unwrap_or_default();
        let results = |n: usize| -> Result<String> {
            let turns = [&open[..], &[Turn::Result(0), Turn::Result(1)][..n]].concat();
            let text = self.render(2, &turns, true)?;
            let results = text.strip_prefix(&before).context("a result changes what was before")?;
            let asking = results.strip_suffix(&*template.assistant.prefix);
            Ok(asking.context("an answer behind a result is asked for in another way")?.to_owned())
        };
        let one = results(1)?;
        texts.quotes_results = !one.contains(RESULTS[0]);
        let mark = |i| if texts.quotes_results { quoted(i) } else { RESULTS[i].to_owned() };
        let (prefix, rest) = around(&one, &mark(0))?;
        let (id_prefix, suffix) = match around(rest, IDS[0]) {
            Ok((id_prefix, rest)) => (Some(id_prefix.to_owned()), rest),
            Err(_) => (None, rest),
        };
        let two = results(2)?;
        let (_, rest) = around(&two, &mark(0))?;
        let rest = if id_prefix.is_some() { around(rest, IDS[0])?.1 } else { rest };
        texts.result_separator = around(rest, &mark(1))?.0.to_owned();
        texts.results = Around { prefix: prefix.to_owned(), suffix: suffix.to_owned() };
        texts.result_id_prefix = id_prefix;

        // Some templates end results otherwise where an answer follows.
        let behind = [Turn::Result(0), Turn::Answer(0), Turn::Question(1)];
        let turns = [&open[..], &behind].concat();
        let middle = self.render(2, &turns, false)?;
        let (_, rest) = around(&middle, &mark(0))?;
        let rest = if texts.result_id_prefix.is_some() { around(rest, IDS[0])?.1 } else { rest };
        let answer = [&*template.assistant.prefix, &*self.derived.lead].concat();
        let (suffix, _) = around(rest, ANSWERS[0])?;
        let suffix = suffix.strip_suffix(&*answer);
        let suffix = suffix.context("the text before an answer behind a result is another one")?;
        if suffix != texts.results.suffix {
            texts.last_result_suffix = Some(texts.results.suffix.clone());
            texts.results.suffix = suffix.to_owned();
        }
        Ok(())
    }

    /// The text that the kernel makes of a conversation with so many tools.
    fn compose(&self, texts: &ToolTexts, n: usize, turns: &[Turn], end: Ending) -> Option<String> {
        let template = Template { tools: Some(Box::new(texts.clone())), ..self.template().clone() };
        let written: Option<Vec<String>> =
            TOOLS[..n].iter().map(|tool| texts.form.write(tool)).collect();
        let messages: Vec<conversation::Message> =
            turns.iter().map(|turn| turn.message(texts, &self.derived.lead)).collect();
        let written = written?;
        let segments = conversation::segments(Some(&template), &messages, &written, end);
        Some(conversation::text(&segments))
    }

    /// Compares the texts with the template on conversations with tools.
    fn check(&self, texts: &ToolTexts) -> Result<()> {
        use Turn::{Answer, Calls, Question, Result as Tool, System};
        let several = if texts.call_separator.is_some() { 2 } else { 1 };
        let rounds: [&[Turn]; 7] = [
            &[Question(0)],
            &[Question(0), Answer(0), Question(1)],
            &[Question(0), Calls("", 1), Tool(0)],
            &[Question(0), Calls("", several), Tool(0), Tool(1)],
            &[Question(0), Calls(ANSWERS[0], several), Tool(0), Answer(1), Question(1)],
            &[Question(0), Calls("", 1), Tool(0), Calls("", 1), Tool(1), Answer(0), Question(1)],
            &[Question(0), Answer(0), Question(1), Calls("", 1), Tool(0), Answer(1), Question(2)],
        ];
        for with_system in [false, true] {
            if with_system && !self.derived.takes_system {
                continue;
            }
            for turns in rounds {
                let turns = match with_system {
                    true => [&[System], turns].concat(),
                    false => turns.to_vec(),
                };
                // Some templates move a system message from turn to turn: see `Derived::difference`.
                let moves = texts.place == ToolPlace::LastUser && turns.len() > 2;
                if with_system && moves {
                    continue;
                }
                for n in usize::from(self.is_own)..=TOOLS.len() {
                    let expected = self.render(n, &turns, true);
                    let given = self.compose(texts, n, &turns, Ending::Ask).unwrap_or_default();
                    let expected = expected.with_context(|| {
                        format!("it refuses {} messages with {n} tools", turns.len())
                    })?;
                    if given != expected {
                        let (given, expected) = parting(&given, &expected);
                        bail!(
                            "with {n} tools and {} messages it writes {expected:?}, the texts give \
                             {given:?}",
                            turns.len()
                        );
                    }
                }
            }
        }
        Ok(())
    }
}
