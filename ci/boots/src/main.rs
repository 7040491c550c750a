//! `boots`: boots Anchorite in QEMU in all supported ways, injects faults, and checks the events.
//!
//! ```text
//! ci/boots.sh                     the quick ones, two or more at a time
//! ci/boots.sh pci fat-            those with one of these in their names
//! ci/boots.sh --group pi4         those of a group; --list shows names and groups
//! ci/boots.sh --jobs 1 corrupt    one at a time
//! ```
//!
//! The table is in [`boots`], a file for each topic. A new boot is a few lines there:
//!
//! ```text
//! boot("pci").disk_on(Bus::Pci, tiny()).cores(2).answers()
//! boot("no-disk").fails(Code::ModelNotFound, "")
//! boot("shift").disk(tiny()).set("context", 16).set("context_shift", true)
//!     .event(event!(Result { stop == StopReason::MaxTokens, context_shifts >= 1 }))
//!     .exits(0)
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`boot`] | a boot: machine, disk, settings, expectations |
//! | [`disk`], [`volume`], [`model`] | disks, damage to them, models made for a boot |
//! | [`expect`], [`seen`] | expectations; the events, lines and screen that a boot has shown |
//! | [`qemu`], [`screen`] | boots without the harness: serial line, monitor, screen |
//! | [`wire`], [`frames`] | the network between guest and QEMU; frames of attackers
//! | [`check`] | a row of the table; [`check::check`] makes one of a function |
//! | [`script`] | scripts that run to their end |
//! | [`runner`], [`junit`] | jobs side by side, the last lines, the report for CI |
//!
//! The serial log of a boot is `target/boot/NAME.log`, the output of the program that booted it is
//! `target/boot/NAME.out`. The report for CI is `target/boots/junit.xml`.

#![forbid(unsafe_code)]

mod boot;
mod boots;
mod check;
mod device_tree;
mod disk;
mod expect;
mod failure;
mod files;
mod frames;
mod goldens;
mod gzip;
mod junit;
mod lab;
mod machine;
mod model;
mod qemu;
mod runner;
mod screen;
mod script;
mod seen;
mod volume;
mod wire;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use host_io::console;

use check::{Check, Group, chosen};
use lab::Lab;

/// The folder of the logs.
const LOGS: &str = "target/boot";
/// The folder of the reports.
const REPORTS: &str = "target/boots";

/// Boots Anchorite in QEMU in all supported ways, injects faults, and checks the events
#[derive(Parser)]
#[command(name = "boots", after_help = "Exit status: 0 all hold, 1 some do not, 2 usage.")]
struct Cli {
    /// Only checks with one of these words in their names
    #[arg(value_name = "PART-OF-NAME")]
    words: Vec<String>,
    /// Only checks of these groups [default: quick, or all that the words find]
    #[arg(long, value_enum)]
    group: Vec<Group>,
    /// List the checks with their groups, and run none
    #[arg(long)]
    list: bool,
    /// Checks that run side by side [default: the cores of the host, at most 8]
    #[arg(long)]
    jobs: Option<usize>,
    /// Show a table of all checks at the end; also in target/boots/table.json
    #[arg(long)]
    table: bool,
}

fn main() -> ExitCode {
    let cli: Cli = match console::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match run(&cli) {
        Ok(status) => console::status(status),
        Err(e) => {
            console::say(format_args!("boots: {e:#}"));
            console::status(1)
        }
    }
}

fn run(cli: &Cli) -> Result<u8> {
    let table = boots::table();
    let checks = chosen(&table, &cli.words, &cli.group);
    if checks.is_empty() {
        console::say("boots: no check has such a name, or is in such a group: see --list");
        return Ok(2);
    }
    if cli.list {
        for check in checks {
            console::print_line(listed(check))?;
        }
        return Ok(0);
    }

    for folder in [LOGS, REPORTS].map(Path::new) {
        if folder.exists() {
            std::fs::remove_dir_all(folder).context("cannot remove the old logs")?;
        }
        std::fs::create_dir_all(folder).context("cannot make a folder for the logs")?;
    }
    let lab = Lab::new(LOGS);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = cli.jobs.unwrap_or(cores.min(8));
    let done = runner::run(&checks, jobs, &lab, &mut std::io::stdout());
    lab.clean()?;
    std::fs::write(Path::new(REPORTS).join("junit.xml"), junit::report(&done))?;
    if cli.table {
        console::print_line(runner::table(&done))?;
        let file = std::fs::File::create(Path::new(REPORTS).join("table.json"))?;
        serde_json::to_writer_pretty(file, &runner::table_json(&done))?;
    }
    console::print_line(runner::summary(&done).trim_end())?;
    let failed = done.iter().any(|one| matches!(one.outcome, runner::Outcome::Failed(_)));
    Ok(failed.into())
}

fn listed(check: &Check) -> String {
    let groups: Vec<String> =
        check.groups.iter().map(|group| format!("{group:?}").to_lowercase()).collect();
    let alone = if check.alone { ", alone" } else { "" };
    format!("{:40} {}{alone}", check.name, groups.join(" "))
}
