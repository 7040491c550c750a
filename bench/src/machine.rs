//! The whole machine on two cores: start time, load time and memory.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::disks;
use crate::guest::{Build, Report, Run};
use crate::host::Host;
use crate::results::{Column, Row, digits, median, table};
use crate::shape::{Cpu, ShapeName};

/// The number of tokens in the prompt.
const PROMPT: usize = 8;

/// The machine with one model on one processor.
///
/// Times are by the host's clock, and medians of all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The model.
    pub shape: ShapeName,
    /// The processor.
    pub cpu: Cpu,
    /// The host before the first round.
    pub host: Host,
    /// The number of rounds behind the medians.
    pub rounds: usize,
    /// From QEMU's start to the first token after a prompt of eight, with the checksum.
    pub first_token_s: f64,
    /// From the `hello` event until the model is ready, without the checksum.
    pub load_s: f64,
    /// The same with the checksum.
    pub checked_load_s: f64,
    /// Reading alone, on one core.
    pub read_s: f64,
    /// Hashing alone, on one core.
    pub hash_s: f64,
    /// The median of `checked_load_s` over the slower of `read_s` and `hash_s`.
    pub checked_load_ratio: f64,
    /// The model's file in 10^6 bytes.
    pub file_mb: f64,
    /// All memory in use after a token, in 10^6 bytes.
    pub memory_mb: f64,
}

/// Measures one shape on one processor.
///
/// # Errors
/// A run fails.
pub fn measure(build: &Build, shape: ShapeName, cpu: Cpu, rounds: usize) -> Result<Machine> {
    let disk = disks::disk(build, shape)?;
    let run = Run {
        disk: &disk,
        cpu,
        cores: 2,
        counted: false,
        mode: "generate",
        verify: true,
        prompt_tokens: PROMPT,
        tokens: 1,
    };
    let file_mb = disks::model(build, shape)?.metadata()?.len() as f64 / 1e6;
    let host = Host::now();
    let mut all = vec![];
    for round in 1..=rounds {
        let of = format!("{} on 2 x {}, round {round} of {rounds}", shape.title(), cpu.name());
        let checked = build.run(&format!("machine: {of}, checked"), &run)?;
        let unchecked = Run { verify: false, ..run };
        let unchecked = build.run(&format!("machine: {of}, not checked"), &unchecked)?;
        let parts = Run { mode: "bench", ..run };
        let parts = build.run(&format!("machine: {of}, parts alone"), &parts)?;
        all.push(Round::new(&checked, &unchecked, &parts, file_mb)?);
    }
    let of = |pick: fn(&Round) -> f64| median(all.iter().map(pick).collect());
    Ok(Machine {
        shape,
        cpu,
        host,
        rounds,
        first_token_s: of(|round| round.first_token_s),
        load_s: of(|round| round.load_s),
        checked_load_s: of(|round| round.checked_load_s),
        read_s: of(|round| round.read_s),
        hash_s: of(|round| round.hash_s),
        checked_load_ratio: of(|round| round.checked_load_s / round.read_s.max(round.hash_s)),
        file_mb,
        memory_mb: of(|round| round.memory_mb),
    })
}

/// The figures of one round.
#[derive(Debug, PartialEq)]
struct Round {
    first_token_s: f64,
    load_s: f64,
    checked_load_s: f64,
    read_s: f64,
    hash_s: f64,
    memory_mb: f64,
}

impl Round {
    fn new(checked: &Report, unchecked: &Report, parts: &Report, file_mb: f64) -> Result<Round> {
        let seconds = |us: u64| us as f64 / 1e6;
        let load_s = |report: &Report| {
            let times = &report.host_us;
            let ready = times.model.zip(times.hello).and_then(|(to, from)| to.checked_sub(from));
            ready.map(seconds).context("the guest loaded no model")
        };
        let first_token = checked.host_us.first_token.context("the guest gave no token")?;
        Ok(Round {
            first_token_s: seconds(first_token),
            load_s: load_s(unchecked)?,
            checked_load_s: load_s(checked)?,
            read_s: file_mb / parts.figure("file_read")?,
            hash_s: file_mb / parts.figure("hash")?,
            memory_mb: parts.figure("memory_in_use")?,
        })
    }
}

/// The cell of a time.
fn seconds(s: f64) -> String {
    format!("{s:.3} s")
}

/// The cell of a size in 10^6 bytes.
fn megabytes(mb: f64) -> String {
    format!("{} MB", digits(mb))
}

impl Row for Machine {
    const NAME: &'static str = "machine";
    type Key = (ShapeName, Cpu);

    fn key(&self) -> Self::Key {
        (self.shape, self.cpu)
    }

    fn table(rows: &[Self]) -> String {
        let columns: &[Column<Self>] = &[
            ("shape", |row| row.shape.title().into()),
            ("processor", |row| row.cpu.name().into()),
            ("first token", |row| seconds(row.first_token_s)),
            ("load", |row| seconds(row.load_s)),
            ("read alone", |row| seconds(row.read_s)),
            ("hash alone", |row| seconds(row.hash_s)),
            ("load, checked", |row| seconds(row.checked_load_s)),
            ("to the slower part", |row| format!("{:.2} ×", row.checked_load_ratio)),
            ("memory in use", |row| megabytes(row.memory_mb)),
            ("beyond the file", |row| megabytes(row.memory_mb - row.file_mb)),
            ("host's load", |row| row.host.shown()),
        ];
        table(columns, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(hello: u64, model: u64, first_token: u64, figures: &[(&str, f64)]) -> Report {
        let events: Vec<String> = figures
            .iter()
            .map(|(name, figure)| {
                format!(
                    r#"{{"event": "test", "name": "{name}", "pass": true, "detail": "", "figure": {figure}}}"#
                )
            })
            .collect();
        let times = format!(r#""hello": {hello}, "model": {model}, "first_token": {first_token}"#);
        let text = format!(r#"{{"host_us": {{{times}}}, "events": [{}]}}"#, events.join(", "));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_round_is_put_together_from_its_runs() {
        let checked = report(100_000, 400_000, 700_000, &[]);
        let unchecked = report(100_000, 200_000, 500_000, &[]);
        let figures = [("file_read", 100.0), ("hash", 50.0), ("memory_in_use", 17.0)];
        let parts = report(1, 2, 3, &figures);
        let round = Round::new(&checked, &unchecked, &parts, 10.0).unwrap();
        let expected = Round {
            first_token_s: 0.7,
            load_s: 0.1,
            checked_load_s: 0.3,
            read_s: 0.1,
            hash_s: 0.2,
            memory_mb: 17.0,
        };
        assert_eq!(round, expected);
        let backwards = report(200_000, 100_000, 3, &[]);
        assert!(Round::new(&backwards, &unchecked, &parts, 10.0).is_err());
    }
}
