//! Files that are written whole or not at all.

use std::fs::File;
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;

use anyhow::{Context, Result};
use tempfile::Builder;

/// Has `fill` write a file that appears as `path` only when all of it is written, so that a fault
/// leaves no half-written file behind and spares the one that was there before. Nor does a signal that
/// ends the process.
pub fn write_whole<T>(path: &Path, fill: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let cannot_write = || format!("cannot write {}", path.display());
    let mut builder = Builder::new();
    builder.prefix(".image-builder-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file: what the user's umask leaves of it.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    // On the same file system as `path`, so that the last step is a rename.
    let mut file = builder.tempfile_in(folder).with_context(cannot_write)?;
    #[cfg(unix)]
    remove_on_signals(file.path().to_owned()).with_context(cannot_write)?;
    let value = fill(file.as_file_mut()).with_context(cannot_write)?;
    file.persist(path).with_context(cannot_write)?;
    Ok(value)
}

/// Removes `file` when a signal ends the process, which then ends by that signal. Once the file has
/// its final name, only the latter is left to do.
#[cfg(unix)]
fn remove_on_signals(file: PathBuf) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            // It may have its final name, or be gone.
            let _ = std::fs::remove_file(&file);
            // Fails only for what is no signal.
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}
