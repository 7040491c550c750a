//! How a run ends: panics and exceptions with their backtraces, power off, restart.

pub mod symbols;
pub mod text;

#[cfg(target_os = "none")]
mod backtrace;
#[cfg(target_os = "none")]
mod exceptions;
#[cfg(target_os = "none")]
pub mod fault;
#[cfg(target_os = "none")]
pub mod power;
