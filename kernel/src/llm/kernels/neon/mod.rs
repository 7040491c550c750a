//! Kernels for Advanced SIMD as every Armv8-A core has it.
//!
//! They give the bits of [`super::scalar`]: the four lanes of a vector are its
//! [`LANES`](super::LANES), and products and sums are rounded separately (no fused multiply-add).

mod blocks;
mod lanes;
mod numbers;
mod super_blocks;
mod vectors;

pub use lanes::Neon as Vector;

use super::{Activations, each_row, scalar};
use crate::llm::quantize::{
    Block, BlockQ8K, F16Bytes, F32Bytes, Q8_0Bytes, SuperBlock, Visitor, WeightType,
};

/// The dot products of rows of weights with activations: see [`super::multiply`].
pub fn multiply(kind: WeightType, rows: &[u8], x: &Activations<'_>, out: &mut [f32]) {
    // SAFETY: this module is only built where `target_feature = "neon"` holds for the whole build,
    // so that the instructions are there.
    unsafe { multiply_on_neon(kind, rows, x, out) }
}

/// Adds `factor` times the values to `out`.
pub fn add_scaled_f32(out: &mut [f32], factor: f32, values: &[F32Bytes]) {
    // SAFETY: as in `multiply`.
    unsafe { numbers::add_scaled_f32(out, factor, values) }
}

/// Adds `factor` times the values to `out`.
pub fn add_scaled_f16(out: &mut [f32], factor: f32, values: &[F16Bytes]) {
    // SAFETY: as in `multiply`.
    unsafe { numbers::add_scaled_f16(out, factor, values) }
}

/// Adds `factor` times the values to `out`.
pub fn add_scaled_q8_0(out: &mut [f32], factor: f32, values: &[Q8_0Bytes]) {
    // SAFETY: as in `multiply`.
    unsafe { blocks::add_scaled_q8_0(out, factor, values) }
}

#[target_feature(enable = "neon")]
fn multiply_on_neon(kind: WeightType, rows: &[u8], x: &Activations<'_>, out: &mut [f32]) {
    match (kind, *x) {
        (WeightType::Q4_0, Activations::Q8_0(x)) => {
            blocks::multiply_q4_0(rows.as_chunks().0, x, out);
        }
        (WeightType::Q5_0, Activations::Q8_0(x)) => {
            blocks::multiply_q5_0(rows.as_chunks().0, x, out);
        }
        (WeightType::Q8_0, Activations::Q8_0(x)) => {
            blocks::multiply_q8_0(rows.as_chunks().0, x, out);
        }
        (WeightType::IQ4_NL, Activations::Q8_0(x)) => {
            blocks::multiply_iq4_nl(rows.as_chunks().0, x, out);
        }
        (WeightType::MXFP4, Activations::Q8_0(x)) => {
            blocks::multiply_mxfp4(rows.as_chunks().0, x, out);
        }
        (WeightType::Q4_1, Activations::Q8_1(x)) => {
            blocks::multiply_q4_1(rows.as_chunks().0, x, out);
        }
        (WeightType::Q5_1, Activations::Q8_1(x)) => {
            blocks::multiply_q5_1(rows.as_chunks().0, x, out);
        }
        _ => each_row(rows, out, |row| dot(kind, row, x)),
    }
}

/// The types whose rows are multiplied one by one.
#[target_feature(enable = "neon")]
fn dot(kind: WeightType, row: &[u8], x: &Activations<'_>) -> f32 {
    match *x {
        Activations::F32(x) => numbers::dot_f32(row.as_chunks().0, x),
        Activations::F16(x) => numbers::dot_f16(row.as_chunks().0, x),
        Activations::BF16(x) => numbers::dot_bf16(row.as_chunks().0, x),
        Activations::Q8K(x) => match kind {
            WeightType::Q2_K => super_blocks::dot_q2_k(row.as_chunks().0, x),
            WeightType::Q3_K => super_blocks::dot_q3_k(row.as_chunks().0, x),
            WeightType::Q4_K => super_blocks::dot_q4_k(row.as_chunks().0, x),
            WeightType::Q5_K => super_blocks::dot_q5_k(row.as_chunks().0, x),
            WeightType::Q6_K => super_blocks::dot_q6_k(row.as_chunks().0, x),
            WeightType::IQ4_XS => super_blocks::dot_iq4_xs(row.as_chunks().0, x),
            WeightType::TQ2_0 => super_blocks::dot_tq2_0(row.as_chunks().0, x),
            _ => kind.visit(Unpacked { row, x }),
        },
        Activations::Q8_0(_) | Activations::Q8_1(_) => scalar::dot(kind, row, x),
    }
}

/// The types with blocks of 256 that have no kernel of their own.
struct Unpacked<'a> {
    row: &'a [u8],
    x: &'a [BlockQ8K],
}

impl Visitor for Unpacked<'_> {
    type Output = f32;

    fn numbers<const N: usize>(self, _: impl Fn(&[u8; N]) -> f32) -> f32 {
        unreachable!("numbers have other activations")
    }

    fn blocks<const N: usize>(self, _: impl Fn(&[u8; N]) -> Block) -> f32 {
        unreachable!("blocks of 32 have other activations")
    }

    fn super_blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> SuperBlock) -> f32 {
        // SAFETY: as in `multiply`.
        unsafe { super_blocks::dot_unpacked(self.row.as_chunks().0, self.x, unpack) }
    }
}
