//! The runtime.

pub mod machine;
