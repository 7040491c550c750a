//! A boot: machine, disk, settings and expectations, written as a builder.
//!
//! The harness runs most boots. QEMU runs those by itself whose machine the harness does not know.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use harness::command::Bus;
use kernel::report::Code;

use crate::disk::Disk;
use crate::expect::{EventLike, Expect, IntoPattern, pattern};
use crate::failure::Failure;
use crate::lab::{HARNESS, IMAGE, Lab, QEMU};
use crate::machine::{Attached, Board, Failing, Machine, Throttle, failing, throttled};
use crate::qemu::{Child, Output, command};
use crate::screen::Screen;
use crate::seen::{Line, Seen};

/// What the harness itself checks; the harness's exit status is the result.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The number of generated tokens.
    Tokens(usize),
    /// A text that the output holds.
    Text(String),
    /// The error that ends the run.
    Error(Code),
}

/// The value of a setting, as a boot argument.
pub trait Value {
    /// Its text.
    fn text(self) -> String;
}

macro_rules! values {
    ($($kind:ty),*) => { $(impl Value for $kind {
        fn text(self) -> String {
            self.to_string()
        }
    })* };
}
values!(&str, String, bool, i32, u32, u64, usize, f64);

/// The program that boots.
enum By {
    /// The harness, which judges the run too.
    Harness,
    /// QEMU alone. On a board whose console is its second port, the first port goes nowhere.
    Qemu { program: PathBuf, words: String, arguments: Vec<String>, second_port: bool },
}

/// A boot and what it must show.
#[must_use]
pub struct Boot {
    /// The name of the boot, and of its log.
    pub name: String,
    by: By,
    machine: Machine,
    disk: Option<Attached>,
    image: PathBuf,
    settings: Vec<(String, String)>,
    /// The input of a chat.
    typed: Option<Vec<u8>>,
    /// Whether the input stays open for [`Child::type_in`].
    open_input: bool,
    /// Whether the harness passes the serial line on, so that [`Child::wait_for`] can be used.
    watched: bool,
    verdicts: Vec<Verdict>,
    limit: Duration,
    idle_limit: Option<Duration>,
    expected: Vec<Expect>,
}

/// A boot of the image without a disk, on the harness's default machine.
///
/// The exit status must be 0, and every event must be readable, whatever else is expected.
pub fn boot(name: impl Into<String>) -> Boot {
    Boot {
        name: name.into(),
        by: By::Harness,
        machine: Machine::default(),
        disk: None,
        image: IMAGE.into(),
        settings: Vec::new(),
        typed: None,
        open_input: false,
        watched: false,
        verdicts: Vec::new(),
        limit: Duration::from_secs(120),
        idle_limit: None,
        expected: vec![Expect::Status(0), no_garbled_line()],
    }
}

/// Every line that starts with the event separator holds an event.
pub fn no_garbled_line() -> Expect {
    Expect::that("every event can be read", |seen| {
        let garbled = seen.lines.iter().find(|line| matches!(line, Line::Garbled(..)));
        garbled.map_or(Ok(()), |line| Err(format!("{line:?}")))
    })
}

impl Boot {
    /// QEMU boots, with these boot arguments and with QEMU's arguments for machine and disks.
    ///
    /// The timeout becomes one minute; [`Boot::limit_s`] sets another one afterwards.
    pub fn by_qemu(mut self, words: &str, arguments: &[&str]) -> Boot {
        let arguments = arguments.iter().map(|word| word.to_string()).collect();
        let (program, words, second_port) = (QEMU.into(), words.into(), false);
        self.by = By::Qemu { program, words, arguments, second_port };
        self.limit_s(60)
    }

    /// Sets the QEMU; the default is the installed one.
    pub fn program(mut self, qemu: impl Into<PathBuf>) -> Boot {
        if let By::Qemu { program, .. } = &mut self.by {
            *program = qemu.into();
        }
        self
    }

    /// The console is the second serial port; only for boots by QEMU.
    pub fn second_port(mut self) -> Boot {
        if let By::Qemu { second_port, .. } = &mut self.by {
            *second_port = true;
        }
        self
    }

    /// Sets the board: QEMU's Raspberry Pi 4.
    pub fn raspberry_pi_4(mut self) -> Boot {
        self.machine.board = Board::RaspberryPi4;
        self
    }

    /// Sets the number of cores.
    pub fn cores(mut self, cores: u32) -> Boot {
        self.machine.cores = Some(cores);
        self
    }

    /// Sets the processor.
    pub fn cpu(mut self, cpu: &'static str) -> Boot {
        self.machine.cpu = Some(cpu);
        self
    }

    /// Sets the memory in MiB.
    pub fn memory_mib(mut self, mib: u32) -> Boot {
        self.machine.memory_mib = Some(mib);
        self
    }

    /// Sets the version of the interrupt controller.
    pub fn gic(mut self, version: u8) -> Boot {
        self.machine.gic = Some(version);
        self
    }

    /// Starts the guest at EL2.
    pub fn el2(mut self) -> Boot {
        self.machine.el2 = true;
        self
    }

    /// The guest's clock counts instructions; the machine has one core.
    pub fn icount(mut self) -> Boot {
        self.machine.icount = true;
        self.machine.cores = Some(1);
        self
    }

    /// Adds a network card. A free port of this host leads to this port of the guest.
    ///
    /// The harness prints the port of this host: see [`Boot::forwarded`].
    pub fn forward(mut self, guest_port: u16) -> Boot {
        self.machine.forward = Some(guest_port);
        self
    }

    /// Attaches a disk by the board's default bus.
    pub fn disk(mut self, disk: Disk) -> Boot {
        self.disk = Some(Attached::Plain(disk, None));
        self
    }

    /// Attaches a disk by this bus.
    pub fn disk_on(mut self, bus: Bus, disk: Disk) -> Boot {
        self.disk = Some(Attached::Plain(disk, Some(bus)));
        self
    }

    /// Attaches a disk some of whose reads fail.
    pub fn failing_disk(mut self, disk: Disk, failing: Failing) -> Boot {
        self.disk = Some(Attached::Failing(disk, failing));
        self
    }

    /// Attaches a slow disk.
    pub fn slow_disk(mut self, disk: Disk, throttle: Throttle) -> Boot {
        self.disk = Some(Attached::Throttled(disk, throttle));
        self
    }

    /// Sets the image.
    pub fn image(mut self, image: impl Into<PathBuf>) -> Boot {
        self.image = image.into();
        self
    }

    /// Adds a setting, as a boot argument.
    pub fn set(mut self, key: &str, value: impl Value) -> Boot {
        self.settings.push((key.into(), value.text()));
        self
    }

    /// Makes the boot a chat with this input.
    pub fn typed(mut self, text: impl Into<Vec<u8>>) -> Boot {
        self.typed = Some(text.into());
        self
    }

    /// Keeps the input open for [`Child::type_in`].
    pub fn open_input(mut self) -> Boot {
        self.open_input = true;
        self
    }

    /// Lets [`Child::wait_for`] await the serial line of a boot by the harness.
    pub fn watched(mut self) -> Boot {
        self.watched = true;
        self
    }

    /// Sets the timeout of the whole run in seconds.
    pub fn limit_s(mut self, seconds: u64) -> Boot {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Sets the timeout between two signs of life in seconds.
    pub fn idle_limit_s(mut self, seconds: u64) -> Boot {
        self.idle_limit = Some(Duration::from_secs(seconds));
        self
    }

    /// Adds an expectation.
    pub fn expect(mut self, expected: Expect) -> Boot {
        self.expected.push(expected);
        self
    }

    /// Expects an event like this.
    pub fn event(self, like: EventLike) -> Boot {
        self.expect(Expect::Event(like))
    }

    /// Expects a line of text that matches.
    pub fn line(self, line: &str) -> Boot {
        self.expect(Expect::Line(pattern(line)))
    }

    /// Expects one `exit` event with this status, and nothing after it.
    pub fn exits(self, status: i32) -> Boot {
        self.expect(Expect::Exit(status, Vec::new()))
    }

    /// Has the harness check this too.
    pub fn verdict(mut self, verdict: Verdict) -> Boot {
        self.verdicts.push(verdict);
        self
    }

    /// Expects this error, a message that matches, exit status 1 and no result.
    pub fn fails(self, code: Code, message: impl IntoPattern) -> Boot {
        let message = message.to_pattern();
        self.verdict(Verdict::Error(code))
            .event(crate::event!(Error { code == code, message ~ message }))
            .exits(1)
            .expect(Expect::NoEvent(crate::event!(Result {})))
    }

    /// QEMU's arguments of a boot without the harness.
    fn qemu_arguments(&self, words: &str, own: &[String], second_port: bool) -> Vec<String> {
        let mut arguments: Vec<&str> = vec!["-nic", "none", "-display", "none", "-monitor", "none"];
        if second_port {
            arguments.extend(["-serial", "null"]);
        }
        let kernel = self.image.display().to_string();
        arguments.extend(["-serial", "stdio", "-kernel", &kernel, "-append", words]);
        arguments.into_iter().map(str::to_owned).chain(own.iter().cloned()).collect()
    }

    /// The harness's command.
    fn harness(&self, lab: &Lab) -> Result<Command> {
        let mut arguments: Vec<String> = Vec::new();
        let mut put = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        put("--kernel", self.image.display().to_string());
        put("--keep-log", self.log(lab).display().to_string());
        put("--timeout", self.limit.as_secs().to_string());
        if self.typed.is_none() {
            put("--report", lab.file(&format!("{}.json", self.name)).display().to_string());
        }
        if let Some(limit) = self.idle_limit {
            put("--idle-timeout", limit.as_secs().to_string());
        }
        let mut own = Vec::new();
        match &self.disk {
            None => {}
            Some(Attached::Plain(disk, bus)) => {
                put("--disk", lab.disk(disk)?.display().to_string());
                if let Some(bus) = bus {
                    let name = bus.to_possible_value().context("a bus has a name")?;
                    put("--bus", name.get_name().into());
                }
            }
            Some(Attached::Failing(disk, rule)) => {
                own = failing(self.machine.board, &lab.disk(disk)?.display().to_string(), *rule);
            }
            Some(Attached::Throttled(disk, throttle)) => {
                own = throttled(&lab.disk(disk)?.display().to_string(), *throttle);
            }
        }
        if self.machine.board == Board::RaspberryPi4 {
            let pi4 = lab.pi4().map_err(anyhow::Error::msg)?;
            put("--qemu", pi4.qemu.display().to_string());
            put("--board", "raspi4b".into());
            put("--dtb", pi4.device_tree.display().to_string());
        }
        for verdict in &self.verdicts {
            match verdict {
                Verdict::Tokens(n) => put("--expect-tokens", n.to_string()),
                Verdict::Text(text) => put("--expect", text.clone()),
                Verdict::Error(code) => put("--expect-error", code.to_string()),
            }
        }
        for (key, value) in &self.settings {
            match key.as_str() {
                // The harness judges by the mode.
                "mode" => put("--mode", value.clone()),
                _ => put("--set", format!("{key}={value}")),
            }
        }
        if self.watched {
            arguments.push("--raw".into());
        }
        arguments.extend(self.machine.arguments());
        if self.typed.is_some() {
            arguments.insert(0, "chat".into());
        }
        if !own.is_empty() {
            arguments.push("--".into());
            arguments.extend(own);
        }
        Ok(command(HARNESS, arguments))
    }

    fn log(&self, lab: &Lab) -> PathBuf {
        lab.file(&format!("{}.log", self.name))
    }

    /// Starts the boot; [`Child::wait_for`] awaits the serial line.
    ///
    /// # Errors
    /// A disk cannot be made, or a file cannot be written.
    pub fn start(&self, lab: &Lab) -> Result<Child> {
        let out = lab.file(&format!("{}.out", self.name));
        let (mut command, output, limit) = match &self.by {
            // The harness has the timeout; it needs some time to report one.
            By::Harness => {
                let shown = lab.file(&format!("{}.shown", self.name));
                let output =
                    if self.watched { Output::Serial(shown, out) } else { Output::To(out) };
                (self.harness(lab)?, output, self.limit + Duration::from_secs(30))
            }
            By::Qemu { program, words, arguments, second_port } => (
                command(program, self.qemu_arguments(words, arguments, *second_port)),
                Output::Serial(self.log(lab), out),
                self.limit,
            ),
        };
        if self.open_input {
            command.stdin(Stdio::piped());
        }
        if let Some(typed) = &self.typed {
            let input = lab.file(&format!("{}.in", self.name));
            std::fs::write(&input, typed)?;
            command.stdin(File::open(input)?);
        }
        Child::start(command, output, limit)
    }

    /// Address on this host of the port that [`Boot::forward`] has asked for.
    ///
    /// The boot has been started, and has printed something on the serial line.
    ///
    /// # Errors
    /// The harness has not printed the address.
    pub fn forwarded(&self, lab: &Lab) -> Result<SocketAddr> {
        let out = std::fs::read_to_string(lab.file(&format!("{}.out", self.name)))?;
        let port = self.machine.forward.context("the boot has no network card")?;
        let end = format!(" leads to the guest's port {port}");
        let address = out.lines().find_map(|line| line.strip_suffix(&end));
        Ok(address.context("the harness prints no address")?.parse()?)
    }

    /// Boots and waits for the end, without a check.
    ///
    /// # Errors
    /// The boot cannot be started, or does not end.
    pub fn look(&self, lab: &Lab) -> Result<Seen> {
        let status = self.start(lab)?.wait()?;
        self.seen(lab, status)
    }

    /// Reads what a boot has shown that ended with this status.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn seen(&self, lab: &Lab, status: i32) -> Result<Seen> {
        let out = lab.file(&format!("{}.out", self.name));
        Ok(Seen { status, out, ..Seen::read(&self.log(lab))? })
    }

    /// As [`Boot::seen`], with a screen; keeps the screen's picture and text beside the log.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn seen_with(&self, lab: &Lab, status: i32, screen: &Screen) -> Result<Seen> {
        let lines = screen.lines();
        std::fs::write(lab.file(&format!("{}.png", self.name)), screen.png()?)?;
        std::fs::write(lab.file(&format!("{}.screen", self.name)), lines.join("\n"))?;
        Ok(Seen { screen: lines, ..self.seen(lab, status)? })
    }

    /// Checks all expectations.
    ///
    /// # Errors
    /// The first expectation that does not hold.
    pub fn check(&self, seen: &Seen) -> Result<(), Failure> {
        self.expected.iter().try_for_each(|expected| Failure::unless(expected, seen))
    }

    /// Boots and checks all expectations.
    ///
    /// # Errors
    /// The boot cannot be started, does not end, or an expectation does not hold: a [`Failure`].
    pub fn run(&self, lab: &Lab) -> Result<Seen> {
        let seen = self.look(lab)?;
        self.check(&seen)?;
        Ok(seen)
    }
}
