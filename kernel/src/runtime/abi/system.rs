//! What the runtime tells the application beyond the Hermit ABI.
#![forbid(unsafe_code)]

use alloc::string::String;
use alloc::vec::Vec;

use crate::runtime::dev::videocore;
use crate::runtime::fs;
use crate::runtime::mem::heap;
use crate::system::{DiskFailure, Memory, System};

/// This runtime.
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
}
