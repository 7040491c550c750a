//! Waiting without work for the processor.
//!
//! Interrupts are never taken: `PSTATE.I` and `F` stay set from the first instruction on, so that no
//! code is ever interrupted and no lock needs to care. They only end a `wfi`, which wakes on a
//! pending interrupt though it is masked; the core then acknowledges by hand what woke it and
//! looks at what it waits for. What may end a sleep besides another core and the deadline is registered
//! in [`wake`]; no device is known here.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, Ordering, fence};

use super::ending;
use crate::runtime::arch::this_core::{self, MAX_CORES};
use crate::runtime::arch::time;
use crate::runtime::dev::wake;

/// How long a core looks at a condition before it sleeps, in µs: about what sleep and wake cost.
const SPIN_US: u64 = 5;

/// Cores that sleep or are about to, so that waking one that does not is free.
static SLEEPING: [AtomicBool; MAX_CORES] = [const { AtomicBool::new(false) }; MAX_CORES];

/// Waits until `condition` holds (true) or the clock reads `deadline_us` (false).
///
/// Whoever makes the condition hold calls [`wake`] after that. The condition may be asked again
/// after it held, and must hold then too.
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

/// Makes `core` look at what it waits for.
pub fn wake(core: usize) {
    // What the caller wrote is seen before the core can be found awake: in `wait_until` the
    // stores and loads are the other way round.
    fence(Ordering::SeqCst);
    if SLEEPING[core].load(Ordering::SeqCst) {
        wake::wake(core);
    }
}
