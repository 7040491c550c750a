//! Dot products of single rows with blocks of 32 weights, also of the KV cache.

use core::arch::aarch64::*;

use libm::fmaf;

use crate::llm::kernels::neon::vectors::{load_at, load_s8};
use crate::llm::quantize::blocks::half_power;
use crate::llm::quantize::{BLOCK, BlockQ8_0, FP4_VALUES, Q8_0Bytes, scale};

/// The weights of a block.
type Weights = [int8x16_t; 2];

/// The products of a block, as four sums.
#[target_feature(enable = "neon")]
fn products(weights: Weights, x: &[i8; BLOCK]) -> int32x4_t {
    let [low, high] = weights;
    let (x_low, x_high) = (load_s8(x, 0), load_s8(x, 16));
    // Two products of at most 128 * 127 fit in 16 bits: activations are never -128.
    let a = vmull_s8(vget_low_s8(low), vget_low_s8(x_low));
    let a = vmlal_s8(a, vget_low_s8(high), vget_low_s8(x_high));
    let b = vmull_high_s8(low, x_low);
    let b = vmlal_high_s8(b, high, x_high);
    vpadalq_s16(vpaddlq_s16(a), b)
}

/// The dot product of a row without offsets.
///
/// `weights` unpacks a block, and `d` gives its scale.
#[target_feature(enable = "neon")]
fn dot_scaled<const N: usize>(
    row: &[[u8; N]],
    x: &[BlockQ8_0],
    d: impl Fn(&[u8; N]) -> f32,
    weights: impl Fn(&[u8; N]) -> Weights,
) -> f32 {
    row.iter().zip(x).fold(0.0, |total, (block, x)| {
        let sum = vaddvq_s32(products(weights(block), &x.qs));
        fmaf(sum as f32 * d(block), x.d, total)
    })
}

#[target_feature(enable = "neon")]
pub fn dot_q8_0(row: &[Q8_0Bytes], x: &[BlockQ8_0]) -> f32 {
    let weights = |block: &_| {
        [load_at::<2, 34>(block), load_at::<18, 34>(block)].map(|bytes| vreinterpretq_s8_u8(bytes))
    };
    dot_scaled(row, x, |block| scale([block[0], block[1]]), weights)
}

#[target_feature(enable = "neon")]
pub fn dot_mxfp4(row: &[[u8; 17]], x: &[BlockQ8_0]) -> f32 {
    let values = load_s8(&FP4_VALUES, 0);
    let weights = |block: &_| {
        let pairs = load_at::<1, 17>(block);
        let places = [vandq_u8(pairs, vdupq_n_u8(15)), vshrq_n_u8::<4>(pairs)];
        places.map(|places| vqtbl1q_s8(values, places))
    };
    dot_scaled(row, x, |block| half_power(block[0]), weights)
}
