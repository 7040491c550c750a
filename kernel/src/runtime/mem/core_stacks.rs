//! The stacks of this machine's cores.
#![forbid(unsafe_code)]

use core::ops::Range;

use spin::Once;

use super::early;
use super::stacks::Stacks;
use crate::runtime::arch::handover::Handover;
use crate::runtime::arch::this_core;

static STACKS: Once<Stacks> = Once::new();

/// Says where the stacks are.
pub fn set(stacks: Stacks) {
    STACKS.call_once(|| stacks);
}

/// The core one of whose guard pages holds `address`.
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

/// What the core is given when it starts; `None` if there are no stacks for it.
pub fn handover(core: usize) -> Option<Handover> {
    let stacks = STACKS.get().filter(|stacks| core < stacks.cores())?;
    Some(Handover {
        exception_stack_top: stacks.exception_stack(core).end,
        stack_top: stacks.stack(core).end,
        core: core as u64,
    })
}
