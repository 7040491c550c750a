//! `image-builder m1n1`: makes one file with all that m1n1 boots on an Apple M1.
//!
//! m1n1 (Asahi Linux's boot loader) looks for payloads behind its own code, one after the other.
//! Source: m1n1, README.md ("Payloads") and src/payload.c. The file holds, in this order:
//!
//! | | |
//! |---|---|
//! | m1n1.bin | as it is |
//! | the kernel | gzip; m1n1 unpacks it to a boundary of 2 MiB |
//! | `chosen.bootargs=…`, newline | becomes `/chosen/bootargs` |
//! | device trees | m1n1 takes the one for the machine; each starts at a multiple of 8 bytes |
//! | `m1n1_initramfs`, length (32-bit little endian), volume | becomes `/chosen/linux,initrd-*` |
//! | four zero bytes | the end |
//!
//! The volume starts at a multiple of 16 KiB, the size of a page. m1n1 is loaded to such a multiple
//! too. So an alignment in the file holds in memory. Blanks behind the boot arguments
//! and unused bytes at the trees' ends fill the gaps.

mod payloads;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use host_io::console::print_line;
use host_io::files::{Output, Target};

use crate::contents::{self, Contents, Written};
use crate::{bootargs, device_tree, kernel_image, size};
use payloads::Payload;

/// Command-line options of `image-builder m1n1`.
#[derive(clap::Args)]
pub struct Options {
    /// m1n1 itself, the raw binary of its build: m1n1.bin
    #[arg(long, value_name = "m1n1.bin")]
    m1n1: PathBuf,
    /// The device tree of a machine, such as t8103-j274.dtb; may be repeated
    #[arg(long, required = true, value_name = "TREE.dtb")]
    dtb: Vec<PathBuf>,
    /// The kernel's image
    #[arg(long, value_name = "IMAGE")]
    kernel: PathBuf,
    /// Settings for the kernel, as in "max_tokens=20 seed=7"; they override anchorite.toml
    #[arg(long, value_name = "TEXT", value_parser = bootargs::parse)]
    bootargs: Option<String>,
    /// The file to write
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    contents: contents::ContentOptions,
}

/// The mark of a volume in memory.
const INITRAMFS: &[u8; 14] = b"m1n1_initramfs";
/// The start of the line with boot arguments.
const BOOTARGS: &str = "chosen.bootargs=";
/// The end of the payloads.
const END: [u8; 4] = [0; 4];
/// The mark that m1n1's build puts before its version.
const VERSION_MARK: &[u8] = b"##m1n1_ver##";
/// The longest value of a variable that m1n1 reads, with its newline.
const LONGEST_VALUE: usize = 1024;
/// The alignment of device trees (Devicetree Specification 0.4, 5.6).
const TREE_ALIGNMENT: usize = 8;
/// The alignment of m1n1 and of the volume: a page of the machine.
const PAGE: usize = 16 << 10;
/// The start of the names of Apple's machines.
const MACHINE: &str = "apple,j";

/// Writes the file, and prints what is in it.
pub fn build(options: &Options) -> Result<()> {
    let mut inputs = options.contents.inputs();
    inputs.extend([options.m1n1.clone(), options.kernel.clone()]);
    inputs.extend(options.dtb.iter().cloned());
    let target = Target::new(&options.out, &inputs)?;
    let contents = Contents::open(&options.contents, Vec::new(), options.bootargs.as_deref())?;
    let layout = contents.lay_out(options.contents.size, options.contents.label, 0)?;
    let Ok(volume_bytes) = u32::try_from(layout.geometry.bytes) else {
        bail!(
            "the volume takes {}, but m1n1 hands over less than 4 GiB: take fewer or smaller models \
             (or a smaller --size)",
            size::human(layout.geometry.bytes)
        );
    };
    let parts = Parts {
        m1n1: read_m1n1(&options.m1n1)?,
        kernel: kernel_image::read(&options.kernel)?,
        bootargs: options.bootargs.clone().unwrap_or_default(),
        trees: options
            .dtb
            .iter()
            .map(|path| device_tree::read(path, MACHINE))
            .collect::<Result<_>>()?,
    };
    let head = parts.join(volume_bytes)?;
    let volume_start = head.len() as u64;
    target.write(|file| {
        file.write_all(&head)?;
        let written = contents.write(file, volume_start, &layout)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(&END)?;
        if options.contents.verify {
            verify(file, &parts, &written)?;
        }
        Ok(())
    })?;
    print_line(format_args!(
        "{}: {}, with a volume of {} ({}, clusters of {}) from byte {volume_start} on{}",
        options.out.display(),
        size::human(volume_start + u64::from(volume_bytes) + END.len() as u64),
        size::human(volume_bytes.into()),
        layout.geometry.kind,
        size::human(layout.geometry.cluster.into()),
        if options.contents.verify { ", read back and equal" } else { "" }
    ))?;
    for tree in &parts.trees {
        let names = device_tree::compatible(tree)?.join(", ");
        print_line(format_args!("    boots on {names}"))?;
    }
    contents.describe_models()
}

/// Reads m1n1 from `path`, and checks that it can be appended to.
fn read_m1n1(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let bytes = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    // Mach-O, 64-bit, little endian.
    ensure!(
        !bytes.starts_with(&[0xcf, 0xfa, 0xed, 0xfe]),
        "{shown} is m1n1 as a Mach-O file: take m1n1.bin, which the same build makes"
    );
    ensure!(
        bytes.windows(VERSION_MARK.len()).any(|part| part == VERSION_MARK),
        "{shown} is not m1n1: build m1n1.bin from the repository AsahiLinux/m1n1 (docs/boards.md)"
    );
    ensure!(
        bytes.len().is_multiple_of(PAGE),
        "{shown} is not m1n1 alone: its build ends on a whole page of 16 KiB. Take m1n1.bin without \
         payloads"
    );
    Ok(bytes)
}

/// The parts before the volume.
struct Parts {
    m1n1: Vec<u8>,
    kernel: Vec<u8>,
    bootargs: String,
    trees: Vec<Vec<u8>>,
}

impl Parts {
    /// Joins all parts, up to the first byte of a volume of `volume_bytes` bytes.
    fn join(&self, volume_bytes: u32) -> Result<Vec<u8>> {
        let mut out = self.m1n1.clone();
        let mut kernel = GzEncoder::new(out, Compression::best());
        kernel.write_all(&self.kernel)?;
        out = kernel.finish()?;

        let line = out.len() + BOOTARGS.len() + self.bootargs.len() + 1;
        let blanks = line.next_multiple_of(TREE_ALIGNMENT) - line;
        ensure!(
            self.bootargs.len() + blanks < LONGEST_VALUE,
            "m1n1 takes boot arguments of less than {} bytes: use anchorite.toml",
            LONGEST_VALUE - TREE_ALIGNMENT
        );
        let bootargs = &self.bootargs;
        out.extend(format!("{BOOTARGS}{bootargs}{:blanks$}\n", "").as_bytes());

        let header = INITRAMFS.len() + 4;
        for (i, tree) in self.trees.iter().enumerate() {
            let end = out.len() + tree.len();
            let end = match i + 1 == self.trees.len() {
                false => end.next_multiple_of(TREE_ALIGNMENT),
                true => (end + header).next_multiple_of(PAGE) - header,
            };
            let mut tree = tree.clone();
            device_tree::grow(&mut tree, end - out.len());
            out.extend(tree);
        }
        out.extend(INITRAMFS);
        out.extend(volume_bytes.to_le_bytes());
        Ok(out)
    }
}

/// Reads the file as m1n1 does, and compares the payloads with the parts.
fn verify(file: &Output, parts: &Parts, written: &[Written]) -> Result<()> {
    let mut file = file.read_back()?;
    let mut m1n1 = vec![0; parts.m1n1.len()];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut m1n1)?;
    ensure!(m1n1 == parts.m1n1, "m1n1 does not read back as it was written");

    let mut volume = None;
    let mut trees = parts.trees.iter();
    let (mut kernels, mut variables) = (0, 0);
    for (start, payload) in payloads::read(&mut file, m1n1.len() as u64)? {
        let is_right = match payload {
            Payload::Kernel(bytes) => {
                kernels += 1;
                bytes == parts.kernel
            }
            Payload::Variable(line) => {
                variables += 1;
                let value = line.strip_prefix(BOOTARGS);
                value.is_some_and(|value| value.trim_end() == parts.bootargs)
            }
            Payload::Tree(tree) => {
                let expected =
                    trees.next().context("there are more device trees than were given")?;
                let names = device_tree::compatible(&tree)?;
                start.is_multiple_of(TREE_ALIGNMENT as u64)
                    && names == device_tree::compatible(expected)?
                    // The size in the header and the unused bytes at the end differ.
                    && tree[8..expected.len()] == expected[8..]
                    && tree[expected.len()..].iter().all(|&byte| byte == 0)
            }
            Payload::Initramfs { bytes } => {
                let end = start + bytes + END.len() as u64;
                volume.replace(start).is_none()
                    && start.is_multiple_of(PAGE as u64)
                    && end == file.metadata()?.len()
            }
        };
        ensure!(is_right, "the payload at byte {start} does not read back as it was written");
    }
    ensure!(
        kernels == 1 && variables == 1 && trees.next().is_none(),
        "m1n1 would not find all of the payloads"
    );
    let volume = volume.context("m1n1 would not find the volume")?;
    contents::verify(file, volume, written)
}

#[cfg(test)]
mod tests;
