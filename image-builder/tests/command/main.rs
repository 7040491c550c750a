//! The command, run as a user runs it.

mod common;
mod disk;
mod kernel;
mod quantize;
