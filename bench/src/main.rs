//! `anchorite-bench`: measures the build.
//!
//! Exit status: 0 all well, 1 a measurement failed, 2 wrong usage.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod cycles;
mod disks;
mod guest;
mod host;
mod instructions;
mod machine;
mod model;
mod peer;
mod random;
mod rates;
mod results;
mod serve;
mod shape;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use host_io::console;
use host_io::files::Target;

use cycles::Cycles;
use guest::Build;
use instructions::Instructions;
use machine::Machine;
use peer::Peer;
use rates::Rates;
use results::{Row, Store};
use serve::Serve;
use shape::{Cpu, ShapeName};

/// Measures Anchorite in QEMU, with models of random weights that it makes itself.
///
/// Shows tables on standard output, keeps the results as JSON, and writes the tables into
/// bench/README.md, which explains them. What is not measured keeps its last result.
#[derive(Debug, Parser)]
#[command(name = "anchorite-bench", version)]
struct Cli {
    /// What to measure [default: all but peer and serve]
    #[arg(value_enum)]
    instruments: Vec<Instrument>,
    /// The model's shape; may be repeated [default: tiny and gpt2; for serve, tiny and smollm2]
    #[arg(long, value_enum, value_name = "SHAPE")]
    shape: Vec<ShapeName>,
    /// The processor; may be repeated [default: all; for serve, cortex-a72 and neoverse-n1]
    #[arg(long, value_enum, value_name = "CPU")]
    cpu: Vec<Cpu>,
    /// All shapes: TinyLlama takes 1.3 GB of disk and many minutes
    #[arg(long, conflicts_with = "shape")]
    full: bool,
    /// Rounds of each measurement by the host's clock
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Measure nothing: show the last results, and write them into the README
    #[arg(long)]
    show: bool,
    /// Folder of the results; the README with their tables lies beside it
    #[arg(long, value_name = "FOLDER", default_value = "bench/results")]
    results: PathBuf,
    /// cargo's target folder, with the build to measure
    #[arg(long, value_name = "FOLDER", default_value = "target")]
    target: PathBuf,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Instrument {
    /// Instructions for a token, the same on each host
    Instructions,
    /// Tokens a second on 1, 2 and 4 cores
    Rates,
    /// The whole machine: start, load of the model, memory
    Machine,
    /// Cycles of the kernels' inner loops on LLVM's models of real cores
    Cycles,
    /// Tokens a second beside llama.cpp on Linux, which is built first; only on request
    Peer,
    /// The server beside llama-server on Linux, which is built first; only on request
    Serve,
}

impl Instrument {
    /// The default instruments: all that download nothing.
    const USUAL: &[Instrument] =
        &[Instrument::Instructions, Instrument::Rates, Instrument::Machine, Instrument::Cycles];

    /// The models and processors to measure.
    fn subjects(self, cli: &Cli) -> Result<Vec<(ShapeName, Cpu)>> {
        let (all, usual, cpus): (&[_], _, &[_]) = match self {
            Instrument::Serve => (
                ShapeName::value_variants(),
                [ShapeName::Tiny, ShapeName::SmolLm2],
                &[Cpu::CortexA72, Cpu::NeoverseN1],
            ),
            _ => (&ShapeName::RANDOM, [ShapeName::Tiny, ShapeName::Gpt2], Cpu::value_variants()),
        };
        let shapes = if cli.full { all.into() } else { or(&cli.shape, &usual) };
        for shape in &shapes {
            ensure!(all.contains(shape), "the shape {} is for `serve` alone", shape.name());
        }
        let cpus = &or(&cli.cpu, cpus);
        let pairs = shapes.into_iter().flat_map(|shape| cpus.iter().map(move |&cpu| (shape, cpu)));
        Ok(pairs.collect())
    }
}

fn main() -> ExitCode {
    let cli = match console::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let result = run(&cli);
    if let Err(error) = &result {
        console::say(format_args!("anchorite-bench: {error:#}"));
    }
    console::status(result.is_err().into())
}

/// The given values, or else the default.
fn or<T: Copy>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() { default.into() } else { given.into() }
}

fn run(cli: &Cli) -> Result<()> {
    let instruments = or(&cli.instruments, Instrument::USUAL);
    if cli.show {
        return instruments.into_iter().try_for_each(|instrument| show(instrument, &cli.results));
    }
    let build = Build::new(&cli.target)?;
    let rounds = cli.rounds as usize;
    let subjects: Result<Vec<_>> = instruments.iter().map(|it| it.subjects(cli)).collect();
    for (instrument, subjects) in instruments.into_iter().zip(subjects?) {
        match instrument {
            Instrument::Instructions => {
                each::<Instructions>(&cli.results, subjects, |(shape, cpu)| {
                    instructions::measure(&build, shape, cpu)
                })?
            }
            Instrument::Rates => each::<Rates>(&cli.results, subjects, |(shape, cpu)| {
                rates::measure(&build, shape, cpu, rounds)
            })?,
            Instrument::Machine => each::<Machine>(&cli.results, subjects, |(shape, cpu)| {
                machine::measure(&build, shape, cpu, rounds)
            })?,
            Instrument::Peer => each::<Peer>(&cli.results, subjects, |(shape, cpu)| {
                peer::measure(&build, shape, cpu, rounds)
            })?,
            Instrument::Serve => each::<Serve>(&cli.results, subjects, |(shape, cpu)| {
                serve::measure(&build, shape, cpu, rounds)
            })?,
            Instrument::Cycles => {
                // An empty store drops kernels that no longer exist.
                let mut store = Store::<Cycles>::empty(&cli.results);
                for kernel in cycles::measure(&build.elf())? {
                    store.put(kernel)?;
                }
                publish(&cli.results, &store)?;
            }
        }
    }
    Ok(())
}

/// Measures each subject, saves each result at once, and shows the table.
fn each<R: Row>(
    folder: &Path,
    subjects: Vec<(ShapeName, Cpu)>,
    mut measure: impl FnMut((ShapeName, Cpu)) -> Result<R>,
) -> Result<()> {
    let mut store = Store::<R>::open(folder)?;
    for subject in subjects {
        store.put(measure(subject)?)?;
    }
    publish(folder, &store)
}

fn show(instrument: Instrument, folder: &Path) -> Result<()> {
    match instrument {
        Instrument::Instructions => publish(folder, &Store::<Instructions>::open(folder)?),
        Instrument::Rates => publish(folder, &Store::<Rates>::open(folder)?),
        Instrument::Machine => publish(folder, &Store::<Machine>::open(folder)?),
        Instrument::Cycles => publish(folder, &Store::<Cycles>::open(folder)?),
        Instrument::Peer => publish(folder, &Store::<Peer>::open(folder)?),
        Instrument::Serve => publish(folder, &Store::<Serve>::open(folder)?),
    }
}

/// Shows the table, and writes the table into the README.
fn publish<R: Row>(folder: &Path, store: &Store<R>) -> Result<()> {
    let table = store.table();
    console::print_line(format_args!("{}\n\n{table}", R::NAME))?;
    let readme = folder.with_file_name("README.md");
    let Ok(text) = fs::read_to_string(&readme) else { return Ok(()) };
    match results::with_table(&text, R::NAME, &table) {
        Some(text) => Target::new(&readme, &[])?.write(|file| Ok(file.write_all(text.as_bytes())?)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault_with_the_definition() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_real_model_is_for_serve_alone() {
        let cli = |words: &[&str]| Cli::parse_from([&["anchorite-bench"], words].concat());
        let real = cli(&["--shape=smollm2"]);
        let error = Instrument::Rates.subjects(&real).unwrap_err().to_string();
        assert!(error.contains("smollm2 is for `serve` alone"), "{error}");
        let pairs = [Cpu::CortexA72, Cpu::NeoverseN1].map(|cpu| (ShapeName::SmolLm2, cpu));
        assert_eq!(Instrument::Serve.subjects(&real).unwrap(), pairs);
        assert_eq!(Instrument::Rates.subjects(&cli(&["--full"])).unwrap().len(), 3 * 3);
    }

    #[test]
    fn the_readme_has_the_tables_of_the_results() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        let check = |name, table: String| {
            let with_table = results::with_table(&readme, name, &table);
            assert!(with_table.as_ref() == Some(&readme), "{name}: run make bench, or\n{table}");
        };
        let results = folder.join("results");
        check(Instructions::NAME, Store::<Instructions>::open(&results).unwrap().table());
        check(Rates::NAME, Store::<Rates>::open(&results).unwrap().table());
        check(Machine::NAME, Store::<Machine>::open(&results).unwrap().table());
        check(Peer::NAME, Store::<Peer>::open(&results).unwrap().table());
        check(Serve::NAME, Store::<Serve>::open(&results).unwrap().table());
        check(Cycles::NAME, Store::<Cycles>::open(&results).unwrap().table());
    }
}
