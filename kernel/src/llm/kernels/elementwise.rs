//! Element-wise ops: norms, activation functions, softmax, RoPE. Written once for all [`Lanes`].
//!
//! Each op works in place and rounds where ggml does (`ops.cpp`, `vec.h`). Exponentials are our
//! own: see [`super::math`].

#![forbid(unsafe_code)]

use super::lanes::{LANES, Lanes, Number, padded};
use super::math::{exp, tanh};
use crate::llm::quantize::{F16Bytes, F32Bytes, f32_to_f16};

/// Folds over numbers, four at a time. `fill` pads the last four.
#[inline(always)]
fn fold<L: Lanes, A>(x: &[f32], fill: f32, start: A, step: impl Fn(A, L) -> A) -> A {
    let (fours, rest) = x.as_chunks();
    let result = fours.iter().fold(start, |result, four| step(result, L::load(four)));
    if rest.is_empty() { result } else { step(result, L::load(&padded(rest, fill))) }
}

/// Maps numbers in place, four at a time. `fill` pads the last four.
#[inline(always)]
fn each<L: Lanes>(x: &mut [f32], fill: f32, mut step: impl FnMut(L) -> L) {
    let (fours, rest) = x.as_chunks_mut();
    for four in fours {
        step(L::load(four)).store(four);
    }
    if !rest.is_empty() {
        let mut four = padded(rest, fill);
        step(L::load(&four)).store(&mut four);
        rest.copy_from_slice(&four[..rest.len()]);
    }
}

/// Maps numbers in place with as many others, four at a time.
#[inline(always)]
fn each_with<L: Lanes, T: Number>(x: &mut [f32], others: &[T], step: impl Fn(L, L) -> L) {
    assert_eq!(x.len(), others.len());
    let (fours, rest) = x.as_chunks_mut();
    let (other_fours, other_rest) = others.as_chunks();
    for (four, others) in fours.iter_mut().zip(other_fours) {
        step(L::load(four), L::load(others)).store(four);
    }
    if !rest.is_empty() {
        let mut four = padded(rest, 0.0);
        step(L::load(&four), L::load(&padded(other_rest, T::ZERO))).store(&mut four);
        rest.copy_from_slice(&four[..rest.len()]);
    }
}

/// Adds `x`, of the same length, to `out`.
pub fn add<L: Lanes>(out: &mut [f32], x: &[impl Number]) {
    each_with(out, x, |out: L, x| out + x);
}

/// Adds a bias, as the file has it, to `out`.
pub fn add_bias<L: Lanes>(out: &mut [f32], bias: &[F32Bytes]) {
    add::<L>(out, bias);
}

/// Multiplies `x` by a factor.
pub fn scale<L: Lanes>(x: &mut [f32], factor: f32) {
    let factor = L::splat(factor);
    each(x, 0.0, |x: L| x * factor);
}

/// The sum of squares: squared in single precision, added in double, as ggml does.
fn sum_of_squares<L: Lanes>(x: &[f32]) -> f64 {
    L::total(fold(x, 0.0, L::no_sums(), |sums, x: L| (x * x).add_to(sums)))
}

/// RMSNorm: `x / rms(x) * weights`.
pub fn rms_norm<L: Lanes>(x: &mut [f32], weights: &[F32Bytes], epsilon: f32) {
    let mean = (sum_of_squares::<L>(x) / x.len() as f64) as f32;
    let factor = L::splat(1.0 / libm::sqrtf(mean + epsilon));
    each_with(x, weights, |x: L, weight| x * factor * weight);
}

/// LayerNorm: `(x - mean) / deviation * weights + bias`.
pub fn layer_norm<L: Lanes>(x: &mut [f32], weights: &[F32Bytes], bias: &[F32Bytes], epsilon: f32) {
    let sum = L::total(fold(x, 0.0, L::no_sums(), |sums, x: L| x.add_to(sums)));
    let mean = L::splat(sum as f32 / x.len() as f32);
    each(x, 0.0, |x: L| x - mean);
    let variance = (sum_of_squares::<L>(x) / x.len() as f64) as f32;
    let factor = L::splat(1.0 / libm::sqrtf(variance + epsilon));
    each_with(x, weights, |x: L, weight| x * factor * weight);
    add::<L>(x, bias);
}

/// The largest number, which is never NaN; negative infinity if there is none.
pub fn largest<L: Lanes>(x: &[f32]) -> f32 {
    let lowest = f32::NEG_INFINITY;
    fold(x, lowest, L::splat(lowest), |largest: L, x| largest.max(x)).largest()
}

/// Softmax: turns scores into probabilities that add up to 1.
pub fn softmax<L: Lanes>(scores: &mut [f32]) {
    let largest = L::splat(largest::<L>(scores));
    let mut sums = L::no_sums();
    // The padding becomes 0.
    each(scores, f32::NEG_INFINITY, |x: L| {
        let x = exp(x - largest);
        sums = x.add_to(sums);
        x
    });
    scale::<L>(scores, (1.0 / L::total(sums)) as f32);
}

/// Logit softcapping: `cap * tanh(x / cap)`, so that no magnitude exceeds `cap`.
///
/// Gemma 2's report, section 2.
pub fn softcap<L: Lanes>(x: &mut [f32], cap: f32) {
    let (inverse, cap) = (L::splat(1.0 / cap), L::splat(cap));
    each(x, 0.0, |x: L| tanh(x * inverse) * cap);
}

#[inline(always)]
fn silu_of<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    x / (one + exp(L::splat(0.0) - x))
}

/// SiLU: each number times its logistic function.
pub fn silu<L: Lanes>(x: &mut [f32]) {
    each(x, 0.0, |x: L| silu_of(x));
}

/// SwiGLU: SiLU of `gate`, times `up` (Shazeer 2020).
pub fn swiglu<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    each_with(gate, up, |gate: L, up| silu_of(gate) * up);
}

#[inline(always)]
fn gelu_of<L: Lanes>(x: L) -> L {
    const ROOT_OF_2_OVER_PI: f32 = 0.797_884_6;
    // ggml uses its table only within these bounds.
    const BOUND: f32 = 10.0;
    let rounded = x.round_to_f16();
    // C compilers fuse this multiply-add. One F16 number in 65,536 shows it.
    let square = (L::splat(0.044_715) * rounded).mul_add(rounded, L::splat(1.0));
    let inner = L::splat(ROOT_OF_2_OVER_PI) * rounded * square;
    let result = L::splat(0.5) * rounded * (L::splat(1.0) + tanh(inner));
    let result = x.if_less(BOUND, result.round_to_f16(), x);
    x.if_less((-BOUND).next_up(), L::splat(0.0), result)
}

/// GELU in its tanh form (Hendrycks and Gimpel 2016).
///
/// ggml looks it up in a table of F16 numbers. So argument and result are rounded to F16. For all
/// F16 numbers the result is that table's.
pub fn gelu<L: Lanes>(x: &mut [f32]) {
    each(x, 0.0, |x: L| gelu_of(x));
}

/// GeGLU: [`gelu`] of `gate`, times `up`.
pub fn geglu<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    each_with(gate, up, |gate: L, up| gelu_of(gate) * up);
}

/// Rotates four pairs.
#[inline(always)]
fn rotate_pairs<L: Lanes>([a, b]: [L; 2], cos: &[f32; LANES], sin: &[f32; LANES]) -> [L; 2] {
    let (cos, sin) = (L::load(cos), L::load(sin));
    [a * cos - b * sin, a * sin + b * cos]
}

/// Rotates one pair.
fn rotate_pair(a: &mut f32, b: &mut f32, cos: f32, sin: f32) {
    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
}

/// RoPE of pairs of neighbours: rotates the first pairs of a head by `angles`.
///
/// `angles` holds the cosines of all angles, then the sines: `[n_rot]`.
pub fn rotate_neighbours<L: Lanes>(head: &mut [f32], angles: &[f32]) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    let ((cos, cos_rest), (sin, sin_rest)) = (cos.as_chunks(), sin.as_chunks());
    let (eights, rest) = head[..angles.len()].as_chunks_mut::<{ 2 * LANES }>();
    for (eight, (cos, sin)) in eights.iter_mut().zip(cos.iter().zip(sin)) {
        let [low, high] = eight.as_chunks_mut::<LANES>().0 else { unreachable!("twice four") };
        let rotated = rotate_pairs(L::unzip([L::load(low), L::load(high)]), cos, sin);
        let [new_low, new_high] = L::zip(rotated);
        new_low.store(low);
        new_high.store(high);
    }
    let rest = rest.as_chunks_mut::<2>().0.iter_mut();
    for ([a, b], (&cos, &sin)) in rest.zip(cos_rest.iter().zip(sin_rest)) {
        rotate_pair(a, b, cos, sin);
    }
}

/// RoPE of halves, in GPT-NeoX's order.
///
/// A pair is a number of the first half and its counterpart in the second half.
///
/// The rotated part of the head is halved. `angles` is as for [`rotate_neighbours`].
pub fn rotate_halves<L: Lanes>(head: &mut [f32], angles: &[f32]) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    let ((cos, cos_rest), (sin, sin_rest)) = (cos.as_chunks(), sin.as_chunks());
    let (a, b) = head[..angles.len()].split_at_mut(angles.len() / 2);
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks_mut(), b.as_chunks_mut());
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
        let [new_a, new_b] = rotate_pairs([L::load(a), L::load(b)], cos, sin);
        new_a.store(a);
        new_b.store(b);
    }
    for ((a, b), (&cos, &sin)) in a_rest.iter_mut().zip(b_rest).zip(cos_rest.iter().zip(sin_rest)) {
        rotate_pair(a, b, cos, sin);
    }
}

/// Rounds each number to the nearest F16, halves to even.
pub fn round_f16<L: Lanes>(x: &mut [f32]) {
    each(x, 0.0, |x: L| x.round_to_f16());
}

/// Writes the nearest F16 of each number of `x`, halves rounded to even.
pub fn store_f16<L: Lanes>(x: &[f32], out: &mut [F16Bytes]) {
    let ((blocks, rest), (out, out_rest)) = (x.as_chunks(), out.as_chunks_mut());
    for (block, out) in blocks.iter().zip(out) {
        L::store_f16_block(L::load_block(block), out);
    }
    for (&x, out) in rest.iter().zip(out_rest) {
        *out = f32_to_f16(x).to_le_bytes();
    }
}

/// Hadamard transform of each `width` numbers, scaled to be its own inverse.
///
/// `width` is a power of two.
pub fn hadamard<L: Lanes>(x: &mut [f32], width: usize) {
    let factor = 1.0 / libm::sqrtf(width as f32);
    scale::<L>(x, factor);
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
    use crate::llm::kernels::{
        geglu, gelu, hadamard, largest, layer_norm, rms_norm, rotate_halves, rotate_neighbours,
        silu, softcap, softmax, swiglu,
    };
    use crate::llm::quantize::{F32Bytes, f16_to_f32, round_to_f16};
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
    fn the_largest_is_found_at_each_place_and_is_never_nan() {
        for n in 1..10 {
            for place in 0..n {
                let mut x = [-2.0, f32::NAN, f32::NEG_INFINITY].repeat(3);
                x[place] = -1.0;
                assert_eq!(largest(&x[..n]), -1.0, "place {place} of {n}");
            }
        }
        for none in [&[][..], &[f32::NAN, f32::NEG_INFINITY]] {
            assert_eq!(largest(none), f32::NEG_INFINITY);
        }
    }

    #[test]
    fn capped_numbers_stay_within_the_cap() {
        let mut x = [0.0, 1.0, -1000.0, 50.0];
        softcap(&mut x, 50.0);
        assert_near(&x, &[0.0, 0.999_866_7_f32, -50.0, 38.079_71]);
    }

    #[test]
    fn both_orders_rotate_the_same_pairs() {
        // 0, 7, 11 pairs, rotated by 90 degrees, by 0, and by the angle with the sine 3/5.
        for pairs in [0, 7, 11] {
            let rotations = [(0.0, 1.0), (1.0, 0.0), (0.8, 0.6)];
            let rotations: Vec<(f32, f32)> = (0..pairs).map(|i| rotations[i % 3]).collect();
            let angles: Vec<f32> =
                rotations.iter().map(|r| r.0).chain(rotations.iter().map(|r| r.1)).collect();
            let a = |i: usize| (i * i % 13) as f32 - 4.0;
            let b = |i: usize| 7.0 - i as f32;
            let rotated = |i: usize| {
                let (cos, sin) = rotations[i];
                (a(i) * cos - b(i) * sin, a(i) * sin + b(i) * cos)
            };
            // The numbers behind the pairs stay.
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
