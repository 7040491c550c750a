//! Quantisers: from F32 to the types of weights.
//!
//! Quantisers give the bytes of ggml's `quantize_row_*_ref` (`ggml-quants.c`), compiled without
//! fused multiply-add. llama.cpp's quantiser writes these bytes without an importance matrix. So
//! each sum has ggml's order. The engine needs Q8_0 for its KV cache, and `image-builder` needs all
//! types.

mod blocks;
mod k_quants;
mod search;

pub use blocks::q8_0;

use super::{BLOCK, SUPER_BLOCK, WeightType, f32_to_bf16, f32_to_f16};

/// Quantises whole blocks of weights to bytes.
pub type Quantizer = fn(&[f32], &mut [u8]);

impl WeightType {
    /// The quantiser to this type.
    ///
    /// `None` for types that are only useful with an importance matrix or a search in a table.
    pub fn quantizer(self) -> Option<Quantizer> {
        Some(match self {
            WeightType::F32 => |x, out| each(x, out, |[x]| x.to_le_bytes()),
            WeightType::F16 => |x, out| each(x, out, |[x]| f32_to_f16(*x).to_le_bytes()),
            WeightType::BF16 => |x, out| each(x, out, |[x]| f32_to_bf16(*x).to_le_bytes()),
            WeightType::Q4_0 => |x, out| each(x, out, blocks::q4_0),
            WeightType::Q4_1 => |x, out| each(x, out, blocks::q4_1),
            WeightType::Q5_0 => |x, out| each(x, out, blocks::q5_0),
            WeightType::Q5_1 => |x, out| each(x, out, blocks::q5_1),
            WeightType::Q8_0 => |x, out| each(x, out, blocks::q8_0),
            WeightType::Q2_K => |x, out| each(x, out, k_quants::q2_k),
            WeightType::Q3_K => |x, out| each(x, out, k_quants::q3_k),
            WeightType::Q4_K => |x, out| each(x, out, k_quants::q4_k),
            WeightType::Q5_K => |x, out| each(x, out, k_quants::q5_k),
            WeightType::Q6_K => |x, out| each(x, out, k_quants::q6_k),
            _ => return None,
        })
    }
}

fn each<const WEIGHTS: usize, const BYTES: usize>(
    x: &[f32],
    out: &mut [u8],
    quantize: impl Fn(&[f32; WEIGHTS]) -> [u8; BYTES],
) {
    for (x, out) in x.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        *out = quantize(x);
    }
}

/// Concatenates the parts of a block.
fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut block = [0; N];
    let mut at = 0;
    for part in parts {
        block[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    assert!(at == N, "the parts of a block fill it");
    block
}
