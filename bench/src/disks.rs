//! The disks with models, made again for each build of the programs.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use host_io::console;
use host_io::files::Target;
use sha2::{Digest, Sha256};

use crate::guest::{Build, wait};
use crate::model::Model;
use crate::shape::{Shape, ShapeName};

/// The prefix of the folders that hold models and disks.
const MADE: &str = "made-";

/// Returns the disk with the model of this shape alone, and makes it if needed.
///
/// # Errors
/// The disk cannot be made.
pub fn disk(build: &Build, name: ShapeName) -> Result<PathBuf> {
    let model = model(build, name)?;
    if let Some(shape) = name.shape().filter(|_| !model.exists()) {
        let context = || format!("cannot write {}", model.display());
        write_model(&model, name.title(), &shape).with_context(context)?;
    }
    let disk = folder_of(build)?.join(format!("{}.img", name.name()));
    if !disk.exists() {
        let mut command = Command::new(build.image_builder());
        command.arg("disk").arg("--out").arg(&disk).arg(&model);
        wait(&format!("making {}", disk.display()), &mut command)?;
    }
    Ok(disk)
}

/// The path of the model of this shape. One of random weights may not exist yet.
///
/// # Errors
/// The model's folder cannot be made, or the model cannot be downloaded.
pub fn model(build: &Build, name: ShapeName) -> Result<PathBuf> {
    if name.shape().is_some() {
        return Ok(folder_of(build)?.join(format!("{}.gguf", name.name())));
    }
    let mut fetch = Command::new("ci/models.sh");
    let output = fetch.args(["path", name.name()]).stderr(Stdio::inherit()).output();
    let output = output.context("cannot start ci/models.sh")?;
    ensure!(output.status.success(), "ci/models.sh cannot fetch {}", name.name());
    Ok(String::from_utf8(output.stdout).context("a path of UTF-8")?.trim_end().into())
}

/// The folder for the files of this build.
fn folder_of(build: &Build) -> Result<PathBuf> {
    let this_program = std::env::current_exe().context("cannot find the path of this program")?;
    folder(&build.bench(), &[&this_program, &build.image_builder()])
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

fn write_model(path: &Path, title: &str, shape: &Shape) -> Result<()> {
    let model = Model::new(title, shape);
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
