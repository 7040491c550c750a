//! Decides by Linux's data whether a disk may be overwritten.
//!
//! Sources: Linux, Documentation/ABI/stable/sysfs-block, Documentation/filesystems/proc.rst
//! (mountinfo), and `removable`, `ro` and `size` of Documentation/ABI/testing/sysfs-block.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::size;

/// The system's folders `proc` and `sys`; fakes in tests.
pub struct System {
    root: PathBuf,
}

/// A whole disk that may be overwritten.
#[derive(Debug)]
pub struct Disk {
    /// The maker's names and the size, for the user.
    pub description: String,
    /// The size in bytes.
    pub bytes: u64,
}

/// The size of sectors in sysfs, whatever the disk's own.
const SECTOR: u64 = 512;
/// The mount points of the running system.
const OF_THE_SYSTEM: [&str; 6] = ["/", "/boot", "/boot/efi", "/usr", "/var", "/home"];

impl System {
    /// The running system.
    pub fn running() -> System {
        System { root: "/".into() }
    }

    #[cfg(test)]
    pub fn fake(root: &Path) -> System {
        System { root: root.into() }
    }

    /// Checks the block device of this number. Messages call it `shown`.
    ///
    /// # Errors
    /// The device is a partition, is in use, is write-protected, or is empty. Without `any_disk`,
    /// it must also look like a card.
    pub fn check(&self, (major, minor): (u32, u32), shown: &str, any_disk: bool) -> Result<Disk> {
        let link = self.root.join(format!("sys/dev/block/{major}:{minor}"));
        let folder = fs::canonicalize(&link)
            .with_context(|| format!("{shown} is no disk that this system knows"))?;
        if folder.join("partition").exists() {
            let whole = folder.parent().and_then(Path::file_name).unwrap_or_default();
            bail!("{shown} is a partition: name the whole card, /dev/{}", whole.to_string_lossy());
        }
        let parts = parts(&folder)?;
        self.check_mounts(&parts, shown)?;
        self.check_swap(&parts, shown)?;
        for part in &parts {
            if let Some(holder) = names_in(&part.folder.join("holders"))?.first() {
                bail!(
                    "{shown} is in use: {} belongs to {holder} (encryption, RAID or LVM)",
                    part.name
                );
            }
        }
        ensure!(
            read(&folder.join("ro")).as_deref() != Some("1"),
            "{shown} is write-protected: push the card's lock up"
        );
        let sectors: u64 = read(&folder.join("size")).and_then(|n| n.parse().ok()).unwrap_or(0);
        ensure!(sectors > 0, "there is no card in {shown}");
        ensure!(
            any_disk || is_card(&folder),
            "{shown} does not look like a card: it is neither removable nor on USB nor in a card \
             reader. If it is the right one all the same, add --any-disk"
        );
        let bytes = sectors * SECTOR;
        let makers = ["device/vendor", "device/model", "device/name"];
        let makers = makers.iter().filter_map(|name| read(&folder.join(name)));
        let mut words: Vec<String> = makers.filter(|word| !word.is_empty()).collect();
        words.push(size::human(bytes));
        Ok(Disk { description: words.join(" "), bytes })
    }

    fn check_mounts(&self, parts: &[Part], shown: &str) -> Result<()> {
        // A line holds: ID, parent, MAJOR:MINOR, root, mount point, options, …, "-", type, source,
        // …
        let mounts = self.read("proc/self/mountinfo")?;
        for line in mounts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (Some(number), Some(at)) = (words.get(2), words.get(4)) else { continue };
            // Btrfs has numbers of its own, so the source is compared too.
            let rest = words.iter().position(|&word| word == "-").unwrap_or(words.len());
            let source = words.get(rest + 2).and_then(|source| source.strip_prefix("/dev/"));
            let Some(part) = parts
                .iter()
                .find(|part| part.number == *number || Some(part.name.as_str()) == source)
            else {
                continue;
            };
            // Blanks are escaped as \040.
            let at = at.replace("\\040", " ");
            if OF_THE_SYSTEM.contains(&at.as_str()) {
                bail!("{shown} holds the running system ({} is {at}): name the card", part.name);
            }
            bail!("{shown} is in use: {} is mounted at {at}. First: umount {at}", part.name);
        }
        Ok(())
    }

    fn check_swap(&self, parts: &[Part], shown: &str) -> Result<()> {
        // Without the file there is no swap.
        let swaps = self.read("proc/swaps").unwrap_or_default();
        for line in swaps.lines().skip(1) {
            let name = line.split_ascii_whitespace().next().unwrap_or_default();
            let name = name.strip_prefix("/dev/").unwrap_or(name);
            let used = parts.iter().find(|part| part.name == name);
            ensure!(used.is_none(), "{shown} is in use: {name} is swap of the running system");
        }
        Ok(())
    }

    fn read(&self, path: &str) -> Result<String> {
        let path = self.root.join(path);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// A disk, or a partition of it.
struct Part {
    name: String,
    /// MAJOR:MINOR.
    number: String,
    folder: PathBuf,
}

/// The disk at this folder in sysfs, and its partitions.
fn parts(folder: &Path) -> Result<Vec<Part>> {
    let mut folders = vec![folder.to_owned()];
    let below = names_in(folder)?.into_iter().map(|name| folder.join(name));
    folders.extend(below.filter(|part| part.join("partition").exists()));
    let part = |folder: PathBuf| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Part { name, number: read(&folder.join("dev")).unwrap_or_default(), folder }
    };
    Ok(folders.into_iter().map(part).collect())
}

/// Whether a disk is removable.
///
/// The kernel may say so, the disk may be on USB, or it may be an SD card in a built-in reader. An
/// eMMC chip on the board is no card.
fn is_card(folder: &Path) -> bool {
    read(&folder.join("removable")).as_deref() == Some("1")
        || read(&folder.join("device/type")).as_deref() == Some("SD")
        || folder.iter().any(|part| {
            let number = part.to_str().and_then(|part| part.strip_prefix("usb"));
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
        })
}

/// The text of a file in sysfs, trimmed.
fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The names in a folder, sorted; none if there is no such folder.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
