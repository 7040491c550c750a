//! The K types: blocks of 256 weights whose groups have scales, which have a scale themselves.

use super::super_block::{GROUPS, Scales, SuperBlock};
use super::{SUPER_BLOCK, part, scale};

/// Two bits for each weight: four runs of 32 share 32 bytes.
pub(super) fn crumbs(bytes: &[u8; 64]) -> [u8; SUPER_BLOCK] {
    core::array::from_fn(|i| bytes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3)
}

/// Four bits for each weight: two runs of 32 share 32 bytes.
fn nibbles(bytes: &[u8; 128]) -> [u8; SUPER_BLOCK] {
    core::array::from_fn(|i| bytes[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15)
}

/// One bit for each weight: eight runs of 32 share 32 bytes.
fn bits(bytes: &[u8; 32]) -> [u8; SUPER_BLOCK] {
    core::array::from_fn(|i| bytes[i % 32] >> (i / 32) & 1)
}

/// The scales of Q2_K: see [`q2_k`].
pub fn q2_k_scales(block: &[u8; 84]) -> Scales {
    let both = part::<16>(block, 0);
    Scales {
        d: scale(*part(block, 80)),
        d_min: scale(*part(block, 82)),
        scales: both.map(|both| (both & 15) as i8),
        mins: both.map(|both| both >> 4),
    }
}

/// Q2_K: 16 bytes with a scale and a minimum of 4 bits for each 16 weights, 64 bytes with the
/// weights, and the scales of scales and minimums as F16.
pub fn q2_k(block: &[u8; 84]) -> SuperBlock {
    let weights = crumbs(part(block, 16)).map(|q| q as i8);
    SuperBlock { weights, scales: q2_k_scales(block) }
}

/// The scales of Q3_K: see [`q3_k`].
pub fn q3_k_scales(block: &[u8; 110]) -> Scales {
    // 16 scales of six bits, with 32 added: the low four are in 8 bytes, the high two in 4.
    let low = part::<8>(block, 96);
    let high = part::<4>(block, 104);
    let scales = core::array::from_fn(|i| {
        let low = low[i % 8] >> (i / 8 * 4) & 15;
        let high = high[i % 4] >> (i / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    });
    Scales::without_mins(scale(*part(block, 108)), scales)
}

/// Q3_K: 32 bytes with the high bit of the weights, 64 with the low two, 12 with the scales of 16
/// weights each, and the scale of the scales as F16. Weights have 4 added.
pub fn q3_k(block: &[u8; 110]) -> SuperBlock {
    let (high, low) = (bits(part(block, 0)), crumbs(part(block, 32)));
    let weights = core::array::from_fn(|i| (low[i] | high[i] << 2) as i8 - 4);
    SuperBlock { weights, scales: q3_k_scales(block) }
}

/// Each of the bytes twice: for two groups of 16.
fn four_and_four(first: u32, last: u32) -> [u8; GROUPS] {
    let bytes = (u64::from(last) << 32 | u64::from(first)).to_le_bytes();
    core::array::from_fn(|i| bytes[i / 2])
}

/// The scales of Q4_K and Q5_K: those of scales and minimums as F16, then 12 bytes with scales and
/// minimums of 6 bits for each 32 weights.
pub fn q4_k_scales<const N: usize>(block: &[u8; N]) -> Scales {
    let word = |i: usize| u32::from_le_bytes(*part(block, 4 + 4 * i));
    let [a, b, c] = [word(0), word(1), word(2)];
    // Four at a time. Of the first four, each has a byte of its own, whose high two bits are those
    // of the others.
    let scales = four_and_four(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4);
    let mins = four_and_four(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4);
    Scales {
        d: scale(*part(block, 0)),
        d_min: scale(*part(block, 2)),
        scales: scales.map(|scale| scale as i8),
        mins,
    }
}

/// Q4_K: the scales ([`q4_k_scales`]), then 128 bytes with the weights.
pub fn q4_k(block: &[u8; 144]) -> SuperBlock {
    let weights = nibbles(part(block, 16)).map(|q| q as i8);
    SuperBlock { weights, scales: q4_k_scales(block) }
}

/// Q5_K: the scales ([`q4_k_scales`]), 32 bytes with the high bits of the weights, 128 with the
/// low four.
pub fn q5_k(block: &[u8; 176]) -> SuperBlock {
    let (high, low) = (bits(part(block, 16)), nibbles(part(block, 48)));
    let weights = core::array::from_fn(|i| (low[i] | high[i] << 4) as i8);
    SuperBlock { weights, scales: q4_k_scales(block) }
}

/// The scales of Q6_K: see [`q6_k`].
pub fn q6_k_scales(block: &[u8; 210]) -> Scales {
    let scales = part::<16>(block, 192).map(|scale| scale as i8);
    Scales::without_mins(scale(*part(block, 208)), scales)
}

/// Q6_K: 128 bytes with the low four bits of the weights, 64 with the high two, 16 signed scales
/// of 16 weights each, and the scale of the scales as F16. Weights have 32 added.
pub fn q6_k(block: &[u8; 210]) -> SuperBlock {
    let (low, high) = (part::<128>(block, 0), crumbs(part(block, 128)));
    let weights = core::array::from_fn(|i| {
        // Here two runs of 64 share 64 bytes.
        let low = low[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4) & 15;
        (low | high[i] << 4) as i8 - 32
    });
    SuperBlock { weights, scales: q6_k_scales(block) }
}
