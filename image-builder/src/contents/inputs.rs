//! Reads and checks the models, the prompt and the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use kernel::model_files::same_name;
use kernel::settings::{ChatTemplate, Config, MAX_TEXT, NotText};

use super::{CONFIG, MODELS};
use crate::checksum::{self, Sum};
use crate::model::{MAX_NAME, ModelFile, fat_name};
use crate::{chat, size};

/// A model with its name on the disk, and its expected checksum.
pub struct Model {
    pub name: String,
    pub file: ModelFile,
    expected: Option<Sum>,
}

impl Model {
    /// Compares a computed checksum with the expected one, if there is one.
    pub fn compare(&self, sum: Sum) -> Result<()> {
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

pub fn names(models: &[Model]) -> Vec<&str> {
    models.iter().map(|model| model.name.as_str()).collect()
}

pub fn open_models(paths: &[PathBuf]) -> Result<Vec<Model>> {
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

/// A text with its name on the disk.
pub struct Text {
    pub name: String,
    pub text: String,
}

/// Reads the file at `path`, which must be a text by the kernel's rules.
fn read_text(path: &Path) -> Result<String> {
    let shown = path.display();
    let bytes = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    match NotText::check(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(at) => bail!("{shown} {at}; {}", NotText::HINT),
    }
}

/// Reads the prompt at `path`, and checks it as the kernel does.
pub fn read_prompt(path: &Path) -> Result<Text> {
    let shown = path.display();
    let name = fat_name(path, MAX_NAME)?;
    let taken = [CONFIG, MODELS].iter().any(|taken| same_name(taken, name));
    ensure!(!taken, "{shown} would replace the disk's own {name}: rename it");
    let text = read_text(path)?;
    let limit = size::human(MAX_TEXT as u64);
    ensure!(text.len() <= MAX_TEXT, "{shown} is longer than a prompt's {limit}");
    Ok(Text { name: name.to_owned(), text })
}

/// Reads and checks the configuration at `path`.
///
/// Without `path`, it names the first model and the prompt.
pub fn read_config(path: Option<&Path>, models: &[Model], prompt: Option<&Text>) -> Result<String> {
    let Some(path) = path else {
        // FAT names hold no quote, no backslash and no control character.
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

/// Adds the texts of the model's chat template, unless the configuration sets them.
pub fn with_chat_template(mut text: String, models: &[Model]) -> Result<String> {
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
    // `chat_template = "auto"` leaves the template to the kernel, and excludes these settings.
    if Config::from_toml(&text).is_err() {
        text.truncate(given);
    } else if let Some(problem) = &found.problem {
        crate::say(&format!("warning: the chat template of {name}: {problem}"));
    }
    Ok(text)
}
