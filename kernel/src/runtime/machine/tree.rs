//! Walks the device tree, and reads properties that depend on a node's position.
//!
//! Such properties are addresses (translated through each bus above the node) and interrupts
//! (decoded by the controller that they go to).

use core::ffi::CStr;
use core::ops::ControlFlow;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Cells, Node, Property, ToCellInt};

use super::{Coherence, DmaWindow, DmaWindows, Interrupt, List, MachineError, NodeName, Region};

/// Maximum nesting depth. Real trees have a depth of six or so.
const MAX_DEPTH: usize = 16;

/// A node and the nodes above it.
pub struct At<'a, 't> {
    pub node: FdtNode<'t>,
    parent: Option<&'a At<'a, 't>>,
    // Properties that nearly every visit needs, so looked up once.
    status: Option<&'t [u8]>,
    device_type: Option<&'t [u8]>,
    compatible: &'t [u8],
}

/// The callback for each node of a walk. `Break` skips the node's children.
pub type Visit<'v, 't> = &'v mut dyn FnMut(&At<'_, 't>) -> Result<ControlFlow<()>, MachineError>;

/// Visits the nodes in the order of the tree.
/// Disabled nodes, and all nodes below them, are skipped.
pub fn walk<'t>(fdt: Fdt<'t>, visit: Visit<'_, 't>) -> Result<(), MachineError> {
    At::new(fdt.root(), None).walk(0, visit)
}

impl<'a, 't> At<'a, 't> {
    fn new(node: FdtNode<'t>, parent: Option<&'a At<'a, 't>>) -> Self {
        let mut at = At { node, parent, status: None, device_type: None, compatible: &[] };
        for property in node.properties() {
            let value = || property.value_as().unwrap_or_default();
            match property.name() {
                "status" => at.status = Some(until_nul(value())),
                "device_type" => at.device_type = Some(until_nul(value())),
                "compatible" => at.compatible = value(),
                _ => {}
            }
        }
        at
    }

    fn walk(&self, depth: usize, visit: Visit<'_, 't>) -> Result<(), MachineError> {
        if depth > MAX_DEPTH {
            return Err(MachineError::TooDeep { node: self.name() });
        }
        if !self.is_available() || visit(self)?.is_break() {
            return Ok(());
        }
        for node in self.node.children() {
            At::new(node, Some(self)).walk(depth + 1, visit)?;
        }
        Ok(())
    }

    /// Whether `status` is absent or says that the device works.
    ///
    /// A core may be "disabled" and still be there to be started (Devicetree Specification 3.8.1).
    /// So only a failure excludes a core.
    fn is_available(&self) -> bool {
        match self.status {
            None | Some(b"okay" | b"ok") => true,
            Some(b"disabled") => self.is_cpu(),
            Some(_) => false,
        }
    }

    /// Whether the node is a core: a child of `/cpus` of that type or name.
    pub fn is_cpu(&self) -> bool {
        self.parent.is_some_and(|p| p.is_top("cpus"))
            && (self.text("device_type") == Some("cpu")
                || self.node.name_without_address() == "cpu")
    }

    /// Whether the node is a child of the root with this name (without the address).
    pub fn is_top(&self, name: &str) -> bool {
        self.parent.is_some_and(|p| p.parent.is_none()) && self.node.name_without_address() == name
    }

    /// Whether the node's parent is a child of the root with this name.
    pub fn is_under(&self, name: &str) -> bool {
        self.parent.is_some_and(|p| p.is_top(name))
    }

    /// Whether the node is at `path`.
    ///
    /// The components of `path` may leave out the unit address.
    pub fn is_at(&self, path: &str) -> bool {
        let mut at = self;
        for part in path.split('/').filter(|part| !part.is_empty()).rev() {
            let Some(parent) = at.parent else { return false };
            if at.node.name() != part && at.node.name_without_address() != part {
                return false;
            }
            at = parent;
        }
        at.parent.is_none()
    }

    pub fn name(&self) -> NodeName {
        let mut name = NodeName::new();
        for c in self.node.name().chars() {
            if name.try_push(c).is_err() {
                break;
            }
        }
        name
    }

    /// The error for a property of this node.
    pub fn wrong(&self, property: &'static str) -> MachineError {
        MachineError::Property { node: self.name(), property }
    }

    /// Whether `compatible`, a list of strings, has one of these.
    pub fn is_compatible(&self, with: &[&str]) -> bool {
        let mut names = self.compatible.split(|&byte| byte == 0);
        names.any(|name| with.iter().any(|with| with.as_bytes() == name))
    }

    /// Whether the node is memory, by its name or type.
    pub fn is_memory(&self) -> bool {
        self.is_top("memory") || self.device_type == Some(&b"memory"[..])
    }

    pub fn value(&self, name: &str) -> Option<&'t [u8]> {
        value(self.node, name)
    }

    pub fn text(&self, name: &str) -> Option<&'t str> {
        text(self.value(name)?)
    }

    /// Reads a property of one cell; `None` if it is absent.
    pub fn cell(&self, name: &'static str) -> Result<Option<u32>, MachineError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let bytes = value.try_into().map_err(|_| self.wrong(name))?;
        Ok(Some(u32::from_be_bytes(bytes)))
    }

    /// Reads a property with one number of one or two cells; `None` if it is absent.
    pub fn number(&self, name: &'static str) -> Result<Option<u64>, MachineError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        if let Ok(bytes) = value.try_into() {
            return Ok(Some(u64::from_be_bytes(bytes)));
        }
        Ok(self.cell(name)?.map(u64::from))
    }

    /// The entries of `reg` in the addresses of the node's bus, not translated.
    /// Empty entries are left out.
    pub fn bus_regions(
        &self,
    ) -> Result<impl Iterator<Item = Result<Region, MachineError>>, MachineError> {
        let entries = self.node.reg().ok().flatten().ok_or_else(|| self.wrong("reg"))?;
        Ok(entries.filter_map(|reg| match (number(reg.address), number(reg.size)) {
            (Some(_), Some(0)) => None,
            (Some(base), Some(size)) => {
                Some(Region::checked(base, size).ok_or_else(|| self.wrong("reg")))
            }
            _ => Some(Err(self.wrong("reg"))),
        }))
    }

    /// The entries of `reg`, translated to the processor's addresses.
    ///
    /// Empty entries are left out.
    pub fn regions(
        &self,
    ) -> Result<impl Iterator<Item = Result<Region, MachineError>>, MachineError> {
        Ok(self.bus_regions()?.map(|region| {
            self.translate(region?).ok_or_else(|| MachineError::Unreachable { node: self.name() })
        }))
    }

    /// The entry of `reg` with this index.
    pub fn region(&self, index: usize) -> Result<Region, MachineError> {
        self.regions()?.nth(index).ok_or_else(|| self.wrong("reg"))?
    }

    /// Translates a region of the node's bus to the processor's addresses.
    ///
    /// Each bus on the way up maps its own addresses to its parent's with `ranges`. Empty `ranges`
    /// mean that both are the same. Missing `ranges` mean that there is no way up.
    pub fn translate(&self, mut region: Region) -> Option<Region> {
        let mut bus = self.parent;
        while let Some(at) = bus.filter(|at| at.parent.is_some()) {
            if !at.value("ranges")?.is_empty() {
                region = at.node.ranges().ok()??.find_map(|range| {
                    let from = number(range.child_bus_address)?;
                    let length = number(range.length)?;
                    let offset = region.base.checked_sub(from)?;
                    // Both ends must be inside; the comparison cannot overflow.
                    if region.size > length || offset > length - region.size {
                        return None;
                    }
                    let base = number(range.parent_bus_address)?.checked_add(offset)?;
                    Region::checked(base, region.size)
                })?;
            }
            bus = at.parent;
        }
        Some(region)
    }

    /// The DMA windows of the node.
    ///
    /// These are the `dma-ranges` of the node's bus, translated through the buses above. Where a
    /// bus has none or empty ones, addresses are the same on both sides of the bus.
    pub fn dma_windows(&self) -> Result<DmaWindows, MachineError> {
        let all = Region { base: 0, size: 1 << 48 };
        let mut windows = DmaWindows::new();
        windows.push(DmaWindow { bus_address: 0, memory: all });
        let mut bus = self.parent;
        while let Some(at) = bus.filter(|at| at.parent.is_some()) {
            if at.value("dma-ranges").is_some_and(|value| !value.is_empty()) {
                let wrong = || at.wrong("dma-ranges");
                let below = core::mem::take(&mut windows);
                for range in at.node.dma_ranges().ok().flatten().ok_or_else(wrong)? {
                    let [from, to, size] =
                        [range.child_bus_address, range.parent_bus_address, range.length]
                            .map(number);
                    let (from, to, size) =
                        from.zip(to).zip(size).map(|((a, b), c)| (a, b, c)).ok_or_else(wrong)?;
                    Region::checked(to, size).ok_or_else(wrong)?;
                    let end = from.checked_add(size).ok_or_else(wrong)?;
                    for window in &below {
                        // The overlap of both windows.
                        let start = window.memory.base.max(from);
                        let end = (window.memory.base + window.memory.size).min(end);
                        if start >= end {
                            continue;
                        }
                        let both = DmaWindow {
                            bus_address: window.bus_address + (start - window.memory.base),
                            memory: Region { base: to + (start - from), size: end - start },
                        };
                        windows.try_push(both).map_err(|_| MachineError::TooMany {
                            list: List::DmaWindows,
                            max: super::MAX_DMA_WINDOWS,
                        })?;
                    }
                }
            }
            bus = at.parent;
        }
        Ok(windows)
    }

    /// The coherence of the node's DMA, from the node or the nearest node above.
    pub fn coherence(&self) -> Coherence {
        let mut at = Some(self);
        while let Some(node) = at {
            if node.value("dma-noncoherent").is_some() {
                return Coherence::NonCoherent;
            }
            if node.value("dma-coherent").is_some() {
                return Coherence::Coherent;
            }
            at = node.parent;
        }
        Coherence::Unsaid
    }

    /// The `phandle` of the controller for the node's interrupts.
    /// If the node names none, the nearest node above that names one decides.
    fn interrupt_parent(&self) -> Option<u32> {
        let mut at = Some(self);
        while let Some(node) = at {
            if let Ok(Some(phandle)) = node.cell("interrupt-parent") {
                return Some(phandle);
            }
            at = node.parent;
        }
        None
    }

    /// The interrupt with this index, if the interrupt goes to the GIC.
    pub fn interrupt(&self, gic: Option<&GicNode>, index: usize) -> Option<Interrupt> {
        let gic = gic?;
        if let Some(extended) = self.value("interrupts-extended") {
            // Each specifier follows the phandle of its controller, whose cells set the specifier's
            // length. A position is known only as long as all specifiers before it are the GIC's.
            let mut entries = extended.chunks_exact(4 + gic.interrupt_cells * 4);
            let for_gic = |entry: &&[u8]| entry[..4] == gic.phandle.to_be_bytes();
            let entry = entries.by_ref().take_while(for_gic).nth(index)?;
            return decode_interrupt(&entry[4..]);
        }
        if self.interrupt_parent() != Some(gic.phandle) {
            return None;
        }
        decode_interrupt(
            self.value("interrupts")?.chunks_exact(gic.interrupt_cells * 4).nth(index)?,
        )
    }
}

/// Decodes an interrupt from a GIC's specifier.
///
/// The cells: type (0 shared, 1 private), number within the type, flags (1 and 2 are edges). Up to
/// two more cells do not matter here.
pub fn decode_interrupt(specifier: &[u8]) -> Option<Interrupt> {
    let cell = |i: usize| {
        let bytes = specifier.get(i * 4..i * 4 + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let intid = match (cell(0)?, cell(1)?) {
        (0, spi @ 0..988) => 32 + spi,
        (1, ppi @ 0..16) => 16 + ppi,
        _ => return None,
    };
    Some(Interrupt { intid, edge: cell(2)? & 0b11 != 0 })
}

/// Properties of the GIC's node that interrupts of other devices need.
pub struct GicNode {
    /// The number by which other nodes name the GIC.
    pub phandle: u32,
    /// Number of cells of an address below the GIC, which an interrupt map has before a specifier.
    pub address_cells: usize,
    /// Number of cells of an interrupt's specifier.
    pub interrupt_cells: usize,
}

impl GicNode {
    /// Reads the properties from the GIC's own node.
    pub fn new(at: &At<'_, '_>) -> Result<GicNode, MachineError> {
        let phandle = at.cell("phandle")?.ok_or_else(|| at.wrong("phandle"))?;
        let address_cells = match at.cell("#address-cells")?.unwrap_or(0) {
            cells @ 0..=4 => cells as usize,
            _ => return Err(at.wrong("#address-cells")),
        };
        match at.cell("#interrupt-cells")? {
            Some(cells @ 3..=5) => {
                Ok(GicNode { phandle, address_cells, interrupt_cells: cells as usize })
            }
            _ => Err(at.wrong("#interrupt-cells")),
        }
    }
}

/// The bytes of a property.
pub fn value<'t>(node: FdtNode<'t>, name: &str) -> Option<&'t [u8]> {
    node.property(name)?.value_as().ok()
}

/// The first string of a property, as bytes: up to a zero byte, or all of it.
pub fn until_nul(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The first string of a property: UTF-8 up to a zero byte.
pub fn text(value: &[u8]) -> Option<&str> {
    CStr::from_bytes_until_nul(value).ok()?.to_str().ok()
}

/// A number of up to two cells; no cell at all is 0.
pub fn number(cells: Cells<'_>) -> Option<u64> {
    cells.to_int().ok()
}
