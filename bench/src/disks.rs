//! The disks with models, made again for each build of the programs.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use host_io::console;
use host_io::files::Target;
use sha2::{Digest, Sha256};

use crate::guest::{Build, wait};
use crate::model::Model;
use crate::shape::ShapeName;

/// The prefix of the folders that hold models and disks.
const MADE: &str = "made-";

/// Returns the disk with the model of this shape alone, and makes it if needed.
///
/// # Errors
/// The disk cannot be made.
pub fn disk(build: &Build, name: ShapeName) -> Result<PathBuf> {
    let model = model(build, name)?;
    if !model.exists() {
        write_model(&model, name).with_context(|| format!("cannot write {}", model.display()))?;
    }
    let disk = model.with_extension("img");
    if !disk.exists() {
        let mut command = Command::new(build.image_builder());
        command.arg("disk").arg("--out").arg(&disk).arg(&model);
        wait(&format!("making {}", disk.display()), &mut command)?;
    }
    Ok(disk)
}

/// The path of the model of this shape, which may not exist yet.
///
/// # Errors
/// The model's folder cannot be made.
pub fn model(build: &Build, name: ShapeName) -> Result<PathBuf> {
    let this_program = std::env::current_exe().context("cannot find the path of this program")?;
    let folder = folder(&build.bench(), &[&this_program, &build.image_builder()])?;
    Ok(folder.join(format!("{}.gguf", name.name())))
}

/// The folder in `bench` for the files of these programs.
///
/// The files of other programs, such as older builds, are removed.
fn folder(bench: &Path, programs: &[&Path]) -> Result<PathBuf> {
    let mut hasher = Sha256::new();
    for program in programs {
        let bytes = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    }
    let digest = hasher.finalize();
    let digits: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = bench.join(format!("{MADE}{digits}"));
    if !folder.exists() {
        for entry in fs::read_dir(bench).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(MADE) {
                fs::remove_dir_all(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(folder)
}

/// The size of this shape's model, in bytes.
pub fn model_bytes(name: ShapeName) -> u64 {
    Model::new(name.title(), &name.shape()).bytes()
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_other_programs_made_is_not_taken_whatever_their_size_and_time() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let bench = path("bench");
        let time = std::time::SystemTime::now();
        let program = |name: &str, text: &str| {
            fs::write(path(name), text).unwrap();
            File::options().write(true).open(path(name)).unwrap().set_modified(time).unwrap();
        };
        let made_by = || folder(&bench, &[&path("one"), &path("two")]).unwrap();
        program("one", "a");
        program("two", "bc");
        let first = made_by();
        fs::write(first.join("tiny.gguf"), "made").unwrap();
        assert_eq!(made_by(), first);
        assert!(first.join("tiny.gguf").exists());
        program("two", "bd");
        let second = made_by();
        assert!(second != first && second.exists() && !first.exists());
        program("one", "ab");
        program("two", "d");
        assert_ne!(made_by(), second);
    }
}
