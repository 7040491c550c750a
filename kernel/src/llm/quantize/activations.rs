//! The formats of activations: what ggml multiplies weights with (`vec_dot_type`).
//!
//! Activations are quantised as ggml's reference code does it (`ggml-quants.c`), halves rounded
//! away from zero or to the even number included.

use super::{BLOCK, GROUP, GROUPS, Interleave, SUPER_BLOCK, round_to_f16};

/// The formats of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "ggml's names")]
pub enum ActivationType {
    /// As they are.
    F32,
    /// Rounded to F16, kept as F32.
    F16,
    /// Rounded to BF16, kept as F32.
    BF16,
    /// Blocks of [`BlockQ8_0`].
    Q8_0,
    /// Blocks of [`BlockQ8_1`].
    Q8_1,
    /// Blocks of [`BlockQ8K`].
    Q8_K,
}

impl ActivationType {
    /// How many there are.
    pub const COUNT: usize = ActivationType::Q8_K as usize + 1;
}

/// 32 activations as signed bytes with one scale.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// The activations over the scale, from -127.
    pub qs: [i8; BLOCK],
    /// The scale, rounded to F16 as ggml stores it.
    pub d: f32,
    /// -8 times the sum of `qs`: what weights that are stored with 8 added have too much.
    pub minus_8_sums: i32,
}

/// As [`BlockQ8_0`], with the sum, for weights that have an offset.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct BlockQ8_1 {
    /// The activations over the scale, from -127.
    pub qs: [i8; BLOCK],
    /// The scale, rounded to F16 as ggml stores it.
    pub d: f32,
    /// The sum of `qs` times the scale, rounded to F16.
    pub sum: f32,
}

/// 256 activations as signed bytes with one scale.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct BlockQ8K {
    /// The activations over the scale, from -127.
    pub qs: [i8; SUPER_BLOCK],
    /// -32 times `sums`: what weights that are stored with 32 added have too much.
    pub minus_32_sums: [i32; GROUPS],
    /// Sums of 16 neighbours.
    pub sums: [i16; GROUPS],
    /// The scale.
    pub d: f32,
}

/// 32 activations over their scale, and the scale, not rounded.
pub(super) fn quantize_32(x: &[f32; BLOCK]) -> ([i8; BLOCK], f32) {
    let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let d = largest / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    (x.map(|x| round_half_away(x * inverse) as i8), d)
}

fn sum(qs: &[i8; BLOCK]) -> i32 {
    qs.iter().map(|&q| i32::from(q)).sum()
}

/// Quantises activations to Q8_0: `out` has one block for each 32 of `x`.
pub fn quantize_q8_0(x: &[f32], out: &mut [BlockQ8_0]) {
    for (x, block) in x.as_chunks().0.iter().zip(out) {
        let (qs, d) = quantize_32(x);
        *block = BlockQ8_0 { qs, d: round_to_f16(d), minus_8_sums: -8 * sum(&qs) };
    }
}

/// Quantises activations to Q8_1: `out` has one block for each 32 of `x`.
pub fn quantize_q8_1(x: &[f32], out: &mut [BlockQ8_1]) {
    for (x, block) in x.as_chunks().0.iter().zip(out) {
        let (qs, d) = quantize_32(x);
        *block = BlockQ8_1 { qs, d: round_to_f16(d), sum: round_to_f16(sum(&qs) as f32 * d) };
    }
}

/// Quantises activations to Q8_K: `out` has one block for each 256 of `x`.
pub fn quantize_q8_k(x: &[f32], out: &mut [BlockQ8K]) {
    for (x, block) in x.as_chunks::<SUPER_BLOCK>().0.iter().zip(out) {
        // The first of the largest, with its sign, becomes -127.
        let largest = first_of_largest(x);
        if largest == 0.0 {
            *block = BlockQ8K::ZERO;
            continue;
        }
        let inverse = -127.0 / largest;
        for (q, x) in block.qs.iter_mut().zip(x) {
            *q = round_half_even(inverse * x).min(127) as i8;
        }
        for (sum, qs) in block.sums.iter_mut().zip(block.qs.as_chunks::<GROUP>().0) {
            *sum = qs.iter().map(|&q| i16::from(q)).sum();
        }
        block.minus_32_sums = block.sums.map(|sum| -32 * i32::from(sum));
        block.d = 1.0 / inverse;
    }
}

/// The first of the numbers of the largest magnitude, with its sign; 0 if there is none.
pub(super) fn first_of_largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest })
}

/// Rounds to the nearest whole number, halves away from zero, as C's `roundf`; for |x| < 2^22.
pub(super) fn round_half_away(x: f32) -> i32 {
    let whole = x as i32;
    // Exact: both are below 2^22, and close to each other.
    let rest = x - whole as f32;
    whole.saturating_add(i32::from(rest >= 0.5)).saturating_sub(i32::from(rest <= -0.5))
}

/// Rounds to the nearest whole number, halves to the even one; for |x| < 2^22. What else comes out
/// is what ggml gets.
pub(super) fn round_half_even(x: f32) -> i32 {
    // With 1.5 * 2^23 added, the last bit of the sum stands for 1.
    let bits = (x + 12_582_912.0).to_bits();
    (bits & 0x7f_ffff) as i32 - 0x40_0000
}
