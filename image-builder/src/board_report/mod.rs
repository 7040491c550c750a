//! `image-builder report`: turns a board's serial log into a report to paste.
//!
//! Most boards have never been booted. The report has what the log says of the board. It also lists
//! which of the open questions of two audits the log answers: [`questions`]. Without events, as in
//! the text of a photograph, the report uses the lines for people.

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

/// Command-line options of `image-builder report`.
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
        "{shown} has no line of Anchorite's: docs/boards.md, \"The first boot\", explains a silent boot"
    );
    // The report has texts of a model, which must not drive the terminal.
    console::print(printable(&report(&log)).as_ref())?;
    Ok(())
}

/// The report, in Markdown.
fn report(log: &Log) -> String {
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    let hello = log.hello();
    let machine = hello.map_or("a machine without a `hello` event", |hello| &hello.machine);
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
    line(format_args!("| last stage | {} |", log.stage.name()));
    if log.boots > 1 {
        line(format_args!("| boots in the log | {}, of which this is the last |", log.boots));
    }
    if log.unreadable > 0 {
        line(format_args!("| events that cannot be read | {} |", log.unreadable));
    }

    if !log.facts.is_empty() {
        line(format_args!("\n### Facts about the board\n"));
        for (name, value) in &log.facts {
            line(format_args!("- `{name}={value}`"));
        }
    }
    let (settled, open) = questions::answers(log);
    if !settled.is_empty() {
        line(format_args!("\n### Questions answered\n\n| | question | answer |\n|---|---|---|"));
        for (question, answer) in settled {
            line(format_args!("| {} | {} | {answer} |", question.point, question.asks));
        }
    }
    if !open.is_empty() {
        line(format_args!("\n### Questions still open\n"));
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
            "\ndocs/boards.md, \"The first boot\", explains where such a boot stopped."
        ));
    }
    out
}

/// The rows of the event `hello`, without the facts.
fn of_hello(hello: &Hello) -> [(&'static str, String); 8] {
    [
        ("version", hello.version.clone()),
        ("image", hello.image_sha256.clone().unwrap_or_else(|| "without a SHA-256".into())),
        ("cores", cores(hello)),
        ("kernels", format!("{}, of {}", hello.kernels, hello.cpu_features.join(", "))),
        ("started at", format!("EL{}", hello.exception_level)),
        ("consoles", hello.consoles.join("; ")),
        ("memory", format!("{}, {} free", mib(hello.memory_bytes), mib(hello.memory_free_bytes))),
        ("`hello` after", seconds(hello.boot_us)),
    ]
}

/// The cores: "4 × Cortex-A72". If the cores differ, `hello` counts each kind.
fn cores(hello: &Hello) -> String {
    if hello.cpu.contains('×') {
        return hello.cpu.clone();
    }
    format!("{} × {}", hello.cores, hello.cpu)
}

/// The row of another event, if it has one.
fn of_event(event: &Event) -> Option<(&'static str, String)> {
    Some(match event {
        Event::Hello(_)
        | Event::Unload(_)
        | Event::Chat(_)
        | Event::Request(_)
        | Event::Error(_) => return None,
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
        Event::Serve(serve) => ("server", serve.urls.join(" and ")),
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
