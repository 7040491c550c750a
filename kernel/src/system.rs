//! What the runtime and the application tell each other beyond the Hermit ABI.
//!
//! Hermit's ABI has no word for how much memory is free, for what a board measures of itself, or for
//! why a disk failed. Here these are Rust types: the runtime implements [`System`], the binary has one
//! static [`Application`].

use alloc::string::String;
use alloc::vec::Vec;

use spin::Once;

/// How much memory the machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM that the device tree lists, in bytes.
    pub total_bytes: u64,
    /// What nobody uses, in bytes, fragments and all.
    pub free_bytes: u64,
}

/// Why the disk could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFailure {
    /// The device, and what happened.
    pub message: String,
    /// What to do about it, where no volume could be mounted.
    pub hint: Option<String>,
}

/// What the runtime tells the application.
pub trait System: Sync {
    /// How much memory there is now.
    fn memory(&self) -> Memory;

    /// What the board says of itself now, `NAME=VALUE` each.
    fn board(&self) -> Vec<String>;

    /// The last failure of the disk, if there was one.
    fn disk_failure(&self) -> Option<DiskFailure>;
}

/// What the application tells the runtime.
#[derive(Debug)]
pub struct Application {
    /// Which kernels it has for this processor, for `hello`.
    pub kernels: fn() -> &'static str,
    /// Whether it wants the machine restarted when it exits.
    pub reboots: fn() -> bool,
}

static SYSTEM: Once<&'static dyn System> = Once::new();

/// Makes `system` the one that [`get`] gives; the first one stays.
pub fn install(system: &'static dyn System) {
    SYSTEM.call_once(|| system);
}

/// The system below the application; `None` before it is installed.
pub fn get() -> Option<&'static dyn System> {
    SYSTEM.get().copied()
}

#[cfg(target_os = "none")]
unsafe extern "Rust" {
    /// The application that is linked with the runtime.
    pub safe static APPLICATION: Application;
}
