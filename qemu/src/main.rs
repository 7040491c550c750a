//! Boots Anchorite in QEMU, shows what it says and judges it.
//!
//! The way through: [`cli`] turns arguments into a plan, [`command`] the plan's machine into
//! QEMU's command line, [`mod@run`] starts it and takes the serial line apart with [`serial`],
//! [`mod@judge`] says what to think of it, [`report`] writes it down.

mod child;
mod cli;
mod command;
mod input;
mod judge;
mod report;
mod run;
mod serial;
mod terminal;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use kernel::report::Event;

use cli::{Cli, Environment, Plan};
use command::{Device, Host, shell_line};
use judge::{Evidence, Kind, Verdict, judge};
use report::Report;

/// Exit status for a wrong command line; clap uses the same.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let plan = match cli.plan(&Environment::detect(), Host::detect()) {
        Ok(plan) => plan,
        Err(message) => return say_error(&message, "", USAGE),
    };
    let arguments = plan.machine.arguments();
    let command: Vec<&OsStr> = [plan.qemu.as_os_str()]
        .into_iter()
        .chain(arguments.iter().map(|a| a.as_os_str()))
        .collect();
    if cli.print {
        println!("{}", shell_line(command));
        return ExitCode::SUCCESS;
    }

    // Both files are opened first: that they can't be written must not come out after the run.
    let files =
        create(cli.keep_log.as_deref()).and_then(|log| Ok((log, create(cli.report.as_deref())?)));
    let (log, report) = match files {
        Ok(files) => files,
        Err(e) => return say_error(&format!("{e:#}"), "", USAGE),
    };
    match run(&plan, &arguments, &command, log, report) {
        Ok(verdict) => {
            if verdict.kind != Kind::Passed {
                return say_error(&verdict.message, &verdict.hint, verdict.exit_status);
            }
            if plan.expected.error.is_some() {
                eprintln!("ok: {}", verdict.message);
            }
            ExitCode::SUCCESS
        }
        Err(e) => say_error(&format!("{e:#}"), "", 1),
    }
}

fn run(
    plan: &Plan,
    arguments: &[OsString],
    command: &[&OsStr],
    log: Option<File>,
    report: Option<File>,
) -> anyhow::Result<Verdict> {
    for device in &plan.machine.devices {
        if let Device::Gdb { port } = device {
            eprintln!("waiting for gdb: gdb-multiarch ELF -ex 'target remote 127.0.0.1:{port}'");
        }
    }
    let options = run::Options {
        program: &plan.qemu,
        arguments,
        chat: plan.chat,
        limits: plan.limits,
        raw: plan.raw,
        log,
    };
    let record = run::run(options)?;
    let events: Vec<&Event> = record.events.iter().map(|seen| &seen.event).collect();
    let evidence = Evidence {
        events: &events,
        garbled: record.garbled.as_ref(),
        end: &record.end,
        stderr: &record.stderr,
    };
    let verdict = judge(evidence, &plan.expected);
    let summary = report::summary(&record);
    if !summary.is_empty() {
        eprintln!("{summary}");
    }
    if let Some(file) = report {
        let command = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let report = Report::new(command, plan.machine.accelerator, &record, &verdict);
        write_report(file, &report).context("cannot write the report")?;
    }
    Ok(verdict)
}

fn write_report(file: File, report: &Report<'_>) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut file, report)?;
    writeln!(file)?;
    file.flush()
}

fn create(path: Option<&Path>) -> anyhow::Result<Option<File>> {
    path.map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())))
        .transpose()
}

fn say_error(message: &str, hint: &str, status: u8) -> ExitCode {
    eprintln!("error: {message}");
    if !hint.is_empty() {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(status)
}
