//! Runs the unikernel through the harness, and reads the harness's report.

#![forbid(unsafe_code)]

use std::fs::{self, File, TryLockError};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use host_io::console;
use kernel::report::{Event, Outcome, Test};
use serde::Deserialize;

use crate::model::prompt;
use crate::shape::Cpu;

/// The build that is measured, and the folder for the measurements' files.
#[derive(Debug)]
pub struct Build {
    /// cargo's target folder.
    target: PathBuf,
    /// Keeps other measurements out, for as long as this value lives.
    _lock: File,
}

/// One run of the unikernel.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The model disk.
    pub disk: &'a Path,
    /// The processor.
    pub cpu: Cpu,
    /// The number of cores.
    pub cores: u32,
    /// Whether the guest's clock counts instructions.
    pub counted: bool,
    /// The guest's setting `mode`: "generate" or "bench".
    pub mode: &'a str,
    /// Whether the model's checksum is checked.
    pub verify: bool,
    /// The number of tokens in the prompt.
    pub prompt_tokens: usize,
    /// The number of tokens to generate.
    pub tokens: usize,
}

/// The harness's report of a run.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// Times by the host's clock.
    pub host_us: HostTimes,
    events: Vec<Seen>,
}

/// Times from QEMU's start, in µs.
#[derive(Debug, Deserialize)]
pub struct HostTimes {
    /// To the `hello` event, if there was one.
    pub hello: Option<u64>,
    /// To the `model` event, if there was one.
    pub model: Option<u64>,
    /// To the first token, if there was one.
    pub first_token: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    #[serde(flatten)]
    event: Event,
}

impl Build {
    /// The build in cargo's folder `target`, locked.
    ///
    /// # Errors
    /// Something is not built, or another measurement runs here. The two would share files, and
    /// disturb each other.
    pub fn new(target: &Path) -> Result<Build> {
        let folder = target.join("bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let lock = File::create(folder.join(".lock")).context("cannot make a lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another measurement runs in {}: wait for its end, as two disturb each other",
                folder.display()
            ),
            Err(TryLockError::Error(e)) => {
                return Err(e).with_context(|| format!("cannot lock {}", folder.display()));
            }
        }
        let build = Build { target: target.to_owned(), _lock: lock };
        for file in [build.harness(), build.image_builder(), build.image(), build.elf()] {
            ensure!(file.is_file(), "there is no {}; build it: make build", file.display());
        }
        Ok(build)
    }

    /// The folder for models, disks and reports.
    pub fn bench(&self) -> PathBuf {
        self.target.join("bench")
    }

    /// The command that makes disks.
    pub fn image_builder(&self) -> PathBuf {
        self.target.join("debug/image-builder")
    }

    /// The kernel's ELF file, with symbols.
    pub fn elf(&self) -> PathBuf {
        self.target.join("bare/aarch64-unknown-none/release/anchorite")
    }

    /// The kernel's bootable image.
    pub fn image(&self) -> PathBuf {
        self.target.join("anchorite.img")
    }

    fn harness(&self) -> PathBuf {
        self.target.join("debug/anchorite-qemu")
    }

    fn command(&self, run: &Run<'_>, report: &Path) -> Command {
        let mut command = Command::new(self.harness());
        command.arg("--kernel").arg(self.image()).arg("--disk").arg(run.disk);
        command.args(["--cpu", run.cpu.qemu(), "--mode", run.mode]);
        command.arg(format!("--smp={}", run.cores));
        command.arg(format!("--prompt={}", prompt(run.prompt_tokens)));
        command.arg(format!("--tokens={}", run.tokens));
        command.args(run.counted.then_some("--icount"));
        command.args((!run.verify).then_some("--no-verify"));
        // A large model needs minutes for a prompt, and prints nothing meanwhile.
        command.args(["--idle-timeout=0", "--boot-timeout=120", "--timeout=7200"]);
        command.arg("--report").arg(report);
        command
    }

    /// Runs the unikernel. `what` describes the run to the user.
    ///
    /// # Errors
    /// The run fails, or its numbers of tokens are not those of `run`.
    pub fn run(&self, what: &str, run: &Run<'_>) -> Result<Report> {
        let file = self.bench().join("report.json");
        let mut command = self.command(run, &file);
        wait(what, &mut command)?;
        let text = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let report: Report =
            serde_json::from_slice(&text).context("reading the harness's report")?;
        if run.mode == "generate" {
            let result = report.result()?;
            let got = (result.prompt_tokens, result.tokens_emitted);
            ensure!(
                got == (run.prompt_tokens, run.tokens),
                "{what}: a prompt of {} tokens and {} generated ones were asked for, not {} and {}",
                run.prompt_tokens,
                run.tokens,
                got.0,
                got.1,
            );
        }
        Ok(report)
    }
}

/// Runs a command to its end, and shows its time on standard error.
///
/// # Errors
/// The command cannot be started, or fails. The message then has the end of its standard error.
pub fn wait(what: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let mut log = tempfile::tempfile().context("cannot make a temporary file")?;
    let stderr = log.try_clone().context("cannot make a temporary file")?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let program = command.get_program().to_owned();
    let mut child =
        command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let mut shown = started;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(20));
        if terminal && shown.elapsed() > Duration::from_millis(500) {
            shown = Instant::now();
            console::show(format!("\r\x1b[K{what}: {:.0} s", started.elapsed().as_secs_f64()));
        }
    };
    let clear = if terminal { "\r\x1b[K" } else { "" };
    console::say(format_args!("{clear}{what}: {:.1} s", started.elapsed().as_secs_f64()));
    if status.success() {
        return Ok(());
    }
    Err(anyhow!("{}", end_of(&mut log)).context(format!("{what}: {} failed", program.display())))
}

/// The last lines of a program's output.
pub fn end_of(log: &mut File) -> String {
    use std::io::{Read, Seek};
    let mut text = Vec::new();
    let _ = log.rewind().and_then(|()| log.read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

impl Report {
    fn find<'a, T: 'a>(
        &'a self,
        name: &str,
        wanted: impl FnMut(&'a Event) -> Option<&'a T>,
    ) -> Result<&'a T> {
        let mut found = self.events.iter().map(|seen| &seen.event).filter_map(wanted);
        found.next().with_context(|| format!("the guest sent no `{name}` event"))
    }

    /// The event `result`.
    ///
    /// # Errors
    /// The event is missing.
    pub fn result(&self) -> Result<&Outcome> {
        self.find("result", |event| match event {
            Event::Result(outcome) => Some(outcome),
            _ => None,
        })
    }

    /// The figure of this name from `mode=bench`.
    ///
    /// # Errors
    /// The figure is missing.
    pub fn figure(&self, name: &str) -> Result<f64> {
        let test = self.find(name, |event| match event {
            Event::Test(test) if test.name == name => Some(test),
            _ => None,
        });
        test.and_then(|test: &Test| test.figure.with_context(|| format!("`{name}` has no figure")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{
        "version": "0.1.0", "command": ["qemu-system-aarch64"],
        "host_us": {"hello": 90000, "model": null, "first_token": 251003, "end": 400007},
        "events": [
            {"host_us": 90001, "event": "test", "name": "hash", "pass": true, "detail": "MB/s",
             "figure": 61.5},
            {"host_us": 90002, "event": "test", "name": "sleep", "pass": true, "detail": "",
             "figure": null},
            {"host_us": 260000, "event": "result", "prompt_tokens": 8, "tokens_emitted": 2,
             "output": "", "tokens": [3, 5], "stop": "max_tokens", "context_shifts": 0,
             "latency_us": 700, "first_token_us": 500, "prompt_tokens_per_s": 16000.0,
             "tokens_per_s": 5000.0, "arena_bytes": 1, "arena_peak_bytes": 1}
        ]
    }"#;

    #[test]
    fn the_harness_s_report_is_read() {
        let report: Report = serde_json::from_str(REPORT).unwrap();
        assert_eq!(report.host_us.first_token, Some(251_003));
        assert_eq!(report.result().unwrap().latency_us, 700);
        assert_eq!(report.figure("hash").unwrap(), 61.5);
    }

    #[test]
    fn what_the_guest_did_not_say_is_named() {
        let report: Report = serde_json::from_str(REPORT).unwrap();
        let message = |result: Result<f64>| result.unwrap_err().to_string();
        assert!(message(report.figure("raw")).contains("no `raw` event"));
        assert!(message(report.figure("sleep")).contains("`sleep` has no figure"));
    }

    #[test]
    fn a_run_becomes_a_command_line() {
        let build = Build { target: "t".into(), _lock: tempfile::tempfile().unwrap() };
        let run = Run {
            disk: Path::new("a.img"),
            cpu: Cpu::CortexA72,
            cores: 1,
            counted: true,
            mode: "generate",
            verify: false,
            prompt_tokens: 3,
            tokens: 5,
        };
        let words = |run: &Run<'_>| {
            let command = build.command(run, Path::new("r.json"));
            let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        let line = words(&run);
        let start = "--kernel t/anchorite.img --disk a.img --cpu cortex-a72 --mode generate --smp=1 \
                     --prompt=abc --tokens=5 --icount --no-verify ";
        assert!(line.starts_with(start), "{line}");
        let line = words(&Run { counted: false, verify: true, ..run });
        assert!(!line.contains("icount") && !line.contains("verify"), "{line}");
    }

    #[test]
    fn two_measurements_at_once_are_refused() {
        let target = tempfile::tempdir().unwrap();
        for file in [
            "debug/anchorite-qemu",
            "debug/image-builder",
            "anchorite.img",
            "bare/aarch64-unknown-none/release/anchorite",
        ] {
            let path = target.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let build = Build::new(target.path()).unwrap();
        let error = Build::new(target.path()).unwrap_err().to_string();
        assert!(error.contains("another measurement runs"), "{error}");
        drop(build);
        assert!(Build::new(target.path()).is_ok());
    }

    #[test]
    fn a_command_that_fails_tells_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo mended >&2; echo 'no disk' >&2; exit 3"]);
        let error = format!("{:#}", wait("a trial", &mut command).unwrap_err());
        assert!(error.contains("a trial: sh failed") && error.contains("no disk"), "{error}");
        assert!(wait("a trial", Command::new("sh").args(["-c", "exit 0"])).is_ok());
        let missing = wait("a trial", &mut Command::new("no-such-command")).unwrap_err();
        assert!(missing.to_string().contains("cannot start"), "{missing}");
    }
}
