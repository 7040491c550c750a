//! How a volume is divided: boot sectors, tables, root folder, clusters.

use std::fmt;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;
/// Copies of the table.
pub const TABLES: u64 = 2;
/// Number of the first cluster.
pub const CLUSTERS_FROM: u32 = 2;
/// Sectors of the root folder of FAT16.
pub const ROOT_SECTORS: u64 = 32;
/// The smallest volume: one with enough clusters for FAT16.
pub const SMALLEST: u64 = 8 << 20;
/// The largest volume: sectors are counted in 32 bits.
pub const LARGEST: u64 = u32::MAX as u64 * SECTOR;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
/// Largest cluster that every reader of FAT takes.
const LARGEST_CLUSTER: u64 = 32 << 10;
/// A volume of this size or more is FAT32.
pub const FAT32_FROM: u64 = 512 * MIB;

/// Width of a table's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 16 bits.
    Fat16,
    /// 32 bits, of which 28 count.
    Fat32,
}

impl Kind {
    /// Bytes in an entry of the table.
    fn entry_bytes(self) -> u64 {
        match self {
            Kind::Fat16 => 2,
            Kind::Fat32 => 4,
        }
    }

    /// A volume is of this kind if it has at least this many clusters; the number of clusters
    /// alone tells the kinds apart. A few more than that, because not every reader counts alike.
    fn fewest_clusters(self) -> u64 {
        match self {
            Kind::Fat16 => 4085 + 16,
            Kind::Fat32 => 65525 + 16,
        }
    }

    /// Sectors before the tables, at least.
    fn reserved_sectors(self) -> u64 {
        match self {
            Kind::Fat16 => 1,
            Kind::Fat32 => 32,
        }
    }

    /// Sectors of a root folder that is no chain of clusters.
    pub fn root_sectors(self) -> u64 {
        match self {
            Kind::Fat16 => ROOT_SECTORS,
            Kind::Fat32 => 0,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Fat16 => "FAT16",
            Kind::Fat32 => "FAT32",
        })
    }
}

/// The division of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the volume.
    pub bytes: u64,
    /// Width of the table's entries.
    pub kind: Kind,
    /// Bytes in a cluster.
    pub cluster: u32,
    /// Number of clusters.
    pub clusters: u32,
    /// Sectors before the first table.
    pub reserved_sectors: u64,
    /// Sectors in a table.
    pub table_sectors: u64,
}

impl Geometry {
    /// A volume of `bytes` bytes ([`SMALLEST`] to [`LARGEST`]), with the largest clusters that
    /// its kind may have: fewer links to follow for the reader.
    pub fn of_size(bytes: u64) -> Geometry {
        let kind = if bytes >= FAT32_FROM { Kind::Fat32 } else { Kind::Fat16 };
        let mut cluster = LARGEST_CLUSTER;
        loop {
            let geometry = Geometry::divided(bytes, kind, cluster);
            if u64::from(geometry.clusters) >= kind.fewest_clusters() {
                return geometry;
            }
            cluster /= 2;
            assert!(cluster >= SECTOR, "a volume of {bytes} bytes is too small for {kind}");
        }
    }

    fn divided(bytes: u64, kind: Kind, cluster: u64) -> Geometry {
        let per_cluster = cluster / SECTOR;
        // Large enough for all clusters that there could be if nothing else took room.
        let entries = bytes / cluster + u64::from(CLUSTERS_FROM);
        let table_sectors = (entries * kind.entry_bytes()).div_ceil(SECTOR);
        // The clusters start at a multiple of their size, or of a page: so the model's pages are
        // whole ones of the host's cache, and whole blocks of a card.
        let least = kind.reserved_sectors() + TABLES * table_sectors + kind.root_sectors();
        let data_start = least.next_multiple_of(per_cluster.max(PAGE / SECTOR));
        let clusters = (bytes / SECTOR).saturating_sub(data_start) / per_cluster;
        Geometry {
            bytes,
            kind,
            cluster: cluster as u32,
            clusters: clusters as u32,
            reserved_sectors: kind.reserved_sectors() + data_start - least,
            table_sectors,
        }
    }

    /// First byte of a copy of the table.
    pub fn table_start(&self, copy: u64) -> u64 {
        (self.reserved_sectors + copy * self.table_sectors) * SECTOR
    }

    /// First byte of the root folder of FAT16.
    pub fn root_start(&self) -> u64 {
        self.table_start(TABLES)
    }

    /// First byte of a cluster.
    pub fn cluster_start(&self, cluster: u32) -> u64 {
        let data_start = self.root_start() + self.kind.root_sectors() * SECTOR;
        data_start + u64::from(cluster - CLUSTERS_FROM) * u64::from(self.cluster)
    }
}

/// Volumes of growing size, from one with a little more room than `data` bytes.
pub fn steps_from(data: u64) -> impl Iterator<Item = Geometry> {
    let first = (data + MIB).next_multiple_of(MIB).max(SMALLEST);
    (first..=LARGEST).step_by(MIB as usize).map(Geometry::of_size)
}
