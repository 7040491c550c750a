//! The partition table of an SD card: an MBR with one FAT32 partition.
//!
//! A Raspberry Pi's boot loader uses the first FAT partition of an MBR ("Raspberry Pi boot EEPROM",
//! Raspberry Pi documentation). The kernel does the same.

/// Bytes in a sector.
const SECTOR: u64 = 512;
/// The first byte of the partition, a multiple of a usual card's erase blocks.
///
/// Source: SD Association, "SD Physical Layer Simplified Specification", AU_SIZE: 4 MiB on most
/// cards.
pub const PARTITION_START: u64 = 4 << 20;
/// The type of a FAT32 partition with sector numbers.
const FAT32_LBA: u8 = 0x0c;
/// The first entry of the table.
const TABLE: usize = 446;

/// The first sector of a card whose partition has `bytes` bytes.
///
/// The size is whole sectors, under 2 TiB. `id` identifies the card, as `PARTUUID` in Linux.
pub fn sector(bytes: u64, id: u32) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    sector[440..444].copy_from_slice(&id.to_le_bytes());
    let entry = &mut sector[TABLE..TABLE + 16];
    // Cylinder, head and sector have the value for "out of range" on both ends.
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = FAT32_LBA;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&((PARTITION_START / SECTOR) as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&((bytes / SECTOR) as u32).to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// The first byte and the size of the first FAT32 partition in the table.
pub fn first_partition(sector: &[u8]) -> Option<(u64, u64)> {
    let table = sector.get(TABLE..510)?;
    if sector.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let entry = table.as_chunks::<16>().0.iter().find(|entry| entry[4] == FAT32_LBA)?;
    let word = |at: usize| {
        u64::from(u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]))
    };
    Some((word(8) * SECTOR, word(12) * SECTOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_is_found_where_it_was_put() {
        let sector = sector(7 << 30, 0x0123_4567);
        assert_eq!(first_partition(&sector), Some((4 << 20, 7 << 30)));
        assert_eq!(sector[440..444], [0x67, 0x45, 0x23, 0x01]);
        assert_eq!(first_partition(&sector[..511]), None);
        let mut unsigned = sector;
        unsigned[511] = 0;
        assert_eq!(first_partition(&unsigned), None);
        let mut linux = sector;
        linux[TABLE + 4] = 0x83;
        assert_eq!(first_partition(&linux), None);
    }
}
