//! Waiting without work for the processor.
//!
//! Interrupts are never taken: `PSTATE.I` and `F` stay set from the first instruction on, so that no
//! code is ever interrupted and no lock needs to care. They only end a `wfi`, which wakes on a
//! pending interrupt though it is masked; the core then acknowledges by hand what woke it and
//! looks at what it waits for. The sources are the timer (a deadline), a software-generated
//! interrupt (another core changed something) and the console's receiver.
//!
//! Without an interrupt controller that we know, `wfe` naps of the timer's event stream replace it.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use super::cores::{self, MAX_CORES};
use super::irq::InterruptController;
use super::{devices, fault, time};

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
        let sleeping = &SLEEPING[cores::current()];
        sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !condition() {
            sleep(deadline_us);
        }
        sleeping.store(false, Ordering::SeqCst);
        fault::stop_if_ending();
    }
    true
}

/// Makes `core` look at what it waits for.
pub fn wake(core: usize) {
    // What the caller wrote is seen before the core can be found awake: in `wait_until` the
    // stores and loads are the other way round.
    fence(Ordering::SeqCst);
    if SLEEPING[core].load(Ordering::SeqCst) {
        match devices::interrupts() {
            Some(controller) => controller.send_wake(core),
            // SAFETY: wakes cores from `wfe`; touches nothing.
            None => unsafe { asm!("dsb ish", "sev", options(nostack)) },
        }
    }
}

/// Sleeps until something may have happened.
fn sleep(deadline_us: Option<u64>) {
    let Some(controller) = devices::interrupts() else {
        // SAFETY: waits; the event stream ends it after a fraction of a millisecond at most.
        unsafe { asm!("wfe", options(nomem, nostack)) };
        return;
    };
    if let Some(deadline) = deadline_us {
        time::set_alarm(deadline);
    }
    // SAFETY: waits; touches nothing. The barrier lets earlier writes to devices take effect.
    unsafe { asm!("dsb sy", "wfi", options(nostack)) };
    if deadline_us.is_some() {
        time::cancel_alarm();
    }
    controller.acknowledge();
}
