//! What the kernel finds on its disk: a FAT volume with models, their sums and the configuration,
//! and on a card that a board boots from also what the board's firmware wants.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kernel::app::config::{ChatTemplate, Config, MAX_TEXT};
use sha2::{Digest, Sha256};

use crate::checksum::{self, Sum};
use crate::fat::{self, FileSpec, Identity, Layout, Misfit};
use crate::model::{MAX_NAME, ModelFile, fat_name};
use crate::progress::Progress;
use crate::volume::{Content, Extent, Notes, Volume};
use crate::{chat, size};

/// Where the kernel looks for its configuration.
const CONFIG: &str = "anchorite.toml";
/// Where the kernel looks for models.
const MODELS: &str = "models";
/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;

/// What is asked for, by each command that makes a volume.
#[derive(clap::Args)]
pub struct ContentOptions {
    /// Size of the volume, such as 64M or 4G; `auto`: as large as it must be
    #[arg(long, default_value = "auto", value_parser = volume_size)]
    pub size: VolumeSize,
    /// Label of the volume
    #[arg(long, default_value = "ANCHORITE", value_parser = volume_label)]
    label: Label,
    /// Configuration for the kernel; if none is given, one that names the first model. What the
    /// model's chat template writes around messages is added, unless it says so itself
    #[arg(long)]
    config: Option<PathBuf>,
    /// A text for the disk, as long as 4 MiB; the prompt, unless a configuration is given
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Read back what was written and compare
    #[arg(long)]
    pub verify: bool,
    /// The models
    #[arg(required = true, value_name = "MODEL.gguf")]
    models: Vec<PathBuf>,
}

/// How large a volume is to be.
#[derive(Clone, Copy)]
pub enum VolumeSize {
    /// As large as it must be.
    Auto,
    /// That many bytes.
    Bytes(u64),
}

fn volume_size(text: &str) -> Result<VolumeSize, String> {
    if text == "auto" {
        return Ok(VolumeSize::Auto);
    }
    let bytes = size::parse(text)?;
    if !(fat::SMALLEST..=fat::LARGEST).contains(&bytes) || !bytes.is_multiple_of(512) {
        return Err("expected whole sectors of 512 bytes, and from 8M to 2T".to_owned());
    }
    Ok(VolumeSize::Bytes(bytes))
}

/// A label, padded as FAT stores it.
type Label = [u8; 11];

fn volume_label(text: &str) -> Result<Label, String> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b" _-$%'@~!(){}^#&".contains(&c);
    if text.trim().is_empty() || text.len() > 11 || !text.bytes().all(allowed) {
        return Err("expected 1 to 11 letters, digits, or _ and -".to_owned());
    }
    let mut label = [b' '; 11];
    label[..text.len()].copy_from_slice(text.to_ascii_uppercase().as_bytes());
    Ok(label)
}

type Models = Vec<(String, ModelFile)>;

fn models_names(models: &Models) -> Vec<&str> {
    models.iter().map(|(name, _)| name.as_str()).collect()
}

fn open_models(paths: &[PathBuf]) -> Result<Models> {
    let mut models = Models::new();
    // FAT does not tell upper and lower case apart.
    let mut taken = BTreeMap::new();
    for path in paths {
        let model = ModelFile::open(path)?;
        let name = model.fat_name()?.to_owned();
        if let Some(other) = taken.insert(name.to_lowercase(), path) {
            bail!(
                "{} and {} would have one name on the disk: rename one",
                other.display(),
                path.display()
            );
        }
        models.push((name, model));
    }
    Ok(models)
}

/// A text with the name that it has on the disk.
struct Text {
    name: String,
    text: String,
}

/// Reads the text at `path`, and checks that the kernel will take it.
fn read_prompt(path: &Path) -> Result<Text> {
    let shown = path.display();
    let name = fat_name(path, MAX_NAME)?;
    let taken = [CONFIG, MODELS].iter().any(|taken| taken.eq_ignore_ascii_case(name));
    ensure!(!taken, "{shown} would stand in the place of the disk's own {name}: rename it");
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let limit = size::human(MAX_TEXT as u64);
    ensure!(text.len() <= MAX_TEXT, "{shown} is longer than a prompt's {limit}");
    Ok(Text { name: name.to_owned(), text })
}

/// The configuration: the one at `path`, checked, or one that names the first model and the prompt.
fn read_config(path: Option<&Path>, models: &Models, prompt: Option<&Text>) -> Result<String> {
    let Some(path) = path else {
        // Names for FAT hold no quote, no backslash and no control character.
        let mut text = format!(
            "# Settings of Anchorite; boot arguments of the same names override them.\n\
             model = \"{}\"\n",
            models[0].0
        );
        if let Some(Text { name, .. }) = prompt {
            text += &format!("prompt_file = \"{name}\"\n");
        }
        return Ok(text);
    };
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let config = Config::from_toml(&text)
        .map_err(|e| anyhow::anyhow!("{shown} is no configuration: {e} ({})", e.hint()))?;
    match &config.model {
        Some(name) => ensure!(
            models.iter().any(|(there, _)| there == name),
            "{shown} asks for the model {name}, but the models are {}",
            models_names(models).join(", ")
        ),
        None if models.len() > 1 => crate::say(&format!(
            "warning: {shown} names none of the models, so boot with model=NAME"
        )),
        None => {}
    }
    Ok(text)
}

/// The configuration with what the chat template of its model writes around messages, unless it
/// says itself what stands there.
fn with_chat_template(mut text: String, models: &Models) -> Result<String> {
    let config = Config::from_toml(&text).expect("it was checked");
    let model = match &config.model {
        Some(wanted) => models.iter().find(|(name, _)| name == wanted),
        None if models.len() == 1 => models.first(),
        None => None,
    };
    let now = chat::now()?;
    // A model that the kernel cannot run is told of below.
    let found = model.and_then(|(name, model)| Some((name, chat::find(&model.gguf(), now).ok()??)));
    let Some((name, found)) = found.filter(|_| config.chat_template == ChatTemplate::Auto) else {
        return Ok(text);
    };
    let given = text.len();
    if let Some(settings) = &found.settings {
        text += &format!("\n# What the chat template of {name} writes around messages.\n");
        text += &chat::to_toml(settings);
    }
    // `chat_template = "auto"` leaves it to the kernel, and excludes other settings of a chat.
    if Config::from_toml(&text).is_err() {
        text.truncate(given);
    } else if let Some(problem) = &found.problem {
        crate::say(&format!("warning: the chat template of {name}: {problem}"));
    }
    Ok(text)
}

/// A file for the firmware, with its path on the volume: in the root or in a folder there.
pub struct BootFile {
    /// Its path.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What goes on the disk.
pub struct Contents {
    boot_files: Vec<BootFile>,
    config: String,
    prompt: Option<Text>,
    models: Models,
}

/// A file of the volume, and what it is to read back as.
pub type Written = (String, Content);

impl Contents {
    /// Opens and checks what the options name; `boot_files` come besides.
    pub fn open(options: &ContentOptions, boot_files: Vec<BootFile>) -> Result<Contents> {
        let models = open_models(&options.models)?;
        let prompt = options.prompt_file.as_deref().map(read_prompt).transpose()?;
        if let Some(Text { name, .. }) = &prompt {
            let taken = boot_files.iter().any(|file| file.path.eq_ignore_ascii_case(name));
            ensure!(!taken, "the prompt would stand in the place of the board's {name}: rename it");
        }
        let config = read_config(options.config.as_deref(), &models, prompt.as_ref())?;
        let config = with_chat_template(config, &models)?;
        Ok(Contents { boot_files, config, prompt, models })
    }

    /// Says how large the models are and in how much memory they run.
    pub fn describe_models(&self) {
        let context = Config::from_toml(&self.config).unwrap_or_default().context_options();
        for (name, model) in &self.models {
            let bytes = size::human(model.bytes);
            match model.memory_needed(context) {
                Ok(needed) => {
                    let memory = model.bytes.saturating_add(needed.total() as u64);
                    println!("    {MODELS}/{name}: {bytes}, runs in {}", size::human(memory));
                }
                Err(e) => {
                    println!("    {MODELS}/{name}: {bytes}");
                    crate::say(&format!("warning: the kernel will not run {name}: {e}"));
                }
            }
        }
    }

    /// The files of the disk: those of the firmware, the configuration, the prompt, then each model
    /// and its sum.
    fn files(&self) -> Vec<FileSpec> {
        let boot_files = self.boot_files.iter();
        let mut files: Vec<FileSpec> = boot_files
            .map(|file| FileSpec { path: file.path.clone(), bytes: file.bytes.len() as u32 })
            .collect();
        files.push(FileSpec { path: CONFIG.into(), bytes: self.config.len() as u32 });
        if let Some(Text { name, text }) = &self.prompt {
            files.push(FileSpec { path: name.clone(), bytes: text.len() as u32 });
        }
        for (name, model) in &self.models {
            let line = Sum::of(b"").line(name).len() as u32;
            // The model's size was checked against FAT's limit.
            files.push(FileSpec { path: format!("{MODELS}/{name}"), bytes: model.bytes as u32 });
            files.push(FileSpec { path: format!("{MODELS}/{name}.sha256"), bytes: line });
        }
        files
    }

    /// Divides a volume for these files, which stands behind `sectors_before` sectors of its device.
    pub fn lay_out(&self, options: &ContentOptions, sectors_before: u32) -> Result<Layout> {
        self.lay_out_in(options.size, options, sectors_before)
    }

    /// The same, but for the size.
    pub fn lay_out_in(
        &self,
        size: VolumeSize,
        options: &ContentOptions,
        sectors_before: u32,
    ) -> Result<Layout> {
        self.lay_out_as(size, options.label, sectors_before)
    }

    fn lay_out_as(&self, size: VolumeSize, label: Label, sectors_before: u32) -> Result<Layout> {
        let files = self.files();
        // A serial number that is the same for the same content.
        let id = Sum::of(format!("{files:?} {label:?} {}", self.config).as_bytes()).prefix();
        let bytes = match size {
            VolumeSize::Auto => None,
            VolumeSize::Bytes(bytes) => Some(bytes),
        };
        match fat::lay_out(&files, bytes, Identity { label, id, sectors_before }) {
            Ok(layout) => Ok(layout),
            Err(Misfit::TooSmall { needed }) => bail!(
                "the volume is too small for this: it takes at least --size {}M",
                needed.div_ceil(1 << 20)
            ),
            Err(Misfit::TooMuch) => bail!("no FAT volume holds that much: take fewer models"),
        }
    }

    /// Writes the volume to the end of a file, from byte `volume_start` on; gives what each file is
    /// to read back as.
    pub fn write(
        &self,
        disk: &mut File,
        volume_start: u64,
        layout: &Layout,
    ) -> Result<Vec<Written>> {
        disk.set_len(volume_start + layout.geometry.bytes)?;
        let mut written = Vec::new();
        let mut files = self.files().into_iter().zip(&layout.starts);
        let mut put = |from: &mut dyn Read| -> Result<Sum> {
            let (file, &start) = files.next().expect("as many as `files` gives");
            let sum = copy(from, disk, volume_start + start, &file)?;
            let bytes = u64::from(file.bytes);
            let extents = if bytes > 0 { vec![Extent { start, bytes }] } else { Vec::new() };
            written.push((file.path, Content { bytes, sum, extents }));
            Ok(sum)
        };
        for file in &self.boot_files {
            put(&mut &file.bytes[..])?;
        }
        put(&mut self.config.as_bytes())?;
        if let Some(prompt) = &self.prompt {
            put(&mut prompt.text.as_bytes())?;
        }
        for (name, model) in &self.models {
            let sum = put(&mut &model.file).with_context(|| model.path.display().to_string())?;
            compare_with_sum_beside(&model.path, sum)?;
            put(&mut sum.line(name).as_bytes())?;
        }
        for (start, bytes) in &layout.metadata {
            disk.seek(SeekFrom::Start(volume_start + start))?;
            disk.write_all(bytes)?;
        }
        Ok(written)
    }
}

/// Copies one file to its place on the disk, which holds zeros there, and sums it.
fn copy(from: &mut dyn Read, disk: &mut File, start: u64, file: &FileSpec) -> Result<Sum> {
    let bytes = u64::from(file.bytes);
    let mut progress = Progress::new(format!("writing {}", file.path), bytes);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        ensure!(done + n as u64 <= bytes, "it grew while it was read; try again");
        hasher.update(&buffer[..n]);
        // A hole in a sparse file stays one.
        if buffer[..n].iter().any(|&byte| byte != 0) {
            disk.seek(SeekFrom::Start(start + done))?;
            disk.write_all(&buffer[..n])?;
        }
        done += n as u64;
        progress.add(n);
    }
    ensure!(done == bytes, "it shrank while it was read; try again");
    Ok(Sum::finish(hasher))
}

fn compare_with_sum_beside(model: &Path, sum: Sum) -> Result<()> {
    if let Some(expected) = checksum::read_beside(model)? {
        ensure!(
            expected == sum,
            "ChecksumMismatch: {} has the SHA-256 sum\n    {sum}, but {} says\n    {expected}; \
             fetch the model again",
            model.display(),
            checksum::beside(model).display()
        );
    }
    Ok(())
}

/// Reads the volume in `file`, from byte `volume_start` on, through `fatfs`, and compares it with
/// what was written.
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
