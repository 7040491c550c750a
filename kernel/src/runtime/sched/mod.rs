//! What cores do: idle, start, run threads, wait for each other, stop.

pub mod first_core;
pub mod futex;
pub mod sleep_lock;

#[cfg(target_os = "none")]
pub mod cores;
#[cfg(target_os = "none")]
pub mod ending;
#[cfg(target_os = "none")]
pub mod idle;
#[cfg(target_os = "none")]
pub mod smp;
#[cfg(target_os = "none")]
pub mod threads;
