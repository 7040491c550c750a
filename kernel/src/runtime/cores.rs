//! The cores: their numbers and how the other ones are started.
//!
//! The boot core is number 0; the others follow in the order of the device tree.

use core::arch::asm;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use log::warn;
use spin::Once;

use super::boot::{self, Handover};
use super::machine::{self, Cpu, EnableMethod, Machine};
use super::psci::PsciError;
use super::stacks::Stacks;
use super::{devices, idle, mmio, power, psci, threads, time};

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

/// Cores numbered so far that are up: the boot core is.
static COUNT: AtomicUsize = AtomicUsize::new(1);

static HANDOVERS: [Once<Handover>; MAX_CORES] = [const { Once::new() }; MAX_CORES];

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

/// What the core is given when it starts; `None` if there are no stacks for it.
pub fn handover(core: usize) -> Option<Handover> {
    let stacks = STACKS.get().filter(|stacks| core < stacks.cores())?;
    Some(Handover {
        exception_stack_top: stacks.exception_stack(core).end,
        stack_top: stacks.stack(core).end,
        core: core as u64,
    })
}

/// Starts all cores that `machine` lists but this one. One that does not come up is logged and
/// left out.
pub fn start_all(machine: &Machine<'_>) {
    let me = mpidr();
    let others = || machine.cpus.iter().filter(|cpu| cpu.mpidr != me).zip(1..MAX_CORES);
    for (cpu, core) in others() {
        if let Err(reason) = start(cpu, core) {
            warn!("core {core} (MPIDR {:#x}) does not start: {reason}", cpu.mpidr);
            STATES[core].store(LEFT_OUT, Ordering::Relaxed);
        }
    }
    let deadline = time::now_us() + START_TIMEOUT_US;
    for (cpu, core) in others() {
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
    SpinTable,
    UnknownMethod,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoStack => f.write_str("it has no stack"),
            StartError::Firmware(error) => error.fmt(f),
            StartError::SpinTable => f.write_str("spin tables are not supported"),
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
        EnableMethod::SpinTable { .. } => Err(StartError::SpinTable),
        EnableMethod::Unknown => Err(StartError::UnknownMethod),
    }
}

/// What a core does from its start on: run threads.
pub fn run(core: usize) -> ! {
    let state = &STATES[core];
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
