//! The Hermit ABI: the functions of `hermit-abi` 0.5 that the application calls.
//!
//! The layer is thin. [`lent`] checks the memory that a caller passes. `convert` converts the types
//! of the lower layers to those of the ABI. `files`, `sockets` and `calls` contain the exported functions.
//!
//! Signatures, flags and error numbers are those of `hermit-abi`. Where that crate leaves something
//! open, Hermit's kernel decides. A call that fails returns a negative error number.
//! [`crate::system`] contains what the ABI has no call for.

pub mod lent;

#[cfg(any(target_os = "none", test))]
mod convert;
#[cfg(any(target_os = "none", test))]
mod files;
#[cfg(any(target_os = "none", test))]
mod sockets;

#[cfg(target_os = "none")]
mod calls;
#[cfg(target_os = "none")]
mod hermit;
#[cfg(target_os = "none")]
pub mod system;
