//! The inner loops: dot products of weights with activations, and the element-wise steps.
//!
//! Each dot product has a portable reference ([`scalar`]) and, with the feature `simd`, one for
//! the vector unit at hand. All give the same bits, so that a model's text does not depend on the
//! machine: integer sums are exact, and the order of floating-point sums is fixed.
//!
//! The numbers follow ggml's CPU backend (`ops.cpp`, `vec.h`, `ggml-quants.c`).

#[cfg(all(feature = "simd", target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod scalar;
pub mod self_test;

#[cfg(all(feature = "simd", target_arch = "aarch64", target_feature = "neon"))]
use neon as active;
#[cfg(not(all(feature = "simd", target_arch = "aarch64", target_feature = "neon")))]
use scalar as active;

use crate::llm::quantize::{ActivationType, BlockQ8_0, BlockQ8K, F32Bytes, WeightType};

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
    /// For Q4_0 and Q8_0.
    Q8_0(&'a [BlockQ8_0]),
    /// For Q6_K.
    Q8K(&'a [BlockQ8K]),
}

impl Activations<'_> {
    /// Their format.
    pub fn kind(&self) -> ActivationType {
        match self {
            Activations::F32(_) => ActivationType::F32,
            Activations::F16(_) => ActivationType::F16,
            Activations::Q8_0(_) => ActivationType::Q8_0,
            Activations::Q8K(_) => ActivationType::Q8_K,
        }
    }
}

/// The dot product of a row of weights, as it lies in the file, with activations of the same
/// length in the format that `kind` wants ([`WeightType::activations`]).
///
/// # Panics
/// The activations are in another format.
pub fn dot(kind: WeightType, row: &[u8], x: &Activations<'_>) -> f32 {
    match (kind, *x) {
        (WeightType::F32, Activations::F32(x)) => active::dot_f32(row.as_chunks().0, x),
        (WeightType::F16, Activations::F16(x)) => active::dot_f16(row.as_chunks().0, x),
        (WeightType::Q4_0, Activations::Q8_0(x)) => active::dot_q4_0(row.as_chunks().0, x),
        (WeightType::Q8_0, Activations::Q8_0(x)) => active::dot_q8_0(row.as_chunks().0, x),
        (WeightType::Q6_K, Activations::Q8K(x)) => active::dot_q6_k(row.as_chunks().0, x),
        (kind, x) => panic!("{kind:?} weights with {:?} activations", x.kind()),
    }
}

/// The dot product of F16 numbers, as bits, with F32 ones.
pub fn dot_f16(a: &[u16], x: &[f32]) -> f32 {
    active::dot_f16_cache(a, x)
}

/// Adds `factor` times the F16 numbers `values`, as bits, to `out`.
pub fn add_scaled_f16(out: &mut [f32], factor: f32, values: &[u16]) {
    active::add_scaled_f16(out, factor, values);
}

/// Adds `x` to `out`.
pub fn add(out: &mut [f32], x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += x;
    }
}

/// RMSNorm: `x` over the root of its mean square, times `weights`.
pub fn rms_norm(out: &mut [f32], x: &[f32], weights: &[F32Bytes], epsilon: f32) {
    // ggml squares in f32 and adds in f64.
    let sum: f64 = x.iter().map(|x| f64::from(x * x)).sum();
    let mean = (sum / x.len() as f64) as f32;
    let factor = 1.0 / libm::sqrtf(mean + epsilon);
    for ((out, x), &weight) in out.iter_mut().zip(x).zip(weights) {
        *out = x * factor * f32::from_le_bytes(weight);
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

/// SwiGLU: `gate` becomes SiLU(`gate`) times `up`.
pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + libm::expf(-*gate)) * up;
    }
}

/// Rotary position embedding: the settings of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub base: f32,
    /// What positions are multiplied with: below 1 where a context is stretched.
    pub scale: f32,
}

impl Rope {
    /// Writes cosine and sine of each pair's angle at this position; the length of `out` is that
    /// of the part of a head that is rotated. `factors`, one for each pair, divide the frequencies.
    pub fn angles(&self, position: usize, factors: Option<&[f32]>, out: &mut [f32]) {
        // As ggml does: the angle falls by repeated multiplication, rounding included.
        let step = libm::powf(self.base, -2.0 / out.len() as f32);
        let mut theta = position as f32;
        for (i, pair) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let factor = factors.and_then(|factors| factors.get(i)).copied().unwrap_or(1.0);
            let angle = self.scale * (theta / factor);
            *pair = [libm::cosf(angle), libm::sinf(angle)];
            theta *= step;
        }
    }
}

/// Rotates the first pairs of neighbours of a head by `angles` (see [`Rope::angles`]).
pub fn rotate(head: &mut [f32], angles: &[f32]) {
    let pairs = head.as_chunks_mut::<2>().0.iter_mut();
    for ([a, b], [cos, sin]) in pairs.zip(angles.as_chunks::<2>().0) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}
