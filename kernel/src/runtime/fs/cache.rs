//! A small cache for what is read in small pieces: boot sectors, tables, directories, and the
//! first and last bytes of files.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::runtime::dev::block::{Buffer, Disk, DiskError, Request};

/// Bytes that one read of the device brings in.
const BLOCK_BYTES: usize = 64 << 10;
/// Blocks that are kept: enough for a table and a directory on the way to a file.
const BLOCKS: usize = 4;

/// A disk, and the blocks of it that were looked at last.
pub struct Cache {
    disk: Disk,
    /// The blocks, the one used last at the end.
    blocks: Vec<Block>,
}

/// Some sectors of the disk.
struct Block {
    /// Where they start, in bytes.
    start: u64,
    data: Box<[u8]>,
}

impl Block {
    fn holds(&self, position: u64) -> bool {
        position.checked_sub(self.start).is_some_and(|offset| offset < self.data.len() as u64)
    }
}

impl Cache {
    /// An empty cache for `disk`.
    pub fn new(disk: Disk) -> Cache {
        Cache { disk, blocks: Vec::new() }
    }

    /// The name of the kind of device.
    pub fn name(&self) -> &'static str {
        self.disk.name()
    }

    /// Size of the device in bytes.
    pub fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    /// Bytes in a sector of the device.
    pub fn sector_bytes(&self) -> usize {
        self.disk.sector_bytes()
    }

    /// Reads large pieces straight from the device; see [`Disk::read_queued`].
    ///
    /// # Errors
    /// Those of the device.
    pub fn read_direct(
        &mut self,
        requests: &mut dyn Iterator<Item = Request>,
    ) -> Result<(), DiskError> {
        self.disk.read_queued(requests)
    }

    /// Fills `out` with the bytes at `position`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&mut self, mut position: u64, mut out: &mut [u8]) -> Result<(), DiskError> {
        while !out.is_empty() {
            let bytes = self.at(position)?;
            let n = bytes.len().min(out.len());
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(&bytes[..n]);
            position += n as u64;
            out = later;
        }
        Ok(())
    }

    /// Fills `out` with the bytes at `position`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read_into(&mut self, mut position: u64, mut out: Buffer) -> Result<(), DiskError> {
        while !out.is_empty() {
            let bytes = self.at(position)?;
            let n = bytes.len().min(out.len());
            let (mut now, later) = out.split_at(n);
            now.fill_from(&bytes[..n]);
            position += n as u64;
            out = later;
        }
        Ok(())
    }

    /// The bytes from `position` to the end of a block: at least one.
    fn at(&mut self, position: u64) -> Result<&[u8], DiskError> {
        let last = match self.blocks.iter().rposition(|block| block.holds(position)) {
            Some(i) => {
                let block = self.blocks.remove(i);
                self.blocks.push(block);
                self.blocks.len() - 1
            }
            None => {
                let block = self.fetch(position)?;
                if self.blocks.len() == BLOCKS {
                    self.blocks.remove(0);
                }
                self.blocks.push(block);
                self.blocks.len() - 1
            }
        };
        let block = &self.blocks[last];
        Ok(&block.data[(position - block.start) as usize..])
    }

    /// Reads the block around `position`; only its sector if another one of the block is bad.
    fn fetch(&mut self, position: u64) -> Result<Block, DiskError> {
        let sector_bytes = self.disk.sector_bytes() as u64;
        let sector = position / sector_bytes;
        let per_block = (BLOCK_BYTES as u64 / sector_bytes).max(1);
        let first = sector - sector % per_block;
        let end = (first + per_block).min(self.disk.sectors());
        if sector >= end {
            return Err(DiskError::OutOfRange { sector });
        }
        let data = vec![0; ((end - first) * sector_bytes) as usize];
        match self.disk.read(first, data.into()) {
            Ok(data) => Ok(Block { start: first * sector_bytes, data }),
            Err(DiskError::Unreadable { sector: bad }) if bad != sector => {
                let data = self.disk.read(sector, vec![0; sector_bytes as usize].into())?;
                Ok(Block { start: sector * sector_bytes, data })
            }
            Err(error) => Err(error),
        }
    }
}
