//! The harness: boots Anchorite in QEMU, shows what it says and judges it.
//!
//! The way through: [`cli`] turns arguments into a plan, [`command`] the plan's machine into
//! QEMU's command line, [`mod@run`] starts it and takes the serial line apart with [`serial`],
//! [`mod@judge`] says what to think of it, [`report`] writes it down.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod child;
pub mod cli;
pub mod command;
mod input;
pub mod judge;
pub mod report;
pub mod run;
pub mod serial;
mod terminal;
