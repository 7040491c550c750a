//! The content of the kernel's disk, a FAT volume.
//!
//! The volume has models, their checksums and the configuration. A card that a board boots from
//! also has the files of the board's firmware.

mod inputs;
mod options;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use host_io::console::print_line;
use host_io::files::Output;
use kernel::model_files::{SUM_ENDING, same_name};
use kernel::runtime::entry::args;
use kernel::settings::{Config, Mode, Prompt};
use sha2::{Digest, Sha256};

use crate::checksum::Sum;
use crate::fat::{self, FileSpec, Identity, Layout, Misfit};
use crate::model::{ModelFile, why};
use crate::progress::Progress;
use crate::size;
use crate::volume::{Content, Extent, Notes, Volume};
use inputs::{Model, Text};
pub use options::{ContentOptions, Label, VolumeSize, volume_label};

/// The path of the kernel's configuration.
const CONFIG: &str = "anchorite.toml";
/// The folder of the models.
const MODELS: &str = "models";
/// The number of bytes that are copied at a time.
const CHUNK: usize = 1 << 20;

/// Whether the path `wanted` names the file `path` of the disk.
fn same_path(path: &str, wanted: &str) -> bool {
    let mut parts = Vec::new();
    for part in wanted.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    same_name(path, &parts.join("/"))
}

/// A file for the firmware, in the volume's root or in a folder there.
pub struct BootFile {
    /// The path on the volume.
    pub path: String,
    /// The content.
    pub bytes: Vec<u8>,
    /// The file that it was read from, if any.
    pub source: Option<PathBuf>,
}

impl BootFile {
    /// A file that was read from `source`.
    pub fn read(path: &str, source: PathBuf, bytes: Vec<u8>) -> BootFile {
        BootFile { path: path.into(), bytes, source: Some(source) }
    }

    /// A file that is made here.
    pub fn made(path: &str, text: String) -> BootFile {
        BootFile { path: path.into(), bytes: text.into(), source: None }
    }
}

/// The content of a disk.
pub struct Contents {
    boot_files: Vec<BootFile>,
    config: String,
    /// The kernel's settings, by the configuration and the boot arguments.
    settings: Config,
    prompt: Option<Text>,
    models: Vec<Model>,
}

/// The path of a file on the volume, and its expected content.
pub type Written = (String, Content);

impl Contents {
    /// Opens and checks what the options name.
    ///
    /// `boot_files` are further files. `bootargs` are the boot arguments that go with the disk.
    pub fn open(
        options: &ContentOptions,
        boot_files: Vec<BootFile>,
        bootargs: Option<&str>,
    ) -> Result<Contents> {
        let models = inputs::open_models(&options.models)?;
        let prompt = options.prompt_file.as_deref().map(inputs::read_prompt).transpose()?;
        if let Some(Text { name, .. }) = &prompt {
            let mut in_root = boot_files.iter().filter_map(|file| file.path.split('/').next());
            let taken = in_root.any(|there| same_name(there, name));
            ensure!(!taken, "the prompt would replace the board's {name}: rename it");
        }
        let config = inputs::read_config(options.config.as_deref(), &models, prompt.as_ref())?;
        let of_file = Config::from_toml(&config).expect("it was checked");
        let config = inputs::with_chat_template(config, &models)?;
        let mut settings = Config::from_toml(&config).expect("it was checked");
        if let Some(text) = bootargs {
            let words = args::split(text).map_err(|e| anyhow!("{e}"))?;
            settings.apply_arguments(&words).map_err(|e| anyhow!("{e} ({})", e.hint()))?;
        }
        let contents = Contents { boot_files, config, settings, prompt, models };
        contents.check_names(&of_file, options.config.as_deref())?;
        Ok(contents)
    }

    /// Checks that the files that the settings name are on the disk.
    ///
    /// `of_file` are the settings of the configuration alone: the user's at `path`, or one made
    /// here.
    fn check_names(&self, of_file: &Config, path: Option<&Path>) -> Result<()> {
        let Contents { settings, models, .. } = self;
        let file = path.map_or("the configuration".into(), |path| path.display().to_string());
        let who = |in_file: bool| if in_file { file.as_str() } else { "--bootargs" };
        let by = who(settings.model == of_file.model);
        match &settings.model {
            Some(wanted) => ensure!(
                models.iter().any(|model| model.name == *wanted),
                "{by} asks for the model {wanted}, but the models are {}",
                inputs::names(models).join(", ")
            ),
            // A server loads the models that it is asked for.
            None if models.len() > 1 && settings.mode != Mode::Serve => crate::say(&format!(
                "warning: {by} names none of the models, so boot with model=NAME"
            )),
            None => {}
        }
        if let Prompt::File(wanted) = &settings.prompt {
            ensure!(
                self.files().iter().any(|file| same_path(&file.path, wanted)),
                "{} asks for the prompt_file {wanted}, which is not on the disk: --prompt-file \
                 FILE puts a file there, under its own name",
                who(settings.prompt == of_file.prompt)
            );
        }
        Ok(())
    }

    /// Prints the size of each model, and the memory in which it runs.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn describe_models(&self) -> Result<()> {
        let context = self.settings.context_options();
        for Model { name, file, .. } in &self.models {
            let bytes = size::human(file.bytes);
            match file.memory_needed(context) {
                Ok(needed) => {
                    let memory = size::human(file.bytes.saturating_add(needed.total() as u64));
                    print_line(format_args!("    {MODELS}/{name}: {bytes}, runs in {memory}"))?;
                }
                Err(e) => {
                    print_line(format_args!("    {MODELS}/{name}: {bytes}"))?;
                    crate::say(&format!("warning: the kernel will not run {name}: {}", why(&e)));
                }
            }
        }
        Ok(())
    }

    /// The files of the disk, in order.
    ///
    /// The files of the firmware come first, then the configuration, the prompt, and each model
    /// with its checksum.
    fn files(&self) -> Vec<FileSpec> {
        let boot_files = self.boot_files.iter();
        let mut files: Vec<FileSpec> = boot_files
            .map(|file| FileSpec { path: file.path.clone(), bytes: file.bytes.len() as u32 })
            .collect();
        files.push(FileSpec { path: CONFIG.into(), bytes: self.config.len() as u32 });
        if let Some(Text { name, text }) = &self.prompt {
            files.push(FileSpec { path: name.clone(), bytes: text.len() as u32 });
        }
        for Model { name, file, .. } in &self.models {
            let line = Sum::of(b"").line(name).len() as u32;
            // The model's size was checked against FAT's limit.
            files.push(FileSpec { path: format!("{MODELS}/{name}"), bytes: file.bytes as u32 });
            files.push(FileSpec { path: format!("{MODELS}/{name}{SUM_ENDING}"), bytes: line });
        }
        files
    }

    /// Lays out a volume for the files, behind `sectors_before` sectors of its device.
    pub fn lay_out(&self, size: VolumeSize, label: Label, sectors_before: u32) -> Result<Layout> {
        let files = self.files();
        // The serial number is the same for the same content.
        let id = Sum::of(format!("{files:?} {label:?} {}", self.config).as_bytes()).prefix();
        let bytes = match size {
            VolumeSize::Auto => None,
            VolumeSize::Bytes(bytes) => Some(bytes),
        };
        match fat::lay_out(&files, bytes, Identity { label, id, sectors_before }) {
            Ok(layout) => Ok(layout),
            Err(Misfit::TooSmall { needed }) => bail!(
                "the volume is too small: it takes at least --size {}M",
                needed.div_ceil(1 << 20)
            ),
            Err(Misfit::TooMuch) => bail!("no FAT volume holds that much: take fewer models"),
        }
    }

    /// The checksum of the volume's future content, and the checksum of each model.
    ///
    /// `sum_of` computes a model's checksum, which must be the one in the file beside the model.
    pub fn key(
        &self,
        layout: &Layout,
        mut sum_of: impl FnMut(&ModelFile) -> Result<Sum>,
    ) -> Result<(Sum, Vec<Sum>)> {
        let mut hasher = Sha256::new();
        // Each part goes with its length, so that no other parts give the same bytes.
        let mut put = |part: &[u8]| {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        put(env!("CARGO_PKG_VERSION").as_bytes());
        put(&layout.geometry.bytes.to_le_bytes());
        for (start, bytes) in &layout.metadata {
            put(&start.to_le_bytes());
            put(bytes);
        }
        for (file, start) in self.files().iter().zip(&layout.starts) {
            put(file.path.as_bytes());
            put(&start.to_le_bytes());
        }
        self.boot_files.iter().for_each(|file| put(&file.bytes));
        put(self.config.as_bytes());
        put(self.prompt.as_ref().map_or("", |prompt| &prompt.text).as_bytes());
        let mut sums = Vec::new();
        for model in &self.models {
            let sum = sum_of(&model.file).with_context(|| model.file.path.display().to_string())?;
            model.compare(sum)?;
            put(sum.as_bytes());
            sums.push(sum);
        }
        Ok((Sum::finish(hasher), sums))
    }

    /// The first model's name on the volume.
    pub fn first_model(&self) -> &str {
        &self.models[0].name
    }

    /// Writes the volume to the end of a file, from byte `volume_start` on.
    ///
    /// Returns the expected content of each file.
    pub fn write(
        &self,
        disk: &mut Output,
        volume_start: u64,
        layout: &Layout,
    ) -> Result<Vec<Written>> {
        disk.set_len(volume_start + layout.geometry.bytes)?;
        let mut written = Vec::new();
        let mut files = self.files().into_iter().zip(&layout.starts);
        let mut put = |from: &mut dyn Read, shown: &str| -> Result<Sum> {
            let (file, &start) = files.next().expect("as many as `files` gives");
            let sum = copy(from, shown, disk, volume_start + start, &file)?;
            let bytes = u64::from(file.bytes);
            let extents = if bytes > 0 { vec![Extent { start, bytes }] } else { Vec::new() };
            written.push((file.path, Content { bytes, sum, extents }));
            Ok(sum)
        };
        for file in &self.boot_files {
            put(&mut &file.bytes[..], &file.path)?;
        }
        put(&mut self.config.as_bytes(), CONFIG)?;
        if let Some(prompt) = &self.prompt {
            put(&mut prompt.text.as_bytes(), &prompt.name)?;
        }
        for model in &self.models {
            let sum = put(&mut &model.file.file, &model.file.path.display().to_string())?;
            model.compare(sum)?;
            put(&mut sum.line(&model.name).as_bytes(), SUM_ENDING)?;
        }
        for (start, bytes) in &layout.metadata {
            disk.seek(SeekFrom::Start(volume_start + start))?;
            disk.write_all(bytes)?;
        }
        Ok(written)
    }
}

/// Copies a file to the disk, and returns its checksum.
///
/// `shown` is the file's name for the user. The disk must hold zeros in the file's place.
fn copy(
    from: &mut dyn Read,
    shown: &str,
    disk: &mut Output,
    start: u64,
    file: &FileSpec,
) -> Result<Sum> {
    let bytes = u64::from(file.bytes);
    let mut progress = Progress::new(format!("writing {}", file.path), bytes);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let n = from.read(&mut buffer).with_context(|| format!("cannot read {shown}"))?;
        if n == 0 {
            break;
        }
        ensure!(done + n as u64 <= bytes, "{shown} grew while it was read; try again");
        hasher.update(&buffer[..n]);
        // A hole in a sparse file stays a hole.
        if buffer[..n].iter().any(|&byte| byte != 0) {
            disk.seek(SeekFrom::Start(start + done))?;
            disk.write_all(&buffer[..n])?;
        }
        done += n as u64;
        progress.add(n);
    }
    ensure!(done == bytes, "{shown} shrank while it was read; try again");
    Ok(Sum::finish(hasher))
}

/// Reads the volume back through `fatfs`, and compares it with `written`.
///
/// The volume starts at byte `volume_start` of `file`.
pub fn verify(file: File, volume_start: u64, written: &[Written]) -> Result<()> {
    let notes = Notes::default();
    let volume = Volume::mount_at(file, volume_start, &notes)?;
    let paths: Vec<_> = volume.files()?.into_iter().map(|(path, _)| path).collect();
    for (path, expected) in written {
        ensure!(paths.contains(path), "{path} is not on the disk; there are only {paths:?}");
        let mut progress = Progress::new(format!("reading {path}"), expected.bytes);
        let seen = volume
            .read_file(path, |part| progress.add(part.len()))
            .with_context(|| format!("cannot read back {path}"))?;
        ensure!(
            seen == *expected,
            "{path} does not read back as it was written: {seen:?}, not {expected:?}"
        );
    }
    ensure!(paths.len() == written.len(), "there are more files than were written: {paths:?}");
    Ok(())
}

#[cfg(test)]
mod tests;
