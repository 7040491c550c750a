//! Reads the nodes of the tree, with one function for each kind of node.

use core::ops::ControlFlow;

use arrayvec::ArrayVec;
use dtoolkit::fdt::Fdt;

use super::tree::{At, GicNode, number, walk};
use super::{
    Chip, Conduit, Cpu, EnableMethod, Gic, List, MachineError, Psci, SdSupply, Timer, Uart,
    UartKind,
};

pub const GIC_V2: &[&str] =
    &["arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a9-gic", "arm,cortex-a7-gic"];
pub const GIC_V3: &[&str] = &["arm,gic-v3"];
const PL011: &[&str] = &["arm,pl011"];
const NS16550: &[&str] = &["ns16550a", "ns16550", MINI_UART];
/// The Raspberry Pi's mini UART: a 16550 whose divisor has another meaning.
pub const MINI_UART: &str = "brcm,bcm2835-aux-uart";
/// Address of the PL011 that the header can have, on the chip's bus.
///
/// Source: BCM2711 ARM Peripherals, 11.5.
const HEADER_PL011: u64 = 0x7e20_1000;
pub const GPIO: &[&str] = &["brcm,bcm2711-gpio"];
pub const MAILBOX: &[&str] = &["brcm,bcm2835-mbox"];
pub const POWER_MANAGER: &[&str] = &["brcm,bcm2711-pm", "brcm,bcm2835-pm", "brcm,bcm2835-pm-wdt"];
pub const CLOCK_MANAGER: &[&str] = &["brcm,bcm2711-cprman"];
/// The Raspberry Pi 4's SD hosts: one for the card's slot, one for the WiFi chip.
///
/// QEMU may have other devices there.
pub const SDHCI: &[&str] = &["brcm,bcm2711-emmc2", "brcm,bcm2835-sdhci"];
const S5L: &[&str] = &["apple,s5l-uart"];
const CHIPS: [(&str, Chip); 2] =
    [("brcm,bcm2711", Chip::Bcm2711), ("apple,arm-platform", Chip::Apple)];
pub const SIMPLE_FRAMEBUFFER: &[&str] = &["simple-framebuffer"];

/// Checks that a list has room; the error is that of a full list.
pub fn room(fits: bool, list: List, max: usize) -> Result<(), MachineError> {
    if fits { Ok(()) } else { Err(MachineError::TooMany { list, max }) }
}

pub fn read_chip(at: &At<'_, '_>) -> Chip {
    let chip = CHIPS.iter().find(|(name, _)| at.is_compatible(&[name]));
    chip.map_or(Chip::Other, |&(_, chip)| chip)
}

pub fn read_gic(at: &At<'_, '_>) -> Result<Gic, MachineError> {
    let distributor = at.region(0)?;
    if at.is_compatible(GIC_V2) {
        return Ok(Gic::V2 { distributor, cpu_interface: at.region(1)? });
    }
    let n_regions = at.cell("#redistributor-regions")?.unwrap_or(1) as usize;
    let mut redistributors = ArrayVec::new();
    for region in at.regions()?.skip(1).take(n_regions) {
        let fits = redistributors.try_push(region?).is_ok();
        // A core without its redistributor could not be woken.
        room(fits, List::Redistributors, super::MAX_REDISTRIBUTORS)?;
    }
    if redistributors.is_empty() || redistributors.len() < n_regions {
        return Err(at.wrong("reg"));
    }
    let stride = at.number("redistributor-stride")?.filter(|&stride| stride != 0);
    Ok(Gic::V3 { distributor, redistributors, stride })
}

pub fn read_cpu(at: &At<'_, '_>) -> Result<Cpu, MachineError> {
    // The size cells of `/cpus` are 0, so `reg` has only addresses. The addresses are the affinity
    // fields.
    let reg = at.node.reg().ok().flatten().and_then(|mut all| number(all.next()?.address));
    let mpidr = reg.ok_or_else(|| at.wrong("reg"))?;
    let enable_method = match at.text("enable-method") {
        Some("psci") => EnableMethod::Psci,
        Some("spin-table") => {
            let release_addr = at.number("cpu-release-addr")?;
            let release_addr = release_addr.ok_or_else(|| at.wrong("cpu-release-addr"))?;
            EnableMethod::SpinTable { release_addr }
        }
        _ => EnableMethod::Unknown,
    };
    let capacity = at.cell("capacity-dmips-mhz").ok().flatten().unwrap_or(0);
    Ok(Cpu { mpidr, enable_method, capacity })
}

pub fn read_psci(at: &At<'_, '_>) -> Result<Psci, MachineError> {
    let conduit = match at.text("method") {
        Some("hvc") => Conduit::Hvc,
        Some("smc") => Conduit::Smc,
        _ => return Err(at.wrong("method")),
    };
    let legacy_cpu_on = if at.is_compatible(&["arm,psci-0.2", "arm,psci-1.0"]) {
        None
    } else {
        Some(at.cell("cpu_on")?.ok_or_else(|| at.wrong("cpu_on"))?)
    };
    Ok(Psci { conduit, legacy_cpu_on })
}

pub fn read_timer(at: &At<'_, '_>, gic: Option<&GicNode>) -> Result<Timer, MachineError> {
    // The interrupt is the third in the binding's order, unless the names say otherwise.
    let index = match at.value("interrupt-names") {
        None => Some(2),
        Some(names) => names.split(|&b| b == 0).position(|name| name == b"virt"),
    };
    let virtual_timer = index.and_then(|index| at.interrupt(gic, index));
    Ok(Timer {
        virtual_timer: virtual_timer.ok_or_else(|| at.wrong("interrupts"))?,
        frequency_hz: at.cell("clock-frequency")?,
    })
}

/// The driver for a node, if the node is a supported serial port.
pub fn uart_kind(at: &At<'_, '_>) -> Option<UartKind> {
    [(PL011, UartKind::Pl011), (NS16550, UartKind::Ns16550), (S5L, UartKind::S5l)]
        .into_iter()
        .find_map(|(names, kind)| at.is_compatible(names).then_some(kind))
}

/// Whether the port is the PL011 that the header of a BCM2711 board can have.
pub fn is_header_pl011(at: &At<'_, '_>) -> bool {
    let regions = at.bus_regions().ok().and_then(|mut regions| regions.next());
    at.is_compatible(PL011) && matches!(regions, Some(Ok(region)) if region.base == HEADER_PL011)
}

pub fn read_uart(
    at: &At<'_, '_>,
    fdt: Fdt<'_>,
    gic: Option<&GicNode>,
) -> Result<Uart, MachineError> {
    let kind = uart_kind(at).ok_or_else(|| at.wrong("compatible"))?;
    let mini = at.is_compatible(&[MINI_UART]);
    let reg_shift = at.cell("reg-shift")?.unwrap_or(if mini { 2 } else { 0 });
    if reg_shift > 4 {
        return Err(at.wrong("reg-shift"));
    }
    // The registers are words, except those of a plain 16550 (DDI 0183, table 3-1; BCM2711 ARM
    // Peripherals, 2.2; the binding `samsung,uart`).
    let width = if kind == UartKind::Ns16550 && !mini { 1 } else { 4 };
    let reg_io_width = at.cell("reg-io-width")?.unwrap_or(width);
    if reg_io_width != 1 && reg_io_width != 4 {
        return Err(at.wrong("reg-io-width"));
    }
    let clock_hz = match at.cell("clock-frequency")? {
        // Without a known clock, the firmware's divisor stays.
        _ if mini => None,
        Some(hz) => Some(hz),
        None => fixed_clock(at, fdt)?,
    };
    Ok(Uart {
        kind,
        region: at.region(0)?,
        interrupt: at.interrupt(gic, 0),
        clock_hz,
        reg_shift,
        reg_io_width,
        baud: None,
    })
}

/// Frequency in Hz of the first of a device's `clocks`, if that clock is fixed.
fn fixed_clock(at: &At<'_, '_>, fdt: Fdt<'_>) -> Result<Option<u32>, MachineError> {
    let Some(phandle) = at.value("clocks").and_then(|clocks| clocks.get(..4)) else {
        return Ok(None);
    };
    let clock = referred_to(fdt, phandle, &["fixed-clock"], |clock| clock.cell("clock-frequency"));
    clock.unwrap_or(Ok(None))
}

/// Applies `read` to the node with this `phandle`, if the node is compatible.
pub fn referred_to<T>(
    fdt: Fdt<'_>,
    phandle: &[u8],
    compatible: &[&str],
    read: impl Fn(&At<'_, '_>) -> T,
) -> Option<T> {
    let mut found = None;
    let walked = walk(fdt, &mut |at| {
        if at.is_compatible(compatible) && at.value("phandle") == Some(phandle) {
            found = Some(read(at));
        }
        Ok(ControlFlow::Continue(()))
    });
    found.filter(|_| walked.is_ok())
}

/// Reads the supply of an SD host's card, if GPIO pins switch the supply.
///
/// The pins are those of a Raspberry Pi's GPIO expander.
///
/// Source: Linux's bindings `mmc-controller` (supplies), `regulator-gpio`, `regulator-fixed`.
pub fn read_sd_supply(at: &At<'_, '_>, fdt: Fdt<'_>) -> Option<SdSupply> {
    // The cells: the phandle of the expander, the pin, and a flag that high is "on".
    let pin = |gpio: Option<&[u8]>| {
        let (&[expander, number, [0, 0, 0, 0]], []) = gpio?.as_chunks::<4>() else { return None };
        referred_to(fdt, &expander, &["raspberrypi,firmware-gpio"], |_| u32::from_be_bytes(number))
    };
    let lines = referred_to(fdt, at.value("vqmmc-supply")?, &["regulator-gpio"], |regulator| {
        let states: &[_] = &[1_800_000_u32, 1, 3_300_000, 0].map(u32::to_be_bytes);
        let is_known = regulator.value("states")?.as_chunks::<4>().0 == states;
        pin(regulator.value("gpios")).filter(|_| is_known)
    });
    let power = referred_to(fdt, at.value("vmmc-supply")?, &["regulator-fixed"], |regulator| {
        let is_high = regulator.value("enable-active-high").is_some();
        pin(regulator.value("gpio")).filter(|_| is_high)
    });
    Some(SdSupply { low_voltage_pin: lines.flatten()?, power_pin: power.flatten()? })
}
