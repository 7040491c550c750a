//! Where each core's stacks lie.
//!
//! From low to high addresses each core has a guard page, its exception stack, a guard page, its
//! stack. Nothing is mapped at a guard page, so that an overflow of either stack is a fault.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::mmu::PAGE_SIZE;

/// Bytes of each core's stack.
pub const STACK_SIZE: u64 = 256 << 10;
/// Bytes of each core's stack for exceptions.
pub const EXCEPTION_STACK_SIZE: u64 = 16 << 10;

const GUARD_SIZE: u64 = PAGE_SIZE;
const STRIDE: u64 = GUARD_SIZE + EXCEPTION_STACK_SIZE + GUARD_SIZE + STACK_SIZE;

/// The memory of all cores' stacks.
#[derive(Clone, Copy, Debug)]
pub struct Stacks {
    base: u64,
    cores: usize,
}

impl Stacks {
    /// Bytes that the stacks of `cores` cores take.
    pub const fn size(cores: usize) -> u64 {
        cores as u64 * STRIDE
    }

    /// The stacks of `cores` cores from the address `base`.
    pub const fn new(base: u64, cores: usize) -> Self {
        Stacks { base, cores }
    }

    /// How many cores have stacks here.
    pub const fn cores(self) -> usize {
        self.cores
    }

    /// All of it, guard pages included.
    pub fn whole(self) -> Range<u64> {
        self.base..self.base + Self::size(self.cores)
    }

    /// All guard pages.
    pub fn guard_pages(self) -> impl Iterator<Item = Range<u64>> {
        (0..self.cores).flat_map(move |core| {
            [self.exception_stack(core), self.stack(core)]
                .map(|stack| stack.start - GUARD_SIZE..stack.start)
        })
    }

    /// The stack of `core`.
    pub fn stack(self, core: usize) -> Range<u64> {
        let end = self.base + (core as u64 + 1) * STRIDE;
        end - STACK_SIZE..end
    }

    /// The stack on which `core` handles exceptions.
    pub fn exception_stack(self, core: usize) -> Range<u64> {
        let end = self.stack(core).start - GUARD_SIZE;
        end - EXCEPTION_STACK_SIZE..end
    }

    /// The core one of whose guard pages holds `address`.
    pub fn guarded_core(self, address: u64) -> Option<usize> {
        // Each core has two.
        self.guard_pages().position(|page| page.contains(&address)).map(|page| page / 2)
    }
}

#[cfg(target_os = "none")]
pub use of_this_machine::*;

#[cfg(target_os = "none")]
mod of_this_machine {
    use core::ops::Range;

    use spin::Once;

    use super::Stacks;
    use crate::runtime::arch::handover::Handover;
    use crate::runtime::arch::this_core;
    use crate::runtime::mem::early;

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_parts_lie_one_after_another_and_fill_the_memory() {
        let stacks = Stacks::new(0x4000_0000, 3);
        let guards: Vec<_> = stacks.guard_pages().collect();
        let mut at = 0x4000_0000;
        for core in 0..3 {
            for (guard, stack, size) in [
                (&guards[2 * core], stacks.exception_stack(core), EXCEPTION_STACK_SIZE),
                (&guards[2 * core + 1], stacks.stack(core), STACK_SIZE),
            ] {
                assert_eq!(*guard, at..at + PAGE_SIZE);
                assert_eq!(stack, at + PAGE_SIZE..at + PAGE_SIZE + size);
                at = stack.end;
            }
        }
        assert_eq!(at - 0x4000_0000, Stacks::size(3));
        assert_eq!(guards.len(), 6);
    }

    #[test]
    fn a_guard_page_is_known_by_its_core() {
        let stacks = Stacks::new(0x4000_0000, 3);
        for core in 0..3 {
            assert_eq!(stacks.guarded_core(stacks.stack(core).start - 1), Some(core));
            assert_eq!(stacks.guarded_core(stacks.stack(core).start), None);
            assert_eq!(stacks.guarded_core(stacks.exception_stack(core).start - 4096), Some(core));
            assert_eq!(stacks.guarded_core(stacks.exception_stack(core).start - 4097), None);
        }
        assert_eq!(stacks.guarded_core(0x4000_0000 + Stacks::size(3)), None);
        assert_eq!(stacks.guarded_core(7), None);
    }
}
