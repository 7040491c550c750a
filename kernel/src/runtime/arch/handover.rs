//! The data that `boot.s` and Rust exchange when a core starts.

use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU64;

use super::this_core::MAX_CORES;

/// The data for a core that starts; `boot.s` reads the fields at these offsets.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Handover {
    /// Top of the exception stack.
    pub exception_stack_top: u64,
    /// Top of the stack.
    pub stack_top: u64,
    /// Number of the core.
    pub core: u64,
}

/// The place where a core from a spin table waits in `boot.s`.
///
/// The MMU and the caches of such a core are off.
#[repr(C)]
pub struct Waiting {
    /// The affinity fields of the core's `MPIDR_EL1`; all ones in a free place.
    pub mpidr: AtomicU64,
    /// The address of the core's [`Handover`]; 0 as long as the core is to wait.
    pub handover: AtomicU64,
}

/// One place for each core from a spin table; the boot core's place stays free.
pub static WAITING: [Waiting; MAX_CORES] =
    [const { Waiting { mpidr: AtomicU64::new(u64::MAX), handover: AtomicU64::new(0) } }; MAX_CORES];

unsafe extern "C" {
    /// Entry of a core that firmware starts; x0 is the address of its [`Handover`].
    pub fn secondary_core() -> !;
    /// Entry of a core from a spin table.
    ///
    /// The core waits there for its [`Handover`] in [`WAITING`].
    pub fn waiting_core() -> !;
    fn move_to_stacks(handover: &Handover, run: extern "C" fn() -> !) -> !;
}

/// Switches from the early stacks to those of `handover`, and calls `run` there.
///
/// # Safety
/// The stacks are mapped, and nobody else uses them.
pub unsafe fn move_to(handover: &Handover, run: extern "C" fn() -> !) -> ! {
    // SAFETY: upheld by the caller. Nothing on the old stack is used again.
    unsafe { move_to_stacks(handover, run) }
}

/// Memory that only `boot.s`, `vectors.s` or the processor access.
#[repr(C, align(4096))]
pub struct Raw<T>(UnsafeCell<T>);

impl<T> Raw<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Raw(UnsafeCell::new(value))
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.0.get() as u64
    }
}

// SAFETY: Rust never makes a reference to the value inside.
unsafe impl<T> Sync for Raw<T> {}
