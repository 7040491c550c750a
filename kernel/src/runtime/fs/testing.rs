//! Disk images for the tests of this module.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core_io::{Read, Seek, SeekFrom, Write};

use super::FileSystem;
use super::volume::FsError;
use crate::runtime::dev::block::Buffer;
use crate::runtime::dev::block::fake::random;

/// An image that can be formatted and written to.
pub struct Image {
    pub bytes: Vec<u8>,
    position: u64,
}

impl Read for Image {
    fn read(&mut self, out: &mut [u8]) -> core_io::Result<usize> {
        let rest = self.bytes.get(self.position as usize..).unwrap_or_default();
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Write for Image {
    fn write(&mut self, data: &[u8]) -> core_io::Result<usize> {
        let rest = self.bytes.get_mut(self.position as usize..).unwrap_or_default();
        let n = rest.len().min(data.len());
        rest[..n].copy_from_slice(&data[..n]);
        self.position += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> core_io::Result<()> {
        Ok(())
    }
}

impl Seek for Image {
    fn seek(&mut self, to: SeekFrom) -> core_io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => self.position.strict_add_signed(by),
            SeekFrom::End(by) => (self.bytes.len() as u64).strict_add_signed(by),
        };
        Ok(self.position)
    }
}

/// Bytes made from a seed.
pub fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..bytes).map(|_| random(&mut state) as u8).collect()
}

/// One way to lay out a volume.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub fat_type: fatfs::FatType,
    pub bytes: usize,
    pub sector_bytes: u16,
    pub cluster_bytes: u32,
}

/// A volume of each type, and one with large sectors.
pub const LAYOUTS: [Layout; 4] = [
    Layout {
        fat_type: fatfs::FatType::Fat12,
        bytes: 2 << 20,
        sector_bytes: 512,
        cluster_bytes: 1024,
    },
    Layout {
        fat_type: fatfs::FatType::Fat16,
        bytes: 16 << 20,
        sector_bytes: 512,
        cluster_bytes: 2048,
    },
    Layout {
        fat_type: fatfs::FatType::Fat32,
        bytes: 34 << 20,
        sector_bytes: 512,
        cluster_bytes: 512,
    },
    Layout {
        fat_type: fatfs::FatType::Fat12,
        bytes: 4 << 20,
        sector_bytes: 4096,
        cluster_bytes: 4096,
    },
];

/// A formatted image with `files`, paths and contents; `chunk` bytes are written to one file, then
/// to the next, so that small chunks make fragmented files.
pub fn volume(layout: Layout, files: &[(&str, Vec<u8>)], chunk: usize) -> Vec<u8> {
    let mut image = Image { bytes: vec![0; layout.bytes], position: 0 };
    let options = fatfs::FormatVolumeOptions::new()
        .bytes_per_sector(layout.sector_bytes)
        .bytes_per_cluster(layout.cluster_bytes)
        .fat_type(layout.fat_type)
        .volume_label(*b"ANCHORITE  ");
    fatfs::format_volume(&mut image, options).unwrap();
    image.position = 0;
    let fs = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    assert_eq!(fs.fat_type(), layout.fat_type);
    let root = fs.root_dir();
    for (path, _) in files {
        for (i, _) in path.match_indices('/') {
            root.create_dir(&path[..i]).unwrap();
        }
    }
    let mut open: Vec<_> =
        files.iter().map(|(path, data)| (root.create_file(path).unwrap(), &data[..])).collect();
    while open.iter().any(|(_, data)| !data.is_empty()) {
        for (file, data) in &mut open {
            let (now, later) = data.split_at(data.len().min(chunk));
            file.write_all(now).unwrap();
            *data = later;
        }
    }
    drop(open);
    drop(root);
    fs.unmount().unwrap();
    image.bytes
}

/// Lends `data` to a disk for the next read.
pub fn lend(data: &mut [u8]) -> Buffer {
    // SAFETY: the tests do not touch the data before the read is over, and the fake disk does not
    // touch it afterwards, even where it plays one that has gone silent.
    unsafe { Buffer::new(NonNull::from(data)) }
}

/// Reads `bytes` bytes of a file from `offset` on.
pub fn read_at(
    volume: &mut dyn FileSystem,
    path: &str,
    offset: u64,
    bytes: usize,
) -> Result<Vec<u8>, FsError> {
    let extents = volume.extents(path)?;
    let mut data = vec![0xA5; bytes];
    volume.read(&extents, offset, lend(&mut data))?;
    Ok(data)
}

/// Reads a whole file.
pub fn read_file(volume: &mut dyn FileSystem, path: &str) -> Result<Vec<u8>, FsError> {
    let bytes = volume.entry(path)?.bytes as usize;
    read_at(volume, path, 0, bytes)
}

/// All paths of a volume, those of directories with a `/` at the end.
pub fn tree(volume: &mut dyn FileSystem, path: &str, depth: usize) -> Result<Vec<String>, FsError> {
    let mut paths = Vec::new();
    for entry in volume.directory(path)? {
        let inner = alloc::format!("{path}/{}", entry.name);
        if entry.is_dir && depth > 0 && !entry.name.starts_with('.') {
            paths.extend(tree(volume, &inner, depth - 1)?);
        }
        paths.push(if entry.is_dir { inner + "/" } else { inner });
    }
    Ok(paths)
}
