//! Reads any bytes as a device tree, and plans the memory by it.
#![no_main]

use fuzz::limits::Limits;
use kernel::runtime::machine::{Machine, Region};
use kernel::runtime::mem::ranges::Ranges;
use libfuzzer_sys::fuzz_target;

/// The runtime has no heap yet when it reads the tree; what is counted is the target's own.
const LIMITS: Limits = Limits { memory: (64, 64 << 10), ns_per_byte: 20_000 };

/// Bytes in a page of the plan.
const PAGE: u64 = 4096;
/// Where a processor's physical addresses end.
const END: u64 = 1 << 48;

fuzz_target!(|data: &[u8]| LIMITS.hold(data.len(), || read(data)));

fn read(data: &[u8]) {
    if let Ok(names) = Machine::names_in(data) {
        assert!(names.map(|name| name.len() + 1).sum::<usize>() <= data.len());
    }
    let rescue = Machine::console_and_firmware(data);
    let machine = match Machine::from_fdt(data) {
        Ok(machine) => machine,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    // What can be read at all can be read for a complaint.
    assert!(rescue.is_some());
    check_regions(&machine);
    check_plan(&machine);
    // The same bytes at another place are the same machine.
    let copy = data.to_vec();
    let again = Machine::from_fdt(&copy).expect("the same tree");
    assert_eq!((again.model, &again.cpus), (machine.model, &machine.cpus));
    assert_eq!((&again.memory, &again.sd_hosts), (&machine.memory, &machine.sd_hosts));
    assert_eq!(again.reserved.get(1..), machine.reserved.get(1..));
}

/// All that has an address has one that the processor can reach.
fn check_regions(machine: &Machine<'_>) {
    let is_right = |region: &Region| region.size > 0 && region.range().end <= END;
    assert!(!machine.memory.is_empty() && machine.memory.iter().all(is_right));
    // The first is the tree itself, wherever it lies.
    assert!(machine.reserved.iter().skip(1).all(is_right));
    assert!(machine.initrd.iter().all(is_right));
    assert!(machine.virtio_mmio.iter().all(|device| is_right(&device.region)));
    assert!(machine.virtio_mmio.is_sorted_by_key(|device| device.region.base));
    assert!(machine.console.iter().all(|uart| is_right(&uart.region) && uart.reg_shift <= 4));
    for host in &machine.sd_hosts {
        assert!(is_right(&host.region));
        for window in &host.dma {
            assert!(is_right(&window.memory));
            assert!(window.bus_address.checked_add(window.memory.size).is_some());
        }
    }
    if let Some(pci) = &machine.pci {
        let buses = u64::from(pci.last_bus - pci.first_bus) + 1;
        assert!(is_right(&pci.ecam) && buses << 20 <= pci.ecam.size);
        assert!(pci.windows.iter().all(|window| is_right(&window.region)));
    }
}

/// What is free is memory, and none of it is reserved.
fn check_plan(machine: &Machine<'_>) {
    let mut free = Ranges::new();
    for region in &machine.memory {
        free.add(region.range(), PAGE);
    }
    let all = free.bytes();
    for region in &machine.reserved {
        free.remove(region.range(), PAGE);
    }
    assert!(free.bytes() <= all);
    for range in free.iter() {
        assert!(range.start % PAGE == 0 && range.end % PAGE == 0 && !range.is_empty());
        let overlaps = |r: &Region| r.base < range.end && range.start < r.range().end;
        assert!(!machine.reserved.iter().any(overlaps), "{range:x?} of {:?}", machine.reserved);
    }
    assert!(free.iter().is_sorted_by(|a, b| a.end < b.start));
    if let Some(taken) = free.take(PAGE) {
        assert!(taken.end - taken.start == PAGE && free.bytes() < all);
    }
}
