//! The final map: which memory is free, and how everything is mapped.

use core::ops::Range;
use core::ptr;

use crate::runtime::dev::{devices, facts};
use crate::runtime::machine::Machine;
use crate::runtime::mem::mmu::{self, Access, MapError, PAGE_SIZE, Table, Tables};
use crate::runtime::mem::ranges::Ranges;
use crate::runtime::mem::stacks::Stacks;
use crate::runtime::mem::{apple_memory, image, pages};

/// What of the memory is free, and the bytes of all of it.
pub fn free_memory(machine: &Machine<'_>) -> (Ranges, u64) {
    let mut free = Ranges::new();
    for region in &machine.memory {
        free.add(region.range(), PAGE_SIZE);
    }
    let total = free.bytes();
    // The tree and the initrd among them.
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

/// Tables of the final map for all but the heap: QEMU's `virt` uses about ten of them, a framebuffer up to six.
pub static TABLES: [Table; 32] = [const { Table::empty() }; 32];

/// Tables for the heap, or more in a machine with more than some 20 GiB of memory. In one with up to some
/// 64 MiB they suffice to have all of it in pages.
const HEAP_TABLES: usize = 48;
/// Those that are kept for blocks that are split later.
const OTHER_TABLES: usize = 24;

unsafe extern "C" {
    /// Makes the tables at `root` the calling core's map.
    fn set_root_table(root: u64, sctlr: u64);
}

/// How many tables the heap takes.
pub fn heap_tables(free: &Ranges) -> usize {
    HEAP_TABLES.max(mmu::tables_for_blocks(free.iter()) + OTHER_TABLES)
}

/// Builds the final map and switches to it: first all but the heap, then the heap, with tables in memory that
/// only the new map has.
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
        // Uncached, as m1n1 had it, and as the display sees it: it looks at the memory, not at the
        // caches. No other map has it as memory, as it is reserved.
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
    // SAFETY: everything that the runtime uses is mapped as on the early map, and `pages` changes no more
    // than it may. Both maps are identity maps, so that nothing moves.
    unsafe { set_root_table(tables.root(), mmu::SCTLR) };
    let start = ptr::with_exposed_provenance_mut::<Table>(heap_tables.start as usize);
    let count = ((heap_tables.end - heap_tables.start) / PAGE_SIZE) as usize;
    // SAFETY: mapped for this, and nobody else's. Zeros are tables, and atomic.
    let more = unsafe {
        start.write_bytes(0, count);
        core::slice::from_raw_parts(start, count)
    };
    tables.extend(more, heap_tables.start);
    // Nothing was mapped there: no core has to forget anything.
    tables.map_data(free.iter(), OTHER_TABLES)?;
    pages::publish();
    pages::keep(tables);
    Ok(())
}
