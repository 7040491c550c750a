//! The tables of an identity map: mapping, splitting, protection.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use super::descriptor::{
    ADDRESS, Access, BLOCK_LEVEL, LARGEST_BLOCK, PAGE_LEVEL, PAGE_SIZE, READ_ONLY, TABLE_OR_PAGE,
    VALID, index, is_table, size,
};

/// The reason why a range cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// All tables are in use.
    NoTableLeft {
        /// The address that needs another table.
        address: u64,
    },
    /// The memory is no data, or shares its descriptor with memory beside the range.
    Indivisible {
        /// The first address of that memory.
        address: u64,
    },
    /// The range is reversed, not on page boundaries, or above 48 bits.
    BadRange {
        /// First byte of the range.
        start: u64,
        /// First byte after the range.
        end: u64,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapError::NoTableLeft { address } => {
                write!(f, "no page table left for address {address:#x}")
            }
            MapError::Indivisible { address } => {
                write!(f, "the map of the memory at {address:#x} cannot be changed")
            }
            MapError::BadRange { start, end } => {
                write!(f, "the range {start:#x}..{end:#x} cannot be mapped")
            }
        }
    }
}

impl core::error::Error for MapError {}

/// One table: 512 descriptors, atomic because processors may be reading them.
#[repr(C, align(4096))]
pub struct Table([AtomicU64; 512]);

impl Table {
    /// A table that maps nothing.
    pub const fn empty() -> Table {
        Table([const { AtomicU64::new(0) }; 512])
    }

    fn fill(&self, descriptor: impl Fn(u64) -> u64) {
        for (entry, i) in self.0.iter().zip(0..) {
            entry.store(descriptor(i), Ordering::Relaxed);
        }
    }
}

/// An identity map.
///
/// Large ranges should be mapped first: a table that a block replaces is not used again.
pub struct Tables<'a> {
    /// The tables from the start and the later tables, with their physical addresses.
    ///
    /// The tables are numbered through.
    pools: [(&'a [Table], u64); 2],
    used: usize,
}

impl<'a> Tables<'a> {
    /// An empty map of the tables in `pool`, whose physical address is `address`.
    ///
    /// # Errors
    /// The pool is empty.
    pub fn new(pool: &'a [Table], address: u64) -> Result<Self, MapError> {
        let root = pool.first().ok_or(MapError::NoTableLeft { address: 0 })?;
        root.fill(|_| 0);
        Ok(Tables { pools: [(pool, address), (&[], 0)], used: 1 })
    }

    /// Adds the tables in `pool`, whose physical address is `address`.
    ///
    /// The tables serve what is mapped from now on. Only one such call is possible.
    pub fn extend(&mut self, pool: &'a [Table], address: u64) {
        self.pools[1] = (pool, address);
    }

    /// Physical address of the root table.
    pub fn root(&self) -> u64 {
        self.pools[0].1
    }

    /// Number of tables that are not in use.
    pub fn left(&self) -> usize {
        self.pools.iter().map(|(pool, _)| pool.len()).sum::<usize>() - self.used
    }

    /// The table of this number, if there is one, and its physical address.
    fn table(&self, mut number: usize) -> Option<(&'a Table, u64)> {
        for (pool, address) in self.pools {
            if let Some(table) = pool.get(number) {
                return Some((table, address + (number * size_of::<Table>()) as u64));
            }
            number -= pool.len();
        }
        None
    }

    /// Maps the range, whatever was mapped there before.
    ///
    /// # Errors
    /// The range is no range of pages, or no table is left. Part of the range may be mapped then.
    pub fn map(&mut self, range: Range<u64>, access: Access) -> Result<(), MapError> {
        self.set(range, access.bits(), LARGEST_BLOCK)
    }

    /// Maps the ranges as data, in the smallest units for which the tables suffice.
    ///
    /// `spare` tables are left. The units are pages, blocks of [`BLOCK_SIZE`](super::BLOCK_SIZE),
    /// or larger blocks. Memory that is mapped in pages can be changed page by page.
    /// [`Tables::split`] needs all of a block to be unused.
    ///
    /// # Errors
    /// As for [`Tables::map`].
    pub fn map_data(
        &mut self,
        ranges: impl Iterator<Item = Range<u64>> + Clone,
        spare: usize,
    ) -> Result<(), MapError> {
        let suffice = |unit: &u32| {
            let needed: usize = ranges.clone().map(|range| tables_needed(&range, *unit)).sum();
            needed + spare <= self.left()
        };
        let unit = [PAGE_LEVEL, BLOCK_LEVEL].into_iter().find(suffice).unwrap_or(LARGEST_BLOCK);
        for range in ranges {
            self.set(range, Access::Data.bits(), unit)?;
        }
        Ok(())
    }

    /// Unmaps the range: every access to the range is a fault.
    ///
    /// # Errors
    /// As for [`Tables::map`].
    pub fn unmap(&mut self, range: Range<u64>) -> Result<(), MapError> {
        self.set(range, 0, LARGEST_BLOCK)
    }

    /// Maps the block of data of [`BLOCK_SIZE`] at `block` by pages, if not done yet.
    ///
    /// Nobody may use the memory of the block meanwhile. The block leaves the map, `forget`
    /// invalidates the block in all processors' TLBs, and then the memory is back.
    ///
    /// # Errors
    /// The block does not exist, or is part of a larger one, or no table is left. Nothing has
    /// changed then.
    pub fn split(&mut self, block: u64, forget: impl FnOnce()) -> Result<(), MapError> {
        let (table, index, level) = self.leaf(block);
        if level == PAGE_LEVEL {
            return Ok(());
        }
        let old = self.entry(table, index);
        if level != BLOCK_LEVEL || old != block | Access::Data.bits() {
            return Err(MapError::Indivisible { address: block });
        }
        let pages = self.new_table(old, level, block)?;
        self.put(table, index, 0);
        forget();
        self.put(table, index, pages);
        Ok(())
    }

    /// Makes data read-only or writable.
    ///
    /// Processors may use cached translations of the range until their TLBs are invalidated.
    ///
    /// # Errors
    /// The range is no range of pages, or not all of it is data that is mapped by itself. Nothing
    /// has changed then.
    pub fn set_writable(&mut self, range: Range<u64>, writable: bool) -> Result<(), MapError> {
        self.check_divisible(&range)?;
        let Range { start: mut at, end } = range;
        while at < end {
            let (table, index, level) = self.leaf(at);
            let data = self.entry(table, index) & !READ_ONLY;
            self.put(table, index, if writable { data } else { data | READ_ONLY });
            at += size(level);
        }
        Ok(())
    }

    /// Checks that [`Tables::set_writable`] can change all of the range.
    ///
    /// # Errors
    /// Part of the range cannot be changed, or the range is no range of pages.
    pub fn check_divisible(&self, range: &Range<u64>) -> Result<(), MapError> {
        check(range)?;
        let &Range { start: mut at, end } = range;
        while at < end {
            let (table, index, level) = self.leaf(at);
            let page = if level == PAGE_LEVEL { TABLE_OR_PAGE } else { 0 };
            let is_data = self.entry(table, index) & !READ_ONLY == at | Access::Data.bits() | page;
            if !is_data || end - at < size(level) {
                return Err(MapError::Indivisible { address: at });
            }
            at += size(level);
        }
        Ok(())
    }

    /// Finds the descriptor that decides on `address`: its table, index and level.
    ///
    /// The descriptor maps the address, or says that nothing does.
    fn leaf(&self, address: u64) -> (usize, usize, u32) {
        let (mut table, mut level) = (0, 0);
        loop {
            let index = index(address, level);
            let entry = self.entry(table, index);
            if level == PAGE_LEVEL || !is_table(entry) {
                return (table, index, level);
            }
            table = self.table_at(entry);
            level += 1;
        }
    }

    fn entry(&self, table: usize, index: usize) -> u64 {
        self.descriptor(table, index).load(Ordering::Relaxed)
    }

    fn put(&mut self, table: usize, index: usize, entry: u64) {
        // The table behind the entry is written before.
        self.descriptor(table, index).store(entry, Ordering::Release);
    }

    fn descriptor(&self, table: usize, index: usize) -> &AtomicU64 {
        let (table, _) = self.table(table).expect("only tables that there are have numbers");
        &table.0[index]
    }

    /// The number of the table that a descriptor points to.
    fn table_at(&self, entry: u64) -> usize {
        let place = |(pool, start): (&[Table], u64)| {
            let place = (entry & ADDRESS).checked_sub(start)? as usize / size_of::<Table>();
            (place < pool.len()).then_some(place)
        };
        let [first, second] = self.pools;
        place(first).unwrap_or_else(|| first.0.len() + place(second).unwrap_or(second.0.len()))
    }

    /// Sets the descriptors of the range; `largest` is the level of the largest blocks.
    fn set(&mut self, range: Range<u64>, bits: u64, largest: u32) -> Result<(), MapError> {
        check(&range)?;
        self.set_in(0, 0, range, (bits, largest))
    }

    /// Sets the descriptors of a range within what `table`, one of `level`, maps.
    fn set_in(
        &mut self,
        table: usize,
        level: u32,
        range: Range<u64>,
        (bits, largest): (u64, u32),
    ) -> Result<(), MapError> {
        let size = size(level);
        let Range { start: mut at, end } = range;
        while at < end {
            let first = at & !(size - 1);
            let next = (first + size).min(end);
            let index = index(at, level);
            let whole = at == first && next - first == size;
            let old = self.entry(table, index);
            if whole && (bits == 0 || level >= largest) {
                let kind = if level == PAGE_LEVEL { TABLE_OR_PAGE } else { 0 };
                self.put(table, index, if bits == 0 { 0 } else { first | bits | kind });
            } else if !(bits == 0 && old & VALID == 0) {
                if !is_table(old) {
                    let new = self.new_table(old, level, first)?;
                    self.put(table, index, new);
                }
                let inner = self.table_at(self.entry(table, index));
                self.set_in(inner, level + 1, at..next, (bits, largest))?;
            }
            at = next;
        }
        Ok(())
    }

    /// Makes a table that replaces the descriptor `old` of `level`.
    ///
    /// The result is the descriptor of the new table. The new table maps whatever `old` maps.
    /// `address` is for the error.
    fn new_table(&mut self, old: u64, level: u32, address: u64) -> Result<u64, MapError> {
        let (new, at) = self.table(self.used).ok_or(MapError::NoTableLeft { address })?;
        let kind = if level + 1 == PAGE_LEVEL { TABLE_OR_PAGE } else { 0 };
        new.fill(|i| if old & VALID == 0 { 0 } else { (old | kind) + i * size(level + 1) });
        self.used += 1;
        Ok(at | VALID | TABLE_OR_PAGE)
    }
}

/// Maximum number of tables for the ranges in blocks of [`BLOCK_SIZE`].
///
/// The ends of the ranges are mapped in pages.
pub fn tables_for_blocks(ranges: impl Iterator<Item = Range<u64>>) -> usize {
    ranges.map(|range| tables_needed(&range, BLOCK_LEVEL)).sum()
}

/// Maximum number of tables for the range in units of a level.
///
/// The ends of the range are mapped in pages.
fn tables_needed(range: &Range<u64>, unit: u32) -> usize {
    let touched = |level| range.end.div_ceil(size(level)).saturating_sub(range.start / size(level));
    let ends = if unit < PAGE_LEVEL { 2 } else { 0 };
    ends + (0..unit).map(touched).sum::<u64>() as usize
}

fn check(range: &Range<u64>) -> Result<(), MapError> {
    let &Range { start, end } = range;
    if start > end || (start | end) % PAGE_SIZE != 0 || end > 1 << 48 {
        return Err(MapError::BadRange { start, end });
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
