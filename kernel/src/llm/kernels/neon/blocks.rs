//! Types with blocks of 32 weights: four blocks at a time, one for each lane; those of four rows, for
//! which the activations are loaded once, or of the one row that is left.

use core::arch::aarch64::*;

use super::vectors::{
    gather, gather_s32, load_at, load_f16s, load_f32, load_s8, load_u8, store_f32, sum_lanes,
};
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

/// The sum of the products of each of four blocks, `weights` giving those of a block.
#[target_feature(enable = "neon")]
fn sums<A>(
    blocks: [&A; LANES],
    x: [&[i8; BLOCK]; LANES],
    weights: impl Fn(&A) -> Weights,
) -> int32x4_t {
    let [a, b, c, d] = core::array::from_fn(|i| products(weights(blocks[i]), x[i]));
    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
}

/// As [`sums`], for weights of at most 16: even all products of a block, in two sums, fit in 16
/// bits.
#[target_feature(enable = "neon")]
fn small_sums<A>(
    blocks: [&A; LANES],
    x: [&[i8; BLOCK]; LANES],
    weights: impl Fn(&A) -> Weights,
) -> int32x4_t {
    let [a, b, c, d] = core::array::from_fn(|i| {
        let [low, high] = weights(blocks[i]);
        let (x_low, x_high) = (load_s8(x[i], 0), load_s8(x[i], 16));
        let sums = vmull_s8(vget_low_s8(low), vget_low_s8(x_low));
        let sums = vmlal_high_s8(sums, low, x_low);
        let sums = vmlal_s8(sums, vget_low_s8(high), vget_low_s8(x_high));
        vmlal_high_s8(sums, high, x_high)
    });
    vpaddlq_s16(vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)))
}

/// The dot products of rows with activations; `four` gives the products of four blocks. Each row's
/// blocks are added in four lanes, as in the portable kernel.
#[target_feature(enable = "neon")]
fn multiply<A: Copy, B: Copy>(
    rows: &[A],
    x: &[B],
    zero: (A, B),
    out: &mut [f32],
    four: impl Fn([&A; LANES], [&B; LANES]) -> float32x4_t,
) {
    let row = |i: usize| &rows[i * x.len()..][..x.len()];
    let (tiles, rest) = out.as_chunks_mut::<LANES>();
    let n_tiled = tiles.len() * LANES;
    for (i, out) in tiles.iter_mut().enumerate() {
        store_f32(out, tile([0, 1, 2, 3].map(|r| row(LANES * i + r)), x, &four));
    }
    for (i, out) in (n_tiled..).zip(rest) {
        *out = dot(row(i), x, zero, &four);
    }
}

/// Four rows at once, one in each lane of the vectors.
#[target_feature(enable = "neon")]
fn tile<A, B>(
    rows: [&[A]; LANES],
    x: &[B],
    four: &impl Fn([&A; LANES], [&B; LANES]) -> float32x4_t,
) -> float32x4_t {
    let mut sums = [vdupq_n_f32(0.0); LANES];
    let (x_fours, x_rest) = x.as_chunks::<LANES>();
    let rows = rows.map(|row| row.as_chunks::<LANES>());
    for (i, x) in x_fours.iter().enumerate() {
        let blocks = rows.map(|(fours, _)| &fours[i]);
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = vaddq_f32(*sum, four(blocks.map(|four| &four[lane]), [&x[lane]; LANES]));
        }
    }
    for (lane, x) in x_rest.iter().enumerate() {
        let blocks = rows.map(|(_, rest)| &rest[lane]);
        sums[lane] = vaddq_f32(sums[lane], four(blocks, [x; LANES]));
    }
    vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3]))
}

/// One row, four blocks at once. Behind the last ones come zeros, which change nothing.
#[target_feature(enable = "neon")]
fn dot<A: Copy, B: Copy>(
    row: &[A],
    x: &[B],
    zero: (A, B),
    four: &impl Fn([&A; LANES], [&B; LANES]) -> float32x4_t,
) -> f32 {
    let mut lanes = vdupq_n_f32(0.0);
    let (fours, rest) = row.as_chunks::<LANES>();
    let (x_fours, x_rest) = x.as_chunks::<LANES>();
    let mut last = ([zero.0; LANES], [zero.1; LANES]);
    last.0[..rest.len()].copy_from_slice(rest);
    last.1[..rest.len()].copy_from_slice(x_rest);
    let mut last = (!rest.is_empty()).then_some((&last.0, &last.1));
    let mut fours = fours.iter().zip(x_fours);
    // One call, not one for the last: the compiler is to put the code here.
    while let Some((blocks, x)) = fours.next().or_else(|| last.take()) {
        lanes = vaddq_f32(lanes, four(blocks.each_ref(), x.each_ref()));
    }
    sum_lanes(lanes)
}

/// Weights without an offset: `scales` are those of four blocks, `sums` their products.
#[target_feature(enable = "neon")]
fn multiply_scaled<const N: usize>(
    rows: &[[u8; N]],
    x: &[BlockQ8_0],
    out: &mut [f32],
    scales: impl Fn([&[u8; N]; LANES]) -> float32x4_t,
    sums: impl Fn([&[u8; N]; LANES], [&BlockQ8_0; LANES]) -> int32x4_t,
) {
    let zero = ([0; N], BlockQ8_0::ZERO);
    multiply(rows, x, zero, out, |blocks, x| {
        let scales = vmulq_f32(scales(blocks), gather(x.map(|x| x.d)));
        vmulq_f32(vcvtq_f32_s32(sums(blocks, x)), scales)
    });
}

/// Weights with an offset: scale and offset as F16 at the start of the block.
#[target_feature(enable = "neon")]
fn multiply_with_offset<const N: usize>(
    rows: &[[u8; N]],
    x: &[BlockQ8_1],
    out: &mut [f32],
    sums: impl Fn([&[u8; N]; LANES], [&BlockQ8_1; LANES]) -> int32x4_t,
) {
    let zero = ([0; N], BlockQ8_1 { d: 0.0, sum: 0.0, qs: [0; BLOCK] });
    multiply(rows, x, zero, out, |blocks, x| {
        let scales = vmulq_f32(load_f16s(blocks, 0), gather(x.map(|x| x.d)));
        let offsets = vmulq_f32(load_f16s(blocks, 2), gather(x.map(|x| x.sum)));
        vaddq_f32(vmulq_f32(vcvtq_f32_s32(sums(blocks, x)), scales), offsets)
    });
}

/// The low and the high halves of the 16 bytes from `AT`.
#[target_feature(enable = "neon")]
fn nibbles<const AT: usize, const N: usize>(block: &[u8; N]) -> [uint8x16_t; 2] {
    let pairs = load_at::<AT, N>(block);
    [vandq_u8(pairs, vdupq_n_u8(15)), vshrq_n_u8::<4>(pairs)]
}

/// As [`nibbles`], with fifth bits from the four bytes before: bit i for weight i.
#[target_feature(enable = "neon")]
fn five_bits<const AT: usize, const N: usize>(block: &[u8; N]) -> [uint8x16_t; 2] {
    let bits = block[AT - 4..].first_chunk().expect("four bytes before the pairs");
    // A byte of bits for each eight weights, of which each tests its own.
    let bits = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(*bits)));
    let places =
        vreinterpretq_u8_u64(vcombine_u64(vdup_n_u64(0), vdup_n_u64(0x0101_0101_0101_0101)));
    let own = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let fifth = |places| vandq_u8(vtstq_u8(vqtbl1q_u8(bits, places), own), vdupq_n_u8(16));
    let [low, high] = nibbles::<AT, N>(block);
    let high_places = vaddq_u8(places, vdupq_n_u8(2));
    [vorrq_u8(low, fifth(places)), vorrq_u8(high, fifth(high_places))]
}

/// The numbers, as they are.
#[target_feature(enable = "neon")]
fn signed(numbers: [uint8x16_t; 2]) -> Weights {
    numbers.map(|numbers| vreinterpretq_s8_u8(numbers))
}

/// The numbers less `offset`.
#[target_feature(enable = "neon")]
fn less(numbers: [uint8x16_t; 2], offset: i8) -> Weights {
    signed(numbers).map(|numbers| vsubq_s8(numbers, vdupq_n_s8(offset)))
}

/// The values at these places.
#[target_feature(enable = "neon")]
fn look_up(values: &[i8; 16], places: [uint8x16_t; 2]) -> Weights {
    let values = load_s8(values, 0);
    let [low, high] = places;
    [vqtbl1q_s8(values, low), vqtbl1q_s8(values, high)]
}

#[target_feature(enable = "neon")]
pub fn multiply_q4_0(rows: &[[u8; 18]], x: &[BlockQ8_0], out: &mut [f32]) {
    multiply_scaled(
        rows,
        x,
        out,
        |blocks| load_f16s(blocks, 0),
        |blocks, x| {
            // The 8 that each weight has too much is taken off all products at once.
            let sums =
                small_sums(blocks, x.map(|x| &x.qs), |block| signed(nibbles::<2, 18>(block)));
            vsubq_s32(sums, vshlq_n_s32::<3>(gather_s32(x.map(|x| x.sum))))
        },
    );
}

#[target_feature(enable = "neon")]
pub fn multiply_q4_1(rows: &[[u8; 20]], x: &[BlockQ8_1], out: &mut [f32]) {
    multiply_with_offset(rows, x, out, |blocks, x| {
        small_sums(blocks, x.map(|x| &x.qs), |block| signed(nibbles::<4, 20>(block)))
    });
}

#[target_feature(enable = "neon")]
pub fn multiply_q5_0(rows: &[[u8; 22]], x: &[BlockQ8_0], out: &mut [f32]) {
    multiply_scaled(
        rows,
        x,
        out,
        |blocks| load_f16s(blocks, 0),
        |blocks, x| {
            small_sums(blocks, x.map(|x| &x.qs), |block| less(five_bits::<6, 22>(block), 16))
        },
    );
}

#[target_feature(enable = "neon")]
pub fn multiply_q5_1(rows: &[[u8; 24]], x: &[BlockQ8_1], out: &mut [f32]) {
    multiply_with_offset(rows, x, out, |blocks, x| {
        sums(blocks, x.map(|x| &x.qs), |block| signed(five_bits::<8, 24>(block)))
    });
}

#[target_feature(enable = "neon")]
pub fn multiply_q8_0(rows: &[[u8; 34]], x: &[BlockQ8_0], out: &mut [f32]) {
    multiply_scaled(
        rows,
        x,
        out,
        |blocks| load_f16s(blocks, 0),
        |blocks, x| {
            let weights =
                |block: &[u8; 34]| signed([load_at::<2, 34>(block), load_at::<18, 34>(block)]);
            sums(blocks, x.map(|x| &x.qs), weights)
        },
    );
}

#[target_feature(enable = "neon")]
pub fn multiply_iq4_nl(rows: &[[u8; 18]], x: &[BlockQ8_0], out: &mut [f32]) {
    multiply_scaled(
        rows,
        x,
        out,
        |blocks| load_f16s(blocks, 0),
        |blocks, x| {
            sums(blocks, x.map(|x| &x.qs), |block| look_up(&IQ4_VALUES, nibbles::<2, 18>(block)))
        },
    );
}

#[target_feature(enable = "neon")]
pub fn multiply_mxfp4(rows: &[[u8; 17]], x: &[BlockQ8_0], out: &mut [f32]) {
    let scales = |blocks: [&[u8; 17]; LANES]| gather(blocks.map(|block| half_power(block[0])));
    multiply_scaled(rows, x, out, scales, |blocks, x| {
        small_sums(blocks, x.map(|x| &x.qs), |block| look_up(&FP4_VALUES, nibbles::<1, 17>(block)))
    });
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
