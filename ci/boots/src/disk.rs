//! The disks of the boots; each one is made once a run, for the first boot that needs it.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use image_builder::contents::{ContentOptions, VolumeSize, volume_label};
use image_builder::disk;

use crate::lab::Lab;
use crate::volume::Volume;

type Make = Arc<dyn Fn(&Lab, &Path) -> Result<()> + Send + Sync>;

/// A disk: a file in the folder of the run, and how it is made.
#[derive(Clone)]
pub struct Disk {
    name: String,
    make: Make,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Disk {
    /// A disk that `make` writes. Disks with one name must be equal.
    pub fn new(
        name: impl Into<String>,
        make: impl Fn(&Lab, &Path) -> Result<()> + Send + Sync + 'static,
    ) -> Disk {
        Disk { name: name.into(), make: Arc::new(make) }
    }

    /// A volume of the image builder's, with these contents.
    pub fn of(
        name: impl Into<String>,
        contents: impl Fn(&Lab) -> Result<ContentOptions> + Send + Sync + 'static,
    ) -> Disk {
        Disk::new(name, move |lab, out| {
            disk::write(&disk::Options::new(out.into(), contents(lab)?))?;
            Ok(())
        })
    }

    /// A volume with this model.
    pub fn of_model(name: impl Into<String>, model: impl Into<PathBuf>) -> Disk {
        let model = model.into();
        Disk::of(name, move |_| Ok(ContentOptions::new(vec![model.clone()])))
    }

    /// A volume with a model that is made first, at the path that `make` is given.
    pub fn of_made(
        name: &'static str,
        make: impl Fn(&Path) -> Result<()> + Send + Sync + 'static,
    ) -> Disk {
        Disk::of(name, move |lab| {
            let model = lab.made(&format!("{name}.gguf"), &make)?;
            Ok(ContentOptions::new(vec![model]))
        })
    }

    /// A volume of the model `tiny.gguf` whose prompt is this text.
    pub fn of_prompt(name: &'static str, text: impl Into<Vec<u8>>) -> Disk {
        let text = text.into();
        Disk::of(name, move |lab| {
            let prompt = lab.file(&format!("{name}.txt"));
            std::fs::write(&prompt, &text)?;
            Ok(ContentOptions {
                prompt_file: Some(prompt),
                ..ContentOptions::new(vec![TINY.into()])
            })
        })
    }

    /// These bytes.
    pub fn of_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Disk {
        Disk::new(name, move |_, out| Ok(std::fs::write(out, &bytes)?))
    }

    /// This one, changed.
    pub fn damaged(
        &self,
        name: impl Into<String>,
        change: impl Fn(&mut Volume) -> Result<()> + Send + Sync + 'static,
    ) -> Disk {
        let whole = self.clone();
        Disk::new(name, move |lab, out| {
            let mut volume = Volume::read(&lab.disk(&whole)?)?;
            change(&mut volume)?;
            Ok(std::fs::write(out, volume.bytes())?)
        })
    }

    /// This one with other files on it.
    pub fn with_files(
        &self,
        name: impl Into<String>,
        change: impl Fn(&mut Vec<(String, Vec<u8>)>) + Send + Sync + 'static,
    ) -> Disk {
        let whole = self.clone();
        Disk::new(name, move |lab, out| {
            let mut files = Volume::read(&lab.disk(&whole)?)?.files()?;
            change(&mut files);
            Ok(std::fs::write(out, Volume::of_files(&files)?.bytes())?)
        })
    }

    /// This one in the first partition of a card of `bytes` bytes.
    pub fn in_partition(&self, name: impl Into<String>, table: Table, bytes: u64) -> Disk {
        let whole = self.clone();
        Disk::new(name, move |lab, out| {
            let volume = std::fs::read(lab.disk(&whole)?)?;
            // A table is for the whole card, also where that is cut off afterwards.
            let file = File::create(out)?;
            file.set_len(CARD)?;
            partition(out, table)?;
            file.write_all_at(&volume, PARTITION_START)?;
            Ok(file.set_len(bytes)?)
        })
    }

    /// Its file's name.
    pub fn file_name(&self) -> String {
        format!("{}.img", self.name)
    }

    /// Makes it at `out`.
    pub fn make(&self, lab: &Lab, out: &Path) -> Result<()> {
        (self.make)(lab, out)
    }
}

/// Kinds of a table of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// A master boot record.
    Mbr,
    /// A GUID partition table.
    Gpt,
}

/// A size of cards that there is; QEMU takes no other.
pub const CARD: u64 = 64 << 20;
/// The byte of a card at which its partition starts.
pub const PARTITION_START: u64 = 4 << 20;

/// Writes a table of one partition, by `sfdisk`.
fn partition(card: &Path, table: Table) -> Result<()> {
    let label = match table {
        Table::Mbr => "dos",
        Table::Gpt => "gpt",
    };
    let mut sfdisk = Command::new("sfdisk")
        .env("PATH", crate::lab::path_with_sbin())
        .arg("--quiet")
        .arg(card)
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start sfdisk")?;
    let script = format!("label: {label}\nstart=4MiB\n");
    sfdisk.stdin.take().context("a pipe")?.write_all(script.as_bytes())?;
    ensure!(sfdisk.wait()?.success(), "sfdisk fails");
    Ok(())
}

/// The model that most boots take.
pub const TINY: &str = "test_models/tiny.gguf";
/// Where it is on its disk.
pub const TINY_ON_DISK: &str = "models/tiny.gguf";

/// The disk that most boots take: a FAT16 with `tiny.gguf`, read back and compared.
pub fn tiny() -> Disk {
    Disk::of("tiny", |_| {
        Ok(ContentOptions { verify: true, ..ContentOptions::new(vec![TINY.into()]) })
    })
}

/// The same on a FAT32 of 512 MiB.
pub fn fat32() -> Disk {
    Disk::of("fat32", |_| {
        Ok(ContentOptions {
            size: VolumeSize::Bytes(512 << 20),
            label: volume_label("BIG ONE").map_err(anyhow::Error::msg)?,
            ..ContentOptions::new(vec![TINY.into()])
        })
    })
}
