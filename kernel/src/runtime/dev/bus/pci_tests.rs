use super::*;
use crate::runtime::dev::mmio::{Access, FakeRegisters};
use crate::runtime::machine::{Coherence, PciInterrupts, Region};
use alloc::collections::BTreeMap;
use arrayvec::ArrayVec;

const FUNCTION: DeviceFunction = DeviceFunction { bus: 3, device: 5, function: 1 };

fn window(space: PciSpace, base: u64, size: u64, bus_address: u64) -> PciWindow {
    PciWindow { space, bus_address, region: Region { base, size } }
}

fn host(windows: &[PciWindow]) -> PciHost {
    PciHost {
        ecam: Region { base: 0x4000_0000, size: 2 << 20 },
        first_bus: 3,
        last_bus: 4,
        windows: ArrayVec::from_iter(windows.iter().copied()),
        interrupts: PciInterrupts::default(),
        coherence: Coherence::Coherent,
    }
}

/// A function with a 4 KiB BAR of 32 bits, an I/O BAR, and a 16 KiB BAR of 64 bits.
fn bridge() -> FakeRegisters {
    let base = (5 << 3 | 1) << 12;
    // The writable bits of a BAR, and its fixed bits.
    let bars: BTreeMap<usize, (u32, u32)> =
        [(0x14, (!0xFFF, 0)), (0x18, (!0x1F, 1)), (0x20, (!0x3FFF, 0xC)), (0x24, (!0, 0))].into();
    let mut values = BTreeMap::new();
    FakeRegisters::new(move |access| match access {
        Access::Read { offset, .. } => match (offset.checked_sub(base), offset & 0xFFF) {
            (Some(0..0x1000), register) if bars.contains_key(&register) => {
                let (_, fixed) = bars[&register];
                u64::from(*values.get(&register).unwrap_or(&0) | fixed)
            }
            (Some(0..0x1000), 0x3c) => 0x0102_03ff,
            (Some(0..0x1000), 4) => u64::from(*values.get(&4).unwrap_or(&0)),
            (Some(0..0x1000), _) => 0,
            _ => u64::from(ABSENT),
        },
        Access::Write { offset, value, .. } => {
            let register = offset - base;
            let mask = if register == 4 { 0x7FF } else { bars.get(&register).map_or(0, |b| b.0) };
            values.insert(register, value as u32 & mask);
            0
        }
    })
}

#[test]
fn bars_get_aligned_addresses_from_the_windows() {
    let host = host(&[
        window(PciSpace::Io, 0x3EFF_0000, 0x1_0000, 0),
        window(PciSpace::Memory32, 0x5000_0000, 1 << 20, 0),
        window(PciSpace::Memory32, 0x1000_1000, 0x2000, 0x1000_1000),
        window(PciSpace::Memory64, 0x80_0000_0000, 1 << 30, 0x80_0000_0000),
    ]);
    let registers = bridge();
    let mut bus = PciRoot::new(Ecam::new(&host, &registers));
    enable(&mut bus, &mut Windows::new(&host), FUNCTION, true).unwrap();
    let bars = bus.bars(FUNCTION).unwrap();
    let address = |i: usize| bars[i].as_ref().and_then(BarInfo::memory_address_size);
    assert_eq!(address(1), Some((0x1000_1000, 0x1000)));
    assert!(matches!(bars[2], Some(BarInfo::IO { .. })));
    // The first window has 4 KiB left, so a BAR of 64 bits goes to the second window.
    assert_eq!(address(4), Some((0x80_0000_0000, 0x4000)));
    let (_, command) = bus.get_status_command(FUNCTION);
    assert_eq!(command, Command::MEMORY_SPACE | Command::BUS_MASTER);
}

#[test]
fn a_function_whose_interrupts_nobody_acknowledges_raises_none() {
    let host = host(&[window(PciSpace::Memory32, 0x1000_0000, 1 << 20, 0x1000_0000)]);
    let registers = bridge();
    let mut bus = PciRoot::new(Ecam::new(&host, &registers));
    enable(&mut bus, &mut Windows::new(&host), FUNCTION, false).unwrap();
    let (_, command) = bus.get_status_command(FUNCTION);
    let expected = Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE;
    assert_eq!(command, expected);
}

#[test]
fn a_function_names_its_pin() {
    let registers = bridge();
    assert_eq!(Ecam::new(&host(&[]), &registers).interrupt_pin(FUNCTION), 3);
}

#[test]
fn a_bar_without_room_is_an_error() {
    for windows in [
        &[][..],
        &[window(PciSpace::Memory32, 0x1000_0000, 0x3FFF, 0x1000_0000)],
        &[window(PciSpace::Memory64, 0x80_0000_0000, 1 << 30, 0x80_0000_0000)],
    ] {
        let host = host(windows);
        let registers = bridge();
        let mut bus = PciRoot::new(Ecam::new(&host, &registers));
        let error = enable(&mut bus, &mut Windows::new(&host), FUNCTION, true).unwrap_err();
        assert!(matches!(error, SetupError::NoRoom(0x1000 | 0x4000)));
    }
}

#[test]
fn other_buses_are_not_reached() {
    let host = host(&[]);
    let registers = bridge();
    let mut ecam = Ecam::new(&host, &registers);
    assert_eq!(ecam.read_word(FUNCTION, 0x10), 0);
    for bus in [0, 2, 5] {
        let elsewhere = DeviceFunction { bus, ..FUNCTION };
        assert_eq!(ecam.read_word(elsewhere, 0x10), ABSENT);
        ecam.write_word(elsewhere, 4, 1);
    }
    assert_eq!(ecam.offset(DeviceFunction { bus: 4, ..FUNCTION }, 8), Some(0x12_9008));
}
