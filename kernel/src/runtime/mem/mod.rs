//! Memory: what is free, the page tables, the cores' stacks, the heap, pages that can be protected.
//!
//! Knows no device.

pub mod apple_memory;
pub mod mmu;
pub mod ranges;
pub mod stacks;

#[cfg(target_os = "none")]
pub mod early;
#[cfg(target_os = "none")]
pub mod heap;
#[cfg(target_os = "none")]
pub mod image;
#[cfg(target_os = "none")]
pub mod pages;
