//! Texts numbered in order, and a hash table from texts to numbers.
//!
//! All texts lie in one vector of bytes; a hash table of numbers finds them. A vocabulary of
//! 150,000 tokens makes four allocations, not 150,000.

use alloc::vec::Vec;

use super::slots::{Crowded, Slots, mix};
use super::step_count::step;
use crate::llm::{Error, with_capacity};

/// The name of the memory in errors.
const VOCABULARY: &str = "the vocabulary";

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
    slots: Slots,
}

/// Why a text was not added.
#[derive(Debug)]
pub enum NotAdded {
    /// The text exists already, with this number.
    Twin(u32),
    /// The hash table has no slot for the text.
    Crowded(Crowded),
    /// There is no memory, or no number for the text.
    Error(Error),
}

impl NotAdded {
    /// The error for the text that stands at this byte of the file, for want of room.
    fn at(self, at: u64) -> Result<u32, Error> {
        match self {
            NotAdded::Twin(number) => Ok(number),
            NotAdded::Crowded(crowded) => Err(crowded.at(at)),
            NotAdded::Error(error) => Err(error),
        }
    }
}

impl Texts {
    /// No texts, with room for `n` texts of `n_bytes` together.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn with_capacity(n: usize, n_bytes: usize) -> Result<Self, Error> {
        Ok(Texts {
            bytes: with_capacity(n_bytes, VOCABULARY)?,
            ends: with_capacity(n, VOCABULARY)?,
            slots: Slots::with_room_for(n, VOCABULARY)?,
        })
    }

    /// Adds a text.
    ///
    /// # Errors
    /// [`NotAdded::Twin`] if it is there already; no text is the twin of an empty one.
    pub fn push(&mut self, text: &[u8]) -> Result<u32, NotAdded> {
        let (number, end) = self.make_room(text)?;
        if !text.is_empty() {
            if let Some(twin) = self.find(text) {
                return Err(NotAdded::Twin(twin));
            }
            self.slots.insert(hash_of(text), number).map_err(NotAdded::Crowded)?;
        }
        self.bytes.extend_from_slice(text);
        self.ends.push(end);
        Ok(number)
    }

    /// The number of a text, which is added if it is new.
    ///
    /// The text is at byte `at` of the file.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::ParseError`] if too many texts hash to the same place.
    pub fn number(&mut self, text: &[u8], at: u64) -> Result<u32, Error> {
        self.push(text).or_else(|not_added| not_added.at(at))
    }

    /// Gives the number that the text will have, and where it will end.
    fn make_room(&mut self, text: &[u8]) -> Result<(u32, u32), NotAdded> {
        let total = self.bytes.len().saturating_add(text.len());
        let number = i32::try_from(self.ends.len()).map(i32::unsigned_abs);
        let (Ok(number), Ok(end)) = (number, u32::try_from(total)) else {
            let error = Error::OutOfMemory { what: VOCABULARY, asked: total as u64 };
            return Err(NotAdded::Error(error));
        };
        try_reserve(&mut self.bytes, text.len(), VOCABULARY).map_err(NotAdded::Error)?;
        try_reserve(&mut self.ends, 1, VOCABULARY).map_err(NotAdded::Error)?;
        let n = self.ends.len().saturating_add(1);
        if !self.slots.has_room_for(n) {
            let mut wider =
                Slots::with_room_for(n.saturating_mul(2), VOCABULARY).map_err(NotAdded::Error)?;
            for number in 0..number {
                let text = self.get(number);
                if !text.is_empty() {
                    wider.insert(hash_of(text), number).map_err(NotAdded::Crowded)?;
                }
            }
            self.slots = wider;
        }
        Ok((number, end))
    }

    /// The text of a number.
    ///
    /// # Panics
    /// The text does not exist.
    pub fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |previous| self.ends[previous]);
        &self.bytes[start as usize..self.ends[number] as usize]
    }

    /// The number of a text.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        step(text.len() / 8);
        self.slots.find(hash_of(text), |number| self.get(number) == text)
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let ends = self.ends.capacity().saturating_mul(size_of::<u32>());
        self.bytes.capacity().saturating_add(ends).saturating_add(self.slots.memory_bytes())
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::super::slots::unmix;
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
            let found = texts.slots.find(hash_of(&text), |other| {
                tries.set(tries.get() + 1);
                other == u32::from(number)
            });
            assert_eq!(found, Some(number.into()));
            tries.get()
        });
        assert!(longest.max() < Some(100));
    }

    #[test]
    fn texts_that_are_made_to_crowd_are_refused() {
        let mut texts = Texts::with_capacity(0, 0).unwrap();
        let crowding = (0..u64::MAX).map(|i| unmix(i) ^ mix(8));
        let pushed = crowding.map(|word| texts.push(&word.to_le_bytes()));
        let stopped = pushed.enumerate().find(|(_, pushed)| pushed.is_err()).unwrap();
        assert!(matches!(stopped, (1000..=1100, Err(NotAdded::Crowded(_)))), "{stopped:?}");
    }
}
