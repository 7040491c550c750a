//! Dot products of single rows with super-blocks, for types without panels.

use core::arch::aarch64::*;

use crate::llm::kernels::neon::vectors::{load_s8, load_u8, load_vectors};
use crate::llm::quantize::{
    BlockQ8K, GROUP, IQ4_VALUES, SUPER_BLOCK, Scales, SuperBlock, iq, ternary,
};

/// The weights of half a block: eight groups of 16.
type Half = [int8x16_t; 8];

/// The dot product of a row. `half` unpacks the first or second half of a block.
#[target_feature(enable = "neon")]
fn dot<const N: usize>(
    weights: &[[u8; N]],
    x: &[BlockQ8K],
    scales: impl Fn(&[u8; N]) -> Scales,
    half: impl Fn(&[u8; N], usize) -> Half,
) -> f32 {
    let mut total = 0.0;
    for (block, x) in weights.iter().zip(x) {
        total += block_product(|i| half(block, i), &scales(block), x);
    }
    total
}

#[target_feature(enable = "neon")]
fn block_product(half: impl Fn(usize) -> Half, scales: &Scales, x: &BlockQ8K) -> f32 {
    let sum = block_sum(half, load_s8(&scales.scales, 0), x);
    scales.product(x.d, sum, || min_sum(scales, x))
}

/// The sum of a block's products, scaled by group.
#[target_feature(enable = "neon")]
fn block_sum(half: impl Fn(usize) -> Half, scales: int8x16_t, x: &BlockQ8K) -> i32 {
    let (x_first, x_second) = x.qs.split_first_chunk().expect("two halves");
    let x_second = x_second.first_chunk().expect("two halves");
    let first = half_sums(half(0), x_first, vmovl_s8(vget_low_s8(scales)));
    let second = half_sums(half(1), x_second, vmovl_high_s8(scales));
    vaddvq_s32(vaddq_s32(first, second))
}

/// The products of half a block, scaled by group, as four sums.
#[target_feature(enable = "neon")]
fn half_sums(weights: Half, x: &[i8; SUPER_BLOCK / 2], scales: int16x8_t) -> int32x4_t {
    // Two chains of sums, so that one need not wait for the other.
    let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
    // The lane of a scale is part of the instruction, which a loop cannot express.
    macro_rules! add_groups {
        ($($group:literal)*) => {$({
            let (weights, x) = (weights[$group], load_s8(x, $group * GROUP));
            // Two products of at most 128 * 127 fit in 16 bits: activations are never -128.
            let products = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
            let products = vmlal_high_s8(products, weights, x);
            low = vmlal_laneq_s16::<$group>(low, vget_low_s16(products), scales);
            high = vmlal_high_laneq_s16::<$group>(high, products, scales);
        })*};
    }
    add_groups!(0 1 2 3 4 5 6 7);
    vaddq_s32(low, high)
}

/// The sum that the minimums subtract, before scaling.
#[target_feature(enable = "neon")]
fn min_sum(scales: &Scales, x: &BlockQ8K) -> i32 {
    let mins = load_u8(&scales.mins, 0);
    let [x_low, x_high] = load_vectors(&x.sums).map(|eight| vreinterpretq_s16_u8(eight));
    let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(mins)));
    let high = vreinterpretq_s16_u16(vmovl_high_u8(mins));
    let sums = vmull_s16(vget_low_s16(low), vget_low_s16(x_low));
    let sums = vmlal_high_s16(sums, low, x_low);
    let sums = vmlal_s16(sums, vget_low_s16(high), vget_low_s16(x_high));
    vaddvq_s32(vmlal_high_s16(sums, high, x_high))
}

/// The dot product for types that only the portable code unpacks.
#[target_feature(enable = "neon")]
pub fn dot_unpacked<const N: usize>(
    weights: &[[u8; N]],
    x: &[BlockQ8K],
    unpack: impl Fn(&[u8; N]) -> SuperBlock,
) -> f32 {
    weights.iter().zip(x).fold(0.0, |total, (block, x)| total + unpacked_product(&unpack(block), x))
}

/// Not generic, so that all types share the code.
#[inline(never)]
#[target_feature(enable = "neon")]
fn unpacked_product(block: &SuperBlock, x: &BlockQ8K) -> f32 {
    let half =
        |half: usize| core::array::from_fn(|i| load_s8(&block.weights, (half * 8 + i) * GROUP));
    block_product(half, &block.scales, x)
}

/// Two bits of each weight: two loads hold the four bit planes of half a block.
///
/// See `k_quants::q2_k`.
#[target_feature(enable = "neon")]
fn crumbs<const N: usize>(block: &[u8; N], at: usize) -> [uint8x16_t; 8] {
    let mask = vdupq_n_u8(3);
    let [a, b] = [load_u8(block, at), load_u8(block, at + 16)];
    [
        vandq_u8(a, mask),
        vandq_u8(b, mask),
        vandq_u8(vshrq_n_u8::<2>(a), mask),
        vandq_u8(vshrq_n_u8::<2>(b), mask),
        vandq_u8(vshrq_n_u8::<4>(a), mask),
        vandq_u8(vshrq_n_u8::<4>(b), mask),
        vshrq_n_u8::<6>(a),
        vshrq_n_u8::<6>(b),
    ]
}

#[target_feature(enable = "neon")]
pub fn dot_iq4_xs(weights: &[[u8; 136]], x: &[BlockQ8K]) -> f32 {
    let values = load_s8(&IQ4_VALUES, 0);
    dot(weights, x, iq::iq4_xs_scales, |block, half| {
        // Each 16 bytes hold two neighbouring groups.
        let bytes = [0, 16, 32, 48].map(|i| load_u8(block, 8 + half * 64 + i));
        core::array::from_fn(|i| {
            let places = match i % 2 {
                0 => vandq_u8(bytes[i / 2], vdupq_n_u8(15)),
                _ => vshrq_n_u8::<4>(bytes[i / 2]),
            };
            vqtbl1q_s8(values, places)
        })
    })
}

#[target_feature(enable = "neon")]
pub fn dot_tq2_0(weights: &[[u8; 66]], x: &[BlockQ8K]) -> f32 {
    dot(weights, x, ternary::tq2_0_scales, |block, half| {
        let one = vdupq_n_s8(1);
        crumbs(block, half * 32).map(|q| vsubq_s8(vreinterpretq_s8_u8(q), one))
    })
}
