//! ADMA2: DMA by a table of descriptors (HC 1.13).
//!
//! The controller accesses memory past the caches, and through the windows of the device tree
//! (`dma-ranges`). Cache lines that lie wholly in a buffer are filled in place. Cache lines at the
//! edges of a buffer also hold other data, which may be written meanwhile. So the bytes at the
//! edges go through cache lines of the table.
//!
//! A buffer that the controller cannot reach goes through a bounce buffer, which the controller can
//! reach. The copy takes a fiftieth of the card's time. Reading by the data port needs no copy, but
//! keeps the core busy with each word.

use alloc::vec;
use core::ops::Range;
use core::ptr::{NonNull, addr_of_mut};

use super::super::Buffer;
use crate::runtime::machine::DmaWindows;

/// Size of the largest cache line of any cache.
pub const LINE_BYTES: usize = 128;
/// Maximum bytes of one table.
pub const LARGEST: usize = 4 << 20;
/// Size of the bounce buffer in bytes: that of a volume's largest request.
pub const BOUNCE_BYTES: usize = 512 << 10;
/// Maximum bytes of a descriptor; the format allows twice as many.
const CHUNK: usize = 32 << 10;
/// Number of descriptors for [`LARGEST`] bytes.
/// One more is for a start that is no multiple, and two are for the edges.
const DESCRIPTORS: usize = LARGEST / CHUNK + 3;

const VALID: u32 = 1;
const END: u32 = 1 << 1;
const TRANSFER: u32 = 0b100 << 3;

/// Memory that the controller uses besides the buffers.
/// The table must lie where the controller reaches it.
#[repr(C, align(128))]
pub struct Table {
    /// Attributes and length, then the address.
    descriptors: [[u32; 2]; DESCRIPTORS],
    edges: [Line; 2],
}

/// A cache line of its own.
#[repr(C, align(128))]
#[derive(Clone)]
struct Line([u8; LINE_BYTES]);

impl Table {
    /// An empty table.
    pub const fn new() -> Table {
        Table { descriptors: [[0; 2]; DESCRIPTORS], edges: [const { Line([0; LINE_BYTES]) }; 2] }
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

/// Allocates a bounce buffer, which is never freed.
pub fn bounce() -> NonNull<[u8]> {
    let lines = NonNull::from(vec![Line([0; LINE_BYTES]); BOUNCE_BYTES / LINE_BYTES].leak());
    NonNull::slice_from_raw_parts(lines.cast(), BOUNCE_BYTES)
}

/// The data caches.
///
/// # Safety
/// An implementation keeps what the method's "Implementation safety" lists.
pub unsafe trait Cache: Sync {
    /// Writes the cache lines of `range` back to memory, and invalidates the lines.
    ///
    /// # Implementation safety
    /// The call changes nothing of what a program reads, whichever lines hold the ends of the
    /// range.
    ///
    /// # Safety
    /// The range is mapped.
    unsafe fn clean_and_invalidate(&self, range: Range<u64>);
}

/// A descriptor table, a bounce buffer, and the windows of the DMA.
pub struct Dma {
    table: NonNull<Table>,
    bounce: NonNull<[u8]>,
    windows: DmaWindows,
    cache: &'static dyn Cache,
}

// SAFETY: the table and the bounce buffer are this value's alone, by the contract of `new`,
// whichever core uses them.
unsafe impl Send for Dma {}

/// Splits a buffer: bytes before its first whole line, its whole lines, the rest.
fn cut(start: usize, length: usize) -> [usize; 3] {
    let head = (start.next_multiple_of(LINE_BYTES) - start).min(length);
    let tail = (length - head) % LINE_BYTES;
    [head, length - head - tail, tail]
}

impl Dma {
    /// DMA with `table` and [`bounce`].
    ///
    /// # Safety
    /// 1. The table and the bounce buffer are valid for reads and writes for ever.
    /// 2. Both are identity-mapped.
    /// 3. Nobody else uses them.
    pub unsafe fn new(
        table: NonNull<Table>,
        bounce: NonNull<[u8]>,
        windows: DmaWindows,
        cache: &'static dyn Cache,
    ) -> Dma {
        Dma { table, bounce, windows, cache }
    }

    /// The bus address of memory; `None` if the controller cannot reach the memory.
    fn bus_address(&self, address: usize, length: usize) -> Option<u32> {
        let address = address as u64;
        let end = address.checked_add(length as u64)?;
        self.windows.iter().find_map(|window| {
            let range = window.memory.range();
            if address < range.start || end > range.end {
                return None;
            }
            let bus = window.bus_address.checked_add(address - range.start)?;
            // The last byte must also lie within 32 bits.
            u32::try_from(bus.checked_add(length as u64 - 1)?).ok()?;
            u32::try_from(bus).ok()
        })
    }

    fn edge(&self, index: usize) -> NonNull<u8> {
        // SAFETY: the place is inside the table, which is valid.
        unsafe { NonNull::new_unchecked(addr_of_mut!((*self.table.as_ptr()).edges[index])).cast() }
    }

    /// Writes the descriptors for a buffer, and hands the memory to the controller.
    ///
    /// The buffer has at most [`LARGEST`] bytes. The result is the bus address of the table. `None`
    /// if the controller cannot reach the table or the buffer.
    pub fn prepare(&mut self, memory: NonNull<[u8]>) -> Option<u32> {
        let start = memory.cast::<u8>().as_ptr() as usize;
        let [head, middle, tail] = cut(start, memory.len());
        let edge = |index| self.edge(index).as_ptr() as usize;
        let mut chunks = 0;
        let mut describe = |address: usize, length: usize| {
            let mut done = 0;
            while done < length {
                let chunk = (length - done).min(CHUNK);
                let address = self.bus_address(address + done, chunk)?;
                let descriptor = [(chunk as u32) << 16 | TRANSFER | VALID, address];
                // SAFETY: the place is inside the table, which is valid; the controller does not
                // use the table.
                unsafe { (*self.table.as_ptr()).descriptors[chunks] = descriptor };
                chunks += 1;
                done += chunk;
            }
            Some(())
        };
        describe(edge(0), head)?;
        describe(start + head, middle)?;
        describe(edge(1), tail)?;
        // SAFETY: as above.
        unsafe { (*self.table.as_ptr()).descriptors[chunks.checked_sub(1)?][0] |= END };
        let table = self.table.as_ptr() as usize;
        let on_bus = self.bus_address(table, size_of::<Table>())?;
        self.hand_over(start + head, middle);
        Some(on_bus)
    }

    /// Copies `bytes`, at most [`BOUNCE_BYTES`], to the start of the bounce buffer.
    pub fn fill_bounce(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= BOUNCE_BYTES, "{} bytes", bytes.len());
        // SAFETY: the bounce buffer is valid and this value's alone; no controller uses it now.
        unsafe {
            self.bounce
                .cast()
                .copy_from_nonoverlapping(NonNull::from(bytes).cast::<u8>(), bytes.len())
        };
    }

    /// Prepares the first `length` bytes of the bounce buffer.
    /// `length` is at most [`BOUNCE_BYTES`]; see [`prepare`](Dma::prepare).
    pub fn prepare_bounce(&mut self, length: usize) -> Option<u32> {
        self.prepare(NonNull::slice_from_raw_parts(self.bounce.cast(), length))
    }

    /// Copies the bounce buffer to `buffer`, after the controller is done.
    ///
    /// The copy has the `length` bytes that were prepared. The copy goes to the bytes of `buffer`
    /// from `at` on.
    pub fn finish_bounce(&mut self, buffer: &mut Buffer, at: usize, length: usize) {
        let bounce = self.bounce.cast::<u8>();
        self.hand_over(bounce.as_ptr() as usize, length);
        // SAFETY: the bounce buffer is valid and this value's alone; the controller is done with
        // it.
        let bytes = unsafe { NonNull::slice_from_raw_parts(bounce, length).as_ref() };
        buffer.fill_part(at, bytes);
    }

    /// Takes a buffer back from the controller, and copies the edges.
    ///
    /// The controller is done with the bytes of `buffer` from `at` on, which were prepared.
    pub fn finish(&mut self, buffer: &mut Buffer, at: usize, length: usize) {
        let start = buffer.part(at, length).cast::<u8>().as_ptr() as usize;
        let [head, middle, tail] = cut(start, length);
        self.hand_over(start + head, middle);
        let mut take = |index, to, length: usize| {
            let mut bytes = [0; LINE_BYTES];
            for (i, byte) in bytes[..length].iter_mut().enumerate() {
                // SAFETY: the byte is inside the table. The controller wrote it behind the
                // compiler's back.
                *byte = unsafe { self.edge(index).add(i).read_volatile() };
            }
            buffer.fill_part(to, &bytes[..length]);
        };
        take(0, at, head);
        take(1, at + head + middle, tail);
    }

    /// Cleans and invalidates the whole cache lines of a buffer, and the table.
    fn hand_over(&self, lines: usize, length: usize) {
        let table = self.table.as_ptr() as u64;
        // SAFETY: both are mapped: the table by the contract of `new`, and the lines as part of a
        // buffer.
        unsafe {
            self.cache.clean_and_invalidate(table..table + size_of::<Table>() as u64);
            self.cache.clean_and_invalidate(lines as u64..(lines + length) as u64);
        }
    }
}
