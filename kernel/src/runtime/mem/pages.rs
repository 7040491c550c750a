//! Memory in pages of its own, which can be made read-only: the model's, once it is loaded.
//!
//! It is the heap's. A small machine has all of that in pages on its map, and any will do. Larger ones have it
//! in blocks of [`BLOCK_SIZE`], which a piece of memory then has to itself, up to the last one: that is split into
//! pages while nobody else has anything there, and its end goes back to the heap. So no core ever finds memory
//! missing that it uses, and what is wasted is less than a page.

use alloc::alloc::{Layout, alloc, dealloc};
use alloc::vec::Vec;
use core::arch::asm;
use core::ops::Range;
use core::ptr::NonNull;
use core::slice;

use super::heap;
use super::mmu::{BLOCK_SIZE, MapError, PAGE_SIZE, Tables};
use crate::runtime::arch::lock::SpinLock;

static MAP: SpinLock<Option<Map>> = SpinLock::new(None);

/// The tables that the processors walk, and the pieces of memory that can be changed there.
struct Map {
    tables: Tables<'static>,
    pieces: Vec<Piece>,
}

/// A piece of the heap.
struct Piece {
    start: NonNull<u8>,
    /// What the heap gave.
    layout: Layout,
    /// What was asked for, in whole pages.
    pages: Range<u64>,
}

// SAFETY: it owns the memory, of which it touches nothing.
unsafe impl Send for Piece {}

impl Piece {
    /// `bytes` bytes, more than 0, on a multiple of `align`.
    fn allocate(bytes: usize, align: u64) -> Option<Piece> {
        let layout = Layout::from_size_align(bytes, align as usize).ok()?;
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        let at = start.as_ptr().expose_provenance() as u64;
        Some(Piece { start, layout, pages: at..at + bytes as u64 })
    }

    /// Gives it back to the heap.
    ///
    /// # Safety
    /// Nobody uses it any more.
    unsafe fn free(self) {
        // SAFETY: allocated with this layout; the rest is upheld by the caller.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Keeps the tables of the final map.
pub fn keep(tables: Tables<'static>) {
    *MAP.lock() = Some(Map { tables, pieces: Vec::new() });
}

/// `bytes` bytes or a few more, to a whole page, that can be read and written; `None` if there are not as
/// many in one piece. What is in them is left from before.
pub fn map(bytes: usize) -> Option<NonNull<u8>> {
    let bytes = bytes.max(1).checked_next_multiple_of(PAGE_SIZE as usize)?;
    let mut map = MAP.lock();
    let Map { tables, pieces } = map.as_mut()?;
    let piece = Piece::allocate(bytes, PAGE_SIZE)?;
    let piece = if tables.check_divisible(&piece.pages).is_ok() {
        piece
    } else {
        // SAFETY: nobody has used it yet.
        unsafe { piece.free() };
        in_blocks(tables, bytes)?
    };
    let start = piece.start;
    pieces.push(piece);
    Some(start)
}

/// As [`map`], on a block of its own.
fn in_blocks(tables: &mut Tables<'_>, bytes: usize) -> Option<Piece> {
    let blocks = bytes.checked_next_multiple_of(BLOCK_SIZE as usize)?;
    let shorter = Layout::from_size_align(bytes, BLOCK_SIZE as usize).ok()?;
    let mut piece = Piece::allocate(blocks, BLOCK_SIZE)?;
    if bytes == blocks {
        return Some(piece);
    }
    // All of the last block is ours, as `split` needs it.
    match tables.split(piece.pages.end - BLOCK_SIZE, forget) {
        Ok(()) => {
            publish();
            // SAFETY: the heap gave the piece with that layout, and nobody uses it yet.
            unsafe { heap::shrink(piece.start, piece.layout, bytes) };
            piece.layout = shorter;
        }
        Err(error) => log::warn!("some memory cannot be protected: {error}"),
    }
    piece.pages.end = piece.pages.start + bytes as u64;
    Some(piece)
}

/// Gives back all the pages of one [`map`].
///
/// # Errors
/// They are not.
///
/// # Safety
/// They are not used afterwards.
pub unsafe fn unmap(start: *mut u8, bytes: usize) -> Result<(), MapError> {
    let pages = whole_pages(start, bytes)?;
    let mut map = MAP.lock();
    let bad_range = MapError::BadRange { start: pages.start, end: pages.end };
    let Some(Map { tables, pieces }) = &mut *map else { return Err(bad_range) };
    let place = pieces.iter().position(|piece| piece.pages == pages).ok_or(bad_range)?;
    // Where that is not possible, they never were anything else.
    if tables.set_writable(pages, true).is_ok() {
        forget();
    }
    // SAFETY: upheld by the caller.
    unsafe { pieces.swap_remove(place).free() };
    Ok(())
}

/// Makes pages within one [`map`] read-only on all cores, or writable again.
///
/// # Errors
/// They are not, or the map does not have them by themselves, for want of tables.
///
/// # Safety
/// Nobody writes to what is read-only.
pub unsafe fn set_writable(start: *mut u8, bytes: usize, writable: bool) -> Result<(), MapError> {
    let pages = whole_pages(start, bytes)?;
    let mut map = MAP.lock();
    let bad_range = MapError::BadRange { start: pages.start, end: pages.end };
    let Some(Map { tables, pieces }) = &mut *map else { return Err(bad_range) };
    let holds = |piece: &Piece| piece.pages.start <= pages.start && pages.end <= piece.pages.end;
    if !pieces.iter().any(holds) {
        return Err(bad_range);
    }
    tables.set_writable(pages, writable)?;
    forget();
    Ok(())
}

/// Bytes in pages, for the runtime's own use.
#[derive(Default)]
pub struct PageBuffer {
    /// As many bytes of one [`map`], initialised.
    memory: Option<(NonNull<u8>, usize)>,
}

impl PageBuffer {
    /// Makes it at least `bytes` bytes long, the new ones zeros. False if there is no such memory.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let length = self.bytes().len();
        if bytes <= length {
            return true;
        }
        let Some(start) = map(bytes) else { return false };
        // SAFETY: as many bytes are there, and nobody else has them.
        unsafe {
            start.as_ptr().copy_from_nonoverlapping(self.bytes().as_ptr(), length);
            start.add(length).write_bytes(0, bytes - length);
        }
        *self = PageBuffer { memory: Some((start, bytes)) };
        true
    }

    /// All bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        let (start, length) = self.memory.unwrap_or((NonNull::dangling(), 0));
        // SAFETY: as many initialised bytes are there, and they are this buffer's.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), length) }
    }

    /// All bytes, which nobody gives back, and nobody writes to any more.
    pub fn leak_read_only(self) -> &'static [u8] {
        let Some((start, length)) = self.memory else { return &[] };
        core::mem::forget(self);
        // SAFETY: they are mapped, and are only read from here on.
        if let Err(error) = unsafe { set_writable(start.as_ptr(), length, false) } {
            log::warn!("memory cannot be made read-only: {error}");
        }
        // SAFETY: as many initialised bytes are there for good.
        unsafe { slice::from_raw_parts(start.as_ptr(), length) }
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        if let Some((start, length)) = self.memory {
            // SAFETY: mapped in `grow`, all in one, and nobody uses them any more.
            let _ = unsafe { unmap(start.as_ptr(), length) };
        }
    }
}

/// The pages of which the first starts at `start` and the last holds the last of the bytes.
fn whole_pages(start: *mut u8, bytes: usize) -> Result<Range<u64>, MapError> {
    let start = start.expose_provenance() as u64;
    let end =
        start.checked_add(bytes as u64).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
    end.map(|end| start..end).ok_or(MapError::BadRange { start, end: u64::MAX })
}

/// Makes every core forget what it knows of the map, so that it looks at the tables again.
fn forget() {
    // SAFETY: what the tables say is as good as what is forgotten: an identity map, with permissions that
    // the callers have changed.
    unsafe { asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb", options(nostack)) };
}

/// Lets every core see descriptors where there were none.
pub fn publish() {
    // SAFETY: barriers change nothing.
    unsafe { asm!("dsb ishst", "isb", options(nostack)) };
}
