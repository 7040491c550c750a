//! The Hermit ABI: the functions of `hermit-abi` 0.5 that the application calls.
//!
//! A thin skin: [`lent`] checks the memory that a caller passes, `convert` turns the types of the layers
//! below into those of the ABI, `files` and `calls` are the exported functions. Signatures, flags and
//! error numbers are those of that crate; where the crate leaves something open, those of Hermit's
//! kernel. A call that fails returns a negative error number. What the ABI has no word for is in
//! [`crate::system`].

pub mod lent;

#[cfg(any(target_os = "none", test))]
mod convert;
#[cfg(any(target_os = "none", test))]
mod files;

#[cfg(target_os = "none")]
mod calls;
#[cfg(target_os = "none")]
mod hermit;
#[cfg(target_os = "none")]
pub mod system;
