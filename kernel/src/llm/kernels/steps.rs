//! The element-wise steps, written once for all [`Lanes`]. What each does is said where it is made
//! public, in [`super::elementwise`].

#![forbid(unsafe_code)]

use super::LANES;
use super::functions::{exp, tanh};
use super::lanes::{Lanes, Number, padded};
use crate::llm::quantize::{F16Bytes, F32Bytes, f32_to_f16};

/// Runs over numbers four at a time. Behind the last ones comes `fill`.
#[inline(always)]
fn fold<L: Lanes, A>(x: &[f32], fill: f32, start: A, step: impl Fn(A, L) -> A) -> A {
    let (fours, rest) = x.as_chunks();
    let result = fours.iter().fold(start, |result, four| step(result, L::load(four)));
    if rest.is_empty() { result } else { step(result, L::load(&padded(rest, fill))) }
}

/// Changes numbers four at a time. Behind the last ones comes `fill`.
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

/// Changes numbers four at a time by as many others.
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

pub fn add<L: Lanes>(out: &mut [f32], x: &[impl Number]) {
    each_with(out, x, |out: L, x| out + x);
}

pub fn scale<L: Lanes>(x: &mut [f32], factor: f32) {
    let factor = L::splat(factor);
    each(x, 0.0, |x: L| x * factor);
}

/// The sum of the squares: squared in single precision and added in double, as ggml does.
fn sum_of_squares<L: Lanes>(x: &[f32]) -> f64 {
    L::total(fold(x, 0.0, L::no_sums(), |sums, x: L| (x * x).add_to(sums)))
}

pub fn rms_norm<L: Lanes>(x: &mut [f32], weights: &[F32Bytes], epsilon: f32) {
    let mean = (sum_of_squares::<L>(x) / x.len() as f64) as f32;
    let factor = L::splat(1.0 / libm::sqrtf(mean + epsilon));
    each_with(x, weights, |x: L, weight| x * factor * weight);
}

pub fn layer_norm<L: Lanes>(x: &mut [f32], weights: &[F32Bytes], bias: &[F32Bytes], epsilon: f32) {
    let sum = L::total(fold(x, 0.0, L::no_sums(), |sums, x: L| x.add_to(sums)));
    let mean = L::splat(sum as f32 / x.len() as f32);
    each(x, 0.0, |x: L| x - mean);
    let variance = (sum_of_squares::<L>(x) / x.len() as f64) as f32;
    let factor = L::splat(1.0 / libm::sqrtf(variance + epsilon));
    each_with(x, weights, |x: L, weight| x * factor * weight);
    add::<L>(x, bias);
}

pub fn softmax<L: Lanes>(scores: &mut [f32]) {
    let lowest = f32::NEG_INFINITY;
    let largest = fold(scores, lowest, L::splat(lowest), |largest: L, x| largest.max(x)).largest();
    let largest = L::splat(largest);
    let mut sums = L::no_sums();
    // What is filled in becomes 0.
    each(scores, lowest, |x: L| {
        let x = exp(x - largest);
        sums = x.add_to(sums);
        x
    });
    scale::<L>(scores, (1.0 / L::total(sums)) as f32);
}

pub fn soft_cap<L: Lanes>(x: &mut [f32], cap: f32) {
    let (inverse, cap) = (L::splat(1.0 / cap), L::splat(cap));
    each(x, 0.0, |x: L| tanh(x * inverse) * cap);
}

#[inline(always)]
fn silu_of<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    x / (one + exp(L::splat(0.0) - x))
}

pub fn silu<L: Lanes>(x: &mut [f32]) {
    each(x, 0.0, |x: L| silu_of(x));
}

pub fn swiglu<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    each_with(gate, up, |gate: L, up| silu_of(gate) * up);
}

#[inline(always)]
fn gelu_of<L: Lanes>(x: L) -> L {
    const ROOT_OF_2_OVER_PI: f32 = 0.797_884_6;
    // Beyond these bounds ggml does not look into its table.
    const BOUND: f32 = 10.0;
    let rounded = x.round_to_f16();
    // C compilers fuse this; one F16 number in 65,536 shows it.
    let square = (L::splat(0.044_715) * rounded).mul_add(rounded, L::splat(1.0));
    let inner = L::splat(ROOT_OF_2_OVER_PI) * rounded * square;
    let result = L::splat(0.5) * rounded * (L::splat(1.0) + tanh(inner));
    let result = x.if_less(BOUND, result.round_to_f16(), x);
    x.if_less((-BOUND).next_up(), L::splat(0.0), result)
}

pub fn gelu<L: Lanes>(x: &mut [f32]) {
    each(x, 0.0, |x: L| gelu_of(x));
}

pub fn geglu<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    each_with(gate, up, |gate: L, up| gelu_of(gate) * up);
}

/// Turns pairs by the angles of these cosines and sines.
#[inline(always)]
fn turn<L: Lanes>([a, b]: [L; 2], cos: &[f32; LANES], sin: &[f32; LANES]) -> [L; 2] {
    let (cos, sin) = (L::load(cos), L::load(sin));
    [a * cos - b * sin, a * sin + b * cos]
}

/// As [`turn`], for the one that is left.
fn turn_one(a: &mut f32, b: &mut f32, cos: f32, sin: f32) {
    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
}

pub fn rotate_neighbours<L: Lanes>(head: &mut [f32], angles: &[f32]) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    let ((cos, cos_rest), (sin, sin_rest)) = (cos.as_chunks(), sin.as_chunks());
    let (eights, rest) = head[..angles.len()].as_chunks_mut::<{ 2 * LANES }>();
    for (eight, (cos, sin)) in eights.iter_mut().zip(cos.iter().zip(sin)) {
        let [low, high] = eight.as_chunks_mut::<LANES>().0 else { unreachable!("twice four") };
        let turned = turn(L::unzip([L::load(low), L::load(high)]), cos, sin);
        let [new_low, new_high] = L::zip(turned);
        new_low.store(low);
        new_high.store(high);
    }
    let rest = rest.as_chunks_mut::<2>().0.iter_mut();
    for ([a, b], (&cos, &sin)) in rest.zip(cos_rest.iter().zip(sin_rest)) {
        turn_one(a, b, cos, sin);
    }
}

pub fn rotate_halves<L: Lanes>(head: &mut [f32], angles: &[f32]) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    let ((cos, cos_rest), (sin, sin_rest)) = (cos.as_chunks(), sin.as_chunks());
    let (a, b) = head[..angles.len()].split_at_mut(angles.len() / 2);
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks_mut(), b.as_chunks_mut());
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
        let [new_a, new_b] = turn([L::load(a), L::load(b)], cos, sin);
        new_a.store(a);
        new_b.store(b);
    }
    for ((a, b), (&cos, &sin)) in a_rest.iter_mut().zip(b_rest).zip(cos_rest.iter().zip(sin_rest)) {
        turn_one(a, b, cos, sin);
    }
}

pub fn round_f16<L: Lanes>(x: &mut [f32]) {
    each(x, 0.0, |x: L| x.round_to_f16());
}

pub fn store_f16<L: Lanes>(x: &[f32], out: &mut [F16Bytes]) {
    let ((blocks, rest), (out, out_rest)) = (x.as_chunks(), out.as_chunks_mut());
    for (block, out) in blocks.iter().zip(out) {
        L::store_f16_block(L::load_block(block), out);
    }
    for (&x, out) in rest.iter().zip(out_rest) {
        *out = f32_to_f16(x).to_le_bytes();
    }
}
