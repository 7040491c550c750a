use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr::NonNull;

use super::super::disk::Disk;
use super::super::fake::{FakeClock, random};
use super::super::{Buffer, DiskError};
use super::command::Failure;
use super::fake::{Fault, Kind, LowVoltageFault, Slot};
use super::*;
use crate::runtime::dev::mmio::FakeRegisters;

/// Two units of the size of an SDHC card.
const IMAGE_BYTES: usize = 1 << 20;

fn image(bytes: usize) -> Vec<u8> {
    let mut state = 11;
    (0..bytes / 8).flat_map(|_| random(&mut state).to_le_bytes()).collect()
}

fn slot(kind: Kind) -> Slot {
    Slot::new(kind, image(IMAGE_BYTES))
}

/// The disk of the card in the slot, by DMA to `memory` or without.
fn disk(slot: &Slot, memory: Option<&[u8]>) -> Disk {
    let driver = slot.start(memory).unwrap();
    Disk::new(Box::new(driver), Box::new(slot.machine().clock.clone()))
}

/// Reads from `sector` on to `into`.
fn read(disk: &mut Disk, sector: u64, into: &mut [u8]) -> Result<(), DiskError> {
    // SAFETY: the memory is borrowed for the whole call; no test reads it after `Silent`.
    let buffer = unsafe { Buffer::new(NonNull::from(into)) };
    disk.read_queued(&mut core::iter::once(Request::new(sector, buffer)))
}

#[test]
fn every_kind_of_card_is_read_by_port_and_by_dma() {
    let kinds = [Kind::Version1, Kind::Standard, Kind::High, Kind::SmallEmmc, Kind::Emmc];
    for kind in kinds {
        for by_dma in [false, true] {
            let slot = slot(kind);
            let mut memory = vec![0; 1009 * 512 + 300];
            let mut disk = disk(&slot, by_dma.then_some(&memory[..]));
            assert_eq!(disk.bytes(), IMAGE_BYTES as u64, "{kind:?}");
            let expected = slot.machine().image.clone();
            // At all offsets against the lines of caches; single blocks and many.
            for (at, sector, sectors) in
                [(0, 0, 1), (1, 3, 1), (64, 2047, 1), (127, 7, 2), (131, 1, 1009), (3, 2045, 3)]
            {
                memory.fill(0xa5);
                read(&mut disk, sector, &mut memory[at..at + sectors * 512]).unwrap();
                let start = sector as usize * 512;
                let end = at + sectors * 512;
                assert!(memory[at..end] == expected[start..start + sectors * 512], "{kind:?}");
                let around = memory[..at].iter().chain(&memory[end..]);
                assert!(around.copied().all(|byte| byte == 0xa5), "{kind:?}");
            }
            let machine = slot.machine();
            let total = 1017 * 512;
            // Of the card, of what it can do; and what DMA was tried with.
            let (name, asked) = if kind.is_emmc() { ("eMMC", 512) } else { ("SD card", 2 * 64) };
            assert_eq!(disk.name(), name, "{kind:?}");
            let tried = 512;
            let counts = if by_dma { (total + tried, asked + tried) } else { (0, total + asked) };
            assert_eq!((machine.by_dma, machine.by_port), counts, "{kind:?}");
        }
    }
}

#[test]
fn identification_goes_by_the_book() {
    let indices = |slot: &Slot| -> Vec<u32> {
        slot.machine().commands.iter().map(|&(index, _)| index).collect()
    };
    let fast = slot(Kind::High);
    let driver = fast.start(None).unwrap();
    assert_eq!(
        indices(&fast),
        [&[0, 8][..], &[55, 141].repeat(4), &[2, 3, 9, 7, 55, 106, 6, 6]].concat()
    );
    // 4 lines, high speed, power at 3.3 V; 50 of 100 MHz.
    assert_eq!(driver.host.read(register::CONTROL), 0xf06);
    assert_eq!(driver.host.read(register::CLOCK) & 0xffff, 0x107);

    let slow = slot(Kind::Version1);
    slow.machine().high_speed = false;
    let driver = slow.start(None).unwrap();
    assert_eq!(
        indices(&slow),
        [&[0][..], &[55, 141].repeat(4), &[2, 3, 9, 7, 16, 55, 106]].concat()
    );
    // Before version 2.00 nothing is said of large cards.
    assert!(slow.machine().commands.contains(&(141, 0x00ff_8000)));
    assert_eq!(driver.host.read(register::CONTROL), 0xf02);
    assert_eq!(driver.host.read(register::CLOCK) & 0xffff, 0x207);
}

/// A slot whose supply can be switched, with a card that knows 1.8 V.
fn low_voltage_slot(fault: Option<LowVoltageFault>) -> Slot {
    let slot = slot(Kind::High);
    let mut machine = slot.machine();
    (machine.knows_low_voltage, machine.low_voltage_fault) = (true, fault);
    drop(machine);
    slot
}

#[test]
fn a_card_that_knows_1_8_v_is_read_at_both_edges() {
    let slot = low_voltage_slot(None);
    let driver = slot.start(None).unwrap();
    let indices: Vec<_> = slot.machine().commands.iter().map(|&(index, _)| index).collect();
    let book = [&[0, 8][..], &[55, 141].repeat(4), &[11, 2, 3, 9, 7, 55, 106, 6, 6, 17]].concat();
    assert_eq!(indices, book);
    assert_eq!(slot.machine().lost, 0);
    assert_eq!(driver.host.read(register::CONTROL), 0xf06);
    // DDR50, 1.8 V; 50 of 100 MHz.
    assert_eq!(driver.host.read(register::CONTROL_2), 0xc << 16);
    assert_eq!(driver.host.read(register::CLOCK) & 0xffff, 0x107);
    let mut disk = Disk::new(Box::new(driver), Box::new(slot.machine().clock.clone()));
    let mut bytes = vec![0; 13 * 512];
    read(&mut disk, 5, &mut bytes).unwrap();
    assert!(bytes == slot.machine().image[5 * 512..18 * 512]);
}

#[test]
fn a_card_without_ddr50_stays_at_1_8_v_at_one_edge() {
    let slot = low_voltage_slot(Some(LowVoltageFault::NoDdr50));
    let driver = slot.start(None).unwrap();
    assert_eq!(driver.host.read(register::CONTROL_2), 0x9 << 16);
    assert_eq!(slot.machine().function, 1);
}

#[test]
fn a_card_that_fails_at_1_8_v_starts_anew_at_3_3_v() {
    use LowVoltageFault::{Controller, Data, Lines, Supply};
    for fault in [Supply, Lines, Controller, Data] {
        let slot = low_voltage_slot(Some(fault));
        let driver = slot.start(None).unwrap();
        assert_eq!(driver.host.read(register::CONTROL_2), 0, "{fault:?}");
        assert_eq!(driver.host.read(register::CONTROL), 0xf06, "{fault:?}");
        let machine = slot.machine();
        assert_eq!((machine.function, machine.lost), (1, 0), "{fault:?}");
        // The second time the card is not offered it.
        let offers: Vec<_> = machine.commands.iter().filter(|c| c.0 == 141).map(|c| c.1).collect();
        assert_eq!(offers[0] & 1 << 24, 1 << 24, "{fault:?}");
        assert_eq!(offers[offers.len() - 1] & 1 << 24, 0, "{fault:?}");
    }
}

#[test]
fn cards_and_controllers_that_do_not_know_1_8_v_are_not_offered_it() {
    // The supply cannot be switched.
    let slot = slot(Kind::High);
    slot.start(None).unwrap();
    // The controller is older.
    let old = low_voltage_slot(None);
    old.machine().version = 1;
    old.machine().capabilities &= 0x3fff_ffff | 52 << 8;
    old.start(None).unwrap();
    for slot in [slot, old] {
        let machine = slot.machine();
        assert!(machine.commands.iter().all(|c| c.0 != 11 && (c.0 != 141 || c.1 & 1 << 24 == 0)));
    }
}

#[test]
fn emmc_is_identified_by_the_book() {
    let fast = slot(Kind::Emmc);
    let driver = fast.start(None).unwrap();
    let address = 1 << 16;
    // 4 lines, then high speed.
    let switches = [(6, 0x03b7_0100), (13, address), (6, 0x03b9_0100), (13, address)];
    let identified = [(2, 0), (3, address), (9, address), (7, address)];
    let asked = [&[(0, 0); 2][..], &[(1, 0x40ff_8000); 4], &identified].concat();
    assert_eq!(fast.machine().commands, [&asked[..], &[(8, 0)], &switches].concat());
    assert_eq!(driver.host.read(register::CONTROL), 0xf06);
    assert_eq!(driver.host.read(register::CLOCK) & 0xffff, 0x107);

    // One that counts bytes has blocks of another length at first.
    let small = slot(Kind::SmallEmmc);
    small.start(None).unwrap();
    let small = small.machine();
    assert_eq!(small.commands, [&asked[..], &[(16, 512), (8, 0)], &switches].concat());
}

#[test]
fn emmc_that_is_slow_or_refuses_is_read_all_the_same() {
    /// A change of the slot; the control register and the clock's that come of it.
    type Case = (fn(&mut fake::Machine), u32, u32);
    // The power's bits, and those of four lines and of high speed.
    let (lines, speed) = (0xf02, 0xf04);
    let cases: [Case; 5] = [
        // High speed at 26 MHz alone; a controller without; switches that are refused.
        (|machine| machine.emmc.ext_csd[fake::DEVICE_TYPE] = 0b01, lines, 0x207),
        (|machine| machine.capabilities &= !(1 << 21), lines, 0x207),
        (|machine| machine.emmc.refused = Some(185), lines, 0x207),
        (|machine| machine.emmc.refused = Some(183), speed, 0x107),
        // As long as the specification allows.
        (|machine| machine.emmc.busy_ns = 2_540_000_000, lines | speed, 0x107),
    ];
    for (change, control, clock) in cases {
        let slot = slot(Kind::Emmc);
        change(&mut slot.machine());
        let driver = slot.start(None).unwrap();
        assert_eq!(driver.host.read(register::CONTROL), control);
        assert_eq!(driver.host.read(register::CLOCK) & 0xffff, clock);
        let mut disk = Disk::new(Box::new(driver), Box::new(slot.machine().clock.clone()));
        let mut memory = vec![0; 7 * 512];
        read(&mut disk, 3, &mut memory).unwrap();
        assert!(memory == slot.machine().image[3 * 512..10 * 512]);
    }
}

#[test]
fn writes_are_far_apart_while_the_clock_is_slow_and_only_then() {
    let slot = slot(Kind::High);
    let mut memory = vec![0; 512];
    let mut disk = disk(&slot, Some(&memory));
    assert_eq!(slot.machine().lost, 0);
    let before = slot.machine().clock.now_us();
    read(&mut disk, 3, &mut memory).unwrap();
    assert_eq!(slot.machine().lost, 0);
    assert!(slot.machine().clock.now_us() - before < 10);
}

#[test]
fn a_summary_tells_the_clock_and_whether_dma_is_used() {
    let slot = slot(Kind::High);
    assert_eq!(slot.start(None).unwrap().summary(), "caps 0x286400 version 3 50MHz pio");
    assert_eq!(slot.start(Some(&[])).unwrap().summary(), "caps 0x286400 version 3 50MHz dma");
    slot.machine().high_speed = false;
    slot.machine().windows.clear();
    slot.machine().windows_are_wrong = true;
    assert_eq!(slot.start(Some(&[])).unwrap().summary(), "caps 0x286400 version 3 25MHz pio");
}

#[test]
fn what_cannot_be_used_says_why() {
    assert_eq!(slot(Kind::None).start(None).err(), Some(SdError::NoCard));
    let slot_of = |change: fn(&mut fake::Machine)| {
        let slot = slot(Kind::High);
        change(&mut slot.machine());
        slot.start(None).err()
    };
    assert_eq!(slot_of(|machine| machine.capabilities = 0), Some(SdError::NoBaseClock));
    assert_eq!(slot_of(|machine| machine.not_ready = u32::MAX), Some(SdError::NeverReady));
    let emmc = slot(Kind::Emmc);
    emmc.machine().not_ready = u32::MAX;
    assert_eq!(emmc.start(None).err(), Some(SdError::NeverReady));
    let emmc = slot(Kind::Emmc);
    emmc.machine().emmc.busy_ns = 4_000_000_000;
    let busy = SdError::Command { index: 13, failure: Failure::Stuck };
    assert_eq!(emmc.start(None).err(), Some(busy));
    let dead = FakeRegisters::memory(&[(register::CAPABILITIES, 100 << 8)]);
    let stuck = SdDisk::new(dead, Box::new(FakeClock::default()), None, || None).err();
    assert_eq!(stuck, Some(SdError::Stuck));
    let refused = SdError::Command { index: 7, failure: Failure::Refused(0x8000_0000) };
    assert!(alloc::format!("{refused}").contains("CMD7"));
}

/// Errors of data: its time, its checksum, its end; of the command; of Auto CMD12.
const ERRORS: [u32; 5] = [1 << 20, 1 << 21, 1 << 22, 1 << 17, 1 << 24];

#[test]
fn passing_faults_are_overcome() {
    for by_dma in [false, true] {
        for fault in ERRORS.map(Fault::Error).into_iter().chain([Fault::State(1 << 21)]) {
            let slot = slot(Kind::High);
            let mut memory = vec![0; 311 * 512];
            let mut disk = disk(&slot, by_dma.then_some(&memory[..]));
            slot.machine().faults.extend([Some(fault), None, Some(fault)]);
            read(&mut disk, 13, &mut memory).unwrap();
            assert!(memory == slot.machine().image[13 * 512..324 * 512], "{fault:?}");
            // Each ended with a CMD12.
            let stops = slot.machine().commands.iter().filter(|c| c.0 == 12).count();
            assert_eq!(stops, 2, "{fault:?}");
        }
    }
}

#[test]
fn a_card_whose_data_comes_damaged_gets_a_slower_clock() {
    // From the start, or only later; one block, or many.
    for (early, sectors) in [(true, 1), (true, 311), (false, 1), (false, 311)] {
        let slot = slot(Kind::High);
        slot.machine().good_hz = if early { 25_000_000 } else { u64::MAX };
        let mut memory = vec![0; sectors * 512];
        let mut disk = disk(&slot, Some(&memory));
        assert_eq!(slot.machine().clock_hz(), if early { 25_000_000 } else { 50_000_000 });
        slot.machine().good_hz = 25_000_000;
        for _ in 0..2 {
            read(&mut disk, 13, &mut memory).unwrap();
            assert!(memory == slot.machine().image[13 * 512..][..sectors * 512]);
        }
        assert_eq!(slot.machine().clock_hz(), 25_000_000);
    }
}

#[test]
fn single_errors_do_not_slow_a_card_down() {
    let slot = slot(Kind::High);
    let mut memory = vec![0; 512];
    let mut disk = disk(&slot, Some(&memory));
    for fault in ERRORS.map(Fault::Error) {
        slot.machine().faults.push_back(Some(fault));
        read(&mut disk, 13, &mut memory).unwrap();
    }
    // Those of time are not of damage.
    slot.machine().faults.extend([Some(Fault::Error(1 << 20)); 2]);
    read(&mut disk, 13, &mut memory).unwrap();
    assert_eq!(slot.machine().clock_hz(), 50_000_000);
}

#[test]
fn a_lasting_fault_is_told() {
    let slot = slot(Kind::High);
    let mut disk = disk(&slot, None);
    slot.machine().faults.extend([Some(Fault::Error(1 << 21)); 20]);
    let mut memory = vec![0; 512];
    assert_eq!(read(&mut disk, 5, &mut memory), Err(DiskError::Unreadable { sector: 5 }));
    slot.machine().faults.clear();
    read(&mut disk, 5, &mut memory).unwrap();
}

#[test]
fn a_block_that_is_lost_is_read_again() {
    for by_dma in [false, true] {
        let slot = slot(Kind::High);
        let mut memory = vec![0; 311 * 512];
        let mut disk = disk(&slot, by_dma.then_some(&memory[..]));
        slot.machine().faults.extend([Some(Fault::Silence), None, Some(Fault::Silence)]);
        let before = slot.machine().clock.now_us();
        read(&mut disk, 13, &mut memory).unwrap();
        assert!(memory == slot.machine().image[13 * 512..324 * 512]);
        // Two deadlines, of the whole and of its second half.
        let us = slot.machine().clock.now_us() - before;
        let least = 2 * PATIENCE_US + (311 + 156) * 512;
        assert!((least..least + 100_000).contains(&us), "{us} µs");
    }
}

#[test]
fn lines_that_stay_in_use_are_freed() {
    let slot = slot(Kind::High);
    let mut disk = disk(&slot, None);
    slot.machine().faults.push_back(Some(Fault::Busy));
    let mut memory = vec![0; 2 * 512];
    for sector in [13, 100] {
        read(&mut disk, sector, &mut memory).unwrap();
        assert!(memory == slot.machine().image[sector as usize * 512..][..2 * 512]);
    }
    assert!(slot.machine().clock.now_us() > PATIENCE_US);
}

#[test]
fn a_controller_that_hangs_is_told_nothing_more() {
    for by_dma in [false, true] {
        let slot = slot(Kind::High);
        let mut memory = vec![0xA5; 7 * 512];
        let mut disk = disk(&slot, by_dma.then_some(&memory[..]));
        let commands = slot.machine().commands.len();
        slot.machine().faults.push_back(Some(Fault::Death));
        assert_eq!(read(&mut disk, 5, &mut memory), Err(DiskError::Silent { sector: 5 }));
        // The controller may yet come to the end of the one read that it was told of. Told of another, it
        // could write to memory for either.
        assert_eq!(read(&mut disk, 9, &mut memory), Err(DiskError::Silent { sector: 5 }));
        drop(disk);
        assert_eq!(slot.machine().commands.len(), commands + 1);
    }
}

#[test]
fn memory_that_dma_does_not_reach_is_filled_through_some_that_it_does() {
    let sectors = 2 * dma::BOUNCE_BYTES / 512 - 3;
    let slot = Slot::new(Kind::High, image(2 * IMAGE_BYTES));
    let reached = vec![0; 4096];
    let mut disk = disk(&slot, Some(&reached));
    let trial = slot.machine().by_dma;
    let ports = slot.machine().by_port;
    let mut memory = vec![0; sectors * 512 + 1];
    read(&mut disk, 3, &mut memory[1..]).unwrap();
    let machine = slot.machine();
    assert!(memory[1..] == machine.image[3 * 512..][..sectors * 512]);
    assert_eq!((machine.by_dma - trial, machine.by_port - ports), (sectors * 512, 0));
}

#[test]
fn no_nap_is_taken_between_blocks_of_the_data_port() {
    let slot = slot(Kind::High);
    let mut disk = disk(&slot, None);
    let mut memory = vec![0; 1000 * 512];
    // 25 MB a second.
    slot.machine().block_ns = 20_500;
    let before = slot.machine().clock.now_us();
    read(&mut disk, 3, &mut memory).unwrap();
    let us = slot.machine().clock.now_us() - before;
    // The words of a block take 13 µs more, as this port holds but one.
    assert!((20_500..36_000).contains(&us), "{us} µs");
}

#[test]
fn dma_that_goes_elsewhere_is_not_used() {
    // To memory that it should reach, and through the bounce buffer; block 0 may be of zeros.
    for (reached, zeros) in [(true, false), (false, false), (false, true)] {
        let slot = slot(Kind::High);
        slot.machine().windows_are_wrong = true;
        if zeros {
            slot.machine().image[..512].fill(0);
        }
        let (mut memory, other) = (vec![0; 7 * 512], vec![0; 512]);
        let mut disk = disk(&slot, Some(if reached { &memory } else { &other }));
        read(&mut disk, 3, &mut memory).unwrap();
        let machine = slot.machine();
        assert!(memory == machine.image[3 * 512..10 * 512]);
        assert_eq!((machine.by_dma, machine.by_port), (512, 512 + 7 * 512 + 128));
    }
}

#[test]
fn dma_is_tried_again_before_it_is_given_up() {
    for (faults, is_used) in [(2, true), (3, false)] {
        let slot = slot(Kind::High);
        slot.machine().faults.push_back(None);
        slot.machine().faults.extend([Some(Fault::Error(1 << 21)); 3].into_iter().take(faults));
        let mut memory = vec![0; 7 * 512];
        let mut disk = disk(&slot, Some(&memory));
        let before = slot.machine().by_dma;
        read(&mut disk, 3, &mut memory).unwrap();
        assert!(memory == slot.machine().image[3 * 512..10 * 512]);
        assert_eq!(slot.machine().by_dma - before != 0, is_used);
    }
}

#[test]
fn dma_that_fails_is_given_up() {
    let slot = slot(Kind::High);
    let mut memory = vec![0; 7 * 512];
    let mut disk = disk(&slot, Some(&memory));
    slot.machine().faults.push_back(Some(Fault::Error(status::ADMA_ERROR)));
    read(&mut disk, 3, &mut memory).unwrap();
    assert!(memory == slot.machine().image[3 * 512..10 * 512]);
    let machine = slot.machine();
    // The trial, and what was on its way when it failed, and no more.
    assert_eq!((machine.by_dma, machine.by_port), (512 + 3 * 512, 512 + 7 * 512 + 128));
}

#[test]
fn a_request_may_be_larger_than_a_command() {
    let bytes = dma::LARGEST + (512 << 10);
    let slot = Slot::new(Kind::High, image(bytes + (512 << 10)));
    let mut memory = vec![0; bytes];
    let mut disk = disk(&slot, Some(&memory));
    read(&mut disk, 1, &mut memory).unwrap();
    assert!(memory == slot.machine().image[512..512 + bytes]);
    assert_eq!(slot.machine().by_dma, 512 + bytes);
}
