//! The command, run as a user runs it.

mod cached;
mod common;
mod disk;
mod foreign;
mod kernel;
mod m1n1;
mod outputs;
mod quantize;
mod report;
mod sd;
