//! Interrupt controllers, as far as sleeping cores need them.
//!
//! Interrupts are never taken: they stay masked in every core for ever. A pending interrupt still
//! ends a core's `wfi`. The code after the `wfi` calls [`InterruptController::acknowledge`], and
//! checks what it was waiting for. So the controller must signal interrupts to the core (groups
//! enabled, priority mask open), and there are no handlers.
//!
//! The drivers use the non-secure view (group 1). With a single security state the registers mean
//! the same for the drivers' purposes, see there.

use core::fmt;

use crate::runtime::dev::mmio::Registers;
use crate::runtime::machine::{Gic, Interrupt, MAX_CPUS, Region};

mod gicv2;
mod gicv3;
mod icc;

pub use gicv2::GicV2;
pub use gicv3::GicV3;
#[cfg(target_arch = "aarch64")]
pub use icc::CoreRegisters;
pub use icc::{Icc, SystemRegisters};

/// The software-generated interrupt that wakes a core.
const WAKE_SGI: u32 = 0;

/// Priority of all interrupts.
/// The priority mask lets through priorities that are more urgent (lower) than 0xff.
const PRIORITY: u8 = 0xa0;

/// First special interrupt number.
/// From this number on, nothing is pending (IHI 0048 3.2.5, IHI 0069 2.2.1).
const SPECIAL_INTIDS: u32 = 1020;

/// An interrupt controller whose shared part is set up.
/// The caller numbers the cores, below [`MAX_CPUS`].
pub trait InterruptController {
    /// Sets up the calling core's part, with only the wake-up interrupt enabled.
    ///
    /// The wake-up interrupt is that of [`Self::send_wake`]. `mpidr` holds the affinity fields of
    /// the core's `MPIDR_EL1`.
    ///
    /// # Errors
    /// The controller has no part for this core, or does not answer.
    fn init_core(&self, core: usize, mpidr: u64) -> Result<(), IrqError>;

    /// Lets `interrupt` end the sleep of `core`, which is set up.
    /// A private interrupt must be the calling core's own.
    ///
    /// # Errors
    /// There is no such interrupt, or the core is not set up.
    fn enable(&self, interrupt: Interrupt, core: usize) -> Result<(), IrqError>;

    /// Stops a shared interrupt from ending the sleep of any core.
    ///
    /// A core may still wake once by the interrupt, where the interrupt is on its way.
    fn disable(&self, interrupt: Interrupt);

    /// Ends the sleep of `core`.
    ///
    /// A core that is not set up does not sleep, so the call does nothing. The caller's earlier
    /// writes are visible to the core when it wakes.
    fn send_wake(&self, core: usize);

    /// Acknowledges the most urgent pending interrupt of the calling core.
    /// The result is its number. An interrupt that its device still asserts is pending again at
    /// once.
    fn acknowledge(&self) -> Option<u32>;

    /// Stops all signals to the calling core, so that its next sleep never ends.
    fn mute_core(&self);
}

/// The interrupt controller cannot do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqError {
    /// No redistributor belongs to the core with this `MPIDR_EL1`.
    NoRedistributor {
        /// The affinity fields.
        mpidr: u64,
    },
    /// A part of the controller does not answer.
    NoAnswer {
        /// The name of the part.
        part: &'static str,
    },
    /// Firmware or a hypervisor denies access to the CPU interface.
    /// The access is that to the system registers of the interface.
    NoSystemRegisters,
    /// There is no interrupt of this number.
    NoSuchInterrupt {
        /// The number.
        intid: u32,
    },
    /// The core's part is not set up.
    CoreNotReady {
        /// The core.
        core: usize,
    },
}

impl fmt::Display for IrqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IrqError::NoRedistributor { mpidr } => {
                write!(f, "the GIC has no redistributor for the core with MPIDR {mpidr:#x}")
            }
            IrqError::NoAnswer { part } => write!(f, "the GIC's {part} does not answer"),
            IrqError::NoSystemRegisters => {
                f.write_str("the GIC's system registers are not accessible")
            }
            IrqError::NoSuchInterrupt { intid } => write!(f, "the GIC has no interrupt {intid}"),
            IrqError::CoreNotReady { core } => {
                write!(f, "the GIC is not set up for core {core}")
            }
        }
    }
}

impl core::error::Error for IrqError {}

/// The interrupt controller that the device tree names.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a machine has one of it, in a static")]
pub enum Controller<R, S> {
    /// A GICv2.
    V2(GicV2<R>),
    /// A GICv3.
    V3(GicV3<R, S>),
}

impl<R: Registers, S: SystemRegisters> Controller<R, S> {
    /// Takes over the controller that `gic` describes.
    ///
    /// `map` gives access to its registers.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn new(gic: &Gic, mut map: impl FnMut(Region) -> R, system: S) -> Result<Self, IrqError> {
        match gic {
            Gic::V2 { distributor, cpu_interface } => {
                Ok(Controller::V2(GicV2::new(map(*distributor), map(*cpu_interface))))
            }
            Gic::V3 { distributor, redistributors, stride } => {
                let regions = redistributors.iter().map(|&r| (map(r), r.size as usize)).collect();
                let distributor = map(*distributor);
                let stride = stride.map(|stride| stride as usize);
                Ok(Controller::V3(GicV3::new(distributor, regions, stride, system)?))
            }
        }
    }
}

impl<R: Registers, S: SystemRegisters> InterruptController for Controller<R, S> {
    fn init_core(&self, core: usize, mpidr: u64) -> Result<(), IrqError> {
        match self {
            Controller::V2(gic) => gic.init_core(core, mpidr),
            Controller::V3(gic) => gic.init_core(core, mpidr),
        }
    }

    fn enable(&self, interrupt: Interrupt, core: usize) -> Result<(), IrqError> {
        match self {
            Controller::V2(gic) => gic.enable(interrupt, core),
            Controller::V3(gic) => gic.enable(interrupt, core),
        }
    }

    fn disable(&self, interrupt: Interrupt) {
        match self {
            Controller::V2(gic) => gic.disable(interrupt),
            Controller::V3(gic) => gic.disable(interrupt),
        }
    }

    fn send_wake(&self, core: usize) {
        match self {
            Controller::V2(gic) => gic.send_wake(core),
            Controller::V3(gic) => gic.send_wake(core),
        }
    }

    fn acknowledge(&self) -> Option<u32> {
        match self {
            Controller::V2(gic) => gic.acknowledge(),
            Controller::V3(gic) => gic.acknowledge(),
        }
    }

    fn mute_core(&self) {
        match self {
            Controller::V2(gic) => gic.mute_core(),
            Controller::V3(gic) => gic.mute_core(),
        }
    }
}

/// Register banks, the same in versions 2 and 3.
///
/// A register of a distributor covers 16, 32 or more interrupts. A redistributor's register covers
/// its 32 (IHI 0048 4.3, IHI 0069 12.8 and 12.11).
mod banks {
    use super::{Interrupt, PRIORITY, Registers};

    /// `IGROUPR`: one bit an interrupt, set for group 1.
    pub const GROUP: usize = 0x080;
    /// `ISENABLER`: one bit an interrupt.
    pub const SET_ENABLE: usize = 0x100;
    /// `ICENABLER`: one bit an interrupt.
    pub const CLEAR_ENABLE: usize = 0x180;
    /// `ICPENDR`: one bit an interrupt.
    pub const CLEAR_PENDING: usize = 0x280;
    /// `ICACTIVER`: one bit an interrupt.
    pub const CLEAR_ACTIVE: usize = 0x380;
    /// `IPRIORITYR`: one byte an interrupt.
    pub const PRIORITY_BYTE: usize = 0x400;
    /// `ICFGR`: two bits an interrupt, the upper set for an edge.
    pub const CONFIG: usize = 0xc00;

    /// Number of interrupts, from the distributor's `GICD_TYPER`.
    /// The last few numbers are special, and do not count.
    pub fn count(typer: u32) -> u32 {
        (32 * ((typer & 0x1f) + 1)).min(super::SPECIAL_INTIDS)
    }

    /// Disables the interrupts from 32 times `block` on, and clears their state.
    pub fn quiet(r: &impl Registers, frame: usize, block: u32) {
        let at = frame + 4 * block as usize;
        r.write32(at + CLEAR_ENABLE, !0);
        r.write32(at + CLEAR_PENDING, !0);
        r.write32(at + CLEAR_ACTIVE, !0);
    }

    /// Sets the priority of an interrupt and enables it.
    /// The trigger of a shared interrupt is set as well.
    pub fn enable(r: &impl Registers, frame: usize, interrupt: Interrupt) {
        let intid = interrupt.intid as usize;
        r.write8(frame + PRIORITY_BYTE + intid, PRIORITY);
        if intid >= 32 {
            let config = frame + CONFIG + intid / 16 * 4;
            let edge = 0b10 << (intid % 16 * 2);
            let others = r.read32(config) & !edge;
            r.write32(config, others | if interrupt.edge { edge } else { 0 });
        }
        r.write32(frame + SET_ENABLE + intid / 32 * 4, 1 << (intid % 32));
    }

    /// Disables an interrupt of the distributor. The private ones are not the distributor's.
    pub fn disable(r: &impl Registers, count: u32, interrupt: Interrupt) {
        if (32..count).contains(&interrupt.intid) {
            let intid = interrupt.intid as usize;
            r.write32(CLEAR_ENABLE + intid / 32 * 4, 1 << (intid % 32));
        }
    }
}
