//! The end of the run: which core ends it, and how the others stop.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::runtime::arch::this_core;
use crate::runtime::dev::{psci, wake};

/// The number of the core that ends the run, plus one; 0 while no core does.
static ENDING: AtomicUsize = AtomicUsize::new(0);

/// Whether the calling core is the first to end the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The core is the first.
    First,
    /// The core was ending the run already: the end itself broke.
    Again,
}

/// Claims the end of the run for the calling core.
///
/// The call returns if the core is the one that ends the run, or already was. Otherwise the call
/// stops the core.
pub fn claim() -> Claim {
    let me = this_core::current() + 1;
    match ENDING.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Claim::First,
        Err(other) if other == me => Claim::Again,
        Err(_) => stop_core(),
    }
}

/// Whether another core ends the run, so that the calling core has to stop.
pub fn must_stop() -> bool {
    let ending = ENDING.load(Ordering::Acquire);
    ending != 0 && ending != this_core::current() + 1
}

/// Stops the calling core if another core ends the run.
pub fn stop_if_ending() {
    if must_stop() {
        stop_core();
    }
}

/// Stops the calling core for good.
///
/// The firmware turns the core off. Without such firmware the core sleeps, and no pending interrupt
/// keeps the core from sleeping.
pub fn stop_core() -> ! {
    psci::cpu_off();
    wake::sleep_for_ever()
}
