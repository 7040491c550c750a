//! Finds the machine's block devices.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

use virtio_drivers::transport::mmio::{MmioError, MmioTransport, VirtIOHeader};
use virtio_drivers::transport::pci::bus::PciRoot;
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{DeviceType, Transport};

use super::pci::{self, Ecam, Windows};
use super::ram::RamDisk;
use super::virtio::{IdentityHal, VirtioDisk};
use super::{BlockDevice, Clock, Disk};
use crate::runtime::machine::{Machine, PciHost, VirtioMmio};
use crate::runtime::mmio::Mmio;
use crate::runtime::{idle, time};

/// How often a device is looked at without a pause: a short read is done that fast.
const SPINS: u32 = 20;
/// How long the core sleeps between two later looks, in µs. A core that spins on an emulated
/// machine takes the time of the thread that plays the device, which cost up to half of the speed
/// when the host was busy. A queue that is full lasts for much longer.
const NAP_US: u64 = 50;

/// The clock of the machine.
struct MachineClock;

impl Clock for MachineClock {
    fn now_us(&self) -> u64 {
        time::now_us()
    }

    fn pause(&self, polls: u32) {
        if polls < SPINS {
            core::hint::spin_loop();
        } else {
            idle::wait_until(&|| false, Some(time::now_us() + NAP_US));
        }
    }
}

/// All block devices, the preferred one first: virtio over MMIO, virtio over PCI, the initial RAM
/// disk.
///
/// A device that cannot be started is logged and left out.
///
/// # Safety
/// The registers of the virtio devices and of the PCI host, and its windows, are mapped one to one
/// as device memory, the initial RAM disk as memory that nobody writes to, and the heap one to one.
/// This is the only driver of these devices, and it is called once.
pub unsafe fn disks(machine: &Machine) -> Vec<Disk> {
    let mut devices: Vec<Box<dyn BlockDevice>> = Vec::new();
    for node in &machine.virtio_mmio {
        // SAFETY: upheld by the caller.
        devices.extend(unsafe { over_mmio(node) });
    }
    if let Some(host) = &machine.pci {
        // SAFETY: upheld by the caller.
        devices.extend(unsafe { over_pci(host) });
    }
    if let Some(region) = machine.initrd
        && let Some(start) = NonNull::new(region.base as *mut u8)
    {
        // SAFETY: it is memory that nobody writes to, says the caller.
        let image = unsafe { NonNull::slice_from_raw_parts(start, region.size as usize).as_ref() };
        devices.push(Box::new(RamDisk::new(image)));
    }
    devices.into_iter().map(|device| Disk::new(device, Box::new(MachineClock))).collect()
}

/// The block device behind a virtio-mmio transport, if one is.
///
/// # Safety
/// As for [`disks`].
unsafe fn over_mmio(node: &VirtioMmio) -> Option<Box<dyn BlockDevice>> {
    let header = NonNull::new(node.region.base as *mut VirtIOHeader)?;
    // SAFETY: upheld by the caller.
    let transport = match unsafe { MmioTransport::new(header, node.region.size as usize) } {
        Ok(transport) => transport,
        // Most transports have no device, and say that it is of type 0.
        Err(MmioError::InvalidDeviceID(_)) => return None,
        Err(error) => {
            log::warn!("virtio device at {:#x}: {error}", node.region.base);
            return None;
        }
    };
    start(transport, "virtio-blk (mmio)")
}

/// The virtio block devices on a PCI bus.
///
/// # Safety
/// As for [`disks`].
unsafe fn over_pci(host: &PciHost) -> Vec<Box<dyn BlockDevice>> {
    // SAFETY: upheld by the caller.
    let registers = unsafe { Mmio::new(host.ecam) };
    let mut bus = PciRoot::new(Ecam::new(host, &registers));
    let mut windows = Windows::new(host);
    let mut devices = Vec::new();
    for (function, info) in bus.enumerate_bus(host.first_bus) {
        if virtio_device_type(&info) != Some(DeviceType::Block) {
            continue;
        }
        if let Err(error) = pci::enable(&mut bus, &mut windows, function) {
            log::warn!("PCI device {function}: {error:?}");
            continue;
        }
        match PciTransport::new::<IdentityHal, _>(&mut bus, function) {
            Ok(transport) => devices.extend(start(transport, "virtio-blk (pci)")),
            Err(error) => log::warn!("PCI device {function}: {error}"),
        }
    }
    devices
}

fn start<T: Transport + Send + 'static>(
    transport: T,
    name: &'static str,
) -> Option<Box<dyn BlockDevice>> {
    if transport.device_type() != DeviceType::Block {
        return None;
    }
    match VirtioDisk::new(transport, name) {
        Ok(disk) => Some(Box::new(disk)),
        Err(error) => {
            log::warn!("{name}: {error}");
            None
        }
    }
}
