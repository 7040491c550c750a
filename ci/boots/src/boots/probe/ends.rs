//! Trials that end the run.
//!
//! Each boot must show the error that the list has for its trial, at the address that the trial names.
//! Nothing may follow the end.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kernel::report::{Code, Event};
use kernel::trials::{Abort, Access, Core, End, Expected, Fault, Trial};

use super::{A72, Machine, probe, virt, word};
use crate::boot::Boot;
use crate::check::{Check, Passed, check};
use crate::disk::TINY;
use crate::event;
use crate::expect::{Expect, literal, pattern};
use crate::gzip;
use crate::lab::{Lab, Need};

/// The cores of the machine that most trials end on.
const CORES: u32 = 3;

fn machine() -> Machine {
    virt(A72, CORES, "64M")
}

/// The model, by the application's own way of loading it.
fn with_model(memory: &str) -> Machine {
    virt(A72, CORES, memory).with(["-initrd", TINY])
}

/// The trial without an argument.
pub fn plain(trial: Trial) -> Check {
    let boot = ends(trial.name(), trial, "", &machine());
    match trial {
        Trial::Panic => boot.event(event!(Error { message ~ r"probe/guest\.rs:[0-9]+\)" })),
        _ => boot,
    }
    .backtrace(trial)
    .into()
}

/// The trial with a number as its argument.
pub fn with(trial: Trial, argument: usize) -> Check {
    let name = format!("{}-{argument}", trial.name());
    ends(&name, trial, argument, &machine()).backtrace(trial).into()
}

/// A boot in which the trial ends the run.
fn ends(name: impl Display, trial: Trial, argument: impl Display, machine: &Machine) -> Boot {
    probe(name, &word(trial, &argument), machine).must_end(trial, argument, CORES)
}

impl Boot {
    /// The trial's error ends the run.
    fn must_end(self, trial: Trial, argument: impl Display, cores: u32) -> Boot {
        let Expected::Ends(end) = &trial.row().expected else {
            panic!("the trial {} ends no run", trial.name());
        };
        let code = match end.fault {
            Fault::Panic(_) => Code::Panic,
            Fault::OutOfMemory(_) => Code::OutOfMemory,
            _ => Code::Exception,
        };
        let message = message(end, &argument.to_string(), cores);
        self.event(event!(Error { code == code, message ~ message }))
            .expect(aimed())
            .expect(Expect::Events(1, event!(Error {})))
            .exits(1)
    }

    /// The backtrace leads from the fault to the start of the core.
    fn backtrace(self, trial: Trial) -> Boot {
        match trial {
            Trial::Panic | Trial::Null | Trial::OverflowOn => self
                .line("^  (probe::|runtime_entry)")
                .line(r"^  (move_to_stacks|secondary_core)\+0x"),
            _ => self,
        }
    }
}

/// The message of an error, as a pattern.
fn message(end: &End, argument: &str, cores: u32) -> String {
    let core = match end.core {
        Core::Number(core) => core.to_string(),
        Core::Argument => argument.into(),
        Core::Any => one_of((0..cores).map(|core| core.to_string())),
        Core::NotArgument => {
            one_of((0..cores).map(|core| core.to_string()).filter(|core| core != argument))
        }
    };
    let at = match end.function {
        // A place that is no function's has no name.
        Some(place) if place.starts_with("0x") => place.into(),
        Some(function) => format!(r"{}\+0x[0-9a-f]+", literal(function)),
        None => r"\S+".into(),
    };
    let place = format!("address 0x[0-9a-f]+, at {at}, core {core}$");
    let levels =
        |levels: &RangeInclusive<u8>| one_of(levels.clone().map(|level| level.to_string()));
    match &end.fault {
        Fault::Data(why, at, access) => format!(
            "^data abort: {} fault, level {}, {}, {place}",
            abort(*why),
            levels(at),
            direction(*access)
        ),
        Fault::Instruction(why, at) => {
            format!("^instruction abort: {} fault, level {}, {place}", abort(*why), levels(at))
        }
        Fault::Alignment(access) => {
            format!("^data abort: alignment fault, {}, {place}", direction(*access))
        }
        Fault::Undefined => format!("^undefined instruction at {at}, core {core}$"),
        Fault::StackOverflow => format!("^stack overflow on core {core} at {at}$"),
        // A panic tells its file and its line.
        Fault::Panic(start) => {
            let start = literal(&start.replace("{}", argument));
            format!(r"^{start}.*[a-z_]\.rs:[0-9]+\), core {core}$")
        }
        Fault::OutOfMemory(bytes) => {
            let bytes = bytes.map_or("[0-9]+".into(), |bytes| bytes.to_string());
            format!("^{bytes} bytes were asked for, [0-9]+ bytes are free$")
        }
    }
}

fn one_of(choices: impl Iterator<Item = String>) -> String {
    format!("({})", choices.collect::<Vec<_>>().join("|"))
}

fn abort(why: Abort) -> &'static str {
    match why {
        Abort::Translation => "translation",
        Abort::Permission => "permission",
    }
}

fn direction(access: Access) -> &'static str {
    match access {
        Access::Reading => "reading",
        Access::Writing => "writing",
    }
}

/// Where the trial says at what address the fault is to come, the error must have that address.
fn aimed() -> Expect {
    let aim = pattern("^aim: (0x[0-9a-f]+)$");
    Expect::that("the error has the address that the trial has named", move |seen| {
        let Some(address) = seen.texts().find_map(|line| aim.group(line)) else { return Ok(()) };
        let place = format!(", address {address}, at ");
        let has_it = |event: &Event| match event {
            Event::Error(fault) => fault.message.contains(&place),
            _ => false,
        };
        match seen.events().any(has_it) {
            true => Ok(()),
            false => Err(format!("the trial has named {address}, the error has another address")),
        }
    })
}

/// The level of the tables that an MMU's fault names.
fn at_level(level: u8) -> Expect {
    Expect::Event(event!(Error { message ~ format!(", level {level}, ") }))
}

/// An initrd where QEMU puts it.
pub fn write_initrd() -> Check {
    ends("write-initrd", Trial::WriteAt, "0x48000000", &with_model("1G")).into()
}

/// What is unpacked from an initrd, where a boot before says that it lies.
pub fn write_unpacked() -> Check {
    check("probe-write-unpacked", |lab| {
        let packed = packed(lab)?;
        let machine =
            |cores| virt(A72, cores, "64M").with(["-initrd", &packed.display().to_string()]);
        let seen =
            probe("write-unpacked-at", &word(Trial::Echo, ""), &machine(1)).exits(0).run(lab)?;
        let place = pattern(r"the initrd unpacks to [0-9]* KiB at (0x[0-9a-f]+), in ");
        let place = seen.texts().find_map(|line| place.group(line));
        let place = place.context("the log does not say where the initrd is unpacked to")?;
        ends("write-unpacked", Trial::WriteAt, place, &machine(1)).run(lab)?;
        Ok(Passed::tries(2))
    })
}

fn packed(lab: &Lab) -> Result<PathBuf> {
    lab.made("packed.img", |out| Ok(std::fs::write(out, gzip::pack(&std::fs::read(TINY)?)?)?))
}

/// The model in whole blocks of 2 MiB, in pages, and the pages at its end.
pub fn write_model() -> Vec<Check> {
    let cases = [
        ("write-model", "", "1G", 2),
        ("write-model-small", "", "64M", 3),
        ("write-model-end", "last", "1G", 3),
    ];
    let boots = cases.into_iter().map(|(name, place, memory, level)| {
        ends(name, Trial::WriteModel, place, &with_model(memory)).expect(at_level(level))
    });
    boots.map(Check::from).collect()
}

/// PAN, where the processor has it; without it the same access is no fault.
pub fn user_page() -> Vec<Check> {
    let trial = Trial::UserPage;
    let with_pan = ends(trial.name(), trial, "", &virt("neoverse-n1", 1, "64M"));
    let without = probe("user-page-without-pan", trial.name(), &virt(A72, 1, "64M"));
    vec![with_pan.into(), without.holds(&[trial]).exits(0).into()]
}

/// A word of a device that does not lie on a multiple of its size; QEMU knows of that fault from 9.0 on.
pub fn misaligned_device() -> Check {
    let run = |lab: &Lab| {
        let qemu = lab.pi4().map_err(anyhow::Error::msg)?.qemu;
        let trial = Trial::MisalignedDevice;
        ends(trial.name(), trial, "0x9000000", &machine()).program(qemu).run(lab)?;
        Ok(Passed::default())
    };
    check("probe-misaligned-device", run).needs(Need::Pi4)
}

/// A thread that stops while a model is loaded. Whoever waits for it says so: another core.
pub fn stall_load() -> Vec<Check> {
    let boots = [(0, "read"), (1, "hashed")].map(|(thread, done)| {
        let message = format!("^thread {thread} has {done} nothing of the model for 2 s ");
        ends(format!("stall-load-{thread}"), Trial::StallLoad, thread, &with_model("1G"))
            .event(event!(Error { message ~ message }))
    });
    boots.map(Check::from).into()
}

/// The end without any memory.
pub fn exhausted() -> Vec<Check> {
    let trials = [Trial::Panic, Trial::PanicAll, Trial::Undefined, Trial::OutOfMemoryAll];
    let boots = trials.map(|trial| {
        let words = format!("{} {}", Trial::Exhaust.name(), trial.name());
        let boot = probe(format!("exhausted-{}", trial.name()), &words, &machine())
            .holds(&[Trial::Exhaust])
            .must_end(trial, "", CORES);
        match trial {
            Trial::OutOfMemoryAll => {
                boot.event(event!(Error { message ~ "asked for, 0 bytes are free$" }))
            }
            _ => boot,
        }
    });
    boots.map(Check::from).into()
}

/// Nothing can be said, but the machine does not hang.
pub fn without_console() -> Check {
    let words = word(Trial::PanicWithoutConsole, "0x9000000");
    probe(Trial::PanicWithoutConsole.name(), &words, &virt(A72, 1, "64M"))
        .line("^from here on there is no console$")
        .expect(Expect::NoEvent(event!(Error {})))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(trial: Trial, argument: &str, said: &str) -> bool {
        let Expected::Ends(end) = &trial.row().expected else { panic!() };
        pattern(&message(end, argument, CORES)).is_in(said)
    }

    #[test]
    fn a_message_is_told_from_its_neighbours() {
        let read = "data abort: translation fault, level 2, reading, address 0x7, \
                    at probe::faults::read+0x94, core 0";
        assert!(matches(Trial::Null, "", read));
        assert!(matches(Trial::NullOn, "2", &read.replace("core 0", "core 2")));
        for (part, other) in [
            ("translation", "permission"),
            ("level 2", "level 4"),
            ("reading", "writing"),
            ("data", "instruction"),
            ("::read+", "::write+"),
            ("core 0", "core 1"),
            ("core 0", "core 0, and more"),
        ] {
            assert!(!matches(Trial::Null, "", &read.replace(part, other)), "{other}");
        }
        let stuck = "thread 1 has hashed nothing of the model for 2 s (src/load.rs:9), core 2";
        assert!(matches(Trial::StallLoad, "1", stuck));
        assert!(!matches(Trial::StallLoad, "1", &stuck.replace("core 2", "core 1")));
        assert!(!matches(Trial::StallLoad, "0", stuck));
        let all = "as asked, by 1 (kernel/src/bin/probe/stops.rs:9), core 1";
        assert!(matches(Trial::PanicAll, "", all));
        assert!(!matches(Trial::PanicAll, "", &all.replace("core 1", "core 3")));
        assert!(matches(
            Trial::CallNull,
            "",
            "instruction abort: translation fault, level 0, address 0x0, at 0x0, core 0"
        ));
        assert!(matches(
            Trial::OverflowOn,
            "1",
            "stack overflow on core 1 at probe::faults::recurse+0x10"
        ));
        assert!(!matches(
            Trial::OverflowOn,
            "2",
            "stack overflow on core 1 at probe::faults::recurse+0x10"
        ));
    }
}
