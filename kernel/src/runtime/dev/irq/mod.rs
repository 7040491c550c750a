//! Interrupt controllers, as far as cores that sleep need them.
//!
//! Interrupts are never taken: they stay masked in every core for ever. One that is pending ends a
//! core's `wfi` all the same; the code after it then calls [`InterruptController::acknowledge`] and
//! looks at what it was waiting for. So the controller must signal interrupts to the core (groups
//! enabled, priority mask open), and there are no handlers.
//!
//! The non-secure view is the one used (group 1); where there is only one security state, the
//! registers mean the same for our purposes, see the drivers.

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

/// Priority of all interrupts; the mask lets through what is more urgent (lower) than 0xff.
const PRIORITY: u8 = 0xa0;

/// From here on the numbers mean that nothing is pending (IHI 0048 3.2.5, IHI 0069 2.2.1).
const SPECIAL_INTIDS: u32 = 1020;

/// An interrupt controller whose shared part is set up. Cores are numbered by the caller, below
/// [`MAX_CPUS`].
pub trait InterruptController {
    /// Sets up the calling core's part, with only the wake-up from [`Self::send_wake`] enabled.
    /// `mpidr` holds the affinity fields of its `MPIDR_EL1`.
    ///
    /// # Errors
    /// The controller has no part for this core, or it does not answer.
    fn init_core(&self, core: usize, mpidr: u64) -> Result<(), IrqError>;

    /// Lets `interrupt` end the sleep of `core`, which is set up; a private one must be the calling
    /// core's own.
    ///
    /// # Errors
    /// There is no such interrupt, or the core is not set up.
    fn enable(&self, interrupt: Interrupt, core: usize) -> Result<(), IrqError>;

    /// Ends the sleep of `core`. One that is not set up does not sleep, so nothing happens. What the
    /// caller wrote before is visible to the core when it wakes.
    fn send_wake(&self, core: usize);

    /// Takes note of the most urgent interrupt that is pending on the calling core and gives its
    /// number. One that its device still asserts is pending again at once.
    fn acknowledge(&self) -> Option<u32>;

    /// Signals nothing to the calling core any more, so that its next sleep never ends.
    fn mute_core(&self);
}

/// Why the interrupt controller cannot do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqError {
    /// No redistributor is that of the core with this `MPIDR_EL1`.
    NoRedistributor {
        /// The affinity fields.
        mpidr: u64,
    },
    /// It does not answer.
    NoAnswer {
        /// Which part.
        part: &'static str,
    },
    /// Firmware or a hypervisor keeps the system registers of the CPU interface to itself.
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
    /// Takes over the controller that `gic` describes; `map` gives access to its registers.
    ///
    /// # Errors
    /// It does not answer.
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

/// The registers that a distributor has in one form for 16, 32 or more interrupts each, and a
/// redistributor for its 32: the same in versions 2 and 3 (IHI 0048 4.3, IHI 0069 12.8 and 12.11).
mod banks {
    use super::{Interrupt, PRIORITY, Registers};

    /// `IGROUPR`: one bit an interrupt, set for group 1.
    pub const GROUP: usize = 0x080;
    /// `ISENABLER`: one bit an interrupt.
    pub const SET_ENABLE: usize = 0x100;
    /// `ICENABLER`.
    pub const CLEAR_ENABLE: usize = 0x180;
    /// `ICPENDR`.
    pub const CLEAR_PENDING: usize = 0x280;
    /// `ICACTIVER`.
    pub const CLEAR_ACTIVE: usize = 0x380;
    /// `IPRIORITYR`: one byte an interrupt.
    pub const PRIORITY_BYTE: usize = 0x400;
    /// `ICFGR`: two bits an interrupt, the upper set for an edge.
    pub const CONFIG: usize = 0xc00;

    /// Interrupts that the distributor's `GICD_TYPER` tells of; the last few numbers are special.
    pub fn count(typer: u32) -> u32 {
        (32 * ((typer & 0x1f) + 1)).min(super::SPECIAL_INTIDS)
    }

    /// Disables the interrupts from 32 times `block` on, and forgets what they were up to.
    pub fn quiet(r: &impl Registers, frame: usize, block: u32) {
        let at = frame + 4 * block as usize;
        r.write32(at + CLEAR_ENABLE, !0);
        r.write32(at + CLEAR_PENDING, !0);
        r.write32(at + CLEAR_ACTIVE, !0);
    }

    /// Gives an interrupt its priority and enables it; of a shared one also sets the trigger.
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
}
