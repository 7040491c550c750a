//! Page tables: an identity map in which nothing is both writable and executable.
//!
//! 4 KiB granule, 48-bit addresses, four levels; blocks of 1 GiB and 2 MiB where a range allows
//! them. The builder works on a slice of tables and touches no machine, so it runs in tests; the
//! slice's first table is the root. Tables are only ever built while the processor still walks
//! others, so no break-before-make is needed here: `boot.s` does the one switch.
//!
//! Source: Arm Architecture Reference Manual (DDI 0487), chapters D8.3 (descriptor formats) and
//! D8.4 (permissions); D24.2 for `TCR_EL1`, `MAIR_EL1`, `SCTLR_EL1`.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;

/// Bytes in the smallest unit of mapping.
pub const PAGE_SIZE: u64 = 4096;

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
            MapError::BadRange { start, end } => {
                write!(f, "the range {start:#x}..{end:#x} cannot be mapped")
            }
        }
    }
}

impl core::error::Error for MapError {}

/// One table: 512 descriptors.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
pub struct Table([u64; 512]);

impl Table {
    /// A table that maps nothing.
    pub const EMPTY: Table = Table([0; 512]);
}

/// An identity map under construction. Large ranges come first: a table that a block replaces is
/// not used again.
pub struct Tables<'a> {
    pool: &'a mut [Table],
    used: usize,
    /// Physical address of the pool.
    address: u64,
}

impl<'a> Tables<'a> {
    /// A map of nothing, made of the tables in `pool`, whose physical address is `address`.
    ///
    /// # Errors
    /// The pool is empty.
    pub fn new(pool: &'a mut [Table], address: u64) -> Result<Self, MapError> {
        let root = pool.first_mut().ok_or(MapError::NoTableLeft { address: 0 })?;
        *root = Table::EMPTY;
        Ok(Tables { pool, used: 1, address })
    }

    /// Physical address of the root table.
    pub fn root(&self) -> u64 {
        self.address
    }

    /// Maps the range, whatever was mapped there before.
    ///
    /// # Errors
    /// The range is no range of pages, or no table is left; part of it may be mapped then.
    pub fn map(&mut self, range: Range<u64>, access: Access) -> Result<(), MapError> {
        self.set(range, access.bits())
    }

    /// Makes every access to the range a fault.
    ///
    /// # Errors
    /// As for [`Tables::map`].
    pub fn unmap(&mut self, range: Range<u64>) -> Result<(), MapError> {
        self.set(range, 0)
    }

    fn set(&mut self, range: Range<u64>, bits: u64) -> Result<(), MapError> {
        let Range { start, end } = range;
        if start > end || (start | end) % PAGE_SIZE != 0 || end > 1 << 48 {
            return Err(MapError::BadRange { start, end });
        }
        self.set_in(0, 0, start, end, bits)
    }

    /// `start..end` lies within what `table`, one of `level`, maps.
    fn set_in(
        &mut self,
        table: usize,
        level: u32,
        start: u64,
        end: u64,
        bits: u64,
    ) -> Result<(), MapError> {
        let shift = 39 - 9 * level;
        let size = 1u64 << shift;
        let mut at = start;
        while at < end {
            let first = at & !(size - 1);
            let next = (first + size).min(end);
            let index = (at >> shift) as usize % 512;
            let whole = at == first && next - first == size;
            let old = self.pool[table].0[index];
            if whole && (bits == 0 || level > 0) {
                let kind = if level == 3 { TABLE_OR_PAGE } else { 0 };
                self.pool[table].0[index] = if bits == 0 { 0 } else { first | bits | kind };
            } else if !(bits == 0 && old & VALID == 0) {
                let inner = self.table_below(table, index, level, old, first)?;
                self.set_in(inner, level + 1, at, next, bits)?;
            }
            at = next;
        }
        Ok(())
    }

    /// The table that descriptor `index` of `table` points to; made if there is none yet, with
    /// the block that stood there split over it.
    fn table_below(
        &mut self,
        table: usize,
        index: usize,
        level: u32,
        old: u64,
        address: u64,
    ) -> Result<usize, MapError> {
        if old & VALID != 0 && old & TABLE_OR_PAGE != 0 {
            return Ok(((old & ADDRESS) - self.address) as usize / size_of::<Table>());
        }
        let new = self.used;
        let Some(slot) = self.pool.get_mut(new) else {
            return Err(MapError::NoTableLeft { address });
        };
        *slot = Table::EMPTY;
        if old & VALID != 0 {
            let kind = if level == 2 { TABLE_OR_PAGE } else { 0 };
            let step = 1u64 << (30 - 9 * level);
            for (entry, i) in slot.0.iter_mut().zip(0u64..) {
                *entry = (old | kind) + i * step;
            }
        }
        self.used += 1;
        let descriptor = self.address + (new * size_of::<Table>()) as u64;
        self.pool[table].0[index] = descriptor | VALID | TABLE_OR_PAGE;
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x4567_8000;
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// Walks the tables as the processor does: the address, the attributes, the size of block.
    fn walk(tables: &Tables<'_>, address: u64) -> Option<(u64, u64, u64)> {
        let mut table = 0;
        for level in 0..4 {
            let shift = 39 - 9 * level;
            let entry = tables.pool[table].0[(address >> shift) as usize % 512];
            if entry & VALID == 0 {
                return None;
            }
            let is_table_or_page = entry & TABLE_OR_PAGE != 0;
            if level < 3 && is_table_or_page {
                table = ((entry & ADDRESS) - AT) as usize / 4096;
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
        let mut pool = vec![Table([u64::MAX; 512]); n];
        test(Tables::new(&mut pool, AT).unwrap())
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
        assert!(Tables::new(&mut [], AT).is_err());
    }
}
