//! The formats of activations (ggml's `vec_dot_type`), and their rounding.
//!
//! `kernels` quantises activations.

use super::{BLOCK, GROUPS, SUPER_BLOCK};

/// The formats of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "ggml's names")]
pub enum ActivationType {
    /// F32, unchanged.
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
    /// Number of formats.
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
    /// -8 times the sum of `qs`: the correction for weights stored with 8 added.
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
    /// -32 times `sums`: the correction for weights stored with 32 added.
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

/// The first number of the largest magnitude, with its sign; 0 without numbers.
pub fn first_of_largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest })
}

/// Rounds to the nearest integer, halves away from zero, as C's `roundf`.
///
/// For |x| < 2^22.
pub(super) fn round_half_away(x: f32) -> i32 {
    let whole = x as i32;
    // Exact: both are below 2^22, and close to each other.
    let rest = x - whole as f32;
    whole.saturating_add(i32::from(rest >= 0.5)).saturating_sub(i32::from(rest <= -0.5))
}

/// Rounds to the nearest integer, halves to even, for |x| < 2^22.
///
/// Other numbers give the same as in ggml.
pub(super) fn round_half_even(x: f32) -> i32 {
    // With 1.5 * 2^23 added, the last bit of the sum stands for 1.
    let bits = (x + 12_582_912.0).to_bits();
    (bits & 0x7f_ffff) as i32 - 0x40_0000
}
