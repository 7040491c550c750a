//! Buses: how virtio devices are found, over MMIO or on PCI, whatever they are.
//!
//! [`scan::Bus`] finds the transports of a machine. Whoever has a driver takes those of its type.

pub mod pci;
pub mod virtio;

#[cfg(target_os = "none")]
pub mod scan;
