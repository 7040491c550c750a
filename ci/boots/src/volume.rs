//! A FAT volume in memory, and the damage that is done to it: changes to its bytes, by name.
//!
//! The fields of the boot sector and of a directory entry are those of Microsoft's "FAT: General
//! Overview of On-Disk Format", version 1.03.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use image_builder::fat::{self, FileSpec, Identity};
use image_builder::volume::{Notes, Volume as Reader};

/// The end of a chain of clusters in the table of a FAT16.
pub const END: u16 = 0xffff;

/// The bytes of a FAT16 volume.
pub struct Volume {
    bytes: Vec<u8>,
}

impl Volume {
    /// The volume in this file.
    pub fn read(path: &Path) -> Result<Volume> {
        Ok(Volume { bytes: std::fs::read(path)? })
    }

    /// A volume of these files, laid out by the image builder; unlike its command, of any files.
    pub fn of_files(files: &[(String, Vec<u8>)]) -> Result<Volume> {
        let spec = |(path, bytes): &(String, Vec<u8>)| FileSpec {
            path: path.clone(),
            bytes: bytes.len() as u32,
        };
        let specs: Vec<FileSpec> = files.iter().map(spec).collect();
        let identity = Identity { label: *b"ANCHORITE  ", id: 1, sectors_before: 0 };
        let layout = fat::lay_out(&specs, None, identity)
            .map_err(|e| anyhow::anyhow!("no volume holds these files: {e:?}"))?;
        let mut bytes = vec![0; layout.geometry.bytes as usize];
        let mut put = |start: u64, part: &[u8]| {
            bytes[start as usize..][..part.len()].copy_from_slice(part);
        };
        for ((_, file), start) in files.iter().zip(&layout.starts) {
            put(*start, file);
        }
        for (start, part) in &layout.metadata {
            put(*start, part);
        }
        Ok(Volume { bytes })
    }

    /// The files in it, with their bytes.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let file = self.as_file()?;
        let notes = Notes::default();
        let volume = Reader::mount_at(file, 0, &notes)?;
        let mut files = Vec::new();
        for (path, _) in volume.files()? {
            let mut bytes = Vec::new();
            volume.read_file(&path, |part| bytes.extend_from_slice(part))?;
            files.push((path, bytes));
        }
        Ok(files)
    }

    /// The byte at which a file starts.
    pub fn start_of(&self, path: &str) -> Result<u64> {
        let file = self.as_file()?;
        let notes = Notes::default();
        let content = Reader::mount_at(file, 0, &notes)?.read_file(path, |_| {})?;
        Ok(content.extents.first().with_context(|| format!("{path} is empty"))?.start)
    }

    fn as_file(&self) -> Result<std::fs::File> {
        let mut file = tempfile::tempfile()?;
        file.write_all(&self.bytes)?;
        Ok(file)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes these bytes over what is there.
    pub fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let place = self.bytes.get_mut(at as usize..at as usize + bytes.len());
        place.context("that lies behind the volume")?.copy_from_slice(bytes);
        Ok(())
    }

    /// Flips one bit of a byte.
    pub fn flip(&mut self, at: u64, bit: u32) -> Result<()> {
        *self.bytes.get_mut(at as usize).context("that lies behind the volume")? ^= 1 << bit;
        Ok(())
    }

    /// Cuts the volume off behind so many bytes.
    pub fn cut(&mut self, bytes: u64) {
        self.bytes.truncate(bytes as usize);
    }

    /// What the boot sector says of the sectors of a cluster is no longer true.
    pub fn set_sectors_per_cluster(&mut self, sectors: u8) -> Result<()> {
        self.put(13, &[sectors])
    }

    fn u16_at(&self, at: u64) -> u64 {
        let at = at as usize;
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]).into()
    }

    fn cluster_bytes(&self) -> u64 {
        self.u16_at(11) * u64::from(self.bytes[13])
    }

    /// The first byte of the first table.
    fn table_at(&self) -> u64 {
        self.u16_at(14) * self.u16_at(11)
    }

    /// The cluster that stands behind `cluster` in the chain of its file.
    pub fn next(&self, cluster: u16) -> u16 {
        self.u16_at(self.table_at() + 2 * u64::from(cluster)) as u16
    }

    /// Puts `next` behind `cluster` in the first table.
    pub fn link(&mut self, cluster: u16, next: u16) -> Result<()> {
        self.put(self.table_at() + 2 * u64::from(cluster), &next.to_le_bytes())
    }

    /// The directory entry with this short name, padded as FAT stores it.
    pub fn entry(&self, short_name: &str) -> Result<Entry> {
        let name = short_name.as_bytes();
        ensure!(name.len() == 11, "{short_name:?} is not padded to 11 bytes");
        let entries = self.bytes.as_chunks::<32>().0;
        let number = entries.iter().position(|entry| entry.starts_with(name));
        let at = number.with_context(|| format!("there is no entry {short_name:?}"))? as u64 * 32;
        let bytes = self.u16_at(at + 28) | self.u16_at(at + 30) << 16;
        let first = self.u16_at(at + 26) as u16;
        let last = first + ((bytes - 1) / self.cluster_bytes()) as u16;
        Ok(Entry { at, bytes: bytes as u32, first, last })
    }

    /// Has a directory say that a file is of this size.
    pub fn set_size(&mut self, entry: Entry, bytes: u32) -> Result<()> {
        self.put(entry.at + 28, &bytes.to_le_bytes())
    }
}

/// A directory entry of a file that lies in one run of clusters.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    at: u64,
    /// The file's size.
    pub bytes: u32,
    /// Its first cluster.
    pub first: u16,
    /// Its last one.
    pub last: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Volume {
        let files =
            [("a.txt".to_owned(), vec![1; 9000]), ("models/Ab.bin".to_owned(), vec![2; 5000])];
        Volume::of_files(&files).unwrap()
    }

    #[test]
    fn files_read_back() {
        let volume = volume();
        let files = volume.files().unwrap();
        assert_eq!(files[0], ("a.txt".into(), vec![1; 9000]));
        assert_eq!(files[1], ("models/Ab.bin".into(), vec![2; 5000]));
        let start = volume.start_of("models/Ab.bin").unwrap() as usize;
        assert_eq!(volume.bytes()[start..][..5000], [2; 5000]);
    }

    #[test]
    fn entries_lead_through_the_table() {
        let mut volume = volume();
        let entry = volume.entry("A~1     TXT").unwrap();
        assert_eq!(entry.bytes, 9000);
        assert_eq!(volume.next(entry.last), END);
        assert!(volume.entry("B~1     TXT").is_err());
        volume.link(entry.last, entry.first).unwrap();
        assert_eq!(volume.next(entry.last), entry.first);
        volume.set_size(entry, 9001).unwrap();
        assert_eq!(volume.entry("A~1     TXT").unwrap().bytes, 9001);
        // The reader walks the chain that the first table has.
        volume.link(entry.first, END).unwrap();
        let (_, file) = &volume.files().unwrap()[0];
        assert_eq!(*file, vec![1; volume.cluster_bytes() as usize]);
    }
}
