//! The verdict: the guest's events and QEMU's end, compared with the expectations.

#![forbid(unsafe_code)]

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use kernel::report::{Code, Event, Fault, Outcome};
use kernel::settings::Mode;
use serde::Serialize;

/// End of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// QEMU did not start, for this reason.
    NotStarted(String),
    /// QEMU ended by itself.
    Qemu(ExitStatus),
    /// QEMU ran on after the guest's `exit`, and was ended.
    StillOn(Duration),
    /// A time limit passed, and QEMU was ended.
    Timeout(Timeout, Duration),
    /// The guest sent too many events, and QEMU was ended.
    Flood,
    /// This signal asked the harness to stop, and QEMU was ended.
    Signal(i32),
    /// The person at the chat pressed Ctrl-C, and QEMU was ended.
    Left,
    /// The guest waits for a line in a run that has no input, and QEMU was ended.
    NobodyTypes,
}

/// A time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// From QEMU's start to `hello`.
    Boot,
    /// Between two signs of life.
    Idle,
    /// From a line for a waiting guest to the first sign of the line.
    Input,
    /// For the whole run.
    Total,
}

/// A line that starts like an event, and is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Garbled {
    /// Start of the line.
    pub line: String,
    /// The error.
    pub error: String,
}

/// Record of a finished run.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The events in order.
    pub events: &'a [&'a Event],
    /// The first event that could not be read.
    pub garbled: Option<&'a Garbled>,
    /// End of a run.
    pub end: &'a End,
    /// The end of QEMU's standard error.
    pub stderr: &'a str,
}

/// Expectations of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expectations {
    /// The guest's mode; `None` if the disk decides.
    pub mode: Option<Mode>,
    /// Texts that the output must contain.
    pub texts: Vec<String>,
    /// Number of tokens of all answers together.
    pub tokens: Option<usize>,
    /// Error that must end the run.
    pub error: Option<Code>,
}

/// Kind of an end, which decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// All well.
    Passed,
    /// The guest failed, or missed the expectations.
    Failed,
    /// QEMU is missing or died.
    Qemu,
    /// A time limit passed.
    Timeout,
    /// A person or another program stopped the run.
    Interrupted,
}

/// The judgement of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Kind of the end.
    pub kind: Kind,
    /// Exit status of the harness.
    pub exit_status: u8,
    /// What happened.
    pub message: String,
    /// What to do about the end; may be empty.
    pub hint: String,
}

impl Verdict {
    fn passed(message: impl Into<String>) -> Verdict {
        Verdict { kind: Kind::Passed, exit_status: 0, message: message.into(), hint: String::new() }
    }

    fn failed(message: impl Into<String>, hint: impl Into<String>) -> Verdict {
        Verdict { kind: Kind::Failed, exit_status: 1, message: message.into(), hint: hint.into() }
    }
}

/// Judges a run.
pub fn judge(evidence: Evidence<'_>, expected: &Expectations) -> Verdict {
    let run = Run { evidence, expected };
    run.stopped()
        .or_else(|| run.broken_line())
        .or_else(|| run.fault())
        .or_else(|| run.power_off())
        .or_else(|| run.work())
        .or_else(|| run.output())
        .unwrap_or_else(|| run.all_well())
}

/// A run that is judged. Each step is `None` if nothing is wrong.
struct Run<'a> {
    evidence: Evidence<'a>,
    expected: &'a Expectations,
}

impl Run<'_> {
    /// The run did not come to its own end.
    fn stopped(&self) -> Option<Verdict> {
        match self.evidence.end {
            End::NotStarted(reason) => Some(Verdict {
                kind: Kind::Qemu,
                exit_status: 3,
                message: reason.clone(),
                hint: "install it: apt install qemu-system-arm (macOS: brew install qemu), or \
                       name it: --qemu PATH"
                    .into(),
            }),
            &End::Signal(signal) => Some(Verdict {
                kind: Kind::Interrupted,
                exit_status: 128 + signal as u8,
                message: format!("stopped by signal {signal}"),
                hint: String::new(),
            }),
            End::Left => Some(Verdict::passed("ended by Ctrl-C")),
            End::NobodyTypes => Some(Verdict::failed(
                "the guest is in a chat and waits for a line, but this run has no input",
                "talk to it (`make chat`, `anchorite-qemu chat`), or choose another --mode",
            )),
            End::Flood => Some(Verdict::failed(
                "the guest sends events without end",
                "look at the serial log (--keep-log FILE)",
            )),
            &End::Timeout(which, limit) => {
                let seconds = limit.as_secs_f64();
                let (message, hint) = match which {
                    Timeout::Boot => (
                        format!("no `hello` event within {seconds} s of QEMU's start"),
                        "is --kernel an arm64 Image? On a busy host allow more: --boot-timeout",
                    ),
                    Timeout::Idle => (
                        format!("no sign of life for {seconds} s {}", self.last_words()),
                        "a large model on a slow host may need more: --idle-timeout",
                    ),
                    Timeout::Input => (
                        format!(
                            "the guest waits for a line, but shows nothing of the one that it was \
                             sent {seconds} s ago"
                        ),
                        "has its console an input? Look at `-serial` and `-chardev` among QEMU's \
                         arguments (--print)",
                    ),
                    Timeout::Total => (
                        format!("not finished after {seconds} s; stopped {}", self.last_words()),
                        "ask for fewer tokens, or allow more time: --timeout",
                    ),
                };
                Some(Verdict {
                    kind: Kind::Timeout,
                    exit_status: 4,
                    message: message + &self.before_that(),
                    hint: hint.into(),
                })
            }
            &End::Qemu(status) => self.died(status),
            End::StillOn(_) => None,
        }
    }

    /// QEMU ended by itself before the guest was done.
    fn died(&self, status: ExitStatus) -> Option<Verdict> {
        let said_exit = self.exit_status().is_some();
        // QEMU ends with status 0 on SIGTERM and the like, and says so.
        let is_terminated = self.evidence.stderr.contains("terminating on signal");
        let how = match (status.code(), status.signal()) {
            (Some(0), _) if said_exit => return None,
            (Some(0), _) if !is_terminated => {
                return Some(Verdict::failed(
                    format!(
                        "the guest powered off or reset without an `exit` event, {}{}",
                        self.last_words(),
                        self.before_that()
                    ),
                    "look at the serial log (--keep-log FILE)",
                ));
            }
            (Some(code), _) => format!("with status {code}"),
            (None, Some(signal)) => format!("by signal {signal}"),
            (None, None) => "for an unknown reason".into(),
        };
        let reason = match self.evidence.stderr.trim().lines().last() {
            Some(line) => format!(": {line}"),
            None => String::new(),
        };
        Some(Verdict {
            kind: Kind::Qemu,
            exit_status: 3,
            message: format!(
                "QEMU ended {how} {}{reason}{}",
                self.last_words(),
                self.before_that()
            ),
            hint: "the reason is QEMU's own: most often the processor, the memory or a further \
                   argument. --print shows its command line; `qemu-system-aarch64 -machine virt \
                   -cpu help` lists the processors"
                .into(),
        })
    }

    /// The serial line carried a broken event.
    fn broken_line(&self) -> Option<Verdict> {
        let Garbled { line, error } = self.evidence.garbled?;
        Some(Verdict::failed(
            format!("the guest sent an event that cannot be read ({error}): {line}"),
            "are the image and this program of one version?",
        ))
    }

    /// The guest reported an error, or not the expected error.
    fn fault(&self) -> Option<Verdict> {
        match (self.last_fault(), self.expected.error) {
            (None, None) => None,
            // A chat goes on after a message that does not fit.
            (Some(_), None)
                if self.expected.mode == Some(Mode::Chat) && self.exit_status() == Some(0) =>
            {
                None
            }
            (Some(Fault { code, message, hint }), None) => {
                Some(Verdict::failed(format!("{code}: {message}"), hint))
            }
            (None, Some(expected)) => {
                Some(Verdict::failed(format!("expected {expected}, but no error came"), ""))
            }
            (Some(fault), Some(expected)) if fault.code == expected => None,
            (Some(Fault { code, message, hint }), Some(expected)) => Some(Verdict::failed(
                format!("expected {expected}, but the run ended with {code}: {message}"),
                hint,
            )),
        }
    }

    /// The guest did not end with one `exit` as its last event, or did not power off.
    fn power_off(&self) -> Option<Verdict> {
        let expected = i32::from(self.expected.error.is_some());
        let exits = self.evidence.events.iter().filter(|e| matches!(e, Event::Exit(_))).count();
        let message = match (self.exit_status(), self.evidence.end) {
            (Some(status), _) if status != expected => {
                format!("the guest exited with status {status} instead of {expected}")
            }
            (_, End::StillOn(wait)) => format!(
                "the guest said `exit` but did not power off within {} s",
                wait.as_secs_f64()
            ),
            _ if exits > 1 => format!("the guest sent {exits} `exit` events"),
            _ if !matches!(self.evidence.events.last(), Some(Event::Exit(_))) => {
                "the guest's last event is not `exit`".into()
            }
            _ => return None,
        };
        Some(Verdict::failed(message, "look at the serial log (--keep-log FILE)"))
    }

    /// The guest did not do its work.
    fn work(&self) -> Option<Verdict> {
        let events = self.evidence.events;
        let failed: Vec<&str> = events
            .iter()
            .filter_map(|event| match event {
                Event::Test(test) if !test.pass => Some(test.name.as_str()),
                _ => None,
            })
            .collect();
        if !failed.is_empty() {
            return Some(Verdict::failed(format!("tests failed: {}", failed.join(", ")), ""));
        }
        if self.expected.error.is_some() {
            return None;
        }
        if !matches!(events.first(), Some(Event::Hello(_))) {
            return Some(Verdict::failed("the guest's first event is not `hello`", ""));
        }
        let results = self.results().count();
        let count = |wanted: fn(&Event) -> bool| events.iter().filter(|e| wanted(e)).count();
        let tests = count(|event| matches!(event, Event::Test(_)));
        let perplexities = count(|event| matches!(event, Event::Perplexity(_)));
        let serves = count(|event| matches!(event, Event::Serve(_)));
        let missing = match self.expected.mode {
            Some(Mode::Generate) if results == 0 => "a `result`",
            Some(Mode::Perplexity) if perplexities == 0 => "a `perplexity`",
            Some(Mode::Test | Mode::Bench) if tests == 0 => "a `test`",
            Some(Mode::Serve) if serves == 0 => "a `serve`",
            // A chat needs no message.
            None if results + tests + perplexities == 0 && !self.ready() => "a `model`",
            _ => return None,
        };
        Some(Verdict::failed(format!("the guest exited with status 0 without {missing} event"), ""))
    }

    /// The output is not the expected one.
    fn output(&self) -> Option<Verdict> {
        for text in &self.expected.texts {
            if !self.results().any(|result| result.output.contains(text.as_str())) {
                return Some(Verdict::failed(format!("the output does not hold {text:?}"), ""));
            }
        }
        let tokens: usize = self.results().map(|result| result.tokens_emitted).sum();
        match self.expected.tokens {
            Some(expected) if expected != tokens => Some(Verdict::failed(
                format!("{tokens} tokens were generated instead of {expected}"),
                "",
            )),
            _ => None,
        }
    }

    fn all_well(&self) -> Verdict {
        match (self.expected.error, self.last_fault()) {
            (Some(code), Some(Fault { message, .. })) => {
                Verdict::passed(format!("ended with {code} as expected: {message}"))
            }
            _ => Verdict::passed("all well"),
        }
    }

    fn results(&self) -> impl Iterator<Item = &Outcome> {
        self.evidence.events.iter().filter_map(|event| match event {
            Event::Result(outcome) => Some(outcome),
            _ => None,
        })
    }

    fn ready(&self) -> bool {
        self.evidence.events.iter().any(|event| matches!(event, Event::Model(_)))
    }

    fn last_fault(&self) -> Option<&Fault> {
        self.evidence.events.iter().rev().find_map(|event| match event {
            Event::Error(fault) => Some(fault),
            _ => None,
        })
    }

    /// The status of the first `exit`.
    fn exit_status(&self) -> Option<i32> {
        self.evidence.events.iter().find_map(|event| match event {
            Event::Exit(exit) => Some(exit.status),
            _ => None,
        })
    }

    /// Earlier errors of a guest that was cut short.
    fn before_that(&self) -> String {
        let mut text = String::new();
        if let Some(Fault { code, message, .. }) = self.last_fault() {
            text += &format!("; the guest had reported {code}: {message}");
        }
        if let Some(Garbled { line, error }) = self.evidence.garbled {
            text += &format!("; it had sent an event that cannot be read ({error}): {line}");
        }
        text
    }

    fn last_words(&self) -> &'static str {
        match self.evidence.events.last() {
            None => "before the `hello` event",
            Some(Event::Hello(_)) => "after the `hello` event",
            Some(Event::Disk(_)) => "after the `disk` event",
            Some(Event::Model(_)) => "after the `model` event",
            Some(Event::Unload(_)) => "after an `unload` event",
            Some(Event::Chat(_)) => "after a `chat` event",
            Some(Event::Serve(_)) => "after a `serve` event",
            Some(Event::Request(_)) => "after a `request` event",
            Some(Event::Result(_)) => "after a `result` event",
            Some(Event::Perplexity(_)) => "after the `perplexity` event",
            Some(Event::Test(_)) => "after a `test` event",
            Some(Event::Error(_)) => "after an `error` event",
            Some(Event::Exit(_)) => "after the `exit` event",
        }
    }
}

#[cfg(test)]
mod tests;
