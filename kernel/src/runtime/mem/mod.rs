//! Memory: free ranges, page tables, stacks, the heap, protected pages.
//!
//! This layer knows no device.

pub mod apple_memory;
pub mod mmu;
pub mod ranges;
pub mod stacks;

#[cfg(target_os = "none")]
pub mod core_stacks;
#[cfg(target_os = "none")]
pub mod early;
#[cfg(target_os = "none")]
pub mod heap;
#[cfg(target_os = "none")]
pub mod image;
#[cfg(target_os = "none")]
pub mod pages;
