//! Instrument 2: tokens a second on one, two and four cores.
//!
//! Times under emulation depend on the host, but numbers of cores can be compared. Each round runs
//! all numbers of cores, one after the other.

#![forbid(unsafe_code)]

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::disks;
use crate::guest::{Build, Run};
use crate::host::Host;
use crate::results::{Column, Row, digits, median, table};
use crate::shape::{Cpu, ShapeName};

/// The numbers of cores that are measured.
const CORES: [u32; 3] = [1, 2, 4];
/// The number of tokens in the prompt.
const PROMPT: usize = 32;

/// The rates of one shape on one processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// The model.
    pub shape: ShapeName,
    /// The processor.
    pub cpu: Cpu,
    /// The host before the first round.
    pub host: Host,
    /// The number of rounds behind the medians.
    pub rounds: usize,
    /// The rates for each number of cores.
    pub rates: Vec<Rate>,
}

/// The rates on one number of cores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The number of cores.
    pub cores: u32,
    /// Prompt tokens a second.
    pub prompt_per_s: f64,
    /// Generated tokens a second.
    pub generate_per_s: f64,
    /// The median ratio of a round's prompt rate to that on one core.
    pub prompt_ratio: f64,
    /// The same ratio for generated tokens.
    pub generate_ratio: f64,
    /// The range of the generated tokens' rate over its median.
    pub spread: f64,
}

/// Prompt tokens and generated tokens a second.
pub type Pair = (f64, f64);

/// Measures one shape on one processor.
///
/// # Errors
/// A run fails.
pub fn measure(build: &Build, shape: ShapeName, cpu: Cpu, rounds: usize) -> Result<Rates> {
    let disk = disks::disk(build, shape)?;
    let host = Host::now();
    let mut runs: Vec<Vec<Pair>> = vec![Vec::new(); CORES.len()];
    for round in 1..=rounds {
        for (cores, runs) in CORES.into_iter().zip(&mut runs) {
            let of = format!("{} on {} x {}", shape.title(), cores, cpu.name());
            let run = Run {
                disk: &disk,
                cpu,
                cores,
                counted: false,
                mode: "generate",
                verify: false,
                prompt_tokens: PROMPT,
                tokens: shape.tokens(),
            };
            let report = build.run(&format!("rates: {of}, round {round} of {rounds}"), &run)?;
            let result = report.result()?;
            runs.push((result.prompt_tokens_per_s, result.tokens_per_s));
        }
    }
    Ok(Rates { shape, cpu, host, rounds, rates: summarise(&runs) })
}

/// The medians over all rounds, for each number of cores.
fn summarise(runs: &[Vec<Pair>]) -> Vec<Rate> {
    let column = |runs: &[Pair], pick: fn(&Pair) -> f64| runs.iter().map(pick).collect::<Vec<_>>();
    let ratio = |runs: &[Pair], one: &[Pair], pick: fn(&Pair) -> f64| {
        median(runs.iter().zip(one).map(|(run, one)| pick(run) / pick(one)).collect())
    };
    let of = |(cores, of): (u32, &Vec<Pair>)| {
        let generate = column(of, |pair| pair.1);
        let least = generate.iter().copied().fold(f64::INFINITY, f64::min);
        let most = generate.iter().copied().fold(0.0, f64::max);
        let generate_per_s = median(generate);
        Rate {
            cores,
            prompt_per_s: median(column(of, |pair| pair.0)),
            generate_per_s,
            prompt_ratio: ratio(of, &runs[0], |pair| pair.0),
            generate_ratio: ratio(of, &runs[0], |pair| pair.1),
            spread: (most - least) / generate_per_s,
        }
    };
    CORES.into_iter().zip(runs).map(of).collect()
}

impl Row for Rates {
    const NAME: &'static str = "rates";
    type Key = (ShapeName, Cpu);

    fn key(&self) -> Self::Key {
        (self.shape, self.cpu)
    }

    fn table(rows: &[Self]) -> String {
        let columns: &[Column<(&Rates, &Rate)>] = &[
            ("shape", |(row, _)| row.shape.title().into()),
            ("processor", |(row, _)| row.cpu.name().into()),
            ("cores", |(row, rate)| {
                let beyond = rate.cores as usize > row.host.cores;
                format!("{}{}", rate.cores, if beyond { " (the host has fewer)" } else { "" })
            }),
            ("generate, tokens/s", |(_, rate)| digits(rate.generate_per_s)),
            ("to one core", |(_, rate)| format!("{:.2} ×", rate.generate_ratio)),
            ("spread", |(_, rate)| format!("{:.0} %", 100.0 * rate.spread)),
            ("prompt, tokens/s", |(_, rate)| digits(rate.prompt_per_s)),
            ("to one core", |(_, rate)| format!("{:.2} ×", rate.prompt_ratio)),
            ("host's load", |(row, _)| row.host.shown()),
        ];
        let lines = rows.iter().flat_map(|row| row.rates.iter().map(move |rate| (row, rate)));
        table(columns, &lines.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The host was half as fast in the second round. Two cores gain 1.5 × in all rounds.
        let one = vec![(40.0, 20.0), (20.0, 10.0), (40.0, 20.0)];
        let two = vec![(60.0, 30.0), (30.0, 15.0), (60.0, 30.0)];
        let rates = summarise(&[one.clone(), two, one]);
        let ratios: Vec<_> = rates.iter().map(|r| (r.prompt_ratio, r.generate_ratio)).collect();
        assert_eq!(ratios, [(1.0, 1.0), (1.5, 1.5), (1.0, 1.0)]);
        assert_eq!((rates[1].prompt_per_s, rates[1].generate_per_s), (60.0, 30.0));
        assert_eq!(rates[1].spread, 0.5);
    }
}
