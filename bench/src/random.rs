//! Seeded random numbers.

#![forbid(unsafe_code)]

use kernel::llm::sampling::SplitMix64;

/// The samplers' generator: as fast as memory, and the same on each host.
pub struct Random(SplitMix64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Random {
        Random(SplitMix64::new(seed))
    }

    /// A number from -1 to below 1.
    pub fn float(&mut self) -> f32 {
        // The top 24 bits are as many as an f32 holds.
        (self.0.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}
