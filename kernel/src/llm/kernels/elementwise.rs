//! The steps between the matrices: norms, activation functions, rotations. Each works in place
//! and rounds where ggml does (`ops.cpp`, `vec.h`); exponentials are our own.

#![forbid(unsafe_code)]

use super::active::Vector;
use super::attention::{self, HeadRows};
use super::{activations, steps};
use crate::llm::quantize::{BlockQ8_0, BlockQ8_1, BlockQ8K, F16Bytes, F32Bytes};

/// Adds `x`, of the same length, to `out`.
pub fn add(out: &mut [f32], x: &[f32]) {
    steps::add::<Vector>(out, x);
}

/// Adds numbers of the file, as many, to `out`.
pub fn add_bias(out: &mut [f32], bias: &[F32Bytes]) {
    steps::add::<Vector>(out, bias);
}

/// Multiplies `x` with a number.
pub fn scale(x: &mut [f32], factor: f32) {
    steps::scale::<Vector>(x, factor);
}

/// RMSNorm: `x` over the root of its mean square, times `weights`.
pub fn rms_norm(x: &mut [f32], weights: &[F32Bytes], epsilon: f32) {
    steps::rms_norm::<Vector>(x, weights, epsilon);
}

/// LayerNorm: `x` less its mean, over its standard deviation, times `weights`, plus `bias`.
pub fn layer_norm(x: &mut [f32], weights: &[F32Bytes], bias: &[F32Bytes], epsilon: f32) {
    steps::layer_norm::<Vector>(x, weights, bias, epsilon);
}

/// Turns scores into probabilities that add up to 1.
pub fn softmax(scores: &mut [f32]) {
    steps::softmax::<Vector>(scores);
}

/// Bends numbers softly so that none is beyond `cap` (Gemma 2's report, section 2).
pub fn soft_cap(x: &mut [f32], cap: f32) {
    steps::soft_cap::<Vector>(x, cap);
}

/// SiLU of each number: times its logistic function.
pub fn silu(x: &mut [f32]) {
    steps::silu::<Vector>(x);
}

/// SiLU of each number of `gate`, times the one of `up` (Shazeer 2020).
pub fn swiglu(gate: &mut [f32], up: &[f32]) {
    steps::swiglu::<Vector>(gate, up);
}

/// GELU of each number in its tanh form (Hendrycks and Gimpel 2016). ggml looks it up in a table of
/// F16 numbers, so argument and result are rounded to F16; for all F16 numbers this is that table.
pub fn gelu(x: &mut [f32]) {
    steps::gelu::<Vector>(x);
}

/// GELU of each number of `gate`, as [`gelu`], times the one of `up`.
pub fn geglu(gate: &mut [f32], up: &[f32]) {
    steps::geglu::<Vector>(gate, up);
}

/// Rotates the first pairs of a head by `angles`, the cosine of each and then the sine of each; a
/// pair is two neighbours.
pub fn rotate_neighbours(head: &mut [f32], angles: &[f32]) {
    steps::rotate_neighbours::<Vector>(head, angles);
}

/// As [`rotate_neighbours`]; a pair is one number of the first half of those rotated and its
/// counterpart in the second (GPT-NeoX's order).
pub fn rotate_halves(head: &mut [f32], angles: &[f32]) {
    steps::rotate_halves::<Vector>(head, angles);
}

/// Rounds each number to the nearest F16, halves to the even one.
pub fn round_f16(x: &mut [f32]) {
    steps::round_f16::<Vector>(x);
}

/// Writes the nearest F16 to each number of `x`, halves to the even one.
pub fn store_f16(x: &[f32], out: &mut [F16Bytes]) {
    steps::store_f16::<Vector>(x, out);
}

/// Quantises activations to Q8_0: `out` has one block for each 32 of `x`.
pub fn quantize_q8_0(x: &[f32], out: &mut [BlockQ8_0]) {
    activations::quantize_q8_0::<Vector>(x, out);
}

/// Quantises activations to Q8_1: `out` has one block for each 32 of `x`.
pub fn quantize_q8_1(x: &[f32], out: &mut [BlockQ8_1]) {
    activations::quantize_q8_1::<Vector>(x, out);
}

/// Quantises activations to Q8_K: `out` has one block for each 256 of `x`.
pub fn quantize_q8_k(x: &[f32], out: &mut [BlockQ8K]) {
    activations::quantize_q8_k::<Vector>(x, out);
}

/// The dot products of a query with a head's keys in F32, one for each of `out`.
pub fn scores_f32(keys: HeadRows<'_>, query: &[f32], out: &mut [f32]) {
    attention::scores_f32::<Vector>(keys, query, out);
}

/// As [`scores_f32`], with keys in F16, for a query whose numbers are.
pub fn scores_f16(keys: HeadRows<'_>, query: &[f32], out: &mut [f32]) {
    attention::scores_f16::<Vector>(keys, query, out);
}

/// Adds a head's values in F32 to `out`, each row times the probability of its position.
pub fn add_values_f32(values: HeadRows<'_>, probabilities: &[f32], out: &mut [f32]) {
    attention::add_values_f32::<Vector>(values, probabilities, out);
}

/// As [`add_values_f32`], with values in F16.
pub fn add_values_f16(values: HeadRows<'_>, probabilities: &[f32], out: &mut [f32]) {
    attention::add_values_f16::<Vector>(values, probabilities, out);
}

/// As [`add_values_f32`], with values in Q8_0.
pub fn add_values_q8_0(values: HeadRows<'_>, probabilities: &[f32], out: &mut [f32]) {
    attention::add_values_q8_0::<Vector>(values, probabilities, out);
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
    use crate::llm::quantize::{f16_to_f32, round_to_f16};
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
        let mut x = [0.0, 1.0, -2.0, f32::INFINITY, -1e30];
        let mut gated = x;
        silu(&mut x);
        assert_eq!(x[3..], [f32::INFINITY, -0.0]);
        assert_near(&x[..3], &[0.0, 0.731_058_6, -0.238_405_84]);
        swiglu(&mut gated, &[3.0, -2.0, 0.5, 1.0, 1.0]);
        assert_eq!(gated, [0.0, -2.0 * x[1], 0.5 * x[2], x[3], x[4]]);

        let mut x = [0.0, 1.0, -1.0, 3.0, -10.5, 12.34];
        let mut gated = x;
        gelu(&mut x);
        assert_eq!(x[4..], [0.0, 12.34]);
        for (x, expected) in x.iter().zip([0.0, 0.841_192, -0.158_808, 2.996_363]) {
            // Within the last digit of an F16 number.
            assert!((x - expected).abs() <= 1e-3 * expected.abs(), "{x}, expected {expected}");
        }
        geglu(&mut gated, &[3.0, -2.0, 0.5, 1.0, 7.0, 2.0]);
        assert_eq!(gated, [0.0, -2.0 * x[1], 0.5 * x[2], x[3], 0.0, 24.68]);
    }

    #[test]
    fn gelu_is_the_table_of_ggml() {
        let bits: Vec<u16> = (0..=u16::MAX).filter(|&bits| !f16_to_f32(bits).is_nan()).collect();
        let mut x: Vec<f32> = bits.iter().map(|&bits| f16_to_f32(bits)).collect();
        gelu(&mut x);
        for (&bits, actual) in bits.iter().zip(x) {
            // The formula by which ggml makes it.
            let x = f16_to_f32(bits);
            let inner = 0.797_884_6 * x * libm::fmaf(0.044_715 * x, x, 1.0);
            let entry = round_to_f16(0.5 * x * (1.0 + libm::tanhf(inner)));
            let expected = match x {
                x if x <= -10.0 => 0.0,
                x if x >= 10.0 => x,
                _ => entry,
            };
            assert_eq!(actual.to_bits(), expected.to_bits(), "of {x}");
        }
    }

    #[test]
    fn probabilities_are_the_exponentials_over_their_sum() {
        for n in [1, 2, 3, 4, 5, 101] {
            let scores: Vec<f32> = (0..n).map(|i| (i * 37 % 101) as f32 * 0.25 - 20.0).collect();
            let sum: f64 = scores.iter().map(|&x| f64::from(x).exp()).sum();
            let mut probabilities = scores.clone();
            softmax(&mut probabilities);
            for (p, x) in probabilities.into_iter().zip(scores) {
                let exact = f64::from(x).exp() / sum;
                assert!((f64::from(p) - exact).abs() <= 4e-7 * exact, "{p}, expected {exact}");
            }
        }
        let mut far = [-1e30, 300.0, f32::NEG_INFINITY, 300.0, 0.0];
        softmax(&mut far);
        assert_eq!(far, [0.0, 0.5, 0.0, 0.5, 0.0]);
    }

    #[test]
    fn capped_numbers_stay_within_the_cap() {
        let mut x = [0.0, 1.0, -1000.0, 50.0];
        soft_cap(&mut x, 50.0);
        assert_near(&x, &[0.0, 0.999_866_7_f32, -50.0, 38.079_71]);
    }

    #[test]
    fn both_orders_rotate_the_same_pairs() {
        // 0, 7, 11 pairs: by a quarter turn, by none, and by what has the sine 3/5, in turn.
        for pairs in [0, 7, 11] {
            let turns = [(0.0, 1.0), (1.0, 0.0), (0.8, 0.6)];
            let turns: Vec<(f32, f32)> = (0..pairs).map(|i| turns[i % 3]).collect();
            let angles: Vec<f32> =
                turns.iter().map(|turn| turn.0).chain(turns.iter().map(|turn| turn.1)).collect();
            let a = |i: usize| (i * i % 13) as f32 - 4.0;
            let b = |i: usize| 7.0 - i as f32;
            let rotated = |i: usize| {
                let (cos, sin) = turns[i];
                (a(i) * cos - b(i) * sin, a(i) * sin + b(i) * cos)
            };
            // What is behind them stays.
            let neighbours = |pair: &dyn Fn(usize) -> (f32, f32)| -> Vec<f32> {
                (0..pairs).map(pair).flat_map(|(a, b)| [a, b]).chain([5.0]).collect()
            };
            let halves = |pair: &dyn Fn(usize) -> (f32, f32)| -> Vec<f32> {
                let all: Vec<_> = (0..pairs).map(pair).collect();
                let (first, second) = (all.iter().map(|p| p.0), all.iter().map(|p| p.1));
                first.chain(second).chain([5.0]).collect()
            };
            let mut head = neighbours(&|i| (a(i), b(i)));
            rotate_neighbours(&mut head, &angles);
            assert_eq!(head, neighbours(&rotated));
            let mut head = halves(&|i| (a(i), b(i)));
            rotate_halves(&mut head, &angles);
            assert_eq!(head, halves(&rotated));
        }
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
