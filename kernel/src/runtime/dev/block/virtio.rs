//! virtio-blk.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, 5.2 "Block Device". The protocol itself is
//! `virtio-drivers`'.

use alloc::boxed::Box;
use alloc::vec::Vec;

use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::Transport;

use super::{BlockDevice, Completion, Request};
use crate::runtime::dev::bus::virtio::{IdentityHal, StartError, begin};
use crate::runtime::machine::Coherence;

/// Entries of the queue that `virtio-drivers` makes for a block device.
const QUEUE_SIZE: usize = 16;
/// A request takes three descriptors: its header, the data, the status.
const DESCRIPTORS: usize = 3;

/// The largest block that a disk may have, in bytes: what the metadata cache reads at once.
const LARGEST_BLOCK: usize = 64 << 10;

/// `VIRTIO_BLK_F_BLK_SIZE`: the configuration says how large a block is.
const FEATURE_BLK_SIZE: u64 = 1 << 6;
/// `VIRTIO_F_INDIRECT_DESC`: a request takes one entry of the queue, its descriptors lie elsewhere.
const FEATURE_INDIRECT_DESC: u64 = 1 << 28;
/// Offset of `blk_size` in `virtio_blk_config`.
const CONFIG_BLK_SIZE: usize = 20;

/// A virtio block device.
///
/// It is never freed: a device that was given up may still write to its queue.
pub struct VirtioDisk<T: Transport + 'static> {
    name: &'static str,
    driver: &'static mut VirtIOBlk<IdentityHal, T>,
    slots: &'static mut [Slot],
    sector_bytes: usize,
}

/// A request on its way through the device.
#[derive(Default)]
struct Slot {
    state: State,
    header: BlkReq,
    status: BlkResp,
}

#[derive(Default)]
enum State {
    #[default]
    Free,
    /// The device has it, under this token.
    Waiting(u16, Request),
    /// The driver would not take it.
    Refused(Request),
}

impl<T: Transport> VirtioDisk<T> {
    /// Starts the block device behind `transport`. `name` is for the `disk` event, `coherence` what
    /// the device tree says of it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(
        mut transport: T,
        name: &'static str,
        coherence: Coherence,
    ) -> Result<VirtioDisk<T>, StartError> {
        // `VirtIOBlk` then resets the device and starts again.
        let features = begin(&mut transport, coherence)?;
        let block_bytes = if features & FEATURE_BLK_SIZE == 0 {
            SECTOR_SIZE
        } else {
            transport.read_config_space::<u32>(CONFIG_BLK_SIZE)? as usize
        };
        if block_bytes > LARGEST_BLOCK {
            return Err(virtio_drivers::Error::Unsupported.into());
        }
        // The capacity and all requests are in units of 512 bytes, but must be whole blocks.
        let sector_bytes = if block_bytes.is_power_of_two() && block_bytes > SECTOR_SIZE {
            block_bytes
        } else {
            SECTOR_SIZE
        };
        let indirect = features & FEATURE_INDIRECT_DESC != 0;
        let depth = if indirect { QUEUE_SIZE } else { QUEUE_SIZE / DESCRIPTORS };
        let mut driver = VirtIOBlk::new(transport)?;
        // Nobody takes the interrupts.
        driver.disable_interrupts();
        let slots: Vec<Slot> = (0..depth).map(|_| Slot::default()).collect();
        Ok(VirtioDisk {
            name,
            driver: Box::leak(Box::new(driver)),
            slots: slots.leak(),
            sector_bytes,
        })
    }
}

impl<T: Transport + Send> BlockDevice for VirtioDisk<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sector_bytes(&self) -> usize {
        self.sector_bytes
    }

    fn sectors(&self) -> u64 {
        self.driver.capacity() / (self.sector_bytes / SECTOR_SIZE) as u64
    }

    fn queue_depth(&self) -> usize {
        self.slots.len()
    }

    fn submit(&mut self, request: Request) {
        let block = request.sector as usize * (self.sector_bytes / SECTOR_SIZE);
        let free = self.slots.iter_mut().find(|slot| matches!(slot.state, State::Free));
        let slot = free.expect("no more requests than the queue is deep");
        // SAFETY: by the contract of `Buffer::new` the memory is valid and only the device touches
        // it until the request is done. The slot keeps header and status where they are, as it is
        // neither freed nor used for another request before `complete` has taken this one back.
        let submitted = unsafe {
            let data = request.buffer.as_ptr().as_mut();
            self.driver.read_blocks_nb(block, &mut slot.header, data, &mut slot.status)
        };
        slot.state = match submitted {
            Ok(token) => State::Waiting(token, request),
            Err(_) => State::Refused(request),
        };
    }

    fn complete(&mut self) -> Option<Completion> {
        let used = self.driver.peek_used();
        let done = self.slots.iter_mut().find(|slot| match slot.state {
            State::Free => false,
            State::Waiting(token, _) => used == Some(token),
            State::Refused(_) => true,
        })?;
        match core::mem::take(&mut done.state) {
            State::Waiting(token, request) => {
                // SAFETY: these are the header, data and status that the token was given for, and
                // the device is done with them.
                let result = unsafe {
                    let data = request.buffer.as_ptr().as_mut();
                    self.driver.complete_read_blocks(token, &done.header, data, &mut done.status)
                };
                Some(Completion { request, ok: result.is_ok() })
            }
            State::Refused(request) => Some(Completion { request, ok: false }),
            State::Free => None,
        }
    }
}

#[cfg(test)]
#[path = "virtio_tests.rs"]
mod tests;
