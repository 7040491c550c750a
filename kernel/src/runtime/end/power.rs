//! The end: power off, or a restart.

use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::report;
use crate::runtime::dev::console::Console;
use crate::runtime::dev::{apple_watchdog, devices, power_manager, psci, videocore};
use crate::runtime::io::output;
use crate::runtime::sched::ending::{self, Claim};
use crate::system::APPLICATION;

/// What a person is told who has to turn the machine off.
const SAFE_TO_SWITCH_OFF: &str = "It is now safe to switch off.";

/// Ends the run with `status`: the `exit` event, then power off, or a restart where the application wants
/// that and there is a way to.
pub fn exit(status: i32) -> ! {
    videocore::end_work();
    let first = ending::claim() == Claim::First;
    // Goes around the lock: another core may be stopped within its text.
    let mut out = output::Emergency::take_over();
    if first {
        let _ = report::write_exit(&mut out, status);
    }
    if (APPLICATION.reboots)() {
        restart();
    }
    off(&mut out)
}

/// Restarts the machine. Returns if there is no way to.
fn restart() {
    flush();
    psci::system_reset();
    if let Some(registers) = devices::power_manager() {
        power_manager::restart(registers);
    } else if let Some(registers) = devices::watchdog() {
        apple_watchdog::reset(registers);
    } else {
        return;
    }
    ending::stop_core()
}

/// Turns the machine off. Where there is no way to, as on an Apple M1, `out` is told that a person
/// may do so, and the core stops.
pub fn off(out: &mut dyn Write) -> ! {
    // Once each: if it is the console that broke, its fault comes back here.
    static FLUSHED: AtomicBool = AtomicBool::new(false);
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !FLUSHED.swap(true, Ordering::Relaxed) {
        flush();
    }
    psci::system_off();
    if let Some(registers) = devices::power_manager() {
        power_manager::halt(registers);
    } else if !TOLD.swap(true, Ordering::Relaxed) {
        let _ = writeln!(out, "{SAFE_TO_SWITCH_OFF}");
        flush();
    }
    ending::stop_core()
}

/// Waits until the console has sent all text.
fn flush() {
    if let Some(console) = devices::console() {
        console.flush();
    }
}
