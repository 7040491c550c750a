//! The report for programs (`--report`) and the summary for people.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::time::Duration;

use kernel::report::{Event, Model, Outcome};
use serde::Serialize;

use crate::command::Accelerator;
use crate::judge::Verdict;
use crate::run::{Record, Seen};

/// The report, as it is written.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Version of this program.
    pub version: &'static str,
    /// QEMU and its arguments.
    pub command: Vec<String>,
    /// What ran the guest's instructions.
    pub accelerator: Accelerator,
    /// What to say about the run.
    pub verdict: &'a Verdict,
    /// When things happened, by the host's clock.
    pub host_us: Timings,
    /// Bytes that came over the serial line.
    pub serial_bytes: u64,
    /// The last that QEMU wrote to its standard error.
    pub qemu_stderr: &'a str,
    /// The events, each with the time that it came.
    pub events: Vec<TimedEvent<'a>>,
}

/// Times from QEMU's start, in µs; `None` for what did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timings {
    /// To the `hello` event.
    pub hello: Option<u64>,
    /// To the `model` event.
    pub model: Option<u64>,
    /// To the first text after the `model` event.
    pub first_text: Option<u64>,
    /// To the first token: the guest's own time from it to the last one, taken from the time of the
    /// first `result` event.
    pub first_token: Option<u64>,
    /// To the first `result` event.
    pub first_result: Option<u64>,
    /// To the end of QEMU.
    pub end: u64,
}

/// An event and when it came.
#[derive(Debug, Serialize)]
pub struct TimedEvent<'a> {
    /// Time from QEMU's start in µs.
    pub host_us: u64,
    /// The event itself, its fields beside `host_us`.
    #[serde(flatten)]
    pub event: &'a Event,
}

impl Timings {
    /// The times of this run.
    pub fn of(record: &Record) -> Timings {
        let first = |wanted: fn(&Event) -> bool| {
            record.events.iter().find(|seen| wanted(&seen.event)).map(|seen| us(seen.at))
        };
        Timings {
            hello: first(|event| matches!(event, Event::Hello(_))),
            model: first(|event| matches!(event, Event::Model(_))),
            first_text: record.first_text.map(us),
            first_token: first_token(&record.events),
            first_result: first(|event| matches!(event, Event::Result(_))),
            end: us(record.total),
        }
    }
}

/// The first token came as long before the `result` event as the guest took for the others.
fn first_token(events: &[Seen]) -> Option<u64> {
    let (at, outcome) = events.iter().find_map(|seen| match &seen.event {
        Event::Result(outcome) => Some((seen.at, outcome)),
        _ => None,
    })?;
    us(at).checked_sub(outcome.latency_us.checked_sub(outcome.first_token_us)?)
}

fn results(events: &[Seen]) -> impl Iterator<Item = &Outcome> {
    events.iter().filter_map(|seen| match &seen.event {
        Event::Result(outcome) => Some(outcome),
        _ => None,
    })
}

fn us(time: Duration) -> u64 {
    time.as_micros() as u64
}

impl<'a> Report<'a> {
    /// The report on this run.
    pub fn new(
        command: Vec<String>,
        accelerator: Accelerator,
        record: &'a Record,
        verdict: &'a Verdict,
    ) -> Report<'a> {
        let events = record.events.iter();
        Report {
            version: env!("CARGO_PKG_VERSION"),
            command,
            accelerator,
            verdict,
            host_us: Timings::of(record),
            serial_bytes: record.serial_bytes,
            qemu_stderr: &record.stderr,
            events: events
                .map(|Seen { at, event }| TimedEvent { host_us: us(*at), event })
                .collect(),
        }
    }
}

/// What the run's figures come to, in a line or two; empty if there are none.
pub fn summary(record: &Record) -> String {
    let mut text = String::new();
    let model = record.events.iter().find_map(|seen| match &seen.event {
        Event::Model(model) => Some(model),
        _ => None,
    });
    if let Some(Model { file, bytes, load_us, load_mb_per_s, .. }) = model {
        let _ = writeln!(
            text,
            "{file}: {:.1} MB loaded in {} at {load_mb_per_s:.1} MB/s",
            *bytes as f64 / 1e6,
            seconds(*load_us)
        );
    }
    let timings = Timings::of(record);
    let answers: Vec<&Outcome> = results(&record.events).collect();
    match answers.as_slice() {
        [] => {}
        [answer] => {
            let _ = write!(
                text,
                "{} prompt tokens at {:.1}/s, {} tokens at {:.1}/s; first token {} after the prompt",
                answer.prompt_tokens,
                answer.prompt_tokens_per_s,
                answer.tokens_emitted,
                answer.tokens_per_s,
                seconds(answer.first_token_us),
            );
            if let Some(first_token_us) = timings.first_token {
                let _ = write!(text, ", {} after QEMU's start", seconds(first_token_us));
            }
            text.push('\n');
        }
        answers => {
            let tokens: usize = answers.iter().map(|answer| answer.tokens_emitted).sum();
            let latency_us: u64 = answers.iter().map(|answer| answer.latency_us).sum();
            let _ = writeln!(
                text,
                "{} answers, {tokens} tokens in {}",
                answers.len(),
                seconds(latency_us)
            );
        }
    }
    text
}

fn seconds(us: u64) -> String {
    format!("{:.3} s", us as f64 / 1e6)
}
