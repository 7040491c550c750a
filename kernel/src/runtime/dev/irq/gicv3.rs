//! Arm Generic Interrupt Controller, versions 3 and 4.
//!
//! Source: Arm Generic Interrupt Controller Architecture Specification, GIC architecture version 3
//! and version 4, Arm IHI 0069, issue H. Chapter 12 describes the registers; 11.1 and 12.1 give the
//! order of their set-up.
//!
//! All interrupts are in group 1. In the non-secure view all are in group 1 already, and the group
//! bits do not exist. With a single security state, the driver sets the group bits.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::icc::{Icc, SystemRegisters};
use super::{
    Interrupt, InterruptController, IrqError, MAX_CPUS, Registers, SPECIAL_INTIDS, WAKE_SGI, banks,
};
use crate::runtime::dev::mmio::publish;
use crate::runtime::machine::MAX_REDISTRIBUTORS;

/// Distributor control.
const GICD_CTLR: usize = 0x0000;
/// Forward interrupts of group 1.
///
/// Which of the two bits enables group 1 depends on the view (12.9.4). Where the other bit enables
/// group 0, no interrupt is in group 0.
const CTLR_ENABLE_GROUP1: u32 = 0b11;
/// Affinity routing.
const CTLR_ARE: u32 = 1 << 4;
/// A write to this register or to `ICENABLER` has not taken effect everywhere yet.
const CTLR_RWP: u32 = 1 << 31;
/// Features of the distributor.
const GICD_TYPER: usize = 0x0004;
/// Affinity of the target core, 64 bits an interrupt.
const GICD_IROUTER: usize = 0x6000;

/// Redistributor control.
const GICR_CTLR: usize = 0x0000;
/// A write to `ICENABLER0` has not taken effect yet.
const GICR_CTLR_RWP: u32 = 1 << 3;
/// The core of the redistributor, and the redistributor's features.
const GICR_TYPER: usize = 0x0008;
/// The redistributor has two more frames for virtual interrupts.
const TYPER_VLPIS: u64 = 1 << 1;
/// The redistributor is the last of its region.
const TYPER_LAST: u64 = 1 << 4;
/// Power management.
const GICR_WAKER: usize = 0x0014;
/// The core is marked as off.
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
/// The interface to the core is asleep.
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
/// The redistributor's second frame: the private interrupts.
const SGI_FRAME: usize = 0x1_0000;
/// Size of a redistributor: two frames of 64 KiB; four with virtual LPIs.
const FRAMES: usize = 0x2_0000;

/// Number of polls of a bit that should change within a few cycles.
const TIMEOUT_POLLS: u32 = 1_000_000;

/// The affinity fields of `MPIDR_EL1`.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// Marks a core without an affinity.
const NOT_READY: u64 = u64::MAX;

/// A GICv3.
#[derive(Debug)]
pub struct GicV3<R, S> {
    distributor: R,
    redistributors: ArrayVec<(R, usize), MAX_REDISTRIBUTORS>,
    stride: Option<usize>,
    system: S,
    /// Number of interrupts.
    count: u32,
    /// For each core its affinity, or [`NOT_READY`].
    cores: [AtomicU64; MAX_CPUS],
}

impl<R: Registers, S: SystemRegisters> GicV3<R, S> {
    /// Takes over the distributor, with all shared interrupts disabled.
    ///
    /// `redistributors` holds each region with its size in bytes. `stride` is the number of bytes
    /// from one redistributor to the next, if it differs from the architecture's.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn new(
        distributor: R,
        redistributors: ArrayVec<(R, usize), MAX_REDISTRIBUTORS>,
        stride: Option<usize>,
        system: S,
    ) -> Result<GicV3<R, S>, IrqError> {
        let count = banks::count(distributor.read32(GICD_TYPER));
        let cores = [const { AtomicU64::new(NOT_READY) }; MAX_CPUS];
        let gic = GicV3 { distributor, redistributors, stride, system, count, cores };
        let d = &gic.distributor;
        d.write32(GICD_CTLR, 0);
        gic.settle()?;
        for block in 1..count.div_ceil(32) {
            banks::quiet(d, 0, block);
            d.write32(banks::GROUP + 4 * block as usize, !0);
        }
        gic.settle()?;
        d.write32(GICD_CTLR, CTLR_ARE | CTLR_ENABLE_GROUP1);
        gic.settle()?;
        Ok(gic)
    }

    /// Waits until the writes to the distributor have taken effect.
    fn settle(&self) -> Result<(), IrqError> {
        wait_clear(&self.distributor, GICD_CTLR, CTLR_RWP, "distributor")
    }

    /// Finds a core's redistributor by its affinity: its region, and its offset there.
    fn redistributor(&self, mpidr: u64) -> Result<(&R, usize), IrqError> {
        for (r, size) in &self.redistributors {
            let mut at = 0;
            while at + FRAMES <= *size {
                let typer = r.read64(at + GICR_TYPER);
                if typer >> 32 == packed_affinity(mpidr) {
                    return Ok((r, at));
                }
                if typer & TYPER_LAST != 0 {
                    break;
                }
                let frames = if typer & TYPER_VLPIS != 0 { 2 * FRAMES } else { FRAMES };
                at += self.stride.unwrap_or(frames);
            }
        }
        Err(IrqError::NoRedistributor { mpidr })
    }

    fn mpidr(&self, core: usize) -> Option<u64> {
        let mpidr = self.cores.get(core)?.load(Ordering::Acquire);
        (mpidr != NOT_READY).then_some(mpidr)
    }
}

/// Packs an affinity as in `GICR_TYPER`: four fields, without `MPIDR_EL1`'s gap.
fn packed_affinity(mpidr: u64) -> u64 {
    mpidr & 0xff_ffff | mpidr >> 32 << 24
}

fn wait_clear(
    r: &impl Registers,
    offset: usize,
    bits: u32,
    part: &'static str,
) -> Result<(), IrqError> {
    for _ in 0..TIMEOUT_POLLS {
        if r.read32(offset) & bits == 0 {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(IrqError::NoAnswer { part })
}

impl<R: Registers, S: SystemRegisters> InterruptController for GicV3<R, S> {
    fn init_core(&self, core: usize, mpidr: u64) -> Result<(), IrqError> {
        let slot = self.cores.get(core).ok_or(IrqError::CoreNotReady { core })?;
        let mpidr = mpidr & AFFINITY;
        let (r, at) = self.redistributor(mpidr)?;
        let waker = r.read32(at + GICR_WAKER);
        r.write32(at + GICR_WAKER, waker & !WAKER_PROCESSOR_SLEEP);
        wait_clear(r, at + GICR_WAKER, WAKER_CHILDREN_ASLEEP, "redistributor")?;
        banks::quiet(r, at + SGI_FRAME, 0);
        r.write32(at + SGI_FRAME + banks::GROUP, !0);
        wait_clear(r, at + GICR_CTLR, GICR_CTLR_RWP, "redistributor")?;
        banks::enable(r, at + SGI_FRAME, Interrupt { intid: WAKE_SGI, edge: true });

        self.system.write(Icc::Sre, self.system.read(Icc::Sre) | 1);
        if self.system.read(Icc::Sre) & 1 == 0 {
            return Err(IrqError::NoSystemRegisters);
        }
        self.system.write(Icc::Pmr, 0xff);
        self.system.write(Icc::Ctlr, 0);
        self.system.write(Icc::Igrpen1, 1);
        slot.store(mpidr, Ordering::Release);
        Ok(())
    }

    fn enable(&self, interrupt: Interrupt, core: usize) -> Result<(), IrqError> {
        let intid = interrupt.intid;
        let mpidr = self.mpidr(core).ok_or(IrqError::CoreNotReady { core })?;
        if intid >= self.count {
            return Err(IrqError::NoSuchInterrupt { intid });
        }
        if intid < 32 {
            let (r, at) = self.redistributor(mpidr)?;
            banks::enable(r, at + SGI_FRAME, interrupt);
        } else {
            self.distributor.write64(GICD_IROUTER + 8 * intid as usize, mpidr);
            banks::enable(&self.distributor, 0, interrupt);
        }
        Ok(())
    }

    fn disable(&self, interrupt: Interrupt) {
        banks::disable(&self.distributor, self.count, interrupt);
    }

    fn send_wake(&self, core: usize) {
        let Some(mpidr) = self.mpidr(core) else { return };
        let [aff0, aff1, aff2, _, aff3, ..] = mpidr.to_le_bytes().map(u64::from);
        publish();
        // The target list addresses 16 cores with the same higher affinities. The range selector
        // says which 16 (12.2.19).
        self.system.write(
            Icc::Sgi1r,
            aff3 << 48
                | aff0 >> 4 << 44
                | aff2 << 32
                | u64::from(WAKE_SGI) << 24
                | aff1 << 16
                | 1 << (aff0 & 0xf),
        );
    }

    fn acknowledge(&self) -> Option<u32> {
        let intid = self.system.read(Icc::Iar1) as u32 & 0xff_ffff;
        if (SPECIAL_INTIDS..SPECIAL_INTIDS + 4).contains(&intid) {
            return None;
        }
        self.system.write(Icc::Eoir1, intid.into());
        Some(intid)
    }

    fn mute_core(&self) {
        self.system.write(Icc::Pmr, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::runtime::dev::mmio::{Access, FakeRegisters};

    #[derive(Default)]
    struct System {
        writes: Vec<(Icc, u64)>,
        /// Interrupts that wait for acknowledgement, the last one first.
        pending: Vec<u64>,
        sre: u64,
    }

    #[derive(Clone, Default)]
    struct FakeSystem(Arc<Mutex<System>>);

    impl SystemRegisters for FakeSystem {
        fn read(&self, register: Icc) -> u64 {
            let system = &mut *self.0.lock().unwrap();
            match register {
                Icc::Iar1 => system.pending.pop().unwrap_or(1023),
                Icc::Sre => system.sre,
                other => panic!("{other:?} is read"),
            }
        }

        fn write(&self, register: Icc, value: u64) {
            let system = &mut *self.0.lock().unwrap();
            system.writes.push((register, value));
            if register == Icc::Sre {
                system.sre = value;
            }
        }
    }

    impl FakeSystem {
        fn take_writes(&self) -> Vec<(Icc, u64)> {
            core::mem::take(&mut self.0.lock().unwrap().writes)
        }
    }

    /// A distributor of 64 interrupts whose writes take effect a few reads later.
    fn distributor() -> FakeRegisters {
        let mut memory = BTreeMap::from([(GICD_TYPER, 1)]);
        let mut busy = 0;
        FakeRegisters::new(move |access| match access {
            Access::Read { offset: GICD_CTLR, .. } if busy > 0 => {
                busy -= 1;
                CTLR_RWP.into()
            }
            Access::Read { offset, .. } => memory.get(&offset).copied().unwrap_or(0),
            Access::Write { offset, value, .. } => {
                busy = 5;
                memory.insert(offset, value).unwrap_or(0)
            }
        })
    }

    /// Redistributors of two cores, then of one core in another cluster.
    ///
    /// The second redistributor has frames for virtual LPIs. All are asleep, and wake a few reads
    /// after the driver's request.
    fn redistributors() -> FakeRegisters {
        let mut memory = BTreeMap::from([
            (GICR_TYPER, 0),
            (0x2_0000 + GICR_TYPER, 1 << 32 | TYPER_VLPIS),
            (0x6_0000 + GICR_TYPER, 0x0200_0103 << 32 | TYPER_LAST),
            // Never read: behind the last redistributor.
            (0x8_0000 + GICR_TYPER, 2 << 32),
        ]);
        for at in [0, 0x2_0000, 0x6_0000] {
            memory.insert(at + GICR_WAKER, 0b110);
        }
        let mut polls = 3;
        FakeRegisters::new(move |access| match access {
            Access::Read { offset, .. } => {
                let value = memory.get(&offset).copied().unwrap_or(0);
                if offset & 0xffff == GICR_WAKER && value & 0b010 == 0 {
                    polls -= 1;
                    if polls == 0 {
                        memory.insert(offset, value & !0b100);
                    }
                }
                value
            }
            Access::Write { offset, value, .. } => memory.insert(offset, value).unwrap_or(0),
        })
    }

    fn gic() -> (GicV3<FakeRegisters, FakeSystem>, FakeSystem) {
        let system = FakeSystem::default();
        let regions = ArrayVec::from_iter([
            (FakeRegisters::memory(&[(GICR_TYPER, 0x77 << 32)]), 0x2_0000),
            (redistributors(), 0xa_0000),
        ]);
        (GicV3::new(distributor(), regions, None, system.clone()).unwrap(), system)
    }

    const ALL: u64 = 0xffff_ffff;

    #[test]
    fn takes_over_the_distributor() {
        let (gic, system) = gic();
        assert_eq!(
            gic.distributor.writes(),
            [
                (GICD_CTLR, 0),
                (0x184, ALL),
                (0x284, ALL),
                (0x384, ALL),
                (0x084, ALL),
                (GICD_CTLR, 0x13)
            ]
        );
        // The driver waited twice: before any setting, and before the enable.
        let reads_before = |write| {
            let accesses = gic.distributor.accesses();
            let at = accesses.iter().position(|a| *a == write).unwrap();
            accesses[..at].iter().rev().take_while(|a| matches!(a, Access::Read { .. })).count()
        };
        let write = |offset, value| Access::Write { offset, width: 4, value };
        assert_eq!(reads_before(write(0x184, ALL)), 6);
        assert_eq!(reads_before(write(GICD_CTLR, 0x13)), 6);
        assert_eq!(system.take_writes(), []);
    }

    #[test]
    fn a_distributor_that_hangs_is_an_error() {
        let hung = FakeRegisters::new(|_| CTLR_RWP.into());
        let gic = GicV3::new(hung, ArrayVec::new(), None, FakeSystem::default());
        assert_eq!(gic.err(), Some(IrqError::NoAnswer { part: "distributor" }));
    }

    #[test]
    fn sets_up_a_core() {
        let (gic, system) = gic();
        // The register as read, with bits 30 and 31, which are not part of an affinity.
        gic.init_core(2, 0x2_c000_0103).unwrap();
        let frame = 0x6_0000 + SGI_FRAME;
        assert_eq!(
            gic.redistributors[1].0.writes(),
            [
                (0x6_0000 + GICR_WAKER, 0b100),
                (frame + 0x180, ALL),
                (frame + 0x280, ALL),
                (frame + 0x380, ALL),
                (frame + 0x080, ALL),
                (frame + 0x400, 0xa0),
                (frame + 0x100, 1)
            ]
        );
        assert_eq!(
            system.take_writes(),
            [(Icc::Sre, 1), (Icc::Pmr, 0xff), (Icc::Ctlr, 0), (Icc::Igrpen1, 1)]
        );
    }

    #[test]
    fn finds_only_the_redistributor_of_the_core() {
        let (gic, _) = gic();
        let place = |mpidr| gic.redistributor(mpidr).map(|(_, at)| at);
        assert_eq!(place(0x77), Ok(0));
        assert_eq!(place(0), Ok(0));
        assert_eq!(place(1), Ok(0x2_0000));
        assert_eq!(place(0x2_0000_0103), Ok(0x6_0000));
        assert_eq!(place(2), Err(IrqError::NoRedistributor { mpidr: 2 }));
        assert_eq!(gic.init_core(0, 2), Err(IrqError::NoRedistributor { mpidr: 2 }));
        // With a stride from the device tree: a redistributor every 256 KiB.
        let regions = ArrayVec::from_iter([(redistributors(), 0xa_0000)]);
        let gic =
            GicV3::new(distributor(), regions, Some(0x4_0000), FakeSystem::default()).unwrap();
        let place = |mpidr| gic.redistributor(mpidr).map(|(_, at)| at);
        assert_eq!(place(2), Ok(0x8_0000));
        assert!(place(1).is_err());
    }

    #[test]
    fn a_redistributor_that_sleeps_on_is_an_error() {
        let asleep = FakeRegisters::memory(&[(GICR_TYPER, TYPER_LAST), (GICR_WAKER, 0b110)]);
        let regions = ArrayVec::from_iter([(asleep, 0x2_0000)]);
        let gic = GicV3::new(distributor(), regions, None, FakeSystem::default()).unwrap();
        assert_eq!(gic.init_core(0, 0), Err(IrqError::NoAnswer { part: "redistributor" }));
        // So the core is not woken either.
        assert_eq!(gic.mpidr(0), None);
    }

    #[test]
    fn wakes_a_core_by_its_affinity() {
        let (gic, system) = gic();
        gic.send_wake(2);
        gic.send_wake(MAX_CPUS);
        assert_eq!(system.take_writes(), [], "it is not set up");
        gic.init_core(2, 0x2_0000_0103).unwrap();
        system.take_writes();
        gic.send_wake(2);
        assert_eq!(system.take_writes(), [(Icc::Sgi1r, 2 << 48 | 1 << 16 | 1 << 3)]);
        // A core beyond the first 16 of a cluster: range 7.
        gic.init_core(3, 0x77).unwrap();
        system.take_writes();
        gic.send_wake(3);
        assert_eq!(system.take_writes(), [(Icc::Sgi1r, 7 << 44 | 1 << 7)]);
    }

    #[test]
    fn enables_shared_and_private_interrupts() {
        let (gic, _) = gic();
        let absent = Interrupt { intid: 64, edge: false };
        assert_eq!(gic.enable(absent, 2), Err(IrqError::CoreNotReady { core: 2 }));
        gic.init_core(2, 0x2_0000_0103).unwrap();
        assert_eq!(gic.enable(absent, 2), Err(IrqError::NoSuchInterrupt { intid: 64 }));
        let before = gic.distributor.writes().len();
        gic.enable(Interrupt { intid: 33, edge: true }, 2).unwrap();
        assert_eq!(
            gic.distributor.writes()[before..],
            [
                (GICD_IROUTER + 8 * 33, 0x2_0000_0103),
                (0x400 + 33, 0xa0),
                (0xc08, 0b1000),
                (0x104, 0b10)
            ]
        );
        let before = gic.distributor.writes().len();
        gic.disable(Interrupt { intid: 33, edge: true });
        gic.disable(Interrupt { intid: 27, edge: true });
        assert_eq!(gic.distributor.writes()[before..], [(0x184, 0b10)]);
        let before = gic.redistributors[1].0.writes().len();
        gic.enable(Interrupt { intid: 27, edge: false }, 2).unwrap();
        let frame = 0x6_0000 + SGI_FRAME;
        assert_eq!(
            gic.redistributors[1].0.writes()[before..],
            [(frame + 0x400 + 27, 0xa0), (frame + 0x100, 1 << 27)]
        );
    }

    #[test]
    fn acknowledges_and_ends_one_at_a_time() {
        let (gic, system) = gic();
        system.0.lock().unwrap().pending = vec![1023, 1020, 33, 0];
        let taken: Vec<_> = (0..4).map(|_| gic.acknowledge()).collect();
        assert_eq!(taken, [Some(0), Some(33), None, None]);
        assert_eq!(system.take_writes(), [(Icc::Eoir1, 0), (Icc::Eoir1, 33)]);
    }

    #[test]
    fn a_mute_core_takes_no_priority() {
        let (gic, system) = gic();
        gic.mute_core();
        assert_eq!(system.take_writes(), [(Icc::Pmr, 0)]);
    }

    #[test]
    fn system_registers_out_of_reach_are_an_error() {
        struct Trapped;
        impl SystemRegisters for Trapped {
            fn read(&self, _: Icc) -> u64 {
                0
            }
            fn write(&self, _: Icc, _: u64) {}
        }
        let regions = ArrayVec::from_iter([(redistributors(), 0xa_0000)]);
        let gic = GicV3::new(distributor(), regions, None, Trapped).unwrap();
        assert_eq!(gic.init_core(0, 0), Err(IrqError::NoSystemRegisters));
    }
}
