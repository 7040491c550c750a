//! Buses: virtio devices of all types, over MMIO and on PCI.
//!
//! [`scan::Bus`] finds the transports of a machine. The owner of a driver takes the transports of
//! the driver's type.

#[cfg(test)]
pub mod fake;
pub mod lending;
pub mod pci;
pub mod virtio;

#[cfg(target_os = "none")]
pub mod scan;
