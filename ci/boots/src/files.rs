//! Folders of files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Copies a folder with all in it, but for these paths.
pub fn copy_folder(from: &Path, to: &Path, left_out: &[&str]) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if left_out.iter().any(|left_out| path == Path::new(left_out)) {
            continue;
        }
        let copy = to.join(path.file_name().context("an entry has a name")?);
        if path.is_dir() {
            copy_folder(&path, &copy, left_out)?;
        } else {
            fs::copy(&path, &copy).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_copied_but_what_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(from.join("target")).unwrap();
        fs::write(from.join("a/b/c"), "text").unwrap();
        let target = from.join("target");
        copy_folder(&from, &to, &[target.to_str().unwrap()]).unwrap();
        assert_eq!(fs::read(to.join("a/b/c")).unwrap(), b"text");
        assert!(!to.join("target").exists());
    }
}
