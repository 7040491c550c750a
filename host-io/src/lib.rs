//! Shared input and output of the host's commands: printing, output files, and HTTP.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod console;
pub mod files;
pub mod http;
