//! What a boot has shown: the lines of its serial log, the events among them, its screen.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kernel::report::{Event, RECORD_SEPARATOR};

/// A line of the serial log, without its line end.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// Text for people.
    Text(String),
    /// An event.
    Event(Event),
    /// A line that starts as an event does but holds none, and why.
    Garbled(String, String),
}

/// What a boot has shown.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The serial log.
    pub log: PathBuf,
    /// Its lines.
    pub lines: Vec<Line>,
    /// The exit status of the program that booted; 128 and more for a signal.
    pub status: i32,
    /// The text on the screen, line by line; empty where no screen was looked at.
    pub screen: Vec<String>,
    /// What the program that booted said: a file.
    pub out: PathBuf,
}

impl Seen {
    /// Reads a serial log, as far as there is one.
    pub fn read(log: &Path) -> Result<Seen> {
        let bytes = match std::fs::read(log) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.with_context(|| format!("cannot read {}", log.display()))?,
        };
        Ok(Seen { log: log.into(), lines: lines(&bytes), ..Seen::default() })
    }

    /// The events in order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.lines.iter().filter_map(|line| match line {
            Line::Event(event) => Some(event),
            _ => None,
        })
    }

    /// The lines of text in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            Line::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The tokens of each answer.
    pub fn answers(&self) -> Vec<Vec<u32>> {
        let answer = |event: &Event| match event {
            Event::Result(outcome) => Some(outcome.tokens.clone()),
            _ => None,
        };
        self.events().filter_map(answer).collect()
    }

    /// What of it is shown beside a check that fails: the events by number, and the last lines.
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for (number, event) in self.events().enumerate() {
            text += &format!("    #{number} {}\n", cut(&json(event), 160));
        }
        if text.is_empty() {
            text += "    no event\n";
        }
        text += &last_lines("the serial log", &self.log, &[]);
        if !self.screen.is_empty() {
            text += "    the screen:\n";
            self.screen.iter().for_each(|line| text += &format!("    | {line}\n"));
        }
        text + &last_lines("what the program said", &self.out, &self.lines)
    }
}

/// The last lines of a file, but for those that were shown before.
fn last_lines(what: &str, file: &Path, before: &[Line]) -> String {
    const LINES: usize = 20;
    let Ok(bytes) = std::fs::read(file) else { return String::new() };
    let mut all = lines(&bytes);
    all.retain(|line| !before.contains(line) && *line != Line::Text(String::new()));
    let mut text = String::new();
    for line in &all[all.len().saturating_sub(LINES)..] {
        let line = match line {
            Line::Text(text) => kernel::report::printable(text).into_owned(),
            Line::Event(event) => json(event),
            Line::Garbled(line, error) => format!("{line:?}: {error}"),
        };
        text += &format!("    | {}\n", cut(&line, 200));
    }
    match text.is_empty() {
        true => text,
        false => format!("    {what} ends ({}):\n{text}", file.display()),
    }
}

fn json(event: &Event) -> String {
    serde_json::to_string(event).unwrap_or_else(|e| e.to_string())
}

/// The start of a text.
pub fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

/// Takes a serial log apart. Carriage returns do not count.
pub fn lines(log: &[u8]) -> Vec<Line> {
    let log: Vec<u8> = log.iter().copied().filter(|&byte| byte != b'\r').collect();
    let text = String::from_utf8_lossy(&log);
    text.strip_suffix('\n').unwrap_or(&text).split('\n').map(line).collect()
}

fn line(text: &str) -> Line {
    match Event::from_line(text) {
        None => Line::Text(text.into()),
        Some(Ok(event)) => Line::Event(event),
        Some(Err(e)) => {
            Line::Garbled(text.trim_start_matches(RECORD_SEPARATOR).into(), e.to_string())
        }
    }
}
