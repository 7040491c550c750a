//! One core by itself: its registers, its clock, its caches, and locks that spin.
//!
//! Knows no memory map and no device.

pub mod esr;
pub mod lock;
pub mod time;

#[cfg(target_os = "none")]
pub mod cache;
#[cfg(target_os = "none")]
pub mod handover;
#[cfg(target_os = "none")]
pub mod this_core;
