//! The cores: their numbers and how the other ones are started.
//!
//! The boot core is number 0; the others follow in the order of the device tree.

use core::arch::asm;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use log::warn;
use spin::Once;

use super::boot::{self, Handover};
use super::machine::{self, Cpu, EnableMethod, Machine};
use super::psci::PsciError;
use super::stacks::Stacks;
use super::{cache, devices, first_core, idle, mmio, power, psci, threads, time};
use crate::cpu::Midr;

/// The most cores that take part.
pub const MAX_CORES: usize = machine::MAX_CPUS;

/// How long a core may take to come up, in µs.
const START_TIMEOUT_US: u64 = 1_000_000;

static STACKS: Once<Stacks> = Once::new();

/// What each core is doing: [`OFF`], [`UP`] or [`LEFT_OUT`].
static STATES: [AtomicU32; MAX_CORES] = [const { AtomicU32::new(OFF) }; MAX_CORES];
const OFF: u32 = 0;
const UP: u32 = 1;
const LEFT_OUT: u32 = 2;

/// Which processor each core is that has started.
static MIDRS: [AtomicU64; MAX_CORES] = [const { AtomicU64::new(0) }; MAX_CORES];

/// Cores numbered so far that are up: the boot core is.
static COUNT: AtomicUsize = AtomicUsize::new(1);

static HANDOVERS: [Once<Handover>; MAX_CORES] = [const { Once::new() }; MAX_CORES];

/// What a core from a spin table waits for in `boot.s`, with MMU and caches off.
#[repr(C)]
pub struct Waiting {
    /// The affinity fields of its `MPIDR_EL1`; all ones if the place is free.
    mpidr: AtomicU64,
    /// The address of its [`Handover`]; 0 as long as it is to wait.
    handover: AtomicU64,
}

/// One place for each core from a spin table; the boot core's stays free.
pub static WAITING: [Waiting; MAX_CORES] =
    [const { Waiting { mpidr: AtomicU64::new(u64::MAX), handover: AtomicU64::new(0) } }; MAX_CORES];

/// The number of the calling core.
pub fn current() -> usize {
    let core: usize;
    // SAFETY: reads a register that `boot.s` sets.
    unsafe { asm!("mrs {}, tpidr_el1", out(reg) core, options(nomem, nostack, preserves_flags)) };
    core
}

/// Affinity fields of the calling core's `MPIDR_EL1`, as the device tree names the core.
pub fn mpidr() -> u64 {
    let mpidr: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, mpidr_el1", out(reg) mpidr, options(nomem, nostack, preserves_flags)) };
    mpidr & 0xff_00ff_ffff
}

/// Cores that are up.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// Whether `core` is up.
pub fn is_up(core: usize) -> bool {
    core == 0 || STATES.get(core).is_some_and(|state| state.load(Ordering::Acquire) == UP)
}

/// Says where the stacks are.
pub fn set_stacks(stacks: Stacks) {
    STACKS.call_once(|| stacks);
}

/// The core one of whose guard pages holds `address`.
pub fn guarded_core(address: u64) -> Option<usize> {
    STACKS.get()?.guarded_core(address)
}

/// Whether `range` lies on one of the calling core's stacks.
pub fn is_on_my_stack(range: Range<u64>) -> bool {
    let within = |stack: Range<u64>| stack.start <= range.start && range.end <= stack.end;
    match STACKS.get() {
        Some(stacks) => {
            within(stacks.stack(current())) || within(stacks.exception_stack(current()))
        }
        None => within(boot::early_stacks()),
    }
}

/// The core for the application's first thread, once all are started.
pub fn for_first_thread(machine: &Machine<'_>) -> usize {
    let me = mpidr();
    let boot = machine.cpus.iter().find(|cpu| cpu.mpidr == me).map_or(0, |cpu| cpu.capacity);
    let up = others(machine).filter(|&(_, core)| is_up(core));
    first_core::choose(boot, up.map(|(cpu, core)| (core, cpu.capacity)))
}

/// Which processors the cores are that are up, in the order of their numbers.
pub fn midrs() -> impl Iterator<Item = Midr> {
    let up = (0..MAX_CORES).filter(|&core| is_up(core));
    up.map(|core| Midr(MIDRS[core].load(Ordering::Relaxed)))
}

/// What the core is given when it starts; `None` if there are no stacks for it.
pub fn handover(core: usize) -> Option<Handover> {
    let stacks = STACKS.get().filter(|stacks| core < stacks.cores())?;
    Some(Handover {
        exception_stack_top: stacks.exception_stack(core).end,
        stack_top: stacks.stack(core).end,
        core: core as u64,
    })
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
                word.write_volatile(boot::waiting_core as *const () as u64);
                cache::clean_and_invalidate(release_addr..release_addr + 8);
            }
        }
    }
    wake_waiting();
}

/// Whether the word of a spin table can be written while the map is the early one.
fn is_in_reach(release_addr: u64) -> bool {
    release_addr.is_multiple_of(8) && boot::is_on_early_map(release_addr)
}

/// Ends the `wfe` of the cores that wait.
fn wake_waiting() {
    // SAFETY: an event; it changes nothing.
    unsafe { asm!("dsb sy", "sev", options(nostack, preserves_flags)) };
}

/// Starts all cores that `machine` lists but this one. One that does not come up is logged and
/// left out.
pub fn start_all(machine: &Machine<'_>) {
    MIDRS[0].store(Midr::of_this_core().0, Ordering::Relaxed);
    for (cpu, core) in others(machine) {
        if let Err(reason) = start(cpu, core) {
            warn!("core {core} (MPIDR {:#x}) does not start: {reason}", cpu.mpidr);
            STATES[core].store(LEFT_OUT, Ordering::Relaxed);
        }
    }
    let deadline = time::now_us() + START_TIMEOUT_US;
    for (cpu, core) in others(machine) {
        let state = &STATES[core];
        idle::wait_until(&|| state.load(Ordering::Acquire) != OFF, Some(deadline));
        // From here on a core that comes late stays out.
        let late = state.compare_exchange(OFF, LEFT_OUT, Ordering::AcqRel, Ordering::Acquire);
        if late.is_ok() {
            warn!("core {core} (MPIDR {:#x}) did not come up within a second", cpu.mpidr);
        }
    }
    let up = (1..MAX_CORES).filter(|&core| is_up(core)).count();
    COUNT.store(1 + up, Ordering::Relaxed);
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
    let Some(handover) = handover(core) else { return Err(StartError::NoStack) };
    let handover: *const Handover = HANDOVERS[core].call_once(|| handover);
    match cpu.enable_method {
        EnableMethod::Psci => {
            // The firmware's call orders nothing: the new core must find its handover and the
            // page tables in memory.
            mmio::publish();
            // SAFETY: the core enters at `secondary_core` with a handover of its own that is never
            // written again.
            let result = unsafe {
                psci::cpu_on(cpu.mpidr, boot::secondary_core as *const () as u64, handover as u64)
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
    let state = &STATES[core];
    MIDRS[core].store(Midr::of_this_core().0, Ordering::Relaxed);
    let next = match devices::set_up_core() {
        Ok(()) => UP,
        Err(error) => {
            warn!("core {core} is left out: {error}");
            LEFT_OUT
        }
    };
    let in_time = state.compare_exchange(OFF, next, Ordering::AcqRel, Ordering::Acquire).is_ok();
    idle::wake(0);
    if in_time && next == UP {
        threads::run(core);
    }
    power::stop_core()
}
