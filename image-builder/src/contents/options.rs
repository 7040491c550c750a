//! Command-line options of the commands that make a volume.

use std::path::PathBuf;

use crate::checksum;
use crate::{fat, size};

/// The options of each command that makes a volume.
#[derive(clap::Args)]
pub struct ContentOptions {
    /// Size of the volume, such as 64M or 4G; `auto`: as small as possible
    #[arg(long, default_value = "auto", value_parser = volume_size)]
    pub size: VolumeSize,
    /// Label of the volume
    #[arg(long, default_value = "ANCHORITE", value_parser = volume_label)]
    pub label: Label,
    /// Configuration for the kernel [default: one that names the first model]. The texts of the
    /// model's chat template are added, unless the file sets them
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// A text of up to 4 MiB for the disk; it is the prompt unless there is --config
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
    /// Read back what was written and compare
    #[arg(long)]
    pub verify: bool,
    /// The models
    #[arg(required = true, value_name = "MODEL.gguf")]
    pub models: Vec<PathBuf>,
}

/// The size of a volume.
#[derive(Clone, Copy)]
pub enum VolumeSize {
    /// The smallest size that fits, with some space for small changes.
    Auto,
    /// This number of bytes.
    Bytes(u64),
}

/// Parses the size of a volume.
///
/// # Errors
/// FAT has no volume of this size.
pub fn volume_size(text: &str) -> Result<VolumeSize, String> {
    if text == "auto" {
        return Ok(VolumeSize::Auto);
    }
    let bytes = size::parse(text)?;
    if !(fat::SMALLEST..=fat::LARGEST).contains(&bytes) || !bytes.is_multiple_of(512) {
        return Err("expected whole sectors of 512 bytes, and from 8M to 2T".to_owned());
    }
    Ok(VolumeSize::Bytes(bytes))
}

/// A volume's label, padded with spaces as FAT stores it.
pub type Label = [u8; 11];

/// Parses and pads a volume's label.
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
    /// Options for `models`, with the command's defaults for the rest.
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

    /// The paths of all files that are read.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let models = self.models.iter().flat_map(|path| [path.clone(), checksum::beside(path)]);
        models.chain(self.config.clone()).chain(self.prompt_file.clone()).collect()
    }
}
