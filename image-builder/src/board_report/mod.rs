//! `image-builder report`: the serial log of a board, as a report to paste.
//!
//! Nobody has booted most boards. The report has what the log says of the board, and which of the questions
//! that two audits of the boards left open it settles: [`questions`]. Without events, as in the text of a
//! photograph, it has what the lines for people say.

mod log;
mod questions;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use host_io::console;
use kernel::report::{Checksum, Event, Hello, Model, printable, tokens_at};

use log::{Log, Stage};

/// What is asked for.
#[derive(clap::Args)]
pub struct Options {
    /// The serial log, or the text of a photograph of the screen
    log: PathBuf,
}

/// Prints the report.
pub fn run(options: &Options) -> Result<()> {
    let shown = options.log.display();
    let bytes = fs::read(&options.log).with_context(|| format!("cannot read {shown}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let log = Log::read(&text);
    ensure!(
        log.stage > Stage::Nothing,
        "{shown} has no line of Anchorite's: docs/boards.md, \"The first boot\", says what silence means"
    );
    // It has texts of a model, which must not drive the terminal.
    console::print(printable(&report(&log)).as_ref())?;
    Ok(())
}

/// The report, in Markdown.
fn report(log: &Log) -> String {
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        // A String takes all that is written.
        let _ = writeln!(out, "{text}");
    };
    let hello = log.hello();
    let machine = hello.map_or("a machine that did not say `hello`", |hello| &hello.machine);
    line(format_args!("## Anchorite on {machine}\n\n| | |\n|---|---|"));
    match (hello, log.banner) {
        (Some(hello), _) => {
            for (name, value) in of_hello(hello) {
                line(format_args!("| {name} | {value} |"));
            }
        }
        (None, Some(banner)) => line(format_args!("| banner | {banner} |")),
        (None, None) => {}
    }
    for event in &log.events {
        if let Some((name, value)) = of_event(event) {
            line(format_args!("| {name} | {value} |"));
        }
    }
    line(format_args!("| came as far as | {} |", log.stage.name()));
    if log.boots > 1 {
        line(format_args!("| boots in the log | {}, of which this is the last |", log.boots));
    }
    if log.unreadable > 0 {
        line(format_args!("| events that cannot be read | {} |", log.unreadable));
    }

    if !log.facts.is_empty() {
        line(format_args!("\n### What it found out\n"));
        for (name, value) in &log.facts {
            line(format_args!("- `{name}={value}`"));
        }
    }
    let (settled, open) = questions::answers(log);
    if !settled.is_empty() {
        line(format_args!("\n### What that settles\n\n| | question | answer |\n|---|---|---|"));
        for (question, answer) in settled {
            line(format_args!("| {} | {} | {answer} |", question.point, question.asks));
        }
    }
    if !open.is_empty() {
        line(format_args!("\n### What stays open\n"));
        for question in open {
            line(format_args!("- {}: {}", question.point, question.asks));
        }
    }
    if !log.complaints.is_empty() {
        line(format_args!("\n### Warnings and errors\n"));
        for complaint in &log.complaints {
            line(format_args!("    {complaint}"));
        }
    }
    if log.stage < Stage::Exit {
        line(format_args!("\nThe log ends with:\n\n    {}", log.last));
        line(format_args!(
            "\ndocs/boards.md, \"The first boot\", says what silence behind that means."
        ));
    }
    out
}

/// What `hello` says, but for the facts.
fn of_hello(hello: &Hello) -> [(&'static str, String); 8] {
    [
        ("version", hello.version.clone()),
        ("image", hello.image_sha256.clone().unwrap_or_else(|| "its SHA-256 is not in it".into())),
        ("cores", cores(hello)),
        ("kernels", format!("{}, of {}", hello.kernels, hello.cpu_features.join(", "))),
        ("started at", format!("EL{}", hello.exception_level)),
        ("consoles", hello.consoles.join("; ")),
        ("memory", format!("{}, {} free", mib(hello.memory_bytes), mib(hello.memory_free_bytes))),
        ("`hello` after", seconds(hello.boot_us)),
    ]
}

/// "4 × Cortex-A72"; where the cores differ, `hello` counts each kind itself.
fn cores(hello: &Hello) -> String {
    if hello.cpu.contains('×') {
        return hello.cpu.clone();
    }
    format!("{} × {}", hello.cores, hello.cpu)
}

/// What another event says, in a line.
fn of_event(event: &Event) -> Option<(&'static str, String)> {
    Some(match event {
        Event::Hello(_) | Event::Chat(_) | Event::Error(_) => return None,
        Event::Disk(disk) => {
            ("disk", format!("{}, {}, {}", disk.device, mib(disk.bytes), disk.filesystem))
        }
        Event::Model(model) => ("model", of_model(model)),
        Event::Result(outcome) => (
            "result",
            format!(
                "prompt of {}, then {}",
                tokens_at(outcome.prompt_tokens, outcome.prompt_tokens_per_s),
                tokens_at(outcome.tokens_emitted, outcome.tokens_per_s)
            ),
        ),
        Event::Perplexity(perplexity) => {
            ("perplexity", format!("{:.4} ± {:.4}", perplexity.perplexity, perplexity.error))
        }
        Event::Test(test) => {
            let verdict = if test.pass { "passed" } else { "FAILED" };
            ("test", format!("{} {verdict}: {}", test.name, test.detail))
        }
        Event::Exit(exit) => ("exit", exit.status.to_string()),
    })
}

fn of_model(model: &Model) -> String {
    let checksum = match model.checksum {
        Checksum::Verified => "verified",
        Checksum::Missing => "no checksum",
        Checksum::Skipped => "not verified",
    };
    format!(
        "{}, {} {}, {} in {} ({:.1} MB/s), {checksum}",
        model.file,
        model.architecture,
        model.quantization,
        mib(model.bytes),
        seconds(model.load_us),
        model.load_mb_per_s
    )
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn seconds(us: u64) -> String {
    format!("{:.3} s", us as f64 / 1e6)
}
