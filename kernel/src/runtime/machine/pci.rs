//! PCI host bridges with a memory-mapped configuration space (ECAM).
//!
//! Sources: Linux's binding `pci-host-ecam-generic`; IEEE 1275 PCI bus binding 2.1, 2.2.1 (the cells
//! of an address) and 6 (interrupts); Devicetree Specification 0.4, 2.4.3 (`interrupt-map`).

use arrayvec::ArrayVec;

use super::nodes::room;
use super::tree::{At, GicNode, decode_interrupt, number};
use super::{
    Coherence, Interrupt, List, MAX_PCI_INTERRUPTS, MAX_PCI_WINDOWS, Machine, MachineError, Region,
};

/// The address space behind a window of a PCI host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciSpace {
    /// I/O ports.
    Io,
    /// Memory for 32-bit BARs.
    Memory32,
    /// Memory for 64-bit BARs.
    Memory64,
}

/// A range of the processor's addresses that leads to the PCI bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciWindow {
    /// The space behind the window.
    pub space: PciSpace,
    /// First address on the bus.
    pub bus_address: u64,
    /// The window in the processor's address space.
    pub region: Region,
}

/// A PCI host bridge with a memory-mapped configuration space (ECAM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciHost {
    /// The configuration space.
    pub ecam: Region,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
    /// The windows to the devices' memory and ports.
    pub windows: ArrayVec<PciWindow, MAX_PCI_WINDOWS>,
    /// The wires from the devices' interrupt pins to the interrupt controller.
    pub interrupts: PciInterrupts,
    /// The coherence of the devices' DMA.
    pub coherence: Coherence,
}

/// The wires from the devices' interrupt pins to the interrupt controller.
///
/// Boards swizzle the pins: pin A of neighbouring devices leads to different wires. The map of the
/// device tree has this in its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciInterrupts {
    /// Bits of a function's address that select an entry.
    function_mask: u32,
    /// Bits of a pin's number that select an entry.
    pin_mask: u32,
    entries: ArrayVec<Wire, MAX_PCI_INTERRUPTS>,
}

/// An entry of the interrupt map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wire {
    /// Address of the function in the configuration space, as the first cell of a PCI address.
    function: u32,
    pin: u32,
    interrupt: Interrupt,
}

impl PciInterrupts {
    /// The interrupt of a function's pin; `None` if the map has no entry for the pin.
    ///
    /// Pins are numbered as in the configuration space: 1 to 4 are `INTA` to `INTD`. The number 0
    /// means that the function has no pin.
    pub fn of(&self, bus: u8, device: u8, function: u8, pin: u8) -> Option<Interrupt> {
        if pin == 0 {
            return None;
        }
        let address = u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8;
        let place = (address & self.function_mask, u32::from(pin) & self.pin_mask);
        let mut wires = self.entries.iter();
        wires.find(|wire| (wire.function, wire.pin) == place).map(|wire| wire.interrupt)
    }
}

/// Reads the interrupt map of a host bridge.
///
/// The second result is whether all entries fit. An entry for another controller than the GIC ends
/// the map, because only that controller's node has the length of the entry.
fn read_interrupts(at: &At<'_, '_>, gic: &GicNode) -> Result<(PciInterrupts, bool), MachineError> {
    const MAP: &str = "interrupt-map";
    const MASK: &str = "interrupt-map-mask";
    // Three cells of an address and one for the pin, on the side of the devices.
    let cells = |bytes: &[u8]| -> Option<[u32; 4]> {
        let (cells, []) = bytes.as_chunks::<4>() else { return None };
        Some(<[[u8; 4]; 4]>::try_from(cells).ok()?.map(u32::from_be_bytes))
    };
    let mask = match at.value(MASK).filter(|mask| !mask.is_empty()) {
        Some(mask) => cells(mask).ok_or_else(|| at.wrong(MASK))?,
        None => [!0; 4],
    };
    let mut interrupts =
        PciInterrupts { function_mask: mask[0], pin_mask: mask[3], entries: ArrayVec::new() };
    let specifier = 16 + 4 + 4 * gic.address_cells;
    let length = specifier + 4 * gic.interrupt_cells;
    let map = at.value(MAP).unwrap_or_default().chunks(length);
    for entry in map.take_while(|entry| entry.get(16..20) == Some(&gic.phandle.to_be_bytes())) {
        let [function, _, _, pin] = cells(&entry[..16]).ok_or_else(|| at.wrong(MAP))?;
        let interrupt = entry.get(specifier..length).and_then(decode_interrupt);
        let wire = Wire {
            function: function & mask[0],
            pin: pin & mask[3],
            interrupt: interrupt.ok_or_else(|| at.wrong(MAP))?,
        };
        if interrupts.entries.try_push(wire).is_err() {
            return Ok((interrupts, false));
        }
    }
    Ok((interrupts, true))
}

impl<'t> Machine<'t> {
    /// Reads a PCI host bridge.
    pub(super) fn read_pci(
        &mut self,
        at: &At<'_, 't>,
        gic: Option<&GicNode>,
    ) -> Result<PciHost, MachineError> {
        let ecam = at.region(0)?;
        // Each bus has 1 MiB of configuration space.
        if ecam.size < 1 << 20 {
            return Err(at.wrong("reg"));
        }
        let last_in_ecam = (ecam.size >> 20).min(256) - 1;
        let (first_bus, last_bus) = match at.value("bus-range") {
            None => (0, last_in_ecam as u8),
            Some(&[0, 0, 0, first, 0, 0, 0, last]) if first <= last => (first, last),
            Some(_) => return Err(at.wrong("bus-range")),
        };
        if u64::from(last_bus - first_bus) > last_in_ecam {
            return Err(at.wrong("bus-range"));
        }

        let mut windows = ArrayVec::new();
        for range in at.node.ranges().ok().flatten().ok_or_else(|| at.wrong("ranges"))? {
            // IEEE 1275 PCI binding 2.2.1: the first of three cells holds the space.
            let [flags, high, low] = range.child_bus_address.as_ref() else {
                return Err(at.wrong("#address-cells"));
            };
            let space = match flags.get() >> 24 & 0b11 {
                1 => PciSpace::Io,
                2 => PciSpace::Memory32,
                3 => PciSpace::Memory64,
                _ => return Err(at.wrong("ranges")),
            };
            let bus_address = u64::from(high.get()) << 32 | u64::from(low.get());
            let region = number(range.parent_bus_address)
                .zip(number(range.length))
                .and_then(|(base, size)| Region::checked(base, size))
                .ok_or_else(|| at.wrong("ranges"))?;
            let region = at
                .translate(region)
                .ok_or_else(|| MachineError::Unreachable { node: at.name() })?;
            let window = PciWindow { space, bus_address, region };
            let fits = windows.try_push(window).is_ok();
            self.keep(room(fits, List::PciWindows, MAX_PCI_WINDOWS));
        }
        let interrupts = gic.map(|gic| read_interrupts(at, gic)).transpose();
        let (interrupts, fits) =
            self.keep(interrupts).flatten().unwrap_or((PciInterrupts::default(), true));
        self.keep(room(fits, List::PciInterrupts, MAX_PCI_INTERRUPTS));
        Ok(PciHost { ecam, first_bus, last_bus, windows, interrupts, coherence: at.coherence() })
    }
}
