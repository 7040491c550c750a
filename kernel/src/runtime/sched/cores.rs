//! Which cores are up, and which processors they are.
//!
//! The boot core is number 0; the others follow in the order of the device tree.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::cpu::Midr;
use crate::runtime::arch::this_core::{self, MAX_CORES};

/// What each core is doing: [`OFF`], [`UP`] or [`LEFT_OUT`].
static STATES: [AtomicU32; MAX_CORES] = [const { AtomicU32::new(OFF) }; MAX_CORES];
const OFF: u32 = 0;
const UP: u32 = 1;
const LEFT_OUT: u32 = 2;

/// Which processor each core is that has started.
static MIDRS: [AtomicU64; MAX_CORES] = [const { AtomicU64::new(0) }; MAX_CORES];

/// Cores numbered so far that are up: the boot core is.
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// Cores that are up.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// Whether `core` is up.
pub fn is_up(core: usize) -> bool {
    core == 0 || STATES.get(core).is_some_and(|state| state.load(Ordering::Acquire) == UP)
}

/// Which processors the cores are that are up, in the order of their numbers.
pub fn midrs() -> impl Iterator<Item = Midr> {
    let up = (0..MAX_CORES).filter(|&core| is_up(core));
    up.map(|core| Midr(MIDRS[core].load(Ordering::Relaxed)))
}

/// Notes which processor the calling core is.
pub fn note_processor() {
    MIDRS[this_core::current()].store(Midr::of_this_core().0, Ordering::Relaxed);
}

/// Notes that `core` is up. False if it has been left out, as it came too late.
pub fn come_up(core: usize) -> bool {
    settle(core, UP)
}

/// Leaves `core` out for good. False if it has come up, or been left out, before.
pub fn leave_out(core: usize) -> bool {
    settle(core, LEFT_OUT)
}

fn settle(core: usize, state: u32) -> bool {
    STATES[core].compare_exchange(OFF, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Whether `core` has come up or been left out.
pub fn is_settled(core: usize) -> bool {
    STATES[core].load(Ordering::Acquire) != OFF
}

/// Counts the cores that are up, once all have been started.
pub fn count_up() {
    let up = (1..MAX_CORES).filter(|&core| is_up(core)).count();
    COUNT.store(1 + up, Ordering::Relaxed);
}
