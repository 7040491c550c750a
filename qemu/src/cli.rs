//! The command line.

#![forbid(unsafe_code)]

mod forward;
mod guest;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use kernel::report::Code;
use kernel::settings::Mode;

use forward::Wanted;
use guest::{Guest, Settings, Word};

use crate::command::{Accelerator, Board, Bus, Device, Host, Machine};
use crate::judge::Expectations;
use crate::run::Talk;

/// Limit of cores of a GICv2.
const GICV2_CORES: u32 = 8;
/// Cores of a Raspberry Pi 4.
const RASPBERRY_PI_CORES: u32 = 4;

/// Boots Anchorite in QEMU, shows what it says and judges it.
///
/// The generated text goes to standard output at once. Messages of this program go to standard
/// error.
#[derive(Debug, Parser)]
#[command(
    name = "anchorite-qemu",
    version,
    after_help = "Exit status: 0 all well, 1 the run failed, 2 usage, 3 QEMU missing or died, \
                  4 timeout, 128+N stopped by signal N.\n\
                  Environment: PROMPT stands in for --prompt, ANCHORITE_QEMU for --qemu.\n\
                  In a chat at a terminal, Ctrl-C stops an answer; at the prompt, or pressed \
                  twice, it ends the chat. Ctrl-C ends a server once its requests are \
                  answered; pressed twice, at once."
)]
pub struct Cli {
    /// What to do: `run` judges one run, `chat` connects the terminal to the guest, `serve` lets
    /// clients of this host ask the guest over HTTP
    #[arg(value_enum, default_value_t = Action::Run)]
    action: Action,
    /// Settings of the guest, by the kernel's or by make's names: top_k=20, TOKENS=40
    #[arg(value_name = "KEY=VALUE", value_parser = guest::word)]
    words: Vec<Word>,

    /// The kernel image (an arm64 `Image`)
    #[arg(long, value_name = "IMAGE", help_heading = MACHINE)]
    kernel: PathBuf,
    /// The model disk
    #[arg(long, value_name = "FILE", help_heading = MACHINE)]
    disk: Option<PathBuf>,
    /// How the disk is attached [default: mmio, or sd on a Raspberry Pi]
    #[arg(long, value_enum, help_heading = MACHINE)]
    bus: Option<Bus>,
    /// A network card, and a TCP port of this host that leads to a port of the guest: 8080:80.
    /// HOST is this host's address [default: 127.0.0.1]; PORT 0: a free port, which is printed. May
    /// be repeated
    #[arg(long, value_name = "[HOST:]PORT:GUEST_PORT", help_heading = MACHINE)]
    forward: Vec<Wanted>,
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
    /// Accelerator [default: the host's cores if possible, else tcg]
    #[arg(long, value_enum, help_heading = MACHINE)]
    accel: Option<Accelerator>,
    /// Have the guest's clock count instructions, one per nanosecond: timings repeat exactly and
    /// compare between hosts; one core, by TCG
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

    #[command(flatten)]
    guest: Guest,

    /// Seconds from QEMU's start to the guest's `hello`; 0: no limit
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds, help_heading = LIMITS)]
    boot_timeout: Limit,
    /// Seconds between two signs of life; 0: no limit. None while a chat waits for a person, nor
    /// for a server
    #[arg(long, value_name = "S", default_value = "300", value_parser = seconds, help_heading = LIMITS)]
    idle_timeout: Limit,
    /// Seconds in all; 0: no limit [default: 3600, none in a chat and for a server]
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
const LIMITS: &str = "Limits";
const VERDICT: &str = "Verdict and output";

/// The kinds of machine by their names in QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BoardName {
    /// The minimum of devices that a guest needs.
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
    /// The guest serves clients over HTTP until Ctrl-C.
    Serve,
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

/// Plan of a run, from the command line.
#[derive(Debug)]
pub struct Plan {
    /// The QEMU to start.
    pub qemu: PathBuf,
    /// The machine.
    pub machine: Machine,
    /// Who the guest talks to.
    pub talk: Talk,
    /// Timeouts.
    pub limits: Limits,
    /// Expectations.
    pub expected: Expectations,
    /// Whether the serial line is shown as it is.
    pub raw: bool,
}

/// Variables of the environment, and the host's cores.
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
    /// The environment of this process. An empty prompt counts, an empty path does not.
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
    /// Checks that the options fit together and that the files exist.
    ///
    /// # Errors
    /// A sentence for the user: what is wrong and what to do.
    pub fn plan(&self, environment: &Environment, host: Host) -> Result<Plan, String> {
        let Settings { mode, port, boot_arguments } = self.settings(environment)?;
        let chat = mode == Some(Mode::Chat);
        let serves = mode == Some(Mode::Serve);

        let limits = if self.gdb.is_some() {
            Limits { boot: None, idle: None, total: None }
        } else {
            let default = Limit((!chat && !serves).then_some(Duration::from_secs(3600)));
            Limits {
                boot: self.boot_timeout.0,
                idle: self.idle_timeout.0,
                total: self.timeout.unwrap_or(default).0,
            }
        };
        let qemu = self.qemu.clone().or_else(|| environment.qemu.clone());
        let machine = self.machine(boot_arguments, serves.then_some(port), environment, host)?;
        let talk = match mode {
            Some(Mode::Chat) => Talk::Input,
            Some(Mode::Serve) => Talk::Clients { urls: machine.urls(port) },
            _ => Talk::Nobody,
        };
        Ok(Plan {
            qemu: qemu.unwrap_or_else(|| "qemu-system-aarch64".into()),
            machine,
            talk,
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
        boot_arguments: Vec<(String, String)>,
        port: Option<u16>,
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
        let mut wanted = self.forward.clone();
        if let Some(port) = port.filter(|_| wanted.is_empty()) {
            // The same port of this host leads to a server.
            wanted.push(Wanted::same(port));
        }
        if !wanted.is_empty() {
            if self.board != BoardName::Virt {
                return Err("this board has no network card for --forward: leave it out".into());
            }
            let bus = match self.bus {
                Some(bus @ (Bus::MmioLegacy | Bus::Pci)) => bus,
                _ => Bus::Mmio,
            };
            devices.push(Device::Network { bus, forwards: forward::choose(&wanted)? });
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
            boot_arguments,
            devices,
            extra: self.extra.clone(),
        })
    }

    /// The chosen processor; of QEMU's own arguments the last `-cpu` counts.
    fn cpu(&self) -> Option<String> {
        let words = self.extra.windows(2).rev();
        let own = words.into_iter().find(|words| words[0] == "-cpu" || words[0] == "--cpu");
        own.map(|words| words[1].to_string_lossy().into_owned()).or_else(|| self.cpu.clone())
    }

    /// A Raspberry Pi 4, without choices.
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
}

/// Whether a processor of QEMU's has no 64-bit state, by the name before its features.
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
        // Opened as well, as QEMU will open the file.
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
