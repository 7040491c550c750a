//! Dot products of single rows in F32, F16 and BF16.

use core::arch::aarch64::*;

use crate::llm::kernels::lanes::LANES;
use crate::llm::kernels::neon::vectors::{load_bf16, load_f16, load_f32, sum_lanes};
use crate::llm::quantize::{F16Bytes, F32Bytes, bf16_to_f32, f16_to_f32};

/// The dot product, summed lane by lane.
///
/// `load` converts eight weights to two vectors, `value` one weight.
#[target_feature(enable = "neon")]
fn dot<T>(
    weights: &[T],
    x: &[f32],
    load: impl Fn(&[T; 2 * LANES]) -> [float32x4_t; 2],
    value: impl Fn(&T) -> f32,
) -> f32 {
    let add = |lanes, weights, x: &[f32; LANES]| vaddq_f32(lanes, vmulq_f32(weights, load_f32(x)));
    let mut lanes = vdupq_n_f32(0.0);
    let (eights, weights_rest) = weights.as_chunks::<{ 2 * LANES }>();
    let (fours, x_rest) = x.as_chunks::<LANES>();
    let (pairs, four) = fours.as_chunks::<2>();
    for (weights, [x0, x1]) in eights.iter().zip(pairs) {
        let [weights0, weights1] = load(weights);
        lanes = add(add(lanes, weights0, x0), weights1, x1);
    }
    let (weights_four, weights_rest) = weights_rest.as_chunks::<LANES>();
    for (weights, x) in weights_four.iter().zip(four) {
        let weights: [f32; LANES] = core::array::from_fn(|i| value(&weights[i]));
        lanes = add(lanes, load_f32(&weights), x);
    }
    let rest = weights_rest.iter().zip(x_rest);
    rest.fold(sum_lanes(lanes), |sum, (weight, x)| sum + value(weight) * x)
}

/// Eight numbers as two vectors.
#[target_feature(enable = "neon")]
fn eight_f32(numbers: &[F32Bytes; 2 * LANES]) -> [float32x4_t; 2] {
    let (fours, _) = numbers.as_chunks::<LANES>();
    [load_f32(&fours[0]), load_f32(&fours[1])]
}

#[target_feature(enable = "neon")]
pub fn dot_f32(weights: &[F32Bytes], x: &[f32]) -> f32 {
    dot(weights, x, |weights| eight_f32(weights), |&bytes| f32::from_le_bytes(bytes))
}

#[target_feature(enable = "neon")]
pub fn dot_f16(weights: &[F16Bytes], x: &[f32]) -> f32 {
    let value = |&bytes: &F16Bytes| f16_to_f32(u16::from_le_bytes(bytes));
    dot(weights, x, |numbers| load_f16(numbers), value)
}

#[target_feature(enable = "neon")]
pub fn dot_bf16(weights: &[F16Bytes], x: &[f32]) -> f32 {
    let value = |&bytes: &F16Bytes| bf16_to_f32(u16::from_le_bytes(bytes));
    dot(weights, x, |numbers| load_bf16(numbers), value)
}
