//! The runtime.

pub mod machine;
pub mod mmio;
