//! Files that are written whole or not at all.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::Builder;

/// Has `fill` write a file that appears as `path` only when all of it is written, so that a fault
/// leaves no half-written file behind and spares the one that was there before.
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
    let value = fill(file.as_file_mut()).with_context(cannot_write)?;
    file.persist(path).with_context(cannot_write)?;
    Ok(value)
}
