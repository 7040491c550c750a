//! The end: power off.

use core::arch::asm;

use super::console::Console;
use super::irq::InterruptController;
use super::{devices, fault, output, power_manager, psci, time};
use crate::report;

/// Ends the run with `status`: the `exit` event, then power off.
pub fn exit(status: i32) -> ! {
    if fault::claim_end() == fault::Claim::First {
        // Goes around the lock: another core may be stopped within its text.
        let _ = report::write_exit(&mut output::Emergency::new(), status);
    }
    off()
}

/// Turns the machine off. Where there is no way to, the core stops.
pub fn off() -> ! {
    if let Some(console) = devices::console() {
        console.flush();
    }
    psci::system_off();
    if let Some(registers) = devices::power_manager() {
        power_manager::halt(registers);
    }
    stop_core()
}

/// Stops the calling core for good: the firmware turns it off. Where there is none that can, the core
/// sleeps, and no interrupt that is left pending keeps it from that.
pub fn stop_core() -> ! {
    psci::cpu_off();
    time::stop();
    if let Some(controller) = devices::interrupts() {
        controller.mute_core();
    }
    loop {
        // SAFETY: waits; touches nothing.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}
