//! A disk image that lies in memory: the initial RAM disk of the boot protocol.

#![forbid(unsafe_code)]

use super::{BlockDevice, Completion, Request};

const SECTOR_BYTES: usize = 512;

/// A disk whose sectors lie in memory.
pub struct RamDisk {
    image: &'static [u8],
    done: Option<Completion>,
}

impl RamDisk {
    /// A disk made of `image`. Bytes after the last whole sector of 512 are left out.
    pub fn new(image: &'static [u8]) -> RamDisk {
        RamDisk { image, done: None }
    }
}

impl BlockDevice for RamDisk {
    fn name(&self) -> &'static str {
        "initrd"
    }

    fn sector_bytes(&self) -> usize {
        SECTOR_BYTES
    }

    fn sectors(&self) -> u64 {
        (self.image.len() / SECTOR_BYTES) as u64
    }

    fn queue_depth(&self) -> usize {
        1
    }

    fn submit(&mut self, mut request: Request) {
        let start = request.sector as usize * SECTOR_BYTES;
        request.buffer.fill_from(&self.image[start..start + request.buffer.len()]);
        self.done = Some(Completion { request, ok: true });
    }

    fn complete(&mut self) -> Option<Completion> {
        self.done.take()
    }
}
