//! The entry point, and the trial that a boot argument names.

use alloc::format;
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::system::Application;
use kernel::trials::Trial;

use crate::os::{exit, say};
use crate::{devices, early_map, faults, files, memory, stops, threads};

#[unsafe(no_mangle)]
static APPLICATION: Application =
    Application { kernels: || "none", reboots: || REBOOTS.load(Ordering::Relaxed) };

static REBOOTS: AtomicBool = AtomicBool::new(false);

#[unsafe(no_mangle)]
unsafe extern "C" fn runtime_entry(
    argc: i32,
    argv: *const *const c_char,
    _env: *const *const c_char,
) -> ! {
    let mut failed = 0;
    for i in 1..argc as usize {
        // SAFETY: the runtime gives `argc` C strings that live for ever.
        let word = unsafe { CStr::from_ptr(*argv.add(i)) }.to_str().unwrap_or("?");
        let (name, argument) = word.split_once('=').unwrap_or((word, ""));
        let passed = Trial::named(name).is_some_and(|trial| run(trial, argument));
        // Part by part: there may be no memory left to put the parts together.
        say(name);
        say(if passed { ": ok\n" } else { ": FAILED\n" });
        failed += i32::from(!passed);
    }
    exit(failed)
}

/// Runs a trial: whether all that it checks holds.
fn run(trial: Trial, argument: &str) -> bool {
    match trial {
        Trial::Echo => say(&format!("echo: [{argument}]\n")),
        Trial::EarlyMap => early_map::early_map(),
        Trial::Memory => memory::memory(),
        Trial::Threads => threads::threads(),
        Trial::Futex => threads::futex(),
        Trial::Sleep => threads::sleep(),
        Trial::Bounds => files::bounds(),
        Trial::Protect => memory::protect(),
        Trial::FirstCore => threads::first_core(argument),
        Trial::Quiet => threads::quiet(),
        Trial::WholeLines => threads::whole_lines(),
        Trial::File => files::file(argument),
        Trial::NoFile => files::no_file(argument),
        Trial::Input => files::input(),
        Trial::NetFrames => devices::net_frames(),
        Trial::Entropy => devices::entropy(argument),
        Trial::Reboot => {
            REBOOTS.store(true, Ordering::Relaxed);
            true
        }
        Trial::Exit => exit(argument.parse().unwrap_or(-1)),
        Trial::Exhaust => memory::exhaust(),
        Trial::PanicWithoutConsole => stops::panic_without_console(argument),
        Trial::Null => faults::null(),
        Trial::NullOn => threads::on_core(argument, faults::null_there),
        Trial::NullAll => threads::everywhere(faults::null_there),
        Trial::CallNull => faults::run(0),
        Trial::WriteCode => faults::write(runtime_entry as *const () as usize),
        Trial::WriteConstant => faults::write_constant(),
        Trial::WriteProtected => memory::write_protected(),
        Trial::WriteAt => faults::write(faults::hexadecimal(argument)),
        Trial::WriteModel => files::write_model(argument),
        Trial::RunStack => faults::run_stack(),
        Trial::RunHeap => faults::run_heap(),
        Trial::RunConstant => faults::run_constant(),
        Trial::Undefined => faults::undefined(),
        Trial::MisalignedDevice => faults::misaligned_device(argument),
        Trial::UserPage => faults::user_page(),
        Trial::Overflow => faults::recurse(1) > 0,
        Trial::OverflowOn => threads::on_core(argument, faults::overflow),
        Trial::Panic => panic!("as asked"),
        Trial::PanicOn => threads::on_core(argument, stops::panic_there),
        Trial::PanicAll => threads::everywhere(stops::panic_there),
        Trial::PanicInNoise => stops::panic_in_noise(),
        Trial::PanicBrittle => panic!("{}", stops::Brittle::new(0)),
        Trial::PanicBrittleLater => panic!("{}", stops::Brittle::new(1)),
        Trial::Abort => stops::abort(),
        Trial::OutOfMemory => {
            memory::out_of_memory(0);
            false
        }
        Trial::OutOfMemoryAll => threads::everywhere(memory::out_of_memory),
        Trial::Stall => stops::stall(argument),
        Trial::StallLoad => stops::stall_load(argument),
        Trial::JobInJob => stops::job_in_job(argument),
    }
}
