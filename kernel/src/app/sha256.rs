//! SHA-256 (FIPS 180-4), with the CPU's own instructions where it has them.
//!
//! The `sha2` crate needs an operating system to find those instructions, so this module chooses on
//! the bare target. Everywhere else `sha2` compresses; in the tests `sha2` is the oracle.

use core::fmt;

use sha2::block_api::compress256;

type Block = [u8; 64];
type Compress = fn(&mut [u32; 8], &[Block]);

/// A SHA-256 digest; displayed in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes a message that comes in parts.
pub struct Sha256 {
    compress: Compress,
    state: [u32; 8],
    /// The start of an incomplete block.
    partial: Block,
    /// Bytes of the message so far.
    length: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        Sha256::new()
    }
}

impl Sha256 {
    /// A hasher with the fastest compression function that the CPU can run.
    pub fn new() -> Sha256 {
        Sha256::with(best().1)
    }

    /// Name of the compression function in use, for the log.
    pub fn name() -> &'static str {
        best().0
    }

    fn with(compress: Compress) -> Sha256 {
        const INITIAL: [u32; 8] = [
            0x6a09_e667,
            0xbb67_ae85,
            0x3c6e_f372,
            0xa54f_f53a,
            0x510e_527f,
            0x9b05_688c,
            0x1f83_d9ab,
            0x5be0_cd19,
        ];
        Sha256 { compress, state: INITIAL, partial: [0; 64], length: 0 }
    }

    /// Hashes the next part of the message.
    pub fn update(&mut self, mut data: &[u8]) {
        let filled = (self.length % 64) as usize;
        self.length += data.len() as u64;
        if filled > 0 {
            let n = data.len().min(64 - filled);
            self.partial[filled..filled + n].copy_from_slice(&data[..n]);
            data = &data[n..];
            if filled + n < 64 {
                return;
            }
            (self.compress)(&mut self.state, &[self.partial]);
        }
        let (blocks, rest) = data.as_chunks();
        (self.compress)(&mut self.state, blocks);
        self.partial[..rest.len()].copy_from_slice(rest);
    }

    /// The digest of the whole message.
    pub fn finish(mut self) -> Digest {
        let bits = self.length.wrapping_mul(8).to_be_bytes();
        // A one bit, zeros up to 8 bytes before the end of a block, the length in bits.
        let zeros = 55_u64.wrapping_sub(self.length) % 64;
        self.update(&[0x80]);
        self.update(&[0; 63][..zeros as usize]);
        self.update(&bits);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        Digest(digest)
    }
}

/// The fastest compression function that the CPU can run, and its name.
fn best() -> (&'static str, Compress) {
    #[cfg(target_arch = "aarch64")]
    if let Some(compress) = armv8::detect() {
        return ("armv8 sha2", compress);
    }
    ("portable", compress256)
}

#[cfg(target_arch = "aarch64")]
mod armv8 {
    use core::arch::aarch64::*;

    use super::{Block, Compress};
    use crate::cpu::Features;

    /// The round constants of FIPS 180-4, section 4.2.2.
    const K: [u32; 64] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    ];

    /// The compression function, if the CPU has SHA-256 instructions.
    pub fn detect() -> Option<Compress> {
        Features::of_this_core().sha2().then_some(
            (|state, blocks| {
                // SAFETY: this closure is only handed out when the CPU has the instructions.
                unsafe { compress(state, blocks) }
            }) as Compress,
        )
    }

    #[target_feature(enable = "sha2")]
    fn compress(state: &mut [u32; 8], blocks: &[Block]) {
        // SAFETY: the state holds 8 words, 4 from each of the two places.
        let (mut abcd, mut efgh) =
            unsafe { (vld1q_u32(state.as_ptr()), vld1q_u32(state.as_ptr().add(4))) };
        for block in blocks {
            let (abcd_before, efgh_before) = (abcd, efgh);
            // SAFETY: the block holds 64 bytes, 16 from each of the four places.
            let mut w: [uint32x4_t; 4] = core::array::from_fn(|i| unsafe {
                vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(block.as_ptr().add(16 * i))))
            });
            for step in 0..16 {
                // SAFETY: K holds 64 words, 4 from each of the 16 places.
                let k = unsafe { vld1q_u32(K.as_ptr().add(4 * step)) };
                let wk = vaddq_u32(w[0], k);
                let abcd_now = abcd;
                abcd = vsha256hq_u32(abcd, efgh, wk);
                efgh = vsha256h2q_u32(efgh, abcd_now, wk);
                let next = vsha256su1q_u32(vsha256su0q_u32(w[0], w[1]), w[2], w[3]);
                w = [w[1], w[2], w[3], next];
            }
            abcd = vaddq_u32(abcd, abcd_before);
            efgh = vaddq_u32(efgh, efgh_before);
        }
        // SAFETY: as for the loads above.
        unsafe {
            vst1q_u32(state.as_mut_ptr(), abcd);
            vst1q_u32(state.as_mut_ptr().add(4), efgh);
        }
    }
}

/// Compares the hasher with the `sha2` crate on messages of many lengths.
///
/// # Errors
/// The length of the first message whose digests differ.
pub fn self_test() -> Result<&'static str, usize> {
    use sha2::Digest as _;
    let message: [u8; 257] = core::array::from_fn(|i| (i * 31 + 7) as u8);
    for length in 0..=message.len() {
        for first in [0, length / 3, length] {
            let mut hasher = Sha256::new();
            hasher.update(&message[..first]);
            hasher.update(&message[first..length]);
            if hasher.finish().0[..] != sha2::Sha256::digest(&message[..length])[..] {
                return Err(length);
            }
        }
    }
    Ok(Sha256::name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn digests_equal_those_of_the_sha2_crate() {
        assert!(self_test().is_ok());
    }

    #[test]
    fn the_digest_of_abc_is_the_standards() {
        let mut hasher = Sha256::new();
        hasher.update(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hasher.finish().to_string(), hex);
    }
}
