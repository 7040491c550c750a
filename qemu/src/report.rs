//! The report for programs (`--report`) and the summary for people.

#![forbid(unsafe_code)]

use std::time::Duration;

use kernel::report::{Event, Outcome, tokens_at};
use serde::Serialize;

use crate::command::Accelerator;
use crate::judge::Verdict;
use crate::run::{Record, Seen};

/// The report as JSON.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Version of this program.
    pub version: &'static str,
    /// QEMU and its arguments.
    pub command: Vec<String>,
    /// SHA-256 of the image from its `hello` event; `None` without one.
    pub image_sha256: Option<&'a str>,
    /// Accelerator.
    pub accelerator: Accelerator,
    /// Verdict on the run.
    pub verdict: &'a Verdict,
    /// Times of the run, by the host's clock.
    pub host_us: Timings,
    /// Bytes that came over the serial line.
    pub serial_bytes: u64,
    /// The end of QEMU's standard error.
    pub qemu_stderr: &'a str,
    /// The events, each with its time.
    pub events: Vec<TimedEvent<'a>>,
}

/// Times from QEMU's start in µs; `None`: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timings {
    /// To the `hello` event.
    pub hello: Option<u64>,
    /// To the `model` event.
    pub model: Option<u64>,
    /// To the first text after the `model` event.
    pub first_text: Option<u64>,
    /// To the first token: the time of the first `result` event, less the guest's own time from
    /// first to last token.
    pub first_token: Option<u64>,
    /// To the first `result` event.
    pub first_result: Option<u64>,
    /// To the end of QEMU.
    pub end: u64,
}

/// An event with its time.
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

/// The first token came before the `result` event by the guest's time for the other tokens.
fn first_token(events: &[Seen]) -> Option<u64> {
    let (at, outcome) = events.iter().find_map(|seen| match &seen.event {
        Event::Result(outcome) => Some((seen.at, outcome)),
        _ => None,
    })?;
    us(at).checked_sub(outcome.latency_us.checked_sub(outcome.first_token_us)?)
}

fn image_sha256(events: &[Seen]) -> Option<&str> {
    events.iter().find_map(|seen| match &seen.event {
        Event::Hello(hello) => hello.image_sha256.as_deref(),
        _ => None,
    })
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
            image_sha256: image_sha256(&record.events),
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

/// The run's figures in one line, by the host's clock; empty if the guest sent no event.
pub fn summary(record: &Record) -> String {
    let timings = Timings::of(record);
    let times = [("hello", timings.hello), ("first token", timings.first_token)];
    let mut parts: Vec<String> = times
        .into_iter()
        .filter_map(|(what, time_us)| Some(format!("{what} after {}", seconds(time_us?))))
        .collect();
    if parts.is_empty() {
        return String::new();
    }
    parts.push(format!("end after {}", seconds(timings.end)));

    if let Some(model) = record.events.iter().find_map(|seen| match &seen.event {
        Event::Model(model) => Some(model),
        _ => None,
    }) {
        parts.push(format!("loaded at {:.1} MB/s", model.load_mb_per_s));
    }
    let answers: Vec<&Outcome> = results(&record.events).collect();
    match answers.as_slice() {
        [] => {}
        [answer] => {
            let Outcome {
                prompt_tokens, prompt_tokens_per_s, tokens_emitted, tokens_per_s, ..
            } = answer;
            parts.push(format!("{prompt_tokens} prompt tokens at {prompt_tokens_per_s:.1}/s"));
            parts.push(tokens_at(*tokens_emitted, *tokens_per_s));
        }
        answers => {
            let tokens: usize = answers.iter().map(|answer| answer.tokens_emitted).sum();
            parts.push(format!("{tokens} tokens in {} answers", answers.len()));
        }
    }
    format!("[QEMU: {}]", parts.join(", "))
}

fn seconds(us: u64) -> String {
    format!("{:.3} s", us as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::End;
    use kernel::report::{Exit, StopReason};

    fn record(events: Vec<(u64, Event)>) -> Record {
        let seen = |(us, event)| Seen { at: Duration::from_micros(us), event };
        Record {
            events: events.into_iter().map(seen).collect(),
            garbled: None,
            end: End::Left,
            first_text: None,
            total: Duration::from_micros(2_000_003),
            serial_bytes: 0,
            stderr: String::new(),
        }
    }

    fn result(latency_us: u64, first_token_us: u64) -> Event {
        Event::Result(Outcome {
            prompt_tokens: 3,
            tokens_emitted: 5,
            output: String::new(),
            tokens: vec![],
            stop: StopReason::MaxTokens,
            context_shifts: 0,
            latency_us,
            first_token_us,
            prompt_tokens_per_s: 41.0,
            tokens_per_s: 43.0,
            arena_bytes: 0,
            arena_peak_bytes: 0,
            board: vec![],
        })
    }

    #[test]
    fn the_first_token_is_placed_by_the_first_result() {
        let first = |events| Timings::of(&record(events)).first_token;
        assert_eq!(first(vec![(1_000, result(700, 200)), (9_000, result(7, 7))]), Some(500));
        assert_eq!(first(vec![]), None);
        assert_eq!(first(vec![(100, result(700, 200))]), None, "the guest's figures are absurd");
        assert_eq!(first(vec![(1_000, result(200, 700))]), None, "the guest's figures are absurd");
    }

    #[test]
    fn the_report_names_the_image_that_ran() {
        let hello = |image_sha256: Option<&str>| {
            let hello = serde_json::json!({
                "event": "hello", "version": "0.1.0", "machine": "m", "cpu": "c",
                "cpu_features": [], "kernels": "neon", "cores": 1, "exception_level": 1,
                "consoles": [], "memory_bytes": 7, "memory_free_bytes": 5, "boot_us": 3,
                "image_sha256": image_sha256,
            });
            vec![(11, result(7, 5)), (13, serde_json::from_value(hello).unwrap())]
        };
        let named = |events| image_sha256(&record(events).events).map(str::to_owned);
        assert_eq!(named(hello(Some("0a1b"))), Some("0a1b".to_owned()));
        assert_eq!(named(hello(None)), None, "an ELF file was started");
        assert_eq!(named(vec![]), None);
    }

    #[test]
    fn the_summary_tells_what_there_is() {
        assert_eq!(summary(&record(vec![])), "");
        let exit = || (1_500_000, Event::Exit(Exit { status: 0 }));
        assert_eq!(summary(&record(vec![exit()])), "");
        assert_eq!(
            summary(&record(vec![(1_000_000, result(600_000, 100_000)), exit()])),
            "[QEMU: first token after 0.500 s, end after 2.000 s, 3 prompt tokens at 41.0/s, \
             5 tokens at 43.0/s]"
        );
        let two = vec![(1_000_000, result(600_000, 100_000)), (1_100_000, result(7, 5))];
        assert!(summary(&record(two)).ends_with("10 tokens in 2 answers]"));
    }
}
