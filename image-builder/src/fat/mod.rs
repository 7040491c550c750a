//! Lays out a FAT volume of known files, each in one run of clusters.
//!
//! The layout follows Microsoft's "FAT: General Overview of On-Disk Format", version 1.03. `fatfs`
//! 0.3.6 could write such a volume too, but gives `.` and `..` long names. `fsck.fat` calls these
//! damage. So `fatfs`, the kernel's reader, only checks what is written here.

mod boot_sector;
mod folder;
mod geometry;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use geometry::{FAT32_FROM, Geometry, Kind, LARGEST, SMALLEST};

use folder::Folder;
pub use geometry::CLUSTERS_FROM;

/// A file to lay out.
#[derive(Clone, Debug)]
pub struct FileSpec {
    /// The file's name, or a folder's name, `/`, and the file's name.
    pub path: String,
    /// The size.
    pub bytes: u32,
}

/// The identity of a volume.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The label, padded with spaces.
    pub label: [u8; 11],
    /// Its serial number.
    pub id: u32,
    /// Sectors before the volume on its device: 0, or the start of its partition.
    pub sectors_before: u32,
}

/// The layout of a volume, ready to be written.
#[derive(Debug)]
pub struct Layout {
    /// The size and division.
    pub geometry: Geometry,
    /// Its serial number.
    pub id: u32,
    /// The first byte of each file, in the given order; 0 for an empty file.
    pub starts: Vec<u64>,
    /// All other bytes that are not zero: blocks with their first byte.
    pub metadata: Vec<(u64, Vec<u8>)>,
}

/// Why files cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The requested volume is too small.
    TooSmall {
        /// The size of the smallest volume that fits, in bytes.
        needed: u64,
    },
    /// No volume is large enough.
    TooMuch,
}

/// Lays out `files`, in order, on a volume of `bytes` bytes.
///
/// With `None`, the volume is the smallest that fits, with some space for small changes.
///
/// # Errors
/// They do not fit.
pub fn lay_out(
    files: &[FileSpec],
    bytes: Option<u64>,
    identity: Identity,
) -> Result<Layout, Misfit> {
    let tree = Tree::of(files);
    let fits = |geometry: &Geometry| tree.clusters(geometry) <= u64::from(geometry.clusters);
    let fitting = || {
        let data: u64 = files.iter().map(|file| u64::from(file.bytes)).sum();
        geometry::steps_from(data).find(fits).ok_or(Misfit::TooMuch)
    };
    let geometry = match bytes {
        None => fitting()?,
        Some(bytes) => match Some(Geometry::of_size(bytes)).filter(fits) {
            Some(geometry) => geometry,
            None => return Err(Misfit::TooSmall { needed: fitting()?.bytes }),
        },
    };
    Ok(tree.place(geometry, identity))
}

/// The files by folder. The first folder is the root, which holds the others.
struct Tree<'a> {
    files: &'a [FileSpec],
    folders: Vec<Folder<'a>>,
}

impl<'a> Tree<'a> {
    fn of(files: &'a [FileSpec]) -> Tree<'a> {
        let mut folders = vec![Folder::root()];
        let mut by_name = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            match file.path.split_once('/') {
                None => folders[0].add_file(&file.path, number),
                Some((folder, name)) => {
                    let folder = *by_name.entry(folder).or_insert_with(|| {
                        let number = folders.len();
                        folders[0].add_folder(folder, number);
                        folders.push(Folder::within_root());
                        number
                    });
                    folders[folder].add_file(name, number);
                }
            }
        }
        Tree { files, folders }
    }

    /// The bytes of folder `i` in clusters: 0 for the root of FAT16.
    fn folder_bytes(&self, i: usize, geometry: &Geometry) -> u64 {
        match (i, geometry.kind) {
            (0, Kind::Fat16) => 0,
            _ => self.folders[i].bytes() as u64,
        }
    }

    fn clusters(&self, geometry: &Geometry) -> u64 {
        let folders = (0..self.folders.len()).map(|i| self.folder_bytes(i, geometry));
        let files = self.files.iter().map(|file| u64::from(file.bytes));
        folders.chain(files).map(|bytes| bytes.div_ceil(geometry.cluster.into())).sum()
    }

    fn place(&self, geometry: Geometry, identity: Identity) -> Layout {
        let mut table = Table { next: CLUSTERS_FROM, entries: vec![0; CLUSTERS_FROM as usize] };
        let cluster = u64::from(geometry.cluster);
        let mut take = |bytes: u64| table.take_run(bytes.div_ceil(cluster) as u32);
        // The root of FAT32 takes the first cluster.
        let folders: Vec<u32> =
            (0..self.folders.len()).map(|i| take(self.folder_bytes(i, &geometry))).collect();
        let files: Vec<u32> = self.files.iter().map(|file| take(file.bytes.into())).collect();

        let mut metadata = boot_sector::sectors(&geometry, identity, folders[0], table.next);
        let tables = table.to_bytes(geometry.kind);
        for copy in 0..geometry::TABLES {
            metadata.push((geometry.table_start(copy), tables.clone()));
        }
        for (i, folder) in self.folders.iter().enumerate() {
            let entries = folder.to_bytes(identity.label, folders[i], &folders, &files, self.files);
            let start = match folders[i] {
                0 => geometry.root_start(),
                first => geometry.cluster_start(first),
            };
            metadata.push((start, entries));
        }
        let starts = files.iter().map(|&first| match first {
            0 => 0,
            first => geometry.cluster_start(first),
        });
        Layout { geometry, id: identity.id, starts: starts.collect(), metadata }
    }
}

/// The file allocation table: for each cluster, the next one.
struct Table {
    next: u32,
    entries: Vec<u32>,
}

/// The entry of the last cluster of a chain.
const END: u32 = 0x0fff_ffff;
/// The first two entries: the media byte, and flags for a clean volume.
const RESERVED: [u32; 2] = [0x0fff_fff8, END];

impl Table {
    /// Chains the next `n` clusters and returns the first; 0 if `n` is 0.
    fn take_run(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        let first = self.next;
        self.next += n;
        self.entries.extend(first + 1..self.next);
        self.entries.push(END);
        first
    }

    fn to_bytes(&self, kind: Kind) -> Vec<u8> {
        let entries = RESERVED.iter().chain(&self.entries[RESERVED.len()..]);
        match kind {
            Kind::Fat16 => entries.flat_map(|&entry| (entry as u16).to_le_bytes()).collect(),
            Kind::Fat32 => entries.flat_map(|&entry| entry.to_le_bytes()).collect(),
        }
    }
}
