//! Makes what Anchorite boots from: the library behind the command `image-builder`.
//!
//! `ci/boots` lays out and reads FAT volumes with this library, and reads images of the kernel.
//! [`main`] is the command. Exit status: 0 all well, 1 failure, 2 wrong usage.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod board_report;
mod bootargs;
mod cached;
mod chat;
pub mod checksum;
pub mod contents;
mod device;
mod device_tree;
pub mod disk;
pub mod fat;
mod firmware;
mod inspect;
pub mod kernel_image;
mod m1n1;
mod mbr;
mod model;
mod progress;
mod quantize;
mod sd;
mod size;
mod symbols;
pub mod volume;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use host_io::console;

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the bootable arm64 Image from the kernel's ELF file
    Kernel {
        /// The ELF file that cargo built for the bare target
        #[arg(long)]
        elf: PathBuf,
        /// The Image to write
        #[arg(long)]
        out: PathBuf,
    },
    /// Makes a disk with models, their checksums and the configuration
    Disk(disk::Options),
    /// Makes a disk in a folder, unless that has the same one; prints its path last
    Cached(cached::Options),
    /// Makes an SD card that a board boots from: firmware, kernel, models and the configuration
    Sd(sd::Options),
    /// Makes what m1n1 boots on an Apple M1: m1n1, device trees, kernel, models and the configuration
    M1n1(m1n1::Options),
    /// Makes a model smaller: its weights in fewer bits, as llama.cpp's quantiser makes them
    Quantize(quantize::Options),
    /// Lists what is inside a disk image, a model or an image of the kernel
    Inspect(inspect::Options),
    /// Makes a report to paste of a board's serial log, with the questions about the board that it settles
    Report(board_report::Options),
}

/// Runs the command that the arguments of this process name.
pub fn main() -> ExitCode {
    let cli: Cli = match console::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let result = match cli.command {
        Command::Kernel { elf, out } => kernel_image::build(&elf, &out),
        Command::Disk(options) => disk::build(&options),
        Command::Cached(options) => cached::build(&options),
        Command::Sd(options) => sd::build(&options),
        Command::M1n1(options) => m1n1::build(&options),
        Command::Quantize(options) => quantize::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Report(options) => board_report::run(&options),
    };
    if let Err(e) = &result {
        say(&format!("{e:#}"));
    }
    console::status(result.is_err().into())
}

/// Says something on standard error. It may hold names and texts of a model, which must not drive
/// the terminal.
fn say(message: &str) {
    console::say(format_args!("image-builder: {}", kernel::report::printable(message)));
}
