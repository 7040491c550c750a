//! The devices of this machine that the runtime itself uses.
//!
//! These are the consoles, the interrupt controller, and the devices that power the machine off.

use alloc::format;
use alloc::string::String;

use log::warn;
use spin::Once;

use super::console::Port;
use super::console::screen::{Grid, Screen};
use super::facts::FACTS;
use super::irq::{Controller, CoreRegisters};
use super::mailbox::Clock;
use super::mmio::{Mmio, Registers};
use super::wake::{self, Source};
use super::{cpufreq, header, rtc, videocore};
use crate::runtime::arch::{this_core, time};
use crate::runtime::machine::{Chip, DmaWindow, Gic, Machine, PciSpace, Region};
use crate::runtime::mem::early;

static CONSOLE: Once<Port<Mmio>> = Once::new();
static SCREEN: Once<Screen<'static, Mmio>> = Once::new();
static GRID: Grid = Grid::new();
static POWER_MANAGER: Once<Mmio> = Once::new();
static WATCHDOG: Once<Mmio> = Once::new();

/// The interrupt of the console's receiver.
pub static RECEIVER: Source = Source::new();

/// The serial port; `None` without a supported port, or before the set-up.
pub fn console() -> Option<&'static Port<Mmio>> {
    CONSOLE.get()
}

/// The screen; `None` without a screen, or before the set-up.
pub fn screen() -> Option<&'static Screen<'static, Mmio>> {
    SCREEN.get()
}

/// Describes the consoles for the `hello` event.
pub fn consoles() -> impl Iterator<Item = String> {
    let port = console().map(|port| port.name().into());
    let screen = screen().map(|screen| format!("framebuffer {screen}"));
    port.into_iter().chain(screen)
}

/// Registers of the device that powers off where PSCI cannot, if there is one.
pub fn power_manager() -> Option<&'static Mmio> {
    POWER_MANAGER.get()
}

/// Makes the serial port on a Raspberry Pi 4's header the console.
///
/// The port is the one that the pins carry, whatever the device tree says.
///
/// # Safety
/// The map is the early one, which has all devices. Nothing else drives those of the header.
pub unsafe fn choose_port(machine: &mut Machine<'_>) {
    let Some(gpio) = machine.header.gpio else { return };
    // SAFETY: upheld by the caller.
    let registers = |region| unsafe { Mmio::new(region) };
    let [transmit, receive] = header::functions(&registers(gpio));
    FACTS.note("gpio14", format_args!("{transmit}"));
    FACTS.note("gpio15", format_args!("{receive}"));
    let uart_hz = || videocore::ask(|mailbox| mailbox.clock_hz(Clock::Uart))?.ok();
    machine.console =
        header::choose(&machine.header, machine.console, registers, time::now_us, uart_hz);
}

/// Registers of an Apple chip's watchdog, which can restart the chip.
pub fn watchdog() -> Option<&'static Mmio> {
    WATCHDOG.get()
}

/// Sets up the consoles and the devices that power the machine off.
///
/// The first call is on the early map. The second call is on the final map, for a screen that only
/// the final map has.
///
/// # Safety
/// The devices that `machine` lists are mapped as device memory from here on, as far as a map
/// reaches. The framebuffer is mapped as uncached memory instead. Nothing else drives these
/// devices.
pub unsafe fn set_up_consoles(machine: &Machine<'_>, is_on_final_map: bool) {
    if let Some(region) = machine.power_manager {
        // SAFETY: upheld by the caller.
        POWER_MANAGER.call_once(|| unsafe { Mmio::new(region) });
    }
    if let Some(region) = machine.watchdog {
        // SAFETY: upheld by the caller.
        WATCHDOG.call_once(|| unsafe { Mmio::new(region) });
    }
    if let Some(uart) = &machine.console {
        // SAFETY: upheld by the caller.
        CONSOLE.call_once(|| Port::new(uart, unsafe { Mmio::new(uart.region) }, time::now_us));
        if let Some(interrupt) = uart.interrupt {
            RECEIVER.register(interrupt);
        }
    }
    if let Some(framebuffer) = &machine.framebuffer {
        let picture = framebuffer.picture();
        if is_on_final_map || early::is_on_map(picture.range().end) {
            // SAFETY: upheld by the caller. The picture is memory, in which a write has no effect
            // beyond the memory.
            SCREEN.call_once(|| Screen::new(framebuffer, unsafe { Mmio::new(picture) }, &GRID));
        }
    }
}

/// Sets up the interrupt controller, the boot core's part included.
///
/// Without an interrupt controller, the cores take naps of a fraction of a millisecond.
///
/// # Safety
/// As for [`set_up_consoles`].
pub unsafe fn set_up_interrupts(machine: &Machine<'_>) {
    if let Some(timer) = machine.timer {
        wake::REGISTRY.register_private(timer.virtual_timer);
    }
    // Without the timer's interrupt no sleep would end at its deadline. At EL2 the alarm is another
    // timer's, `CNTHV`. Few trees name the interrupt of that timer (Arm DDI 0487, D12.2).
    let gic = machine.gic.as_ref().filter(|_| machine.timer.is_some() && !this_core::is_at_el2());
    let result = gic.map(|gic| {
        // SAFETY: upheld by the caller.
        let controller =
            Controller::new(gic, |region| unsafe { Mmio::new(region) }, CoreRegisters)?;
        wake::REGISTRY.start(controller, this_core::current(), this_core::mpidr())
    });
    match result {
        Some(Ok(())) => return,
        Some(Err(error)) => warn!("{error}: idle cores only nap"),
        None => warn!("no interrupt controller and timer that we can use: idle cores only nap"),
    }
    time::start_event_stream();
}

/// Divider of the clock of a Raspberry Pi 4's SD controller, with 12 fraction bits.
///
/// The SD controller divides that clock further. Source: Linux, drivers/clk/bcm/clk-bcm2835.c.
const CM_EMMC2DIV: usize = 0x1d4;

/// Notes the clock and the DMA windows of a Raspberry Pi 4's SD controllers.
///
/// The capabilities may be wrong about the clock, and the device tree about DMA.
///
/// # Safety
/// The final map has the devices of [`regions`].
pub unsafe fn note_sd_hosts(machine: &Machine<'_>) {
    if let Some(region) =
        machine.clock_manager.filter(|region| region.size > CM_EMMC2DIV as u64 + 4)
    {
        // SAFETY: upheld by the caller.
        let divider = unsafe { Mmio::new(region) }.read32(CM_EMMC2DIV);
        FACTS.note("emmc2div", format_args!("{divider:#x}"));
    }
    if machine.chip == Chip::Bcm2711 {
        for host in &machine.sd_hosts {
            for DmaWindow { bus_address, memory } in &host.dma {
                let host = host.region.base;
                FACTS.note("dma-ranges", format_args!("{host:#x}: {memory} at {bus_address:#x}"));
            }
        }
    }
}

/// The registers of all devices that a driver may use.
pub fn regions<'m>(machine: &'m Machine<'_>) -> impl Iterator<Item = Region> + 'm {
    let gic = machine.gic.iter().flat_map(|gic| {
        let (first, second, rest) = match gic {
            Gic::V2 { distributor, cpu_interface } => (*distributor, Some(*cpu_interface), None),
            Gic::V3 { distributor, redistributors, .. } => {
                (*distributor, None, Some(redistributors))
            }
        };
        core::iter::once(first).chain(second).chain(rest.into_iter().flatten().copied())
    });
    let pci = machine.pci.iter().flat_map(|host| {
        let windows = host.windows.iter().filter(|window| window.space != PciSpace::Io);
        core::iter::once(host.ecam).chain(windows.map(|window| window.region))
    });
    let console = machine.console.iter().map(|uart| uart.region);
    let sd = machine.sd_hosts.iter().map(|host| host.region);
    let clusters = machine.clusters.iter().map(|cluster| cluster.region);
    console
        .chain(machine.power_manager)
        .chain(machine.mailbox)
        .chain(machine.watchdog)
        .chain(machine.rtc)
        .chain(machine.clock_manager)
        .chain(gic)
        .chain(machine.virtio_mmio.iter().map(|node| node.region))
        .chain(pci)
        .chain(sd)
        .chain(clusters)
}

/// Sets the date by the real-time clock, if there is one.
///
/// # Safety
/// As for [`set_up_consoles`].
pub unsafe fn set_date(machine: &Machine<'_>) {
    // SAFETY: upheld by the caller.
    let registers = machine.rtc.map(|region| unsafe { Mmio::new(region) });
    if let Some(seconds) = registers.and_then(|registers| rtc::seconds(&registers)) {
        time::set_date(seconds);
    }
}

/// Raises the clocks of the core clusters as far as the tree allows.
///
/// A cluster whose clock cannot be set stays as it is.
///
/// # Safety
/// As for [`set_up_consoles`].
pub unsafe fn raise_clocks(machine: &Machine<'_>) {
    let largest = machine.clusters.iter().map(|cluster| cluster.capacity).max();
    for cluster in &machine.clusters {
        // SAFETY: upheld by the caller.
        let registers = unsafe { Mmio::new(cluster.region) };
        let name = if Some(cluster.capacity) == largest { "pcpu" } else { "ecpu" };
        match cpufreq::raise(&registers, cluster.level, time::now_us) {
            Some((before, now)) => {
                FACTS.note(name, format_args!("pstate {now}, was {before}"));
            }
            None => FACTS.note(name, format_args!("pstate {} refused", cluster.level)),
        }
    }
}
