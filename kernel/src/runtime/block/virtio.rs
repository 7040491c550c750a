//! virtio-blk.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, 5.2 "Block Device". The crate `virtio-drivers`
//! implements the protocol itself.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use super::{BlockDevice, Completion, Request};
use crate::runtime::machine::Coherence;

/// Size of the queue that `virtio-drivers` makes for a block device.
const QUEUE_SIZE: usize = 16;
/// Descriptors of a request: header, data, status.
const DESCRIPTORS: usize = 3;

/// Maximum block size of a disk in bytes: what the metadata cache reads at once.
const LARGEST_BLOCK: usize = 64 << 10;

/// `VIRTIO_BLK_F_BLK_SIZE`: the configuration has the block size.
const FEATURE_BLK_SIZE: u64 = 1 << 6;
/// `VIRTIO_F_INDIRECT_DESC`: a request takes one entry of the queue.
/// The descriptors of the request lie elsewhere.
const FEATURE_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_ACCESS_PLATFORM`: the platform defines how the device accesses memory.
const FEATURE_ACCESS_PLATFORM: u64 = 1 << 33;
/// Offset of `blk_size` in `virtio_blk_config`.
const CONFIG_BLK_SIZE: usize = 20;

/// Memory at identical addresses for processor and device; see `check_coherence`.
pub struct IdentityHal;

// SAFETY: the requirements of the trait, method by method:
//
// 1. `dma_alloc` gives zeroed memory on a multiple of a page. The memory is the global allocator's,
//    and nobody else's until `dma_dealloc`.
// 2. The address that `dma_alloc` and `share` give a device is the pointer's: all memory is
//    identity-mapped. No device translates addresses, as `VirtIOBlk` does not accept
//    VIRTIO_F_ACCESS_PLATFORM.
// 3. `mmio_phys_to_virt` gives the address itself, since devices are identity-mapped as well. The
//    method is called for BARs alone, whose addresses `pci::enable` has chosen for this device.
// 4. `share` and `unshare` have nothing to do: a device sees the processor's writes, and the
//    processor sees the device's writes. `VirtioDisk::new` refuses a device for which that is not
//    known.
unsafe impl Hal for IdentityHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let memory = layout(pages).and_then(|layout| {
            // SAFETY: the layout is not empty.
            NonNull::new(unsafe { alloc_zeroed(layout) })
        });
        match memory {
            Some(memory) => (memory.as_ptr() as PhysAddr, memory),
            // The crate takes address 0 as a failure.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_physical: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        if let Some(layout) = layout(pages) {
            // SAFETY: by this function's contract the memory is from `dma_alloc` with this layout.
            unsafe { dealloc(memory.as_ptr(), layout) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(physical: PhysAddr, _size: usize) -> NonNull<u8> {
        // Panics at address 0, which no BAR has.
        NonNull::new(physical as *mut u8).expect("a device's registers at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

fn layout(pages: usize) -> Option<Layout> {
    let bytes = pages.checked_mul(PAGE_SIZE).filter(|&bytes| bytes > 0)?;
    Layout::from_size_align(bytes, PAGE_SIZE).ok()
}

/// A reason why a device is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The device tree says that the device's DMA bypasses the processor's caches.
    NotCoherent,
    /// The device depends on the platform's coherence.
    /// The device tree does not say what the coherence is.
    UnsaidCoherence,
    /// An error of `virtio-drivers`.
    Driver(virtio_drivers::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NotCoherent => f.write_str(
                "its DMA bypasses the processor's caches, as the device tree says \
                 (`dma-noncoherent`), which this driver cannot cope with: give the model as an initrd",
            ),
            StartError::UnsaidCoherence => f.write_str(
                "its DMA may bypass the processor's caches, as it has VIRTIO_F_ACCESS_PLATFORM and \
                 the device tree does not say `dma-coherent`: boot with a tree that says so, if that \
                 is true of the machine, or give the model as an initrd",
            ),
            StartError::Driver(error) => error.fmt(f),
        }
    }
}

impl From<virtio_drivers::Error> for StartError {
    fn from(error: virtio_drivers::Error) -> Self {
        StartError::Driver(error)
    }
}

/// Refuses a device whose DMA may bypass the processor's caches.
///
/// A device without VIRTIO_F_ACCESS_PLATFORM accesses memory as the processor does, whatever the
/// device tree omits (VIRTIO 1.2, 6.1). The trees of some virtual machines, such as Firecracker's,
/// say nothing. For a device with VIRTIO_F_ACCESS_PLATFORM the tree decides. The tree's default on
/// arm64 is that DMA bypasses the caches.
fn check_coherence(coherence: Coherence, features: u64) -> Result<(), StartError> {
    match coherence {
        Coherence::Coherent => Ok(()),
        Coherence::NonCoherent => Err(StartError::NotCoherent),
        Coherence::Unsaid if features & FEATURE_ACCESS_PLATFORM == 0 => Ok(()),
        Coherence::Unsaid => Err(StartError::UnsaidCoherence),
    }
}

/// A virtio block device.
///
/// The device is never freed: one that was given up may still write to its queue.
pub struct VirtioDisk<T: Transport + 'static> {
    name: &'static str,
    driver: &'static mut VirtIOBlk<IdentityHal, T>,
    slots: &'static mut [Slot],
    sector_bytes: usize,
}

/// A request in flight.
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
    /// The device has the request, under this token.
    Waiting(u16, Request),
    /// The driver has refused the request.
    Refused(Request),
}

impl<T: Transport> VirtioDisk<T> {
    /// Starts the block device behind `transport`.
    ///
    /// `name` is for the `disk` event. `coherence` is the device tree's word on the device.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(
        mut transport: T,
        name: &'static str,
        coherence: Coherence,
    ) -> Result<VirtioDisk<T>, StartError> {
        // A driver reads features and configuration only after it has set the DRIVER status
        // (3.1.1). `VirtIOBlk` then resets the device and starts again.
        transport.set_status(DeviceStatus::empty());
        transport.set_status(DeviceStatus::ACKNOWLEDGE);
        transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        let features = transport.read_device_features();
        check_coherence(coherence, features)?;
        let block_bytes = if features & FEATURE_BLK_SIZE == 0 {
            SECTOR_SIZE
        } else {
            transport.read_config_space::<u32>(CONFIG_BLK_SIZE)? as usize
        };
        if block_bytes > LARGEST_BLOCK {
            return Err(virtio_drivers::Error::Unsupported.into());
        }
        // Capacity and requests are in units of 512 bytes, but must be whole blocks.
        let sector_bytes = if block_bytes.is_power_of_two() && block_bytes > SECTOR_SIZE {
            block_bytes
        } else {
            SECTOR_SIZE
        };
        let indirect = features & FEATURE_INDIRECT_DESC != 0;
        let depth = if indirect { QUEUE_SIZE } else { QUEUE_SIZE / DESCRIPTORS };
        let mut driver = VirtIOBlk::new(transport)?;
        // Nobody handles the interrupts.
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
        // SAFETY: by the contract of `Buffer::new` the memory is valid, and only the device touches
        // it until the request is done. The slot keeps header and status in place: it is neither
        // freed nor used for another request before `complete` has taken this one back.
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
                // SAFETY: these are the header, data and status of the token, and the device is
                // done with them.
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
