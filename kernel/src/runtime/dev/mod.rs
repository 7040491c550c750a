//! Drivers, the buses that lead to devices, and the devices that this machine has.
//!
//! A driver takes registers ([`mmio::Registers`]) and a clock; the devices of this machine are
//! set up once, by the boot core. Nothing here sleeps.

pub mod apple_watchdog;
pub mod block;
pub mod bus;
pub mod console;
pub mod cpufreq;
pub mod facts;
pub mod header;
pub mod irq;
pub mod mailbox;
pub mod mmio;
pub mod power_manager;
pub mod psci;
pub mod wake;

#[cfg(target_os = "none")]
pub mod devices;
#[cfg(target_os = "none")]
pub mod videocore;
