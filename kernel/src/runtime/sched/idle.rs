//! Idle waits: a core sleeps until a condition holds.
//!
//! Interrupts are never taken: `PSTATE.I` and `F` stay set from the first instruction on. So no
//! code is ever interrupted, and no lock needs to mask interrupts. An interrupt only ends a `wfi`,
//! which wakes on a pending interrupt although the interrupt is masked. The core then acknowledges
//! the interrupt by hand, and checks its condition.
//!
//! Other cores and the deadline may end a sleep. Anything else that may end a sleep is registered
//! in [`wake`]. This module knows no device.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, Ordering, fence};

use super::ending;
use crate::runtime::arch::this_core::{self, MAX_CORES};
use crate::runtime::arch::time;
use crate::runtime::dev::wake;

/// Spin time before a core sleeps, in µs: about the cost of sleep and wake-up.
const SPIN_US: u64 = 5;

/// The cores that sleep or are about to sleep. A wake-up of any other core is free.
static SLEEPING: [AtomicBool; MAX_CORES] = [const { AtomicBool::new(false) }; MAX_CORES];

/// Waits until `condition` holds (true) or the clock reads `deadline_us` (false).
///
/// The core that makes the condition hold calls [`wake`] after that. The condition may be checked
/// again after it held, and must hold then too.
pub fn wait_until(condition: &dyn Fn() -> bool, deadline_us: Option<u64>) -> bool {
    let spin_end = time::now_us() + SPIN_US;
    while !condition() {
        let now = time::now_us();
        if deadline_us.is_some_and(|deadline| now >= deadline) {
            return condition();
        }
        if now < spin_end {
            core::hint::spin_loop();
            continue;
        }
        let sleeping = &SLEEPING[this_core::current()];
        sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !condition() {
            wake::sleep(deadline_us);
        }
        sleeping.store(false, Ordering::SeqCst);
        ending::stop_if_ending();
    }
    true
}

/// Makes `core` check its condition.
pub fn wake(core: usize) {
    // The caller's write is visible before the core can be found awake. `wait_until` has its stores
    // and loads in the reverse order.
    fence(Ordering::SeqCst);
    if SLEEPING[core].load(Ordering::SeqCst) {
        wake::wake(core);
    }
}
