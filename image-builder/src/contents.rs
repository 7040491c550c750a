//! What the kernel finds on its disk: a FAT volume with models, their sums and the configuration,
//! and on a card that a board boots from also what the board's firmware wants.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use host_io::console::print_line;
use host_io::files::Output;
use kernel::app::config::{ChatTemplate, Config, MAX_TEXT, NotText, Prompt};
use kernel::model_files::{SUM_ENDING, same_name};
use kernel::runtime::entry::args;
use sha2::{Digest, Sha256};

use crate::checksum::{self, Sum};
use crate::fat::{self, FileSpec, Identity, Layout, Misfit};
use crate::model::{MAX_NAME, ModelFile, fat_name, why};
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
    pub label: Label,
    /// Configuration for the kernel; if none is given, one that names the first model. What the
    /// model's chat template writes around messages is added, unless it says so itself
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// A text for the disk, as long as 4 MiB; the prompt, unless a configuration is given
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
    /// Read back what was written and compare
    #[arg(long)]
    pub verify: bool,
    /// The models
    #[arg(required = true, value_name = "MODEL.gguf")]
    pub models: Vec<PathBuf>,
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
pub type Label = [u8; 11];

/// Reads a label.
///
/// # Errors
/// FAT has no such label.
pub fn volume_label(text: &str) -> Result<Label, String> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b" _-$%'@~!(){}^#&".contains(&c);
    if text.trim().is_empty() || text.len() > 11 || !text.bytes().all(allowed) {
        return Err("expected 1 to 11 letters, digits, or _ and -".to_owned());
    }
    let mut label = [b' '; 11];
    label[..text.len()].copy_from_slice(text.to_ascii_uppercase().as_bytes());
    Ok(label)
}

impl ContentOptions {
    /// These models, and for the rest what the command does without options.
    pub fn new(models: Vec<PathBuf>) -> ContentOptions {
        ContentOptions {
            size: VolumeSize::Auto,
            label: *b"ANCHORITE  ",
            config: None,
            prompt_file: None,
            verify: false,
            models,
        }
    }

    /// The files that are read.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let models = self.models.iter().flat_map(|path| [path.clone(), checksum::beside(path)]);
        models.chain(self.config.clone()).chain(self.prompt_file.clone()).collect()
    }
}

/// A model with its name on the disk, and the sum that it must have.
struct Model {
    name: String,
    file: ModelFile,
    expected: Option<Sum>,
}

impl Model {
    /// Compares the sum of its bytes with that beside it, if there is one.
    fn compare(&self, sum: Sum) -> Result<()> {
        let Some(expected) = self.expected else { return Ok(()) };
        let path = &self.file.path;
        ensure!(
            expected == sum,
            "ChecksumMismatch: {} has the SHA-256 sum\n    {sum}, but {} says\n    {expected}; \
             fetch the model again",
            path.display(),
            checksum::beside(path).display()
        );
        Ok(())
    }
}

fn names(models: &[Model]) -> Vec<&str> {
    models.iter().map(|model| model.name.as_str()).collect()
}

fn open_models(paths: &[PathBuf]) -> Result<Vec<Model>> {
    let mut models: Vec<Model> = Vec::new();
    for path in paths {
        let file = ModelFile::open(path)?;
        let name = file.fat_name()?.to_owned();
        if let Some(other) = models.iter().find(|other| same_name(&other.name, &name)) {
            bail!(
                "{} and {} would have one name on the disk: rename one",
                other.file.path.display(),
                path.display()
            );
        }
        models.push(Model { name, file, expected: checksum::read_beside(path)? });
    }
    Ok(models)
}

/// A text with the name that it has on the disk.
struct Text {
    name: String,
    text: String,
}

/// Reads the file at `path`, which must be what the kernel takes for a text.
fn read_text(path: &Path) -> Result<String> {
    let shown = path.display();
    let bytes = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    match NotText::check(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(at) => bail!("{shown} {at}; {}", NotText::HINT),
    }
}

/// Reads the text at `path`, and checks that the kernel will take it.
fn read_prompt(path: &Path) -> Result<Text> {
    let shown = path.display();
    let name = fat_name(path, MAX_NAME)?;
    let taken = [CONFIG, MODELS].iter().any(|taken| same_name(taken, name));
    ensure!(!taken, "{shown} would stand in the place of the disk's own {name}: rename it");
    let text = read_text(path)?;
    let limit = size::human(MAX_TEXT as u64);
    ensure!(text.len() <= MAX_TEXT, "{shown} is longer than a prompt's {limit}");
    Ok(Text { name: name.to_owned(), text })
}

/// The configuration: the one at `path`, checked, or one that names the first model and the prompt.
fn read_config(path: Option<&Path>, models: &[Model], prompt: Option<&Text>) -> Result<String> {
    let Some(path) = path else {
        // Names for FAT hold no quote, no backslash and no control character.
        let mut text = format!(
            "# Settings of Anchorite; boot arguments of the same names override them.\n\
             model = \"{}\"\n",
            models[0].name
        );
        if let Some(Text { name, .. }) = prompt {
            text += &format!("prompt_file = \"{name}\"\n");
        }
        return Ok(text);
    };
    let shown = path.display();
    let text = read_text(path)?;
    ensure!(
        text.len() <= MAX_TEXT,
        "{shown} is longer than a configuration's {}",
        size::human(MAX_TEXT as u64)
    );
    Config::from_toml(&text)
        .map_err(|e| anyhow!("{shown} is no configuration: {e} ({})", e.hint()))?;
    Ok(text)
}

/// Whether the kernel finds the file `path` of the disk under the path `wanted`.
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

/// The configuration with what the chat template of its model writes around messages, unless it
/// says itself what stands there.
fn with_chat_template(mut text: String, models: &[Model]) -> Result<String> {
    let config = Config::from_toml(&text).expect("it was checked");
    let model = match &config.model {
        Some(wanted) => models.iter().find(|model| model.name == *wanted),
        None if models.len() == 1 => models.first(),
        None => None,
    };
    let now = chat::now()?;
    let found = model.and_then(|model| Some((&model.name, chat::find(&model.file.gguf(), now)?)));
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
    /// The file that it was read from, if it was.
    pub source: Option<PathBuf>,
}

impl BootFile {
    /// One that was read from the file `source`.
    pub fn read(path: &str, source: PathBuf, bytes: Vec<u8>) -> BootFile {
        BootFile { path: path.into(), bytes, source: Some(source) }
    }

    /// One that is made here.
    pub fn made(path: &str, text: String) -> BootFile {
        BootFile { path: path.into(), bytes: text.into(), source: None }
    }
}

/// What goes on the disk.
pub struct Contents {
    boot_files: Vec<BootFile>,
    config: String,
    /// What the kernel makes of the configuration and its boot arguments.
    settings: Config,
    prompt: Option<Text>,
    models: Vec<Model>,
}

/// A file of the volume, and what it is to read back as.
pub type Written = (String, Content);

impl Contents {
    /// Opens and checks what the options name.
    ///
    /// `boot_files` come besides. `bootargs` are the boot arguments that go with the disk.
    pub fn open(
        options: &ContentOptions,
        boot_files: Vec<BootFile>,
        bootargs: Option<&str>,
    ) -> Result<Contents> {
        let models = open_models(&options.models)?;
        let prompt = options.prompt_file.as_deref().map(read_prompt).transpose()?;
        if let Some(Text { name, .. }) = &prompt {
            let mut in_root = boot_files.iter().filter_map(|file| file.path.split('/').next());
            let taken = in_root.any(|there| same_name(there, name));
            ensure!(!taken, "the prompt would stand in the place of the board's {name}: rename it");
        }
        let config = read_config(options.config.as_deref(), &models, prompt.as_ref())?;
        let of_file = Config::from_toml(&config).expect("it was checked");
        let config = with_chat_template(config, &models)?;
        let mut settings = Config::from_toml(&config).expect("it was checked");
        if let Some(text) = bootargs {
            let words = args::split(text).map_err(|e| anyhow!("{e}"))?;
            settings.apply_arguments(&words).map_err(|e| anyhow!("{e} ({})", e.hint()))?;
        }
        let contents = Contents { boot_files, config, settings, prompt, models };
        contents.check_names(&of_file, options.config.as_deref())?;
        Ok(contents)
    }

    /// Checks that what the settings name is on the disk.
    ///
    /// `of_file` are those of the configuration alone: the user's at `path`, or one made here.
    fn check_names(&self, of_file: &Config, path: Option<&Path>) -> Result<()> {
        let Contents { settings, models, .. } = self;
        let file = path.map_or("the configuration".into(), |path| path.display().to_string());
        let who = |in_file: bool| if in_file { file.as_str() } else { "--bootargs" };
        let by = who(settings.model == of_file.model);
        match &settings.model {
            Some(wanted) => ensure!(
                models.iter().any(|model| model.name == *wanted),
                "{by} asks for the model {wanted}, but the models are {}",
                names(models).join(", ")
            ),
            None if models.len() > 1 => crate::say(&format!(
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

    /// Says how large the models are and in how much memory they run.
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
        for Model { name, file, .. } in &self.models {
            let line = Sum::of(b"").line(name).len() as u32;
            // The model's size was checked against FAT's limit.
            files.push(FileSpec { path: format!("{MODELS}/{name}"), bytes: file.bytes as u32 });
            files.push(FileSpec { path: format!("{MODELS}/{name}{SUM_ENDING}"), bytes: line });
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

    /// A sum over all that the volume will hold, byte for byte, and that of each model.
    ///
    /// `sum_of` finds that of a model, which must be the one in the file beside the model.
    pub fn key(
        &self,
        layout: &Layout,
        mut sum_of: impl FnMut(&ModelFile) -> Result<Sum>,
    ) -> Result<(Sum, Vec<Sum>)> {
        let mut hasher = Sha256::new();
        // Each part with its length, so that no other parts come to the same text.
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

    /// Writes the volume to the end of a file, from byte `volume_start` on; gives what each file is
    /// to read back as.
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

/// Copies one file, which the user calls `shown`, to the disk, and sums it.
///
/// The disk holds zeros in its place.
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
        // A hole in a sparse file stays one.
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
