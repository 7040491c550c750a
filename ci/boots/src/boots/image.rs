//! Checks of the kernel's image that take no boot.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use image_builder::kernel_image;
use object::{Object, ObjectSection};

use crate::check::{Check, Group, Passed, check};
use crate::disk::TINY;
use crate::files::copy_folder;
use crate::lab::{BUILDER, IMAGE, Lab};
use crate::script::say;

/// The ELF file that the image is made of.
const ELF: &str = "target/bare/aarch64-unknown-none/release/anchorite";
/// The size limit of the image: 3 MiB.
const LARGEST: usize = 3 << 20;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    vec![
        check("image-header", |_| header()),
        check("image-neon", |_| neon()),
        check("image-relocations", |_| relocations()),
        check("disk-again", disk_again),
        check("image-elsewhere", image_elsewhere).only_in(&[Group::Long, Group::Torture]).alone(),
    ]
}

/// A little-endian number of `N` bytes in the image.
fn number<const N: usize>(image: &[u8], at: usize) -> Result<u64> {
    let bytes = image.get(at..at + N).context("the image ends within its header")?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Size and header of the arm64 `Image` (Linux, Documentation/arch/arm64/booting.rst).
fn header() -> Result<Passed> {
    let image = kernel_image::read(Path::new(IMAGE))?;
    let bytes = image.len();
    ensure!(bytes <= LARGEST, "expected: at most {LARGEST} bytes\nseen: {bytes}");
    let magic = number::<4>(&image, 56)?;
    ensure!(magic == 0x644d_5241, "expected: the magic number 0x644d5241\nseen: {magic:#x}");
    let needed = number::<8>(&image, 16)?;
    ensure!(
        needed >= bytes as u64 && needed <= u64::from(u32::MAX),
        "expected: it asks for {bytes} bytes, all of the file, or more\nseen: {needed}"
    );
    let flags = number::<4>(&image, 24)?;
    ensure!(flags == 0xa, "expected: anywhere in memory, little endian: 0xa\nseen: {flags:#x}");
    Ok(Passed::with(format!("{bytes} of {LARGEST} bytes")))
}

/// Whether a word is SMULL or SMLAL on eight bytes.
///
/// Arm ARM, C7.2: "0 Q 0 01110 00 1 Rm 1 1/0 000 00 Rn Rd".
fn is_vector_product(word: u32) -> bool {
    word & 0xbfe0_bc00 == 0x0e20_8000
}

fn neon() -> Result<Passed> {
    let image = fs::read(IMAGE)?;
    let words = image.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    let products = words.filter(|word| is_vector_product(*word)).count();
    ensure!(products >= 8, "expected: 8 vector multiplications of the engine\nseen: {products}");
    Ok(Passed::with(format!("{products} vector multiplications")))
}

/// No relocation lies in the code, which is read-only.
///
/// The linker allows relocations anywhere: `core` is compiled for a fixed place and has pointers
/// among its constants. The section lists addresses in order; the first word is the lowest one.
fn relocations() -> Result<Passed> {
    let elf = fs::read(ELF).with_context(|| format!("cannot read {ELF}"))?;
    let elf = object::File::parse(&*elf)?;
    let section = |name| elf.section_by_name(name).with_context(|| format!("there is no {name}"));
    let text = section(".text")?;
    let list = section(".relr.dyn")?;
    let first = number::<8>(list.data()?, 0)?;
    let end = text.address() + text.size();
    ensure!(
        first >= end && end > 4096,
        "expected: the first relocation lies behind the code, which ends at {end:#x}\nseen: {first:#x}"
    );
    Ok(Passed::with(format!("{} words of relocations, all behind the code", list.size() / 8)))
}

/// The image builder makes the same disk again two seconds later.
///
/// FAT counts time in steps of two seconds.
fn disk_again(lab: &Lab) -> Result<Passed> {
    let make = |name: &str| -> Result<Vec<u8>> {
        let out = lab.file(name);
        let mut builder = Command::new(BUILDER);
        builder.args(["disk", "--out"]).arg(&out).arg(TINY);
        say(&mut builder, &out.with_extension("out"))?.is_content()?;
        Ok(fs::read(out)?)
    };
    let first = make("disk-first.img")?;
    thread::sleep(Duration::from_secs(2));
    same(&first, &make("disk-again.img")?)?;
    Ok(Passed::with(format!("{} bytes", first.len())))
}

/// The image is reproducible: another folder and another place of the crates give the same bytes.
fn image_elsewhere(lab: &Lab) -> Result<Passed> {
    let folder = tempfile::tempdir()?;
    let (tree, crates) = (folder.path().join("anchorite"), folder.path().join("cargo"));
    copy_folder(Path::new("."), &tree, &["./.git", "./target"])?;
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        Into::into,
    );
    std::os::unix::fs::symlink(home, &crates)?;
    let log = lab.file("image-elsewhere.out");
    let mut build = Command::new("ci/toolchain.sh");
    build
        .args(["bare", "build", "-p", "kernel", "--bin", "anchorite", "--release"])
        .current_dir(&tree)
        .env("CARGO_HOME", &crates);
    say(&mut build, &log)?.is_content()?;
    let image = folder.path().join("anchorite.img");
    let mut builder = Command::new(BUILDER);
    builder.args(["kernel", "--elf"]).arg(tree.join(ELF)).arg("--out").arg(&image);
    say(&mut builder, &log)?.is_content()?;
    same(&fs::read(IMAGE)?, &fs::read(image)?)?;
    Ok(Passed::default())
}

fn same(one: &[u8], other: &[u8]) -> Result<()> {
    let place = one.iter().zip(other).position(|(a, b)| a != b);
    ensure!(
        one == other,
        "expected: {} bytes, the same\nseen: {}, the first other one at {place:?}",
        one.len(),
        other.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_products_are_told_from_others() {
        // smull v0.8h, v1.8b, v2.8b; smlal2 v3.8h, v4.16b, v5.16b.
        assert!(is_vector_product(0x0e22_c020));
        assert!(is_vector_product(0x4e25_8083));
        // smull on four halfwords; umull; add on vectors; ret.
        for other in [0x0e62_c020, 0x2e22_c020, 0x0e22_8420, 0xd65f_03c0] {
            assert!(!is_vector_product(other), "{other:#x}");
        }
    }
}
