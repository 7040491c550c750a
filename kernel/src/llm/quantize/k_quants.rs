//! The K-quants: super-blocks with scales of groups, and a scale of scales.

use super::super_block::{GROUPS, Scales, SuperBlock};
use super::{SUPER_BLOCK, fields, part, scale, signed};

/// Two bits for each weight: four runs of 32 share 32 bytes.
pub(super) fn crumbs(bytes: &[u8; 64]) -> [u8; SUPER_BLOCK] {
    fields::<2, 32, SUPER_BLOCK>(bytes)
}

/// Four bits for each weight: two runs of 32 share 32 bytes.
fn nibbles(bytes: &[u8; 128]) -> [u8; SUPER_BLOCK] {
    fields::<4, 32, SUPER_BLOCK>(bytes)
}

/// One bit for each weight: eight runs of 32 share 32 bytes.
fn bits(bytes: &[u8; 32]) -> [u8; SUPER_BLOCK] {
    fields::<1, 32, SUPER_BLOCK>(bytes)
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

/// Q2_K: 16 bytes of scales and minimums, 64 bytes of weights, two F16.
///
/// Each 16 weights have a scale and a minimum of 4 bits. The F16 are the scales of scales and
/// minimums.
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

/// Q3_K: 32 bytes of high bits, 64 of low bits, 12 of scales, an F16.
///
/// A weight has one high bit and two low bits, with 4 added. Each 16 weights have a scale. The F16
/// is the scale of the scales.
pub fn q3_k(block: &[u8; 110]) -> SuperBlock {
    let (high, low) = (bits(part(block, 0)), crumbs(part(block, 32)));
    let weights = core::array::from_fn(|i| signed(low[i] | high[i] << 2, 4));
    SuperBlock { weights, scales: q3_k_scales(block) }
}

/// Each of the bytes twice: for two groups of 16.
fn four_and_four(first: u32, last: u32) -> [u8; GROUPS] {
    let bytes = (u64::from(last) << 32 | u64::from(first)).to_le_bytes();
    core::array::from_fn(|i| bytes[i / 2])
}

/// The scales of Q4_K and Q5_K: two F16, then 12 bytes.
///
/// The F16 are the scales of scales and minimums. The bytes hold a scale and a minimum of 6 bits
/// for each 32 weights.
pub fn q4_k_scales<const N: usize>(block: &[u8; N]) -> Scales {
    let word = |i: usize| u32::from_le_bytes(*part(block, 4 + 4 * i));
    let [a, b, c] = [word(0), word(1), word(2)];
    // Four at a time. Each of the first four has a byte of its own, which also holds the high two
    // bits of one of the other four.
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

/// Q5_K: the scales ([`q4_k_scales`]), 32 bytes of high bits, 128 of low bits.
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

/// Q6_K: 128 bytes of low bits, 64 of high bits, 16 scales, an F16.
///
/// A weight has four low bits and two high bits, with 32 added. Each 16 weights have a signed
/// scale. The F16 is the scale of the scales.
pub fn q6_k(block: &[u8; 210]) -> SuperBlock {
    // Here two runs of 64 share 64 bytes.
    let low = fields::<4, 64, SUPER_BLOCK>(part::<128>(block, 0));
    let high = crumbs(part(block, 128));
    let weights = core::array::from_fn(|i| signed(low[i] | high[i] << 4, 32));
    SuperBlock { weights, scales: q6_k_scales(block) }
}
