//! What the runtime reports to the application beyond the Hermit ABI.
#![forbid(unsafe_code)]

use alloc::string::String;
use alloc::vec::Vec;

use crate::runtime::arch::time;
use crate::runtime::dev::videocore;
use crate::runtime::mem::heap;
use crate::runtime::{fs, net};
use crate::system::{DiskFailure, Memory, Network, NetworkConfig, NetworkError, System};

/// This runtime, as a [`System`].
pub struct Runtime;

impl System for Runtime {
    fn memory(&self) -> Memory {
        heap::memory()
    }

    fn board(&self) -> Vec<String> {
        videocore::health_facts()
    }

    fn disk_failure(&self) -> Option<DiskFailure> {
        fs::failure()
    }

    fn configure_network(&self, config: &NetworkConfig) -> Result<(), NetworkError> {
        if !net::has_card() {
            net::card::attach();
        }
        net::configure(config, time::now_us())
    }

    fn network(&self) -> Option<Network> {
        net::network()
    }
}
