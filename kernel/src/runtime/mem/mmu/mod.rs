//! Page tables: an identity map in which nothing is both writable and executable.
//!
//! 4 KiB granule, 48-bit addresses, four levels; blocks of 1 GiB and 2 MiB where a range allows
//! them. The builder works on a slice of tables and touches no machine, so it runs in tests; the
//! slice's first table is the root. Tables are built while the processor still walks others: `boot.s`
//! does the one switch. After that only two things change. Data becomes read-only and writable again,
//! for which one write of a descriptor is enough; and a block is split into pages, for which it leaves the
//! map for a moment (break-before-make). D8.16, "TLB maintenance", tells the one from the other.
//!
//! Source: Arm Architecture Reference Manual (DDI 0487), chapters D8.3 (descriptor formats) and
//! D8.4 (permissions); D24.2 for `TCR_EL1`, `MAIR_EL1`, `SCTLR_EL1`.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes in the smallest unit of mapping.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes of the blocks that can be split into pages.
pub const BLOCK_SIZE: u64 = 2 << 20;

/// `MAIR_EL1`: attribute 0 is device memory (nGnRnE), 1 is normal memory (write-back), 2 is normal
/// memory that no cache keeps.
///
/// Apple's chips answer a write with an SError where one of their own devices is mapped so that writes
/// may be acknowledged early (nGnRE): Linux, `nonposted-mmio` of t8103.dtsi's `soc`, for which
/// drivers/of/address.c asks for `ioremap_np`. Only what lies behind their PCIe ports, of which nothing
/// is driven here, wants it the other way round. Other machines do not mind.
pub const MAIR: u64 = 0x44_ff_00;
/// `TCR_EL1` less the size of a physical address: 48 bits through `TTBR0_EL1` alone, tables
/// cached and shared like normal memory.
pub const TCR: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 30;
/// `SCTLR_EL1` with everything off: the bits that are to be one.
pub const SCTLR_OFF: u64 = 0x30d0_0800;
/// `SCTLR_EL1` on the early map: MMU, caches, stack alignment check.
pub const SCTLR_EARLY: u64 = SCTLR_OFF | 1 << 12 | 1 << 3 | 1 << 2 | 1;
/// `SCTLR_EL1` on the final map: also, what is writable is never executed.
pub const SCTLR: u64 = SCTLR_EARLY | 1 << 19;
/// A block of device memory, the address left out.
pub const DEVICE_BLOCK: u64 = VALID | ACCESSED | NEVER_EXECUTE;
/// A block of normal memory for the early map: read and write.
pub const EARLY_DATA_BLOCK: u64 = EARLY_CODE_BLOCK | NEVER_EXECUTE;
/// A block of normal memory for the early map that holds code, and thus whatever lies behind the code
/// within 2 MiB: all is allowed.
pub const EARLY_CODE_BLOCK: u64 = VALID | ACCESSED | NORMAL;

const VALID: u64 = 1;
/// Bit 1 makes a descriptor of level 0 to 2 a table and is part of a page's on level 3.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// `AttrIndx` 1, inner shareable.
const NORMAL: u64 = 1 << 2 | 3 << 8;
/// `AttrIndx` 2. Such memory is outer shareable whatever the descriptor says.
const UNCACHED: u64 = 2 << 2;
const READ_ONLY: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 10;
const PRIVILEGED_NEVER_EXECUTE: u64 = 1 << 53;
const UNPRIVILEGED_NEVER_EXECUTE: u64 = 1 << 54;
const NEVER_EXECUTE: u64 = PRIVILEGED_NEVER_EXECUTE | UNPRIVILEGED_NEVER_EXECUTE;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The level of the largest blocks that there are, of 1 GiB; that of those of [`BLOCK_SIZE`]; and that of
/// pages.
const LARGEST_BLOCK: u32 = 1;
const BLOCK_LEVEL: u32 = 2;
const PAGE_LEVEL: u32 = 3;

/// Bytes that a descriptor of `level` maps.
const fn size(level: u32) -> u64 {
    1 << (39 - 9 * level)
}

/// The descriptor of a table of `level` that maps `address`.
const fn index(address: u64, level: u32) -> usize {
    (address / size(level)) as usize % 512
}

/// Whether a descriptor, of a level above that of pages, points to a table.
const fn is_table(entry: u64) -> bool {
    entry & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE
}

/// What a range of memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and execute.
    Code,
    /// Read.
    ReadOnly,
    /// Read and write.
    Data,
    /// Read and write registers of devices: no caching, no reordering, no early acknowledgement.
    Device,
    /// Read and write memory that others look at past the caches, as a display does. Writes may be
    /// put together.
    Uncached,
}

impl Access {
    fn bits(self) -> u64 {
        let bits = match self {
            Access::Code => NORMAL | READ_ONLY | UNPRIVILEGED_NEVER_EXECUTE,
            Access::ReadOnly => NORMAL | READ_ONLY | NEVER_EXECUTE,
            Access::Data => NORMAL | NEVER_EXECUTE,
            Access::Device => NEVER_EXECUTE,
            Access::Uncached => UNCACHED | NEVER_EXECUTE,
        };
        VALID | ACCESSED | bits
    }
}

/// Why a range cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// All tables are in use.
    NoTableLeft {
        /// The address that needs one more.
        address: u64,
    },
    /// What is mapped there is no data, or cannot be changed without what lies beside the range.
    Indivisible {
        /// The first address of that.
        address: u64,
    },
    /// The range is reversed, not on page boundaries, or above 48 bits.
    BadRange {
        /// First byte.
        start: u64,
        /// First byte after it.
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

/// One table: 512 descriptors, atomic as processors may be reading them.
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

/// An identity map. Large ranges come first: a table that a block replaces is not used again.
pub struct Tables<'a> {
    /// The tables that there were at first, and those that came later, with their physical addresses. They
    /// are numbered through.
    pools: [(&'a [Table], u64); 2],
    used: usize,
}

impl<'a> Tables<'a> {
    /// A map of nothing, made of the tables in `pool`, whose physical address is `address`.
    ///
    /// # Errors
    /// The pool is empty.
    pub fn new(pool: &'a [Table], address: u64) -> Result<Self, MapError> {
        let root = pool.first().ok_or(MapError::NoTableLeft { address: 0 })?;
        root.fill(|_| 0);
        Ok(Tables { pools: [(pool, address), (&[], 0)], used: 1 })
    }

    /// Adds the tables in `pool`, whose physical address is `address`, for what is mapped from now on. That
    /// can be done once.
    pub fn extend(&mut self, pool: &'a [Table], address: u64) {
        self.pools[1] = (pool, address);
    }

    /// Physical address of the root table.
    pub fn root(&self) -> u64 {
        self.pools[0].1
    }

    /// How many tables are not in use.
    pub fn left(&self) -> usize {
        self.pools.iter().map(|(pool, _)| pool.len()).sum::<usize>() - self.used
    }

    /// A table and its physical address, if there are so many.
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
    /// The range is no range of pages, or no table is left; part of it may be mapped then.
    pub fn map(&mut self, range: Range<u64>, access: Access) -> Result<(), MapError> {
        self.set(range, access.bits(), LARGEST_BLOCK)
    }

    /// Maps the ranges as data, in the smallest units for which the tables suffice if `spare` of them are to be
    /// left: in pages, in blocks of [`BLOCK_SIZE`], or else in larger ones. What is mapped in pages can be
    /// changed page by page; of a block, one that nobody else uses, as [`Tables::split`] needs it.
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

    /// Makes every access to the range a fault.
    ///
    /// # Errors
    /// As for [`Tables::map`].
    pub fn unmap(&mut self, range: Range<u64>) -> Result<(), MapError> {
        self.set(range, 0, LARGEST_BLOCK)
    }

    /// Maps the block of data of [`BLOCK_SIZE`] at `block` by pages, if it is not yet. Nobody may use what
    /// is in it meanwhile: it leaves the map, `forget` makes all processors forget that it was there, and
    /// then it is back.
    ///
    /// # Errors
    /// It is none, or part of a larger one, or no table is left; nothing has changed then.
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

    /// Makes data read-only, or writable again. Processors may go by what they know of the range until
    /// they are made to forget that.
    ///
    /// # Errors
    /// The range is no range of pages, or not all of it is data that is mapped by itself; nothing has
    /// changed then.
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

    /// Checks that all of the range is data that [`Tables::set_writable`] can change.
    ///
    /// # Errors
    /// It is not, or the range is no range of pages.
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

    /// The descriptor that maps `address`, or says that nothing does: its table, its index, its level.
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
        // What the entry points to is written before.
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

    /// `largest` is the level of the largest blocks that may be used.
    fn set(&mut self, range: Range<u64>, bits: u64, largest: u32) -> Result<(), MapError> {
        check(&range)?;
        self.set_in(0, 0, range, (bits, largest))
    }

    /// The range lies within what `table`, one of `level`, maps.
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

    /// The descriptor of a new table, which stands for the descriptor `old` of `level`: what that maps, if
    /// it maps anything, is split over the new one. `address` is for the error.
    fn new_table(&mut self, old: u64, level: u32, address: u64) -> Result<u64, MapError> {
        let (new, at) = self.table(self.used).ok_or(MapError::NoTableLeft { address })?;
        let kind = if level + 1 == PAGE_LEVEL { TABLE_OR_PAGE } else { 0 };
        new.fill(|i| if old & VALID == 0 { 0 } else { (old | kind) + i * size(level + 1) });
        self.used += 1;
        Ok(at | VALID | TABLE_OR_PAGE)
    }
}

/// How many tables it takes at most to map the ranges in blocks of [`BLOCK_SIZE`], and their ends in pages.
pub fn tables_for_blocks(ranges: impl Iterator<Item = Range<u64>>) -> usize {
    ranges.map(|range| tables_needed(&range, BLOCK_LEVEL)).sum()
}

/// How many tables it takes at most to map the range in units of a level, and its ends in pages.
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
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::iter;

    const AT: u64 = 0x4567_8000;
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// Walks the tables as the processor does: the address, the attributes, the size of block.
    fn walk(tables: &Tables<'_>, address: u64) -> Option<(u64, u64, u64)> {
        let mut table = 0;
        for level in 0..4 {
            let shift = 39 - 9 * level;
            let entry = tables.entry(table, (address >> shift) as usize % 512);
            if entry & VALID == 0 {
                return None;
            }
            let is_table_or_page = entry & TABLE_OR_PAGE != 0;
            if level < 3 && is_table_or_page {
                table = tables.table_at(entry);
                assert!(table < tables.used);
                continue;
            }
            assert_eq!(is_table_or_page, level == 3, "a reserved descriptor");
            let size = 1u64 << shift;
            let output = (entry & ADDRESS) + (address & (size - 1));
            return Some((output, entry & !ADDRESS & !TABLE_OR_PAGE, size));
        }
        None
    }

    fn with_pool<R>(n: usize, test: impl FnOnce(Tables<'_>) -> R) -> R {
        // Stale contents must not shine through.
        let stale = || Table([const { AtomicU64::new(u64::MAX) }; 512]);
        let pool: Vec<Table> = iter::repeat_with(stale).take(n).collect();
        test(Tables::new(&pool, AT).unwrap())
    }

    #[test]
    fn large_blocks_are_used_where_they_fit() {
        with_pool(8, |mut tables| {
            tables.map(GIB - 2 * MIB - 4 * KIB..3 * GIB + 2 * MIB, Access::Data).unwrap();
            for (address, size) in [
                (GIB - 2 * MIB - 4 * KIB, 4 * KIB),
                (GIB - 2 * MIB, 2 * MIB),
                (GIB, GIB),
                (2 * GIB + 7, GIB),
                (3 * GIB + 2 * MIB - 1, 2 * MIB),
            ] {
                let expected = (address, Access::Data.bits(), size);
                assert_eq!(walk(&tables, address), Some(expected), "{address:#x}");
            }
            assert_eq!(walk(&tables, GIB - 2 * MIB - 4 * KIB - 1), None);
            assert_eq!(walk(&tables, 3 * GIB + 2 * MIB), None);
            assert_eq!(walk(&tables, 0), None);
            // Root, one of level 1, two of level 2, one of level 3.
            assert_eq!(tables.used, 5);
        });
    }

    #[test]
    fn tables_that_come_later_are_used_behind_the_first() {
        for at in [AT + 5 * 4096, AT - 5 * 4096, AT + GIB] {
            let later: Vec<Table> = iter::repeat_with(Table::empty).take(5).collect();
            let first: Vec<Table> = iter::repeat_with(Table::empty).take(5).collect();
            let mut tables = Tables::new(&first, AT).unwrap();
            tables.map(0..4 * KIB, Access::Code).unwrap();
            let far = 3 * GIB + 4 * KIB..3 * GIB + 3 * MIB;
            assert!(tables.map(far.clone(), Access::Data).is_err());
            tables.extend(&later, at);
            assert_eq!(tables.left(), 5);
            tables.map(far.clone(), Access::Data).unwrap();
            for address in [far.start, far.start + MIB, far.end - 1] {
                let found = walk(&tables, address).map(|(_, bits, _)| bits);
                assert_eq!(found, Some(Access::Data.bits()), "{address:#x}");
            }
            assert_eq!(walk(&tables, 0), Some((0, Access::Code.bits(), 4 * KIB)));
            tables.set_writable(far.start..3 * GIB + 2 * MIB, false).unwrap();
            assert_eq!(walk(&tables, far.start).unwrap().1, Access::ReadOnly.bits());
            tables.map(GIB..GIB + 4 * KIB, Access::Device).unwrap();
            tables.map(2 * GIB..2 * GIB + 4 * KIB, Access::Device).unwrap_err();
            assert_eq!(tables.left(), 0);
        }
    }

    #[test]
    fn a_hole_in_a_block_leaves_the_rest_as_it_was() {
        with_pool(8, |mut tables| {
            tables.map(0..2 * GIB, Access::Data).unwrap();
            let hole = GIB + 6 * MIB + 12 * KIB;
            tables.unmap(hole..hole + 4 * KIB).unwrap();
            tables.map(hole + 4 * KIB..hole + 12 * KIB, Access::Code).unwrap();
            assert_eq!(walk(&tables, hole), None);
            assert_eq!(walk(&tables, hole + 4095), None);
            for (address, access, size) in [
                (hole - 1, Access::Data, 4 * KIB),
                (hole + 4 * KIB, Access::Code, 4 * KIB),
                (hole + 12 * KIB, Access::Data, 4 * KIB),
                (GIB + 8 * MIB, Access::Data, 2 * MIB),
                (GIB - 1, Access::Data, GIB),
            ] {
                let expected = (address, access.bits(), size);
                assert_eq!(walk(&tables, address), Some(expected), "{address:#x}");
            }
        });
    }

    #[test]
    fn every_page_of_random_maps_is_what_was_last_asked_for() {
        // 64 MiB in pages, mirrored in a plain list.
        let base = 3 * GIB - 32 * MIB;
        let mut expected = vec![None; 16384];
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut random = |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % n
        };
        with_pool(2003, |mut tables| {
            for _ in 0..211 {
                let (mut a, mut b) = (random(16385), random(16385));
                if random(3) == 0 {
                    (a, b) = (a & !511, b & !511);
                }
                let (start, end) = (a.min(b), a.max(b));
                let access = [
                    None,
                    Some(Access::Code),
                    Some(Access::ReadOnly),
                    Some(Access::Data),
                    Some(Access::Device),
                    Some(Access::Uncached),
                ][random(6) as usize];
                let range = base + start * PAGE_SIZE..base + end * PAGE_SIZE;
                match access {
                    Some(access) => tables.map(range, access).unwrap(),
                    None => tables.unmap(range).unwrap(),
                }
                expected[start as usize..end as usize].fill(access);
            }
            for (page, access) in expected.iter().enumerate() {
                let address = base + page as u64 * PAGE_SIZE;
                let found = walk(&tables, address).map(|(to, bits, _)| (to, bits));
                assert_eq!(found, access.map(|access| (address, access.bits())), "{address:#x}");
            }
        });
    }

    #[test]
    fn nothing_is_writable_and_executable() {
        for access in
            [Access::Code, Access::ReadOnly, Access::Data, Access::Device, Access::Uncached]
        {
            let bits = access.bits();
            let writable = bits & READ_ONLY == 0;
            let executable = bits & PRIVILEGED_NEVER_EXECUTE == 0;
            assert!(!(writable && executable), "{access:?}");
            assert_eq!(executable, access == Access::Code);
            assert_ne!(bits & UNPRIVILEGED_NEVER_EXECUTE, 0);
        }
    }

    #[test]
    fn attributes_are_those_of_the_register() {
        let attribute = |access: Access| MAIR >> (8 * (access.bits() >> 2 & 0b111)) & 0xff;
        for (access, expected) in [
            (Access::Code, 0xff),
            (Access::ReadOnly, 0xff),
            (Access::Data, 0xff),
            (Access::Device, 0x00),
            (Access::Uncached, 0x44),
        ] {
            assert_eq!(attribute(access), expected, "{access:?}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        with_pool(2, |mut tables| {
            assert_eq!(
                tables.map(5 * MIB..6 * MIB, Access::Data),
                Err(MapError::NoTableLeft { address: 0 })
            );
            for (start, end) in [(1, 4096), (0, 4097), (8192, 4096), (1 << 48, (1 << 48) + 4096)] {
                let expected = Err(MapError::BadRange { start, end });
                assert_eq!(tables.map(start..end, Access::Data), expected);
            }
        });
        assert!(Tables::new(&[], AT).is_err());
    }

    #[test]
    fn data_in_blocks_can_be_protected_by_blocks_and_pages() {
        with_pool(9, |mut tables| {
            let data = Access::Data.bits();
            let heap = GIB - 4 * MIB - 8 * KIB..2 * GIB + 4 * KIB;
            tables.map_data(iter::once(heap.clone()), 1).unwrap();
            let access = |tables: &Tables<'_>, address| {
                walk(tables, address).map(|(_, bits, size)| (bits, size))
            };
            assert_eq!(
                access(&tables, GIB + 512 * MIB),
                Some((data, 2 * MIB)),
                "no block of 1 GiB"
            );

            let protected = GIB - 2 * MIB..GIB + 6 * MIB + 12 * KIB;
            // The last block is one, until it is split. The rest stays as it was.
            let indivisible = Err(MapError::Indivisible { address: GIB + 6 * MIB });
            assert_eq!(tables.set_writable(protected.clone(), false), indivisible);
            assert_eq!(access(&tables, GIB), Some((data, 2 * MIB)));
            let mut forgotten = 0;
            tables.split(GIB + 6 * MIB, || forgotten += 1).unwrap();
            tables.split(GIB + 6 * MIB, || forgotten += 1).unwrap();
            assert_eq!(forgotten, 1, "the second time it is there already");
            for range in [protected.clone(), protected.clone(), protected.start..protected.start] {
                tables.set_writable(range, false).unwrap();
            }
            for address in (heap.start..GIB + 10 * MIB).step_by(PAGE_SIZE as usize) {
                let read_only = if protected.contains(&address) { READ_ONLY } else { 0 };
                let (output, bits, _) = walk(&tables, address).unwrap();
                assert_eq!((output, bits), (address, data | read_only), "{address:#x}");
            }
            // Part of it back.
            tables.set_writable(GIB..GIB + 2 * MIB, true).unwrap();
            tables.set_writable(protected.end - 4 * KIB..protected.end, true).unwrap();
            assert_eq!(access(&tables, GIB), Some((data, 2 * MIB)));
            assert_eq!(access(&tables, GIB - MIB), Some((data | READ_ONLY, 2 * MIB)));
            assert_eq!(access(&tables, protected.end - 4 * KIB), Some((data, 4 * KIB)));
            assert_eq!(access(&tables, protected.end - 8 * KIB), Some((data | READ_ONLY, 4 * KIB)));
        });
    }

    #[test]
    fn data_is_mapped_in_units_as_small_as_the_tables_allow() {
        let ranges = [4 * KIB..10 * MIB, 12 * MIB + 4 * KIB..3 * GIB, 4 * GIB..4 * GIB + 8 * KIB];
        let small = &ranges[..1];
        // In pages: a table for each 2 MiB, the GiB and the 512 GiB; besides the root. In blocks: those of
        // the GiBs and of the 512 GiB, and two for pages at each end.
        for (ranges, pool, spare, unit) in [
            (small, 1 + 7, 0, 4 * KIB),
            (small, 1 + 7, 1, 2 * MIB),
            (small, 1 + 7 + 3, 3, 4 * KIB),
            (&ranges, 1 + 14, 0, 2 * MIB),
            (&ranges, 1 + 14 + 97, 97, 2 * MIB),
            (&ranges, 1 + 14, 1, GIB),
        ] {
            with_pool(pool, |mut tables| {
                tables.map_data(ranges.iter().cloned(), spare).unwrap();
                assert!(tables.left() >= spare, "{} of {pool} are left", tables.left());
                let largest = |range: &Range<u64>| {
                    let mut at = range.start;
                    let mut largest = 0;
                    while at < range.end {
                        let (output, bits, size) = walk(&tables, at).unwrap();
                        assert_eq!((output, bits), (at, Access::Data.bits()), "{at:#x}");
                        largest = largest.max(size);
                        at += size;
                    }
                    assert_eq!(at, range.end);
                    largest
                };
                assert_eq!(ranges.iter().map(largest).max(), Some(unit), "{pool} {spare}");
                let by_pages = tables.check_divisible(&(12 * KIB..16 * KIB));
                assert!(by_pages.is_ok(), "the end of a range is in pages");
            });
        }
    }

    #[test]
    fn a_block_is_not_in_the_map_while_it_is_split() {
        with_pool(4, |mut tables| {
            tables.map(0..4 * MIB, Access::Data).unwrap();
            let Tables { pools, used } = tables;
            let mut looked = false;
            let forget = || {
                looked = true;
                let as_processors_see_it = Tables { pools, used };
                assert_eq!(walk(&as_processors_see_it, 2 * MIB), None);
                assert!(walk(&as_processors_see_it, 0).is_some());
            };
            tables.split(2 * MIB, forget).unwrap();
            assert!(looked);
        });
    }

    #[test]
    fn only_data_that_is_mapped_by_itself_can_be_changed() {
        with_pool(7, |mut tables| {
            tables.map(0..GIB, Access::Data).unwrap();
            tables.map_data(iter::once(GIB..GIB + 20 * MIB), 0).unwrap();
            tables.map(GIB + 2 * MIB..GIB + 4 * MIB, Access::Code).unwrap();
            tables.map(GIB + 6 * MIB..GIB + 8 * MIB, Access::Device).unwrap();
            tables.unmap(GIB + 10 * MIB + 4 * KIB..GIB + 10 * MIB + 8 * KIB).unwrap();
            let indivisible = |address| Err(MapError::Indivisible { address });
            let bad_range = |start, end| Err(MapError::BadRange { start, end });
            for (range, expected) in [
                (GIB..GIB + 2 * MIB, Ok(())),
                (0..2 * MIB, indivisible(0)),
                (GIB..GIB + 8 * MIB, indivisible(GIB + 2 * MIB)),
                (GIB + 4 * MIB..GIB + 8 * MIB, indivisible(GIB + 6 * MIB)),
                (GIB + 4 * MIB..GIB + 5 * MIB, indivisible(GIB + 4 * MIB)),
                (GIB + 5 * MIB..GIB + 6 * MIB, indivisible(GIB + 5 * MIB)),
                (GIB + 8 * MIB..GIB + 12 * MIB, indivisible(GIB + 10 * MIB + 4 * KIB)),
                (GIB + 18 * MIB..GIB + 22 * MIB, indivisible(GIB + 20 * MIB)),
                (5 * GIB..5 * GIB + 2 * MIB, indivisible(5 * GIB)),
                (GIB + 1..GIB + 2 * MIB, bad_range(GIB + 1, GIB + 2 * MIB)),
                (GIB..GIB + 1, bad_range(GIB, GIB + 1)),
                (1 << 48..(1 << 48) + 2 * MIB, bad_range(1 << 48, (1 << 48) + 2 * MIB)),
            ] {
                for writable in [true, false] {
                    assert_eq!(
                        tables.set_writable(range.clone(), writable),
                        expected,
                        "{range:x?}"
                    );
                }
                // Had it failed half-way, they would be read-only.
                for address in [GIB + 4 * MIB, GIB + 8 * MIB, GIB + 18 * MIB] {
                    assert_eq!(
                        walk(&tables, address).unwrap().1,
                        Access::Data.bits(),
                        "{range:x?}"
                    );
                }
            }
            let unexpected = || panic!("it left the map");
            for address in [0, GIB, GIB + 2 * MIB, GIB + 6 * MIB, GIB + 20 * MIB, 5 * GIB] {
                assert_eq!(tables.split(address, unexpected), indivisible(address), "{address:#x}");
            }
            tables.split(GIB + 10 * MIB, unexpected).unwrap();
            while tables.left() > 0 {
                let at = GIB + 12 * MIB + 2 * MIB * tables.left() as u64;
                tables.split(at, || ()).unwrap();
            }
            let no_table_left = Err(MapError::NoTableLeft { address: GIB + 4 * MIB });
            assert_eq!(tables.split(GIB + 4 * MIB, unexpected), no_table_left);
        });
    }
}
