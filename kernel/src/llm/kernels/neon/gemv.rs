//! GEMV micro-kernels: row panels times the activations of one token, or of several.
//!
//! The weights of a block are unpacked in registers and multiplied at once.

use core::arch::aarch64::*;
use core::slice::ChunksExact;

use super::isa::{IntSums, OneToken, for_each_lane};
use super::sums::{add_k_block, load_totals, store_totals, widen};
use super::unpack::{Q8Block, Totals, UnpackKQuant, UnpackSimple};
use super::vectors::{load_s8, load_vectors, store_f32};
use crate::llm::kernels::operands::{OnPanelSums, RowSums};
use crate::llm::quantize::{BLOCK, BlockQ8K, GROUP};

// Each kernel is a function of its own. Inlined into one function, all kernels would save the
// registers that only one kernel needs.

#[inline(never)]
#[target_feature(enable = "neon")]
pub fn simple_panels<I: OneToken, F: UnpackSimple>(
    isa: I,
    blocks: &[F::Block],
    x: &[F::Activations],
    row_sums: &mut [RowSums],
) {
    // Two panels share each block of activations, where there are registers for that.
    let (pairs, single) = match I::TWO_PANELS {
        true => row_sums.as_chunks_mut::<2>(),
        false => (Default::default(), row_sums),
    };
    let (of_pairs, of_single) = blocks.split_at(pairs.len() * 2 * x.len());
    for (blocks, row_sums) in of_pairs.chunks_exact(2 * x.len()).zip(pairs) {
        let (first, second) = blocks.split_at(x.len());
        for (totals, row_sums) in
            gemv_simple::<_, F, 2>(isa, [first, second], x).iter().zip(row_sums)
        {
            store_totals(*totals, row_sums);
        }
    }
    for (blocks, row_sums) in of_single.chunks_exact(x.len()).zip(single) {
        let [totals] = gemv_simple::<_, F, 1>(isa, [blocks], x);
        store_totals(totals, row_sums);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn gemv_simple<I: OneToken, F: UnpackSimple, const N: usize>(
    isa: I,
    panels: [&[F::Block]; N],
    x: &[F::Activations],
) -> [Totals; N] {
    let panels = panels.map(|blocks| &blocks[..x.len()]);
    let mut totals = [[vdupq_n_f32(0.0); 2]; N];
    for (i, x) in x.iter().enumerate() {
        let (qs, d, sum) = x.parts();
        let start = F::start(vdupq_n_s32(sum as i32));
        let qs = isa.load(qs);
        for (totals, blocks) in totals.iter_mut().zip(panels) {
            let block = &blocks[i];
            let sums = isa.one(&F::weights(block), qs, start);
            add_scaled::<F>(totals, sums, &scales_and_offsets::<F>(block), (d, sum));
        }
    }
    totals
}

/// GEMV for several tokens. A block is unpacked once for all of them.
///
/// `x` is `[n_tokens, n_blocks]`. `sums` is scratch space for the sums of a panel: `[n_tokens]`.
#[inline(never)]
#[target_feature(enable = "neon")]
pub fn several_tokens<I: OneToken, F: UnpackSimple>(
    isa: I,
    panels: ChunksExact<'_, F::Block>,
    x: &[F::Activations],
    sums: &mut [RowSums],
    on_sums: OnPanelSums<'_>,
) {
    for (panel, blocks) in panels.enumerate() {
        for (i, block) in blocks.iter().enumerate() {
            let (mut weights, scales) = (F::weights(block), scales_and_offsets::<F>(block));
            for (x, sums) in x.chunks_exact(blocks.len()).zip(sums.iter_mut()) {
                isa.keep_in_loop(&mut weights);
                let (qs, d, sum) = x[i].parts();
                let start = F::start(vdupq_n_s32(sum as i32));
                let products = isa.one(&weights, isa.load(qs), start);
                let mut totals = [vdupq_n_f32(0.0); 2];
                if i > 0 {
                    totals = load_totals(sums);
                }
                add_scaled::<F>(&mut totals, products, &scales, (d, sum));
                store_totals(totals, sums);
            }
        }
        on_sums(panel, sums);
    }
}

/// The scales of a block, and its offsets, if it has any.
#[inline]
#[target_feature(enable = "neon")]
fn scales_and_offsets<F: UnpackSimple>(block: &F::Block) -> [Totals; 2] {
    let none = [vdupq_n_f32(0.0); 2];
    [F::scales(block), if F::HAS_OFFSETS { F::offsets(block) } else { none }]
}

/// Adds the sums of a block's products, scaled. `(d, sum)` come from [`Q8Block::parts`].
#[inline]
#[target_feature(enable = "neon")]
fn add_scaled<F: UnpackSimple>(
    totals: &mut Totals,
    sums: IntSums,
    [scales, offsets]: &[Totals; 2],
    (d, sum): (f32, u32),
) {
    for half in 0..2 {
        let scaled = vmulq_f32(vcvtq_f32_s32(sums[half]), scales[half]);
        totals[half] = vfmaq_n_f32(totals[half], scaled, d);
        if F::HAS_OFFSETS {
            totals[half] = vfmaq_n_f32(totals[half], offsets[half], f32::from_bits(sum));
        }
    }
}

/// Blocks of activations whose [`Factors`] are prepared at a time: 1 KiB.
const PREPARED: usize = 16;

/// The factors of a block in [`gemv_nibbles`]: `[4 words, 4 pairs of i16]`.
type Factors = [[i32; 4]; 4];

/// GEMV for one token over packed nibbles in 16-bit lanes, without unpacking. Without `sdot` only.
///
/// A lane holds four weights: a + 16 b + 256 c + 4096 d. Shifted right by 12 bits, it is d. Shifted
/// right by 8 bits, it is c + 16 d, and so on. The factor of the next weight cancels the extra
/// terms modulo 2^16. The sum fits in 16 bits: 16 products of at most 15 * 127.
#[inline(never)]
#[target_feature(enable = "neon")]
pub fn nibble_panels<F: UnpackSimple>(
    blocks: &[F::Block],
    x: &[F::Activations],
    row_sums: &mut [RowSums],
) {
    let mut factors = [Factors::default(); PREPARED];
    for (n, part) in x.chunks(PREPARED).enumerate() {
        for (factors, x) in factors.iter_mut().zip(part) {
            prepare_factors(x.parts().0, factors);
        }
        // Two panels share the factors of each block.
        let mut panels = blocks.chunks_exact(x.len()).map(|blocks| &blocks[n * PREPARED..]);
        let (pairs, single) = row_sums.as_chunks_mut::<2>();
        for row_sums in pairs {
            let (Some(first), Some(second)) = (panels.next(), panels.next()) else { break };
            gemv_nibbles::<F, 2>(n == 0, [first, second], part, &factors, row_sums);
        }
        if let (Some(blocks), [row_sums]) = (panels.next(), single) {
            let row_sums = core::array::from_mut(row_sums);
            gemv_nibbles::<F, 1>(n == 0, [blocks], part, &factors, row_sums);
        }
    }
}

/// Prepares the factors of a block's activations.
///
/// Of the four weights in a lane, a and c belong to neighbouring columns. The columns of b and d
/// lie 16 behind.
#[inline]
#[target_feature(enable = "neon")]
fn prepare_factors(qs: &[i8; BLOCK], factors: &mut Factors) {
    let [low, high] = load_vectors(qs).map(|qs| vreinterpretq_s16_u8(qs));
    let even = |x| vshrq_n_s16::<8>(vshlq_n_s16::<8>(x));
    let odd = |x| vshrq_n_s16::<8>(x);
    let less_16 = |x, before| vsubq_s16(x, vshlq_n_s16::<4>(before));
    let (a, b, c, d) = (even(low), even(high), odd(low), odd(high));
    let [a, b, c, d] =
        [a, less_16(b, a), less_16(c, b), less_16(d, c)].map(|x| vreinterpretq_s32_s16(x));
    // SAFETY: the reference is valid for writes of 64 bytes.
    unsafe { vst4q_s32(factors.as_mut_ptr().cast(), int32x4x4_t(a, b, c, d)) };
}

/// Adds the products of blocks to the sums of N panels. With `begin`, the sums start at 0.
#[inline]
#[target_feature(enable = "neon")]
fn gemv_nibbles<F: UnpackSimple, const N: usize>(
    begin: bool,
    panels: [&[F::Block]; N],
    x: &[F::Activations],
    factors: &[Factors; PREPARED],
    row_sums: &mut [RowSums; N],
) {
    let panels = panels.map(|blocks| &blocks[..x.len()]);
    let mut totals = [[vdupq_n_f32(0.0); 2]; N];
    if !begin {
        for (totals, row_sums) in totals.iter_mut().zip(&*row_sums) {
            *totals = load_totals(row_sums);
        }
    }
    for (i, (x, factors)) in x.iter().zip(factors).enumerate() {
        let mut sums = [[vdupq_n_s16(0); 2]; N];
        for (word, factors) in factors.iter().enumerate() {
            // SAFETY: the reference is valid for reads of 16 bytes.
            let int32x4x4_t(a, b, c, d) = unsafe { vld4q_dup_s32(factors.as_ptr()) };
            let [a, b, c, d] = [a, b, c, d].map(|x| vreinterpretq_s16_s32(x));
            for (sums, blocks) in sums.iter_mut().zip(panels) {
                let Some(words) = F::nibbles(&blocks[i]) else { return };
                for (sum, lanes) in sums.iter_mut().zip(words[word]) {
                    let lanes = vreinterpretq_u16_u8(lanes);
                    let signed = |lanes| vreinterpretq_s16_u16(lanes);
                    *sum = vmlaq_s16(*sum, signed(lanes), a);
                    *sum = vmlaq_s16(*sum, signed(vshrq_n_u16::<4>(lanes)), b);
                    *sum = vmlaq_s16(*sum, signed(vshrq_n_u16::<8>(lanes)), c);
                    *sum = vmlaq_s16(*sum, signed(vshrq_n_u16::<12>(lanes)), d);
                }
            }
        }
        let (_, d, sum) = x.parts();
        let start = F::start(vdupq_n_s32(sum as i32));
        for ((totals, sums), blocks) in totals.iter_mut().zip(sums).zip(panels) {
            let sums = sums.map(|sums| vpadalq_s16(start, sums));
            add_scaled::<F>(totals, sums, &scales_and_offsets::<F>(&blocks[i]), (d, sum));
        }
    }
    for (totals, row_sums) in totals.iter().zip(row_sums) {
        store_totals(*totals, row_sums);
    }
}

#[inline(never)]
#[target_feature(enable = "neon")]
pub fn gemv_k_quant<I: OneToken, F: UnpackKQuant>(
    isa: I,
    blocks: &[F::Block],
    x: &[BlockQ8K],
    row_sums: &mut [RowSums],
) {
    for (blocks, row_sums) in blocks.chunks_exact(x.len()).zip(row_sums) {
        let mut total = [vdupq_n_f32(0.0); 2];
        for (block, x) in blocks.iter().zip(x) {
            let (scales, mins) = F::scales(block);
            let (mut sums, mut min_sums) = ([vdupq_n_s32(0); 2], [vdupq_n_s32(0); 2]);
            for_each_lane!(QUARTER => {
                let quarter = QUARTER as usize;
                let groups = F::QUARTERS[quarter];
                let qs = groups.map(|group| load_s8(&x.qs, group * GROUP));
                let start = groups.map(|group| F::start(vdupq_n_s32(x.minus_32_sums[group])));
                let products = isa.sixteen_columns(|i| F::weights(block, quarter, i), qs, start);
                for (products, group) in products.into_iter().zip(groups) {
                    let scales = widen(scales[group]);
                    for half in 0..2 {
                        sums[half] = vmlaq_s32(sums[half], products[half], scales[half]);
                    }
                }
            });
            if F::HAS_MINS {
                for (mins, &x) in mins.into_iter().zip(&x.sums) {
                    let mins = vreinterpretq_s16_u16(vmovl_u8(mins));
                    min_sums[0] = vmlal_n_s16(min_sums[0], vget_low_s16(mins), x);
                    min_sums[1] = vmlal_high_n_s16(min_sums[1], mins, x);
                }
            }
            add_k_block::<F>(&mut total, &F::d(block), x.d, sums, min_sums);
        }
        // Not `store_totals`: its one store of two vectors makes the compiler spill registers in
        // the loop above.
        for (sums, total) in row_sums.as_chunks_mut().0.iter_mut().zip(total) {
            store_f32(sums, total);
        }
    }
}
