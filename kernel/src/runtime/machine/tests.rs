use super::*;

const GICV2: &[u8] = include_bytes!("testdata/virt-gicv2.dtb");
const GICV3: &[u8] = include_bytes!("testdata/virt-gicv3-el2.dtb");
const FIRECRACKER: &[u8] = include_bytes!("testdata/firecracker.dtb");
const CLOUD_HYPERVISOR: &[u8] = include_bytes!("testdata/cloud-hypervisor.dtb");
const APPLE_M1: &[u8] = include_bytes!("testdata/apple-m1.dtb");
const BOARD: &[u8] = include_bytes!("testdata/board.dtb");
const PI4: &[u8] = include_bytes!("testdata/pi4.dtb");
const SD_HOSTS: &[u8] = include_bytes!("testdata/sd-hosts.dtb");

fn region(base: u64, size: u64) -> Region {
    Region { base, size }
}

fn level(intid: u32) -> Interrupt {
    Interrupt { intid, edge: false }
}

#[test]
fn reads_virt_with_gicv2() {
    let m = Machine::from_fdt(GICV2).unwrap();
    assert_eq!(m.left_out[..], []);
    assert_eq!((m.model, m.chip), (&b"linux,dummy-virt"[..], Chip::Other));
    assert_eq!(m.memory[..], [region(0x4000_0000, 64 << 20)]);
    assert_eq!(m.bootargs, b"mode=chat  prompt='a b'");
    let initrd = m.initrd.unwrap();
    assert_eq!(initrd.size, 10007);
    let tree = region(GICV2.as_ptr() as u64, GICV2.len() as u64);
    assert_eq!(m.reserved[..], [tree, initrd]);
    assert_eq!(m.cpus[..], [Cpu { mpidr: 0, enable_method: EnableMethod::Unknown, capacity: 0 }]);
    assert_eq!(m.psci, Some(Psci { conduit: Conduit::Hvc, legacy_cpu_on: None }));
    assert_eq!(
        m.console,
        Some(Uart {
            kind: UartKind::Pl011,
            region: region(0x900_0000, 0x1000),
            interrupt: Some(level(33)),
            clock_hz: Some(24_000_000),
            reg_shift: 0,
            reg_io_width: 4,
            baud: None,
        })
    );
    assert_eq!(
        m.gic,
        Some(Gic::V2 {
            distributor: region(0x800_0000, 0x1_0000),
            cpu_interface: region(0x801_0000, 0x1_0000),
        })
    );
    assert_eq!(m.timer, Some(Timer { virtual_timer: level(27), frequency_hz: None }));
    assert_eq!(m.rtc, Some(region(0x901_0000, 0x1000)));
    assert_eq!(m.virtio_mmio.len(), 32);
    assert!(m.virtio_mmio.is_sorted_by_key(|device| device.region.base));
    let interrupt = Some(Interrupt { intid: 32 + 16 + 31, edge: true });
    let last = region(0xa00_3e00, 0x200);
    let coherence = Coherence::Coherent;
    assert_eq!(m.virtio_mmio[31], VirtioMmio { region: last, interrupt, coherence });
    assert_eq!(m.pci.as_ref().unwrap().coherence, coherence);
    is_swizzled(&m);
    // 32 bytes, which differ from boot to boot.
    assert_eq!((m.rng_seed.len(), m.rng_seed.starts_with(&[0; 8])), (32, false));
}

/// QEMU's wiring: the pins of neighbouring devices lead to the interrupts 35 to 38 in turn.
fn is_swizzled(m: &Machine<'_>) {
    let interrupts = &m.pci.as_ref().unwrap().interrupts;
    for device in 0..32 {
        for pin in 1..=4 {
            let expected = level(35 + (u32::from(device) + u32::from(pin) - 1) % 4);
            for (bus, function) in [(0, 0), (0, 7), (3, 1)] {
                let found = interrupts.of(bus, device, function, pin);
                assert_eq!(found, Some(expected), "device {device}, pin {pin}");
            }
        }
        assert_eq!(interrupts.of(0, device, 0, 0), None);
        assert_eq!(interrupts.of(0, device, 0, 5), None);
    }
}

#[test]
fn reads_virt_with_gicv3_at_el2() {
    let m = Machine::from_fdt(GICV3).unwrap();
    assert_eq!(m.left_out[..], []);
    assert_eq!(m.memory[..], [region(0x4000_0000, 3 << 30)]);
    assert_eq!((m.bootargs, m.initrd), (&b""[..], None));
    let mpidrs: Vec<u64> = m.cpus.iter().map(|cpu| cpu.mpidr).collect();
    assert_eq!(mpidrs, [0, 1, 2, 3]);
    assert!(m.cpus.iter().all(|cpu| cpu.enable_method == EnableMethod::Psci));
    assert_eq!(m.psci, Some(Psci { conduit: Conduit::Smc, legacy_cpu_on: None }));
    let redistributors = ArrayVec::from_iter([region(0x80a_0000, 0xf6_0000)]);
    let distributor = region(0x800_0000, 0x1_0000);
    assert_eq!(m.gic, Some(Gic::V3 { distributor, redistributors, stride: None }));
    let window = |space, bus_address, base, size| PciWindow {
        space,
        bus_address,
        region: region(base, size),
    };
    assert_eq!(
        m.pci,
        Some(PciHost {
            ecam: region(0x40_1000_0000, 256 << 20),
            first_bus: 0,
            last_bus: 255,
            windows: ArrayVec::from_iter([
                window(PciSpace::Io, 0, 0x3eff_0000, 0x1_0000),
                window(PciSpace::Memory32, 0x1000_0000, 0x1000_0000, 0x2eff_0000),
                window(PciSpace::Memory64, 0x80_0000_0000, 0x80_0000_0000, 0x80_0000_0000),
            ]),
            interrupts: m.pci.as_ref().unwrap().interrupts.clone(),
            coherence: Coherence::Coherent,
        })
    );
    is_swizzled(&m);
    assert_eq!(m.rng_seed[..4], [0xca, 0x8e, 0xa2, 0x3e]);
}

#[test]
fn reads_firecracker_s_machine() {
    let m = Machine::from_fdt(FIRECRACKER).unwrap();
    assert_eq!(m.left_out[..], []);
    assert_eq!(m.memory[..], [region(0x8020_0000, 510 << 20)]);
    assert_eq!((m.bootargs, m.initrd), (&b"mode=chat"[..], Some(region(0x9000_0000, 1 << 20))));
    let psci = |mpidr| Cpu { mpidr, enable_method: EnableMethod::Psci, capacity: 0 };
    assert_eq!(m.cpus[..], [psci(0), psci(0x100)]);
    assert_eq!(m.psci, Some(Psci { conduit: Conduit::Hvc, legacy_cpu_on: None }));
    let edge = |intid| Some(Interrupt { intid, edge: true });
    assert_eq!(
        m.console,
        Some(Uart {
            kind: UartKind::Ns16550,
            region: region(0x4000_2000, 0x1000),
            interrupt: edge(33),
            clock_hz: Some(24_000_000),
            reg_shift: 0,
            reg_io_width: 1,
            baud: None,
        })
    );
    let redistributors = ArrayVec::from_iter([region(0x3ffb_0000, 0x4_0000)]);
    let distributor = region(0x3fff_0000, 0x1_0000);
    assert_eq!(m.gic, Some(Gic::V3 { distributor, redistributors, stride: None }));
    assert_eq!(m.timer, Some(Timer { virtual_timer: level(27), frequency_hz: None }));
    let (region, interrupt) = (region(0x4000_3000, 0x1000), edge(34));
    let disk = VirtioMmio { region, interrupt, coherence: Coherence::Unsaid };
    assert_eq!(m.virtio_mmio[..], [disk]);
}

#[test]
fn reads_cloud_hypervisor_s_machine() {
    let m = Machine::from_fdt(CLOUD_HYPERVISOR).unwrap();
    assert_eq!(m.left_out[..], []);
    assert_eq!(
        m.memory[..],
        [region(0x4000_0000, 0xbc00_0000), region(0x1_0000_0000, 0x1_0400_0000)]
    );
    assert_eq!((m.bootargs, m.initrd), (&b""[..], None));
    assert_eq!(m.cpus[..], [Cpu { mpidr: 0, enable_method: EnableMethod::Unknown, capacity: 0 }]);
    let console = m.console.unwrap();
    assert_eq!(console.kind, UartKind::Pl011);
    assert_eq!(console.region, region(0x900_0000, 0x1000));
    let pci = m.pci.unwrap();
    assert_eq!((pci.ecam, pci.first_bus, pci.last_bus), (region(0x3000_0000, 1 << 20), 0, 0));
    assert_eq!(pci.coherence, Coherence::Coherent);
    assert_eq!(pci.interrupts.of(0, 1, 0, 1), None, "the devices have messages alone");
    let memory64 = pci.windows[2];
    assert_eq!(memory64.space, PciSpace::Memory64);
    assert_eq!(memory64.region, region(0x2_0000_0000, 0xfd_fc00_0000));
}

#[test]
fn the_mini_uart_is_a_16550_of_words_whose_divisor_stays() {
    assert_eq!(
        Machine::from_fdt(&patched(BOARD, b"serial1:", b"serial3:")).unwrap().console,
        Some(Uart {
            kind: UartKind::Ns16550,
            region: region(0xfe21_5040, 0x40),
            interrupt: Some(level(125)),
            clock_hz: None,
            reg_shift: 2,
            reg_io_width: 4,
            baud: Some(115_200),
        })
    );
}

#[test]
fn finds_the_mailbox_of_a_raspberry_pi_4() {
    let mailbox = Some(region(0xfe00_b880, 0x40));
    let m = Machine::from_fdt(PI4).unwrap();
    assert_eq!((m.chip, m.mailbox, &m.left_out[..]), (Chip::Bcm2711, mailbox, &[][..]));
    let rest = Machine::console_and_firmware(PI4).unwrap();
    assert_eq!((rest.chip, rest.mailbox), (Chip::Bcm2711, mailbox));
    // The VideoCore of another chip may see memory at other addresses.
    let other = patched(PI4, b"brcm,bcm2711\0", b"brcm,bcm2710\0");
    assert_eq!(Machine::from_fdt(&other).unwrap().mailbox, None);
}

#[test]
fn finds_the_ports_of_a_raspberry_pi_4_s_header() {
    let m = Machine::from_fdt(PI4).unwrap();
    let pl011 = Uart {
        kind: UartKind::Pl011,
        region: region(0xfe20_1000, 0x200),
        interrupt: Some(level(153)),
        clock_hz: None,
        reg_shift: 0,
        reg_io_width: 4,
        baud: None,
    };
    let mini_uart = Uart {
        kind: UartKind::Ns16550,
        region: region(0xfe21_5040, 0x40),
        interrupt: Some(level(125)),
        reg_shift: 2,
        baud: Some(115_200),
        ..pl011
    };
    let gpio = Some(region(0xfe20_0000, 0xb4));
    let header = Header { gpio, pl011: Some(pl011), mini_uart: Some(mini_uart) };
    assert_eq!((m.header, m.console), (header, Some(mini_uart)));
    // The tree for error reports has no interrupts.
    let without = |uart: Option<Uart>| uart.map(|uart| Uart { interrupt: None, ..uart });
    let rest = Machine::console_and_firmware(PI4).unwrap();
    let silent = Header { gpio, pl011: without(Some(pl011)), mini_uart: without(Some(mini_uart)) };
    assert_eq!((rest.header, rest.console), (silent, without(Some(mini_uart))));
    // The other PL011s have other pins.
    let more = patched(PI4, b"disabled\0", b"okay\0\0\0\0\0");
    assert_eq!(Machine::from_fdt(&more).unwrap().header, header);
    let other = patched(PI4, b"brcm,bcm2711\0", b"brcm,bcm2710\0");
    assert_eq!(Machine::from_fdt(&other).unwrap().header, Header::default());
}

#[test]
fn a_framebuffer_of_the_firmware_is_reserved_unless_something_else_is_there() {
    let framebuffer = |base| Framebuffer {
        region: region(base, 640 * 480 * 4),
        width: 640,
        height: 480,
        stride: 640 * 4,
        format: PixelFormat::from_name("x8b8g8r8").unwrap(),
    };
    let mut m = Machine::from_fdt(BOARD).unwrap();
    m.add_framebuffer(framebuffer(0x3d83_a000));
    assert_eq!(m.framebuffer, Some(framebuffer(0x3d83_a000)));
    assert_eq!(m.reserved.last(), Some(&framebuffer(0x3d83_a000).region));
    // In the initrd; over its start; over the firmware's memory; over the tree.
    let tree = BOARD.as_ptr() as u64;
    for base in [0x810_0000, 0x800_0000 - 4, 0x3b00_0000 - 4096, tree - 64] {
        let mut m = Machine::from_fdt(BOARD).unwrap();
        let reserved = m.reserved.clone();
        m.add_framebuffer(framebuffer(base));
        assert_eq!((m.framebuffer, m.reserved), (None, reserved), "{base:#x}");
        let overlap = MachineError::Overlap { device: "framebuffer" };
        assert_eq!(m.left_out.last(), Some(&overlap));
    }
    let mut m = Machine::from_fdt(BOARD).unwrap();
    while m.reserved.try_push(region(0x1000, 0x1000)).is_ok() {}
    m.add_framebuffer(framebuffer(0x3d83_a000));
    assert_eq!(m.framebuffer, None);
}

#[test]
fn the_names_of_a_trees_machines_are_listed() {
    let names: Vec<&str> = Machine::names_in(BOARD).unwrap().collect();
    assert_eq!(names, ["anchorite,test-board", "brcm,bcm2711"]);
    assert!(Machine::names_in(&BOARD[..BOARD.len() / 2]).is_err());
}

#[test]
fn finds_sd_hosts_and_what_their_dma_reaches() {
    let m = Machine::from_fdt(SD_HOSTS).unwrap();
    assert_eq!(m.clock_manager, Some(region(0xfe10_1000, 0x2000)));
    let window = |bus_address, base, size| DmaWindow { bus_address, memory: region(base, size) };
    let found: Vec<_> = m.sd_hosts.iter().map(|host| (host.region, &host.dma[..])).collect();
    assert_eq!(
        found,
        [
            // No bus has `dma-ranges`.
            (region(0xfe20_0000, 0x100), &[window(0, 0, 1 << 48)][..]),
            (region(0xfe34_0000, 0x100), &[window(0xc000_0000, 0, 0x4000_0000)]),
            // The inner bus offers 0x1000_0000 bytes; the outer bus lets the upper half through, in
            // two windows.
            (
                region(0xfe30_0000, 0x100),
                &[
                    window(0x800_0000, 0x8000_0000, 0x400_0000),
                    window(0xc00_0000, 0x1_0000_0000, 0x400_0000)
                ]
            ),
        ]
    );
    // A window that ends past all addresses is invalid; the other hosts stay.
    let (good, bad) = (b"\xc0\0\0\0\0\0\0\0\0\0\0\0", b"\xc0\0\0\0\xff\xff\xff\xff\0\0\0\0");
    let broken = patched(SD_HOSTS, good, bad);
    let m = Machine::from_fdt(&broken).unwrap();
    assert_eq!(m.sd_hosts.len(), 2);
    assert!(m.left_out[0].to_string().contains("dma-ranges"), "{}", m.left_out[0]);
}

#[test]
fn finds_what_switches_a_cards_supply() {
    let supply = |tree: &[u8]| {
        let machine = Machine::from_fdt(tree).unwrap();
        assert_eq!(machine.sd_hosts[0].region, region(0xfe34_0000, 0x100));
        machine.sd_hosts[0].supply
    };
    assert_eq!(supply(PI4), Some(SdSupply { low_voltage_pin: 4, power_pin: 6 }));
    let states = [1_800_000_u32, 1, 3_300_000, 0].map(u32::to_be_bytes);
    let inverted = [1_800_000_u32, 0, 3_300_000, 1].map(u32::to_be_bytes);
    for (from, to) in [
        (states.as_flattened(), inverted.as_flattened()),
        (b"\0\0\0\x05\0\0\0\x04\0\0\0\0", b"\0\0\0\x05\0\0\0\x04\0\0\0\x01"),
        (b"\0\0\0\x05\0\0\0\x06\0\0\0\0", b"\0\0\0\x01\0\0\0\x06\0\0\0\0"),
        (b"regulator-fixed", b"regulator-fixes"),
        (b"enable-active-high", b"enable-active-slow"),
        (b"vqmmc-supply", b"vqmmx-supply"),
        (b"vmmc-supply", b"vmmx-supply"),
    ] {
        let tree = patched(PI4, from, to);
        assert_eq!(supply(&tree), None, "{}", String::from_utf8_lossy(from));
    }
}

#[test]
fn reads_an_apple_m1() {
    let m = Machine::from_fdt(APPLE_M1).unwrap();
    // Neither the interrupt controller nor the timers' way to it is an error of the tree.
    assert_eq!(m.left_out[..], []);
    assert_eq!(m.model, b"Apple MacBook Pro (13-inch, M1, 2020)");
    assert_eq!(m.chip, Chip::Apple);
    let log = region(0xb_d949_4000, 0x4000);
    let calibration = region(0xb_d949_8000, 0x2_0000);
    assert_eq!(m.memory[..], [region(0x8_01f4_4000, 0x3_d755_0000), log, calibration]);
    let initrd = region(0x8_1000_0000, 64 << 20);
    assert_eq!((m.bootargs, m.initrd), (&b"mode=chat"[..], Some(initrd)));
    let picture = region(0xb_df43_8000, 0x2800 * 1600);
    // The ranges of m1n1 itself, then the stacks of the cores. Ranges of size 0 and disabled nodes
    // are absent.
    let tree = region(APPLE_M1.as_ptr() as u64, APPLE_M1.len() as u64);
    let m1n1 = [region(0x8_09c0_0000, 0x4_0000), region(0x8_06f9_4000, 0x1a_8000), initrd];
    let stacks = (0..7).map(|core| region(0x8_0a00_0000 + core * 0x1_0000, 0x1_0000));
    let nodes = [
        initrd,
        calibration,
        region(0x8_07d9_0000, 0x6_0000),
        log,
        region(0x8_01a3_0000, 0x10_0000),
        region(0xb_d900_0000, 0x8_0000),
        region(0xb_df43_8000, 32 << 20),
        picture,
    ];
    let reserved: Vec<Region> = [tree].into_iter().chain(m1n1).chain(stacks).chain(nodes).collect();
    assert_eq!(m.reserved[..], reserved);
    assert_eq!(
        m.framebuffer,
        Some(Framebuffer {
            region: picture,
            width: 2560,
            height: 1600,
            stride: 0x2800,
            format: PixelFormat::from_name("x2r10g10b10").unwrap(),
        })
    );
    let cpus: Vec<Cpu> = (0..8)
        .map(|n| {
            // The cores are in two clusters; the boot core has no release address.
            let mpidr = if n < 4 { n } else { 0x1_0100 + n - 4 };
            let release_addr = if n == 0 { 0 } else { 0x8_070f_8010 + 0x40 * n };
            let capacity = if n < 4 { 714 } else { 1024 };
            Cpu { mpidr, enable_method: EnableMethod::SpinTable { release_addr }, capacity }
        })
        .collect();
    assert_eq!(m.cpus[..], cpus);
    let cluster = |base, capacity, level| Cluster { region: region(base, 0x1000), capacity, level };
    // Of the fast cores' fifteen operating points, three are turbo.
    let clusters = [cluster(0x2_10e2_0000, 714, 5), cluster(0x2_11e2_0000, 1024, 12)];
    assert_eq!(m.clusters[..], clusters);
    assert_eq!(m.watchdog, Some(region(0x2_3d2b_0000, 0x4000)));
    assert_eq!(
        m.console,
        Some(Uart {
            kind: UartKind::S5l,
            region: region(0x2_3520_0000, 0x1000),
            interrupt: None,
            clock_hz: None,
            reg_shift: 0,
            reg_io_width: 4,
            baud: None,
        })
    );
    assert_eq!((m.psci, m.gic, m.timer, m.pci), (None, None, None, None));
    assert_eq!(m.virtio_mmio[..], []);
}

/// A tree with a framebuffer of these properties, at 0x0800_0000 in 256 MiB of RAM.
#[derive(Clone, Copy)]
struct Screen {
    in_chosen: bool,
    compatible: &'static [u8],
    status: &'static [u8],
    reg: [u32; 3],
    width: u32,
    height: u32,
    stride: u32,
    format: &'static [u8],
    initrd: [u32; 2],
}

impl Screen {
    const GOOD: Screen = Screen {
        in_chosen: true,
        compatible: b"apple,simple-framebuffer\0simple-framebuffer\0",
        status: b"okay\0",
        reg: [0, 0x800_0000, 0x40_0000],
        width: 1001,
        height: 701,
        stride: 4096,
        format: b"a8r8g8b8\0",
        initrd: [0x900_0000, 0x910_0000],
    };

    /// The framebuffer found, and the errors for one that is left out.
    fn read(self) -> (Option<Framebuffer>, Vec<String>) {
        let mut w = Writer::root();
        w.begin("chosen");
        w.cells("#address-cells", &[2]);
        w.cells("#size-cells", &[1]);
        w.property("ranges", &[]);
        w.cells("linux,initrd-start", &self.initrd[..1]);
        w.cells("linux,initrd-end", &self.initrd[1..]);
        if !self.in_chosen {
            w.end();
        }
        w.begin("framebuffer@8000000");
        w.property("compatible", self.compatible);
        w.property("status", self.status);
        w.cells("reg", &self.reg);
        w.cells("width", &[self.width]);
        w.cells("height", &[self.height]);
        w.cells("stride", &[self.stride]);
        w.property("format", self.format);
        w.end();
        if self.in_chosen {
            w.end();
        }
        let tree = w.finish();
        let m = Machine::from_fdt(&tree).unwrap();
        let is_reserved =
            |found: &Framebuffer| m.reserved.iter().filter(|&&r| r == found.region).count() == 1;
        assert!(m.framebuffer.as_ref().is_none_or(is_reserved));
        let rest = Machine::console_and_firmware(&tree).unwrap();
        assert!(m.framebuffer.is_none() || rest.framebuffer == m.framebuffer);
        (m.framebuffer, m.left_out.iter().map(ToString::to_string).collect())
    }
}

#[test]
fn finds_the_framebuffer() {
    let (found, said) = Screen::GOOD.read();
    let found = found.unwrap();
    assert!(said.is_empty(), "{said:?}");
    assert_eq!((found.region, found.width, found.height), (region(0x800_0000, 4 << 20), 1001, 701));
    assert_eq!((found.stride, found.format.encode([1, 2, 3])), (4096, 0xff01_0203));
    assert_eq!(found.picture(), region(0x800_0000, 4096 * 701));
    let (beside, said) = Screen { in_chosen: false, ..Screen::GOOD }.read();
    assert_eq!((beside, said.len()), (Some(found), 0));
    // The minimum size.
    let bytes = 80 * 400;
    let smallest =
        Screen { width: 200, height: 80, stride: 400, format: b"r5g6b5\0", ..Screen::GOOD };
    let smallest = Screen { reg: [0, 0x1000, bytes], ..smallest };
    assert_eq!(smallest.read().0.unwrap().picture(), region(0x1000, bytes.into()));
}

#[test]
fn a_framebuffer_that_is_none_of_ours_is_left_alone() {
    for other in [
        Screen { status: b"disabled\0", ..Screen::GOOD },
        Screen { compatible: b"apple,simple-framebuffer\0", ..Screen::GOOD },
    ] {
        assert_eq!(other.read(), (None, vec![]));
    }
    let wrong = |screen: Screen| {
        let (found, said) = screen.read();
        assert_eq!((found, said.len()), (None, 1), "{said:?}");
        said.into_iter().next().unwrap()
    };
    let good = Screen::GOOD;
    for (property, screen) in [
        ("format", Screen { format: b"r8g8b8\0", ..good }),
        ("format", Screen { format: b"a8r8g8b8", ..good }),
        ("width", Screen { width: 199, ..good }),
        ("width", Screen { width: 16385, ..good }),
        ("height", Screen { height: 0, ..good }),
        ("height", Screen { height: u32::MAX, ..good }),
        ("stride", Screen { stride: 1001 * 4 - 4, ..good }),
        ("stride", Screen { stride: 4094, ..good }),
        ("reg", Screen { reg: [0, 0x800_0000, 4096 * 701 - 1], ..good }),
        ("reg", Screen { stride: u32::MAX - 3, ..good }),
        ("reg", Screen { reg: [0, 0x800_0002, 0x40_0000], ..good }),
        ("reg", Screen { reg: [0, 0xffc, 0x40_0000], ..good }),
        ("reg", Screen { reg: [0, 0x800_0000, 0x4000_0001], ..good }),
        ("reg", Screen { reg: [0x1_0000, 0, 0x40_0000], ..good }),
    ] {
        let said = wrong(screen);
        let expected = format!(
            "device tree: `{property}` of node `framebuffer@8000000` is missing or malformed"
        );
        assert_eq!(said, expected);
    }
    // The framebuffer may end where the initrd begins.
    let touching = Screen { initrd: [0x840_0000, 0x850_0000], ..good };
    assert!(touching.read().0.is_some());
    for initrd in [[0x83f_ffff, 0x850_0000], [0x700_0000, 0x800_0001], [0x810_0000, 0x811_0000]] {
        let said = wrong(Screen { initrd, ..good });
        assert_eq!(said, "device tree: the framebuffer lies where something else does");
    }
}

#[test]
fn translates_addresses_and_honours_status() {
    let m = Machine::from_fdt(BOARD).unwrap();
    assert_eq!((m.model, m.chip), (&b"anchorite,test-board"[..], Chip::Bcm2711));
    assert_eq!(
        m.memory[..],
        [
            region(0, 0x3b40_0000),
            region(0x4000_0000, 0xbc00_0000),
            region(0x1_0000_0000, 0x8000_0000)
        ]
    );
    assert_eq!(m.initrd, Some(region(0x800_0000, 0x12_3456)));
    assert_eq!(
        m.reserved[1..],
        [
            region(0, 0x1000),
            region(0x800_0000, 0x12_3456),
            region(0x3b00_0000, 0x8_0000),
            region(0x3b30_0000, 0x1_0000),
            region(0x3b38_0000, 0x8000),
        ]
    );
    // `fail` removes a core, `disabled` does not.
    let spin = |release_addr| EnableMethod::SpinTable { release_addr };
    assert_eq!(
        m.cpus[..],
        [
            Cpu { mpidr: 0, enable_method: spin(0xd8), capacity: 0 },
            Cpu { mpidr: 1, enable_method: spin(0x1_0000_00e0), capacity: 0 },
            Cpu { mpidr: 0x100, enable_method: EnableMethod::Psci, capacity: 0 },
        ]
    );
    assert_eq!(m.psci, Some(Psci { conduit: Conduit::Smc, legacy_cpu_on: Some(0x95c1_ba60) }));
    assert_eq!(m.power_manager, Some(region(0xfe10_0000, 0x114)));
    // 0x5_0000_0040 on the bridge, 0x7e30_0040 on the soc.
    assert_eq!(
        m.console,
        Some(Uart {
            kind: UartKind::Ns16550,
            region: region(0xfe30_0040, 0x40),
            interrupt: Some(Interrupt { intid: 125, edge: true }),
            clock_hz: Some(500_000_000),
            reg_shift: 2,
            reg_io_width: 4,
            baud: Some(115_200),
        })
    );
    assert_eq!(
        m.gic,
        Some(Gic::V2 {
            distributor: region(0xff84_1000, 0x1000),
            cpu_interface: region(0xff84_2000, 0x2000),
        })
    );
    assert_eq!(m.timer, Some(Timer { virtual_timer: level(27), frequency_hz: Some(54_000_000) }));
    // One device is outside its bridge's window, one on a bus without a way to the processor.
    let unreachable = |name| MachineError::Unreachable { node: NodeName::from(name).unwrap() };
    assert_eq!(m.left_out[..], [unreachable("virtio@600000000"), unreachable("virtio@0")]);
    assert!(m.virtio_mmio.is_empty());
}

#[test]
fn what_is_said_of_a_bus_s_dma_holds_for_the_devices_on_it() {
    use Coherence::{Coherent, NonCoherent, Unsaid};

    const SAYS: [(Option<&str>, Coherence); 3] =
        [(None, Unsaid), (Some("dma-coherent"), Coherent), (Some("dma-noncoherent"), NonCoherent)];
    let bus = |w: &mut Writer, name: &str, says: Option<&str>| {
        w.begin(name);
        w.cells("#address-cells", &[1]);
        w.cells("#size-cells", &[1]);
        w.property("ranges", &[]);
        says.into_iter().for_each(|property| w.property(property, &[]));
    };
    for outer in SAYS {
        for inner in SAYS {
            for device in SAYS {
                let mut w = Writer::root();
                bus(&mut w, "outer", outer.0);
                bus(&mut w, "inner", inner.0);
                w.begin("virtio@1000");
                w.property("compatible", b"virtio,mmio\0");
                w.cells("reg", &[0x1000, 0x200]);
                device.0.into_iter().for_each(|property| w.property(property, &[]));
                w.end();
                bus(&mut w, "pcie@20000000", device.0);
                w.property("compatible", b"pci-host-ecam-generic\0");
                w.cells("reg", &[0x2000_0000, 1 << 20]);
                w.end();
                w.end();
                w.end();
                let tree = w.finish();
                let m = Machine::from_fdt(&tree).unwrap();
                // The nearest node that says something decides.
                let said = [device, inner, outer].map(|(_, coherence)| coherence);
                let expected = said.into_iter().find(|&said| said != Unsaid).unwrap_or(Unsaid);
                assert_eq!(m.virtio_mmio[0].coherence, expected, "{said:?}");
                let on_pci = m.pci.as_ref().unwrap().coherence;
                assert_eq!(on_pci, expected, "{said:?}");
            }
        }
    }
}

/// The tree with the first `from` replaced by `to`, of the same length.
fn patched(tree: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = tree.windows(from.len()).position(|w| w == from).expect("the bytes are there");
    let mut tree = tree.to_vec();
    tree[at..at + to.len()].copy_from_slice(to);
    tree
}

#[test]
fn finds_the_console_by_path_or_alias() {
    let console = |stdout: &str| {
        let mut padded = [0; 17];
        padded[..stdout.len()].copy_from_slice(stdout.as_bytes());
        let tree = patched(BOARD, b"serial1:115200n8\0", &padded);
        let console = Machine::from_fdt(&tree).unwrap().console.unwrap();
        (console.kind, console.baud)
    };
    assert_eq!(console("serial0"), (UartKind::Pl011, None));
    assert_eq!(console("serial0:9600n8"), (UartKind::Pl011, Some(9600)));
    assert_eq!(console("serial1"), (UartKind::Ns16550, None));
    assert_eq!(console("/soc/bus/serial"), (UartKind::Ns16550, None));
    assert_eq!(console("/soc/serial:9600"), (UartKind::Pl011, Some(9600)));
    // No path or alias is a port, so the first usable port is taken, without the options.
    assert_eq!(console("serial2:9600"), (UartKind::Pl011, None));
    assert_eq!(console("/bus/serial:9600"), (UartKind::Pl011, None));
    assert_eq!(console("/soc/bus:9600"), (UartKind::Pl011, None));
    assert_eq!(console("/:9600"), (UartKind::Pl011, None));
    assert_eq!(console(""), (UartKind::Pl011, None));
    // The value has no zero at its end, so it is no string.
    assert_eq!(console("serial1:115200n80"), (UartKind::Pl011, None));
    let tree = patched(BOARD, b"stdout-path", b"stdout_path");
    assert_eq!(Machine::from_fdt(&tree).unwrap().console.unwrap().kind, UartKind::Pl011);
}

#[test]
fn accepts_bytes_after_the_tree() {
    let mut longer = GICV2.to_vec();
    longer.extend([0xa5; 101]);
    let m = Machine::from_fdt(&longer).unwrap();
    assert_eq!(m.reserved[0].size, GICV2.len() as u64);
}

#[test]
fn what_memory_rests_on_must_be_right() {
    let word = |word: &[u32]| word.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
    // The third memory region ends past the last address.
    let from = word(&[1, 0, 0x8000_0000]);
    let tree = patched(BOARD, &from, &word(&[0xffff_ffff, 0xffff_0000, 0x8000_0000]));
    let property =
        |node, property| MachineError::Property { node: NodeName::from(node).unwrap(), property };
    assert_eq!(Machine::from_fdt(&tree).unwrap_err(), property("memory@0", "reg"));

    let tree = patched(BOARD, &word(&[0x812_3456]), &word(&[0x7ff_ffff]));
    assert_eq!(Machine::from_fdt(&tree).unwrap_err(), property("chosen", "linux,initrd-end"));

    let tree = patched(GICV2, b"memory@4", b"memorx@4");
    let tree = patched(&tree, b"memory\0", b"memorx\0");
    assert_eq!(Machine::from_fdt(&tree).unwrap_err(), MachineError::NoMemory);
}

#[test]
fn a_broken_device_is_left_out_and_told() {
    let tree = patched(GICV2, b"hvc\0", b"hvx\0");
    let m = Machine::from_fdt(&tree).unwrap();
    assert_eq!(m.psci, None);
    let node = NodeName::from("psci").unwrap();
    assert_eq!(m.left_out[..], [MachineError::Property { node, property: "method" }]);
    assert_eq!(
        m.left_out[0].to_string(),
        "device tree: `method` of node `psci` is missing or malformed"
    );
    assert!(m.console.is_some() && m.gic.is_some());
}

/// Writes a tree (Devicetree Specification, chapter 5).
#[derive(Default)]
struct Writer {
    reserved: Vec<(u64, u64)>,
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    fn word(&mut self, word: usize) {
        self.structure.extend((word as u32).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.structure.extend(bytes);
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    fn begin(&mut self, name: &str) {
        self.word(1);
        self.bytes(format!("{name}\0").as_bytes());
    }

    fn end(&mut self) {
        self.word(2);
    }

    fn property(&mut self, name: &str, value: &[u8]) {
        let name_at = self.strings.len();
        self.strings.extend(format!("{name}\0").as_bytes());
        self.word(3);
        self.word(value.len());
        self.word(name_at);
        self.bytes(value);
    }

    fn cells(&mut self, name: &str, cells: &[u32]) {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.property(name, &value);
    }

    /// Begins a root of two address cells and one size cell.
    /// The root has the memory that a machine needs.
    fn root() -> Writer {
        let mut w = Writer::default();
        w.begin("");
        w.cells("#address-cells", &[2]);
        w.cells("#size-cells", &[1]);
        w.begin("memory@0");
        w.cells("reg", &[0, 0, 0x1000_0000]);
        w.end();
        w
    }

    /// Ends the root, and returns the tree.
    fn finish(mut self) -> Vec<u8> {
        self.end();
        self.word(9);
        let mut reserved: Vec<u8> = Vec::new();
        for (base, size) in self.reserved.iter().chain(&[(0, 0)]) {
            reserved.extend([base.to_be_bytes(), size.to_be_bytes()].concat());
        }
        let structure_at = 40 + reserved.len();
        let strings_at = structure_at + self.structure.len();
        let total = strings_at + self.strings.len();
        let (strings, structure) = (self.strings.len(), self.structure.len());
        let header =
            [0xd00d_feed, total, structure_at, strings_at, 40, 17, 16, 0, strings, structure];
        let header: Vec<u8> = header.iter().flat_map(|&f| (f as u32).to_be_bytes()).collect();
        [header, reserved, self.structure, self.strings].concat()
    }
}

#[test]
fn harmless_lists_are_cut_and_that_is_told() {
    let mut w = Writer::root();
    w.begin("memory@100000000");
    w.property("device_type", b"memory\0");
    let bank = |i| [1, i << 28, 0x1000_0000];
    w.cells("reg", &(0..MAX_MEMORY as u32).flat_map(bank).collect::<Vec<_>>());
    w.end();
    w.begin("cpus");
    w.cells("#address-cells", &[1]);
    w.cells("#size-cells", &[0]);
    for i in 0..=MAX_CPUS as u32 {
        w.begin(&format!("cpu@{i:x}"));
        w.cells("reg", &[i]);
        w.end();
    }
    w.end();
    for i in 0..=MAX_VIRTIO_MMIO as u32 {
        // In order of falling addresses.
        w.begin(&format!("virtio@{i:x}"));
        w.property("compatible", b"virtio,mmio\0");
        w.cells("reg", &[0, 0x1000_0000 - (i << 12), 0x200]);
        w.end();
    }
    w.begin("pcie@20000000");
    w.property("compatible", b"pci-host-ecam-generic\0");
    w.cells("#address-cells", &[3]);
    w.cells("#size-cells", &[2]);
    w.cells("reg", &[0, 0x2000_0000, 0x30_0000]);
    let window = |i| [0x4200_0000, 0, i << 24, 2, i << 24, 0, 0x100_0000];
    w.cells("ranges", &(0..=MAX_PCI_WINDOWS as u32).flat_map(window).collect::<Vec<_>>());
    w.end();
    let tree = w.finish();
    let m = Machine::from_fdt(&tree).unwrap();

    let cut = |list, max| MachineError::TooMany { list, max };
    assert_eq!(
        m.left_out[..],
        [
            cut(List::Memory, MAX_MEMORY),
            cut(List::Cpus, MAX_CPUS),
            cut(List::VirtioMmio, MAX_VIRTIO_MMIO),
            cut(List::PciWindows, MAX_PCI_WINDOWS),
        ]
    );
    assert_eq!((m.memory.len(), m.cpus.len()), (MAX_MEMORY, MAX_CPUS));
    assert_eq!(m.memory[1], region(0x1_0000_0000, 0x1000_0000));
    assert_eq!(m.virtio_mmio.len(), MAX_VIRTIO_MMIO);
    assert!(m.virtio_mmio.is_sorted_by_key(|device| device.region.base));
    let pci = m.pci.unwrap();
    assert_eq!((pci.first_bus, pci.last_bus), (0, 2), "as many as the ECAM has room for");
    assert_eq!(
        pci.windows[1],
        PciWindow {
            space: PciSpace::Memory32,
            bus_address: 0x100_0000,
            region: region(0x2_0100_0000, 0x100_0000),
        }
    );
}

/// The cells of an interrupt map's entry: function, pin, controller, shared interrupt.
fn wire(device: u32, pin: u32, controller: u32, spi: u32) -> [u32; 8] {
    [device << 11, 0, 0, pin, controller, 0, spi, 4]
}

/// A machine with a GIC whose phandle is 7, and a host bridge with this interrupt map.
fn with_interrupt_map(mask: Option<&[u32]>, map: &[u32]) -> Machine<'static> {
    let mut w = Writer::root();
    w.begin("intc@8000000");
    w.property("compatible", b"arm,gic-400\0");
    w.cells("reg", &[0, 0x800_0000, 0x1000, 0, 0x801_0000, 0x1000]);
    w.cells("#interrupt-cells", &[3]);
    w.cells("phandle", &[7]);
    w.end();
    w.begin("pcie@20000000");
    w.property("compatible", b"pci-host-ecam-generic\0");
    w.cells("#address-cells", &[3]);
    w.cells("#size-cells", &[2]);
    w.cells("reg", &[0, 0x2000_0000, 0x30_0000]);
    w.property("ranges", &[]);
    mask.into_iter().for_each(|mask| w.cells("interrupt-map-mask", mask));
    w.cells("interrupt-map", map);
    w.end();
    Machine::from_fdt(w.finish().leak()).unwrap()
}

#[test]
fn an_interrupt_map_is_read_as_far_as_it_is_the_gic_s() {
    let of =
        |m: &Machine<'_>, device, pin| m.pci.as_ref().unwrap().interrupts.of(0, device, 0, pin);
    // Without a mask, function and pin must be those of the entry.
    let map = [wire(1, 1, 7, 40), wire(2, 1, 7, 41), wire(3, 1, 8, 42), wire(4, 1, 7, 43)];
    let m = with_interrupt_map(None, map.as_flattened());
    assert_eq!(m.left_out[..], []);
    assert_eq!((of(&m, 1, 1), of(&m, 2, 1)), (Some(level(72)), Some(level(73))));
    assert_eq!((of(&m, 1, 2), of(&m, 3, 1), of(&m, 4, 1)), (None, None, None));
    let interrupts = &m.pci.as_ref().unwrap().interrupts;
    assert_eq!((interrupts.of(0, 1, 1, 1), interrupts.of(1, 1, 0, 1)), (None, None));
    // One wire for all devices and pins; a function without a pin has none all the same.
    let m = with_interrupt_map(Some(&[0; 4]), &wire(1, 1, 7, 40));
    assert_eq!((of(&m, 31, 4), of(&m, 31, 0)), (Some(level(72)), None));
}

#[test]
fn a_wrong_interrupt_map_is_left_out_and_that_is_told() {
    let wrong = |property| {
        let node = NodeName::from("pcie@20000000").unwrap();
        MachineError::Property { node, property }
    };
    let whole = wire(1, 1, 7, 40);
    for (mask, map, property) in [
        (&[0x1800, 0, 0][..], &whole[..], "interrupt-map-mask"),
        (&[0x1800, 0, 0, 7, 0], &whole, "interrupt-map-mask"),
        (&[0x1800, 0, 0, 7], &whole[..7], "interrupt-map"),
        (&[0x1800, 0, 0, 7], &wire(1, 1, 7, 988), "interrupt-map"),
    ] {
        let m = with_interrupt_map(Some(mask), map);
        assert_eq!(m.left_out[..], [wrong(property)]);
        assert_eq!(m.pci.unwrap().interrupts, PciInterrupts::default());
    }
    let many: Vec<_> = (0..=MAX_PCI_INTERRUPTS as u32).map(|i| wire(i, 1, 7, i)).collect();
    let m = with_interrupt_map(None, many.as_flattened());
    let list = List::PciInterrupts;
    assert_eq!(m.left_out[..], [MachineError::TooMany { list, max: MAX_PCI_INTERRUPTS }]);
    let of = |device| m.pci.as_ref().unwrap().interrupts.of(0, device, 0, 1);
    assert_eq!(of(31), Some(level(63)), "the others still count");
}

#[test]
fn too_many_reservations_are_an_error() {
    // The tree itself takes one reservation as well.
    let machine = |n| {
        let mut w = Writer::root();
        w.reserved = (0..n as u64).map(|i| (i << 20, 0x1000)).collect();
        Machine::from_fdt(&w.finish()).map(|m| m.reserved.len())
    };
    assert_eq!(machine(MAX_RESERVED - 1), Ok(MAX_RESERVED));
    let error = MachineError::TooMany { list: List::Reserved, max: MAX_RESERVED };
    assert_eq!(machine(MAX_RESERVED), Err(error));
}

#[test]
fn a_tree_that_is_refused_still_names_console_and_firmware() {
    // More reservations than the list holds, in a real machine's tree.
    let more: Vec<u8> = (0..=MAX_RESERVED as u64)
        .flat_map(|i| [i << 20, 0x1000].map(u64::to_be_bytes).concat())
        .collect();
    let mut tree = GICV2.to_vec();
    let field = |at| u32::from_be_bytes(GICV2[at..at + 4].try_into().unwrap());
    let list = field(16) as usize;
    tree.splice(list..list, more.iter().copied());
    // The total size, and the offsets of the nodes and names behind the list.
    for at in [4, 8, 12] {
        tree[at..at + 4].copy_from_slice(&(field(at) + more.len() as u32).to_be_bytes());
    }
    let error = Machine::from_fdt(&tree).unwrap_err();
    assert_eq!(error, MachineError::TooMany { list: List::Reserved, max: MAX_RESERVED });

    let whole = Machine::from_fdt(GICV2).unwrap();
    let rest = Machine::console_and_firmware(&tree).unwrap();
    assert_eq!(rest.psci, whole.psci);
    let region = |machine: &Machine| machine.console.as_ref().map(|uart| uart.region);
    assert!(region(&rest).is_some() && region(&rest) == region(&whole));
    assert!(Machine::console_and_firmware(&tree[..tree.len() / 2]).is_none());
}

#[test]
fn too_deep_a_tree_is_an_error() {
    let machine = |depth| {
        let mut w = Writer::root();
        (0..depth).for_each(|i| w.begin(&format!("level{i}")));
        (0..depth).for_each(|_| w.end());
        Machine::from_fdt(&w.finish()).map(|_| ())
    };
    assert_eq!(machine(16), Ok(()));
    let node = NodeName::from("level16").unwrap();
    assert_eq!(machine(17), Err(MachineError::TooDeep { node }));
}

#[test]
fn reads_extended_interrupts() {
    let interrupt = |entries: &[u32]| {
        let mut w = Writer::root();
        w.begin("gic@8000000");
        w.property("compatible", b"arm,gic-400\0");
        w.cells("#interrupt-cells", &[3]);
        w.cells("phandle", &[7]);
        w.cells("reg", &[0, 0x800_0000, 0x1000, 0, 0x801_0000, 0x1000]);
        w.end();
        w.begin("timer");
        w.property("compatible", b"arm,armv8-timer\0");
        w.cells("interrupts-extended", entries);
        w.end();
        let tree = w.finish();
        Machine::from_fdt(&tree).unwrap().timer.map(|timer| timer.virtual_timer)
    };
    assert_eq!(interrupt(&[7, 1, 13, 8, 7, 1, 14, 8, 7, 1, 11, 8]), Some(level(27)));
    // An interrupt for another controller, or no interrupt of that number.
    assert_eq!(interrupt(&[7, 1, 13, 8, 6, 1, 14, 8, 7, 1, 11, 8]), None);
    assert_eq!(interrupt(&[7, 1, 13, 8, 7, 1, 14, 8, 7, 1, 11]), None);
}

/// A tree with names that break the specification, as boards have them.
fn oddly_named() -> Vec<u8> {
    let mut w = Writer::root();
    w.begin("chosen");
    w.property("vendor,a-name-longer-than-the-31-that-are-allowed", &[1, 2, 3]);
    w.property("bootargs", b"mode=test\0");
    w.word(4);
    w.end();
    w.begin("a node#with-a-name-of-more-than-31-characters@0@1");
    w.begin("");
    w.end();
    w.end();
    w.finish()
}

#[test]
fn texts_may_have_any_bytes() {
    let read = |bootargs: &[u8]| {
        let mut w = Writer::root();
        w.begin("chosen");
        w.property("bootargs", bootargs);
        w.end();
        w.finish()
    };
    let wrong =
        MachineError::Property { node: NodeName::from("chosen").unwrap(), property: "bootargs" };
    for (given, words, left_out) in [
        (&b"seed=1 prompt=caf\xE9\0"[..], &b"seed=1 prompt=caf\xE9"[..], &[][..]),
        // Linux reads a value the same way without the zero byte, and with several.
        (b"seed=1", b"seed=1", &[]),
        (b"seed=1\0\0\0\0", b"seed=1", &[]),
        (b"", b"", &[]),
        // Linux takes the first string only; the second is reported.
        (b"seed=1\0seed=2\0", b"seed=1", &[wrong]),
    ] {
        let tree = read(given);
        let m = Machine::from_fdt(&tree).unwrap();
        assert_eq!((m.bootargs, &m.left_out[..]), (words, left_out));
    }
    let mut tree = GICV2.to_vec();
    let name = tree.windows(16).position(|bytes| bytes == b"linux,dummy-virt").unwrap();
    tree[name] = 0xE9;
    assert_eq!(Machine::from_fdt(&tree).unwrap().model, b"\xE9inux,dummy-virt");
}

#[test]
fn a_device_whose_status_is_no_text_is_left_alone() {
    let mut w = Writer::root();
    w.begin("serial");
    w.property("compatible", b"arm,pl011\0");
    w.property("status", b"ok\xE9\0");
    w.cells("reg", &[0, 0x900_0000, 0x1000]);
    w.end();
    assert_eq!(Machine::from_fdt(&w.finish()).unwrap().console, None);
}

#[test]
fn real_boards_break_the_rules_for_names() {
    let tree = oddly_named();
    let m = Machine::from_fdt(&tree).unwrap();
    assert_eq!((m.bootargs, &m.left_out[..]), (&b"mode=test"[..], &[][..]));
    // Other rules still hold: no property after a child,
    let mut w = Writer::root();
    w.begin("an odd node");
    w.end();
    w.property("model", b"late\0");
    assert_eq!(Machine::from_fdt(&w.finish()).unwrap_err(), MachineError::Structure);
    // and nothing that ends outside the block.
    let outside = patched(&tree, b"\0\0\0\x03\0\0\0\x0a", b"\0\0\0\x03\0\0\x10\x0a");
    assert_eq!(Machine::from_fdt(&outside).unwrap_err(), MachineError::Structure);
}

#[test]
fn every_truncation_is_an_error() {
    for tree in [GICV2, GICV3, BOARD, &oddly_named()] {
        for length in 0..tree.len() {
            assert!(Machine::from_fdt(&tree[..length]).is_err(), "{length} bytes were accepted");
            // The same with a header of the right length, so that more than the header is checked.
            let mut short = tree[..length].to_vec();
            if let Some(total) = short.get_mut(4..8) {
                total.copy_from_slice(&(length as u32).to_be_bytes());
            }
            assert!(Machine::from_fdt(&short).is_err(), "{length} bytes were accepted");
        }
    }
}

/// Any tree gives a valid machine or an error, never a panic.
#[test]
fn damaged_trees_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let (mut accepted, mut refused) = (0, 0);
    for tree in [GICV2, GICV3, BOARD, &oddly_named()] {
        for _ in 0..3001 {
            let mut damaged = tree.to_vec();
            for _ in 0..1 + random(7) {
                let at = random(damaged.len());
                damaged[at] = match random(3) {
                    0 => random(256) as u8,
                    1 => damaged[at] ^ 1 << random(8),
                    _ => [0x00, 0xff, 0x80, 0x7f][random(4)],
                };
            }
            match Machine::from_fdt(&damaged) {
                Ok(m) => {
                    accepted += 1;
                    assert!(!m.memory.is_empty());
                    for region in m.memory.iter().chain(&m.reserved) {
                        assert!(region.size > 0 && region.base.checked_add(region.size).is_some());
                    }
                }
                Err(e) => {
                    refused += 1;
                    assert!(!e.to_string().is_empty());
                }
            }
        }
    }
    assert!(accepted > 500 && refused > 500, "{accepted} accepted, {refused} refused");
}
