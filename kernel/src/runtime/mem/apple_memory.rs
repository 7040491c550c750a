//! Memory of Apple's chips that the tree gives and that is better left alone.
//!
//! 1. What lies below m1n1's own end. The chip guards the memory from its start to the program that
//!    iBoot loaded (CTRR). A large block over the border of that region gives address size faults
//!    (m1n1, src/memory.c, commits da9cedde and 481f6622). m1n1 maps all below itself by pages. Where
//!    m1n1 is, the words of the spin table tell: they are variables of its.
//! 2. The last page of each entry of the tree. Reading the last bytes of the memory gave SErrors on a
//!    MacBook Pro (m1n1, issue 97).
#![forbid(unsafe_code)]

use super::mmu::PAGE_SIZE;
use super::ranges::Ranges;
use crate::runtime::machine::{Chip, EnableMethod, Machine};

/// Bytes of a page of iBoot's and m1n1's.
const LARGE_PAGE_SIZE: u64 = 16 << 10;

/// Takes it out of the free memory; returns how many bytes that are, 0 on any other chip.
pub fn leave_out(machine: &Machine<'_>, free: &mut Ranges) -> u64 {
    if machine.chip != Chip::Apple {
        return 0;
    }
    let before = free.bytes();
    if let Some(end) = m1n1_end(machine) {
        free.remove(0..end, PAGE_SIZE);
    }
    for region in &machine.memory {
        let end = region.range().end;
        free.remove(end.saturating_sub(LARGE_PAGE_SIZE)..end, PAGE_SIZE);
    }
    before - free.bytes()
}

/// The end of what m1n1 has reserved for itself: where the spin table's words are.
pub fn m1n1_end(machine: &Machine<'_>) -> Option<u64> {
    let words = machine.cpus.iter().filter_map(|cpu| match cpu.enable_method {
        EnableMethod::SpinTable { release_addr } if release_addr != 0 => Some(release_addr),
        _ => None,
    });
    let holders = words.filter_map(|word| {
        machine.reserved.iter().map(|region| region.range()).find(|range| range.contains(&word))
    });
    holders.map(|range| range.end).max()
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::runtime::machine::Region;

    const APPLE_M1: &[u8] = include_bytes!("../machine/testdata/apple-m1.dtb");

    /// All memory, and what is left of it.
    fn ranges(machine: &Machine<'_>) -> (u64, Vec<core::ops::Range<u64>>) {
        let mut free = Ranges::new();
        for region in &machine.memory {
            free.add(region.range(), PAGE_SIZE);
        }
        let left_out = leave_out(machine, &mut free);
        (left_out, free.iter().collect())
    }

    #[test]
    fn what_is_below_m1n1_and_the_last_pages_are_left_out() {
        let mut machine = Machine::from_fdt(APPLE_M1).unwrap();
        let end = 0x8_0713_c000;
        assert_eq!(m1n1_end(&machine), Some(end));
        // The second entry, of one page, and the third follow the first: the pages are of each.
        let expected = [end..0xb_d949_0000, 0xb_d949_8000..0xb_d94b_4000];
        let left_out = (end - 0x8_01f4_4000) + 2 * LARGE_PAGE_SIZE + LARGE_PAGE_SIZE;
        assert_eq!(ranges(&machine), (left_out, expected.to_vec()));
        // An entry that is smaller than a page is left out whole. What is before it is the last of
        // another entry.
        machine.memory.clear();
        machine.memory.push(Region { base: 0x9_0000_0000, size: 0x10_0000 });
        machine.memory.push(Region { base: 0x9_0010_0000, size: 0x1000 });
        let rest = 0x9_0000_0000..0x9_000f_c000;
        assert_eq!(ranges(&machine).1, [rest]);
    }

    #[test]
    fn without_a_spin_table_in_what_is_reserved_only_the_last_pages_are() {
        let mut machine = Machine::from_fdt(APPLE_M1).unwrap();
        machine.memory.truncate(1);
        let all = machine.memory[0].range();
        let but_the_last = all.start..all.end - LARGE_PAGE_SIZE;
        machine.reserved.retain(|region| region.base != 0x8_06f9_4000);
        assert_eq!(m1n1_end(&machine), None);
        assert_eq!(ranges(&machine), (LARGE_PAGE_SIZE, [but_the_last].to_vec()));
        machine.chip = Chip::Other;
        assert_eq!(ranges(&machine), (0, [all].to_vec()));
    }
}
