//! The ternary types: weights of -1, 0 or 1, with one scale for 256.

use super::k_quants::crumbs;
use super::super_block::{GROUPS, Scales, SuperBlock};
use super::{part, scale};

fn block(weights: [u8; 256], d: f32) -> SuperBlock {
    let weights = weights.map(|q| q as i8 - 1);
    SuperBlock { weights, scales: Scales::without_mins(d, [1; GROUPS]) }
}

/// TQ1_0: 52 bytes of ternary digits, then a scale (F16).
///
/// A byte holds five digits, as a fraction of 256. 32 bytes hold weights 0 to 159, 16 bytes weights
/// 160 to 239. The last 4 bytes hold four digits each. Of n bytes, digit i of byte j is weight `j +
/// i * n`.
pub fn tq1_0(bytes: &[u8; 54]) -> SuperBlock {
    let digit = |byte: u8, i: usize| {
        let shifted = byte.wrapping_mul([1, 3, 9, 27, 81][i]);
        ((u16::from(shifted) * 3) >> 8) as u8
    };
    let weights = core::array::from_fn(|i| match i {
        ..160 => digit(bytes[i % 32], i / 32),
        160..240 => digit(bytes[32 + i % 16], (i - 160) / 16),
        _ => digit(bytes[48 + i % 4], (i - 240) / 4),
    });
    block(weights, scale(*part(bytes, 52)))
}

/// The scales of TQ2_0: see [`tq2_0`].
pub fn tq2_0_scales(bytes: &[u8; 66]) -> Scales {
    Scales::without_mins(scale(*part(bytes, 64)), [1; GROUPS])
}

/// TQ2_0: 64 bytes with two bits for each weight, with 1 added, then a scale (F16).
pub fn tq2_0(bytes: &[u8; 66]) -> SuperBlock {
    block(crumbs(part(bytes, 0)), tq2_0_scales(bytes).d)
}
