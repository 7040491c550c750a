//! The inner loops: dot products of weights with activations, and the element-wise steps.
//!
//! Each dot product has a portable reference ([`scalar`]) and, with the feature `simd`, one for
//! the vector unit at hand. All give the same bits, so that a model's text does not depend on the
//! machine: integer sums are exact, and the order of floating-point sums is fixed.
//!
//! The element-wise steps are written once, over [`lanes`].
//!
//! The numbers follow ggml's CPU backend (`ops.cpp`, `vec.h`, `ggml-quants.c`).

mod elementwise;
mod functions;
mod lanes;
#[cfg(all(feature = "simd", target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod scalar;
pub mod self_test;
mod steps;

#[cfg(all(feature = "simd", target_arch = "aarch64", target_feature = "neon"))]
use neon as active;
#[cfg(not(all(feature = "simd", target_arch = "aarch64", target_feature = "neon")))]
use scalar as active;

pub use elementwise::*;

use core::ops::Range;

use crate::llm::quantize::{
    ActivationType, BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, F16Bytes, F32Bytes, Q8_0Bytes,
    SUPER_BLOCK, Scales, WeightType,
};

/// Lanes in which floating-point sums run.
pub const LANES: usize = 4;

/// Which kernels are in use: "neon" or "scalar".
pub fn name() -> &'static str {
    if cfg!(all(feature = "simd", target_arch = "aarch64", target_feature = "neon")) {
        "neon"
    } else {
        "scalar"
    }
}

/// Activations, in the format in which the weights at hand want them.
#[derive(Clone, Copy, Debug)]
pub enum Activations<'a> {
    /// As they are, for weights in F32.
    F32(&'a [f32]),
    /// Rounded to F16, for weights in F16.
    F16(&'a [f32]),
    /// Rounded to BF16, for weights in BF16.
    BF16(&'a [f32]),
    /// For weights in blocks of 32 without an offset.
    Q8_0(&'a [BlockQ8_0]),
    /// For weights in blocks of 32 with an offset.
    Q8_1(&'a [BlockQ8_1]),
    /// For weights in blocks of 256.
    Q8K(&'a [BlockQ8K]),
}

impl<'a> Activations<'a> {
    /// Some of them, which are whole blocks.
    pub fn part(&self, range: Range<usize>) -> Activations<'a> {
        let blocks = |n: usize| {
            debug_assert!(range.start.is_multiple_of(n) && range.end.is_multiple_of(n));
            range.start / n..range.end / n
        };
        match *self {
            Activations::F32(x) => Activations::F32(&x[range]),
            Activations::F16(x) => Activations::F16(&x[range]),
            Activations::BF16(x) => Activations::BF16(&x[range]),
            Activations::Q8_0(x) => Activations::Q8_0(&x[blocks(BLOCK)]),
            Activations::Q8_1(x) => Activations::Q8_1(&x[blocks(BLOCK)]),
            Activations::Q8K(x) => Activations::Q8K(&x[blocks(SUPER_BLOCK)]),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Activations::F32(x) | Activations::F16(x) | Activations::BF16(x) => x.len(),
            Activations::Q8_0(x) => x.len() * BLOCK,
            Activations::Q8_1(x) => x.len() * BLOCK,
            Activations::Q8K(x) => x.len() * SUPER_BLOCK,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their format.
    pub fn kind(&self) -> ActivationType {
        match self {
            Activations::F32(_) => ActivationType::F32,
            Activations::F16(_) => ActivationType::F16,
            Activations::BF16(_) => ActivationType::BF16,
            Activations::Q8_0(_) => ActivationType::Q8_0,
            Activations::Q8_1(_) => ActivationType::Q8_1,
            Activations::Q8K(_) => ActivationType::Q8_K,
        }
    }
}

/// The dot products of rows of weights, as they lie in the file one after the other, with
/// activations of a row's length in the format that `kind` wants ([`WeightType::activations`]): one
/// for each of `out`.
///
/// # Panics
/// The activations are in another format, or the rows are not as many as `out` has places.
pub fn multiply(kind: WeightType, rows: &[u8], x: &Activations<'_>, out: &mut [f32]) {
    assert!(kind.activations() == x.kind(), "{kind:?} weights with {:?} activations", x.kind());
    assert!(rows.len() == out.len() * kind.row_bytes(x.len()), "{} bytes of rows", rows.len());
    active::multiply(kind, rows, x, out);
}

/// The dot product of one row: see [`multiply`].
///
/// # Panics
/// As [`multiply`].
pub fn dot(kind: WeightType, row: &[u8], x: &Activations<'_>) -> f32 {
    let mut out = [0.0];
    multiply(kind, row, x, &mut out);
    out[0]
}

/// Adds `factor` times the values to `out`.
pub fn add_scaled_f32(out: &mut [f32], factor: f32, values: &[F32Bytes]) {
    active::add_scaled_f32(out, factor, values);
}

/// Adds `factor` times the values to `out`.
pub fn add_scaled_f16(out: &mut [f32], factor: f32, values: &[F16Bytes]) {
    active::add_scaled_f16(out, factor, values);
}

/// Adds `factor` times the values to `out`: a block for each 32 of it.
pub fn add_scaled_q8_0(out: &mut [f32], factor: f32, values: &[Q8_0Bytes]) {
    active::add_scaled_q8_0(out, factor, values);
}

/// Sets `out` to what `dot` makes of each of the rows, which are of one length.
fn each_row(rows: &[u8], out: &mut [f32], dot: impl Fn(&[u8]) -> f32) {
    let row_bytes = rows.len() / out.len().max(1);
    for (row, out) in rows.chunks_exact(row_bytes.max(1)).zip(out) {
        *out = dot(row);
    }
}

/// The dot product of a block of 256 weights with activations of scale `x_d`, from the sums of whole
/// numbers: `sum`, of the products, and `min_sum`, of what the minimums take off.
fn scale_sums(scales: &Scales, x_d: f32, sum: i32, min_sum: impl FnOnce() -> i32) -> f32 {
    let product = sum as f32 * (scales.d * x_d);
    // Most types have none, and an infinite scale times 0 would be no number.
    if scales.d_min == 0.0 { product } else { product - min_sum() as f32 * (scales.d_min * x_d) }
}
