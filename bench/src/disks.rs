//! The models on their disks, made when they are missing or older than what makes them.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use host_io::console;
use host_io::files::Target;

use crate::guest::{House, wait};
use crate::model::Model;
use crate::shape::ShapeName;

/// The disk with the model of this shape, and nothing else.
///
/// # Errors
/// It cannot be made.
pub fn disk(house: &House, name: ShapeName) -> Result<PathBuf> {
    let folder = house.bench();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let model = folder.join(format!("{}.gguf", name.name()));
    let this_program = std::env::current_exe().context("where is this program?")?;
    if is_older(&model, &this_program) {
        write_model(&model, name)?;
    }
    let disk = folder.join(format!("{}.img", name.name()));
    if is_older(&disk, &model) || is_older(&disk, &house.image_builder()) {
        let mut command = Command::new(house.image_builder());
        command.arg("disk").arg("--out").arg(&disk).arg(&model);
        wait(&format!("making {}", disk.display()), &mut command)?;
    }
    Ok(disk)
}

/// Size of the model of this shape in bytes.
pub fn model_bytes(name: ShapeName) -> u64 {
    Model::new(name.title(), &name.shape()).bytes()
}

/// Whether `file` is missing or older than `than`.
fn is_older(file: &Path, than: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    match (changed(file), changed(than)) {
        (Ok(file), Ok(than)) => file < than,
        _ => true,
    }
}

fn write_model(path: &Path, name: ShapeName) -> Result<()> {
    let model = Model::new(name.title(), &name.shape());
    let megabytes = model.bytes() as f64 / 1e6;
    console::say(format_args!("writing {}: {megabytes:.1} MB", path.display()));
    Target::new(path, &[])?.write(|file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        model.write(&mut out)?;
        Ok(out.flush()?)
    })
}
