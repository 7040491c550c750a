//! Memory that the engine takes once: the model's bytes and the scratch arena.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use crate::llm::Error;
use crate::llm::quantize::{BlockQ8_0, BlockQ8_0x4, BlockQ8_1, BlockQ8_1x4, BlockQ8K, BlockQ8Kx4};
use crate::llm::sampling::Candidate;

/// Alignment of buffers: a page.
///
/// A disk's DMA can fill a page, and no cache line is shared with other memory.
const ALIGNMENT: usize = 4096;

/// Memory in pages of its own, which can be made read-only.
///
/// An operating system implements this.
///
/// # Safety
/// An implementation keeps what each method's "Implementation safety" lists.
pub unsafe trait Pages: fmt::Debug + Sync {
    /// Maps `bytes` bytes, more than 0, with unknown contents. `None` if the memory does not
    /// suffice.
    ///
    /// # Implementation safety
    /// Until the bytes go to [`Pages::unmap`]:
    ///
    /// 1. Their address stays the same, and is a multiple of 4096.
    /// 2. They are valid for reads and, until they go to [`Pages::protect`], for writes.
    /// 3. Nobody else uses them.
    fn map(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Makes bytes read-only, if that is possible.
    ///
    /// # Implementation safety
    /// The contents of the bytes stay the same.
    ///
    /// # Safety
    /// 1. The bytes are all those of one [`Pages::map`].
    /// 2. Nobody writes to them any more.
    unsafe fn protect(&self, start: NonNull<u8>, bytes: usize);

    /// Gives bytes back.
    ///
    /// # Safety
    /// 1. The bytes are all those of one [`Pages::map`].
    /// 2. Nobody uses them any more.
    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize);

    /// Whether `bytes` contiguous bytes are free. `bytes` is more than 0.
    fn has(&self, bytes: usize) -> bool {
        // SAFETY: just mapped, and nobody else knows of them.
        self.map(bytes).map(|start| unsafe { self.unmap(start, bytes) }).is_some()
    }
}

/// The bytes of a model, aligned to a page.
#[derive(Debug)]
pub struct ModelBuffer {
    start: NonNull<u8>,
    len: usize,
    /// Where the memory is from, if not from the allocator.
    pages: Option<&'static dyn Pages>,
}

// SAFETY: the buffer is owned memory without interior mutability, as a `Box<[u8]>`.
unsafe impl Send for ModelBuffer {}
// SAFETY: as above.
unsafe impl Sync for ModelBuffer {}

impl ModelBuffer {
    fn layout(len: usize) -> Option<Layout> {
        // An allocation of no bytes is undefined, so that one takes a byte.
        Layout::from_size_align(len.max(1), ALIGNMENT).ok()
    }

    /// A buffer of `len` zeros.
    ///
    /// Clearing costs little against reading and hashing a model, and keeps every step of the load
    /// safe code.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(len: usize) -> Result<Self, Error> {
        let no_memory = Error::OutOfMemory { what: "the model", asked: len as u64 };
        let Some(layout) = Self::layout(len) else { return Err(no_memory) };
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(no_memory)?;
        Ok(ModelBuffer { start, len, pages: None })
    }

    /// A buffer of `len` zeros in memory that [`ModelBuffer::finish`] makes read-only.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new_in(pages: &'static dyn Pages, len: usize) -> Result<Self, Error> {
        let no_memory = Error::OutOfMemory { what: "the model", asked: len as u64 };
        let start = pages.map(len.max(1)).ok_or(no_memory)?;
        // SAFETY: `map` gave `len.max(1)` bytes, which are valid for writes.
        unsafe { start.write_bytes(0, len) };
        Ok(ModelBuffer { start, len, pages: Some(pages) })
    }

    /// Makes the bytes final. If they are in [`Pages`], a write to them faults from now on.
    pub fn finish(self) -> ModelBytes {
        if let Some(pages) = self.pages {
            // SAFETY: `try_new_in` mapped these bytes. `ModelBytes` holds them from now on and
            // never writes.
            unsafe { pages.protect(self.start, self.len.max(1)) };
        }
        ModelBytes(self)
    }

    /// All bytes, for the disk to fill.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self
    }
}

impl From<&[u8]> for ModelBuffer {
    /// Copies the bytes.
    ///
    /// # Panics
    /// There is not enough memory, as with `Vec`.
    fn from(bytes: &[u8]) -> Self {
        let Ok(mut buffer) = ModelBuffer::try_new(bytes.len()) else {
            panic!("no memory for a copy of {} bytes", bytes.len());
        };
        buffer.copy_from_slice(bytes);
        buffer
    }
}

impl Deref for ModelBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the constructors made `len` initialised bytes there, which `self` owns.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for ModelBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for ModelBuffer {
    fn drop(&mut self) {
        if let Some(pages) = self.pages {
            // SAFETY: `try_new_in` mapped these bytes, and nothing uses them any more.
            unsafe { pages.unmap(self.start, self.len.max(1)) };
        } else if let Some(layout) = Self::layout(self.len) {
            // SAFETY: `try_new` allocated it with this layout, and nothing uses it any more.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

/// The final bytes of a model, read-only where the memory can be.
#[derive(Debug)]
pub struct ModelBytes(ModelBuffer);

impl From<&[u8]> for ModelBytes {
    /// Copies the bytes.
    ///
    /// # Panics
    /// There is not enough memory, as with `Vec`.
    fn from(bytes: &[u8]) -> Self {
        ModelBuffer::from(bytes).finish()
    }
}

impl Deref for ModelBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The name of an arena's memory in errors.
pub const ARENA: &str = "scratch memory";

/// Types that every pattern of bits is a value of.
///
/// # Safety
/// 1. The type has no padding.
/// 2. Each pattern of bits is a value of it.
/// 3. It has no interior mutability.
/// 4. It has no `Drop`.
pub unsafe trait Plain: Copy {}

// SAFETY: numbers are.
unsafe impl Plain for f32 {}
// SAFETY: numbers are.
unsafe impl Plain for u32 {}
// SAFETY: its fields are, and they leave no gap (asserted below).
unsafe impl Plain for BlockQ8_0 {}
// SAFETY: its fields are, and they leave no gap (asserted below).
unsafe impl Plain for BlockQ8_1 {}
// SAFETY: its fields are, and they leave no gap (asserted below).
unsafe impl Plain for BlockQ8K {}
// SAFETY: its fields are, and they leave no gap (asserted below).
unsafe impl Plain for BlockQ8_0x4 {}
// SAFETY: its fields are, and they leave no gap (asserted below).
unsafe impl Plain for BlockQ8_1x4 {}
// SAFETY: its fields are, and they leave no gap (asserted below).
unsafe impl Plain for BlockQ8Kx4 {}
// SAFETY: its fields are, and they leave no gap (asserted below).
unsafe impl Plain for Candidate {}

const _: () = assert!(
    size_of::<BlockQ8_0>() == 32 + 8
        && size_of::<BlockQ8_1>() == 32 + 8
        && size_of::<BlockQ8K>() == 256 + 64 + 32 + 4
        && size_of::<BlockQ8_0x4>() == 4 * size_of::<BlockQ8_0>()
        && size_of::<BlockQ8_1x4>() == 4 * size_of::<BlockQ8_1>()
        && size_of::<BlockQ8Kx4>() == 4 * size_of::<BlockQ8K>()
        && size_of::<Candidate>() == 4 + 4 + 4
);

/// Scratch memory, allocated once and given out in frames.
#[derive(Debug)]
pub struct Arena {
    memory: ModelBuffer,
    peak: usize,
}

/// Alignment of each slice that a frame gives out: a cache line.
const LINE: usize = 64;

/// Bytes that a slice of `n` values takes in an arena.
pub const fn slice_bytes<T: Plain>(n: usize) -> usize {
    n.saturating_mul(size_of::<T>()).saturating_add(LINE - 1) & !(LINE - 1)
}

impl Arena {
    /// An arena of `bytes` bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(bytes: usize) -> Result<Self, Error> {
        let no_memory = |_| Error::OutOfMemory { what: ARENA, asked: bytes as u64 };
        Ok(Arena { memory: ModelBuffer::try_new(bytes).map_err(no_memory)?, peak: 0 })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// The most bytes ever in use.
    pub fn peak_bytes(&self) -> usize {
        self.peak
    }

    /// A frame over the whole arena.
    ///
    /// Its slices live until the frame's borrow ends.
    pub fn frame(&mut self) -> Frame<'_> {
        let total = self.memory.len();
        Frame { rest: &mut self.memory, total, peak: &mut self.peak }
    }
}

/// One round of use of an [`Arena`].
#[derive(Debug)]
pub struct Frame<'a> {
    rest: &'a mut [u8],
    total: usize,
    peak: &'a mut usize,
}

impl<'a> Frame<'a> {
    /// Takes a slice of `n` values, which are left from earlier frames.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the arena has no room left.
    pub fn take<T: Plain>(&mut self, n: usize) -> Result<&'a mut [T], Error> {
        const { assert!(align_of::<T>() <= LINE && !core::mem::needs_drop::<T>()) };
        let bytes = slice_bytes::<T>(n);
        let rest = core::mem::take(&mut self.rest);
        if bytes > rest.len() {
            self.rest = rest;
            return Err(Error::OutOfMemory { what: ARENA, asked: bytes as u64 });
        }
        let (taken, rest) = rest.split_at_mut(bytes);
        self.rest = rest;
        *self.peak = (*self.peak).max(self.total - self.rest.len());
        // SAFETY: `taken` is borrowed for 'a and holds `n` values. It starts a multiple of LINE
        // bytes behind the start of the memory, which is aligned to a page, and T's alignment
        // divides LINE. Every pattern of bits is a T, and writing T leaves no padding, by `Plain`.
        Ok(unsafe { core::slice::from_raw_parts_mut(taken.as_mut_ptr().cast::<T>(), n) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::alloc::alloc;
    use alloc::vec::Vec;

    #[test]
    fn buffers_are_aligned_and_hold_what_was_written() {
        for len in [0, 1, 4097] {
            let mut buffer = ModelBuffer::try_new(len).unwrap();
            assert_eq!(buffer.as_ptr() as usize % 4096, 0);
            assert!(buffer.iter().all(|&b| b == 0) && buffer.len() == len);
            buffer.fill(7);
            assert!(ModelBuffer::from(&buffer[..]).iter().all(|&b| b == 7));
        }
    }

    /// Pages from the allocator, which record each call.
    #[derive(Debug)]
    struct Played(spin::Mutex<Vec<(&'static str, usize, usize)>>);

    // SAFETY: it is the allocator's memory, which is aligned so.
    unsafe impl Pages for Played {
        fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
            let layout = Layout::from_size_align(bytes, 4096).ok().filter(|_| bytes <= 8191)?;
            // SAFETY: the size is not 0.
            let start = NonNull::new(unsafe { alloc(layout) })?;
            // SAFETY: the allocation has `bytes` bytes.
            unsafe { start.write_bytes(0xa5, bytes) };
            self.0.lock().push(("map", start.addr().get(), bytes));
            Some(start)
        }

        unsafe fn protect(&self, start: NonNull<u8>, bytes: usize) {
            self.0.lock().push(("protect", start.addr().get(), bytes));
        }

        unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
            self.0.lock().push(("unmap", start.addr().get(), bytes));
            // SAFETY: allocated in `map`, and no longer used, says the caller.
            unsafe { dealloc(start.as_ptr(), Layout::from_size_align(bytes, 4096).unwrap()) };
        }
    }

    #[test]
    fn finished_bytes_are_protected_until_they_are_given_up() {
        static PAGES: Played = Played(spin::Mutex::new(Vec::new()));
        for (len, mapped) in [(8191, 8191), (0, 1)] {
            let mut buffer = ModelBuffer::try_new_in(&PAGES, len).unwrap();
            let start = buffer.as_ptr().addr();
            assert!(buffer.iter().all(|&b| b == 0) && buffer.len() == len);
            buffer.fill(7);
            assert_eq!(*PAGES.0.lock(), [("map", start, mapped)], "it is still written to");
            let bytes = buffer.finish();
            assert!(bytes.iter().all(|&b| b == 7) && bytes.len() == len);
            assert_eq!(PAGES.0.lock()[1..], [("protect", start, mapped)]);
            drop(bytes);
            assert_eq!(PAGES.0.lock()[2..], [("unmap", start, mapped)]);
            PAGES.0.lock().clear();
        }
        // A buffer that is not finished is unmapped as well.
        drop(ModelBuffer::try_new_in(&PAGES, 1).unwrap());
        assert!(matches!(PAGES.0.lock()[..], [("map", ..), ("unmap", ..)]));
        assert_eq!([8191, 8192].map(|bytes| PAGES.has(bytes)), [true, false]);
        assert!(matches!(PAGES.0.lock()[2..], [("map", .., 8191), ("unmap", .., 8191)]));
        let error = ModelBuffer::try_new_in(&PAGES, 8192).unwrap_err();
        assert_eq!(error, Error::OutOfMemory { what: "the model", asked: 8192 });
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where memory does")]
    fn a_buffer_larger_than_the_memory_is_an_error() {
        for asked in [usize::MAX, usize::MAX / 2, 1 << 60] {
            let error = ModelBuffer::try_new(asked).unwrap_err();
            assert_eq!(error, Error::OutOfMemory { what: "the model", asked: asked as u64 });
        }
    }

    #[test]
    fn frames_give_out_disjoint_slices_and_count_the_peak() {
        let mut arena = Arena::try_new(4 * LINE).unwrap();
        assert_eq!((arena.bytes(), arena.peak_bytes()), (256, 0));
        let mut frame = arena.frame();
        let a = frame.take::<f32>(17).unwrap();
        let b = frame.take::<u32>(3).unwrap();
        a.fill(1.5);
        b.fill(7);
        assert!(a.iter().all(|&x| x == 1.5) && a.len() == 17);
        assert_eq!(b.as_ptr() as usize % LINE, 0);
        assert_eq!(frame.take::<f32>(17), Err(Error::OutOfMemory { what: ARENA, asked: 128 }));
        frame.take::<f32>(16).unwrap();
        assert!(frame.take::<f32>(usize::MAX).is_err());
        assert_eq!(arena.peak_bytes(), 256);
        arena.frame().take::<f32>(1).unwrap();
        assert_eq!(arena.peak_bytes(), 256);
    }
}
