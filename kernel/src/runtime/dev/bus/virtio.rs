//! What all virtio devices have in common, whatever they are: how they reach memory, how a driver begins.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2. The protocol itself is `virtio-drivers`'.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::runtime::machine::Coherence;

/// `VIRTIO_F_ACCESS_PLATFORM`: how the device reaches memory is the machine's to say.
const FEATURE_ACCESS_PLATFORM: u64 = 1 << 33;

/// Memory as the devices see it that `check_coherence` lets pass: as the processor sees it.
pub struct IdentityHal;

// SAFETY: what the trait asks for, method by method:
//
// 1. `dma_alloc` gives zeroed memory on a multiple of a page. It is the global allocator's, and
//    nobody else's until `dma_dealloc`.
// 2. The address that `dma_alloc` and `share` give a device is the pointer's: all memory is mapped
//    one to one, and no device translates addresses, as no driver here accepts
//    VIRTIO_F_ACCESS_PLATFORM.
// 3. `mmio_phys_to_virt` gives the address itself, since devices are mapped one to one as well. It
//    is asked for BARs alone, whose addresses [`super::pci::enable`] has chosen for this device.
// 4. `share` and `unshare` have nothing to do: a device sees what the processor wrote, and the
//    processor what a device wrote. `begin` refuses a device for which that is not known.
unsafe impl Hal for IdentityHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let memory = layout(pages).and_then(|layout| {
            // SAFETY: the layout is not empty.
            NonNull::new(unsafe { alloc_zeroed(layout) })
        });
        match memory {
            Some(memory) => (memory.as_ptr() as PhysAddr, memory),
            // The crate takes address 0 for a failure.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_physical: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        if let Some(layout) = layout(pages) {
            // SAFETY: by this function's contract it is memory from `dma_alloc` with this layout.
            unsafe { dealloc(memory.as_ptr(), layout) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(physical: PhysAddr, _size: usize) -> NonNull<u8> {
        // Panics at address 0, which no BAR is given.
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

/// Why a device is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The device tree says that its DMA bypasses the processor's caches.
    NotCoherent,
    /// The device asks what the machine says of its DMA, and the device tree says nothing.
    UnsaidCoherence,
    /// What `virtio-drivers` says.
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

/// Refuses a device whose accesses to memory may bypass the processor's caches.
///
/// A device that does not have VIRTIO_F_ACCESS_PLATFORM reaches memory as the processor does,
/// whatever the platform's description leaves out (VIRTIO 1.2, 6.1): the trees of some virtual
/// machines, such as Firecracker's, say nothing. For a device that has it, the tree decides, whose
/// default on arm64 is that DMA bypasses the caches.
fn check_coherence(coherence: Coherence, features: u64) -> Result<(), StartError> {
    match coherence {
        Coherence::Coherent => Ok(()),
        Coherence::NonCoherent => Err(StartError::NotCoherent),
        Coherence::Unsaid if features & FEATURE_ACCESS_PLATFORM == 0 => Ok(()),
        Coherence::Unsaid => Err(StartError::UnsaidCoherence),
    }
}

/// Says to the device behind `transport` that there is a driver, and gives the device's features.
///
/// A driver reads features and configuration after it has said that it is one (3.1.1).
///
/// # Errors
/// The device's DMA may bypass the processor's caches.
pub fn begin(transport: &mut impl Transport, coherence: Coherence) -> Result<u64, StartError> {
    transport.set_status(DeviceStatus::empty());
    transport.set_status(DeviceStatus::ACKNOWLEDGE);
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    let features = transport.read_device_features();
    check_coherence(coherence, features)?;
    Ok(features)
}
