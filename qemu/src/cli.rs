//! The command line.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use kernel::app::config::Config;
use kernel::report::Code;

use crate::command::{Accelerator, Board, Bus, Device, Host, Machine};
use crate::judge::Expectations;

/// The most cores that a GICv2 serves.
const GICV2_CORES: u32 = 8;
/// Cores of a Raspberry Pi 4.
const RASPBERRY_PI_CORES: u32 = 4;

/// Boots Anchorite in QEMU, shows what it says and judges it.
///
/// The generated text goes to standard output as it comes; what this program itself has to say
/// goes to standard error.
#[derive(Debug, Parser)]
#[command(
    name = "anchorite-qemu",
    version,
    after_help = "Exit status: 0 all well, 1 the run failed, 2 usage, 3 QEMU missing or died, \
                  4 timeout, 128+N stopped by signal N.\n\
                  Environment: PROMPT stands in for --prompt, ANCHORITE_QEMU for --qemu.\n\
                  In a chat at a terminal, Ctrl-C stops an answer; at the prompt, or pressed \
                  twice, it ends the chat."
)]
pub struct Cli {
    /// What to do: `run` judges one run, `chat` connects the terminal to the guest
    #[arg(value_enum, default_value_t = Action::Run)]
    action: Action,

    /// The kernel image (an arm64 `Image`)
    #[arg(long, value_name = "IMAGE", help_heading = MACHINE)]
    kernel: PathBuf,
    /// The model disk
    #[arg(long, value_name = "FILE", help_heading = MACHINE)]
    disk: Option<PathBuf>,
    /// How the disk is attached [default: mmio, or sd on a Raspberry Pi]
    #[arg(long, value_enum, help_heading = MACHINE)]
    bus: Option<Bus>,
    /// The kind of machine
    #[arg(long, value_enum, default_value_t = BoardName::Virt, help_heading = MACHINE)]
    board: BoardName,
    /// The board's device tree, where QEMU has none: bcm2711-rpi-4-b.dtb for raspi4b
    #[arg(long, value_name = "FILE", help_heading = MACHINE)]
    dtb: Option<PathBuf>,
    /// Processor, as QEMU's -cpu takes it [default: the host's, or all that QEMU can do]
    #[arg(long, help_heading = MACHINE)]
    cpu: Option<String>,
    /// Cores [default: as many as the host has, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512), help_heading = MACHINE)]
    smp: Option<u32>,
    /// Memory, with the suffix M or G; MiB without [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = memory_mib, help_heading = MACHINE)]
    mem: Option<u64>,
    /// Version of the interrupt controller [default: QEMU's choice; 3 for more than 8 cores]
    #[arg(long, value_name = "2|3", value_parser = clap::value_parser!(u8).range(2..=3), help_heading = MACHINE)]
    gic: Option<u8>,
    /// Start the guest at EL2
    #[arg(long, help_heading = MACHINE)]
    el2: bool,
    /// What runs the guest's instructions [default: the host's cores if they can, else tcg]
    #[arg(long, value_enum, help_heading = MACHINE)]
    accel: Option<Accelerator>,
    /// Have the guest's clock count instructions, one a nanosecond, so that its timings repeat
    /// exactly and can be compared between hosts; one core, by TCG
    #[arg(long, help_heading = MACHINE)]
    icount: bool,
    /// Wait for gdb on this port; no time limits
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "1234", help_heading = MACHINE)]
    gdb: Option<u16>,
    /// The QEMU to start [default: qemu-system-aarch64]
    #[arg(long, value_name = "PATH", help_heading = MACHINE)]
    qemu: Option<PathBuf>,
    /// Further arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    extra: Vec<OsString>,

    /// What the guest does [default: as its disk says]
    #[arg(long, value_enum, help_heading = GUEST)]
    mode: Option<Mode>,
    /// Name of the model on the disk
    #[arg(long, value_name = "NAME", help_heading = GUEST)]
    model: Option<String>,
    /// The prompt; in a chat, the first message
    #[arg(long, value_name = "TEXT", help_heading = GUEST)]
    prompt: Option<String>,
    /// A file on the model disk that holds the prompt
    #[arg(long, value_name = "PATH", help_heading = GUEST, conflicts_with = "prompt")]
    prompt_file: Option<String>,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", help_heading = GUEST)]
    tokens: Option<u32>,
    /// Positions of the context
    #[arg(long, value_name = "N", help_heading = GUEST)]
    ctx: Option<u32>,
    /// Format of the KV cache: f16, f32 or q8_0
    #[arg(long, value_name = "TYPE", help_heading = GUEST)]
    kv_cache: Option<String>,
    /// When the context is full, forget half of it and go on
    #[arg(long, help_heading = GUEST)]
    context_shift: bool,
    /// Tokens at the start of the prompt that are never cut or forgotten; -1: all
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = GUEST)]
    keep: Option<i64>,
    /// Seed of the sampler
    #[arg(long, value_name = "N", help_heading = GUEST)]
    seed: Option<u64>,
    /// Temperature of the sampler; 0 always takes the likeliest token
    #[arg(long, value_name = "T", help_heading = GUEST)]
    temperature: Option<f32>,
    /// Sample among the K likeliest tokens
    #[arg(long, value_name = "K", help_heading = GUEST)]
    top_k: Option<u32>,
    /// Sample among the likeliest tokens that share this much of the probability
    #[arg(long, value_name = "P", help_heading = GUEST)]
    top_p: Option<f32>,
    /// Sample among the tokens at least this share as likely as the likeliest
    #[arg(long, value_name = "P", help_heading = GUEST)]
    min_p: Option<f32>,
    /// Make the last tokens less likely to come again; 1: do not
    #[arg(long, value_name = "X", help_heading = GUEST)]
    repeat_penalty: Option<f32>,
    /// Cores that work on the model
    #[arg(long, value_name = "N", help_heading = GUEST)]
    threads: Option<u32>,
    /// What the guest logs: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", help_heading = GUEST)]
    log: Option<String>,
    /// Do not check the model's checksum
    #[arg(long, help_heading = GUEST)]
    no_verify: bool,
    /// Any other setting of the guest; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, help_heading = GUEST)]
    set: Vec<(String, String)>,

    /// Seconds from QEMU's start to the guest's `hello`; 0: no limit
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds, help_heading = LIMITS)]
    boot_timeout: Limit,
    /// Seconds between two signs of life; 0: no limit. None while a chat waits for a person
    #[arg(long, value_name = "S", default_value = "300", value_parser = seconds, help_heading = LIMITS)]
    idle_timeout: Limit,
    /// Seconds in all; 0: no limit [default: 3600, none in a chat]
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = LIMITS)]
    timeout: Option<Limit>,

    /// Fail unless the output holds this text; may be repeated
    #[arg(long, value_name = "TEXT", help_heading = VERDICT)]
    expect: Vec<String>,
    /// Fail unless exactly this many tokens are generated
    #[arg(long, value_name = "N", help_heading = VERDICT)]
    expect_tokens: Option<usize>,
    /// Fail unless the run ends with this error ("OutOfMemory") and exit status 1
    #[arg(long, value_name = "CODE", value_parser = code, help_heading = VERDICT)]
    expect_error: Option<Code>,
    /// Write what was seen, when, and the verdict to this file, as JSON
    #[arg(long, value_name = "FILE", help_heading = VERDICT)]
    pub report: Option<PathBuf>,
    /// Write every byte of the serial line to this file
    #[arg(long, value_name = "FILE", help_heading = VERDICT)]
    pub keep_log: Option<PathBuf>,
    /// Show the serial line as it is, events included
    #[arg(long, help_heading = VERDICT)]
    raw: bool,
    /// Print QEMU's command line and start nothing
    #[arg(long, help_heading = VERDICT)]
    pub print: bool,
}

const MACHINE: &str = "The machine";
const GUEST: &str = "What the guest does";
const LIMITS: &str = "Limits";
const VERDICT: &str = "Verdict and output";

/// The kinds of machine by their names in QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BoardName {
    /// What it takes to run a guest, and nothing else.
    Virt,
    /// A Raspberry Pi 4, from QEMU 9 on.
    Raspi4b,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// One run without input.
    Run,
    /// The terminal talks to the guest.
    Chat,
}

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Answer one prompt.
    Generate,
    /// Answer prompts from the serial line.
    Chat,
    /// Measure how well the model predicts the prompt.
    Perplexity,
    /// Measure.
    Bench,
    /// Run the self-tests.
    Test,
}

/// A time limit that can be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<Duration>);

/// The time limits of a run; `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From QEMU's start to `hello`.
    pub boot: Option<Duration>,
    /// Between two signs of life.
    pub idle: Option<Duration>,
    /// For the whole run.
    pub total: Option<Duration>,
}

/// What the command line asks for.
#[derive(Debug)]
pub struct Plan {
    /// The QEMU to start.
    pub qemu: PathBuf,
    /// What it is to be.
    pub machine: Machine,
    /// Whether standard input goes to the guest.
    pub chat: bool,
    /// How long it may take.
    pub limits: Limits,
    /// What it must show.
    pub expected: Expectations,
    /// Whether the serial line is shown as it is.
    pub raw: bool,
}

/// The variables of the environment that count.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `PROMPT`; it may be empty.
    pub prompt: Option<OsString>,
    /// `ANCHORITE_QEMU`.
    pub qemu: Option<PathBuf>,
    /// Cores of the host.
    pub cores: u32,
}

impl Environment {
    /// The environment that this runs in. An empty prompt is one, an empty path is none.
    pub fn detect() -> Environment {
        let qemu = std::env::var_os("ANCHORITE_QEMU").filter(|path| !path.is_empty());
        Environment {
            prompt: std::env::var_os("PROMPT"),
            qemu: qemu.map(PathBuf::from),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        }
    }
}

impl Cli {
    /// Checks that it all fits together, and that the files are there.
    ///
    /// # Errors
    /// A sentence for the user: what is wrong and what to do.
    pub fn plan(&self, environment: &Environment, host: Host) -> Result<Plan, String> {
        let mode = match (self.action, self.mode) {
            (Action::Chat, None) => Some(Mode::Chat),
            (Action::Chat, Some(mode)) if mode != Mode::Chat => {
                return Err("`chat` and another --mode exclude each other".into());
            }
            (_, mode) => mode,
        };
        let chat = mode == Some(Mode::Chat);

        let limits = if self.gdb.is_some() {
            Limits { boot: None, idle: None, total: None }
        } else {
            let default = Limit((!chat).then_some(Duration::from_secs(3600)));
            Limits {
                boot: self.boot_timeout.0,
                idle: self.idle_timeout.0,
                total: self.timeout.unwrap_or(default).0,
            }
        };
        let qemu = self.qemu.clone().or_else(|| environment.qemu.clone());
        Ok(Plan {
            qemu: qemu.unwrap_or_else(|| "qemu-system-aarch64".into()),
            machine: self.machine(mode, environment, host)?,
            chat,
            limits,
            expected: Expectations {
                mode,
                texts: self.expect.clone(),
                tokens: self.expect_tokens,
                error: self.expect_error,
            },
            raw: self.raw,
        })
    }

    fn machine(
        &self,
        mode: Option<Mode>,
        environment: &Environment,
        host: Host,
    ) -> Result<Machine, String> {
        is_file("kernel image", &self.kernel, "build it: make build")?;
        let mut devices = Vec::new();
        if self.disk.is_none() && self.bus.is_some() {
            return Err("--bus says how a --disk is attached, and there is none".into());
        }
        if let Some(file) = &self.disk {
            is_file("model disk", file, "make one: image-builder disk --out FILE MODEL.gguf")?;
            let default = match self.board {
                BoardName::Virt => Bus::Mmio,
                BoardName::Raspi4b => Bus::Sd,
            };
            let bus = self.bus.unwrap_or(default);
            let has = match self.board {
                BoardName::Virt => bus != Bus::Sd,
                BoardName::Raspi4b => matches!(bus, Bus::Sd | Bus::Initrd),
            };
            if !has {
                return Err("this board has no such --bus: leave --bus out".into());
            }
            devices.push(Device::Disk { file: file.clone(), bus });
        }
        devices.extend(self.gdb.map(|port| Device::Gdb { port }));

        if self.icount && self.smp.is_some_and(|cores| cores > 1) {
            return Err("--icount is for one core: leave --smp out".into());
        }
        if self.icount && self.accel.is_some_and(|accel| accel != Accelerator::Tcg) {
            return Err("--icount is for TCG alone: leave --accel out".into());
        }
        if let Some(cpu) = self.cpu().filter(|cpu| has_32_bits(cpu)) {
            return Err(format!(
                "{cpu} is a processor of 32 bits, Anchorite takes one of 64: leave --cpu out, or \
                 take cortex-a53, cortex-a72, neoverse-n1 or max"
            ));
        }
        let default_cores = match self.board {
            _ if self.icount => 1,
            BoardName::Virt => environment.cores.clamp(1, GICV2_CORES),
            BoardName::Raspi4b => RASPBERRY_PI_CORES,
        };
        let cores = self.smp.unwrap_or(default_cores);
        if self.gic == Some(2) && cores > GICV2_CORES {
            return Err(format!("--gic 2 serves at most {GICV2_CORES} cores: use --gic 3"));
        }
        let accelerator = match self.accel {
            Some(accelerator) => accelerator,
            None if self.board != BoardName::Virt => Accelerator::Tcg,
            None if self.icount => Accelerator::Tcg,
            None => Accelerator::pick(host, self.cpu.as_deref(), self.el2),
        };
        let board = match self.board {
            BoardName::Virt if self.dtb.is_some() => {
                return Err("QEMU makes this board's device tree: leave --dtb out".into());
            }
            BoardName::Virt => Board::Virt {
                cpu: self.cpu.clone().unwrap_or_else(|| accelerator.default_cpu().into()),
                memory_mib: self.mem.unwrap_or(1 << 10),
                gic: self.gic.or((cores > GICV2_CORES).then_some(3)),
                el2: self.el2,
            },
            BoardName::Raspi4b => self.raspberry_pi(cores)?,
        };
        Ok(Machine {
            accelerator,
            board,
            cores,
            icount: self.icount,
            kernel: self.kernel.clone(),
            boot_arguments: self.boot_arguments(mode, environment)?,
            devices,
            extra: self.extra.clone(),
        })
    }

    /// The processor that is asked for; of QEMU's own arguments the last one counts.
    fn cpu(&self) -> Option<String> {
        let words = self.extra.windows(2).rev();
        let own = words.into_iter().find(|words| words[0] == "-cpu" || words[0] == "--cpu");
        own.map(|words| words[1].to_string_lossy().into_owned()).or_else(|| self.cpu.clone())
    }

    /// A Raspberry Pi 4, of which nothing can be chosen.
    fn raspberry_pi(&self, cores: u32) -> Result<Board, String> {
        let chosen = [
            (self.cpu.is_some(), "--cpu"),
            (self.mem.is_some(), "--mem"),
            (self.gic.is_some(), "--gic"),
            (self.el2, "--el2"),
            (self.icount, "--icount"),
            (cores != RASPBERRY_PI_CORES, "--smp"),
        ];
        if let Some((_, flag)) = chosen.iter().find(|(is_chosen, _)| *is_chosen) {
            return Err(format!("raspi4b is as it is, with four cores: leave {flag} out"));
        }
        let Some(device_tree) = self.dtb.clone() else {
            return Err("raspi4b needs the board's device tree: --dtb bcm2711-rpi-4-b.dtb, from \
                        the Raspberry Pi's firmware, or as `ci/boards.sh` fetches it"
                .into());
        };
        is_file("device tree", &device_tree, "`ci/boards.sh` fetches it")?;
        Ok(Board::RaspberryPi4 { device_tree })
    }

    fn boot_arguments(
        &self,
        mode: Option<Mode>,
        environment: &Environment,
    ) -> Result<Vec<(String, String)>, String> {
        let name = mode.and_then(|mode| Some(mode.to_possible_value()?.get_name().to_string()));
        let named: [(&str, Option<String>); 17] = [
            ("mode", name),
            ("model", self.model.clone()),
            ("prompt", self.prompt.clone()),
            ("prompt_file", self.prompt_file.clone()),
            ("max_tokens", self.tokens.map(|n| n.to_string())),
            ("context", self.ctx.map(|n| n.to_string())),
            ("kv_cache", self.kv_cache.clone()),
            ("context_shift", self.context_shift.then(|| "true".into())),
            ("keep", self.keep.map(|n| n.to_string())),
            ("seed", self.seed.map(|n| n.to_string())),
            ("temperature", self.temperature.map(|t| t.to_string())),
            ("top_k", self.top_k.map(|k| k.to_string())),
            ("top_p", self.top_p.map(|p| p.to_string())),
            ("min_p", self.min_p.map(|p| p.to_string())),
            ("repeat_penalty", self.repeat_penalty.map(|x| x.to_string())),
            ("threads", self.threads.map(|n| n.to_string())),
            ("log", self.log.clone()),
        ];
        let mut settings: Vec<(String, String)> =
            named.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?))).collect();
        if self.no_verify {
            settings.push(("verify".into(), "false".into()));
        }
        let has_prompt = settings.iter().any(|(key, _)| key == "prompt" || key == "prompt_file")
            || self.set.iter().any(|(key, _)| key == "prompt" || key == "prompt_file");
        if let Some(prompt) = environment.prompt.as_ref().filter(|_| !has_prompt) {
            let Some(prompt) = prompt.to_str() else {
                return Err("PROMPT in the environment is not UTF-8 text".into());
            };
            settings.push(("prompt".into(), prompt.into()));
        }
        // What has a flag is checked as the guest will do it. What --set gives is not, so that it
        // can be seen what the guest says to it.
        let words: Vec<String> =
            settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let words = || words.iter().map(String::as_str);
        let mut config = Config::default();
        config.apply_arguments(words()).map_err(|error| error.to_string())?;
        // Without --mode, the disk chooses.
        if mode.is_some() {
            config.refuse_unused(words()).map_err(|error| error.to_string())?;
        }
        for (key, value) in &self.set {
            if settings.iter().any(|(given, _)| given == key) {
                return Err(format!("the guest's setting `{key}` is given twice"));
            }
            settings.push((key.clone(), value.clone()));
        }
        Ok(settings)
    }
}

/// Whether this processor of QEMU's, before any features, has no 64-bit state.
fn has_32_bits(cpu: &str) -> bool {
    let name = cpu.split(',').next().unwrap_or_default().to_ascii_lowercase();
    let families = ["arm", "cortex-m", "cortex-r5", "pxa", "sa11", "ti925t"];
    let cores = [
        "cortex-a5",
        "cortex-a7",
        "cortex-a8",
        "cortex-a9",
        "cortex-a12",
        "cortex-a15",
        "cortex-a17",
    ];
    families.iter().any(|family| name.starts_with(family)) || cores.contains(&name.as_str())
}

fn is_file(what: &str, path: &Path, hint: &str) -> Result<(), String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(format!("the {what} {shown} is no file")),
        Ok(metadata) if metadata.len() == 0 => Err(format!("the {what} {shown} is empty; {hint}")),
        // Opened as well, because QEMU will have to.
        Ok(_) => match std::fs::File::open(path) {
            Ok(_) => Ok(()),
            Err(e) => Err(format!("the {what} {shown} cannot be read: {e}")),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("there is no {what} {shown}; {hint}"))
        }
        Err(e) => Err(format!("the {what} {shown} cannot be read: {e}")),
    }
}

fn memory_mib(text: &str) -> Result<u64, String> {
    let (digits, unit_mib) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let size: Option<u64> = digits.parse().ok();
    match size.and_then(|size| size.checked_mul(unit_mib)) {
        Some(mib @ 1..) => Ok(mib),
        _ => Err("expected a size such as 512M or 2G".into()),
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let is_key = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    match text.split_once('=') {
        Some((key, value)) if is_key(key) => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

fn seconds(text: &str) -> Result<Limit, String> {
    let seconds: Option<f64> = text.parse().ok();
    match seconds.map(Duration::try_from_secs_f64) {
        Some(Ok(Duration::ZERO)) => Ok(Limit(None)),
        Some(Ok(limit)) => Ok(Limit(Some(limit))),
        _ => Err("expected a number of seconds".into()),
    }
}

fn code(text: &str) -> Result<Code, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
