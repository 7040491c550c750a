//! Checks of flattened device trees (Devicetree Specification 0.4, chapter 5).

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use kernel::runtime::machine::Machine;

/// The place of the tree's total size in the header, 32-bit big endian.
const TOTAL_SIZE: Range<usize> = 4..8;

/// Reads the device tree at `path`, and checks it.
///
/// # Errors
/// The tree cannot be read, is incomplete, or is for a machine whose name does not start with
/// `machine`.
pub fn read(path: &Path, machine: &str) -> Result<Vec<u8>> {
    let shown = path.display();
    let mut bytes = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let size = total_size(&bytes)
        .with_context(|| format!("{shown} is no device tree: it does not start with d00dfeed"))?;
    ensure!(size <= bytes.len(), "{shown} is cut short: fetch it again");
    bytes.truncate(size);
    let names = compatible(&bytes).with_context(|| format!("{shown} is damaged"))?;
    ensure!(
        names.iter().any(|name| name.starts_with(machine)),
        "{shown} is for another machine: {}, not {machine}…",
        names.join(", ")
    );
    Ok(bytes)
}

/// The size in the tree's header; `None` if there is no such header.
pub fn total_size(bytes: &[u8]) -> Option<usize> {
    bytes.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]).then_some(())?;
    let size = bytes.get(TOTAL_SIZE)?.first_chunk()?;
    usize::try_from(u32::from_be_bytes(*size)).ok()
}

/// The names of the tree's machine, the most specific one first.
pub fn compatible(tree: &[u8]) -> Result<Vec<String>> {
    let names = Machine::names_in(tree).map_err(|e| anyhow!("{e}"))?;
    Ok(names.map(str::to_owned).collect())
}

/// Whether overlays apply to a tree that [`read`] has checked.
///
/// An overlay names nodes of the tree by labels. `dtc -@` keeps the labels in `/__symbols__`.
pub fn has_labels(tree: &[u8]) -> bool {
    Fdt::new_unchecked(tree).root().child("__symbols__").is_some()
}

/// Grows the tree to `size` bytes, with unused bytes at its end.
pub fn grow(tree: &mut Vec<u8>, size: usize) {
    assert!(size >= tree.len(), "a tree of {} bytes does not shrink to {size}", tree.len());
    tree.resize(size, 0);
    tree[TOTAL_SIZE].copy_from_slice(&(size as u32).to_be_bytes());
}
