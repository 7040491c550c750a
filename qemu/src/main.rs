//! `anchorite-qemu`: boots Anchorite in QEMU, shows the serial line and judges the run.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use host_io::{console, files};
use kernel::report::Event;

use harness::cli::{Cli, Environment, Plan};
use harness::command::{Board, Device, Forward, Host, Machine, shell_line};
use harness::judge::{Evidence, Kind, Verdict, judge};
use harness::report::{self, Report};
use harness::run;

/// Exit status for a wrong command line; clap uses the same.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli: Cli = match console::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
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
        return match console::print_line(shell_line(command)) {
            Ok(()) => console::status(0),
            Err(e) => say_error(&e.to_string(), "", 1),
        };
    }

    // Both files are opened first, so that a file that cannot be written fails before the run.
    let (log, report) = match open_outputs(&cli, &plan) {
        Ok(files) => files,
        Err(e) => return say_error(&format!("{e:#}"), "", USAGE),
    };
    match boot(&plan, &arguments, &command, log, report) {
        Ok(verdict) => {
            if verdict.kind != Kind::Passed {
                return say_error(&verdict.message, &verdict.hint, verdict.exit_status);
            }
            if plan.expected.error.is_some() {
                console::say(format_args!("ok: {}", verdict.message));
            }
            console::status(0)
        }
        Err(e) => say_error(&format!("{e:#}"), "", 1),
    }
}

fn boot(
    plan: &Plan,
    arguments: &[OsString],
    command: &[&OsStr],
    log: Option<File>,
    report: Option<File>,
) -> anyhow::Result<Verdict> {
    for device in &plan.machine.devices {
        if let Device::Gdb { port } = device {
            console::say(format_args!(
                "waiting for gdb: gdb-multiarch ELF -ex 'target remote 127.0.0.1:{port}'"
            ));
        }
        if let Device::Network { forwards, .. } = device {
            for Forward { host, guest } in forwards {
                console::say(format_args!("{host} leads to the guest's port {guest}"));
            }
        }
    }
    let options = run::Options {
        program: &plan.qemu,
        arguments,
        talk: plan.talk.clone(),
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
        console::say(summary);
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

/// Opens the files for the log and the report.
///
/// # Errors A file cannot be written or is an input of the run, or both are one file.
fn open_outputs(cli: &Cli, plan: &Plan) -> anyhow::Result<(Option<File>, Option<File>)> {
    let inputs = inputs(plan);
    let (log, report) = (cli.keep_log.as_deref(), cli.report.as_deref());
    // No file is emptied before both are known to be outputs only.
    for path in [log, report].into_iter().flatten() {
        files::look(path, &inputs)?;
    }
    are_apart(log, report)?;
    let log_file = create(log, &inputs)?;
    // The log may exist only now.
    are_apart(log, report)?;
    Ok((log_file, create(report, &inputs)?))
}

/// Checks that no two outputs are one file.
///
/// # Errors Two outputs are one file: one would destroy the other.
fn are_apart(log: Option<&Path>, report: Option<&Path>) -> anyhow::Result<()> {
    let (log, report) = (("--keep-log", log), ("--report", report));
    let stdout = ("standard output", Some(Path::new("/dev/stdout")));
    let stderr = ("standard error", Some(Path::new("/dev/stderr")));
    let pairs = [(log, report), (log, stdout), (log, stderr), (report, stdout), (report, stderr)];
    for ((name, path), (other, other_path)) in pairs {
        if let (Some(path), Some(other_path)) = (path, other_path) {
            ensure!(
                !files::is_one_file(path, other_path),
                "{name} and {other} are one file, {}: give one of them another name",
                path.display()
            );
        }
    }
    Ok(())
}

fn create(path: Option<&Path>, inputs: &[PathBuf]) -> anyhow::Result<Option<File>> {
    path.map(|path| files::create(path, inputs)).transpose()
}

/// The files that the run reads.
fn inputs(plan: &Plan) -> Vec<PathBuf> {
    let Machine { kernel, board, devices, .. } = &plan.machine;
    let mut inputs = vec![plan.qemu.clone(), kernel.clone(), "/dev/stdin".into()];
    if let Board::RaspberryPi4 { device_tree } = board {
        inputs.push(device_tree.clone());
    }
    for device in devices {
        if let Device::Disk { file, .. } = device {
            inputs.push(file.clone());
        }
    }
    inputs
}

fn say_error(message: &str, hint: &str, status: u8) -> ExitCode {
    console::say(format_args!("error: {message}"));
    if !hint.is_empty() {
        console::say(format_args!("hint: {hint}"));
    }
    console::status(status)
}
