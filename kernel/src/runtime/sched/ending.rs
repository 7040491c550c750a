//! The end of the run: which core ends it, and how the others stop.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::runtime::arch::this_core;
use crate::runtime::dev::{psci, wake};

/// The core that ends the run, plus one; 0 while none does.
static ENDING: AtomicUsize = AtomicUsize::new(0);

/// Whether this core is the first to end the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is.
    First,
    /// It was ending the run already: the end itself broke.
    Again,
}

/// Makes the calling core the one that ends the run. Returns if it is, or already was; stops the
/// core otherwise.
pub fn claim() -> Claim {
    let me = this_core::current() + 1;
    match ENDING.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Claim::First,
        Err(other) if other == me => Claim::Again,
        Err(_) => stop_core(),
    }
}

/// Stops the calling core if another one ends the run.
pub fn stop_if_ending() {
    let ending = ENDING.load(Ordering::Acquire);
    if ending != 0 && ending != this_core::current() + 1 {
        stop_core();
    }
}

/// Stops the calling core for good: the firmware turns it off. Where there is none that can, the core
/// sleeps, and no interrupt that is left pending keeps it from that.
pub fn stop_core() -> ! {
    psci::cpu_off();
    wake::sleep_for_ever()
}
