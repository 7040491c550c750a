//! `image-builder cached`: reuses a disk that has the same content.
//!
//! A disk's name holds a checksum over all its content, so that no other disk can be taken for it.
//! Only one process at a time works on the folder. The last disks for each model's name are kept.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use host_io::console::print_line;
use host_io::files::Target;
use kernel::model_files::is_model;

use crate::checksum::Sum;
use crate::contents::{self, Contents};
use crate::model::ModelFile;

/// The number of disks that are kept for each model's name.
const KEPT: usize = 3;
/// The minimum time that a disk is kept after a request.
///
/// The requester opens the disk well before that, and an open file outlives its name.
const IN_USE: Duration = Duration::from_secs(600);
/// The minimum age of a file's last change before its checksum is remembered.
///
/// File systems count time in steps, so a change soon after another may not show.
const SETTLED: Duration = Duration::from_secs(2);
/// The number of remembered checksums.
const SUMS: usize = 100;

/// Command-line options of `image-builder cached`.
#[derive(clap::Args)]
pub struct Options {
    /// The folder with the disks; created if it does not exist
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    contents: contents::ContentOptions,
}

/// Makes the disk, unless it exists, and prints its path.
pub fn build(options: &Options) -> Result<()> {
    let folder = &options.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let contents = Contents::open(&options.contents, Vec::new(), None)?;
    let layout = contents.lay_out(options.contents.size, options.contents.label, 0)?;
    // The lock is released at the end of the process.
    let _lock = lock(folder)?;
    let (key, sums) = contents.key(&layout, |model| sum_of(model, folder))?;

    let stem = Path::new(contents.first_model()).file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy();
    let name = format!("{stem}-{}.img", &key.to_string()[..DIGITS]);
    let disk = folder.join(name);
    if !is_there(&disk, layout.geometry.bytes) {
        Target::new(&disk, &options.contents.inputs())?.write(|file| {
            let written = contents.write(file, 0, &layout)?;
            if options.contents.verify {
                contents::verify(file.read_back()?, 0, &written)?;
            }
            let models = written.iter().filter(|(path, _)| is_model(path));
            ensure!(
                models.map(|(_, content)| content.sum).eq(sums),
                "a model was changed while it was read; try again"
            );
            Ok(())
        })?;
        contents.describe_models()?;
        remove_old(folder, &stem, &disk);
    }
    Ok(print_line(disk.display())?)
}

/// The number of hexadecimal digits of the checksum in a disk's name.
const DIGITS: usize = 16;

/// Locks the folder, and waits if another process has locked it.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let cannot_lock = || format!("cannot lock {}", path.display());
    let file = File::create(&path).with_context(cannot_lock)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            crate::say(&format!(
                "waiting for another run that makes a disk in {}",
                folder.display()
            ));
            file.lock().with_context(cannot_lock)?;
        }
        Err(TryLockError::Error(e)) => return Err(e).with_context(cannot_lock),
    }
    Ok(file)
}

/// Whether the disk exists with its full size. Marks the disk as used.
fn is_there(disk: &Path, bytes: u64) -> bool {
    let Ok(file) = File::open(disk) else { return false };
    // Another user's file cannot be marked, and may then be made again one day.
    let _ = file.set_modified(SystemTime::now());
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes)
}

/// Removes old disks for a model's name.
///
/// The last disks stay, and those that were requested a short while ago.
fn remove_old(folder: &Path, stem: &str, new: &Path) {
    let is_sum = |text: &str| text.len() == DIGITS && text.bytes().all(|c| c.is_ascii_hexdigit());
    let is_disk = |name: &str| {
        let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.strip_suffix(".img")).is_some_and(is_sum)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut disks: Vec<(SystemTime, PathBuf)> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_disk) && entry.path() != new)
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    disks.sort();
    disks.truncate((disks.len() + 1).saturating_sub(KEPT));
    for (used, disk) in disks {
        if used.elapsed().is_ok_and(|ago| ago > IN_USE) {
            // A disk that cannot be removed only takes space.
            let _ = fs::remove_file(disk);
        }
    }
}

/// The checksum of a model's file.
///
/// The remembered checksum is used if the file is the same and has not changed since.
fn sum_of(model: &ModelFile, folder: &Path) -> Result<Sum> {
    let remembered = folder.join(".sums");
    let text = fs::read_to_string(&remembered).unwrap_or_default();
    let started = SystemTime::now();
    let before = State::of(&model.file)?;
    let sum = |line: &str| {
        let digits = line.strip_prefix(&before.line)?.strip_prefix(' ')?;
        Sum::of_model("model", format!("{digits}  model\n").as_bytes()).ok()
    };
    if let Some(sum) = text.lines().find_map(sum) {
        return Ok(sum);
    }

    let sum = model.sum()?;
    ensure!(
        State::of(&model.file)?.line == before.line,
        "it was changed while it was read; try again"
    );
    if before.is_settled(started) {
        let new = format!("{} {sum}\n", before.line);
        let old: Vec<&str> = text.split_inclusive('\n').take(SUMS - 1).collect();
        Target::new(&remembered, &[])?
            .write(|file| Ok(file.write_all((new + &old.concat()).as_bytes())?))?;
    }
    Ok(sum)
}

/// The identity and the times of a file, to detect a change.
///
/// A copy in the file's place has another inode. Nobody can set the ctime of a file, as `cp -p`
/// sets the mtime.
struct State {
    /// Device, inode, size, mtime and ctime.
    line: String,
    /// The later of both times.
    changed: Option<SystemTime>,
}

impl State {
    #[cfg(unix)]
    fn of(file: &File) -> Result<State> {
        use std::os::unix::fs::MetadataExt;

        let it = file.metadata()?;
        let content = (it.mtime(), it.mtime_nsec());
        let change = (it.ctime(), it.ctime_nsec());
        let (seconds, nanoseconds) = content.max(change);
        let after_1970 =
            |s, ns| Some(Duration::new(u64::try_from(s).ok()?, u32::try_from(ns).ok()?));
        Ok(State {
            line: format!(
                "{} {} {} {}.{:09} {}.{:09}",
                it.dev(),
                it.ino(),
                it.len(),
                content.0,
                content.1,
                change.0,
                change.1
            ),
            changed: after_1970(seconds, nanoseconds).map(|ago| SystemTime::UNIX_EPOCH + ago),
        })
    }

    /// Elsewhere the state is unknown, and each file is hashed each time.
    #[cfg(not(unix))]
    fn of(_: &File) -> Result<State> {
        Ok(State { line: "?".into(), changed: None })
    }

    /// Whether any change after `start` would show in the file's times.
    fn is_settled(&self, start: SystemTime) -> bool {
        let changed = self.changed.and_then(|changed| start.duration_since(changed).ok());
        changed.is_some_and(|ago| ago > SETTLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_settled_some_time_after_its_last_change() {
        let file = tempfile::tempfile().unwrap();
        let now = SystemTime::now();
        let state = State::of(&file).unwrap();
        assert!(!state.is_settled(now));
        assert!(!state.is_settled(now - Duration::from_secs(60)), "a clock that was set back");
        assert!(state.is_settled(now + Duration::from_secs(60)));
        // An old mtime alone does not settle the file.
        file.set_modified(now - Duration::from_secs(3600)).unwrap();
        assert!(!State::of(&file).unwrap().is_settled(now));
    }

    #[test]
    fn of_old_disks_the_last_ones_are_kept_and_those_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let disk = |name: &str, minutes: u64| {
            let path = folder.path().join(name);
            let ago = SystemTime::now() - Duration::from_secs(60 * minutes);
            File::create(&path).unwrap().set_modified(ago).unwrap();
            path
        };
        let sum = |digit: &str| digit.repeat(DIGITS);
        let of = |digit: &str, minutes| disk(&format!("a-{}.img", sum(digit)), minutes);
        let left = || {
            let mut names: Vec<_> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let new = of("0", 0);
        for (digit, minutes) in [("1", 50), ("2", 40), ("3", 30), ("4", 20)] {
            of(digit, minutes);
        }
        disk(&format!("a-b-{}.img", sum("5")), 90);
        disk("a-user's own.img", 90);
        disk(&format!("a-{}.txt", sum("6")), 90);
        remove_old(folder.path(), "a", &new);
        let kept = [
            format!("a-{}.img", sum("0")),
            format!("a-{}.img", sum("3")),
            format!("a-{}.img", sum("4")),
            format!("a-{}.txt", sum("6")),
            format!("a-b-{}.img", sum("5")),
            "a-user's own.img".to_owned(),
        ];
        assert_eq!(left(), kept);
        // All disks that were requested a short while ago stay.
        for digit in ["7", "8", "9"] {
            of(digit, 9);
        }
        remove_old(folder.path(), "a", &new);
        assert_eq!(left().len(), kept.len() + 3 - 2);
        assert!(left().contains(&format!("a-{}.img", sum("7"))));
    }
}
