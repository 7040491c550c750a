//! The steps between the matrices: norms, activation functions, rotations. Each works in place
//! and rounds where ggml does (`ops.cpp`, `vec.h`).

#![forbid(unsafe_code)]

use crate::llm::quantize::{F32Bytes, round_to_f16};

/// Adds `x` to `out`.
pub fn add(out: &mut [f32], x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += x;
    }
}

/// Adds numbers of the file to `out`.
pub fn add_bias(out: &mut [f32], bias: &[F32Bytes]) {
    for (out, &bias) in out.iter_mut().zip(bias) {
        *out += f32::from_le_bytes(bias);
    }
}

/// Multiplies `x` with a number.
pub fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

/// RMSNorm: `x` over the root of its mean square, times `weights`.
pub fn rms_norm(x: &mut [f32], weights: &[F32Bytes], epsilon: f32) {
    // ggml squares in f32 and adds in f64.
    let sum: f64 = x.iter().map(|x| f64::from(x * x)).sum();
    let mean = (sum / x.len() as f64) as f32;
    let factor = 1.0 / libm::sqrtf(mean + epsilon);
    for (x, &weight) in x.iter_mut().zip(weights) {
        *x = *x * factor * f32::from_le_bytes(weight);
    }
}

/// LayerNorm: `x` less its mean, over its standard deviation, times `weights`, plus `bias`.
pub fn layer_norm(x: &mut [f32], weights: &[F32Bytes], bias: &[F32Bytes], epsilon: f32) {
    let sum: f64 = x.iter().map(|&x| f64::from(x)).sum();
    let mean = sum as f32 / x.len() as f32;
    let mut squares = 0.0_f64;
    for x in x.iter_mut() {
        *x -= mean;
        squares += f64::from(*x * *x);
    }
    let factor = 1.0 / libm::sqrtf((squares / x.len() as f64) as f32 + epsilon);
    for (x, (&weight, &bias)) in x.iter_mut().zip(weights.iter().zip(bias)) {
        *x = *x * factor * f32::from_le_bytes(weight) + f32::from_le_bytes(bias);
    }
}

/// Turns scores into probabilities that add up to 1.
pub fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().fold(f32::NEG_INFINITY, |largest, &x| largest.max(x));
    let mut sum = 0.0_f64;
    for score in scores.iter_mut() {
        *score = libm::expf(*score - largest);
        sum += f64::from(*score);
    }
    let factor = (1.0 / sum) as f32;
    for score in scores {
        *score *= factor;
    }
}

/// Bends numbers softly so that none is beyond `cap` (Gemma 2's report, section 2).
pub fn soft_cap(x: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    for x in x {
        *x = libm::tanhf(*x * inverse) * cap;
    }
}

/// SiLU, `x` times its logistic function.
pub fn silu(x: f32) -> f32 {
    x / (1.0 + libm::expf(-x))
}

/// GELU in its tanh form (Hendrycks and Gimpel 2016). ggml looks it up in a table of F16 numbers,
/// so argument and result are rounded to F16; for all F16 numbers this is that table.
pub fn gelu(x: f32) -> f32 {
    if x <= -10.0 {
        return 0.0;
    }
    if x >= 10.0 {
        return x;
    }
    const ROOT_OF_2_OVER_PI: f32 = 0.797_884_6;
    let x = round_to_f16(x);
    // C compilers fuse this; one F16 number in 65,536 shows it.
    let inner = ROOT_OF_2_OVER_PI * x * libm::fmaf(0.044_715 * x, x, 1.0);
    round_to_f16(0.5 * x * (1.0 + libm::tanhf(inner)))
}

/// Rotates the first pairs of a head by `angles`, a cosine and a sine for each; a pair is two
/// neighbours.
pub fn rotate_neighbours(head: &mut [f32], angles: &[f32]) {
    let pairs = head.as_chunks_mut::<2>().0.iter_mut();
    for ([a, b], [cos, sin]) in pairs.zip(angles.as_chunks::<2>().0) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

/// Rotates the first numbers of a head, as many as there are `angles`; a pair is one number of
/// their first half and its counterpart in the second (GPT-NeoX's order).
pub fn rotate_halves(head: &mut [f32], angles: &[f32]) {
    let half = angles.len() / 2;
    let (first, second) = head.split_at_mut(half);
    for ((a, b), [cos, sin]) in first.iter_mut().zip(second).zip(angles.as_chunks::<2>().0) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

/// Multiplies each `width` numbers, a power of two, with Hadamard's matrix of that width, scaled so
/// that it is its own inverse.
pub fn hadamard(x: &mut [f32], width: usize) {
    let factor = 1.0 / libm::sqrtf(width as f32);
    scale(x, factor);
    let mut half = 1;
    while half < width {
        // Pairs `half` apart become their sum and their difference.
        for part in x.chunks_exact_mut(2 * half) {
            let (first, second) = part.split_at_mut(half);
            for (a, b) in first.iter_mut().zip(second) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn bytes(numbers: &[f32]) -> Vec<F32Bytes> {
        numbers.iter().map(|x| x.to_le_bytes()).collect()
    }

    #[track_caller]
    fn assert_near(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-5, "{actual:?}, expected {expected:?}");
        }
    }

    #[test]
    fn norms_are_the_published_ones() {
        let x = [3.0, -1.0, 4.0];
        let (weights, bias) = (bytes(&[1.0, 2.0, 0.5]), bytes(&[0.5, 0.0, -1.0]));
        // Mean square 26 / 3; with an epsilon of 1/3 its root is 3.
        let mut out = x;
        rms_norm(&mut out, &weights, 1.0 / 3.0);
        assert_near(&out, &[1.0, -2.0 / 3.0, 2.0 / 3.0]);
        // Mean 2, variance (1 + 9 + 4) / 3; with an epsilon of 4 - 14/3 + 5 = 13/3 it is 9.
        let mut out = x;
        layer_norm(&mut out, &weights, &bias, 13.0 / 3.0);
        assert_near(&out, &[1.0 / 3.0 + 0.5, -2.0, 1.0 / 3.0 - 1.0]);
    }

    #[test]
    fn activation_functions_have_the_published_values() {
        assert_near(&[silu(0.0), silu(1.0), silu(-2.0)], &[0.0, 0.731_058_6, -0.238_405_84]);
        for (x, expected) in [(0.0, 0.0), (1.0, 0.841_192), (-1.0, -0.158_808), (3.0, 2.996_363)] {
            // Within the last digit of an F16 number.
            assert!((gelu(x) - expected).abs() <= 1e-3 * x.abs(), "{x}: {}", gelu(x));
        }
        assert_eq!([gelu(-10.5), gelu(12.34)], [0.0, 12.34]);
    }

    #[test]
    fn capped_numbers_stay_within_the_cap() {
        let mut x = [0.0, 1.0, -1000.0, 50.0];
        soft_cap(&mut x, 50.0);
        assert_near(&x, &[0.0, 0.999_866_7_f32, -50.0, 38.079_71]);
    }

    #[test]
    fn both_orders_rotate_the_same_pairs() {
        // By a quarter turn, and by none.
        let angles = [0.0, 1.0, 1.0, 0.0];
        let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate_neighbours(&mut head, &angles);
        assert_eq!(head, [-2.0, 1.0, 3.0, 4.0, 5.0]);
        let mut head = [1.0, 3.0, 2.0, 4.0, 5.0];
        rotate_halves(&mut head, &angles);
        assert_eq!(head, [-2.0, 3.0, 1.0, 4.0, 5.0]);
    }

    #[test]
    fn hadamard_is_the_published_matrix_and_its_own_inverse() {
        // Sylvester's: the sign at (i, j) is the parity of the bits that i and j share.
        for width in [2, 4, 8] {
            let x: Vec<f32> = (0..2 * width).map(|i| (i * i % 7) as f32 - 2.0).collect();
            let mut out = x.clone();
            hadamard(&mut out, width);
            for (x, out) in x.chunks(width).zip(out.chunks(width)) {
                for (i, actual) in out.iter().enumerate() {
                    let signed =
                        |(j, x): (usize, &f32)| if (i & j).count_ones() % 2 == 0 { *x } else { -x };
                    let sum: f32 = x.iter().enumerate().map(signed).sum();
                    assert!((actual - sum / (width as f32).sqrt()).abs() < 1e-5);
                }
            }
            hadamard(&mut out, width);
            assert_near(&out, &x);
        }
    }
}
