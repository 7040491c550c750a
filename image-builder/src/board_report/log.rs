//! Parser of a serial log: events, and lines for people.

use kernel::report::{Event, Hello};

/// The last stage that a boot reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No line of Anchorite's.
    Nothing,
    /// A line, but not the first one of the program.
    Line,
    /// The first line for people.
    Banner,
    /// The event `hello`. The other events follow.
    Hello,
    Disk,
    Model,
    Answer,
    Exit,
}

impl Stage {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Nothing => "nothing",
            Stage::Line => "a line before the first one",
            Stage::Banner => "the first line",
            Stage::Hello => "`hello`",
            Stage::Disk => "`disk`",
            Stage::Model => "`model`",
            Stage::Answer => "an answer",
            Stage::Exit => "`exit`",
        }
    }
}

/// The last boot of a log.
#[derive(Debug)]
pub struct Log<'l> {
    /// The last stage of the boot.
    pub stage: Stage,
    /// The number of boots in the log.
    pub boots: usize,
    /// The first line for people.
    pub banner: Option<&'l str>,
    /// The events, in order.
    pub events: Vec<Event>,
    /// The number of events that cannot be parsed.
    pub unreadable: usize,
    /// The facts about the board, by name and value: those of `hello`, and later ones.
    pub facts: Vec<(String, String)>,
    /// Warnings and errors, as the log shows them.
    pub complaints: Vec<String>,
    /// The last line that is not empty.
    pub last: &'l str,
}

/// The start of an event. A clipboard may lose the byte 0x1E before it.
const EVENT: &str = "{\"event\":";
/// The start of a boot's first line.
const BANNER: &str = "Anchorite ";

impl<'l> Log<'l> {
    /// Parses the last boot in `text`, and ignores all lines before it.
    ///
    /// The lines before the first boot are those of the firmware, for example.
    pub fn read(text: &'l str) -> Log<'l> {
        // A line that was redrawn ends with its last state.
        let lines = || text.lines().map(|line| line.trim_end_matches('\r'));
        let mut log = Log {
            stage: Stage::Nothing,
            boots: lines().filter(|line| is_banner(line)).count(),
            banner: None,
            events: Vec::new(),
            unreadable: 0,
            facts: Vec::new(),
            complaints: Vec::new(),
            last: "",
        };
        let start = lines().enumerate().filter(|(_, line)| is_banner(line)).last();
        for line in lines().skip(start.map_or(0, |(at, _)| at)) {
            log.line(line);
        }
        log
    }

    fn line(&mut self, line: &'l str) {
        if let Some(at) = line.find(EVENT) {
            match serde_json::from_str::<Event>(line[at..].trim_end()) {
                Ok(event) => self.event(event),
                Err(_) => self.unreadable += 1,
            }
        } else {
            self.text(line);
        }
        if !line.trim().is_empty() {
            self.last = line.rsplit('\r').next().unwrap_or(line);
        }
    }

    fn event(&mut self, event: Event) {
        self.reach(match &event {
            Event::Hello(_) => Stage::Hello,
            Event::Disk(_) => Stage::Disk,
            Event::Model(_) => Stage::Model,
            Event::Result(_) | Event::Perplexity(_) | Event::Test(_) | Event::Request(_) => {
                Stage::Answer
            }
            Event::Exit(_) => Stage::Exit,
            Event::Unload(_) | Event::Chat(_) | Event::Serve(_) | Event::Error(_) => Stage::Line,
        });
        match &event {
            Event::Hello(hello) => hello.board.iter().for_each(|fact| self.note(fact)),
            Event::Error(fault) => {
                self.complain(format!("{}: {} ({})", fault.code, fault.message, fault.hint));
            }
            _ => {}
        }
        self.events.push(event);
    }

    fn text(&mut self, line: &'l str) {
        if is_banner(line) {
            self.banner = Some(line);
            self.reach(Stage::Banner);
        }
        // "[    0.812000] WARN  …", and the screen's line of an error "DiskError: …".
        let level = line.split_once("] ").map_or("", |(_, rest)| rest);
        if let Some(fact) = level.strip_prefix("INFO  board: ") {
            self.note(fact);
        }
        if ["WARN ", "ERROR "].iter().any(|word| level.starts_with(word)) {
            self.complain(line.into());
        } else if let Some((code, _)) = line.split_once(": ")
            && serde_json::from_value::<kernel::report::Code>(code.into()).is_ok()
        {
            self.complain(line.into());
        }
        if line.starts_with("Anchorite has ") || line.starts_with("It is now safe to switch off") {
            self.reach(Stage::Exit);
        }
    }

    fn note(&mut self, fact: &str) {
        if let Some((name, value)) = fact.trim_end().split_once('=') {
            self.facts.push((name.into(), value.into()));
        }
    }

    fn complain(&mut self, complaint: String) {
        self.reach(Stage::Line);
        self.complaints.push(complaint);
    }

    fn reach(&mut self, stage: Stage) {
        self.stage = self.stage.max(stage);
    }

    /// The event `hello`.
    pub fn hello(&self) -> Option<&Hello> {
        self.events.iter().find_map(|event| match event {
            Event::Hello(hello) => Some(hello),
            _ => None,
        })
    }

    /// The value of a fact.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }
}

/// Whether a line is the first one of a boot.
///
/// For example: "Anchorite 0.1.0 on Raspberry Pi 4 Model B Rev 1.4: 4 × Cortex-A72, 4096 MiB".
fn is_banner(line: &str) -> bool {
    line.strip_prefix(BANNER)
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains(" on "))
}
