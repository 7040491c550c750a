//! Models made from `tiny.gguf` for single boots.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_builder::contents::ContentOptions;
use kernel::llm::gguf::write::{self, Description, scalar};
use kernel::llm::gguf::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, Gguf, ValueType};

use crate::disk::{Disk, TINY};
use crate::lab::Lab;

/// The context length in the header of [`long`].
pub const LONG: u32 = 65536;

/// The model with a context length of [`LONG`].
pub fn long() -> Disk {
    Disk::of("long", |lab| Ok(ContentOptions::new(vec![long_file(lab)?])))
}

/// Its file.
pub fn long_file(lab: &Lab) -> Result<PathBuf> {
    let length = number(LONG);
    lab.made("long.gguf", |out| anew(out, DEFAULT_ALIGNMENT, &[("llama.context_length", &length)]))
}

/// The largest file that FAT32 can hold: the model with its tensors 64 MiB apart, and zeros.
///
/// The zeros take no room on the host's disk.
pub fn largest() -> Disk {
    Disk::of_made("largest", |out| {
        let alignment = 64 << 20;
        anew(out, alignment, &[(ALIGNMENT_KEY, &number(alignment))])?;
        Ok(File::options().write(true).open(out)?.set_len(u32::MAX.into())?)
    })
}

/// The model with a chat template that has a place for tools.
pub fn with_tools() -> Disk {
    Disk::of("with-tools", |lab| Ok(ContentOptions::new(vec![with_tools_file(lab)?])))
}

/// The same model, and beside it the one without a chat template.
pub fn with_and_without_tools() -> Disk {
    Disk::of("with-and-without-tools", |lab| {
        Ok(ContentOptions::new(vec![with_tools_file(lab)?, TINY.into()]))
    })
}

fn with_tools_file(lab: &Lab) -> Result<PathBuf> {
    lab.made("with-tools.gguf", |out| {
        let mut text = Vec::new();
        write::put_string(&mut text, &fs::read("test_models/tools/qwen.jinja")?);
        let template = scalar(ValueType::String, &text);
        // The tools take hundreds of tokens of the tiny model's vocabulary.
        let length = number(2048);
        let values =
            [("tokenizer.chat_template", &template[..]), ("llama.context_length", &length)];
        anew(out, DEFAULT_ALIGNMENT, &values)
    })
}

fn number(value: u32) -> Vec<u8> {
    scalar(ValueType::U32, &value.to_le_bytes())
}

/// Writes the model to `out` with another alignment of its tensors and other values for some keys.
///
/// The file has holes between the tensors.
fn anew(out: &Path, alignment: u32, values: &[(&str, &[u8])]) -> Result<()> {
    let bytes = fs::read(TINY)?;
    let gguf = Gguf::parse(&bytes).map_err(|error| anyhow::anyhow!("{TINY}: {error}"))?;
    let is_kept = |name: &str| values.iter().all(|(key, _)| *key != name);
    let mut entries: Vec<_> = gguf.raw_metadata().filter(|(name, _)| is_kept(name)).collect();
    entries.extend_from_slice(values);
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
