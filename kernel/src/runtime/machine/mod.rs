//! The machine as the device tree describes it; no machine's address is a constant.
//!
//! [`Machine::from_fdt`] runs before there is a heap. So its lists have a fixed capacity, and its
//! strings borrow from the tree. The machine needs its memory, and the reserved parts of the
//! memory: a tree that is wrong about these is an error. Anything else that is malformed or does
//! not fit is left out. [`Machine::left_out`] lists these omissions for the log, because there is
//! no console yet.
//!
//! Sources: Devicetree Specification 0.4 (structure, `ranges`, `/chosen`, `/reserved-memory`), and
//! the Linux kernel's bindings:
//!
//! - `arm,gic`, `arm,gic-v3`, `arm,armv8-timer`, `arm,psci`, `arm,cpus`
//! - `arm,pl011`, `8250`, `samsung,uart` (for `apple,s5l-uart`), `brcm,bcm2835-aux-uart`
//! - `brcm,bcm2835-pm`, `brcm,bcm2835-mbox`, `brcm,bcm2835-gpio`, `brcm,bcm2835-cprman`
//! - `simple-framebuffer`, `virtio,mmio`, `pci-host-ecam-generic`, `brcm,iproc-sdhci`
//! - `apple,cluster-cpufreq`, `opp-v2-base`, `apple,wdt`

#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;

use arrayvec::{ArrayString, ArrayVec};
use dtoolkit::error::FdtParseError;

mod clusters;
mod framebuffer;
mod nodes;
mod pci;
mod read;
mod structure;
mod tree;

pub use clusters::Cluster;
pub use framebuffer::{Framebuffer, PixelFormat};
pub use pci::{PciHost, PciInterrupts, PciSpace, PciWindow};

#[cfg(test)]
mod tests;

/// Maximum number of memory regions in use.
pub const MAX_MEMORY: usize = 16;
/// Maximum number of reserved regions. A phone has some 35.
pub const MAX_RESERVED: usize = 64;
/// Maximum number of cores in use.
pub const MAX_CPUS: usize = 64;
/// Maximum number of core clusters whose clock is raised.
pub const MAX_CLUSTERS: usize = 8;
/// Maximum number of virtio-mmio transports. QEMU's `virt` machine has 32.
pub const MAX_VIRTIO_MMIO: usize = 64;
/// Maximum number of address windows of a PCI host bridge.
pub const MAX_PCI_WINDOWS: usize = 8;
/// Maximum number of entries in a PCI host bridge's interrupt map. QEMU's `virt` machine has 16.
pub const MAX_PCI_INTERRUPTS: usize = 32;
/// Maximum number of SD host controllers.
pub const MAX_SD_HOSTS: usize = 4;
/// Maximum number of DMA windows of a device.
pub const MAX_DMA_WINDOWS: usize = 4;
/// Maximum number of redistributor regions of a GICv3.
pub const MAX_REDISTRIBUTORS: usize = 8;
/// Maximum number of entries in [`Machine::left_out`].
pub const MAX_LEFT_OUT: usize = 8;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
}

impl Region {
    /// The addresses from the first to one past the last.
    pub const fn range(self) -> Range<u64> {
        self.base..self.base + self.size
    }

    /// Whether any address lies in both.
    const fn overlaps(self, other: &Range<u64>) -> bool {
        self.base < other.end && other.start < self.base + self.size
    }

    /// Makes a region that is not empty and within a processor's physical addresses.
    const fn checked(base: u64, size: u64) -> Option<Region> {
        match base.checked_add(size) {
            Some(end) if size > 0 && end <= 1 << 48 => Some(Region { base, size }),
            _ => None,
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.base, self.base + self.size)
    }
}

/// An interrupt, as the interrupt controller numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The GIC's number (INTID).
    /// Private interrupts of a core (PPI) are 16 to 31, shared ones (SPI) start at 32.
    pub intid: u32,
    /// The interrupt is edge-triggered, not level-triggered.
    pub edge: bool,
}

/// The method of starting a core that is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableMethod {
    /// A call to the firmware, see [`Machine::psci`].
    Psci,
    /// The core polls a word of memory for an address.
    SpinTable {
        /// Address of that 64-bit word.
        release_addr: u64,
    },
    /// The tree names no method, or an unknown one. The boot core needs no method.
    Unknown,
}

/// A core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The affinity fields of the core's `MPIDR_EL1`.
    pub mpidr: u64,
    /// The method of starting the core.
    pub enable_method: EnableMethod,
    /// Relative performance: `capacity-dmips-mhz`; 0 if the tree does not say.
    pub capacity: u32,
}

/// The instruction that calls the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `hvc`, to the hypervisor.
    Hvc,
    /// `smc`, to the secure monitor.
    Smc,
}

/// The firmware's power interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Psci {
    /// The instruction that calls the firmware.
    pub conduit: Conduit,
    /// Number of `CPU_ON` in PSCI 0.1, which fixed no numbers.
    /// PSCI 0.1 cannot power the machine off.
    pub legacy_cpu_on: Option<u32>,
}

/// A chip with devices that have no nodes in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// `brcm,bcm2711`: the Raspberry Pi 4, the 400 and the Compute Module 4.
    Bcm2711,
    /// `apple,arm-platform`: Apple's chips for Macs.
    Apple,
    /// Any other chip.
    Other,
}

/// The kind of a serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// `arm,pl011`.
    Pl011,
    /// `ns16550a` and compatible ports, the Raspberry Pi's mini UART among them.
    Ns16550,
    /// `apple,s5l-uart`.
    S5l,
}

/// A serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// The kind of port, which selects the driver.
    pub kind: UartKind,
    /// The registers.
    pub region: Region,
    /// The interrupt of the port.
    pub interrupt: Option<Interrupt>,
    /// The clock that its baud rate is divided from, in Hz.
    pub clock_hz: Option<u32>,
    /// The registers lie `1 << reg_shift` bytes apart.
    pub reg_shift: u32,
    /// Width of an access to a register in bytes: 1 or 4.
    pub reg_io_width: u32,
    /// Baud rate that `stdout-path` asks for.
    pub baud: Option<u32>,
}

/// The header of a board with a [`Chip::Bcm2711`].
/// Two of the header's pins can carry either of two serial ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Registers of the pins.
    pub gpio: Option<Region>,
    /// The first PL011.
    pub pl011: Option<Uart>,
    /// The mini UART.
    pub mini_uart: Option<Uart>,
}

/// The interrupt controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gic {
    /// Version 2.
    V2 {
        /// Registers of the distributor.
        distributor: Region,
        /// Registers of the CPU interface, the same address on each core.
        cpu_interface: Region,
    },
    /// Version 3 or 4.
    V3 {
        /// Registers of the distributor.
        distributor: Region,
        /// Redistributors, one after another in each region.
        redistributors: ArrayVec<Region, MAX_REDISTRIBUTORS>,
        /// Bytes from one redistributor to the next.
        ///
        /// `None` for the stride of the architecture.
        stride: Option<u64>,
    },
}

/// The generic timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The private interrupt of the virtual timer, `CNTV`.
    pub virtual_timer: Interrupt,
    /// Frequency in Hz, only given where the firmware has left `CNTFRQ_EL0` wrong.
    pub frequency_hz: Option<u32>,
}

/// Whether a device's DMA goes through the processor's caches.
///
/// Source: Devicetree Specification 0.4, chapter 2.3. A property of a bus holds for all devices on
/// the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coherence {
    /// `dma-coherent`: the DMA goes through the caches.
    Coherent,
    /// `dma-noncoherent`: the DMA bypasses the caches.
    NonCoherent,
    /// The tree does not say. By the rule for arm64 the DMA bypasses the caches.
    Unsaid,
}

/// A virtio-mmio transport. The transport may be empty; its registers say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// The registers.
    pub region: Region,
    /// The interrupt of the transport.
    pub interrupt: Option<Interrupt>,
    /// The coherence of its DMA.
    pub coherence: Coherence,
}

/// A range of memory that a device's DMA reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaWindow {
    /// First address as the device puts it on its bus.
    pub bus_address: u64,
    /// The memory.
    pub memory: Region,
}

/// All that a device's DMA reaches.
pub type DmaWindows = ArrayVec<DmaWindow, MAX_DMA_WINDOWS>;

/// An SD host controller. There may be no card in its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdHost {
    /// The registers.
    pub region: Region,
    /// The windows of its DMA.
    pub dma: DmaWindows,
    /// The switchable supply of the card, if there is one.
    pub supply: Option<SdSupply>,
}

/// Pins of a Raspberry Pi's GPIO expander that switch a card's supply.
///
/// The pins are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdSupply {
    /// High for 1.8 V on the lines, low for 3.3 V.
    pub low_voltage_pin: u32,
    /// High for power on.
    pub power_pin: u32,
}

/// The machine. Its strings borrow from the tree.
#[derive(Clone, Debug)]
pub struct Machine<'t> {
    /// The name of the machine: `model`, or else the first string of `compatible`.
    /// By convention the name is UTF-8, which is not checked.
    pub model: &'t [u8],
    /// The chip of the machine.
    pub chip: Chip,
    /// RAM, reserved parts included.
    pub memory: ArrayVec<Region, MAX_MEMORY>,
    /// Parts of the RAM that must not be used.
    ///
    /// These parts hold the firmware, the device tree itself and the initrd. Some parts (`no-map`)
    /// must not even be mapped as memory, lest the processor read them speculatively.
    pub reserved: ArrayVec<Region, MAX_RESERVED>,
    /// The boot arguments; empty if there are none.
    /// By convention the arguments are UTF-8, which is not checked.
    pub bootargs: &'t [u8],
    /// Random bytes from the boot loader; empty if there are none.
    pub rng_seed: &'t [u8],
    /// The initial RAM disk that the boot loader left.
    pub initrd: Option<Region>,
    /// The cores in the order of the tree, the boot core included.
    pub cpus: ArrayVec<Cpu, MAX_CPUS>,
    /// The clusters of an Apple chip whose clock can be set.
    pub clusters: ArrayVec<Cluster, MAX_CLUSTERS>,
    /// The firmware's power interface.
    pub psci: Option<Psci>,
    /// Registers of a Broadcom BCM2835 power manager.
    /// The power manager can power off where PSCI cannot.
    pub power_manager: Option<Region>,
    /// Registers of the VideoCore's property mailbox, on a [`Chip::Bcm2711`].
    pub mailbox: Option<Region>,
    /// Registers of an Apple chip's watchdog, which can restart the chip.
    pub watchdog: Option<Region>,
    /// Registers of a real-time clock PL031.
    pub rtc: Option<Region>,
    /// Registers of the clocks of a [`Chip::Bcm2711`].
    pub clock_manager: Option<Region>,
    /// The serial port of `/chosen/stdout-path`.
    /// If no driver supports that port, this is the first port with a driver.
    pub console: Option<Uart>,
    /// The header; empty on other chips than a [`Chip::Bcm2711`].
    pub header: Header,
    /// The framebuffer of a display. Its memory is reserved.
    pub framebuffer: Option<Framebuffer>,
    /// The interrupt controller.
    pub gic: Option<Gic>,
    /// The generic timer.
    pub timer: Option<Timer>,
    /// The virtio-mmio transports, by rising address.
    pub virtio_mmio: ArrayVec<VirtioMmio, MAX_VIRTIO_MMIO>,
    /// The first PCI host bridge.
    pub pci: Option<PciHost>,
    /// The SD host controllers, in the order of the tree.
    pub sd_hosts: ArrayVec<SdHost, MAX_SD_HOSTS>,
    /// Errors about parts of the tree that were left out, for the log.
    pub left_out: ArrayVec<MachineError, MAX_LEFT_OUT>,
}

/// The lists of a [`Machine`] that can overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// [`Machine::memory`].
    Memory,
    /// [`Machine::reserved`].
    Reserved,
    /// [`Machine::cpus`].
    Cpus,
    /// [`Machine::clusters`].
    Clusters,
    /// [`Machine::virtio_mmio`].
    VirtioMmio,
    /// [`Machine::sd_hosts`].
    SdHosts,
    /// [`SdHost::dma`].
    DmaWindows,
    /// [`PciHost::windows`].
    PciWindows,
    /// [`PciHost::interrupts`].
    PciInterrupts,
    /// The redistributors of [`Gic::V3`].
    Redistributors,
}

/// A node's name, cut after 40 bytes.
/// By the specification, names have up to 31 bytes before the address.
pub type NodeName = ArrayString<40>;

/// An error in a device tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// The bytes are no flattened device tree, or a damaged one.
    Tree(FdtParseError),
    /// The nodes and properties of the tree do not nest.
    Structure,
    /// The tree lists no memory.
    NoMemory,
    /// A required property is missing or invalid.
    Property {
        /// The node.
        node: NodeName,
        /// Name of the property.
        property: &'static str,
    },
    /// The processor cannot reach the registers of a device.
    Unreachable {
        /// The node.
        node: NodeName,
    },
    /// The memory of a device overlaps with other memory in use.
    Overlap {
        /// The kind of device.
        device: &'static str,
    },
    /// A list has more entries than its capacity.
    TooMany {
        /// The list.
        list: List,
        /// The capacity.
        max: usize,
    },
    /// Nodes are nested deeper than in any machine's tree.
    TooDeep {
        /// The node at the depth limit.
        node: NodeName,
    },
}

impl From<FdtParseError> for MachineError {
    fn from(e: FdtParseError) -> Self {
        MachineError::Tree(e)
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MachineError::Tree(e) => write!(f, "the device tree is damaged: {e}"),
            MachineError::Structure => {
                f.write_str("the device tree is damaged: its nodes do not fit into each other")
            }
            MachineError::NoMemory => f.write_str("the device tree lists no memory"),
            MachineError::Property { node, property } => {
                write!(f, "device tree: `{property}` of node `{node}` is missing or malformed")
            }
            MachineError::Unreachable { node } => {
                write!(f, "device tree: node `{node}` has no address that the processor can reach")
            }
            MachineError::Overlap { device } => {
                write!(f, "device tree: the {device} lies where something else does")
            }
            MachineError::TooMany { list, max } => {
                write!(f, "device tree: more than {max} entries for {list:?}")
            }
            MachineError::TooDeep { node } => {
                write!(f, "device tree: node `{node}` is nested too deep")
            }
        }
    }
}

impl core::error::Error for MachineError {}
