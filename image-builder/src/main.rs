//! `image-builder`: makes what Anchorite boots from.
//!
//! Exit status: 0 all well, 1 what was asked for could not be done, 2 wrong usage.

#![forbid(unsafe_code)]

mod kernel_image;
mod output;
mod symbols;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Kernel { elf, out } => kernel_image::build(&elf, &out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("image-builder: {e:#}");
            ExitCode::FAILURE
        }
    }
}
