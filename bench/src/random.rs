//! Seeded random numbers.

#![forbid(unsafe_code)]

use kernel::llm::sampling::SplitMix64;

/// The samplers' generator: fast, and the same on each host.
pub struct Random(SplitMix64);

impl Random {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Random {
        Random(SplitMix64::new(seed))
    }

    /// A number in [-1, 1).
    pub fn float(&mut self) -> f32 {
        // An f32 holds 24 bits, so the top 24 are used.
        (self.0.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}
