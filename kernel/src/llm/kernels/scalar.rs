//! The portable kernels: the reference for all others, which must give the same bits.
//!
//! Sums run in [`LANES`] lanes, so that vector units (and the compiler, here) can work on
//! neighbours at once; the lanes are added in a fixed order at the end. Products and sums are
//! rounded separately: fused operations would give other bits.

use super::LANES;
use crate::llm::quantize::{
    BLOCK, BlockQ8_0, BlockQ8K, F16Bytes, F32Bytes, Q4_0Bytes, Q6KBytes, Q8_0Bytes, f16_to_f32,
    scale, unpack_q6_k,
};

/// The sum of the lanes, in the order of a pairwise addition of vectors.
fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
}

pub fn dot_f32(weights: &[F32Bytes], x: &[f32]) -> f32 {
    dot(weights, x, |&bytes| f32::from_le_bytes(bytes))
}

pub fn dot_f16(weights: &[F16Bytes], x: &[f32]) -> f32 {
    dot(weights, x, |&bytes| f16_to_f32(u16::from_le_bytes(bytes)))
}

pub fn dot_f16_cache(weights: &[u16], x: &[f32]) -> f32 {
    dot(weights, x, |&bits| f16_to_f32(bits))
}

fn dot<T>(weights: &[T], x: &[f32], value: impl Fn(&T) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (weights, weights_rest) = weights.as_chunks::<LANES>();
    let (x, x_rest) = x.as_chunks::<LANES>();
    for (weights, x) in weights.iter().zip(x) {
        for i in 0..LANES {
            lanes[i] += value(&weights[i]) * x[i];
        }
    }
    let rest = weights_rest.iter().zip(x_rest);
    rest.fold(sum_lanes(lanes), |sum, (weight, x)| sum + value(weight) * x)
}

pub fn add_scaled_f16(out: &mut [f32], factor: f32, values: &[u16]) {
    for (out, &bits) in out.iter_mut().zip(values) {
        *out += factor * f16_to_f32(bits);
    }
}

pub fn dot_q4_0(weights: &[Q4_0Bytes], x: &[BlockQ8_0]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (i, (weights, x)) in weights.iter().zip(x).enumerate() {
        let mut sum = 0_i32;
        for j in 0..BLOCK / 2 {
            let pair = weights[2 + j];
            sum += (i32::from(pair & 15) - 8) * i32::from(x.qs[j]);
            sum += (i32::from(pair >> 4) - 8) * i32::from(x.qs[j + BLOCK / 2]);
        }
        lanes[i % LANES] += sum as f32 * (scale(weights[0], weights[1]) * x.d);
    }
    sum_lanes(lanes)
}

pub fn dot_q8_0(weights: &[Q8_0Bytes], x: &[BlockQ8_0]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (i, (weights, x)) in weights.iter().zip(x).enumerate() {
        let products = weights[2..].iter().zip(&x.qs);
        let sum: i32 = products.map(|(&w, &x)| i32::from(w as i8) * i32::from(x)).sum();
        lanes[i % LANES] += sum as f32 * (scale(weights[0], weights[1]) * x.d);
    }
    sum_lanes(lanes)
}

pub fn dot_q6_k(weights: &[Q6KBytes], x: &[BlockQ8K]) -> f32 {
    let mut total = 0.0;
    for (block, x) in weights.iter().zip(x) {
        let weights = unpack_q6_k(block);
        let groups = weights.as_chunks::<16>().0.iter().zip(x.qs.as_chunks::<16>().0);
        let mut sum = 0_i32;
        for ((weights, x), &group_scale) in groups.zip(&block[192..208]) {
            let products = weights.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x));
            sum += i32::from(group_scale as i8) * products.sum::<i32>();
        }
        total += sum as f32 * (scale(block[208], block[209]) * x.d);
    }
    total
}
