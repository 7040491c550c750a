//! Common parts of virtio devices: access to memory, and the start of a driver.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2. The crate `virtio-drivers` implements the
//! protocol itself.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::runtime::machine::Coherence;

/// `VIRTIO_F_VERSION_1`: the device follows version 1 of the specification.
pub const FEATURE_VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_ACCESS_PLATFORM`: the platform defines how the device accesses memory.
const FEATURE_ACCESS_PLATFORM: u64 = 1 << 33;

/// Memory at identical addresses for processor and device; see `check_coherence`.
pub struct IdentityHal;

// SAFETY: the requirements of the trait, method by method:
//
// 1. `dma_alloc` gives zeroed memory on a multiple of a page. The memory is the global allocator's,
//    and nobody else's until `dma_dealloc`.
// 2. The address that `dma_alloc` and `share` give a device is the pointer's: all memory is
//    identity-mapped. No device translates addresses, as no driver here accepts
//    VIRTIO_F_ACCESS_PLATFORM.
// 3. `mmio_phys_to_virt` gives the address itself, since devices are identity-mapped as well. The
//    method is called for BARs alone, whose addresses [`super::pci::enable`] has chosen for this
//    device.
// 4. `share` and `unshare` have nothing to do: a device sees the processor's writes, and the
//    processor sees the device's writes. `begin` refuses a device for which that is not known.
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
                 (`dma-noncoherent`), which this driver cannot cope with",
            ),
            StartError::UnsaidCoherence => f.write_str(
                "its DMA may bypass the processor's caches, as it has VIRTIO_F_ACCESS_PLATFORM and \
                 the device tree does not say `dma-coherent`: boot with a tree that says so, if that \
                 is true of the machine",
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

/// Tells the device behind `transport` that it has a driver; returns its features.
///
/// A driver reads features and configuration only after it has set the DRIVER status (3.1.1).
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

/// Tells the device behind `transport` which of its features the driver accepts.
///
/// The device is one that [`begin`] has begun. `features` holds `VIRTIO_F_VERSION_1` if the device
/// offers that. The caller makes the queues next, and then calls `Transport::finish_init`.
///
/// # Errors
/// The device refuses the choice.
pub fn accept(transport: &mut impl Transport, features: u64) -> Result<(), StartError> {
    transport.write_driver_features(features);
    let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
    transport.set_status(status);
    // A legacy device does not know the status FEATURES_OK (3.1.2).
    let is_legacy = features & FEATURE_VERSION_1 == 0;
    if !is_legacy && !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
        return Err(virtio_drivers::Error::Unsupported.into());
    }
    transport.set_guest_page_size(PAGE_SIZE as u32);
    Ok(())
}
