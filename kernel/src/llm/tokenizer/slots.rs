//! A hash table of numbers, with bounded search lengths.
//!
//! The keys come from an untrusted file, which can be crafted so that all keys hash to one place.
//! So a number lies at most [`MAX_WAY`] slots behind its place. A number without a free slot there
//! is an error. In other files, ways of a few hundred slots practically never occur. At most two of
//! three slots are taken, and the probability falls by a factor of e for each 14 slots (Knuth, The
//! Art of Computer Programming 3, 6.4, linear probing).

use alloc::vec::Vec;

use crate::llm::{Error, with_capacity};

/// No number: a free slot.
const FREE: u32 = u32::MAX;

/// The most slots from the place of a number to where it lies.
const MAX_WAY: usize = 1023;

/// No slot is free near a number's place, because keys were crafted to collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

impl Crowded {
    /// The error for what stands at this byte of the file.
    pub fn at(self, at: u64) -> Error {
        let what = "the vocabulary's texts are made so that looking them up takes long".into();
        Error::ParseError { what, at }
    }
}

/// The table.
#[derive(Debug)]
pub struct Slots {
    /// The slots; their number is a power of two.
    slots: Vec<u32>,
    /// The longest way from a number's place to its slot, in slots.
    ///
    /// A search need not go further, however many slots are taken.
    longest_way: usize,
}

impl Slots {
    /// A table for `n` numbers under `n`: at most two of three slots will be taken.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn with_room_for(n: usize, what: &'static str) -> Result<Self, Error> {
        let len = n.saturating_add(n / 2).saturating_add(1).checked_next_power_of_two();
        let Some(len) = len else {
            return Err(Error::OutOfMemory { what, asked: u64::MAX });
        };
        let mut slots = with_capacity(len, what)?;
        slots.resize(len, FREE);
        Ok(Slots { slots, longest_way: 0 })
    }

    /// Whether there is room for `n` numbers: at least 1.5 slots each.
    pub fn has_room_for(&self, n: usize) -> bool {
        n.saturating_mul(3) <= self.slots.len().saturating_mul(2)
    }

    /// Finds the number for which `is_it` holds. The upper half of `hash` must be well mixed.
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        for at in self.way(hash).take(self.longest_way.saturating_add(1)) {
            match self.slots[at] {
                FREE => return None,
                number if is_it(number) => return Some(number),
                _ => {}
            }
        }
        None
    }

    /// Adds a number, which must be new.
    ///
    /// # Errors
    /// [`Crowded`].
    pub fn insert(&mut self, hash: u64, number: u32) -> Result<(), Crowded> {
        let is_free = |&(_, at): &(usize, usize)| self.slots[at] == FREE;
        let (length, at) = self.way(hash).enumerate().find(is_free).ok_or(Crowded)?;
        self.slots[at] = number;
        self.longest_way = self.longest_way.max(length);
        Ok(())
    }

    /// The slots in the order in which they are tried, wrapping around the end.
    fn way(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len().saturating_sub(1);
        let place = (hash >> 32) as usize & mask;
        (0..=MAX_WAY).map(move |length| place.wrapping_add(length) & mask)
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.slots.capacity().saturating_mul(size_of::<u32>())
    }
}

/// Mixes a number, so that the upper half of the result depends on all of it.
pub fn mix(hash: u64) -> u64 {
    // Odd, and without a pattern in its bits: 2^64 divided by the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let hash = hash.wrapping_mul(FACTOR);
    (hash ^ hash >> 32).wrapping_mul(FACTOR)
}

/// The inverse of [`mix`], for tests of collisions.
#[cfg(test)]
pub fn unmix(hash: u64) -> u64 {
    // The inverse of the factor modulo 2^64.
    const INVERSE: u64 = 0xf1de_83e1_9937_733d;
    let hash = hash.wrapping_mul(INVERSE);
    (hash ^ hash >> 32).wrapping_mul(INVERSE)
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    #[test]
    fn numbers_that_crowd_are_refused_and_the_others_found_within_bounds() {
        let mut slots = Slots::with_room_for(10_007, "the test").unwrap();
        assert!(slots.has_room_for(10_007));
        // All of one hash.
        for number in 0..=MAX_WAY as u32 {
            assert_eq!(slots.insert(7 << 32, number), Ok(()));
        }
        assert_eq!(slots.insert(7 << 32, 9999), Err(Crowded));
        for number in 0..=MAX_WAY as u32 {
            assert_eq!(slots.find(7 << 32, |it| it == number), Some(number));
        }
        assert_eq!(slots.find(7 << 32, |_| false), None);
    }

    #[test]
    fn a_search_goes_no_further_than_the_longest_way() {
        // Two of three slots are taken, each by the number that belongs there. A search for a
        // missing number must not walk along all of them.
        let mut slots = Slots::with_room_for(10_007, "the test").unwrap();
        for number in 0..10_007 {
            assert_eq!(slots.insert(u64::from(number) << 32, number), Ok(()));
        }
        let tries = Cell::new(0);
        let found = slots.find(0, |_| {
            tries.set(tries.get() + 1);
            false
        });
        assert_eq!((found, tries.get()), (None, 1));
    }

    #[test]
    fn ways_go_around_the_end() {
        let mut slots = Slots::with_room_for(2, "the test").unwrap();
        for number in [5, 6] {
            assert_eq!(slots.insert(u64::MAX, number), Ok(()));
        }
        assert_eq!(slots.find(u64::MAX, |it| it == 6), Some(6));
        let mut full = Slots::with_room_for(0, "the test").unwrap();
        assert_eq!(full.find(3, |_| true), None);
        assert_eq!((full.insert(3, 1), full.insert(3, 2)), (Ok(()), Err(Crowded)));
    }

    #[test]
    fn mixing_can_be_undone() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(mix(unmix(number)), number);
        }
    }
}
