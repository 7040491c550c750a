//! Models that are made for a boot out of `tiny.gguf`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_builder::contents::ContentOptions;
use kernel::llm::gguf::write::{self, Description, scalar};
use kernel::llm::gguf::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, Gguf, ValueType};

use crate::disk::{Disk, TINY};
use crate::lab::Lab;

/// The positions that [`long`] says it has.
pub const LONG: u32 = 65536;

/// The model, said to have [`LONG`] positions.
pub fn long() -> Disk {
    Disk::of("long", |lab| Ok(ContentOptions::new(vec![long_file(lab)?])))
}

/// Its file.
pub fn long_file(lab: &Lab) -> Result<PathBuf> {
    lab.made("long.gguf", |out| anew(out, DEFAULT_ALIGNMENT, ("llama.context_length", LONG)))
}

/// The largest file that FAT32 can hold: the model with its tensors 64 MiB apart and zeros behind them,
/// which take no room on the host's disk.
pub fn largest() -> Disk {
    Disk::of_made("largest", |out| {
        let alignment = 64 << 20;
        anew(out, alignment, (ALIGNMENT_KEY, alignment))?;
        Ok(File::options().write(true).open(out)?.set_len(u32::MAX.into())?)
    })
}

/// Writes the model anew to `out`, with its tensors at multiples of `alignment` and this value for that
/// key. What is between tensors is a hole in the file.
fn anew(out: &Path, alignment: u32, (key, value): (&str, u32)) -> Result<()> {
    let bytes = fs::read(TINY)?;
    let gguf = Gguf::parse(&bytes).map_err(|error| anyhow::anyhow!("{TINY}: {error}"))?;
    let value = scalar(ValueType::U32, &value.to_le_bytes());
    let mut entries: Vec<_> = gguf.raw_metadata().filter(|(name, _)| *name != key).collect();
    entries.push((key, &value));
    let tensors = gguf.tensors().iter().map(|tensor| Description {
        name: tensor.name,
        dims: &tensor.dims[..tensor.n_dims],
        kind: tensor.kind,
        size: tensor.size,
    });
    let header = write::header(gguf.version(), &entries, tensors, alignment);
    let file = File::create(out)?;
    file.write_all_at(&header, 0)?;
    let mut at = header.len() as u64;
    for tensor in gguf.tensors() {
        at = at.next_multiple_of(alignment.into());
        let data = gguf.data(tensor).context("the file is all in memory")?;
        file.write_all_at(data, at)?;
        at += tensor.size;
    }
    Ok(())
}
