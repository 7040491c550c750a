//! Boot loaders for QEMU's `-kernel`, which hand the image over as others than QEMU may.
//!
//! Nothing in the probe runs them. `ci/boots` cuts each out of the ELF file by its symbols, and
//! writes its parameters over its last words.

core::arch::global_asm!(include_str!("loaders.s"));
