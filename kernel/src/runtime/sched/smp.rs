//! How the other cores are started: by the firmware, or out of a spin table.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::Ordering;

use log::warn;
use spin::Once;

use super::{cores, ending, first_core, idle, threads};
use crate::runtime::arch::handover::{self, Handover, WAITING};
use crate::runtime::arch::this_core::{MAX_CORES, mpidr};
use crate::runtime::arch::{cache, time};
use crate::runtime::dev::psci::PsciError;
use crate::runtime::dev::{mmio, psci, wake};
use crate::runtime::machine::{Cpu, EnableMethod, Machine};
use crate::runtime::mem::{early, stacks};

/// How long a core may take to come up, in µs.
const START_TIMEOUT_US: u64 = 1_000_000;

static HANDOVERS: [Once<Handover>; MAX_CORES] = [const { Once::new() }; MAX_CORES];

/// The core for the application's first thread, once all are started.
pub fn for_first_thread(machine: &Machine<'_>) -> usize {
    let me = mpidr();
    let boot = machine.cpus.iter().find(|cpu| cpu.mpidr == me).map_or(0, |cpu| cpu.capacity);
    let up = others(machine).filter(|&(_, core)| cores::is_up(core));
    first_core::choose(boot, up.map(|(cpu, core)| (core, cpu.capacity)))
}

/// The cores that `machine` lists but this one, with their numbers.
fn others<'m>(machine: &'m Machine<'_>) -> impl Iterator<Item = (&'m Cpu, usize)> {
    let me = mpidr();
    machine.cpus.iter().filter(move |cpu| cpu.mpidr != me).zip(1..MAX_CORES)
}

/// Has the cores of spin tables wait in this image. They come from where only the firmware's
/// memory is, which the final map does not have.
///
/// Source: Linux, Documentation/arch/arm64/booting.rst and arch/arm64/kernel/smp_spin_table.c.
///
/// # Safety
/// The map is the early one, which has all memory of the spin tables.
pub unsafe fn take_from_spin_tables(machine: &Machine<'_>) {
    for (cpu, core) in others(machine) {
        if let EnableMethod::SpinTable { .. } = cpu.enable_method {
            WAITING[core].mpidr.store(cpu.mpidr, Ordering::Relaxed);
        }
    }
    // A core without a cache sees what is in memory.
    cache::write_back(&WAITING);
    for (cpu, _) in others(machine) {
        if let EnableMethod::SpinTable { release_addr } = cpu.enable_method
            && is_in_reach(release_addr)
        {
            let word = release_addr as *mut u64;
            // Whoever wrote there last may have done so in a cache; and where the core waits with its
            // cache on, that holds what it has read.
            // SAFETY: by the tree the word is there to be written, and it is mapped, as the caller
            // says. The core goes to `waiting_core`, which needs nothing.
            unsafe {
                cache::clean_and_invalidate(release_addr..release_addr + 8);
                word.write_volatile(handover::waiting_core as *const () as u64);
                cache::clean_and_invalidate(release_addr..release_addr + 8);
            }
        }
    }
    wake_waiting();
}

/// Whether the word of a spin table can be written while the map is the early one.
fn is_in_reach(release_addr: u64) -> bool {
    release_addr.is_multiple_of(8) && early::is_on_map(release_addr)
}

/// Ends the `wfe` of the cores that wait.
fn wake_waiting() {
    // SAFETY: an event; it changes nothing.
    unsafe { asm!("dsb sy", "sev", options(nostack, preserves_flags)) };
}

/// Starts all cores that `machine` lists but this one. One that does not come up is logged and
/// left out.
pub fn start_all(machine: &Machine<'_>) {
    cores::note_processor();
    for (cpu, core) in others(machine) {
        if let Err(reason) = start(cpu, core) {
            warn!("core {core} (MPIDR {:#x}) does not start: {reason}", cpu.mpidr);
            cores::leave_out(core);
        }
    }
    let deadline = time::now_us() + START_TIMEOUT_US;
    for (cpu, core) in others(machine) {
        idle::wait_until(&|| cores::is_settled(core), Some(deadline));
        // From here on a core that comes late stays out.
        if cores::leave_out(core) {
            warn!("core {core} (MPIDR {:#x}) did not come up within a second", cpu.mpidr);
        }
    }
    cores::count_up();
}

/// Why a core does not start.
enum StartError {
    NoStack,
    Firmware(PsciError),
    OutOfReach { release_addr: u64 },
    UnknownMethod,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoStack => f.write_str("it has no stack"),
            StartError::Firmware(error) => error.fmt(f),
            StartError::OutOfReach { release_addr } => {
                write!(f, "its spin table at {release_addr:#x} is out of reach")
            }
            StartError::UnknownMethod => f.write_str("the device tree names no way that we know"),
        }
    }
}

fn start(cpu: &Cpu, core: usize) -> Result<(), StartError> {
    let Some(handover) = stacks::handover(core) else { return Err(StartError::NoStack) };
    let handover: *const Handover = HANDOVERS[core].call_once(|| handover);
    match cpu.enable_method {
        EnableMethod::Psci => {
            // The firmware's call orders nothing: the new core must find its handover and the
            // page tables in memory.
            mmio::publish();
            // SAFETY: the core enters at `secondary_core` with a handover of its own that is never
            // written again.
            let result = unsafe {
                psci::cpu_on(
                    cpu.mpidr,
                    handover::secondary_core as *const () as u64,
                    handover as u64,
                )
            };
            result.map_err(StartError::Firmware)
        }
        EnableMethod::SpinTable { release_addr } => {
            if !is_in_reach(release_addr) {
                return Err(StartError::OutOfReach { release_addr });
            }
            WAITING[core].handover.store(handover as u64, Ordering::Relaxed);
            cache::write_back(&WAITING[core]);
            wake_waiting();
            Ok(())
        }
        EnableMethod::Unknown => Err(StartError::UnknownMethod),
    }
}

/// What a core does from its start on: run threads.
pub fn run(core: usize) -> ! {
    cores::note_processor();
    let is_up = match wake::set_up_core() {
        Ok(()) => cores::come_up(core),
        Err(error) => {
            warn!("core {core} is left out: {error}");
            cores::leave_out(core);
            false
        }
    };
    idle::wake(0);
    if is_up {
        threads::run(core);
    }
    ending::stop_core()
}
