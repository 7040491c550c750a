//! The boot sector, and the other sectors before the tables.

use super::Identity;
use super::geometry::{Geometry, Kind, SECTOR, TABLES};

/// FAT32's sector with the free clusters, and the first sector of the backup.
const FS_INFO: u64 = 1;
const BACKUP: u64 = 6;
/// The number of 32-byte entries in a sector.
const ENTRIES: u64 = SECTOR / 32;

/// All sectors before the tables, with their first bytes.
///
/// `root` is the root folder's first cluster on FAT32, and `next_free` the first unused cluster.
pub fn sectors(
    geometry: &Geometry,
    identity: Identity,
    root: u32,
    next_free: u32,
) -> Vec<(u64, Vec<u8>)> {
    let boot = boot_sector(geometry, identity, root);
    if geometry.kind == Kind::Fat16 {
        return vec![(0, boot)];
    }
    let info = fs_info(geometry, next_free);
    let copies = [0, BACKUP].into_iter().flat_map(|first| {
        [(first * SECTOR, boot.clone()), ((first + FS_INFO) * SECTOR, info.clone())]
    });
    copies.collect()
}

fn put(sector: &mut [u8], at: usize, bytes: &[u8]) {
    sector[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The boot sector. Section 3 of the specification, whose offsets are used here.
fn boot_sector(geometry: &Geometry, identity: Identity, root: u32) -> Vec<u8> {
    let mut sector = vec![0; SECTOR as usize];
    let sectors = (geometry.bytes / SECTOR) as u32;
    let table_sectors = geometry.table_sectors;
    put(&mut sector, 3, b"MSWIN4.1");
    put(&mut sector, 11, &(SECTOR as u16).to_le_bytes());
    sector[13] = (u64::from(geometry.cluster) / SECTOR) as u8;
    put(&mut sector, 14, &(geometry.reserved_sectors as u16).to_le_bytes());
    sector[16] = TABLES as u8;
    put(&mut sector, 17, &((geometry.kind.root_sectors() * ENTRIES) as u16).to_le_bytes());
    match u16::try_from(sectors) {
        Ok(sectors) => put(&mut sector, 19, &sectors.to_le_bytes()),
        Err(_) => put(&mut sector, 32, &sectors.to_le_bytes()),
    }
    sector[21] = 0xf8; // a fixed disk
    put(&mut sector, 24, &32_u16.to_le_bytes()); // sectors a track and heads: no one asks
    put(&mut sector, 26, &64_u16.to_le_bytes());
    put(&mut sector, 28, &identity.sectors_before.to_le_bytes());
    let tail = match geometry.kind {
        Kind::Fat16 => {
            put(&mut sector, 0, &[0xeb, 0x3c, 0x90]);
            put(&mut sector, 22, &(table_sectors as u16).to_le_bytes());
            put(&mut sector, 54, b"FAT16   ");
            36
        }
        Kind::Fat32 => {
            put(&mut sector, 0, &[0xeb, 0x58, 0x90]);
            put(&mut sector, 36, &(table_sectors as u32).to_le_bytes());
            put(&mut sector, 44, &root.to_le_bytes());
            put(&mut sector, 48, &(FS_INFO as u16).to_le_bytes());
            put(&mut sector, 50, &(BACKUP as u16).to_le_bytes());
            put(&mut sector, 82, b"FAT32   ");
            64
        }
    };
    sector[tail] = 0x80; // the first hard disk
    sector[tail + 2] = 0x29; // the next two fields are there
    put(&mut sector, tail + 3, &identity.id.to_le_bytes());
    put(&mut sector, tail + 7, &identity.label);
    put(&mut sector, 510, &[0x55, 0xaa]);
    sector
}

/// The sector FSInfo. Section 5 of the specification.
fn fs_info(geometry: &Geometry, next_free: u32) -> Vec<u8> {
    let mut sector = vec![0; SECTOR as usize];
    let used = next_free - super::CLUSTERS_FROM;
    put(&mut sector, 0, &0x4161_5252_u32.to_le_bytes());
    put(&mut sector, 484, &0x6141_7272_u32.to_le_bytes());
    put(&mut sector, 488, &(geometry.clusters - used).to_le_bytes());
    put(&mut sector, 492, &next_free.to_le_bytes());
    put(&mut sector, 508, &0xaa55_0000_u32.to_le_bytes());
    sector
}
