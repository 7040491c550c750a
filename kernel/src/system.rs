//! What the runtime and the application exchange beyond the Hermit ABI.
//!
//! Hermit's ABI has no call for the free memory, for a board's own readings, or for the reason why
//! a disk failed. Here these are Rust types. The runtime implements [`System`], and the binary has
//! one static [`Application`].

use alloc::string::String;
use alloc::vec::Vec;

use spin::Once;

/// The memory of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM that the device tree lists, in bytes.
    pub total_bytes: u64,
    /// Memory that nobody uses, in bytes, fragments included.
    pub free_bytes: u64,
}

/// The reason why the disk could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFailure {
    /// The device, and what happened.
    pub message: String,
    /// A remedy, where no volume could be mounted.
    pub hint: Option<String>,
}

/// What the runtime reports to the application.
pub trait System: Sync {
    /// The memory at present.
    fn memory(&self) -> Memory;

    /// The board's present readings, `NAME=VALUE` each.
    fn board(&self) -> Vec<String>;

    /// The last failure of the disk, if there was one.
    fn disk_failure(&self) -> Option<DiskFailure>;
}

/// What the application reports to the runtime.
#[derive(Debug)]
pub struct Application {
    /// The kernels for this processor, for the `hello` event.
    pub kernels: fn() -> &'static str,
    /// Whether the application wants the machine restarted when it exits.
    pub reboots: fn() -> bool,
}

static SYSTEM: Once<&'static dyn System> = Once::new();

/// Installs the system that [`get`] returns; the first one stays.
pub fn install(system: &'static dyn System) {
    SYSTEM.call_once(|| system);
}

/// The system below the application; `None` before [`install`].
pub fn get() -> Option<&'static dyn System> {
    SYSTEM.get().copied()
}

#[cfg(target_os = "none")]
unsafe extern "Rust" {
    /// The application that is linked with the runtime.
    pub safe static APPLICATION: Application;
}
