//! The PCI bus, as far as virtio devices need it.
//!
//! No firmware has run, so the devices' base address registers (BARs) are empty. The driver assigns
//! addresses from the windows of the host bridge that the device tree lists. Only the host bridge's
//! own bus is enumerated, not the buses behind other bridges.
//!
//! Sources: PCI Local Bus Specification 3.0, 6.2.5 "Base Addresses", 6.2.4 "Interrupt Pin"; PCI Express Base Specification
//! 5.0, 7.2.2 "PCI Express Enhanced Configuration Access Mechanism (ECAM)".

use alloc::vec::Vec;

use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, MemoryBarType, PciError, PciRoot,
};

use crate::runtime::dev::mmio::Registers;
use crate::runtime::machine::{PciHost, PciSpace, PciWindow};

/// Value read from a function that does not exist.
const ABSENT: u32 = !0;

/// Register of the interrupt line (byte 0) and the interrupt pin (byte 1).
const INTERRUPT_LINE: u8 = 0x3c;

/// The configuration space of a PCI bus in memory.
pub struct Ecam<'a, R> {
    registers: &'a R,
    first_bus: u8,
    last_bus: u8,
}

impl<'a, R: Registers> Ecam<'a, R> {
    /// The configuration space of `host`, whose ECAM is `registers`.
    pub fn new(host: &PciHost, registers: &'a R) -> Ecam<'a, R> {
        Ecam { registers, first_bus: host.first_bus, last_bus: host.last_bus }
    }

    /// The interrupt pin of `function`: 1 to 4 for `INTA` to `INTD`, 0 for none.
    pub fn interrupt_pin(&self, function: DeviceFunction) -> u8 {
        self.read_word(function, INTERRUPT_LINE).to_le_bytes()[1]
    }

    fn offset(&self, function: DeviceFunction, register: u8) -> Option<usize> {
        let DeviceFunction { bus, device, function } = function;
        let bus = (self.first_bus..=self.last_bus).contains(&bus).then(|| bus - self.first_bus)?;
        let place = usize::from(bus) << 8 | usize::from(device) << 3 | usize::from(function);
        Some(place << 12 | usize::from(register))
    }
}

impl<R: Registers> ConfigurationAccess for Ecam<'_, R> {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        self.offset(function, register).map_or(ABSENT, |offset| self.registers.read32(offset))
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, value: u32) {
        if let Some(offset) = self.offset(function, register) {
            self.registers.write32(offset, value);
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Ecam { ..*self }
    }
}

/// Addresses that are not assigned to BARs yet.
pub struct Windows {
    memory: Vec<(PciSpace, u64, u64)>,
}

/// The memory windows of `host` for BARs.
///
/// The processor and the bus must see a window at the same address, so that the processor can use
/// the addresses in BARs.
pub fn memory_windows(host: &PciHost) -> impl Iterator<Item = &PciWindow> {
    host.windows
        .iter()
        .filter(|window| window.space != PciSpace::Io && window.bus_address == window.region.base)
}

impl Windows {
    /// All addresses in the windows of `host`.
    pub fn new(host: &PciHost) -> Windows {
        let range = |window: &PciWindow| {
            let region = window.region;
            (window.space, region.base, region.base.saturating_add(region.size))
        };
        Windows { memory: memory_windows(host).map(range).collect() }
    }

    /// Takes an address for a BAR of `bytes` bytes and of 32 or 64 bits.
    /// The address is a multiple of `bytes`.
    fn take(&mut self, bytes: u64, bar: MemoryBarType) -> Option<u64> {
        let fits = |space: PciSpace| space == PciSpace::Memory32 || bar == MemoryBarType::Width64;
        for (_, next, end) in self.memory.iter_mut().filter(|(space, ..)| fits(*space)) {
            // A BAR with address 0 has no address.
            let Some(start) = (*next).max(1).checked_next_multiple_of(bytes) else { continue };
            if start.checked_add(bytes).is_some_and(|after| after <= *end) {
                *next = start + bytes;
                return Some(start);
            }
        }
        None
    }
}

/// An error in the set-up of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// A BAR is of an unknown kind.
    Bar(PciError),
    /// No window has room for a BAR of this many bytes.
    NoRoom(u64),
}

/// Assigns addresses to all memory BARs of `function`, and enables memory and DMA.
///
/// The function raises its interrupt pin only with `interrupt`. Functions share the wires of their
/// pins. So a function whose interrupts nobody acknowledges must not raise its pin.
///
/// # Errors
/// A BAR is invalid, or there is no room for it.
pub fn enable<C: ConfigurationAccess>(
    bus: &mut PciRoot<C>,
    windows: &mut Windows,
    function: DeviceFunction,
    interrupt: bool,
) -> Result<(), SetupError> {
    let bars = bus.bars(function).map_err(SetupError::Bar)?;
    for (index, bar) in bars.iter().enumerate() {
        let Some(BarInfo::Memory { address_type, size, .. }) = *bar else { continue };
        let address = Some(size)
            .filter(|size| size.is_power_of_two())
            .and_then(|size| windows.take(size, address_type))
            .ok_or(SetupError::NoRoom(size))?;
        match address_type {
            MemoryBarType::Width64 => bus.set_bar_64(function, index as u8, address),
            _ => bus.set_bar_32(function, index as u8, address as u32),
        }
    }
    let mut command = Command::MEMORY_SPACE | Command::BUS_MASTER;
    command.set(Command::INTERRUPT_DISABLE, !interrupt);
    bus.set_command(function, command);
    Ok(())
}

#[cfg(test)]
#[path = "pci_tests.rs"]
mod tests;
