//! Arm Generic Interrupt Controller, version 2.
//!
//! Source: Arm Generic Interrupt Controller Architecture version 2.0, Arm IHI 0048, issue B.b,
//! chapter 4.
//!
//! In the non-secure view all interrupts are in group 1, and the group bits do not exist (4.3.4).
//! With a single security state, all interrupts are put into group 0. In both cases bit 0 of the
//! two control registers enables the interrupts in use.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU8, Ordering};

use super::{
    Interrupt, InterruptController, IrqError, MAX_CPUS, Registers, SPECIAL_INTIDS, WAKE_SGI, banks,
};
use crate::runtime::dev::mmio::publish;

/// Distributor control.
const GICD_CTLR: usize = 0x000;
/// Distributor: forward interrupts. CPU interface: signal interrupts.
const CTLR_ENABLE: u32 = 1 << 0;
/// Features of the distributor.
const GICD_TYPER: usize = 0x004;
/// The controller has more than one CPU interface.
const TYPER_SEVERAL_CORES: u32 = 0b111 << 5;
/// Target CPU interfaces, one byte an interrupt.
/// The bytes of the first 32 name the reader's own interface, or are 0 for an absent interrupt
/// (4.3.12).
const GICD_ITARGETSR: usize = 0x800;
/// Software-generated interrupts: targets from bit 16 on, number from bit 0 on.
const GICD_SGIR: usize = 0xf00;

/// CPU interface control.
const GICC_CTLR: usize = 0x000;
/// Bypass of the interface's inputs while it is off; the firmware's choice (4.4.1).
const CTLR_BYPASS: u32 = 0b1111 << 5;
/// Priority mask.
const GICC_PMR: usize = 0x004;
/// Interrupt acknowledge.
const GICC_IAR: usize = 0x00c;
/// The number of the interrupt in `GICC_IAR`.
const IAR_INTID: u32 = 0x3ff;
/// End of interrupt.
const GICC_EOIR: usize = 0x010;

/// A GICv2.
#[derive(Debug)]
pub struct GicV2<R> {
    distributor: R,
    cpu_interface: R,
    /// Number of interrupts.
    count: u32,
    /// The controller is for a single core.
    /// There are no targets to choose, and no other core to wake.
    single: bool,
    /// For each core the bit of its CPU interface; 0 for a core that is not set up.
    targets: [AtomicU8; MAX_CPUS],
}

impl<R: Registers> GicV2<R> {
    /// Takes over the distributor, with all shared interrupts disabled.
    pub fn new(distributor: R, cpu_interface: R) -> GicV2<R> {
        let typer = distributor.read32(GICD_TYPER);
        let count = banks::count(typer);
        let single = typer & TYPER_SEVERAL_CORES == 0;
        distributor.write32(GICD_CTLR, 0);
        for block in 1..count.div_ceil(32) {
            banks::quiet(&distributor, 0, block);
            distributor.write32(banks::GROUP + 4 * block as usize, 0);
        }
        distributor.write32(GICD_CTLR, CTLR_ENABLE);
        let targets = [const { AtomicU8::new(0) }; MAX_CPUS];
        GicV2 { distributor, cpu_interface, count, single, targets }
    }

    fn target(&self, core: usize) -> Option<u8> {
        let target = self.targets.get(core)?.load(Ordering::Acquire);
        (target != 0).then_some(target)
    }
}

impl<R: Registers> InterruptController for GicV2<R> {
    fn init_core(&self, core: usize, _mpidr: u64) -> Result<(), IrqError> {
        let target = self.targets.get(core).ok_or(IrqError::CoreNotReady { core })?;
        // These registers are banked: each core sees its own.
        let d = &self.distributor;
        banks::quiet(d, 0, 0);
        d.write32(banks::GROUP, 0);
        banks::enable(d, 0, Interrupt { intid: WAKE_SGI, edge: true });
        let c = &self.cpu_interface;
        c.write32(GICC_PMR, 0xff);
        c.write32(GICC_CTLR, c.read32(GICC_CTLR) & CTLR_BYPASS | CTLR_ENABLE);
        if !self.single {
            let own = (0..8).map(|i| d.read32(GICD_ITARGETSR + 4 * i)).find(|&word| word != 0);
            let own = own.ok_or(IrqError::NoAnswer { part: "distributor" })?;
            let own = own.to_le_bytes().into_iter().fold(0, |all, byte| all | byte);
            target.store(own, Ordering::Release);
        }
        Ok(())
    }

    fn enable(&self, interrupt: Interrupt, core: usize) -> Result<(), IrqError> {
        let intid = interrupt.intid;
        if intid >= self.count {
            return Err(IrqError::NoSuchInterrupt { intid });
        }
        if !self.single {
            let target = self.target(core).ok_or(IrqError::CoreNotReady { core })?;
            if intid >= 32 {
                self.distributor.write8(GICD_ITARGETSR + intid as usize, target);
            }
        }
        banks::enable(&self.distributor, 0, interrupt);
        Ok(())
    }

    fn disable(&self, interrupt: Interrupt) {
        banks::disable(&self.distributor, self.count, interrupt);
    }

    fn send_wake(&self, core: usize) {
        if let Some(target) = self.target(core) {
            publish();
            self.distributor.write32(GICD_SGIR, u32::from(target) << 16 | WAKE_SGI);
        }
    }

    fn acknowledge(&self) -> Option<u32> {
        let iar = self.cpu_interface.read32(GICC_IAR);
        let intid = iar & IAR_INTID;
        if intid >= SPECIAL_INTIDS {
            return None;
        }
        // A software-generated interrupt is ended with the number of the core that sent it.
        self.cpu_interface.write32(GICC_EOIR, iar);
        Some(intid)
    }

    fn mute_core(&self) {
        // No priority is above 0 (4.4.2). An interface that is off might bypass its inputs.
        self.cpu_interface.write32(GICC_PMR, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::dev::mmio::{Access, FakeRegisters};

    /// A distributor of 96 interrupts; the core that reads is CPU interface 2.
    fn distributor() -> FakeRegisters {
        FakeRegisters::memory(&[
            (GICD_TYPER, 0xfc62),
            (GICD_ITARGETSR, 0b100),
            (0xc10, 0x5555_5555),
        ])
    }

    fn gic() -> GicV2<FakeRegisters> {
        GicV2::new(distributor(), FakeRegisters::memory(&[(GICC_CTLR, 0x1e6)]))
    }

    /// Writes to the distributor since the first `before` accesses.
    fn writes_since(gic: &GicV2<FakeRegisters>, before: usize) -> Vec<(usize, u64)> {
        gic.distributor.writes().split_off(before)
    }

    #[test]
    fn takes_over_the_distributor() {
        let gic = gic();
        assert_eq!(gic.count, 96);
        let all = u64::from(!0u32);
        assert_eq!(
            gic.distributor.writes(),
            [
                (GICD_CTLR, 0),
                // Interrupts 32 to 63, then 64 to 95: disabled, not pending, not active, group 0.
                (0x184, all),
                (0x284, all),
                (0x384, all),
                (0x084, 0),
                (0x188, all),
                (0x288, all),
                (0x388, all),
                (0x088, 0),
                (GICD_CTLR, 1),
            ]
        );
    }

    #[test]
    fn sets_up_a_core() {
        let gic = gic();
        let before = gic.distributor.writes().len();
        gic.init_core(5, 0).unwrap();
        let all = u64::from(!0u32);
        assert_eq!(
            writes_since(&gic, before),
            [(0x180, all), (0x280, all), (0x380, all), (0x080, 0), (0x400, 0xa0), (0x100, 1)]
        );
        // The mask is open before any interrupt is let through; the bypass bits stay.
        assert_eq!(gic.cpu_interface.writes(), [(GICC_PMR, 0xff), (GICC_CTLR, 0x1e1)]);
        assert_eq!(gic.init_core(MAX_CPUS, 0), Err(IrqError::CoreNotReady { core: MAX_CPUS }));
    }

    #[test]
    fn wakes_the_core_by_its_own_interface() {
        let gic = gic();
        let before = gic.distributor.writes().len();
        gic.send_wake(5);
        assert_eq!(writes_since(&gic, before), [], "it is not set up");
        gic.init_core(5, 0).unwrap();
        let before = gic.distributor.writes().len();
        gic.send_wake(5);
        gic.send_wake(4);
        gic.send_wake(MAX_CPUS);
        assert_eq!(writes_since(&gic, before), [(GICD_SGIR, 0b100 << 16)]);
    }

    #[test]
    fn enables_shared_and_private_interrupts() {
        let gic = gic();
        gic.init_core(0, 0).unwrap();
        let before = gic.distributor.writes().len();
        gic.enable(Interrupt { intid: 77, edge: true }, 0).unwrap();
        assert_eq!(
            writes_since(&gic, before),
            [(0x800 + 77, 0b100), (0x400 + 77, 0xa0), (0xc10, 0x5d55_5555), (0x108, 1 << 13)]
        );
        let before = gic.distributor.writes().len();
        gic.enable(Interrupt { intid: 77, edge: false }, 0).unwrap();
        assert_eq!(writes_since(&gic, before)[2], (0xc10, 0x5555_5555));
        // The trigger of a private interrupt is not for the driver to set.
        let before = gic.distributor.writes().len();
        gic.enable(Interrupt { intid: 27, edge: false }, 0).unwrap();
        assert_eq!(writes_since(&gic, before), [(0x400 + 27, 0xa0), (0x100, 1 << 27)]);
        let before = gic.distributor.writes().len();
        gic.disable(Interrupt { intid: 77, edge: false });
        assert_eq!(writes_since(&gic, before), [(0x188, 1 << 13)]);
        let before = gic.distributor.writes().len();
        gic.disable(Interrupt { intid: 27, edge: false });
        gic.disable(Interrupt { intid: 96, edge: false });
        assert_eq!(writes_since(&gic, before), [], "private, and absent");
        let absent = Interrupt { intid: 96, edge: false };
        assert_eq!(gic.enable(absent, 0), Err(IrqError::NoSuchInterrupt { intid: 96 }));
        let timer = Interrupt { intid: 27, edge: false };
        assert_eq!(gic.enable(timer, 1), Err(IrqError::CoreNotReady { core: 1 }));
    }

    #[test]
    fn a_single_core_needs_no_targets() {
        let gic =
            GicV2::new(FakeRegisters::memory(&[(GICD_TYPER, 0xfc02)]), FakeRegisters::memory(&[]));
        gic.init_core(0, 0).unwrap();
        let before = gic.distributor.writes().len();
        gic.enable(Interrupt { intid: 33, edge: false }, 0).unwrap();
        gic.send_wake(0);
        assert_eq!(writes_since(&gic, before), [(0x400 + 33, 0xa0), (0xc08, 0), (0x104, 0b10)]);
    }

    #[test]
    fn no_targets_for_one_of_several_cores_is_an_error() {
        let registers = FakeRegisters::memory(&[(GICD_TYPER, 0xfc62)]);
        let gic = GicV2::new(registers, FakeRegisters::memory(&[]));
        assert_eq!(gic.init_core(0, 0), Err(IrqError::NoAnswer { part: "distributor" }));
    }

    #[test]
    fn acknowledges_and_ends_one_at_a_time() {
        // A software-generated interrupt from core 3, the timer's interrupt, then none.
        let mut pending = [3 << 10, 27, 1023, 1022].into_iter();
        let interface = FakeRegisters::new(move |access| match access {
            Access::Read { offset: GICC_IAR, width: 4 } => pending.next().unwrap(),
            _ => 0,
        });
        let gic = GicV2::new(distributor(), interface);
        let taken: Vec<_> = (0..4).map(|_| gic.acknowledge()).collect();
        assert_eq!(taken, [Some(0), Some(27), None, None]);
        assert_eq!(gic.cpu_interface.writes(), [(GICC_EOIR, 3 << 10), (GICC_EOIR, 27)]);
    }

    #[test]
    fn a_mute_core_takes_no_priority() {
        let gic = gic();
        gic.init_core(2, 2).unwrap();
        let before = gic.cpu_interface.writes().len();
        gic.mute_core();
        assert_eq!(gic.cpu_interface.writes()[before..], [(GICC_PMR, 0)]);
    }
}
