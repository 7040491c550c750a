//! Texts numbered in the order in which they come, and the way from a text to its number.
//!
//! All texts lie in one vector of bytes; a hash table of numbers finds them. A vocabulary of
//! 150,000 tokens makes four allocations, not 150,000.

use alloc::vec::Vec;

use crate::llm::{Error, with_capacity};

/// No text: a free slot of the table.
const FREE: u32 = u32::MAX;

/// Makes room for `n` more elements.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn try_reserve<T>(vec: &mut Vec<T>, n: usize, what: &'static str) -> Result<(), Error> {
    vec.try_reserve(n).map_err(|_| {
        let asked = vec.len().saturating_add(n).saturating_mul(size_of::<T>());
        Error::OutOfMemory { what, asked: asked as u64 }
    })
}

/// A table of slots for numbers under `n`, all free: at most two of three will be taken.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn slots(n: usize, what: &'static str) -> Result<Vec<u32>, Error> {
    let len = (n + n / 2 + 1).next_power_of_two();
    let mut slots = with_capacity(len, what)?;
    slots.resize(len, FREE);
    Ok(slots)
}

/// The place of the number that `is_it`, or of the free slot where it belongs. `hash` is mixed
/// well in its upper half.
pub fn place(slots: &[u32], hash: u64, is_it: impl Fn(u32) -> bool) -> Result<u32, usize> {
    let mask = slots.len() - 1;
    let mut at = (hash >> 32) as usize & mask;
    loop {
        match slots[at] {
            FREE => return Err(at),
            number if is_it(number) => return Ok(number),
            _ => at = (at + 1) & mask,
        }
    }
}

/// Mixes a number, so that the upper half of the result depends on all of it.
pub fn mix(hash: u64) -> u64 {
    // Odd, and without a pattern in its bits: 2^64 divided by the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let hash = hash.wrapping_mul(FACTOR);
    (hash ^ hash >> 32).wrapping_mul(FACTOR)
}

fn hash_of(text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let rest = rest.iter().fold(text.len() as u64, |word, &byte| word << 8 | u64::from(byte));
    words.iter().fold(mix(rest), |hash, word| mix(hash ^ u64::from_le_bytes(*word)))
}

/// The texts.
#[derive(Debug)]
pub struct Texts {
    /// One after the other.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
    /// Numbers by the hashes of their texts; empty texts are missing.
    slots: Vec<u32>,
}

/// Why a text was not added.
#[derive(Debug)]
pub enum NotAdded {
    /// There is one already, of this number.
    Twin(u32),
    /// There is no memory, or no number for it.
    Error(Error),
}

impl Texts {
    /// None yet, but room for `n` texts of `n_bytes` together.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn with_capacity(n: usize, n_bytes: usize) -> Result<Self, Error> {
        let what = "the vocabulary";
        Ok(Texts {
            bytes: with_capacity(n_bytes, what)?,
            ends: with_capacity(n, what)?,
            slots: slots(n, what)?,
        })
    }

    /// Adds a text.
    ///
    /// # Errors
    /// [`NotAdded::Twin`] if it is there already; no text is the twin of an empty one.
    pub fn push(&mut self, text: &[u8]) -> Result<u32, NotAdded> {
        self.make_room(text).map_err(NotAdded::Error)?;
        let number = self.ends.len() as u32;
        if !text.is_empty() {
            let free = match self.place(text) {
                Ok(twin) => return Err(NotAdded::Twin(twin)),
                Err(free) => free,
            };
            self.slots[free] = number;
        }
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u32);
        Ok(number)
    }

    /// The number of a text, which is added if it is new.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn number(&mut self, text: &[u8]) -> Result<u32, Error> {
        match self.push(text) {
            Ok(number) | Err(NotAdded::Twin(number)) => Ok(number),
            Err(NotAdded::Error(error)) => Err(error),
        }
    }

    fn make_room(&mut self, text: &[u8]) -> Result<(), Error> {
        let what = "the vocabulary";
        let total = self.bytes.len() + text.len();
        if u32::try_from(total).is_err() || self.ends.len() >= i32::MAX as usize {
            return Err(Error::OutOfMemory { what, asked: total as u64 });
        }
        try_reserve(&mut self.bytes, text.len(), what)?;
        try_reserve(&mut self.ends, 1, what)?;
        let n = self.ends.len() + 1;
        if n > self.slots.len() / 3 * 2 {
            let mut wider = slots(2 * n, what)?;
            for number in 0..self.ends.len() as u32 {
                let text = self.get(number);
                // Each text is there once, so a free slot is found.
                if let (false, Err(free)) =
                    (text.is_empty(), place(&wider, hash_of(text), |_| false))
                {
                    wider[free] = number;
                }
            }
            self.slots = wider;
        }
        Ok(())
    }

    fn place(&self, text: &[u8]) -> Result<u32, usize> {
        place(&self.slots, hash_of(text), |number| self.get(number) == text)
    }

    /// The text of a number.
    ///
    /// # Panics
    /// There is no such text.
    pub fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |previous| self.ends[previous]);
        &self.bytes[start as usize..self.ends[number] as usize]
    }

    /// The number of a text.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        self.place(text).ok()
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + 4 * (self.ends.capacity() + self.slots.capacity())
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn texts_are_found_while_the_table_grows() {
        let mut texts = Texts::with_capacity(0, 0).unwrap();
        for i in 0..10_007u32 {
            let text = format!("{}", i * 7919);
            assert_eq!(texts.find(text.as_bytes()), None, "{text}");
            assert_eq!(texts.push(text.as_bytes()).unwrap(), i);
        }
        for i in 0..10_007u32 {
            let text = format!("{}", i * 7919);
            assert_eq!(texts.find(text.as_bytes()), Some(i));
            assert_eq!(texts.get(i), text.as_bytes());
            assert!(matches!(texts.push(text.as_bytes()), Err(NotAdded::Twin(twin)) if twin == i));
        }
        assert_eq!(texts.ends.len(), 10_007);
    }

    #[test]
    fn similar_texts_do_not_crowd() {
        // 2^16 texts of two bytes: the longest way to one is a few slots, not thousands.
        let mut texts = Texts::with_capacity(1 << 16, 1 << 17).unwrap();
        for number in 0..=u16::MAX {
            texts.push(&number.to_be_bytes()).unwrap();
        }
        let longest = (0..=u16::MAX).map(|number| {
            let text = number.to_be_bytes();
            let tries = core::cell::Cell::new(0);
            let found = place(&texts.slots, hash_of(&text), |other| {
                tries.set(tries.get() + 1);
                other == u32::from(number)
            });
            assert_eq!(found, Ok(number.into()));
            tries.get()
        });
        assert!(longest.max() < Some(100));
    }
}
