//! Output files of a command: never one of its inputs, and never a disk.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tempfile::Builder;

/// The kind of thing that a path leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    /// A block device.
    Disk,
    /// A stream of bytes: a character device, a pipe, a socket.
    Stream(&'static str),
}

impl Kind {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Kind {
        use std::os::unix::fs::FileTypeExt;

        let kind = metadata.file_type();
        match () {
            () if kind.is_file() => Kind::File,
            () if kind.is_dir() => Kind::Folder,
            () if kind.is_block_device() => Kind::Disk,
            () if kind.is_fifo() => Kind::Stream("a pipe"),
            () if kind.is_socket() => Kind::Stream("a socket"),
            () => Kind::Stream("a character device"),
        }
    }

    #[cfg(not(unix))]
    fn of(metadata: &Metadata) -> Kind {
        match () {
            () if metadata.is_file() => Kind::File,
            () if metadata.is_dir() => Kind::Folder,
            () => Kind::Stream("a device"),
        }
    }
}

/// The place of an output file, which is written whole or not at all.
#[derive(Debug)]
pub struct Target {
    /// The path as the user wrote it.
    shown: PathBuf,
    /// The path after all symbolic links.
    path: PathBuf,
    /// The permissions of the file that exists there, if one does.
    permissions: Option<Permissions>,
}

impl Target {
    /// Checks that a file can be put at `path`.
    ///
    /// The command reads `inputs`, some of which may not exist.
    ///
    /// # Errors
    /// The path leads to something other than a file, to an input, or to a file without write
    /// permission.
    pub fn new(path: &Path, inputs: &[PathBuf]) -> Result<Target> {
        let shown = path.to_owned();
        let there = look(path, inputs)?;
        match there.as_ref().map(Kind::of) {
            Some(Kind::Stream(what)) => bail!("{} is {what}: name a file", path.display()),
            Some(Kind::Folder) => bail!("{} is a folder: name a file in it", path.display()),
            Some(Kind::File | Kind::Disk) | None => {}
        }
        let cannot_write = || format!("cannot write {}", shown.display());
        let path = match &there {
            // A rename would need fewer permissions than this.
            Some(_) => OpenOptions::new().write(true).open(path).and_then(|_| path.canonicalize()),
            None => Ok(behind_links(path)),
        };
        let path = path.with_context(cannot_write)?;
        let permissions = there.map(|metadata| metadata.permissions());
        Ok(Target { shown, path, permissions })
    }

    /// Lets `fill` write the file, whole or not at all.
    ///
    /// The file appears in its place only when all of it is written. A fault, or a signal that ends
    /// the process, leaves no half-written file behind. The file that was there before then stays.
    ///
    /// # Errors
    /// Those of `fill`; or the file cannot be written.
    pub fn write<T>(&self, fill: impl FnOnce(&mut Output) -> Result<T>) -> Result<T> {
        let cannot_write = || format!("cannot write {}", self.shown.display());
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut builder = Builder::new();
        builder.prefix(".anchorite-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The mode of any new file: the user's umask reduces it.
            builder.permissions(Permissions::from_mode(0o666));
        }
        // On the same file system as the target, so that the last step is a rename.
        let part =
            unfinished::Part::new(|| builder.tempfile_in(folder)).with_context(cannot_write)?;
        let file = part.file().try_clone().with_context(cannot_write)?;
        let value = fill(&mut Output::new(file, &self.shown))?;
        if let Some(permissions) = &self.permissions {
            part.file().set_permissions(permissions.clone()).with_context(cannot_write)?;
        }
        part.persist(&self.path).with_context(cannot_write)?;
        Ok(value)
    }
}

/// Opens the file at `path` to be written bit by bit, and empties it.
///
/// The command reads `inputs`. A pipe or a character device such as `/dev/null` is allowed too.
///
/// # Errors
/// The path leads to a disk or to one of the inputs, or cannot be written.
pub fn create(path: &Path, inputs: &[PathBuf]) -> Result<File> {
    look(path, inputs)?;
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Metadata of the file that an output at `path` would replace, if there is one.
///
/// The command reads `inputs`.
///
/// # Errors
/// The path leads to a disk or to one of the inputs.
pub fn look(path: &Path, inputs: &[PathBuf]) -> Result<Option<Metadata>> {
    let shown = path.display();
    let there = match fs::metadata(path) {
        Ok(there) => there,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot write {shown}")),
    };
    ensure!(
        Kind::of(&there) != Kind::Disk,
        "{shown} is a disk: name a file. `image-builder sd --device {shown}` writes a card"
    );
    if let Some(input) = inputs.iter().find(|input| is_one_file(path, input)) {
        bail!(
            "{shown} would be replaced, and it is the input {}: give the output another name",
            input.display()
        );
    }
    Ok(Some(there))
}

/// Whether two paths lead to the same file. A device or a pipe is not a file.
pub fn is_one_file(a: &Path, b: &Path) -> bool {
    // Nothing is opened: a pipe would wait for its other end.
    #[cfg(unix)]
    let identity = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path).ok().filter(Metadata::is_file);
        metadata.map(|metadata| (metadata.dev(), metadata.ino()))
    };
    #[cfg(not(unix))]
    let identity = |path: &Path| path.canonicalize().ok().filter(|path| path.is_file());
    identity(a).is_some_and(|a| identity(b) == Some(a))
}

/// The end of a chain of symbolic links. It leads to no file yet, and has no circle.
fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    while let Ok(to) = fs::read_link(&path) {
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    path
}

/// An output file that is being written. Its errors have the file's name.
#[derive(Debug)]
pub struct Output {
    file: File,
    shown: PathBuf,
}

impl Output {
    /// Wraps a file that is open for reading and writing. Errors call it `shown`.
    pub fn new(file: File, shown: &Path) -> Output {
        Output { file, shown: shown.to_owned() }
    }

    /// Sets the file's length, in bytes.
    ///
    /// # Errors
    /// The file cannot have this length.
    pub fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.named(self.file.set_len(bytes))
    }

    /// Another handle of the file, to read it back. Both handles share one position.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn read_back(&self) -> io::Result<File> {
        self.named(self.file.try_clone())
    }

    fn named<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|e| {
            io::Error::new(e.kind(), format!("cannot write {}: {e}", self.shown.display()))
        })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        self.named(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.named(flushed)
    }
}

impl Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = self.file.seek(to);
        self.named(place)
    }
}

impl Read for Output {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

/// Files without their final names; a signal that ends the process removes them.
mod unfinished {
    use std::fs::File;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use tempfile::NamedTempFile;

    /// The paths of all unfinished files; `None` before the first one.
    static PATHS: Mutex<Option<Vec<PathBuf>>> = Mutex::new(None);

    fn paths() -> MutexGuard<'static, Option<Vec<PathBuf>>> {
        PATHS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An unfinished file.
    pub struct Part {
        file: NamedTempFile,
        listed: Listed,
    }

    /// The path of an unfinished file, listed for as long as this value lives.
    struct Listed(PathBuf);

    impl Drop for Listed {
        fn drop(&mut self) {
            paths().iter_mut().for_each(|paths| paths.retain(|path| *path != self.0));
        }
    }

    impl Part {
        /// Lists the file that `make` makes.
        pub fn new(make: impl FnOnce() -> io::Result<NamedTempFile>) -> io::Result<Part> {
            // A signal that comes meanwhile waits until the path is listed.
            let mut paths = paths();
            if paths.is_none() {
                watch_signals()?;
            }
            let file = make()?;
            let path = file.path().to_owned();
            paths.get_or_insert_default().push(path.clone());
            Ok(Part { file, listed: Listed(path) })
        }

        /// The file.
        pub fn file(&self) -> &File {
            self.file.as_file()
        }

        /// Gives the file its final name.
        pub fn persist(self, path: &Path) -> io::Result<()> {
            let Part { file, listed } = self;
            let persisted = file.persist(path);
            drop(listed);
            Ok(persisted.map(drop)?)
        }
    }

    /// Starts a thread that removes the files when a signal ends the process.
    #[cfg(unix)]
    fn watch_signals() -> io::Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        use signal_hook::iterator::Signals;
        use signal_hook::low_level::emulate_default_handler;

        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        std::thread::Builder::new().spawn(move || {
            for signal in signals.forever() {
                for path in paths().iter().flatten() {
                    // The file may have its final name by now.
                    let _ = std::fs::remove_file(path);
                }
                // Fails only for a number that is no signal.
                let _ = emulate_default_handler(signal);
            }
        })?;
        Ok(())
    }

    #[cfg(not(unix))]
    fn watch_signals() -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    /// Writes `text` to `path` in a command that reads `inputs`; the error is a text.
    fn write(path: &Path, inputs: &[PathBuf], text: &str) -> Result<(), String> {
        let write = || Target::new(path, inputs)?.write(|out| Ok(out.write_all(text.as_bytes())?));
        write().map_err(|e| format!("{e:#}"))
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for text in ["one", "another"] {
            write(&path, &[], text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let failed: Result<()> = Target::new(&path, &[]).unwrap().write(|out| {
            out.write_all(b"half of it")?;
            bail!("enough")
        });
        assert_eq!(failed.unwrap_err().to_string(), "enough");
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        assert_eq!(names(folder.path()), ["a"]);
        let error = write(&folder.path().join("none/a"), &[], "").unwrap_err();
        assert!(error.starts_with("cannot write ") && error.contains("none/a"), "{error}");
    }

    #[test]
    fn what_is_written_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, &[], "one").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        fs::write(folder.path().join("b"), "").unwrap();
        assert_eq!(mode(&path), mode(&folder.path().join("b")), "a new file's are the usual ones");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write(&path, &[], "another").unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn symbolic_links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [there, none, link, far, circle] =
            ["there", "sub/none", "link", "far", "circle"].map(|name| folder.path().join(name));
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(&there, "old").unwrap();
        symlink("there", &link).unwrap();
        write(&link, &[], "new").unwrap();
        assert_eq!(fs::read_to_string(&there).unwrap(), "new");

        // Links that lead to no file yet are followed too.
        symlink("sub/none", folder.path().join("near")).unwrap();
        symlink(folder.path().join("near"), &far).unwrap();
        write(&far, &[], "made").unwrap();
        assert_eq!(fs::read_to_string(&none).unwrap(), "made");
        for link in [&link, &far] {
            assert!(fs::symlink_metadata(link).unwrap().is_symlink(), "{}", link.display());
        }
        symlink("circle", &circle).unwrap();
        assert!(write(&circle, &[], "").unwrap_err().starts_with("cannot write "));
        assert_eq!(names(folder.path()), ["circle", "far", "link", "near", "sub", "there"]);
        assert_eq!(names(&folder.path().join("sub")), ["none"]);
    }

    #[test]
    fn an_input_is_refused_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let [input, hard, soft, missing] =
            ["input", "hard", "soft", "missing"].map(|name| folder.path().join(name));
        fs::write(&input, "dear").unwrap();
        fs::hard_link(&input, &hard).unwrap();
        symlink("input", &soft).unwrap();
        let roundabout = folder.path().join("../").join(folder.path()).join("./input");
        let inputs = [missing.clone(), input.clone()];
        for path in [&input, &hard, &soft, &roundabout] {
            let error = write(path, &inputs, "cheap").unwrap_err();
            let says = format!("it is the input {}: give the output another", input.display());
            assert!(error.contains(&says), "{error}");
            assert!(create(path, &inputs).is_err(), "{}", path.display());
        }
        let error = write(&input, std::slice::from_ref(&soft), "cheap").unwrap_err();
        assert!(error.contains("it is the input ") && error.contains("soft"), "{error}");
        assert_eq!(fs::read_to_string(&input).unwrap(), "dear");
        write(&missing, &inputs, "made").unwrap();
    }

    #[test]
    fn what_is_no_file_is_no_target() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        symlink("/dev/null", &link).unwrap();
        for (path, says) in [
            (Path::new("/dev/null"), "/dev/null is a character device: name a file"),
            (&link, "link is a character device"),
            (&pipe, "pipe is a pipe"),
            (folder.path(), "is a folder: name a file in it"),
        ] {
            let error = write(path, &[], "").unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(names(folder.path()), ["link", "pipe"]);
        // A log may be written to these.
        create(&link, &[]).unwrap().write_all(b"a log").unwrap();
    }

    /// Only root can make block devices, and not in every container.
    #[test]
    fn a_disk_is_refused_with_the_command_that_writes_one() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        // Number 7:255 is that of a loop device, and usually unused.
        let made = std::process::Command::new("mknod").arg(&disk).args(["b", "7", "255"]).output();
        if !made.is_ok_and(|made| made.status.success()) {
            eprintln!("SKIPPED: cannot make {}", disk.display());
            return;
        }
        let errors = [write(&disk, &[], "").err(), create(&disk, &[]).err().map(|e| e.to_string())];
        for error in errors {
            let error = error.unwrap();
            assert!(error.contains("is a disk: name a file"), "{error}");
            assert!(error.contains("`image-builder sd --device "), "{error}");
        }
        assert!(Kind::of(&fs::metadata(&disk).unwrap()) == Kind::Disk);
    }
}
