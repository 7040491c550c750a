//! The number formats of weights and activations.
//!
//! Weights come in the blocks of ggml (`ggml-common.h`); they are read where they lie in the file.
//! Activations are quantised to match them, as ggml's reference code does it (`ggml-quants.c`),
//! so that a model gives the same text here as there.

#![forbid(unsafe_code)]

mod f16;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use f16::{f16_to_f32, f32_to_f16, round_to_f16};

use crate::llm::gguf::TensorType;

/// Weights in a block of Q4_0 and Q8_0.
pub const BLOCK: usize = 32;
/// Weights in a block of the K types.
pub const SUPER_BLOCK: usize = 256;

/// A block of F32: one weight, little endian.
pub type F32Bytes = [u8; 4];
/// A block of F16: one weight, little endian.
pub type F16Bytes = [u8; 2];
/// A block of Q4_0: the scale as F16, then 16 bytes whose low halves are weights 0 to 15 and whose
/// high halves are weights 16 to 31, each with 8 added.
pub type Q4_0Bytes = [u8; 18];
/// A block of Q8_0: the scale as F16, then 32 signed weights.
pub type Q8_0Bytes = [u8; 34];
/// A block of Q6_K: 128 bytes with the low four bits of the weights, 64 with the high two, 16
/// signed scales of 16 weights each, and the scale of the scales as F16. Weights have 32 added.
pub type Q6KBytes = [u8; 210];

/// The formats in which weights may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "ggml's names")]
pub enum WeightType {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// 4-bit weights with one scale for 32.
    Q4_0,
    /// 8-bit weights with one scale for 32.
    Q8_0,
    /// 6-bit weights with one scale for 16 and one for 256.
    Q6_K,
}

impl WeightType {
    /// The format of this tensor type; `None` if the engine does not have it.
    pub fn from_tensor_type(kind: TensorType) -> Option<Self> {
        match kind {
            TensorType::F32 => Some(WeightType::F32),
            TensorType::F16 => Some(WeightType::F16),
            TensorType::Q4_0 => Some(WeightType::Q4_0),
            TensorType::Q8_0 => Some(WeightType::Q8_0),
            TensorType::Q6_K => Some(WeightType::Q6_K),
            _ => None,
        }
    }

    /// The tensor type of this format.
    pub const fn tensor_type(self) -> TensorType {
        match self {
            WeightType::F32 => TensorType::F32,
            WeightType::F16 => TensorType::F16,
            WeightType::Q4_0 => TensorType::Q4_0,
            WeightType::Q8_0 => TensorType::Q8_0,
            WeightType::Q6_K => TensorType::Q6_K,
        }
    }

    /// Size in bytes of a row of `n` weights, which are whole blocks.
    pub const fn row_bytes(self, n: usize) -> usize {
        let kind = self.tensor_type();
        n / kind.block_weights as usize * kind.block_bytes as usize
    }

    /// The format in which activations are multiplied with such weights.
    pub const fn activations(self) -> ActivationType {
        match self {
            WeightType::F32 => ActivationType::F32,
            WeightType::F16 => ActivationType::F16,
            WeightType::Q4_0 | WeightType::Q8_0 => ActivationType::Q8_0,
            WeightType::Q6_K => ActivationType::Q8_K,
        }
    }
}

/// The formats of activations (ggml's `vec_dot_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "ggml's names")]
pub enum ActivationType {
    /// As they are.
    F32,
    /// Rounded to F16, kept as F32.
    F16,
    /// Blocks of [`BlockQ8_0`].
    Q8_0,
    /// Blocks of [`BlockQ8K`].
    Q8_K,
}

/// 32 activations as signed bytes with one scale.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// The scale, rounded to F16 as ggml stores it.
    pub d: f32,
    /// The activations over the scale.
    pub qs: [i8; BLOCK],
}

/// 256 activations as signed bytes with one scale.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct BlockQ8K {
    /// The scale.
    pub d: f32,
    /// The activations over the scale.
    pub qs: [i8; SUPER_BLOCK],
    /// Sums of 16 neighbours.
    pub sums: [i16; SUPER_BLOCK / 16],
}

/// Quantises activations to Q8_0: `out` has one block for each 32 of `x`.
pub fn quantize_q8_0(x: &[f32], out: &mut [BlockQ8_0]) {
    for (x, block) in x.as_chunks::<BLOCK>().0.iter().zip(out) {
        let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let d = largest / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        block.d = round_to_f16(d);
        for (q, x) in block.qs.iter_mut().zip(x) {
            *q = round_half_away(x * inverse) as i8;
        }
    }
}

/// Rounds to the nearest whole number, halves away from zero, as C's `roundf`; for |x| < 2^22.
fn round_half_away(x: f32) -> i32 {
    let whole = x as i32;
    // Exact: both are below 2^22, and close to each other.
    let rest = x - whole as f32;
    whole.saturating_add(i32::from(rest >= 0.5)).saturating_sub(i32::from(rest <= -0.5))
}

/// Rounds to the nearest whole number, halves to the even one; for |x| < 2^22.
fn round_half_even(x: f32) -> i32 {
    // With 1.5 * 2^23 added, the last bit of the sum stands for 1.
    const SHIFT: f32 = 12_582_912.0;
    ((x + SHIFT).to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32)
}

/// Quantises activations to Q8_K: `out` has one block for each 256 of `x`.
pub fn quantize_q8_k(x: &[f32], out: &mut [BlockQ8K]) {
    for (x, block) in x.as_chunks::<SUPER_BLOCK>().0.iter().zip(out) {
        // The first of the largest, with its sign, becomes -127.
        let mut largest = 0.0_f32;
        for &x in x {
            if x.abs() > largest.abs() {
                largest = x;
            }
        }
        if largest == 0.0 {
            *block = BlockQ8K { d: 0.0, qs: [0; SUPER_BLOCK], sums: [0; SUPER_BLOCK / 16] };
            continue;
        }
        let inverse = -127.0 / largest;
        for (q, x) in block.qs.iter_mut().zip(x) {
            *q = round_half_even(inverse * x).min(127) as i8;
        }
        for (sum, qs) in block.sums.iter_mut().zip(block.qs.as_chunks::<16>().0) {
            *sum = qs.iter().map(|&q| i16::from(q)).sum();
        }
        block.d = 1.0 / inverse;
    }
}

/// Writes the row of weights in `bytes` to `out`.
pub fn dequantize_row(kind: WeightType, bytes: &[u8], out: &mut [f32]) {
    match kind {
        WeightType::F32 => {
            for (&b, out) in bytes.as_chunks().0.iter().zip(out) {
                *out = f32::from_le_bytes(b);
            }
        }
        WeightType::F16 => {
            for (&b, out) in bytes.as_chunks().0.iter().zip(out) {
                *out = f16_to_f32(u16::from_le_bytes(b));
            }
        }
        WeightType::Q4_0 => {
            let blocks = bytes.as_chunks::<18>().0;
            for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
                dequantize_q4_0(block, out);
            }
        }
        WeightType::Q8_0 => {
            let blocks = bytes.as_chunks::<34>().0;
            for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
                let d = scale(block[0], block[1]);
                for (out, &q) in out.iter_mut().zip(&block[2..]) {
                    *out = f32::from(q as i8) * d;
                }
            }
        }
        WeightType::Q6_K => {
            let blocks = bytes.as_chunks::<210>().0;
            for (block, out) in blocks.iter().zip(out.as_chunks_mut::<SUPER_BLOCK>().0) {
                dequantize_q6_k(block, out);
            }
        }
    }
}

/// The scale in two bytes of a block.
pub fn scale(low: u8, high: u8) -> f32 {
    f16_to_f32(u16::from_le_bytes([low, high]))
}

fn dequantize_q4_0(block: &Q4_0Bytes, out: &mut [f32; BLOCK]) {
    let d = scale(block[0], block[1]);
    for (i, &pair) in block[2..].iter().enumerate() {
        out[i] = (i32::from(pair & 15) - 8) as f32 * d;
        out[i + 16] = (i32::from(pair >> 4) - 8) as f32 * d;
    }
}

/// The 256 weights of a block of Q6_K, from -32 to 31.
pub fn unpack_q6_k(block: &Q6KBytes) -> [i8; SUPER_BLOCK] {
    let mut out = [0; SUPER_BLOCK];
    // Two halves of 128 weights, each of four stripes of 32 that share their bytes.
    for half in 0..2 {
        for i in 0..32 {
            let low = [block[half * 64 + i], block[half * 64 + 32 + i]];
            let high = block[128 + half * 32 + i];
            for stripe in 0..4 {
                let low = low[stripe % 2] >> (stripe / 2 * 4) & 15;
                let high = high >> (stripe * 2) & 3;
                out[half * 128 + stripe * 32 + i] = (low | high << 4) as i8 - 32;
            }
        }
    }
    out
}

fn dequantize_q6_k(block: &Q6KBytes, out: &mut [f32; SUPER_BLOCK]) {
    let d = scale(block[208], block[209]);
    let weights = unpack_q6_k(block);
    let groups = weights.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0);
    for ((weights, out), &group_scale) in groups.zip(&block[192..208]) {
        let d = d * f32::from(group_scale as i8);
        for (out, &q) in out.iter_mut().zip(weights) {
            *out = d * f32::from(q);
        }
    }
}
