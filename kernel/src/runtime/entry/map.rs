//! The final map: the free memory, and the mapping of everything.

use core::ops::Range;
use core::ptr;

use crate::runtime::dev::{devices, facts};
use crate::runtime::machine::Machine;
use crate::runtime::mem::mmu::{self, Access, MapError, PAGE_SIZE, Table, Tables};
use crate::runtime::mem::ranges::Ranges;
use crate::runtime::mem::stacks::Stacks;
use crate::runtime::mem::{apple_memory, image, pages};

/// Finds the free memory, and the size of all memory in bytes.
pub fn free_memory(machine: &Machine<'_>) -> (Ranges, u64) {
    let mut free = Ranges::new();
    for region in &machine.memory {
        free.add(region.range(), PAGE_SIZE);
    }
    let total = free.bytes();
    // The reserved regions include the tree and the initrd.
    for reserved in &machine.reserved {
        free.remove(reserved.range(), PAGE_SIZE);
    }
    free.remove(image::whole(), PAGE_SIZE);
    free.remove(0..PAGE_SIZE, PAGE_SIZE);
    let left_out = apple_memory::leave_out(machine, &mut free);
    if left_out > 0 {
        let end = apple_memory::m1n1_end(machine).unwrap_or(0);
        facts::FACTS.note("left-out", format_args!("{} KiB, m1n1 to {end:#x}", left_out >> 10));
    }
    (free, total)
}

fn pages(range: Range<u64>) -> Range<u64> {
    range.start - range.start % PAGE_SIZE..range.end.next_multiple_of(PAGE_SIZE)
}

/// Tables of the final map for everything except the heap.
///
/// QEMU's `virt` uses about ten tables, and a framebuffer uses up to six.
pub static TABLES: [Table; 32] = [const { Table::empty() }; 32];

/// Minimum number of tables for the heap.
///
/// A machine with more than some 20 GiB of memory needs more tables. In a machine with up to some
/// 64 MiB, these tables suffice to map all memory in pages.
const HEAP_TABLES: usize = 48;
/// Number of tables reserved for blocks that are split later.
const OTHER_TABLES: usize = 24;

unsafe extern "C" {
    /// Makes the tables at `root` the calling core's map.
    fn set_root_table(root: u64, sctlr: u64);
}

/// Number of tables that the heap takes.
pub fn heap_tables(free: &Ranges) -> usize {
    HEAP_TABLES.max(mmu::tables_for_blocks(free.iter()) + OTHER_TABLES)
}

/// Builds the final map and switches to it.
///
/// The switch comes after the mapping of everything but the heap. The heap's tables lie in memory
/// that only the new map has, so the heap is mapped last.
pub fn build(
    machine: &Machine<'_>,
    tree: Range<u64>,
    free: &Ranges,
    stacks: Stacks,
    heap_tables: Range<u64>,
) -> Result<(), MapError> {
    let mut tables = Tables::new(&TABLES, (&raw const TABLES) as u64)?;
    for region in devices::regions(machine) {
        tables.map(pages(region.range()), Access::Device)?;
    }
    if let Some(framebuffer) = &machine.framebuffer {
        // Uncached, as m1n1 had the memory. The display reads the memory past the caches. The
        // memory is reserved, so nothing else maps it as memory.
        tables.map(pages(framebuffer.picture().range()), Access::Uncached)?;
    }
    tables.map(heap_tables.clone(), Access::Data)?;
    tables.map(stacks.whole(), Access::Data)?;
    for guard in stacks.guard_pages() {
        tables.unmap(guard)?;
    }
    tables.map(pages(tree), Access::ReadOnly)?;
    if let Some(initrd) = machine.initrd {
        tables.map(pages(initrd.range()), Access::ReadOnly)?;
    }
    tables.map(image::text(), Access::Code)?;
    tables.map(image::rodata(), Access::ReadOnly)?;
    tables.map(image::data(), Access::Data)?;
    tables.map(pages(image::symbols()), Access::ReadOnly)?;
    tables.unmap(0..PAGE_SIZE)?;
    // SAFETY: everything that the runtime uses is mapped as on the early map. The module `pages`
    // changes no more than it may. Both maps are identity maps, so nothing moves.
    unsafe { set_root_table(tables.root(), mmu::SCTLR) };
    let start = ptr::with_exposed_provenance_mut::<Table>(heap_tables.start as usize);
    let count = ((heap_tables.end - heap_tables.start) / PAGE_SIZE) as usize;
    // SAFETY: the memory is mapped for this, and is nobody else's. Zeros are valid tables, which
    // are atomic.
    let more = unsafe {
        start.write_bytes(0, count);
        core::slice::from_raw_parts(start, count)
    };
    tables.extend(more, heap_tables.start);
    // Nothing was mapped there, so no core has to invalidate anything.
    tables.map_data(free.iter(), OTHER_TABLES)?;
    pages::publish();
    pages::keep(tables);
    Ok(())
}
