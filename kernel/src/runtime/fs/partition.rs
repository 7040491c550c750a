//! Partition tables: MBR and GPT.
//!
//! Sources: UEFI Specification 2.10, 5.2 "LBA 0 Format" and 5.3 "GUID Partition Table (GPT) Disk
//! Layout".

#![forbid(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;

use super::cache::Cache;
use crate::runtime::dev::block::DiskError;

/// A partition, in bytes from the start of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its first byte.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
}

/// An MBR entry of this type says that there is a GPT.
const MBR_TYPE_GPT: u8 = 0xEE;
const GPT_SIGNATURE: &[u8; 8] = b"EFI PART";
const GPT_HEADER_BYTES: usize = 92;
/// More entries than this are not looked at. The usual number is 128.
const GPT_MAX_ENTRIES: u32 = 1024;
const GPT_MAX_ENTRY_BYTES: u32 = 4096;

/// The partitions of a device, as its MBR or GPT lists them; none if it has neither.
///
/// A partition is cut where the device ends: its volume then tells that the device is too small for
/// it, as that of an image that was not copied whole. Those that are empty or lie outside are left out,
/// as is an MBR's chain of logical partitions. A GPT counts only if its checksums are right; its backup
/// at the end of the device is taken if the first one is damaged.
///
/// # Errors
/// The tables could not be read.
pub fn partitions(device: &mut Cache) -> Result<Vec<Partition>, DiskError> {
    let sector_bytes = device.sector_bytes() as u64;
    let last_sector = (device.bytes() / sector_bytes).saturating_sub(1);
    let mut mbr = [0; 512];
    if device.bytes() < mbr.len() as u64 {
        return Ok(Vec::new());
    }
    device.read(0, &mut mbr)?;
    if mbr[510..] != [0x55, 0xAA] {
        return Ok(Vec::new());
    }
    let entries = mbr[446..510].as_chunks::<16>().0;
    if entries.iter().any(|entry| entry[4] == MBR_TYPE_GPT) {
        for sector in [1, last_sector] {
            if let Some(partitions) = gpt(device, sector)? {
                return Ok(partitions);
            }
        }
        log::warn!("the partition table (GPT) and its backup are damaged");
        return Ok(Vec::new());
    }
    let partition = |entry: &[u8; 16]| {
        let start = u64::from(u32_at(entry, 8)) * sector_bytes;
        let bytes = u64::from(u32_at(entry, 12)) * sector_bytes;
        (entry[4] != 0).then(|| on_device(start, bytes, device.bytes()))?
    };
    Ok(entries.iter().filter_map(partition).collect())
}

/// The partition of `bytes` from `start` on, as far as it lies on a device of `size` bytes; `None` if
/// no part of it does.
fn on_device(start: u64, bytes: u64, size: u64) -> Option<Partition> {
    let bytes = bytes.min(size.checked_sub(start)?);
    (start > 0 && bytes > 0).then_some(Partition { start, bytes })
}

/// The partitions of the GPT whose header lies in `header_sector`; `None` if it is damaged.
fn gpt(device: &mut Cache, header_sector: u64) -> Result<Option<Vec<Partition>>, DiskError> {
    let sector_bytes = device.sector_bytes() as u64;
    let fits =
        |start: u64, bytes: u64, size: u64| start.checked_add(bytes).is_some_and(|e| e <= size);
    let size = device.bytes();
    let Some(position) = header_sector.checked_mul(sector_bytes) else { return Ok(None) };
    if !fits(position, sector_bytes, size) {
        return Ok(None);
    }
    let mut header = vec![0; sector_bytes as usize];
    device.read(position, &mut header)?;
    let header_bytes = u32_at(&header, 12) as usize;
    if header[..8] != *GPT_SIGNATURE
        || !(GPT_HEADER_BYTES..=header.len()).contains(&header_bytes)
        || u64_at(&header, 24) != header_sector
    {
        return Ok(None);
    }
    let crc = u32_at(&header, 16);
    header[16..20].fill(0);
    if crc32(&header[..header_bytes]) != crc {
        return Ok(None);
    }
    let (count, entry_bytes) = (u32_at(&header, 80), u32_at(&header, 84));
    let table_bytes = u64::from(count) * u64::from(entry_bytes);
    let Some(table) = u64_at(&header, 72).checked_mul(sector_bytes) else { return Ok(None) };
    if count > GPT_MAX_ENTRIES
        || !(128..=GPT_MAX_ENTRY_BYTES).contains(&entry_bytes)
        || !fits(table, table_bytes, size)
    {
        return Ok(None);
    }
    let mut entries = vec![0; table_bytes as usize];
    device.read(table, &mut entries)?;
    if crc32(&entries) != u32_at(&header, 88) {
        return Ok(None);
    }
    let partition = |entry: &[u8]| {
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        let start = first.checked_mul(sector_bytes)?;
        let bytes = sectors.checked_mul(sector_bytes)?;
        let used = entry[..16] != [0; 16];
        used.then(|| on_device(start, bytes, size))?
    };
    Ok(Some(entries.chunks_exact(entry_bytes as usize).filter_map(partition).collect()))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The CRC-32 of IEEE 802.3, bit by bit: the tables are a few KiB long.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &b| (0..8).fold(crc ^ u32::from(b), |crc, _| step(crc)))
}
