//! One core by itself: its registers, clock, caches and spin locks.
//!
//! This layer knows no memory map and no device.

pub mod esr;
pub mod lock;
pub mod time;

#[cfg(target_os = "none")]
pub mod cache;
#[cfg(target_os = "none")]
pub mod handover;
#[cfg(target_os = "none")]
pub mod this_core;
