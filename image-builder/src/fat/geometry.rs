//! The division of a volume: boot sectors, tables, root folder, clusters.

use std::fmt;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;
/// The number of copies of the table.
pub const TABLES: u64 = 2;
/// The number of the first cluster.
pub const CLUSTERS_FROM: u32 = 2;
/// The number of sectors of FAT16's root folder.
pub const ROOT_SECTORS: u64 = 32;
/// The smallest volume, with enough clusters for FAT16.
pub const SMALLEST: u64 = 8 << 20;
/// The largest volume, as sectors are counted in 32 bits.
pub const LARGEST: u64 = u32::MAX as u64 * SECTOR;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
/// The largest cluster that every FAT reader accepts.
const LARGEST_CLUSTER: u64 = 32 << 10;
/// The smallest volume that is FAT32.
pub const FAT32_FROM: u64 = 512 * MIB;

/// The kind of a volume, by the width of a table's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 16 bits.
    Fat16,
    /// 32 bits, of which 28 are used.
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

    /// The minimum number of clusters of this kind.
    ///
    /// The number of clusters alone decides on the kind. A margin is added, because not every
    /// reader counts alike.
    fn fewest_clusters(self) -> u64 {
        match self {
            Kind::Fat16 => 4085 + 16,
            Kind::Fat32 => 65525 + 16,
        }
    }

    /// The minimum number of sectors before the tables.
    fn reserved_sectors(self) -> u64 {
        match self {
            Kind::Fat16 => 1,
            Kind::Fat32 => 32,
        }
    }

    /// The number of sectors of a root folder outside the clusters.
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
    /// The size of the volume.
    pub bytes: u64,
    /// The kind of the volume.
    pub kind: Kind,
    /// Bytes in a cluster.
    pub cluster: u32,
    /// The number of clusters.
    pub clusters: u32,
    /// Sectors before the first table.
    pub reserved_sectors: u64,
    /// Sectors in a table.
    pub table_sectors: u64,
}

impl Geometry {
    /// The geometry of a volume of `bytes` bytes ([`SMALLEST`] to [`LARGEST`]).
    ///
    /// Clusters are as large as the kind allows, so that a reader follows fewer links.
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
        // The table is large enough for the clusters of a volume without any other sectors.
        let entries = bytes / cluster + u64::from(CLUSTERS_FROM);
        let table_sectors = (entries * kind.entry_bytes()).div_ceil(SECTOR);
        // The clusters start at a multiple of their size, or of a page. The model's pages are then
        // whole pages of the host's cache, and whole blocks of a card.
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

/// Volumes of growing size, from a little more than `data` bytes.
pub fn steps_from(data: u64) -> impl Iterator<Item = Geometry> {
    let first = (data + MIB).next_multiple_of(MIB).max(SMALLEST);
    (first..=LARGEST).step_by(MIB as usize).map(Geometry::of_size)
}
