//! Types with blocks of 32 weights: four blocks at a time, one for each lane.

use core::arch::aarch64::*;

use super::vectors::{f16s_to_f32, load_f32, load_s8, load_u8, store_f32, sum_lanes};
use crate::llm::kernels::LANES;
use crate::llm::quantize::blocks::half_power;
use crate::llm::quantize::{BLOCK, BlockQ8_0, BlockQ8_1, FP4_VALUES, IQ4_VALUES, Q8_0Bytes, scale};

/// The weights of a block.
type Weights = [int8x16_t; 2];

/// The products of a block, added up to four sums.
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

/// The sum of each of four vectors, as a float.
#[target_feature(enable = "neon")]
fn add_up(sums: [int32x4_t; LANES]) -> float32x4_t {
    let sums = vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
    vcvtq_f32_s32(sums)
}

/// The F16 at byte `at` of each block.
#[target_feature(enable = "neon")]
fn scales_at<const N: usize>(blocks: &[[u8; N]; LANES], at: usize) -> float32x4_t {
    f16s_to_f32([0, 1, 2, 3].map(|i| u16::from_le_bytes([blocks[i][at], blocks[i][at + 1]])))
}

/// Runs over the blocks, four at a time. Behind the last ones come zeros, which change nothing.
fn in_fours<A: Copy, B: Copy>(
    weights: &[A],
    x: &[B],
    zero: (A, B),
    mut add: impl FnMut(&[A; LANES], &[B; LANES]),
) {
    let (fours, weights_rest) = weights.as_chunks();
    let (x_fours, x_rest) = x.as_chunks();
    let mut last = ([zero.0; LANES], [zero.1; LANES]);
    let rest = weights_rest.len().min(x_rest.len());
    last.0[..rest].copy_from_slice(&weights_rest[..rest]);
    last.1[..rest].copy_from_slice(&x_rest[..rest]);
    let mut last = (rest > 0).then_some((&last.0, &last.1));
    let mut fours = fours.iter().zip(x_fours);
    // One call, not one for the last: the compiler is to put the code here.
    while let Some((weights, x)) = fours.next().or_else(|| last.take()) {
        add(weights, x);
    }
}

/// Weights without an offset; `scales` and `block_sums` are those of the type.
#[target_feature(enable = "neon")]
fn dot<const N: usize>(
    weights: &[[u8; N]],
    x: &[BlockQ8_0],
    scales: impl Fn(&[[u8; N]; LANES]) -> float32x4_t,
    block_sums: impl Fn(&[u8; N], &[i8; BLOCK]) -> int32x4_t,
) -> f32 {
    let mut lanes = vdupq_n_f32(0.0);
    let zero = ([0; N], BlockQ8_0 { d: 0.0, qs: [0; BLOCK] });
    in_fours(weights, x, zero, |weights, x| {
        let sums = core::array::from_fn(|i| block_sums(&weights[i], &x[i].qs));
        let scales = vmulq_f32(scales(weights), load_f32(&[0, 1, 2, 3].map(|i| x[i].d)));
        lanes = vaddq_f32(lanes, vmulq_f32(add_up(sums), scales));
    });
    sum_lanes(lanes)
}

/// Weights with an offset: scale and offset as F16 at the start of the block.
#[target_feature(enable = "neon")]
fn dot_with_offset<const N: usize>(
    weights: &[[u8; N]],
    x: &[BlockQ8_1],
    block_sums: impl Fn(&[u8; N], &[i8; BLOCK]) -> int32x4_t,
) -> f32 {
    let mut lanes = vdupq_n_f32(0.0);
    let zero = ([0; N], BlockQ8_1 { d: 0.0, sum: 0.0, qs: [0; BLOCK] });
    in_fours(weights, x, zero, |weights, x| {
        let sums = core::array::from_fn(|i| block_sums(&weights[i], &x[i].qs));
        let scales = vmulq_f32(scales_at(weights, 0), load_f32(&[0, 1, 2, 3].map(|i| x[i].d)));
        let offsets = vmulq_f32(scales_at(weights, 2), load_f32(&[0, 1, 2, 3].map(|i| x[i].sum)));
        let products = vaddq_f32(vmulq_f32(add_up(sums), scales), offsets);
        lanes = vaddq_f32(lanes, products);
    });
    sum_lanes(lanes)
}

/// The low and the high halves of the 16 bytes from `at`.
#[target_feature(enable = "neon")]
fn nibbles<const N: usize>(block: &[u8; N], at: usize) -> [uint8x16_t; 2] {
    let pairs = load_u8(block, at);
    [vandq_u8(pairs, vdupq_n_u8(15)), vshrq_n_u8::<4>(pairs)]
}

/// As [`nibbles`], with fifth bits from the four bytes before: bit i for weight i.
#[target_feature(enable = "neon")]
fn five_bits<const N: usize>(block: &[u8; N], at: usize) -> [uint8x16_t; 2] {
    let bits = block[at - 4..].first_chunk().expect("four bytes before the pairs");
    // A byte of bits for each eight weights, of which each tests its own.
    let bits = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(*bits)));
    let places =
        vreinterpretq_u8_u64(vcombine_u64(vdup_n_u64(0), vdup_n_u64(0x0101_0101_0101_0101)));
    let own = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let fifth = |places| vandq_u8(vtstq_u8(vqtbl1q_u8(bits, places), own), vdupq_n_u8(16));
    let [low, high] = nibbles(block, at);
    let high_places = vaddq_u8(places, vdupq_n_u8(2));
    [vorrq_u8(low, fifth(places)), vorrq_u8(high, fifth(high_places))]
}

/// `numbers` less `offset`.
#[target_feature(enable = "neon")]
fn less(numbers: [uint8x16_t; 2], offset: i8) -> Weights {
    let offset = vdupq_n_s8(offset);
    let [low, high] = numbers;
    [vsubq_s8(vreinterpretq_s8_u8(low), offset), vsubq_s8(vreinterpretq_s8_u8(high), offset)]
}

/// The values at these places.
#[target_feature(enable = "neon")]
fn look_up(values: &[i8; 16], places: [uint8x16_t; 2]) -> Weights {
    let values = load_s8(values, 0);
    let [low, high] = places;
    [vqtbl1q_s8(values, low), vqtbl1q_s8(values, high)]
}

#[target_feature(enable = "neon")]
pub fn dot_q4_0(weights: &[[u8; 18]], x: &[BlockQ8_0]) -> f32 {
    let sums = |block: &[u8; 18], x: &_| products(less(nibbles(block, 2), 8), x);
    dot(weights, x, |blocks| scales_at(blocks, 0), sums)
}

#[target_feature(enable = "neon")]
pub fn dot_q4_1(weights: &[[u8; 20]], x: &[BlockQ8_1]) -> f32 {
    dot_with_offset(weights, x, |block, x| products(less(nibbles(block, 4), 0), x))
}

#[target_feature(enable = "neon")]
pub fn dot_q5_0(weights: &[[u8; 22]], x: &[BlockQ8_0]) -> f32 {
    let sums = |block: &[u8; 22], x: &_| products(less(five_bits(block, 6), 16), x);
    dot(weights, x, |blocks| scales_at(blocks, 0), sums)
}

#[target_feature(enable = "neon")]
pub fn dot_q5_1(weights: &[[u8; 24]], x: &[BlockQ8_1]) -> f32 {
    dot_with_offset(weights, x, |block, x| products(less(five_bits(block, 8), 0), x))
}

#[target_feature(enable = "neon")]
pub fn dot_q8_0(weights: &[[u8; 34]], x: &[BlockQ8_0]) -> f32 {
    let sums = |block: &[u8; 34], x: &_| {
        let weights = [2, 18].map(|at| vreinterpretq_s8_u8(load_u8(block, at)));
        products(weights, x)
    };
    dot(weights, x, |blocks| scales_at(blocks, 0), sums)
}

#[target_feature(enable = "neon")]
pub fn dot_iq4_nl(weights: &[[u8; 18]], x: &[BlockQ8_0]) -> f32 {
    let sums = |block: &[u8; 18], x: &_| products(look_up(&IQ4_VALUES, nibbles(block, 2)), x);
    dot(weights, x, |blocks| scales_at(blocks, 0), sums)
}

#[target_feature(enable = "neon")]
pub fn dot_mxfp4(weights: &[[u8; 17]], x: &[BlockQ8_0]) -> f32 {
    let scales =
        |blocks: &[[u8; 17]; LANES]| load_f32(&[0, 1, 2, 3].map(|i| half_power(blocks[i][0])));
    let sums = |block: &[u8; 17], x: &_| products(look_up(&FP4_VALUES, nibbles(block, 1)), x);
    dot(weights, x, scales, sums)
}

/// Adds `factor` times the values to `out`: a block for each 32 of it.
#[target_feature(enable = "neon")]
pub fn add_scaled_q8_0(out: &mut [f32], factor: f32, values: &[Q8_0Bytes]) {
    for (out, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(values) {
        let d = scale([block[0], block[1]]);
        for (half, out) in out.as_chunks_mut::<{ BLOCK / 2 }>().0.iter_mut().enumerate() {
            let bytes = vreinterpretq_s8_u8(load_u8(block, 2 + half * BLOCK / 2));
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            let fours = [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ];
            for (four, out) in fours.into_iter().zip(out.as_chunks_mut::<LANES>().0) {
                let values = vmulq_n_f32(vcvtq_f32_s32(four), d);
                store_f32(out, vaddq_f32(load_f32(out), vmulq_n_f32(values, factor)));
            }
        }
    }
}
