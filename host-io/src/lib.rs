//! What the commands on the host share: how they print, and which files they write.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod console;
pub mod files;
