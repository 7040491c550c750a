//! Boots of the probe, which tries out the runtime: `kernel::trials` lists what it tries.
//!
//! [`machines`] boots the trials that hold everywhere, and [`ends`] those that end the run. [`disks`]
//! boots the trials of disks, and [`devices`] those of other devices. [`loaders`] starts the probe as other boot loaders do.

mod devices;
mod disks;
mod ends;
mod loaders;
mod machines;

use std::fmt::Display;

use kernel::trials::{Expected, TRIALS, Trial};

use crate::boot::{Boot, boot};
use crate::check::Check;
use crate::lab::PROBE;

/// The processor that most boots take.
const A72: &str = "cortex-a72";
/// A processor with all that QEMU has.
const ALL: &str = "max,pauth-impdef=on";

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let boots = TRIALS.iter().flat_map(|row| boots_of(row.trial));
    machines::checks().into_iter().chain(boots).chain(loaders::checks()).collect()
}

/// The checks that are for this trial; none for a trial that holds everywhere, as [`machines::works`]
/// boots all of those.
fn boots_of(trial: Trial) -> Vec<Check> {
    match trial {
        Trial::EarlyMap
        | Trial::Memory
        | Trial::Threads
        | Trial::Futex
        | Trial::Sleep
        | Trial::Bounds
        | Trial::Protect => Vec::new(),
        Trial::Echo => machines::words(),
        Trial::FirstCore => machines::first_core(),
        Trial::Quiet => vec![loaders::rubbish()],
        Trial::WholeLines => vec![machines::whole_lines()],
        Trial::File => disks::reads(),
        Trial::NoFile => disks::no_disk(),
        Trial::Input => vec![machines::idle()],
        Trial::NetFrames => devices::network(),
        Trial::Entropy => devices::entropy(),
        Trial::Reboot => vec![machines::reboot()],
        Trial::Exit => vec![machines::status()],
        Trial::Exhaust => ends::exhausted(),
        Trial::PanicWithoutConsole => vec![ends::without_console()],
        Trial::WriteAt => vec![ends::write_initrd(), ends::write_unpacked()],
        Trial::WriteModel => ends::write_model(),
        Trial::MisalignedDevice => vec![ends::misaligned_device()],
        Trial::UserPage => ends::user_page(),
        Trial::StallLoad => ends::stall_load(),
        Trial::NullOn | Trial::PanicOn | Trial::Stall => vec![ends::with(trial, 2)],
        Trial::OverflowOn => vec![ends::with(trial, 1), ends::with(trial, 2)],
        Trial::JobInJob => vec![ends::with(trial, 0), ends::with(trial, 2)],
        Trial::Null
        | Trial::NullAll
        | Trial::CallNull
        | Trial::WriteCode
        | Trial::WriteConstant
        | Trial::WriteProtected
        | Trial::RunStack
        | Trial::RunHeap
        | Trial::RunConstant
        | Trial::Undefined
        | Trial::Overflow
        | Trial::Panic
        | Trial::PanicAll
        | Trial::PanicInNoise
        | Trial::PanicBrittle
        | Trial::PanicBrittleLater
        | Trial::Abort
        | Trial::OutOfMemory
        | Trial::OutOfMemoryAll => vec![ends::plain(trial)],
    }
}

/// A machine, as QEMU's arguments.
#[derive(Clone, Debug)]
struct Machine {
    kind: String,
    arguments: Vec<String>,
}

/// QEMU's `virt` with so many cores of this processor and so much memory.
fn virt(cpu: &str, cores: u32, memory: &str) -> Machine {
    Machine { kind: "virt".into(), arguments: Vec::new() }.with([
        "-cpu",
        cpu,
        "-smp",
        &cores.to_string(),
        "-m",
        memory,
    ])
}

impl Machine {
    /// With this option of the machine.
    fn option(mut self, option: &str) -> Machine {
        self.kind += &format!(",{option}");
        self
    }

    /// With further arguments.
    fn with<S: Display>(mut self, arguments: impl IntoIterator<Item = S>) -> Machine {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.to_string()));
        self
    }

    /// The arguments.
    fn arguments(&self) -> Vec<String> {
        [vec!["-M".into(), self.kind.clone()], self.arguments.clone()].concat()
    }
}

/// A boot of the probe on this machine. These are its boot arguments.
fn probe(name: impl Display, words: &str, machine: &Machine) -> Boot {
    let arguments = machine.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    boot(format!("probe-{name}")).by_qemu(words, &arguments).image(PROBE)
}

/// The boot argument that names a trial.
fn word(trial: Trial, argument: impl Display) -> String {
    match argument.to_string() {
        none if none.is_empty() => trial.name().into(),
        argument => format!("{}={argument}", trial.name()),
    }
}

impl Boot {
    /// These trials must hold.
    fn holds(self, trials: &[Trial]) -> Boot {
        trials.iter().fold(self, |boot, trial| boot.line(&format!("^{}: ok$", trial.name())))
    }
}

/// The trials that hold on every machine.
fn everywhere() -> Vec<Trial> {
    TRIALS.iter().filter(|row| row.expected == Expected::Holds).map(|row| row.trial).collect()
}

/// The boot arguments that name these trials.
fn words_of(trials: &[Trial]) -> String {
    trials.iter().map(|trial| trial.name()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_has_a_boot() {
        for row in TRIALS {
            let everywhere = row.expected == Expected::Holds;
            assert_eq!(boots_of(row.trial).is_empty(), everywhere, "{}", row.name);
        }
        assert_eq!(words_of(&everywhere()), "early-map memory threads futex sleep bounds protect");
    }
}
