//! The names of functions, for backtraces.
//!
//! `image-builder kernel` puts the names into the image; its `symbols.rs` describes the table.
#![forbid(unsafe_code)]

/// A table of functions.
#[derive(Clone, Copy, Debug)]
pub struct Symbols<'a> {
    n: usize,
    /// `n + 1` pairs: offset of the function in the image, offset of its name.
    entries: &'a [u8],
    names: &'a [u8],
}

impl<'a> Symbols<'a> {
    /// Parses the table in `bytes`; `None` if there is none, or if it is truncated.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (n, rest) = bytes.split_first_chunk::<4>()?;
        let n = u32::from_le_bytes(*n) as usize;
        let (entries, names) = rest.split_at_checked(n.checked_add(1)?.checked_mul(8)?)?;
        Some(Symbols { n, entries, names })
    }

    /// Finds the function that holds the byte `offset` of the image.
    /// The second result is the distance from the start of the function.
    pub fn find(&self, offset: u32) -> Option<(&'a str, u32)> {
        let (mut low, mut high) = (0, self.n + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.0 <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // The last entry is no function, but marks the end of the functions.
        let index = low.checked_sub(1).filter(|index| *index < self.n)?;
        let (start, name) = self.entry(index)?;
        let (_, name_end) = self.entry(index + 1)?;
        let name = self.names.get(name as usize..name_end as usize)?;
        Some((str::from_utf8(name).ok()?, offset - start))
    }

    fn entry(&self, index: usize) -> Option<(u32, u32)> {
        let (start, rest) = self.entries.get(8 * index..)?.split_first_chunk::<4>()?;
        let name = rest.first_chunk::<4>()?;
        Some((u32::from_le_bytes(*start), u32::from_le_bytes(*name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn table(functions: &[(u32, &str)], end: u32) -> Vec<u8> {
        let mut bytes = (functions.len() as u32).to_le_bytes().to_vec();
        let mut name_at = 0u32;
        for (start, name) in functions.iter().chain(&[(end, "")]) {
            bytes.extend(start.to_le_bytes());
            bytes.extend(name_at.to_le_bytes());
            name_at += name.len() as u32;
        }
        bytes.extend(functions.iter().flat_map(|(_, name)| name.bytes()));
        bytes
    }

    #[test]
    fn an_address_is_in_the_function_that_starts_before_it() {
        let bytes = table(&[(64, "a"), (100, "kernel::b"), (1000, "ü")], 1007);
        let symbols = Symbols::parse(&bytes).unwrap();
        assert_eq!(symbols.find(63), None);
        assert_eq!(symbols.find(64), Some(("a", 0)));
        assert_eq!(symbols.find(99), Some(("a", 35)));
        assert_eq!(symbols.find(100), Some(("kernel::b", 0)));
        assert_eq!(symbols.find(999), Some(("kernel::b", 899)));
        assert_eq!(symbols.find(1006), Some(("ü", 6)));
        assert_eq!(symbols.find(1007), None);
        assert_eq!(symbols.find(u32::MAX), None);
    }

    #[test]
    fn a_damaged_table_names_nothing() {
        let bytes = table(&[(64, "a"), (100, "b")], 200);
        assert!(Symbols::parse(&[]).is_none());
        let empty = table(&[], 0);
        assert_eq!(Symbols::parse(&empty).unwrap().find(7), None);
        for len in 0..bytes.len() {
            if let Some(symbols) = Symbols::parse(&bytes[..len]) {
                assert_eq!(symbols.find(101), None, "{len}");
            }
        }
        let mut huge = bytes.clone();
        huge[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Symbols::parse(&huge).is_none());
        let mut reversed = bytes;
        reversed[4 + 8 + 4] = 7;
        assert_eq!(Symbols::parse(&reversed).unwrap().find(101), None);
    }
}
