//! ADMA2: the controller writes to memory by a table of descriptors (HC 1.13).
//!
//! The controller sees memory without the caches, and through windows that the device tree lists
//! (`dma-ranges`). Cache lines that are wholly a buffer's are filled in place. Those at its edges also
//! hold what is someone else's and may be written meanwhile, so that their bytes take the way through
//! the table's own lines.
//!
//! A buffer that the controller does not reach takes the way through another that it does, the bounce
//! buffer. The copy costs a fiftieth of the time that the card takes. Reading by the data port needs no
//! copy, but keeps the core busy with each word.

use alloc::vec;
use core::ops::Range;
use core::ptr::{NonNull, addr_of_mut};

use super::super::Buffer;
use crate::runtime::machine::DmaWindows;

/// No cache has larger lines.
pub const LINE_BYTES: usize = 128;
/// The most bytes of one table.
pub const LARGEST: usize = 4 << 20;
/// Bytes of the bounce buffer: those of the largest request of a volume.
pub const BOUNCE_BYTES: usize = 512 << 10;
/// The most bytes of a descriptor here; the format has room for twice as many.
const PIECE: usize = 32 << 10;
/// Descriptors: those of the pieces, one more where they start on no multiple, and the two edges.
const DESCRIPTORS: usize = LARGEST / PIECE + 3;

const VALID: u32 = 1;
const END: u32 = 1 << 1;
const TRANSFER: u32 = 0b100 << 3;

/// What the controller reads and writes besides the buffers. It must lie where the controller
/// reaches it.
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
    /// An empty one.
    pub const fn new() -> Table {
        Table { descriptors: [[0; 2]; DESCRIPTORS], edges: [const { Line([0; LINE_BYTES]) }; 2] }
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

/// Memory for a bounce buffer, which is never freed.
pub fn bounce() -> NonNull<[u8]> {
    let lines = NonNull::from(vec![Line([0; LINE_BYTES]); BOUNCE_BYTES / LINE_BYTES].leak());
    NonNull::slice_from_raw_parts(lines.cast(), BOUNCE_BYTES)
}

/// The data caches.
///
/// # Safety
/// An implementation keeps what the method's "Implementation safety" lists.
pub unsafe trait Cache: Sync {
    /// Writes what the caches hold of `range` to memory, and lets them forget it.
    ///
    /// # Implementation safety
    /// The call changes nothing of what a program reads, whichever lines hold the range's ends.
    ///
    /// # Safety
    /// The range is mapped.
    unsafe fn clean_and_invalidate(&self, range: Range<u64>);
}

/// A table and the ways around it.
pub struct Dma {
    table: NonNull<Table>,
    bounce: NonNull<[u8]>,
    windows: DmaWindows,
    cache: &'static dyn Cache,
}

// SAFETY: the table and the bounce buffer are this value's alone, says `new`, whichever core uses them.
unsafe impl Send for Dma {}

/// How a buffer is cut: bytes before its first whole line, those of its whole lines, and the rest.
fn cut(start: usize, length: usize) -> [usize; 3] {
    let head = (start.next_multiple_of(LINE_BYTES) - start).min(length);
    let tail = (length - head) % LINE_BYTES;
    [head, length - head - tail, tail]
}

impl Dma {
    /// DMA with `table` and [`bounce`].
    ///
    /// # Safety
    /// 1. Both are valid for reads and writes for ever.
    /// 2. They are mapped one to one.
    /// 3. Nobody else uses them.
    pub unsafe fn new(
        table: NonNull<Table>,
        bounce: NonNull<[u8]>,
        windows: DmaWindows,
        cache: &'static dyn Cache,
    ) -> Dma {
        Dma { table, bounce, windows, cache }
    }

    /// Where the controller sees memory, if it does.
    fn bus_address(&self, address: usize, length: usize) -> Option<u32> {
        let address = address as u64;
        let end = address.checked_add(length as u64)?;
        self.windows.iter().find_map(|window| {
            let range = window.memory.range();
            if address < range.start || end > range.end {
                return None;
            }
            let bus = window.bus_address.checked_add(address - range.start)?;
            // The last byte too lies in 32 bits.
            u32::try_from(bus.checked_add(length as u64 - 1)?).ok()?;
            u32::try_from(bus).ok()
        })
    }

    fn edge(&self, index: usize) -> NonNull<u8> {
        // SAFETY: a place in the table, which is valid.
        unsafe { NonNull::new_unchecked(addr_of_mut!((*self.table.as_ptr()).edges[index])).cast() }
    }

    /// Writes the descriptors for a buffer of at most [`LARGEST`] bytes, and hands memory over to
    /// the controller. Gives the table's address on the bus; `None` if the controller does not reach
    /// the table or the buffer.
    pub fn prepare(&mut self, memory: NonNull<[u8]>) -> Option<u32> {
        let start = memory.cast::<u8>().as_ptr() as usize;
        let [head, middle, tail] = cut(start, memory.len());
        let edge = |index| self.edge(index).as_ptr() as usize;
        let mut pieces = 0;
        let mut describe = |address: usize, length: usize| {
            let mut done = 0;
            while done < length {
                let piece = (length - done).min(PIECE);
                let address = self.bus_address(address + done, piece)?;
                let descriptor = [(piece as u32) << 16 | TRANSFER | VALID, address];
                // SAFETY: a place in the table, which is valid; the controller is not using it.
                unsafe { (*self.table.as_ptr()).descriptors[pieces] = descriptor };
                pieces += 1;
                done += piece;
            }
            Some(())
        };
        describe(edge(0), head)?;
        describe(start + head, middle)?;
        describe(edge(1), tail)?;
        // SAFETY: as above.
        unsafe { (*self.table.as_ptr()).descriptors[pieces.checked_sub(1)?][0] |= END };
        let table = self.table.as_ptr() as usize;
        let on_bus = self.bus_address(table, size_of::<Table>())?;
        self.hand_over(start + head, middle);
        Some(on_bus)
    }

    /// Starts the bounce buffer with `bytes`, at most [`BOUNCE_BYTES`].
    pub fn fill_bounce(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= BOUNCE_BYTES, "{} bytes", bytes.len());
        // SAFETY: it is valid and this value's alone, and no controller uses it now.
        unsafe {
            self.bounce
                .cast()
                .copy_from_nonoverlapping(NonNull::from(bytes).cast::<u8>(), bytes.len())
        };
    }

    /// [`prepare`](Dma::prepare) with the first `length` bytes of the bounce buffer, at most
    /// [`BOUNCE_BYTES`].
    pub fn prepare_bounce(&mut self, length: usize) -> Option<u32> {
        self.prepare(NonNull::slice_from_raw_parts(self.bounce.cast(), length))
    }

    /// Takes the bounce buffer back from the controller, and copies its first `length` bytes, those that
    /// were prepared, to those of `buffer` from `at` on.
    pub fn finish_bounce(&mut self, buffer: &mut Buffer, at: usize, length: usize) {
        let bounce = self.bounce.cast::<u8>();
        self.hand_over(bounce.as_ptr() as usize, length);
        // SAFETY: it is valid and this value's alone, and the controller is done with it.
        let bytes = unsafe { NonNull::slice_from_raw_parts(bounce, length).as_ref() };
        buffer.fill_part(at, bytes);
    }

    /// Copies the edges, and takes all lines back from the controller, which is done with the bytes
    /// of `buffer` from `at` on, those that were prepared.
    pub fn finish(&mut self, buffer: &mut Buffer, at: usize, length: usize) {
        let start = buffer.part(at, length).cast::<u8>().as_ptr() as usize;
        let [head, middle, tail] = cut(start, length);
        self.hand_over(start + head, middle);
        let mut take = |index, to, length: usize| {
            let mut bytes = [0; LINE_BYTES];
            for (i, byte) in bytes[..length].iter_mut().enumerate() {
                // SAFETY: a byte of the table. The controller wrote it behind the compiler's back.
                *byte = unsafe { self.edge(index).add(i).read_volatile() };
            }
            buffer.fill_part(to, &bytes[..length]);
        };
        take(0, at, head);
        take(1, at + head + middle, tail);
    }

    /// Makes the caches forget the whole lines of a buffer, and the table.
    fn hand_over(&self, lines: usize, length: usize) {
        let table = self.table.as_ptr() as u64;
        // SAFETY: both are mapped: the table says `new`, and the lines are those of a buffer.
        unsafe {
            self.cache.clean_and_invalidate(table..table + size_of::<Table>() as u64);
            self.cache.clean_and_invalidate(lines as u64..(lines + length) as u64);
        }
    }
}
