//! Memory that is lent to a device.

use core::ptr::NonNull;

/// Memory that a device may fill.
///
/// A buffer is a pointer and not a `&mut [u8]`. The reason is a device that has gone silent: it may
/// write to the memory long after the read was given up.
#[derive(Debug)]
pub struct Buffer(NonNull<[u8]>);

// SAFETY: by the contract of `Buffer::new` nothing else touches the memory, so it does not matter
// which core uses the buffer.
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

    /// Number of bytes in the buffer.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory, for a driver.
    pub fn as_ptr(&self) -> NonNull<[u8]> {
        self.0
    }

    /// Splits the buffer into the first `at` bytes and the rest.
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
    /// If there are fewer bytes.
    pub fn part(&self, at: usize, len: usize) -> NonNull<[u8]> {
        assert!(at <= self.len() && len <= self.len() - at, "{len} bytes at {at}");
        // SAFETY: `at` lies inside the buffer or at its end.
        NonNull::slice_from_raw_parts(unsafe { self.0.cast::<u8>().add(at) }, len)
    }

    /// Fills the bytes from `at` on from `data`.
    ///
    /// # Panics
    /// If the buffer has fewer bytes.
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
        // overlap `data`. The lengths are equal.
        unsafe {
            self.0.cast::<u8>().copy_from_nonoverlapping(NonNull::from(data).cast(), data.len())
        }
    }
}
