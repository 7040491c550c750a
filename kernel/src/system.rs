//! What the runtime and the application exchange beyond the Hermit ABI.
//!
//! Hermit's ABI has no call for the free memory, for a board's own readings, or for the reason why
//! a disk failed. Nor does it choose the network's addresses. Here these are Rust types. The runtime implements [`System`], and the binary has
//! one static [`Application`].

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use spin::Once;

/// The memory of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM that the device tree lists, in bytes.
    pub total_bytes: u64,
    /// Memory that nobody uses, in bytes, fragments included.
    pub free_bytes: u64,
}

/// The reason why the disk could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFailure {
    /// The device, and what happened.
    pub message: String,
    /// A remedy, where no volume could be mounted.
    pub hint: Option<String>,
}

/// The choice of the network's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Fixed addresses with the lengths of their prefixes.
    ///
    /// Without a fixed address, DHCP and router advertisements give addresses and gateways.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Gateways of fixed addresses, one of IPv4 and one of IPv6 at most.
    pub gateways: Vec<IpAddr>,
}

/// The reason why the network cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// The machine has no network card.
    NoCard,
    /// The card is no Ethernet card, or its address is not one of a single machine.
    Card,
    /// The network has started already.
    Started,
    /// No machine can have this address, or there are too many addresses.
    Address(IpAddr),
    /// No address reaches this gateway, or it is a second one of its kind.
    Gateway(IpAddr),
    /// The card's MTU is too small, in bytes.
    Mtu(usize),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::NoCard => f.write_str("the machine has no network card"),
            NetworkError::Card => f.write_str("the network card has no usable Ethernet address"),
            NetworkError::Started => f.write_str("the network has started already"),
            NetworkError::Address(address) => {
                write!(f, "{address} is no address for one machine, or one too many")
            }
            NetworkError::Gateway(gateway) => {
                write!(f, "the gateway {gateway} is in the prefix of no address, or one too many")
            }
            NetworkError::Mtu(mtu) => write!(f, "the network card's MTU is only {mtu} bytes"),
        }
    }
}

impl core::error::Error for NetworkError {}

/// The network card and its present addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Name of the kind of card.
    pub name: String,
    /// The Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// The addresses that others reach the machine by, with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The gateways of IPv4 and IPv6.
    pub gateways: Vec<IpAddr>,
}

/// What the runtime reports to the application.
pub trait System: Sync {
    /// The memory at present.
    fn memory(&self) -> Memory;

    /// The board's present readings, `NAME=VALUE` each.
    fn board(&self) -> Vec<String>;

    /// The last failure of the disk, if there was one.
    fn disk_failure(&self) -> Option<DiskFailure>;

    /// Starts the network.
    ///
    /// # Errors
    /// See [`NetworkError`].
    fn configure_network(&self, config: &NetworkConfig) -> Result<(), NetworkError>;

    /// The network; `None` before its start.
    ///
    /// Addresses appear and change while sockets are polled.
    fn network(&self) -> Option<Network>;
}

/// What the application reports to the runtime.
#[derive(Debug)]
pub struct Application {
    /// The kernels for this processor, for the `hello` event.
    pub kernels: fn() -> &'static str,
    /// Whether the application wants the machine restarted when it exits.
    pub reboots: fn() -> bool,
}

static SYSTEM: Once<&'static dyn System> = Once::new();

/// Installs the system that [`get`] returns; the first one stays.
pub fn install(system: &'static dyn System) {
    SYSTEM.call_once(|| system);
}

/// The system below the application; `None` before [`install`].
pub fn get() -> Option<&'static dyn System> {
    SYSTEM.get().copied()
}

#[cfg(target_os = "none")]
unsafe extern "Rust" {
    /// The application that is linked with the runtime.
    pub safe static APPLICATION: Application;
}
