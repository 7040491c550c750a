//! Walks the device tree and reads properties whose meaning depends on where a node stands.
//!
//! These are addresses, translated through each bus above the node, and interrupts, read by the
//! controller that they go to.

use core::ffi::CStr;
use core::ops::ControlFlow;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Cells, Node, Property, ToCellInt};

use super::{Coherence, DmaWindow, DmaWindows, Interrupt, List, MachineError, NodeName, Region};

/// The deepest nesting that is followed; real trees have six or so.
const MAX_DEPTH: usize = 16;

/// A node and the nodes above it.
pub struct At<'a, 't> {
    pub node: FdtNode<'t>,
    parent: Option<&'a At<'a, 't>>,
    // Looked at in nearly every node, so looked up once.
    status: Option<&'t [u8]>,
    device_type: Option<&'t [u8]>,
    compatible: &'t [u8],
}

/// What is called on each node of a walk. `Break` leaves the node's children out.
pub type Visit<'v, 't> = &'v mut dyn FnMut(&At<'_, 't>) -> Result<ControlFlow<()>, MachineError>;

/// Visits the nodes in the order of the tree, those that are disabled and all below them left out.
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

    /// `status` is absent or says that the device works.
    ///
    /// A core may be "disabled" and still be there to be started (Devicetree Specification 3.8.1),
    /// so only a failure takes it out.
    fn is_available(&self) -> bool {
        match self.status {
            None | Some(b"okay" | b"ok") => true,
            Some(b"disabled") => self.is_cpu(),
            Some(_) => false,
        }
    }

    /// It is a core: a child of `/cpus` of that type or name.
    pub fn is_cpu(&self) -> bool {
        self.parent.is_some_and(|p| p.is_top("cpus"))
            && (self.text("device_type") == Some("cpu")
                || self.node.name_without_address() == "cpu")
    }

    /// It is a child of the root, of this name (without its address).
    pub fn is_top(&self, name: &str) -> bool {
        self.parent.is_some_and(|p| p.parent.is_none()) && self.node.name_without_address() == name
    }

    /// Its parent is a child of the root of this name.
    pub fn is_under(&self, name: &str) -> bool {
        self.parent.is_some_and(|p| p.is_top(name))
    }

    /// It is the node at `path`, whose components may leave out the unit address.
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

    /// `compatible`, a list of texts, has one of these.
    pub fn is_compatible(&self, with: &[&str]) -> bool {
        let mut names = self.compatible.split(|&byte| byte == 0);
        names.any(|name| with.iter().any(|with| with.as_bytes() == name))
    }

    /// It is memory by its type.
    pub fn is_memory(&self) -> bool {
        self.is_top("memory") || self.device_type == Some(&b"memory"[..])
    }

    pub fn value(&self, name: &str) -> Option<&'t [u8]> {
        value(self.node, name)
    }

    pub fn text(&self, name: &str) -> Option<&'t str> {
        text(self.value(name)?)
    }

    /// A property of one cell; `None` if it is absent.
    pub fn cell(&self, name: &'static str) -> Result<Option<u32>, MachineError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let bytes = value.try_into().map_err(|_| self.wrong(name))?;
        Ok(Some(u32::from_be_bytes(bytes)))
    }

    /// A property that holds one number of one or two cells; `None` if it is absent.
    pub fn number(&self, name: &'static str) -> Result<Option<u64>, MachineError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        if let Ok(bytes) = value.try_into() {
            return Ok(Some(u64::from_be_bytes(bytes)));
        }
        Ok(self.cell(name)?.map(u64::from))
    }

    /// The entries of `reg` as the node's bus counts, not translated. Empty ones are left out.
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

    /// The entries of `reg`, translated to the processor's addresses. Empty ones are left out.
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

    /// A region of the bus that this node stands on, as the processor sees it.
    ///
    /// Each bus on the way up maps its own addresses to its parent's with `ranges`. An empty `ranges`
    /// means that the addresses are the same, a missing one that there is no way.
    pub fn translate(&self, mut region: Region) -> Option<Region> {
        let mut bus = self.parent;
        while let Some(at) = bus.filter(|at| at.parent.is_some()) {
            if !at.value("ranges")?.is_empty() {
                region = at.node.ranges().ok()??.find_map(|range| {
                    let from = number(range.child_bus_address)?;
                    let length = number(range.length)?;
                    let offset = region.base.checked_sub(from)?;
                    // Both ends inside, written so that nothing can overflow.
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

    /// What the node's DMA reaches: the `dma-ranges` of its bus, seen through those of the buses
    /// above. Where a bus has none or an empty one, addresses are the same on both of its sides.
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
                        // What both let through.
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

    /// How the node's DMA reaches memory: what the node says, or the next one above that says it.
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

    /// `phandle` of the controller that the node's interrupts go to: its own or, if it names none,
    /// that of the next node above that does.
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

    /// The interrupt with this index, if it goes to the GIC.
    pub fn interrupt(&self, gic: Option<&GicNode>, index: usize) -> Option<Interrupt> {
        let gic = gic?;
        if let Some(extended) = self.value("interrupts-extended") {
            // Each specifier with the controller that it is for in front, whose cells set its length:
            // only as long as all are the GIC's is it known where one starts.
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

/// An interrupt by a GIC's specifier.
///
/// The cells: type (0 shared, 1 private), number within the type, flags (1 and 2 are edges). Up to two
/// more cells do not matter here.
fn decode_interrupt(specifier: &[u8]) -> Option<Interrupt> {
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

/// What the nodes of other devices need to know of the GIC's.
pub struct GicNode {
    phandle: u32,
    interrupt_cells: usize,
}

impl GicNode {
    /// Reads it from the GIC's own node.
    pub fn new(at: &At<'_, '_>) -> Result<GicNode, MachineError> {
        let phandle = at.cell("phandle")?.ok_or_else(|| at.wrong("phandle"))?;
        match at.cell("#interrupt-cells")? {
            Some(cells @ 3..=5) => Ok(GicNode { phandle, interrupt_cells: cells as usize }),
            _ => Err(at.wrong("#interrupt-cells")),
        }
    }
}

/// The bytes of a property.
pub fn value<'t>(node: FdtNode<'t>, name: &str) -> Option<&'t [u8]> {
    node.property(name)?.value_as().ok()
}

/// The first text of a property, whatever its bytes: up to a zero byte, or all of it.
pub fn until_nul(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The first text of a property: UTF-8 up to a zero byte.
pub fn text(value: &[u8]) -> Option<&str> {
    CStr::from_bytes_until_nul(value).ok()?.to_str().ok()
}

/// A number of up to two cells; no cell at all is 0.
pub fn number(cells: Cells<'_>) -> Option<u64> {
    cells.to_int().ok()
}
