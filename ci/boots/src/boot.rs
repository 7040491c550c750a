//! A boot: the machine, the disk, the settings, and what must come of it. The harness boots it or, where
//! the harness has no such machine, QEMU by itself.

use std::fs::File;
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
use crate::seen::{Line, Seen};

/// What the harness itself is told to insist on; its exit status says whether that held.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// So many tokens are generated.
    Tokens(usize),
    /// The output holds this text.
    Text(String),
    /// The run ends with this error.
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

/// What boots it.
enum By {
    /// The harness, which judges it too.
    Harness,
    /// This QEMU, with these arguments of its own and these words as boot arguments.
    /// Where the console is the second port, the first one goes nowhere.
    Qemu { program: PathBuf, words: String, arguments: Vec<String>, second_port: bool },
}

/// A boot.
#[must_use]
pub struct Boot {
    /// What its log is called.
    pub name: String,
    by: By,
    machine: Machine,
    disk: Option<Attached>,
    image: PathBuf,
    settings: Vec<(String, String)>,
    /// What is typed in a chat.
    typed: Option<Vec<u8>>,
    /// Whether [`Child::type_in`] can be used.
    open_input: bool,
    /// Whether the harness shows the serial line as it is, so that it can be awaited.
    watched: bool,
    verdicts: Vec<Verdict>,
    limit: Duration,
    idle_limit: Option<Duration>,
    expected: Vec<Expect>,
}

/// A boot of the image without a disk, on the harness's own machine. Unless it is told otherwise, the
/// harness must be content, and nothing on the serial line unreadable.
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

/// Every line that starts as an event does holds one.
pub fn no_garbled_line() -> Expect {
    Expect::that("every event can be read", |seen| {
        let garbled = seen.lines.iter().find(|line| matches!(line, Line::Garbled(..)));
        garbled.map_or(Ok(()), |line| Err(format!("{line:?}")))
    })
}

impl Boot {
    /// By QEMU alone, with these boot arguments and QEMU's own arguments for the machine and its disks.
    /// What is typed goes to its serial line. It may take a minute, unless it is told otherwise.
    pub fn by_qemu(mut self, words: &str, arguments: &[&str]) -> Boot {
        let arguments = arguments.iter().map(|word| word.to_string()).collect();
        let (program, words, second_port) = (QEMU.into(), words.into(), false);
        self.by = By::Qemu { program, words, arguments, second_port };
        self.limit_s(60)
    }

    /// By this QEMU, instead of the one that is installed.
    pub fn program(mut self, qemu: impl Into<PathBuf>) -> Boot {
        if let By::Qemu { program, .. } = &mut self.by {
            *program = qemu.into();
        }
        self
    }

    /// By QEMU alone, on a board whose console is its second serial port.
    pub fn second_port(mut self) -> Boot {
        if let By::Qemu { second_port, .. } = &mut self.by {
            *second_port = true;
        }
        self
    }

    /// On a Raspberry Pi 4.
    pub fn raspberry_pi_4(mut self) -> Boot {
        self.machine.board = Board::RaspberryPi4;
        self
    }

    /// With so many cores.
    pub fn cores(mut self, cores: u32) -> Boot {
        self.machine.cores = Some(cores);
        self
    }

    /// With this processor.
    pub fn cpu(mut self, cpu: &'static str) -> Boot {
        self.machine.cpu = Some(cpu);
        self
    }

    /// With so much memory.
    pub fn memory_mib(mut self, mib: u32) -> Boot {
        self.machine.memory_mib = Some(mib);
        self
    }

    /// With this version of the interrupt controller.
    pub fn gic(mut self, version: u8) -> Boot {
        self.machine.gic = Some(version);
        self
    }

    /// From EL2.
    pub fn el2(mut self) -> Boot {
        self.machine.el2 = true;
        self
    }

    /// With a clock that counts instructions, and one core.
    pub fn icount(mut self) -> Boot {
        self.machine.icount = true;
        self.machine.cores = Some(1);
        self
    }

    /// With this disk, attached as the board does it by itself.
    pub fn disk(mut self, disk: Disk) -> Boot {
        self.disk = Some(Attached::Plain(disk, None));
        self
    }

    /// With this disk, attached in this way.
    pub fn disk_on(mut self, bus: Bus, disk: Disk) -> Boot {
        self.disk = Some(Attached::Plain(disk, Some(bus)));
        self
    }

    /// With this disk, some of whose reads fail.
    pub fn failing_disk(mut self, disk: Disk, failing: Failing) -> Boot {
        self.disk = Some(Attached::Failing(disk, failing));
        self
    }

    /// With this disk, which is slow.
    pub fn slow_disk(mut self, disk: Disk, throttle: Throttle) -> Boot {
        self.disk = Some(Attached::Throttled(disk, throttle));
        self
    }

    /// Another image.
    pub fn image(mut self, image: impl Into<PathBuf>) -> Boot {
        self.image = image.into();
        self
    }

    /// With this setting.
    pub fn set(mut self, key: &str, value: impl Value) -> Boot {
        self.settings.push((key.into(), value.text()));
        self
    }

    /// A chat in which this is typed.
    pub fn typed(mut self, text: impl Into<Vec<u8>>) -> Boot {
        self.typed = Some(text.into());
        self
    }

    /// What is typed is not known beforehand: [`Child::type_in`] is for that.
    pub fn open_input(mut self) -> Boot {
        self.open_input = true;
        self
    }

    /// What comes over the serial line can be awaited, as it can of a boot by QEMU alone.
    pub fn watched(mut self) -> Boot {
        self.watched = true;
        self
    }

    /// It may take so long in all.
    pub fn limit_s(mut self, seconds: u64) -> Boot {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// It may be silent for so long.
    pub fn idle_limit_s(mut self, seconds: u64) -> Boot {
        self.idle_limit = Some(Duration::from_secs(seconds));
        self
    }

    /// Something that must hold.
    pub fn expect(mut self, expected: Expect) -> Boot {
        self.expected.push(expected);
        self
    }

    /// Some event must be like this.
    pub fn event(self, like: EventLike) -> Boot {
        self.expect(Expect::Event(like))
    }

    /// Some line of text must match.
    pub fn line(self, line: &str) -> Boot {
        self.expect(Expect::Line(pattern(line)))
    }

    /// There must be one `exit` with this status, and nothing behind it.
    pub fn exits(self, status: i32) -> Boot {
        self.expect(Expect::Exit(status, Vec::new()))
    }

    /// The harness, too, must see that this holds.
    pub fn verdict(mut self, verdict: Verdict) -> Boot {
        self.verdicts.push(verdict);
        self
    }

    /// It must end with this error, its message matching, and without a result.
    pub fn fails(self, code: Code, message: impl IntoPattern) -> Boot {
        let message = message.to_pattern();
        self.verdict(Verdict::Error(code))
            .event(crate::event!(Error { code == code, message ~ message }))
            .exits(1)
            .expect(Expect::NoEvent(crate::event!(Result {})))
    }

    /// QEMU's arguments, where it is started without the harness.
    fn qemu_arguments(&self, words: &str, own: &[String], second_port: bool) -> Vec<String> {
        let mut arguments: Vec<&str> = vec!["-nic", "none", "-display", "none", "-monitor", "none"];
        if second_port {
            arguments.extend(["-serial", "null"]);
        }
        let kernel = self.image.display().to_string();
        arguments.extend(["-serial", "stdio", "-kernel", &kernel, "-append", words]);
        arguments.into_iter().map(str::to_owned).chain(own.iter().cloned()).collect()
    }

    /// The harness with its arguments.
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
        if self.watched {
            arguments.push("--raw".into());
        }
        let mut put = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
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
                // The harness judges by it.
                "mode" => put("--mode", value.clone()),
                _ => put("--set", format!("{key}={value}")),
            }
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

    /// Starts it. Of a boot by QEMU alone, what comes over the serial line can be awaited.
    ///
    /// # Errors
    /// A disk cannot be made, or a file cannot be written.
    pub fn start(&self, lab: &Lab) -> Result<Child> {
        let out = lab.file(&format!("{}.out", self.name));
        let (mut command, output, limit) = match &self.by {
            // The harness has the limit, and is given some time to say so.
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

    /// Boots, and waits for the end.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub fn look(&self, lab: &Lab) -> Result<Seen> {
        let status = self.start(lab)?.wait()?;
        self.seen(lab, status)
    }

    /// What there is to see after the harness has ended with this status.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn seen(&self, lab: &Lab, status: i32) -> Result<Seen> {
        let out = lab.file(&format!("{}.out", self.name));
        Ok(Seen { status, out, ..Seen::read(&self.log(lab))? })
    }

    /// Whether all that is expected holds of what was seen.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self, seen: &Seen) -> Result<(), Failure> {
        self.expected.iter().try_for_each(|expected| Failure::unless(expected, seen))
    }

    /// Boots, and checks.
    ///
    /// # Errors
    /// It cannot be started, does not end, or something does not hold: a [`Failure`].
    pub fn run(&self, lab: &Lab) -> Result<Seen> {
        let seen = self.look(lab)?;
        self.check(&seen)?;
        Ok(seen)
    }
}
