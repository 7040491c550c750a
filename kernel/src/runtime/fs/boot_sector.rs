//! The boot sector of a FAT volume, validated before its use.
//!
//! `fatfs` computes with the fields of the boot sector and checks little. So this module proves all
//! that `fatfs` relies on, in arithmetic that cannot overflow.
//!
//! Source: Microsoft Extensible Firmware Initiative FAT32 File System Specification 1.03, "Boot
//! Sector and BPB" and "FAT Type Determination".

#![forbid(unsafe_code)]

use core::fmt;

use fatfs::FatType;

/// Size of the part of the boot sector that is read, in bytes.
pub const BOOT_SECTOR_BYTES: usize = 512;

/// The layout of a volume. Positions are in bytes from the start of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The type of FAT.
    pub fat_type: FatType,
    /// Bytes in a cluster.
    pub cluster_bytes: u32,
    /// Number of clusters.
    pub clusters: u32,
    /// Start of the first allocation table.
    pub fat_start: u64,
    /// End of the last allocation table.
    pub fat_end: u64,
    /// Start of the first cluster.
    pub data_start: u64,
    /// End of the volume.
    pub bytes: u64,
}

impl Geometry {
    /// Bytes in all clusters together.
    pub fn data_bytes(&self) -> u64 {
        u64::from(self.clusters) * u64::from(self.cluster_bytes)
    }

    /// End of the last cluster.
    pub fn data_end(&self) -> u64 {
        self.data_start + self.data_bytes()
    }
}

/// An error in the boot sector of a FAT volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootSectorError {
    /// The bytes 0x55 0xAA are missing at the end.
    NoSignature,
    /// Bytes in a sector are not 512, 1024, 2048 or 4096.
    BytesPerSector(u16),
    /// Sectors in a cluster are no power of two.
    SectorsPerCluster(u8),
    /// There is no reserved sector, so the boot sector itself would be part of a table.
    NoReservedSectors,
    /// There is no allocation table, or an empty one.
    NoTable,
    /// The number of root entries contradicts the type of FAT.
    /// FAT12 and FAT16 have a root directory of fixed size, FAT32 has none.
    RootEntries(u16),
    /// The number of sectors is given twice or not at all.
    TotalSectors,
    /// The volume has no room for a single cluster.
    TooSmall,
    /// The allocation table is too short for the clusters.
    TableTooShort {
        /// Number of clusters of the volume.
        clusters: u32,
    },
    /// The number of clusters contradicts the form of the boot sector.
    FatType {
        /// Number of clusters of the volume.
        clusters: u32,
    },
    /// The root directory of FAT32 starts outside the clusters.
    RootCluster(u32),
    /// The device or partition ends before the volume does.
    Truncated {
        /// Size of the volume in bytes.
        volume: u64,
        /// Size of the device or partition in bytes.
        available: u64,
    },
}

impl fmt::Display for BootSectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use BootSectorError::*;
        match self {
            NoSignature => f.write_str("it has no boot signature"),
            BytesPerSector(n) => write!(f, "its boot sector gives {n} bytes per sector"),
            SectorsPerCluster(n) => write!(f, "its boot sector gives {n} sectors per cluster"),
            NoReservedSectors => f.write_str("its boot sector gives no reserved sectors"),
            NoTable => f.write_str("its boot sector gives no allocation table"),
            RootEntries(n) => write!(f, "its boot sector gives {n} root directory entries"),
            TotalSectors => f.write_str("its boot sector gives no clear number of sectors"),
            TooSmall => f.write_str("it is too small for a cluster"),
            TableTooShort { clusters } => {
                write!(f, "its allocation table is too short for {clusters} clusters")
            }
            FatType { clusters } => {
                write!(f, "its boot sector does not have the form for {clusters} clusters")
            }
            RootCluster(n) => write!(f, "its root directory starts at cluster {n}"),
            Truncated { volume, available } => {
                write!(f, "it has {volume} bytes, but its device or partition ends at {available}")
            }
        }
    }
}

/// Whether `sector` claims to be the boot sector of a FAT volume (`BS_FilSysType`).
/// The claim only distinguishes a damaged boot sector from other data.
pub fn names_fat(sector: &[u8; BOOT_SECTOR_BYTES]) -> bool {
    // The field is at 54 in FAT12 and FAT16, and at 82 in FAT32.
    [54, 82].iter().any(|&at| sector[at..].starts_with(b"FAT"))
}

/// Parses the boot sector of a volume that may take up `available` bytes.
/// `sector` has [`BOOT_SECTOR_BYTES`] or more.
///
/// # Errors
/// The first error found. [`BootSectorError::Truncated`] means that all other fields are valid.
pub fn parse(sector: &[u8], available: u64) -> Result<Geometry, BootSectorError> {
    let u8_at = |i: usize| sector.get(i).copied().unwrap_or(0);
    let u16_at = |i: usize| u16::from_le_bytes([u8_at(i), u8_at(i + 1)]);
    let u32_at = |i: usize| u32::from(u16_at(i)) | u32::from(u16_at(i + 2)) << 16;

    if u16_at(510) != 0xAA55 {
        return Err(BootSectorError::NoSignature);
    }
    let sector_bytes = u16_at(11);
    if !sector_bytes.is_power_of_two() || !(512..=4096).contains(&sector_bytes) {
        return Err(BootSectorError::BytesPerSector(sector_bytes));
    }
    let sectors_per_cluster = u8_at(13);
    if !sectors_per_cluster.is_power_of_two() {
        return Err(BootSectorError::SectorsPerCluster(sectors_per_cluster));
    }
    let reserved = u16_at(14);
    if reserved == 0 {
        return Err(BootSectorError::NoReservedSectors);
    }
    let fats = u8_at(16);
    let is_fat32 = u16_at(22) == 0;
    let sectors_per_fat = if is_fat32 { u32_at(36) } else { u32::from(u16_at(22)) };
    if fats == 0 || sectors_per_fat == 0 {
        return Err(BootSectorError::NoTable);
    }
    let root_entries = u16_at(17);
    if is_fat32 != (root_entries == 0) {
        return Err(BootSectorError::RootEntries(root_entries));
    }
    let sectors = match (u16_at(19), u32_at(32)) {
        (0, 0) => return Err(BootSectorError::TotalSectors),
        (0, n) => u64::from(n),
        (n, 0) if !is_fat32 => u64::from(n),
        _ => return Err(BootSectorError::TotalSectors),
    };

    // None of these can overflow: 8, 16 and 32 bits are multiplied and added in 64 bits.
    let sector_bytes = u64::from(sector_bytes);
    let fat_start = u64::from(reserved);
    let fat_end = fat_start + u64::from(fats) * u64::from(sectors_per_fat);
    let data_start = fat_end + (u64::from(root_entries) * 32).div_ceil(sector_bytes);
    let clusters = sectors.saturating_sub(data_start) / u64::from(sectors_per_cluster);
    if clusters == 0 {
        return Err(BootSectorError::TooSmall);
    }
    // `sectors` was read from 32 bits.
    let clusters = clusters as u32;
    let (fat_type, bits) = match clusters {
        ..4085 => (FatType::Fat12, 12),
        4085..65525 => (FatType::Fat16, 16),
        _ => (FatType::Fat32, 32),
    };
    if is_fat32 != (fat_type == FatType::Fat32) || clusters > 0x0FFF_FFF4 {
        return Err(BootSectorError::FatType { clusters });
    }
    // The first two entries of the table belong to no cluster.
    let entries = u64::from(sectors_per_fat) * sector_bytes * 8 / bits;
    if entries < u64::from(clusters) + 2 {
        return Err(BootSectorError::TableTooShort { clusters });
    }
    let root = u32_at(44);
    if is_fat32 && !(2..clusters + 2).contains(&root) {
        return Err(BootSectorError::RootCluster(root));
    }
    let bytes = sectors * sector_bytes;
    if bytes > available {
        return Err(BootSectorError::Truncated { volume: bytes, available });
    }
    Ok(Geometry {
        fat_type,
        cluster_bytes: u32::from(sectors_per_cluster) * sector_bytes as u32,
        clusters,
        fat_start: fat_start * sector_bytes,
        fat_end: fat_end * sector_bytes,
        data_start: data_start * sector_bytes,
        bytes,
    })
}
