//! The server beside llama-server on Linux, in the same emulated machine.
//!
//! Both get the same disk, two cores and contexts of the same size. They take turns, and ratios are
//! taken within each round. [`machine`] starts them, [`client`] asks them, [`memory`] finds the
//! smallest machine, and [`counted`] counts the instructions of the unikernel's server.

#![forbid(unsafe_code)]

mod client;
mod counted;
mod machine;
mod memory;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use host_io::console;
use serde::{Deserialize, Serialize};

use crate::guest::Build;
use crate::host::Host;
use crate::peer::medians;
use crate::rates::Pair;
use crate::results::{Column, Row, digits, median, table};
use crate::shape::{Cpu, ShapeName};
use client::{Answer, Client, Request, ask, text, together};
use counted::Counted;
use machine::{Files, Side, Size};

/// The numbers of clients that ask at once.
const CLIENTS: [usize; 3] = [1, 4, 8];
/// Tokens of a prompt that all users share.
const SHARED: usize = 500;
/// Tokens of a prompt that follow, or of one without a shared part.
const OWN: usize = 8;
/// Longest time without a token.
const SILENCE: Duration = Duration::from_secs(600);

/// One model on one processor. Pairs are the unikernel's figure and llama-server's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Serve {
    /// The model.
    pub shape: ShapeName,
    /// The processor.
    pub cpu: Cpu,
    /// The host before the first round.
    pub host: Host,
    /// The number of rounds behind the medians.
    pub rounds: usize,
    /// From QEMU's start to the first token.
    pub start_s: Pair,
    /// The median of llama-server's time over the unikernel's.
    pub start_ratio: f64,
    /// Memory of the smallest machine that serves four requests at once.
    pub memory_mib: Pair,
    /// Streams at once.
    pub loads: Vec<Load>,
    /// From a request to its first token, with nothing of its prompt cached.
    pub uncached_s: Pair,
    /// The same with the shared part cached.
    pub cached_s: Pair,
    /// The medians of the second over the first.
    pub cached_ratio: Pair,
    /// The unikernel's instructions.
    pub counted: Counted,
}

/// Streams of some clients at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The number of clients.
    pub clients: usize,
    /// Tokens a second in all, prompts included in the time.
    pub tokens_per_s: Pair,
    /// The median ratio of both.
    pub ratio: f64,
    /// Time between two tokens of a stream, 99th percentile.
    pub gap_s: Pair,
}

/// The figures of one server in one round.
#[derive(Clone, Debug, PartialEq)]
struct Round {
    start_s: f64,
    uncached_s: f64,
    cached_s: f64,
    /// For each of [`CLIENTS`]: tokens a second, and the 99th percentile of gaps.
    loads: Vec<(f64, f64)>,
}

/// The tokens that each client asks for.
fn tokens(shape: ShapeName) -> usize {
    match shape {
        ShapeName::Tiny => 48,
        _ => 12,
    }
}

/// Measures one model on one processor.
///
/// # Errors
/// The peer cannot be built, or a server fails.
pub fn measure(build: &Build, shape: ShapeName, cpu: Cpu, rounds: usize) -> Result<Serve> {
    let files = Files::new(build, shape, cpu)?;
    // A real model needs minutes for a round.
    let rounds = if shape == ShapeName::Tiny { rounds } else { rounds.div_ceil(3) };
    let of = format!("serve: {} on {}", shape.title(), cpu.name());
    let host = Host::now();
    let (mut ours, mut peer) = (vec![], vec![]);
    for number in 1..=rounds {
        for (side, all) in [(Side::Ours, &mut ours), (Side::Peer, &mut peer)] {
            let what = format!("{of}, round {number} of {rounds}, {}", side.name());
            all.push(timed(&what, || round(&files, side, tokens(shape)))?);
        }
    }
    let counted = timed(&format!("{of}, instructions"), || {
        counted::measure(build, &files, shape, cpu, tokens(shape))
    })?;
    let smallest = |side: Side| {
        let what = format!("{of}, memory, {}", side.name());
        timed(&what, || memory::smallest_mib(&files, side, OWN)).map(|mib| mib as f64)
    };
    let memory_mib = (smallest(Side::Ours)?, smallest(Side::Peer)?);
    Ok(summarise(shape, cpu, host, &ours, &peer, memory_mib, counted))
}

/// Runs a part of the measurement, and shows its time on standard error.
fn timed<T>(what: &str, part: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let result = part().with_context(|| what.to_owned())?;
    console::say(format_args!("{what}: {:.1} s", started.elapsed().as_secs_f64()));
    Ok(result)
}

fn round(files: &Files, side: Side, tokens: usize) -> Result<Round> {
    let slots = CLIENTS[CLIENTS.len() - 1];
    let mut running =
        files.start(side, Size { cores: 2, memory_mib: 2048, slots, counted: false })?;
    running.wait(SILENCE)?;
    let server = running.server;
    let request = |prompt, tokens| Request { prompt, tokens, cache: true };

    let answer = Client::new(server, SILENCE)?.ask(&request(text(30, OWN), 1))?;
    let start_s = answer.first_s()? + (answer.sent - running.started).as_secs_f64();

    let first_s = |user: u32| {
        let prompt = [text(31, SHARED), text(user, OWN)].concat();
        ask(server, &request(prompt, 1), SILENCE)?.first_s()
    };
    let (uncached_s, cached_s) = (first_s(32)?, first_s(33)?);

    let mut loads = vec![];
    for clients in CLIENTS {
        let prompt = |i| text((clients + i) as u32, OWN);
        let requests: Vec<_> = (0..clients).map(|i| request(prompt(i), tokens)).collect();
        loads.push(load(&together(server, &requests, SILENCE)?)?);
    }
    Ok(Round { start_s, uncached_s, cached_s, loads })
}

/// Tokens a second in all, and the 99th percentile of the times between two tokens of a stream.
fn load(answers: &[Answer]) -> Result<(f64, f64)> {
    let start = answers.iter().map(|answer| answer.sent).min().context("no client")?;
    let end =
        answers.iter().filter_map(|answer| answer.arrivals.last()).max().context("no text")?;
    let tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
    let mut gaps: Vec<f64> = answers.iter().flat_map(Answer::gaps_s).collect();
    gaps.sort_by(f64::total_cmp);
    let gap = gaps.get((gaps.len() * 99).div_ceil(100).saturating_sub(1));
    Ok((tokens as f64 / (*end - start).as_secs_f64(), *gap.context("no second token")?))
}

fn summarise(
    shape: ShapeName,
    cpu: Cpu,
    host: Host,
    ours: &[Round],
    peer: &[Round],
    memory_mib: Pair,
    counted: Counted,
) -> Serve {
    let pairs = |pick: &dyn Fn(&Round) -> f64| -> Vec<Pair> {
        ours.iter().zip(peer).map(|(ours, peer)| (pick(ours), pick(peer))).collect()
    };
    let start = pairs(&|round| round.start_s);
    let cached = pairs(&|round| round.cached_s / round.uncached_s);
    let load = |(i, clients): (usize, _)| {
        let rates = pairs(&|round| round.loads[i].0);
        Load {
            clients,
            tokens_per_s: medians(&rates),
            ratio: median(rates.iter().map(|(ours, peer)| ours / peer).collect()),
            gap_s: medians(&pairs(&|round| round.loads[i].1)),
        }
    };
    Serve {
        shape,
        cpu,
        host,
        rounds: ours.len(),
        start_s: medians(&start),
        start_ratio: median(start.iter().map(|(ours, peer)| peer / ours).collect()),
        memory_mib,
        loads: CLIENTS.into_iter().enumerate().map(load).collect(),
        uncached_s: medians(&pairs(&|round| round.uncached_s)),
        cached_s: medians(&pairs(&|round| round.cached_s)),
        cached_ratio: medians(&cached),
        counted,
    }
}

/// A goal of this project for a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    None,
}

impl Goal {
    /// The goal's cell for this ratio.
    fn shown(self, ratio: f64) -> String {
        let (goal, reached) = match self {
            Goal::AtLeast(goal) => (goal, ratio >= goal),
            Goal::AtMost(goal) => (goal, ratio <= goal),
            Goal::None => return "–".into(),
        };
        format!("{goal:.2} ×{}", if reached { "" } else { ", missed" })
    }
}

/// A line of the table: a figure of both servers.
struct Line {
    measure: String,
    ours: String,
    peer: String,
    ratio: f64,
    goal: Goal,
}

impl Serve {
    fn lines(&self) -> Vec<Line> {
        let seconds = |s: f64| format!("{} s", digits(s));
        let line = |measure: &str, pair: Pair, shown: &dyn Fn(f64) -> String, ratio, goal| Line {
            measure: measure.into(),
            ours: shown(pair.0),
            peer: shown(pair.1),
            ratio,
            goal,
        };
        let over = |pair: Pair| pair.1 / pair.0;
        let start = Goal::AtLeast(6.0);
        let mut lines = vec![
            line("start to first token", self.start_s, &seconds, self.start_ratio, start),
            line(
                "smallest machine for 4 slots",
                self.memory_mib,
                &|mib| format!("{mib} MiB"),
                over(self.memory_mib),
                Goal::AtLeast(2.0),
            ),
        ];
        let rate = match self.cpu {
            Cpu::CortexA72 => Goal::AtLeast(2.0),
            Cpu::NeoverseN1 => Goal::AtLeast(1.3),
            Cpu::Max => Goal::None,
        };
        for load in &self.loads {
            let clients = if load.clients == 1 { "client" } else { "clients" };
            let measure = format!("tokens/s, {} {clients}", load.clients);
            lines.push(line(&measure, load.tokens_per_s, &digits, load.ratio, rate));
        }
        if let Some(load) = self.loads.last() {
            let measure = format!("between tokens, {} clients, p99", load.clients);
            lines.push(line(&measure, load.gap_s, &seconds, over(load.gap_s), Goal::None));
        }
        let (uncached, cached) = (self.uncached_s, self.cached_s);
        let prompt = format!("prompt of {}", SHARED + OWN);
        for (state, pair) in
            [("nothing cached".to_owned(), uncached), (format!("{SHARED} cached"), cached)]
        {
            let measure = format!("{prompt}, {state}");
            lines.push(line(&measure, pair, &seconds, over(pair), Goal::None));
        }
        let share = |x: f64| format!("{x:.3}");
        let goal = Goal::AtMost(0.1);
        let ratio = self.cached_ratio;
        lines.push(line("cached to not cached", ratio, &share, ratio.0, goal));
        lines.push(Line {
            measure: "instructions a token, 8 clients".into(),
            ours: format!("{} M", digits(self.counted.token)),
            peer: "–".into(),
            ratio: self.counted.ratio(),
            goal: Goal::AtMost(1.1),
        });
        lines
    }
}

impl Row for Serve {
    const NAME: &'static str = "serve";
    type Key = (ShapeName, Cpu);

    fn key(&self) -> Self::Key {
        (self.shape, self.cpu)
    }

    fn table(rows: &[Self]) -> String {
        let columns: &[Column<(&Serve, Line)>] = &[
            ("model", |(row, _)| row.shape.title().into()),
            ("processor", |(row, _)| row.cpu.name().into()),
            ("measure", |(_, line)| line.measure.clone()),
            ("Anchorite", |(_, line)| line.ours.clone()),
            ("llama-server", |(_, line)| line.peer.clone()),
            ("ratio", |(_, line)| format!("**{:.2} ×**", line.ratio)),
            ("goal", |(_, line)| line.goal.shown(line.ratio)),
            ("host's load", |(row, _)| row.host.shown()),
        ];
        let lines =
            rows.iter().flat_map(|row| row.lines().into_iter().map(move |line| (row, line)));
        table(columns, &lines.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Timings;

    fn answer(start: Instant, arrivals_ms: &[u64]) -> Answer {
        let at = |ms: &u64| start + Duration::from_millis(*ms);
        let timings = Timings { prompt_n: 1, prompt_ms: 1.0, predicted_n: 1, predicted_ms: 1.0 };
        let arrivals: Vec<_> = arrivals_ms.iter().map(at).collect();
        Answer { sent: start, tokens: arrivals.len(), arrivals, timings }
    }

    #[test]
    fn a_load_has_the_tokens_of_all_clients_over_the_whole_time() {
        let start = Instant::now();
        let answers = [answer(start, &[100, 200, 400]), answer(start, &[150, 350, 500])];
        assert_eq!(load(&answers).unwrap(), (12.0, 0.2));
        // One gap of a hundred is longer: the 99th percentile does not have it, two do.
        let mut times: Vec<u64> = (0..=99).map(|i| 10 * i).collect();
        times.push(2000);
        assert_eq!(load(&[answer(start, &times)]).unwrap().1, 0.01);
        times.push(4000);
        assert!(load(&[answer(start, &times)]).unwrap().1 > 1.0);
        assert!(load(&[answer(start, &[1])]).is_err());
    }

    fn row() -> Serve {
        // The host was half as fast in the second round.
        let round = |speed: f64, start_s: f64, cached_s: f64| Round {
            start_s: start_s / speed,
            uncached_s: 2.0 / speed,
            cached_s: cached_s / speed,
            loads: vec![(30.0 * speed / start_s, 0.1); CLIENTS.len()],
        };
        let rounds =
            |start_s, cached_s| [1.0, 0.5, 1.0].map(|speed| round(speed, start_s, cached_s));
        let host = Host { cores: 2, load: Some(0.25) };
        let counted = Counted { token: 2.4, alone: 4.0, prompt: 1.5, output: 0.5 };
        let (ours, peer) = (rounds(0.5, 0.1), rounds(4.0, 0.6));
        summarise(ShapeName::Tiny, Cpu::CortexA72, host, &ours, &peer, (40.0, 120.0), counted)
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let row = row();
        assert_eq!((row.start_s, row.start_ratio, row.rounds), ((0.5, 4.0), 8.0, 3));
        assert_eq!((row.loads[2].tokens_per_s, row.loads[2].ratio), ((60.0, 7.5), 8.0));
        assert_eq!(row.cached_ratio, (0.05, 0.3));
    }

    #[test]
    fn goals_that_are_missed_are_named() {
        let table = Serve::table(&[row()]);
        for line in [
            "start to first token | 0.50 s | 4.00 s | **8.00 ×** | 6.00 × | 0.2 on 2 |",
            "smallest machine for 4 slots | 40 MiB | 120 MiB | **3.00 ×** | 2.00 × |",
            "tokens/s, 1 client | 60.0 | 7.50 | **8.00 ×** | 2.00 × |",
            "cached to not cached | 0.050 | 0.300 | **0.05 ×** | 0.10 × |",
            "instructions a token, 8 clients | 2.40 M | – | **1.20 ×** | 1.10 ×, missed |",
        ] {
            assert!(table.contains(&format!("| tiny | cortex-a72 | {line}")), "{line}\n{table}");
        }
        assert_eq!(Goal::AtLeast(2.0).shown(1.99), "2.00 ×, missed");
    }
}
