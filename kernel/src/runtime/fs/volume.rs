//! A FAT volume: finds it on a device, finds files in it, and reads them.
//!
//! `fatfs` walks the directories and the chains of clusters. It would read a file cluster by
//! cluster, through a copy; here it only gets as far as asking for them. A disk that notes where it
//! is asked to read (`Tap`) turns that into the file's extents, and their data then goes straight
//! from the device to its place, in large requests.
//!
//! Nothing on a volume is trusted. [`boot_sector`] proves the layout, the tap
//! refuses reads where no cluster can be and bounds the length of a directory, and a file's extents
//! are checked not to overlap.

#![forbid(unsafe_code)]

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::{fmt, iter};

use core_io::{Error, ErrorKind, Read, Seek, SeekFrom, Write};
use fatfs::{DirEntry, FatType, FileSystem, FsOptions};

use super::boot_sector::{self, BOOT_SECTOR_BYTES, BootSectorError, Geometry};
use super::cache::Cache;
use super::partition::{Partition, partitions};
use crate::formats::Format;
use crate::model_files::same_name;
use crate::report;
use crate::runtime::dev::block::{Buffer, Disk, DiskError, Request};

/// Bytes in the largest request to a device. Small ones cost more turns of the device, large ones
/// leave it idle for longer at the end of a read. Reads of 8 MiB from QEMU 7.2's virtio-blk, both
/// emulated, reached 2.8 GB/s in requests of 128 KiB, 4.1 of 256 KiB, 5.0 of 512 KiB, 4.2 of 1 MiB,
/// and 3.4 of 2 MiB.
const REQUEST_BYTES: usize = 512 << 10;

/// A shorter read goes through the cache, for the sake of the next one: texts are read in small
/// pieces.
const DIRECT_BYTES: usize = 16 << 10;

/// The most bytes that a search in one directory may read: 65,536 entries of 32 bytes, and the
/// table's entries for their clusters. Nor may it read more than twice what the volume has, where
/// that is less. A longer directory runs in a circle.
const DIRECTORY_BYTES: u64 = 65_536 * 32 + 65_536;

/// Why something on a volume could not be found or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsError {
    /// There is no such file or directory.
    NotFound,
    /// A part of the path that should be a directory is a file.
    NotADirectory,
    /// The device failed.
    Disk(DiskError),
    /// The file system is damaged.
    Damaged(&'static str),
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FsError::NotFound => f.write_str("there is no such file or directory"),
            FsError::NotADirectory => f.write_str("a part of the path is no directory"),
            FsError::Disk(error) => error.fmt(f),
            FsError::Damaged(what) => write!(f, "the file system is damaged: {what}"),
        }
    }
}

impl From<DiskError> for FsError {
    fn from(error: DiskError) -> FsError {
        FsError::Disk(error)
    }
}

impl From<Error> for FsError {
    fn from(error: Error) -> FsError {
        FsError::Damaged(error.message())
    }
}

/// Why there is no volume on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountError {
    /// Neither the device nor a partition of it holds a FAT volume. The reason is the device's.
    NoVolume(BootSectorError),
    /// No FAT volume is there either: the device or a partition of it is this.
    Other(Format),
    /// There is a FAT volume, or something close to one, but it cannot be used.
    Unusable(BootSectorError),
    /// The device failed, or the volume is damaged.
    Fs(FsError),
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountError::NoVolume(reason) => write!(f, "there is no FAT volume on it: {reason}"),
            MountError::Other(format) => write!(f, "it is {format}, not a FAT volume"),
            MountError::Unusable(reason) => write!(f, "its FAT volume is damaged: {reason}"),
            MountError::Fs(error) => error.fmt(f),
        }
    }
}

impl<E: Into<FsError>> From<E> for MountError {
    fn from(error: E) -> MountError {
        MountError::Fs(error.into())
    }
}

/// A stretch of a file that lies in one piece on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// Where it starts on the device, in bytes.
    pub position: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What a directory says about a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, the long one if it has one.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Size of the file in bytes; 0 for a directory.
    pub bytes: u64,
}

/// A FAT volume on a device.
pub struct Volume {
    device: Cache,
    /// Where it starts on the device, in bytes.
    start: u64,
    geometry: Geometry,
    label: String,
}

impl Volume {
    /// The first FAT volume on `disk`: the whole of it, or one of its partitions.
    ///
    /// # Errors
    /// There is none, it is damaged, or the device fails.
    pub fn find(disk: Disk) -> Result<Volume, MountError> {
        let mut device = Cache::new(disk);
        let whole = Partition { start: 0, bytes: device.bytes() };
        let bare = match probe(&mut device, whole)? {
            Ok(geometry) => return Volume::mount(device, 0, geometry),
            Err(error) => error,
        };
        let mut unusable = Some(bare).filter(|error| matches!(error, MountError::Unusable(_)));
        let partitions = partitions(&mut device)?;
        for &partition in &partitions {
            match probe(&mut device, partition)? {
                Ok(geometry) => return Volume::mount(device, partition.start, geometry),
                Err(error @ MountError::Unusable(_)) => unusable = unusable.or(Some(error)),
                Err(_) => {}
            }
        }
        if let Some(error) = unusable {
            return Err(error);
        }
        for place in iter::once(whole).chain(partitions) {
            let found = Format::of_disk(|at, magic| has(&mut device, place, at, magic))?;
            if let Some(format) = found {
                return Err(MountError::Other(format));
            }
        }
        Err(bare)
    }

    fn mount(device: Cache, start: u64, geometry: Geometry) -> Result<Volume, MountError> {
        let mut volume = Volume { device, start, geometry, label: String::new() };
        volume.label = volume.with_fatfs(|fs, _| {
            let label = fs.read_volume_label_from_root_dir()?.unwrap_or_else(|| fs.volume_label());
            Ok(if label == "NO NAME" { String::new() } else { label })
        })?;
        Ok(volume)
    }

    /// Lets `work` look at the volume through `fatfs`.
    fn with_fatfs<R>(
        &mut self,
        work: impl FnOnce(&FileSystem<Tap<'_>>, &Wire<'_>) -> Result<R, FsError>,
    ) -> Result<R, FsError> {
        let wire = Wire {
            device: RefCell::new(&mut self.device),
            start: self.start,
            geometry: self.geometry,
            mounted: Cell::new(false),
            in_root: Cell::new(true),
            budget: Cell::new(directory_bytes(&self.geometry)),
            tracing: Cell::new(false),
            traced: Cell::new(None),
            failure: Cell::new(None),
        };
        let result = match FileSystem::new(Tap { wire: &wire, position: 0 }, FsOptions::new()) {
            Ok(fs) => {
                wire.mounted.set(true);
                work(&fs, &wire)
            }
            Err(error) => Err(error.into()),
        };
        match wire.failure.get() {
            Some(error) => Err(FsError::Disk(error)),
            None => result,
        }
    }
}

impl super::FileSystem for Volume {
    fn report(&self) -> report::Disk {
        let filesystem = match self.geometry.fat_type {
            FatType::Fat12 => "FAT12",
            FatType::Fat16 => "FAT16",
            FatType::Fat32 => "FAT32",
        };
        report::Disk {
            device: self.device.name().to_string(),
            bytes: self.device.bytes(),
            filesystem: filesystem.to_string(),
            label: self.label.clone(),
            cluster_bytes: self.geometry.cluster_bytes,
        }
    }

    fn entry(&mut self, path: &str) -> Result<Entry, FsError> {
        self.with_fatfs(|fs, wire| Ok(describe(find(fs, wire, path)?.as_ref())))
    }

    fn directory(&mut self, path: &str) -> Result<Vec<Entry>, FsError> {
        self.with_fatfs(|fs, wire| {
            let directory = open_dir(fs, wire, find(fs, wire, path)?.as_ref())?;
            directory.iter().map(|entry| Ok(describe(Some(&entry?)))).collect()
        })
    }

    fn extents(&mut self, path: &str) -> Result<Vec<Extent>, FsError> {
        let start = self.start;
        let mut extents = self.with_fatfs(|fs, wire| match find(fs, wire, path)? {
            Some(entry) if !entry.is_dir() => trace(&entry, wire),
            _ => Err(FsError::NotFound),
        })?;
        extents.iter_mut().for_each(|extent| extent.position += start);
        Ok(extents)
    }

    fn read(
        &mut self,
        extents: &[Extent],
        mut offset: u64,
        mut buffer: Buffer,
    ) -> Result<(), FsError> {
        let direct = buffer.len() >= DIRECT_BYTES;
        let sector_bytes = self.device.sector_bytes() as u64;
        let mut whole_sectors = Vec::with_capacity(buffer.len() / REQUEST_BYTES + 2);
        let mut edges = Vec::new();
        let first = extents.partition_point(|extent| extent.offset + extent.bytes <= offset);
        for extent in &extents[first..] {
            if buffer.is_empty() {
                break;
            }
            let skip = offset - extent.offset;
            let mut position = extent.position + skip;
            let bytes = (extent.bytes - skip).min(buffer.len() as u64);
            let (mut piece, rest) = buffer.split_at(bytes as usize);
            (buffer, offset) = (rest, offset + bytes);

            let to_sector = position.next_multiple_of(sector_bytes) - position;
            if to_sector > 0 {
                let (edge, rest) = piece.split_at(to_sector.min(bytes) as usize);
                edges.push((position, edge));
                (piece, position) = (rest, position + to_sector);
            }
            while direct && piece.len() as u64 >= sector_bytes {
                let whole = piece.len() - piece.len() % sector_bytes as usize;
                let (now, rest) = piece.split_at(whole.min(REQUEST_BYTES));
                let n = now.len() as u64;
                whole_sectors.push(Request::new(position / sector_bytes, now));
                (piece, position) = (rest, position + n);
            }
            if !piece.is_empty() {
                edges.push((position, piece));
            }
        }
        if !buffer.is_empty() {
            return Err(FsError::Damaged("a file is shorter than its directory says"));
        }
        self.device.read_direct(&mut whole_sectors.into_iter())?;
        for (position, edge) in edges {
            self.device.read_into(position, edge)?;
        }
        Ok(())
    }
}

/// The FAT volume at `place`, or why there is none.
fn probe(device: &mut Cache, place: Partition) -> Result<Result<Geometry, MountError>, DiskError> {
    if place.bytes < BOOT_SECTOR_BYTES as u64 {
        return Ok(Err(MountError::NoVolume(BootSectorError::TooSmall)));
    }
    let mut sector = [0; BOOT_SECTOR_BYTES];
    device.read(place.start, &mut sector)?;
    Ok(boot_sector::parse(&sector, place.bytes).map_err(|reason| match reason {
        BootSectorError::Truncated { .. } => MountError::Unusable(reason),
        _ if boot_sector::names_fat(&sector) => MountError::Unusable(reason),
        _ => MountError::NoVolume(reason),
    }))
}

/// Whether these bytes are at byte `at` of a partition.
fn has(device: &mut Cache, place: Partition, at: u64, magic: &[u8]) -> Result<bool, DiskError> {
    let mut there = [0; 16];
    let there = &mut there[..magic.len().min(16)];
    if at.saturating_add(there.len() as u64) > place.bytes {
        return Ok(false);
    }
    device.read(place.start + at, there)?;
    Ok(there == magic)
}

/// The most bytes that a search in one directory of a volume may read.
fn directory_bytes(geometry: &Geometry) -> u64 {
    DIRECTORY_BYTES.min(geometry.bytes.saturating_mul(2))
}

type Fs<'a> = FileSystem<Tap<'a>>;
type FatEntry<'a, 'b> = DirEntry<'a, Tap<'b>>;

/// The entry of `path`; `None` for the root directory, which has none.
fn find<'a, 'b>(
    fs: &'a Fs<'b>,
    wire: &Wire<'_>,
    path: &str,
) -> Result<Option<FatEntry<'a, 'b>>, FsError> {
    let mut found = None;
    for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        let directory = open_dir(fs, wire, found.as_ref())?;
        found = Some(entry_named(&directory, name)?);
    }
    Ok(found)
}

/// The directory of an entry, about to be read.
fn open_dir<'a, 'b>(
    fs: &'a Fs<'b>,
    wire: &Wire<'_>,
    entry: Option<&FatEntry<'a, 'b>>,
) -> Result<fatfs::Dir<'a, Tap<'b>>, FsError> {
    wire.budget.set(directory_bytes(&wire.geometry));
    // The only entry that may lead to the root directory is the way up.
    wire.in_root.set(entry.is_none_or(|entry| entry.file_name() == ".."));
    match entry {
        None => Ok(fs.root_dir()),
        Some(entry) if entry.is_dir() => Ok(entry.to_dir()),
        Some(_) => Err(FsError::NotADirectory),
    }
}

fn entry_named<'a, 'b>(
    directory: &fatfs::Dir<'a, Tap<'b>>,
    name: &str,
) -> Result<FatEntry<'a, 'b>, FsError> {
    for entry in directory.iter() {
        let entry = entry?;
        if same_name(&entry.file_name(), name) || same_name(&entry.short_file_name(), name) {
            return Ok(entry);
        }
    }
    Err(FsError::NotFound)
}

fn describe(entry: Option<&FatEntry<'_, '_>>) -> Entry {
    match entry {
        None => Entry { name: String::new(), is_dir: true, bytes: 0 },
        Some(entry) => {
            let is_dir = entry.is_dir();
            Entry { name: entry.file_name(), is_dir, bytes: if is_dir { 0 } else { entry.len() } }
        }
    }
}

/// The extents of a file, positions counted from the start of the volume.
fn trace(entry: &FatEntry<'_, '_>, wire: &Wire<'_>) -> Result<Vec<Extent>, FsError> {
    let bytes = entry.len();
    if bytes > wire.geometry.data_bytes() {
        return Err(FsError::Damaged("a file is larger than the volume"));
    }
    let mut file = entry.to_file();
    let mut never_read = vec![0; wire.geometry.cluster_bytes as usize];
    let mut extents: Vec<Extent> = Vec::new();
    let mut offset = 0;
    wire.in_root.set(false);
    wire.tracing.set(true);
    while offset < bytes {
        wire.traced.set(None);
        let n = file.read(&mut never_read)? as u64;
        if n == 0 {
            return Err(FsError::Damaged("a file is shorter than its directory says"));
        }
        let position = wire.traced.get().ok_or(FsError::Damaged(OUTSIDE))?;
        match extents.last_mut() {
            Some(last) if last.position + last.bytes == position => last.bytes += n,
            _ => extents.push(Extent { offset, position, bytes: n }),
        }
        offset += n;
    }
    let mut places: Vec<(u64, u64)> = extents.iter().map(|e| (e.position, e.bytes)).collect();
    places.sort_unstable();
    if places.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        return Err(FsError::Damaged("a file runs in a circle"));
    }
    Ok(extents)
}

const OUTSIDE: &str = "a cluster lies outside the volume";

/// What the disk that `fatfs` sees and the code around `fatfs` share.
struct Wire<'a> {
    device: RefCell<&'a mut Cache>,
    start: u64,
    geometry: Geometry,
    /// Whether `fatfs` has read the boot sector, so that only tables and clusters are left to read.
    mounted: Cell<bool>,
    /// Whether the root directory is being read, which lies outside the clusters on FAT12 and FAT16.
    in_root: Cell<bool>,
    /// Bytes that may still be read before something must be wrong.
    budget: Cell<u64>,
    /// Whether reads of clusters are only noted.
    tracing: Cell<bool>,
    /// Position of the last read that was noted.
    traced: Cell<Option<u64>>,
    /// The error of the device that `fatfs` was told about.
    failure: Cell<Option<DiskError>>,
}

/// The disk that `fatfs` sees: the volume, read only.
struct Tap<'a> {
    wire: &'a Wire<'a>,
    position: u64,
}

impl Read for Tap<'_> {
    fn read(&mut self, out: &mut [u8]) -> core_io::Result<usize> {
        let Wire { geometry, .. } = self.wire;
        let position = self.position;
        let (start, end) = match (self.wire.mounted.get(), self.wire.in_root.get()) {
            (false, _) => (0, geometry.bytes),
            (true, true) => (geometry.fat_end, geometry.data_end()),
            (true, false) => (geometry.data_start, geometry.data_end()),
        };
        // A read of a table is one of an entry, 2 or 4 bytes; anything longer is meant for a
        // cluster whose number is none.
        let in_table = (geometry.fat_start..geometry.fat_end).contains(&position) && out.len() <= 4;
        if !in_table && !(start..end).contains(&position) {
            return Err(Error::new(ErrorKind::InvalidData, OUTSIDE));
        }
        let end = if in_table { geometry.fat_end } else { end };
        let n = out.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
        if self.wire.tracing.get() && !in_table {
            self.wire.traced.set(Some(position));
        } else {
            if !self.wire.tracing.get() {
                let Some(budget) = self.wire.budget.get().checked_sub(n as u64) else {
                    return Err(Error::new(ErrorKind::InvalidData, "a directory runs in a circle"));
                };
                self.wire.budget.set(budget);
            }
            let mut device = self.wire.device.borrow_mut();
            if let Err(error) = device.read(self.wire.start + position, &mut out[..n]) {
                self.wire.failure.set(Some(error));
                return Err(Error::new(ErrorKind::Other, "the device failed"));
            }
        }
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Tap<'_> {
    fn seek(&mut self, to: SeekFrom) -> core_io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.wire.geometry.bytes.checked_add_signed(by),
        };
        self.position =
            position.ok_or(Error::new(ErrorKind::InvalidInput, "a seek before the start"))?;
        Ok(self.position)
    }
}

impl Write for Tap<'_> {
    fn write(&mut self, _data: &[u8]) -> core_io::Result<usize> {
        Err(Error::new(ErrorKind::Other, "the volume is read only"))
    }

    fn flush(&mut self) -> core_io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
