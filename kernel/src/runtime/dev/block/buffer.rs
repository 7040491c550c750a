//! Memory that is lent to a device.

use core::ptr::NonNull;

/// A stretch of memory that a device may fill.
///
/// It is a pointer and not a `&mut [u8]`, because a device that has gone silent may write to it
/// long after the read was given up.
#[derive(Debug)]
pub struct Buffer(NonNull<[u8]>);

// SAFETY: whoever made the buffer promised in `Buffer::new` that nothing else touches the memory,
// so it does not matter which core uses it.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Lends `memory` to a device.
    ///
    /// # Safety
    /// 1. The memory is valid for writes until the read that the buffer goes into has returned.
    /// 2. Nobody else reads or writes it until then.
    /// 3. If that read ends in [`DiskError::Silent`](super::DiskError::Silent), the memory stays
    ///    the device's: it is never freed or used again.
    pub unsafe fn new(memory: NonNull<[u8]>) -> Buffer {
        Buffer(memory)
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory, for a driver.
    pub fn as_ptr(&self) -> NonNull<[u8]> {
        self.0
    }

    /// The first `at` bytes, and the rest.
    ///
    /// # Panics
    /// If there are fewer than `at` bytes.
    pub fn split_at(self, at: usize) -> (Buffer, Buffer) {
        assert!(at <= self.len(), "split of {} bytes at {at}", self.len());
        let first = self.0.cast::<u8>();
        // SAFETY: `at` lies inside the buffer or at its end.
        let second = unsafe { first.add(at) };
        let part = |start, len| Buffer(NonNull::slice_from_raw_parts(start, len));
        (part(first, at), part(second, self.len() - at))
    }

    /// The `len` bytes from `at` on, for a driver.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn part(&self, at: usize, len: usize) -> NonNull<[u8]> {
        assert!(at <= self.len() && len <= self.len() - at, "{len} bytes at {at}");
        // SAFETY: `at` lies inside the buffer or at its end.
        NonNull::slice_from_raw_parts(unsafe { self.0.cast::<u8>().add(at) }, len)
    }

    /// Fills the bytes from `at` on from `data`.
    ///
    /// # Panics
    /// If the buffer ends before.
    pub fn fill_part(&mut self, at: usize, data: &[u8]) {
        Buffer(self.part(at, data.len())).fill_from(data);
    }

    /// Fills the buffer from `data`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn fill_from(&mut self, data: &[u8]) {
        assert_eq!(self.len(), data.len(), "the buffer and the data differ in length");
        // SAFETY: the buffer is valid for writes and nobody else's (`Buffer::new`), so it does not
        // overlap `data`, and the lengths are equal.
        unsafe {
            self.0.cast::<u8>().copy_from_nonoverlapping(NonNull::from(data).cast(), data.len())
        }
    }
}
