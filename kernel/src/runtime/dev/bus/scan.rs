//! The virtio devices of this machine.
//!
//! Devices over MMIO have an interrupt each. Those on PCI share the wires of their pins: only a
//! device of [`uses_interrupt`] may raise its pin.

use alloc::vec::Vec;
use core::ptr::NonNull;

use virtio_drivers::transport::mmio::{MmioError, MmioTransport, VirtIOHeader};
use virtio_drivers::transport::pci::bus::{DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};

use super::pci::{self, Ecam, Windows};
use super::virtio::IdentityHal;
use crate::runtime::arch::lock::SpinLock;
use crate::runtime::dev::mmio::Mmio;
use crate::runtime::machine::{Coherence, Interrupt, Machine, PciHost, VirtioMmio};

/// A device that a driver may take.
pub struct Found {
    /// The way to the device.
    pub transport: SomeTransport<'static>,
    /// What the device tree says of the device's DMA.
    pub coherence: Coherence,
    /// The device's interrupt; `None` if the tree does not say.
    pub interrupt: Option<Interrupt>,
}

/// Whether the driver of such a device listens to the device's interrupt.
fn uses_interrupt(kind: DeviceType) -> bool {
    kind == DeviceType::Network
}

/// The devices that no driver has taken while the machine started.
static REST: SpinLock<Option<Bus>> = SpinLock::new(None);

/// Keeps the devices that no driver has taken, for [`take_later`].
pub fn keep(bus: Bus) {
    *REST.lock() = Some(bus);
}

/// Takes the devices of a type after the start: see [`Bus::take`].
pub fn take_later(kind: DeviceType) -> Vec<Found> {
    REST.lock().as_mut().map(|bus| bus.take(kind)).unwrap_or_default()
}

/// The virtio devices that no driver has taken yet.
pub struct Bus {
    over_mmio: Vec<Found>,
    over_pci: Option<Pci>,
}

/// A PCI bus and the virtio devices on it.
struct Pci {
    registers: Mmio,
    host: PciHost,
    windows: Windows,
    devices: Vec<(DeviceFunction, DeviceType)>,
}

impl Bus {
    /// Finds all virtio devices, over MMIO and on PCI.
    ///
    /// # Safety
    /// 1. The registers of the virtio devices and of the PCI host, and its windows, are mapped one
    ///    to one as device memory, for good.
    /// 2. The heap is mapped one to one.
    /// 3. Nobody else drives these devices, and the function is called once.
    pub unsafe fn scan(machine: &Machine<'_>) -> Bus {
        // SAFETY: upheld by the caller.
        let over_mmio = machine.virtio_mmio.iter().filter_map(|node| unsafe { at_mmio(node) });
        let over_pci = machine.pci.as_ref().map(|host| {
            // SAFETY: upheld by the caller.
            Pci::scan(host.clone(), unsafe { Mmio::new(host.ecam) })
        });
        Bus { over_mmio: over_mmio.collect(), over_pci }
    }

    /// Takes the devices of a type: those over MMIO first, then those on PCI.
    pub fn take(&mut self, kind: DeviceType) -> Vec<Found> {
        let (mut taken, left): (Vec<_>, Vec<_>) = core::mem::take(&mut self.over_mmio)
            .into_iter()
            .partition(|found| found.transport.device_type() == kind);
        self.over_mmio = left;
        if let Some(pci) = &mut self.over_pci {
            pci.take(kind, &mut taken);
        }
        taken
    }
}

impl Pci {
    fn scan(host: PciHost, registers: Mmio) -> Pci {
        let root = PciRoot::new(Ecam::new(&host, &registers));
        let devices = root
            .enumerate_bus(host.first_bus)
            .filter_map(|(function, info)| Some((function, virtio_device_type(&info)?)))
            .collect();
        Pci { windows: Windows::new(&host), registers, host, devices }
    }

    /// Gives addresses to the devices of a type, and takes them.
    fn take(&mut self, kind: DeviceType, taken: &mut Vec<Found>) {
        let mut root = PciRoot::new(Ecam::new(&self.host, &self.registers));
        self.devices.retain(|&(function, its_kind)| {
            if its_kind != kind {
                return true;
            }
            let interrupt = uses_interrupt(kind);
            if let Err(error) = pci::enable(&mut root, &mut self.windows, function, interrupt) {
                log::warn!("PCI device {function}: {error:?}");
                return false;
            }
            match PciTransport::new::<IdentityHal, _>(&mut root, function) {
                Ok(transport) => {
                    taken.push(Found {
                        transport: transport.into(),
                        coherence: self.host.coherence,
                        interrupt: self.host.interrupts.of(
                            function.bus,
                            function.device,
                            function.function,
                            Ecam::new(&self.host, &self.registers).interrupt_pin(function),
                        ),
                    });
                }
                Err(error) => log::warn!("PCI device {function}: {error}"),
            }
            false
        });
    }
}

/// The device behind a virtio-mmio transport, if there is one.
///
/// # Safety
/// As for [`Bus::scan`].
unsafe fn at_mmio(node: &VirtioMmio) -> Option<Found> {
    let header = NonNull::new(node.region.base as *mut VirtIOHeader)?;
    // SAFETY: upheld by the caller.
    match unsafe { MmioTransport::new(header, node.region.size as usize) } {
        Ok(transport) => Some(Found {
            transport: transport.into(),
            coherence: node.coherence,
            interrupt: node.interrupt,
        }),
        // Most transports have no device, and say that it is of type 0.
        Err(MmioError::InvalidDeviceID(_)) => None,
        Err(error) => {
            log::warn!("virtio device at {:#x}: {error}", node.region.base);
            None
        }
    }
}
