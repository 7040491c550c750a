//! The types with blocks of 32 weights, one scale for all of them.

use super::{BLOCK, FP4_VALUES, IQ4_VALUES, fields, scale, signed};

/// A block of 32 weights: weight i is `weights[i] * d + offset`.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// The weights as whole numbers.
    pub weights: [i8; BLOCK],
    /// Their scale.
    pub d: f32,
    /// The offset of each weight; [`NO_OFFSET`] for types without offsets.
    pub offset: f32,
}

/// Negative zero, which changes no number when added, not even a zero's sign.
pub const NO_OFFSET: f32 = -0.0;

impl Block {
    fn new(weights: [i8; BLOCK], d: f32) -> Block {
        Block { weights, d, offset: NO_OFFSET }
    }
}

/// The low nibbles, then the high nibbles.
fn nibbles(pairs: &[u8; BLOCK / 2]) -> [u8; BLOCK] {
    fields::<4, { BLOCK / 2 }, BLOCK>(pairs)
}

/// As [`nibbles`], with the fifth bits from `high`: bit i for weight i.
fn five_bits(pairs: &[u8; BLOCK / 2], high: [u8; 4]) -> [u8; BLOCK] {
    let high = u32::from_le_bytes(high);
    let low = nibbles(pairs);
    core::array::from_fn(|i| low[i] | ((high >> i) as u8 & 1) << 4)
}

/// Q4_0: a scale (F16), then 16 bytes of nibbles.
///
/// Low nibbles are weights 0 to 15, high nibbles weights 16 to 31. Each weight has 8 added.
pub fn q4_0(block: &[u8; 18]) -> Block {
    let [d0, d1, pairs @ ..] = block;
    Block::new(nibbles(pairs).map(|q| signed(q, 8)), scale([*d0, *d1]))
}

/// Q4_1: a scale and an offset (F16), then nibbles as in Q4_0, with nothing added.
pub fn q4_1(block: &[u8; 20]) -> Block {
    let [d0, d1, m0, m1, pairs @ ..] = block;
    let weights = nibbles(pairs).map(|q| q as i8);
    Block { weights, d: scale([*d0, *d1]), offset: scale([*m0, *m1]) }
}

/// Q5_0: a scale (F16), 32 bits with the weights' fifth bits, nibbles as in Q4_0.
///
/// Each weight has 16 added.
pub fn q5_0(block: &[u8; 22]) -> Block {
    let [d0, d1, h0, h1, h2, h3, pairs @ ..] = block;
    let weights = five_bits(pairs, [*h0, *h1, *h2, *h3]).map(|q| signed(q, 16));
    Block::new(weights, scale([*d0, *d1]))
}

/// Q5_1: a scale and an offset (F16), then as in Q5_0, with nothing added.
pub fn q5_1(block: &[u8; 24]) -> Block {
    let [d0, d1, m0, m1, h0, h1, h2, h3, pairs @ ..] = block;
    let weights = five_bits(pairs, [*h0, *h1, *h2, *h3]).map(|q| q as i8);
    Block { weights, d: scale([*d0, *d1]), offset: scale([*m0, *m1]) }
}

/// Q8_0: a scale (F16), then 32 signed weights.
pub fn q8_0(block: &[u8; 34]) -> Block {
    let [d0, d1, weights @ ..] = block;
    Block::new(weights.map(|q| q as i8), scale([*d0, *d1]))
}

/// IQ4_NL: as Q4_0, but the nibbles are indices into [`IQ4_VALUES`].
pub fn iq4_nl(block: &[u8; 18]) -> Block {
    let [d0, d1, pairs @ ..] = block;
    Block::new(nibbles(pairs).map(|q| IQ4_VALUES[usize::from(q)]), scale([*d0, *d1]))
}

/// MXFP4: a scale (power of two), then nibbles: indices into [`FP4_VALUES`].
pub fn mxfp4(block: &[u8; 17]) -> Block {
    let [exponent, pairs @ ..] = block;
    Block::new(nibbles(pairs).map(|q| FP4_VALUES[usize::from(q)]), half_power(*exponent))
}

/// 2^(exponent - 128): half of the scale, as [`FP4_VALUES`] are doubled.
pub fn half_power(exponent: u8) -> f32 {
    // The two smallest are below the normal numbers.
    f32::from_bits(match exponent {
        0 | 1 => 1 << (21 + exponent),
        _ => u32::from(exponent - 1) << 23,
    })
}
