//! The harness: boots Anchorite in QEMU, shows the serial line and judges the run.
//!
//! The order of work: [`cli`] turns arguments into a plan, and [`command`] turns the plan's machine
//! into QEMU's command line. [`mod@run`] starts QEMU and decodes the serial line with [`serial`].
//! [`mod@judge`] makes the verdict, and [`report`] writes the report.

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
