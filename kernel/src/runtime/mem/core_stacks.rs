//! The stacks of this machine's cores.
#![forbid(unsafe_code)]

use core::ops::Range;

use spin::Once;

use super::early;
use super::stacks::Stacks;
use crate::runtime::arch::handover::Handover;
use crate::runtime::arch::this_core;

static STACKS: Once<Stacks> = Once::new();

/// Sets the memory of the stacks.
pub fn set(stacks: Stacks) {
    STACKS.call_once(|| stacks);
}

/// Finds the core with `address` in one of its guard pages.
pub fn guarded_core(address: u64) -> Option<usize> {
    STACKS.get()?.guarded_core(address)
}

/// Whether `range` lies on one of the calling core's stacks.
pub fn is_on_mine(range: Range<u64>) -> bool {
    let within = |stack: Range<u64>| stack.start <= range.start && range.end <= stack.end;
    let core = this_core::current();
    match STACKS.get() {
        Some(stacks) => within(stacks.stack(core)) || within(stacks.exception_stack(core)),
        None => within(early::stacks()),
    }
}

/// The handover for the start of a core; `None` without stacks for the core.
pub fn handover(core: usize) -> Option<Handover> {
    let stacks = STACKS.get().filter(|stacks| core < stacks.cores())?;
    Some(Handover {
        exception_stack_top: stacks.exception_stack(core).end,
        stack_top: stacks.stack(core).end,
        core: core as u64,
    })
}
