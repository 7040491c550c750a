//! Disk images that an input changes.
//!
//! There is an image of each kind of volume and partition table, made once. The input overwrites
//! bytes of it.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use core_io::{Read, Seek, SeekFrom, Write};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use kernel::runtime::dev::block::{BlockDevice, Clock, Completion, Disk, Request};

/// Bytes in a sector.
pub const SECTOR: usize = 512;

/// An image, with the places that are worth changing.
pub struct Base {
    pub bytes: Vec<u8>,
    /// In bytes: tables and directories start there.
    pub places: Vec<usize>,
    /// Whether there is a GPT, the checksums of which are to be put right after a change.
    pub gpt: bool,
}

/// FAT12, FAT16 and FAT32 bare; FAT12 in an MBR and in a GPT; and nothing.
pub static BASES: LazyLock<[Base; 6]> = LazyLock::new(|| {
    let fat12 = volume(FatType::Fat12, 64 << 10);
    let blank = Base { bytes: vec![0; 16 << 10], places: vec![0], gpt: false };
    [
        bare(fat12.clone()),
        bare(volume(FatType::Fat16, 3 << 20)),
        bare(volume(FatType::Fat32, 34 << 20)),
        in_mbr(&fat12),
        in_gpt(&fat12),
        blank,
    ]
});

/// An image under construction.
struct Image {
    bytes: Vec<u8>,
    position: usize,
}

impl Read for Image {
    fn read(&mut self, out: &mut [u8]) -> core_io::Result<usize> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.position += n;
        Ok(n)
    }
}

impl Write for Image {
    fn write(&mut self, data: &[u8]) -> core_io::Result<usize> {
        let rest = self.bytes.get_mut(self.position..).unwrap_or_default();
        let n = rest.len().min(data.len());
        rest[..n].copy_from_slice(&data[..n]);
        self.position += n;
        Ok(n)
    }

    fn flush(&mut self) -> core_io::Result<()> {
        Ok(())
    }
}

impl Seek for Image {
    fn seek(&mut self, to: SeekFrom) -> core_io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => (self.position as u64).strict_add_signed(by),
            SeekFrom::End(by) => (self.bytes.len() as u64).strict_add_signed(by),
        };
        self.position = position as usize;
        Ok(position)
    }
}

/// Makes a volume with clusters of one sector and the files of a model disk.
///
/// Two files are written in turns, so that their clusters alternate. The rest of one file follows.
fn volume(fat_type: FatType, bytes: usize) -> Vec<u8> {
    let mut image = Image { bytes: vec![0; bytes], position: 0 };
    let options = FormatVolumeOptions::new()
        .bytes_per_cluster(SECTOR as u32)
        .fat_type(fat_type)
        .max_root_dir_entries(64)
        .volume_label(*b"ANCHORITE  ");
    fatfs::format_volume(&mut image, options).unwrap();
    image.position = 0;
    let fs = FileSystem::new(&mut image, FsOptions::new()).unwrap();
    let models = fs.root_dir().create_dir("models").unwrap();
    let mut model = models.create_file("a model of a long name.gguf").unwrap();
    let mut sum = models.create_file("a model of a long name.gguf.sha256").unwrap();
    for _ in 0..5 {
        model.write_all(b"GGUF".repeat(SECTOR / 4).as_slice()).unwrap();
        sum.write_all([b'0'; SECTOR].as_slice()).unwrap();
    }
    // Long enough to be read past the cache.
    model.write_all(b"GGUF".repeat(10 * SECTOR).as_slice()).unwrap();
    let mut config = fs.root_dir().create_file("anchorite.toml").unwrap();
    config.write_all(b"max_tokens = 7\n").unwrap();
    drop((models, model, sum, config));
    fs.unmount().unwrap();
    image.bytes
}

fn bare(bytes: Vec<u8>) -> Base {
    let places = places_in(&bytes, 0);
    Base { bytes, places, gpt: false }
}

/// The boot sector, the tables, the directories and a file.
fn places_in(volume: &[u8], start: usize) -> Vec<usize> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([volume[at], volume[at + 1]]));
    let (reserved, fats, root_entries) = (u16_at(14), usize::from(volume[16]), u16_at(17));
    let per_fat = if u16_at(22) > 0 { u16_at(22) } else { u16_at(36) };
    let root = (reserved + fats * per_fat) * SECTOR;
    let data = root + root_entries * 32;
    let places = [0, 0, SECTOR, reserved * SECTOR, (reserved + per_fat) * SECTOR, root, data];
    let clusters = [data + SECTOR, data + 2 * SECTOR, data + 3 * SECTOR];
    places.into_iter().chain(clusters).map(|place| start + place).collect()
}

fn in_mbr(volume: &[u8]) -> Base {
    let start = 8;
    let mut bytes = [vec![0; start * SECTOR], volume.to_vec()].concat();
    // An entry of another type first.
    bytes[446 + 4] = 0x83;
    let entry = &mut bytes[446 + 16..][..16];
    entry[4] = 0x0c;
    entry[8..12].copy_from_slice(&(start as u32).to_le_bytes());
    entry[12..].copy_from_slice(&((volume.len() / SECTOR) as u32).to_le_bytes());
    bytes[510..SECTOR].copy_from_slice(&[0x55, 0xaa]);
    let mut places = places_in(volume, start * SECTOR);
    places.extend([446, 446 + 16, 510]);
    Base { bytes, places, gpt: false }
}

fn in_gpt(volume: &[u8]) -> Base {
    const ENTRIES: usize = 8;
    let start = 8;
    let mut bytes = [vec![0; start * SECTOR], volume.to_vec(), vec![0; SECTOR]].concat();
    bytes[446 + 4] = 0xee;
    bytes[510..SECTOR].copy_from_slice(&[0x55, 0xaa]);
    let last = bytes.len() / SECTOR - 1;
    for (sector, other) in [(1, last), (last, 1)] {
        let header = &mut bytes[sector * SECTOR..][..SECTOR];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&(sector as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(other as u64).to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&(ENTRIES as u32).to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    }
    let entry = &mut bytes[2 * SECTOR + 128..][..128];
    entry[..16].fill(0xa5);
    entry[32..40].copy_from_slice(&(start as u64).to_le_bytes());
    entry[40..48].copy_from_slice(&((last - 1) as u64).to_le_bytes());
    let mut places = places_in(volume, start * SECTOR);
    places.extend([446, SECTOR, SECTOR + 72, 2 * SECTOR, 2 * SECTOR + 128, last * SECTOR]);
    let mut base = Base { bytes, places, gpt: true };
    let mut patched = Patched::new(&base);
    patched.mend_gpt();
    base.bytes = patched.bytes();
    base
}

/// An image with changes.
#[derive(Clone)]
pub struct Patched<'a> {
    base: &'a Base,
    changed: BTreeMap<usize, [u8; SECTOR]>,
}

impl<'a> Patched<'a> {
    /// None yet.
    pub fn new(base: &'a Base) -> Self {
        Patched { base, changed: BTreeMap::new() }
    }

    /// Puts bytes behind one of the image's places; those behind its end are lost.
    pub fn put(&mut self, place: u8, offset: u16, bytes: &[u8]) {
        let places = &self.base.places;
        let at = places[usize::from(place) % places.len()] + usize::from(offset);
        for (at, &byte) in (at..self.base.bytes.len()).zip(bytes) {
            let (sector, within) = (at / SECTOR, at % SECTOR);
            let original = &self.base.bytes[sector * SECTOR..];
            let changed = || *original.first_chunk().expect("whole sectors");
            self.changed.entry(sector).or_insert_with(changed)[within] = byte;
        }
    }

    /// Puts the checksums right of what are GPTs after the changes.
    pub fn mend_gpt(&mut self) {
        let last = self.base.bytes.len() / SECTOR - 1;
        for sector in [1, last] {
            let mut header = self.sector(sector);
            let u32_at = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().unwrap());
            let (length, first) = (u32_at(12) as usize, u32_at(72) as usize);
            let table_bytes = u32_at(80).saturating_mul(u32_at(84)) as usize;
            if length > SECTOR || first > last || table_bytes > 32 * SECTOR {
                continue;
            }
            let mut table = vec![0; table_bytes];
            self.read(first * SECTOR, &mut table);
            header[88..92].copy_from_slice(&crc32(&table).to_le_bytes());
            header[16..20].fill(0);
            let crc = crc32(&header[..length]);
            header[16..20].copy_from_slice(&crc.to_le_bytes());
            self.changed.insert(sector, header);
        }
    }

    fn sector(&self, sector: usize) -> [u8; SECTOR] {
        let original = || *self.base.bytes[sector * SECTOR..].first_chunk().expect("whole sectors");
        self.changed.get(&sector).copied().unwrap_or_else(original)
    }

    /// Fills `out` with the bytes at `at`, as far as there are any.
    pub fn read(&self, at: usize, out: &mut [u8]) {
        let rest = self.base.bytes.get(at..).unwrap_or_default();
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        for (&sector, bytes) in self.changed.range(at / SECTOR..(at + n).div_ceil(SECTOR)) {
            for (i, &byte) in bytes.iter().enumerate() {
                if let Some(i) = (sector * SECTOR + i).checked_sub(at).filter(|&i| i < n) {
                    out[i] = byte;
                }
            }
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.base.bytes.len()];
        self.read(0, &mut bytes);
        bytes
    }
}

/// The CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &b| (0..8).fold(crc ^ u32::from(b), |crc, _| step(crc)))
}

/// A device of such an image, of which some sectors may be bad.
struct Device {
    image: Patched<'static>,
    bad: Option<u64>,
    done: Vec<Completion>,
}

impl BlockDevice for Device {
    fn name(&self) -> &'static str {
        "fuzz"
    }

    fn sector_bytes(&self) -> usize {
        SECTOR
    }

    fn sectors(&self) -> u64 {
        (self.image.base.bytes.len() / SECTOR) as u64
    }

    fn queue_depth(&self) -> usize {
        4
    }

    fn submit(&mut self, mut request: Request) {
        let sectors = (request.buffer.len() / SECTOR) as u64;
        let end = request.sector + sectors;
        assert!(sectors > 0 && end <= self.sectors(), "a request outside the device");
        let ok = !self.bad.is_some_and(|bad| (request.sector..end).contains(&bad));
        if ok {
            let mut data = vec![0; request.buffer.len()];
            self.image.read(request.sector as usize * SECTOR, &mut data);
            request.buffer.fill_from(&data);
        }
        self.done.push(Completion { request, ok });
    }

    fn complete(&mut self) -> Option<Completion> {
        self.done.pop()
    }
}

/// A clock on which a pause takes a second.
#[derive(Default)]
struct Seconds(AtomicU64);

impl Clock for Seconds {
    fn now_us(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn pause(&self, _polls: u32) {
        self.0.fetch_add(1_000_000, Relaxed);
    }
}

/// A disk of this image; the sector `bad` cannot be read.
pub fn disk(image: Patched<'static>, bad: Option<u64>) -> Disk {
    Disk::new(Box::new(Device { image, bad, done: Vec::new() }), Box::new(Seconds::default()))
}
