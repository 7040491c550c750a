//! What `boot.s` and Rust pass each other when a core starts.

use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU64;

use super::this_core::MAX_CORES;

/// What a core finds when it is started: `boot.s` reads it at these offsets.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Handover {
    /// Top of the stack for exceptions.
    pub exception_stack_top: u64,
    /// Top of the stack.
    pub stack_top: u64,
    /// Number of the core.
    pub core: u64,
}

/// What a core from a spin table waits for in `boot.s`, with MMU and caches off.
#[repr(C)]
pub struct Waiting {
    /// The affinity fields of its `MPIDR_EL1`; all ones if the place is free.
    pub mpidr: AtomicU64,
    /// The address of its [`Handover`]; 0 as long as it is to wait.
    pub handover: AtomicU64,
}

/// One place for each core from a spin table; the boot core's stays free.
pub static WAITING: [Waiting; MAX_CORES] =
    [const { Waiting { mpidr: AtomicU64::new(u64::MAX), handover: AtomicU64::new(0) } }; MAX_CORES];

unsafe extern "C" {
    /// Where a core that firmware starts enters; x0 is the address of its [`Handover`].
    pub fn secondary_core() -> !;
    /// Where a core from a spin table enters, to wait for its [`Handover`] in [`WAITING`].
    pub fn waiting_core() -> !;
}

/// Memory that only `boot.s`, `vectors.s` or the processor touch.
#[repr(C, align(4096))]
pub struct Raw<T>(UnsafeCell<T>);

impl<T> Raw<T> {
    /// Holds `value`.
    pub const fn new(value: T) -> Self {
        Raw(UnsafeCell::new(value))
    }

    /// The address of its first byte.
    pub fn address(&self) -> u64 {
        self.0.get() as u64
    }
}

// SAFETY: Rust never makes a reference to what is inside.
unsafe impl<T> Sync for Raw<T> {}
