//! The end: power off.

use core::arch::asm;

use super::console::Console;
use super::{devices, fault, output, psci};
use crate::report;

/// Ends the run with `status`: the `exit` event, then power off.
pub fn exit(status: i32) -> ! {
    if fault::claim_end() == fault::Claim::First {
        // Goes around the lock: another core may be stopped within its text.
        let _ = report::write_exit(&mut output::Emergency::new(), status);
    }
    off()
}

/// Turns the machine off. Where firmware offers no way to, the core stops.
pub fn off() -> ! {
    if let Some(console) = devices::console() {
        console.flush();
    }
    psci::system_off();
    stop_core()
}

/// Stops the calling core for good.
pub fn stop_core() -> ! {
    loop {
        // SAFETY: waits; touches nothing.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}
