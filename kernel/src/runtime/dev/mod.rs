//! Drivers, the buses that lead to devices, and the devices of this machine.
//!
//! A driver takes registers ([`mmio::Registers`]) and a clock. The boot core sets up the devices of
//! this machine, once. Nothing here sleeps.

pub mod apple_watchdog;
pub mod block;
pub mod bus;
pub mod console;
pub mod cpufreq;
pub mod entropy;
pub mod facts;
pub mod header;
pub mod irq;
pub mod mailbox;
pub mod mmio;
pub mod net;
pub mod power_manager;
pub mod psci;
pub mod rtc;
pub mod wake;

#[cfg(target_os = "none")]
pub mod devices;
#[cfg(target_os = "none")]
pub mod videocore;
