//! Memory in pages of its own, which can be made read-only.
//!
//! The loaded model is in such pages. The memory comes from the heap. A small machine has the whole
//! heap mapped in pages, so any memory will do. A larger machine has the heap in blocks of
//! [`BLOCK_SIZE`], and an allocation here has its blocks to itself.
//!
//! The last block of an allocation is split into pages while nobody else uses the block. The end of
//! that block goes back to the heap. So memory in use never leaves the map, and less than a page is
//! wasted.

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

/// The tables that the processors walk, and the pieces that can be protected.
struct Map {
    tables: Tables<'static>,
    pieces: Vec<Piece>,
}

/// An allocation from the heap.
struct Piece {
    start: NonNull<u8>,
    /// The layout of the allocation.
    layout: Layout,
    /// The requested memory, in whole pages.
    pages: Range<u64>,
}

// SAFETY: the piece owns the memory, and accesses none of it.
unsafe impl Send for Piece {}

impl Piece {
    /// Allocates `bytes` bytes, more than 0, on a multiple of `align`.
    fn allocate(bytes: usize, align: u64) -> Option<Piece> {
        let layout = Layout::from_size_align(bytes, align as usize).ok()?;
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        let at = start.as_ptr().expose_provenance() as u64;
        Some(Piece { start, layout, pages: at..at + bytes as u64 })
    }

    /// Frees the piece.
    ///
    /// # Safety
    /// Nobody uses the piece any more.
    unsafe fn free(self) {
        // SAFETY: the piece is allocated with this layout. The caller upholds the rest.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Keeps the tables of the final map.
pub fn keep(tables: Tables<'static>) {
    *MAP.lock() = Some(Map { tables, pieces: Vec::new() });
}

/// Allocates `bytes` bytes in whole pages, for reading and writing.
///
/// The pages are contiguous, and keep their old contents. The result is `None` if there is no such
/// contiguous memory.
pub fn map(bytes: usize) -> Option<NonNull<u8>> {
    let bytes = bytes.max(1).checked_next_multiple_of(PAGE_SIZE as usize)?;
    let mut map = MAP.lock();
    let Map { tables, pieces } = map.as_mut()?;
    let piece = Piece::allocate(bytes, PAGE_SIZE)?;
    let piece = if tables.check_divisible(&piece.pages).is_ok() {
        piece
    } else {
        // SAFETY: nobody has used the piece yet.
        unsafe { piece.free() };
        in_blocks(tables, bytes)?
    };
    let start = piece.start;
    pieces.push(piece);
    Some(start)
}

/// Allocates as [`map`] does, in blocks of its own.
fn in_blocks(tables: &mut Tables<'_>, bytes: usize) -> Option<Piece> {
    let blocks = bytes.checked_next_multiple_of(BLOCK_SIZE as usize)?;
    let shorter = Layout::from_size_align(bytes, BLOCK_SIZE as usize).ok()?;
    let mut piece = Piece::allocate(blocks, BLOCK_SIZE)?;
    if bytes == blocks {
        return Some(piece);
    }
    // The whole last block belongs to this piece, as `split` requires.
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

/// Frees all pages of one [`map`].
///
/// # Errors
/// The pages are not those of one [`map`].
///
/// # Safety
/// The pages are not used afterwards.
pub unsafe fn unmap(start: *mut u8, bytes: usize) -> Result<(), MapError> {
    let pages = whole_pages(start, bytes)?;
    let mut map = MAP.lock();
    let bad_range = MapError::BadRange { start: pages.start, end: pages.end };
    let Some(Map { tables, pieces }) = &mut *map else { return Err(bad_range) };
    let place = pieces.iter().position(|piece| piece.pages == pages).ok_or(bad_range)?;
    // If that is not possible, the pages never were read-only.
    if tables.set_writable(pages, true).is_ok() {
        forget();
    }
    // SAFETY: upheld by the caller.
    unsafe { pieces.swap_remove(place).free() };
    Ok(())
}

/// Makes pages within one [`map`] read-only or writable, on all cores.
///
/// # Errors
/// The pages are not within one [`map`], or are mapped in larger blocks for want of tables.
///
/// # Safety
/// Nobody writes to read-only pages.
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

/// A buffer in whole pages, for the runtime's own use.
#[derive(Default)]
pub struct PageBuffer {
    /// The start and the length of the memory of one [`map`], all of it initialised.
    memory: Option<(NonNull<u8>, usize)>,
}

impl PageBuffer {
    /// Grows the buffer to at least `bytes` bytes; false without such memory.
    ///
    /// The new bytes are zeros.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let length = self.bytes().len();
        if bytes <= length {
            return true;
        }
        let Some(start) = map(bytes) else { return false };
        // SAFETY: the memory has that many bytes, and nobody else has it.
        unsafe {
            start.as_ptr().copy_from_nonoverlapping(self.bytes().as_ptr(), length);
            start.add(length).write_bytes(0, bytes - length);
        }
        *self = PageBuffer { memory: Some((start, bytes)) };
        true
    }

    /// All bytes of the buffer.
    pub fn bytes(&mut self) -> &mut [u8] {
        let (start, length) = self.memory.unwrap_or((NonNull::dangling(), 0));
        // SAFETY: that many initialised bytes are there, and belong to this buffer.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), length) }
    }

    /// Leaks all bytes. From now on nobody writes to the bytes.
    pub fn leak_read_only(self) -> &'static [u8] {
        let Some((start, length)) = self.memory else { return &[] };
        core::mem::forget(self);
        // SAFETY: the bytes are mapped, and are only read from here on.
        if let Err(error) = unsafe { set_writable(start.as_ptr(), length, false) } {
            log::warn!("memory cannot be made read-only: {error}");
        }
        // SAFETY: that many initialised bytes are there for good.
        unsafe { slice::from_raw_parts(start.as_ptr(), length) }
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        if let Some((start, length)) = self.memory {
            // SAFETY: `grow` has mapped all bytes in one call, and nobody uses the bytes any more.
            let _ = unsafe { unmap(start.as_ptr(), length) };
        }
    }
}

/// The pages from `start` to the last of the bytes; the first starts at `start`.
fn whole_pages(start: *mut u8, bytes: usize) -> Result<Range<u64>, MapError> {
    let start = start.expose_provenance() as u64;
    let end =
        start.checked_add(bytes as u64).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
    end.map(|end| start..end).ok_or(MapError::BadRange { start, end: u64::MAX })
}

/// Invalidates the TLBs of all cores, so that the cores walk the tables again.
fn forget() {
    // SAFETY: the tables are as good as the cached translations: an identity map, with permissions
    // that the callers have changed.
    unsafe { asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb", options(nostack)) };
}

/// Makes new descriptors visible to all cores, where there were none before.
pub fn publish() {
    // SAFETY: barriers change nothing.
    unsafe { asm!("dsb ishst", "isb", options(nostack)) };
}
