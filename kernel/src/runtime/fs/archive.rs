//! The files of an initrd that is no disk image, as a file system: they are read where they lie in
//! memory.

#![forbid(unsafe_code)]

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::FileSystem;
use super::initrd::File;
use super::volume::{Entry, Extent, FsError};
use crate::model_files::same_name;
use crate::report;
use crate::runtime::dev::block::Buffer;

/// Files in memory.
pub struct Archive {
    parts: Vec<&'static [u8]>,
    format: &'static str,
    files: Vec<File>,
}

impl Archive {
    /// The `files` of an initrd of these parts that has this format.
    pub fn new(parts: Vec<&'static [u8]>, format: &'static str, files: Vec<File>) -> Archive {
        Archive { parts, format, files }
    }

    /// The file `path`, if it is one; the entries below it, if it is a directory.
    fn look_up(&self, path: &str) -> Result<Found<'_>, FsError> {
        let wanted: Vec<&str> = parts(path).collect();
        let mut entries: Vec<Entry> = Vec::new();
        for file in &self.files {
            let names = wanted.iter().zip(parts(&file.path));
            let same = names.take_while(|(name, part)| same_name(name, part)).count();
            let mut rest = parts(&file.path).skip(same);
            match (same == wanted.len(), rest.next()) {
                (true, None) => return Ok(Found::File(file)),
                (true, Some(name)) => {
                    let is_dir = rest.next().is_some();
                    if !entries.iter().any(|entry| same_name(&entry.name, name)) {
                        let bytes = if is_dir { 0 } else { file.data.len() as u64 };
                        entries.push(Entry { name: name.to_string(), is_dir, bytes });
                    }
                }
                (false, None) => return Err(FsError::NotADirectory),
                (false, Some(_)) => {}
            }
        }
        if entries.is_empty() && !wanted.is_empty() {
            return Err(FsError::NotFound);
        }
        Ok(Found::Directory(entries))
    }
}

/// What a path leads to.
enum Found<'a> {
    File(&'a File),
    Directory(Vec<Entry>),
}

/// The names that a path is made of.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !matches!(*name, "" | "."))
}

impl FileSystem for Archive {
    fn report(&self) -> report::Disk {
        report::Disk {
            device: "initrd".into(),
            bytes: self.parts.iter().map(|part| part.len() as u64).sum(),
            filesystem: self.format.into(),
            label: String::new(),
            cluster_bytes: 0,
        }
    }

    fn entry(&mut self, path: &str) -> Result<Entry, FsError> {
        let name = parts(path).last().unwrap_or_default();
        Ok(match self.look_up(path)? {
            Found::File(file) => {
                let name = parts(&file.path).last().unwrap_or_default().into();
                Entry { name, is_dir: false, bytes: file.data.len() as u64 }
            }
            Found::Directory(_) => Entry { name: name.into(), is_dir: true, bytes: 0 },
        })
    }

    fn directory(&mut self, path: &str) -> Result<Vec<Entry>, FsError> {
        match self.look_up(path)? {
            Found::File(_) => Err(FsError::NotADirectory),
            Found::Directory(entries) => Ok(entries),
        }
    }

    fn extents(&mut self, path: &str) -> Result<Vec<Extent>, FsError> {
        match self.look_up(path)? {
            Found::File(File { data, .. }) => {
                let (position, bytes) = (data.start as u64, data.len() as u64);
                Ok(Vec::from([Extent { offset: 0, position, bytes }]))
            }
            Found::Directory(_) => Err(FsError::NotFound),
        }
    }

    fn read(&mut self, extents: &[Extent], offset: u64, mut buffer: Buffer) -> Result<(), FsError> {
        if buffer.is_empty() {
            return Ok(());
        }
        let too_short = FsError::Damaged("a file is shorter than its archive says");
        let place = extents.first().and_then(|extent| {
            let left = extent.bytes.checked_sub(offset)?;
            let start =
                extent.position.checked_add(offset).filter(|_| buffer.len() as u64 <= left)?;
            usize::try_from(start).ok()
        });
        // A file lies in one part; the whole of the initrd is read as a disk, too.
        let mut at = place.ok_or(too_short)?;
        let mut done = 0;
        for part in &self.parts {
            let here = part.get(at..).unwrap_or_default();
            let here = &here[..here.len().min(buffer.len() - done)];
            buffer.fill_part(done, here);
            done += here.len();
            at = at.saturating_sub(part.len());
        }
        if done == buffer.len() { Ok(()) } else { Err(too_short) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fs::testing::{content, lend, read_at, read_file, tree};
    use alloc::vec;

    /// An initrd with files at odd places, in two parts.
    fn archive() -> Archive {
        let mut initrd = content(7, 1);
        let mut files = Vec::new();
        let mut first = 0;
        for (path, bytes) in
            [("models/a.gguf", 20_011), ("anchorite.toml", 13), ("models/deeper/b", 0), ("c", 97)]
        {
            let start = initrd.len();
            initrd.extend(content(bytes, bytes as u64));
            files.push(File { path: path.into(), data: start..initrd.len() });
            if path == "models/a.gguf" {
                first = initrd.len();
            }
        }
        initrd.extend(content(3, 2));
        let (first, second) = initrd.leak().split_at(first);
        Archive::new(Vec::from([first, &[], second]), "cpio", files)
    }

    #[test]
    fn files_are_found_and_read() {
        let mut archive = archive();
        assert_eq!(read_file(&mut archive, "/models//./A.GGUF").unwrap(), content(20_011, 20_011));
        assert_eq!(read_file(&mut archive, "anchorite.toml").unwrap(), content(13, 13));
        assert!(read_file(&mut archive, "models/deeper/b").unwrap().is_empty());
        assert_eq!(read_file(&mut archive, "c").unwrap(), content(97, 97));
        let part = &content(20_011, 20_011)[101..10_108];
        assert_eq!(read_at(&mut archive, "models/a.gguf", 101, 10_007).unwrap(), part);
        let entry = Entry { name: "a.gguf".into(), is_dir: false, bytes: 20_011 };
        assert_eq!(archive.entry("MODELS/A.gguf"), Ok(entry));
        assert_eq!(archive.report().bytes, 7 + 20_011 + 13 + 97 + 3);
    }

    #[test]
    fn all_of_it_is_read_as_a_disk_across_its_parts() {
        let mut archive = archive();
        let whole = archive.parts.concat();
        let disk = [Extent { offset: 0, position: 0, bytes: whole.len() as u64 }];
        for (offset, bytes) in [(0, whole.len()), (20_001, 101), (7, 20_011), (20_018, 1)] {
            let mut data = vec![0; bytes];
            archive.read(&disk, offset as u64, lend(&mut data)).unwrap();
            assert!(data == whole[offset..offset + bytes], "{bytes} bytes at {offset}");
        }
    }

    #[test]
    fn directories_are_those_of_the_paths() {
        let mut archive = archive();
        let paths = ["/models/a.gguf", "/models/deeper/b", "/models/deeper/", "/models/"];
        let paths = paths.into_iter().chain(["/anchorite.toml", "/c"]);
        assert_eq!(tree(&mut archive, "", 3).unwrap(), paths.collect::<Vec<_>>());
        assert!(archive.entry("/").unwrap().is_dir);
        assert!(archive.entry("models/deeper").unwrap().is_dir);
        assert_eq!(archive.entry("nothing"), Err(FsError::NotFound));
        assert_eq!(archive.entry("models/nothing"), Err(FsError::NotFound));
        assert_eq!(archive.entry("model"), Err(FsError::NotFound));
        assert_eq!(archive.entry("c/d"), Err(FsError::NotADirectory));
        assert_eq!(archive.directory("c"), Err(FsError::NotADirectory));
        assert_eq!(archive.extents("models"), Err(FsError::NotFound));
    }

    #[test]
    fn nothing_behind_a_file_is_read() {
        let mut archive = archive();
        for (offset, bytes) in [(0, 98), (97, 1), (98, 1), (u64::MAX, 1)] {
            let result = read_at(&mut archive, "c", offset, bytes);
            assert!(matches!(result, Err(FsError::Damaged(_))), "{bytes} bytes at {offset}");
        }
        assert_eq!(read_at(&mut archive, "c", 97, 0), Ok(Vec::new()));
    }
}
