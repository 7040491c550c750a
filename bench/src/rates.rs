//! Instrument 2: tokens a second on one, two and four cores.
//!
//! Times under emulation say little of themselves, but cores can be compared with each other if
//! they take turns: each round runs all numbers of cores one after the other.

#![forbid(unsafe_code)]

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::disks;
use crate::guest::{House, Run};
use crate::host::Host;
use crate::results::{Row, digits, median, table};
use crate::shape::{Cpu, ShapeName};

/// The numbers of cores.
const CORES: [u32; 3] = [1, 2, 4];
/// Tokens in the prompt.
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
    /// Rounds that medians were taken of.
    pub rounds: usize,
    /// One for each number of cores.
    pub rates: Vec<Rate>,
}

/// The rates on so many cores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Cores.
    pub cores: u32,
    /// Prompt tokens a second.
    pub prompt_per_s: f64,
    /// Generated tokens a second.
    pub generate_per_s: f64,
    /// The median of a round's rate over that round's rate on one core, for the prompt.
    pub prompt_ratio: f64,
    /// Likewise, for what is generated.
    pub generate_ratio: f64,
    /// How far the generated tokens' rates lie apart: the range over the median.
    pub spread: f64,
}

/// Prompt tokens and generated tokens a second.
pub type Pair = (f64, f64);

/// Measures one shape on one processor.
///
/// # Errors
/// A run fails.
pub fn measure(house: &House, shape: ShapeName, cpu: Cpu, rounds: usize) -> Result<Rates> {
    let disk = disks::disk(house, shape)?;
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
            let report = house.run(&format!("rates: {of}, round {round} of {rounds}"), &run)?;
            let result = report.result()?;
            runs.push((result.prompt_tokens_per_s, result.tokens_per_s));
        }
    }
    Ok(Rates { shape, cpu, host, rounds, rates: summarise(&runs) })
}

/// The medians of the runs: for each number of cores those of all rounds.
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
        let header = [
            "shape",
            "processor",
            "cores",
            "generate, tokens/s",
            "to one core",
            "spread",
            "prompt, tokens/s",
            "to one core",
            "host's load",
        ];
        let lines = rows.iter().flat_map(|row| {
            row.rates.iter().map(|rate| {
                let beyond =
                    if rate.cores as usize > row.host.cores { " (the host has fewer)" } else { "" };
                [
                    row.shape.title().into(),
                    row.cpu.name().into(),
                    format!("{}{beyond}", rate.cores),
                    digits(rate.generate_per_s),
                    format!("{:.2} ×", rate.generate_ratio),
                    format!("{:.0} %", 100.0 * rate.spread),
                    digits(rate.prompt_per_s),
                    format!("{:.2} ×", rate.prompt_ratio),
                    row.host.shown(),
                ]
            })
        });
        table(header, &lines.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The host was twice as slow in the second round; two cores gain 1.5 in both.
        let one = vec![(40.0, 20.0), (20.0, 10.0), (40.0, 20.0)];
        let two = vec![(60.0, 30.0), (30.0, 15.0), (60.0, 30.0)];
        let rates = summarise(&[one.clone(), two, one]);
        let ratios: Vec<_> = rates.iter().map(|r| (r.prompt_ratio, r.generate_ratio)).collect();
        assert_eq!(ratios, [(1.0, 1.0), (1.5, 1.5), (1.0, 1.0)]);
        assert_eq!((rates[1].prompt_per_s, rates[1].generate_per_s), (60.0, 30.0));
        assert_eq!(rates[1].spread, 0.5);
    }
}
