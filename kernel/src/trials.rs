//! The trials of the probe: one list that the guest and the host share.
//!
//! The probe (`bin/probe/`) runs the trials that the boot arguments name, `NAME` or `NAME=ARGUMENT`.
//! The crate `ci/boots` makes its boots and its checks of the same list. Both match on [`Trial`]
//! without a default, so that a trial that one side lacks stops the build.

#![forbid(unsafe_code)]

use core::ops::RangeInclusive;

/// What a trial must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The line `NAME: ok`, on every machine.
    Holds,
    /// The line `NAME: ok`, on a machine that has what the trial needs.
    HoldsWhere,
    /// No line of a verdict: the trial prints, reads or ends as its argument says.
    Does,
    /// One error, and the end of the run.
    Ends(End),
}

/// The error that ends a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The fault that the error reports.
    pub fault: Fault,
    /// The function that the error names, where it names one.
    pub function: Option<&'static str>,
    /// The core that the error names.
    pub core: Core,
}

/// A fault, as an error reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A data abort of the MMU: why, at which levels of the tables, on which access.
    Data(Abort, RangeInclusive<u8>, Access),
    /// An instruction abort of the MMU: why, at which levels of the tables.
    Instruction(Abort, RangeInclusive<u8>),
    /// A data abort because of the address's alignment.
    Alignment(Access),
    /// An instruction that there is not.
    Undefined,
    /// An access to the guard page below a stack.
    StackOverflow,
    /// A panic. The text is the start of the message, `{}` stands for the trial's argument.
    Panic(&'static str),
    /// A failed allocation of so many bytes; `None` for any number.
    OutOfMemory(Option<usize>),
}

/// Why the MMU refuses an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// Nothing is mapped there.
    Translation,
    /// The map forbids such an access.
    Permission,
}

/// The direction of an access to data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Reading,
    /// A store.
    Writing,
}

/// The core that an error names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// The core with this number.
    Number(usize),
    /// The core whose number is the trial's argument.
    Argument,
    /// Any core but the one whose number is the trial's argument.
    NotArgument,
    /// Any core of the machine.
    Any,
}

/// A row of the list.
#[derive(Debug)]
pub struct Row {
    /// The trial.
    pub trial: Trial,
    /// The word of the boot arguments that names the trial.
    pub name: &'static str,
    /// What the trial must show.
    pub expected: Expected,
}

macro_rules! trials {
    ($($(#[$doc:meta])+ $trial:ident $name:literal $expected:expr;)+) => {
        /// A trial of the probe.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Trial {
            $($(#[$doc])+ $trial,)+
        }

        /// All trials, each with its name and with what it must show.
        pub static TRIALS: &[Row] = &[
            $(Row { trial: Trial::$trial, name: $name, expected: $expected },)+
        ];
    };
}

trials! {
    /// Prints its argument.
    Echo "echo" Expected::Does;
    /// Reads the tables of the early map: only code is executable, only image and tree are memory.
    EarlyMap "early-map" Expected::Holds;
    /// Takes blocks of many sizes from the heap, and all of the heap, twice.
    Memory "memory" Expected::Holds;
    /// Runs threads on every other core, again and again.
    Threads "threads" Expected::Holds;
    /// Counts under one lock on all cores; lets waits time out.
    Futex "futex" Expected::Holds;
    /// Sleeps for four durations, and compares them with the clock.
    Sleep "sleep" Expected::Holds;
    /// Calls the ABI with memory that is none.
    Bounds "bounds" Expected::Holds;
    /// Makes memory read-only and writable again while other cores write beside it.
    Protect "protect" Expected::Holds;
    /// The first thread runs on the core that the argument numbers.
    FirstCore "first-core" Expected::HoldsWhere;
    /// No core has an event stream.
    Quiet "quiet" Expected::HoldsWhere;
    /// Prints 23 lines on each core at once, each of 61 equal letters in angle brackets.
    WholeLines "whole-lines" Expected::HoldsWhere;
    /// Reads the file at the path on all cores at once, and prints its digest.
    File "file" Expected::HoldsWhere;
    /// Finds no file at the path, and can create none.
    NoFile "no-file" Expected::HoldsWhere;
    /// Prints the bytes that are typed, up to a `q`.
    Input "input" Expected::HoldsWhere;
    /// The network card asks for the router's address, and its interrupt wakes the sleeping core.
    NetFrames "net-frames" Expected::HoldsWhere;
    /// Random bytes come from exactly the sources that the argument names.
    Entropy "entropy" Expected::HoldsWhere;
    /// Restarts the machine at the end of the run.
    Reboot "reboot" Expected::Does;
    /// Ends the run with the status that the argument gives.
    Exit "exit" Expected::Does;
    /// Takes all of the heap, to the last byte; goes before a trial that ends.
    Exhaust "exhaust" Expected::Does;
    /// Panics with the registers of the console, at the address given, unmapped.
    PanicWithoutConsole "panic-without-console" Expected::Does;

    /// Reads where nothing is mapped.
    Null "null" ends(data(Abort::Translation, 0..=3, Access::Reading), READ, FIRST);
    /// The same on the core that the argument numbers.
    NullOn "null-on" ends(data(Abort::Translation, 0..=3, Access::Reading), READ, Core::Argument);
    /// The same on all cores at once.
    NullAll "null-all" ends(data(Abort::Translation, 0..=3, Access::Reading), READ, Core::Any);
    /// Calls the function at address 0.
    CallNull "call-null" ends(Fault::Instruction(Abort::Translation, 0..=3), Some("0x0"), FIRST);
    /// Writes to code.
    WriteCode "write-code" ends(data(Abort::Permission, 3..=3, Access::Writing), WRITE, FIRST);
    /// Writes to a constant that the relocation has written.
    WriteConstant "write-constant"
        ends(data(Abort::Permission, 3..=3, Access::Writing), WRITE, FIRST);
    /// Writes on core 1 to memory that core 0 makes read-only meanwhile.
    WriteProtected "write-protected" ends(
        data(Abort::Permission, 3..=3, Access::Writing),
        Some("probe::memory::write_again"),
        Core::Number(1)
    );
    /// Writes to the address given, where an initrd lies.
    WriteAt "write-at" ends(data(Abort::Permission, 2..=3, Access::Writing), WRITE, FIRST);
    /// Loads the model on the disk, and writes to its first byte; with `last` to its last byte.
    WriteModel "write-model" ends(data(Abort::Permission, 2..=3, Access::Writing), WRITE, FIRST);
    /// Runs an instruction on the stack.
    RunStack "run-stack" ends(Fault::Instruction(Abort::Permission, 2..=3), None, FIRST);
    /// Runs an instruction on the heap.
    RunHeap "run-heap" ends(Fault::Instruction(Abort::Permission, 2..=3), None, FIRST);
    /// Runs an instruction among the constants.
    RunConstant "run-constant" ends(Fault::Instruction(Abort::Permission, 2..=3), None, FIRST);
    /// Runs an instruction that there is not.
    Undefined "undefined" ends(Fault::Undefined, Some("probe::faults::undefined"), FIRST);
    /// Reads a word across the alignment of the device at the address given.
    MisalignedDevice "misaligned-device" ends(
        Fault::Alignment(Access::Reading),
        Some("probe::faults::misaligned_device"),
        FIRST
    );
    /// Reads memory that user mode may use; a fault only where the processor has PAN.
    UserPage "user-page" ends(data(Abort::Permission, 2..=3, Access::Reading), READ, FIRST);
    /// Overflows the stack.
    Overflow "overflow" ends(Fault::StackOverflow, RECURSE, FIRST);
    /// The same on the core that the argument numbers.
    OverflowOn "overflow-on" ends(Fault::StackOverflow, RECURSE, Core::Argument);

    /// Panics.
    Panic "panic" ends(Fault::Panic("as asked ("), None, FIRST);
    /// Panics on the core that the argument numbers.
    PanicOn "panic-on" ends(Fault::Panic("as asked, by {} ("), None, Core::Argument);
    /// Panics on all cores at once.
    PanicAll "panic-all" ends(Fault::Panic("as asked, by "), None, Core::Any);
    /// Panics while all other cores print.
    PanicInNoise "panic-in-noise" ends(Fault::Panic("in the middle of noise ("), None, FIRST);
    /// Panics with a message that reads where nothing is mapped when it is first shown.
    PanicBrittle "panic-brittle"
        ends(data(Abort::Translation, 0..=3, Access::Reading), READ, FIRST);
    /// Panics with a message that does so when it is shown for the second time.
    PanicBrittleLater "panic-brittle-later"
        ends(Fault::Panic("shown as long as it held ("), None, FIRST);
    /// Aborts.
    Abort "abort" ends(Fault::Panic("the application aborts"), None, FIRST);
    /// Asks for 13 MiB until the heap has none left.
    OutOfMemory "out-of-memory" ends(Fault::OutOfMemory(Some(13 << 20)), None, Core::Any);
    /// The same on all cores at once.
    OutOfMemoryAll "out-of-memory-all" ends(Fault::OutOfMemory(None), None, Core::Any);
    /// The core that the argument numbers never finishes its part of a job.
    Stall "stall" ends(
        Fault::Panic("core {} did not answer for 2 s in the middle of a job ("),
        None,
        FIRST
    );
    /// The thread that the argument numbers never does its part when a model is loaded.
    StallLoad "stall-load" ends(Fault::Panic("thread {} has "), None, Core::NotArgument);
    /// The thread that the argument numbers starts a job inside a job.
    JobInJob "job-in-job" ends(
        Fault::Panic("a job of a thread pool must not start another job of that pool ("),
        None,
        Core::Argument
    );
}

const FIRST: Core = Core::Number(0);
const READ: Option<&str> = Some("probe::faults::read");
const WRITE: Option<&str> = Some("probe::faults::write");
const RECURSE: Option<&str> = Some("probe::faults::recurse");

const fn data(abort: Abort, levels: RangeInclusive<u8>, access: Access) -> Fault {
    Fault::Data(abort, levels, access)
}

const fn ends(fault: Fault, function: Option<&'static str>, core: Core) -> Expected {
    Expected::Ends(End { fault, function, core })
}

impl Trial {
    /// The row of the trial.
    pub fn row(self) -> &'static Row {
        // The enum and the rows come in one order.
        &TRIALS[self as usize]
    }

    /// The word that names the trial.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The trial that a word names.
    pub fn named(name: &str) -> Option<Trial> {
        TRIALS.iter().find(|row| row.name == name).map(|row| row.trial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_names_one_trial() {
        for row in TRIALS {
            assert_eq!(Trial::named(row.name), Some(row.trial));
            assert_eq!(row.trial.name(), row.name);
        }
        assert_eq!(Trial::named("none"), None);
    }
}
