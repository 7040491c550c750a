//! Expectations of a boot, as values; a failed one is shown beside what was seen.
//!
//! [`event!`](crate::event) states what the fields of an event must be.

use std::fmt::{self, Debug};

use kernel::report::Event;
use regex_lite::Regex;

use crate::seen::{Line, Seen, cut};

/// A regular expression that some part of a text must match.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

impl Pattern {
    /// Whether it matches.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The first group of the first match.
    pub fn group<'a>(&self, text: &'a str) -> Option<&'a str> {
        Some(self.0.captures(text)?.get(1)?.as_str())
    }
}

/// Such an expression; one that is none is a mistake in the table.
pub fn pattern(text: &str) -> Pattern {
    Pattern(Regex::new(text).unwrap_or_else(|e| panic!("the pattern {text}: {e}")))
}

/// A text that stands there literally, as a part of a pattern.
pub fn literal(text: &str) -> String {
    regex_lite::escape(text)
}

/// A field in which a pattern is looked for.
pub trait Text {
    /// Whether it matches the field or, of a list, some entry.
    fn has(&self, pattern: &Pattern) -> bool;
}

impl Text for String {
    fn has(&self, pattern: &Pattern) -> bool {
        pattern.is_in(self)
    }
}

impl Text for Option<String> {
    fn has(&self, pattern: &Pattern) -> bool {
        self.as_ref().is_some_and(|text| pattern.is_in(text))
    }
}

impl Text for Vec<String> {
    fn has(&self, pattern: &Pattern) -> bool {
        self.iter().any(|text| pattern.is_in(text))
    }
}

type Test = Box<dyn Fn(&Event) -> bool + Send + Sync>;
type Show = Box<dyn Fn(&Event) -> String + Send + Sync>;

/// A field of an event and what it must be.
struct Field {
    name: &'static str,
    wanted: String,
    holds: Test,
    show: Show,
}

/// What an event must be like.
pub struct EventLike {
    kind: &'static str,
    is_kind: fn(&Event) -> bool,
    fields: Vec<Field>,
}

impl EventLike {
    /// An event of this kind, whatever its fields: [`event!`] is for that.
    pub fn new(kind: &'static str, is_kind: fn(&Event) -> bool) -> EventLike {
        EventLike { kind, is_kind, fields: Vec::new() }
    }

    /// One whose field, besides, is as `wanted` says.
    pub fn field(
        mut self,
        name: &'static str,
        wanted: String,
        holds: impl Fn(&Event) -> bool + Send + Sync + 'static,
        show: impl Fn(&Event) -> String + Send + Sync + 'static,
    ) -> EventLike {
        let (holds, show) = (Box::new(holds), Box::new(show));
        self.fields.push(Field { name, wanted, holds, show });
        self
    }

    /// Whether `event` is like this.
    pub fn is(&self, event: &Event) -> bool {
        (self.is_kind)(event) && self.fields.iter().all(|field| (field.holds)(event))
    }

    fn shown(&self) -> String {
        let fields: Vec<String> =
            self.fields.iter().map(|field| format!("{} {}", field.name, field.wanted)).collect();
        format!("{} {{ {} }}", self.kind, fields.join(", "))
    }

    /// Each field beside that of the events of this kind.
    fn beside(&self, seen: &Seen) -> String {
        let mut text = String::new();
        for (number, event) in seen.events().enumerate().filter(|(_, event)| (self.is_kind)(event))
        {
            text += &format!("    #{number} {}\n", self.kind);
            for field in &self.fields {
                let shown = (field.show)(event);
                text += &match (field.holds)(event) {
                    true => format!("      {}: as expected, {}\n", field.name, cut(&shown, 100)),
                    false => beside(field.name, &field.wanted, &shown),
                };
            }
        }
        match text.is_empty() {
            true => format!("    there is no {} event\n", self.kind),
            false => text,
        }
    }
}

/// What is expected above what was seen, and where they part.
fn beside(name: &str, wanted: &str, seen: &str) -> String {
    // The operator stands before what is expected: `== `.
    let (operator, value) = wanted.split_once(' ').unwrap_or(("", wanted));
    let width = operator.chars().count();
    let mut text = format!(
        "      {name}\n        expected {operator} {value}\n        seen     {:width$} {seen}\n",
        ""
    );
    let same = value.chars().zip(seen.chars()).take_while(|(a, b)| a == b).count();
    if operator == "==" && same > 0 {
        text += &format!("                 {:width$} {:same$}^\n", "", "");
    }
    text
}

/// What the fields of an event must be: `event!(Result { tokens == expected, stop != Cancelled })`.
///
/// The fields are those of the event's type in [`kernel::report`]. The operators are those of Rust,
/// and `~`: a [`Pattern`] matches the text, or one text of a list.
#[macro_export]
macro_rules! event {
    ($kind:ident { $($field:ident $operator:tt $value:expr),* $(,)? }) => {
        $crate::expect::EventLike::new(stringify!($kind), |event| {
            matches!(event, kernel::report::Event::$kind(_))
        })
        $(.field(
            stringify!($field),
            $crate::expect::wanted(stringify!($operator), &$value),
            {
                let value = $crate::event!(@value $operator, $value);
                move |event| match event {
                    kernel::report::Event::$kind(it) => {
                        $crate::event!(@holds it, $field, $operator, value)
                    }
                    _ => false,
                }
            },
            |event| match event {
                kernel::report::Event::$kind(it) => format!("{:?}", it.$field),
                _ => String::new(),
            },
        ))*
    };
    (@value ~, $value:expr) => { $crate::expect::IntoPattern::to_pattern(&$value) };
    (@value $operator:tt, $value:expr) => { $value };
    (@holds $it:ident, $field:ident, ~, $value:ident) => {
        $crate::expect::Text::has(&$it.$field, &$value)
    };
    (@holds $it:ident, $field:ident, $operator:tt, $value:ident) => { $it.$field $operator $value };
}

/// What is taken for a pattern on the right of `~`.
pub trait IntoPattern {
    /// The pattern.
    fn to_pattern(&self) -> Pattern;
}

impl IntoPattern for Pattern {
    fn to_pattern(&self) -> Pattern {
        self.clone()
    }
}

impl IntoPattern for &str {
    fn to_pattern(&self) -> Pattern {
        pattern(self)
    }
}

impl IntoPattern for String {
    fn to_pattern(&self) -> Pattern {
        pattern(self)
    }
}

/// How an operator and its value are shown.
pub fn wanted(operator: &str, value: &impl Debug) -> String {
    format!("{operator} {value:?}")
}

/// Whether something holds of what was seen; if not, what was seen.
type Find = Box<dyn Fn(&Seen) -> Result<(), String> + Send + Sync>;

/// Something that must hold of what a boot has shown.
pub enum Expect {
    /// Some event is like this.
    Event(EventLike),
    /// No event is.
    NoEvent(EventLike),
    /// So many events are.
    Events(usize, EventLike),
    /// Some line of text matches.
    Line(Pattern),
    /// None does.
    NoLine(Pattern),
    /// There is one `exit`, with this status, and behind it are only these lines.
    Exit(i32, Vec<String>),
    /// These are the tokens of the answers, one after the other.
    Answers(Vec<Vec<u32>>),
    /// The program that boots ends with this status; the harness's is 0 if its own checks hold.
    Status(i32),
    /// Some line on the screen matches.
    Screen(Pattern),
    /// The screen shows the text of the serial line, but for events; of them, a good end.
    ScreenIsLog,
    /// What the first text says, which the function finds out; its error says what was seen.
    That(String, Find),
}

impl Expect {
    /// Something else that is to hold.
    pub fn that(
        what: impl Into<String>,
        test: impl Fn(&Seen) -> Result<(), String> + Send + Sync + 'static,
    ) -> Expect {
        Expect::That(what.into(), Box::new(test))
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// It does not: what was expected, and beside it what was seen.
    pub fn check(&self, seen: &Seen) -> Result<(), Mismatch> {
        let count = |like: &EventLike| seen.events().filter(|event| like.is(event)).count();
        let some = |holds: bool, expected: String, instead: &dyn Fn() -> String| match holds {
            true => Ok(()),
            false => Err(Mismatch { expected, seen: instead() }),
        };
        match self {
            Expect::Event(like) => {
                some(count(like) > 0, format!("some event is {}", like.shown()), &|| {
                    like.beside(seen)
                })
            }
            Expect::NoEvent(like) => {
                some(count(like) == 0, format!("no event is {}", like.shown()), &|| {
                    like.beside(seen)
                })
            }
            Expect::Events(wanted, like) => some(
                count(like) == *wanted,
                format!("{wanted} events are {}", like.shown()),
                &|| format!("    there are {}\n{}", count(like), like.beside(seen)),
            ),
            Expect::Line(pattern) => some(
                seen.texts().any(|line| pattern.is_in(line)),
                format!("some line matches {:?}", pattern.0.as_str()),
                &|| format!("    none of {} lines does\n", seen.texts().count()),
            ),
            Expect::NoLine(pattern) => {
                let line = seen.texts().find(|line| pattern.is_in(line));
                some(line.is_none(), format!("no line matches {:?}", pattern.0.as_str()), &|| {
                    format!("    this one does: {:?}\n", line.unwrap_or_default())
                })
            }
            Expect::Exit(status, behind) => exit(*status, behind, seen),
            Expect::Answers(tokens) => {
                let answers = seen.answers();
                let (wanted, shown) = (format!("== {tokens:?}"), format!("{answers:?}"));
                some(answers == *tokens, "the answers are llama.cpp's".into(), &|| {
                    beside("tokens of each `result`", &wanted, &shown)
                })
            }
            Expect::Status(status) => some(
                seen.status == *status,
                format!("the program that boots ends with status {status}"),
                &|| format!("    it ends with status {}\n", seen.status),
            ),
            Expect::Screen(pattern) => some(
                seen.screen.iter().any(|line| pattern.is_in(line)),
                format!("some line on the screen matches {:?}", pattern.0.as_str()),
                &|| format!("    none of {} lines does\n", seen.screen.len()),
            ),
            Expect::ScreenIsLog => {
                let (wanted, shown) =
                    (seen.text_for_screen(), without_blanks(&seen.screen.concat()));
                some(wanted == shown, "the screen shows what the serial line says".into(), &|| {
                    beside("text without blanks", &format!("== {wanted}"), &shown)
                })
            }
            Expect::That(what, test) => match test(seen) {
                Ok(()) => Ok(()),
                Err(instead) => {
                    Err(Mismatch { expected: what.clone(), seen: format!("    {instead}\n") })
                }
            },
        }
    }
}

fn exit(status: i32, behind: &[String], seen: &Seen) -> Result<(), Mismatch> {
    let is_exit = |line: &&Line| matches!(line, Line::Event(Event::Exit(_)));
    let exits: Vec<i32> = seen
        .events()
        .filter_map(|event| match event {
            Event::Exit(exit) => Some(exit.status),
            _ => None,
        })
        .collect();
    let rest: Vec<&Line> = seen.lines.iter().skip_while(|line| !is_exit(line)).skip(1).collect();
    let is_text =
        |(line, wanted): (&&Line, &String)| matches!(line, Line::Text(text) if text == wanted);
    if exits == [status] && rest.len() == behind.len() && rest.iter().zip(behind).all(is_text) {
        return Ok(());
    }
    Err(Mismatch {
        expected: format!("one `exit` event, with status {status}, and behind it {behind:?}"),
        seen: format!("    `exit` events have the statuses {exits:?}; behind the first {rest:?}\n"),
    })
}

/// What a screen says at a good end.
pub const GOOD_END: &str = "Anchorite has ended.";

impl Seen {
    /// The text that a screen must show, without blanks, as long lines are cut. Of a line that was
    /// drawn anew, the last form.
    fn text_for_screen(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let mut text = String::new();
        for line in String::from_utf8_lossy(&log).split('\n') {
            let line = line.strip_suffix('\r').unwrap_or(line);
            match Event::from_line(line) {
                Some(Ok(Event::Exit(_))) => text += GOOD_END,
                Some(_) => {}
                None => text += line.rsplit('\r').next().unwrap_or_default(),
            }
        }
        without_blanks(&text)
    }
}

fn without_blanks(text: &str) -> String {
    text.chars().filter(|c| *c != ' ' && *c != '\n').collect()
}

/// What does not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// What was expected, in a sentence.
    pub expected: String,
    /// What was seen instead: lines.
    pub seen: String,
}

#[cfg(test)]
mod tests;
