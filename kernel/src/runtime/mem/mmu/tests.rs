use super::super::descriptor::*;
use super::*;
use alloc::vec::Vec;
use core::iter;

const AT: u64 = 0x4567_8000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Walks the tables as the processor does: address, attributes, size of the block.
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
    // Stale contents must have no effect.
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
        // The tables are the root, one of level 1, two of level 2, one of level 3.
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
    for access in [Access::Code, Access::ReadOnly, Access::Data, Access::Device, Access::Uncached] {
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
        assert_eq!(access(&tables, GIB + 512 * MIB), Some((data, 2 * MIB)), "no block of 1 GiB");

        let protected = GIB - 2 * MIB..GIB + 6 * MIB + 12 * KIB;
        // The last block is whole until it is split. The rest stays as it was.
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
        // Part of the range becomes writable again.
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
    // In pages: the root, and a table for each 2 MiB, for the GiB and for the 512 GiB. In blocks:
    // the root, the tables of the GiBs and of the 512 GiB, and two for pages at the ends of each
    // range.
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
                assert_eq!(tables.set_writable(range.clone(), writable), expected, "{range:x?}");
            }
            // After a failure half-way, these addresses would be read-only.
            for address in [GIB + 4 * MIB, GIB + 8 * MIB, GIB + 18 * MIB] {
                assert_eq!(walk(&tables, address).unwrap().1, Access::Data.bits(), "{range:x?}");
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
