//! Random bytes, fit for secrets.
//!
//! A ChaCha20 generator is seeded once, while the machine starts, by all sources that the machine
//! has:
//!
//! - `RNDR`, an instruction of the processor (Arm DDI 0487, D24.2.67 and D24.2.190);
//! - a virtio entropy device ([`virtio`]);
//! - `/chosen/rng-seed` of the device tree, random bytes of the boot loader.
//!
//! SHA-256 joins the bytes of the sources. So one good source suffices, whatever the others give.
//!
//! The generator's key changes with each request, and no key gives the key before. The seed of the
//! device tree stays in memory, as the tree is mapped read-only. Where the seed is the only source,
//! a reader of all memory could compute earlier bytes.

pub mod virtio;

#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod rndr;
#[cfg(test)]
mod tests;

use core::fmt;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

#[cfg(target_os = "none")]
pub use machine::{fill, fill_uninit, sources, start};

/// Bytes of a key of the generator, and of what each source gives.
pub const KEY_BYTES: usize = 32;

/// A source of random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The processor's instruction.
    Rndr,
    /// A virtio entropy device.
    Virtio,
    /// `/chosen/rng-seed`.
    RngSeed,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Rndr => "rndr",
            Source::Virtio => "virtio-rng",
            Source::RngSeed => "rng-seed",
        })
    }
}

/// Joins the bytes of sources to the first key of a [`Generator`].
#[derive(Clone, Debug, Default)]
pub struct Seeder {
    hash: Sha256,
}

impl Seeder {
    /// Adds the bytes of a source.
    pub fn add(&mut self, source: Source, bytes: &[u8]) {
        self.hash.update([source as u8]);
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }

    /// The generator with this seed.
    pub fn generator(self) -> Generator {
        Generator { key: self.hash.finalize().into() }
    }
}

/// A generator of random bytes.
pub struct Generator {
    key: [u8; KEY_BYTES],
}

impl Generator {
    /// The generator of one request.
    ///
    /// The key changes ("fast key erasure", D. J. Bernstein, 2017): no later state of the memory
    /// shows what this request gets.
    pub fn request(&mut self) -> ChaCha20Rng {
        let mut stream = ChaCha20Rng::from_seed(self.key);
        stream.fill_bytes(&mut self.key);
        let mut own = [0; KEY_BYTES];
        stream.fill_bytes(&mut own);
        ChaCha20Rng::from_seed(own)
    }
}
