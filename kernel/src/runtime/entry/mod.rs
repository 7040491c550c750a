//! From the first instruction to the application.

pub mod args;

#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod start;
