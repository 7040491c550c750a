//! Queues of a virtio device whose buffers driver and device own in turn.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, 2.7 "Split Virtqueues". The crate
//! `virtio-drivers` implements the queue itself.
//!
//! Nothing that the device writes is trusted. The device names a buffer that it has used by a
//! number. A number that no lent buffer has breaks the queue: the queue then takes and gives no
//! more buffers.

use core::ptr::NonNull;

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;

use super::virtio::IdentityHal;
use crate::runtime::dev::mmio::barrier;

/// The side that writes to the buffers of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The driver writes, and the device reads.
    Driver,
    /// The device writes, and the driver reads.
    Device,
}

/// A buffer that is lent to the device.
#[derive(Clone, Copy)]
struct Lent {
    /// The whole buffer.
    buffer: NonNull<[u8]>,
    /// Number of bytes at its start that the device may use.
    bytes: usize,
}

/// A queue of `N` entries, each of which holds one buffer.
///
/// The queue is never freed: a device that has gone silent may still write to it.
pub struct LendingQueue<const N: usize> {
    index: u16,
    writer: Writer,
    queue: VirtQueue<IdentityHal, N>,
    /// The lent buffers, by the number that the device has for each.
    lent: [Option<Lent>; N],
    is_broken: bool,
}

// SAFETY: the pointers are those of buffers that were passed to `lend` as unique references. The
// queue has them alone, together with the device.
unsafe impl<const N: usize> Send for LendingQueue<N> {}

impl<const N: usize> LendingQueue<N> {
    /// Makes the queue `index` of the device behind `transport`, with interrupts suppressed.
    ///
    /// The features that were accepted include neither indirect descriptors nor the event index.
    /// With an event index, a driver cannot suppress interrupts by a flag (2.7.7).
    ///
    /// # Errors
    /// The device has no such queue, or a shorter one; or memory is short.
    pub fn new(
        transport: &mut impl Transport,
        index: u16,
        writer: Writer,
    ) -> virtio_drivers::Result<&'static mut LendingQueue<N>> {
        let mut queue = VirtQueue::new(transport, index, false, false)?;
        queue.set_dev_notify(false);
        let lent = [None; N];
        let queue = LendingQueue { index, writer, queue, lent, is_broken: false };
        Ok(alloc::boxed::Box::leak(alloc::boxed::Box::new(queue)))
    }

    /// Lends the first `bytes` bytes of `buffer` to the device.
    ///
    /// # Errors
    /// The buffer itself, if the queue is full or broken, or `bytes` is 0.
    pub fn lend(
        &mut self,
        buffer: &'static mut [u8],
        bytes: usize,
    ) -> Result<(), &'static mut [u8]> {
        if self.is_broken || bytes == 0 || bytes > buffer.len() {
            return Err(buffer);
        }
        let mut pointer = NonNull::from(&mut *buffer);
        // SAFETY: the memory lives for ever. The queue uses the unique reference no more before
        // `take_back` gets the same number from `pop_used`.
        let number = unsafe {
            let bytes = &mut pointer.as_mut()[..bytes];
            match self.writer {
                Writer::Driver => self.queue.add(&[bytes], &mut []),
                Writer::Device => self.queue.add(&[], &mut [bytes]),
            }
        };
        match number.map(|number| self.lent.get_mut(usize::from(number))) {
            Ok(Some(place)) => {
                *place = Some(Lent { buffer: pointer, bytes });
                Ok(())
            }
            _ => Err(buffer),
        }
    }

    /// Takes back a buffer that the device has used, if there is one.
    ///
    /// The second part of the result is the number of bytes that the device claims to have written.
    /// The number may be any.
    pub fn take_back(&mut self) -> Option<(&'static mut [u8], usize)> {
        if self.is_broken {
            return None;
        }
        let number = self.queue.peek_used()?;
        let lent = self.lent.get(usize::from(number)).copied().flatten();
        let taken = lent.and_then(|Lent { mut buffer, bytes }| {
            // SAFETY: these are the bytes that were lent under this number, and the device is done
            // with them. The reference is the one passed to `lend`, which nobody has had since.
            let (buffer, written) = unsafe {
                let lent = &mut buffer.as_mut()[..bytes];
                let written = match self.writer {
                    Writer::Driver => self.queue.pop_used(number, &[lent], &mut []),
                    Writer::Device => self.queue.pop_used(number, &[], &mut [lent]),
                };
                (buffer.as_mut(), written.ok()?)
            };
            Some((buffer, written as usize))
        });
        match taken {
            Some(_) => self.lent[usize::from(number)] = None,
            None => {
                log::warn!(
                    "virtio queue {}: the device gave back what it does not have",
                    self.index
                );
                self.is_broken = true;
            }
        }
        taken
    }

    /// Whether [`Self::take_back`] would find something.
    pub fn has_used(&self) -> bool {
        !self.is_broken && self.queue.can_pop()
    }

    /// Whether the device has broken the rules of the queue.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Tells the device that buffers were lent, if the device wants to know.
    pub fn notify(&self, transport: &mut impl Transport) {
        barrier();
        if self.queue.should_notify() {
            transport.notify(self.index);
        }
    }

    /// Asks the device for an interrupt when it has used a buffer, or for none.
    ///
    /// The request is a hint: an interrupt may be on its way.
    pub fn set_interrupts(&mut self, wanted: bool) {
        self.queue.set_dev_notify(wanted);
    }
}
