//! GEMM micro-kernels: row panels times several tokens' activations, as in prefill.
//!
//! Some hundred columns of a panel are unpacked into a buffer that stays in the nearest cache. Then
//! the tokens go over the buffer, four at a time.

use core::arch::aarch64::*;
use core::slice::ChunksExact;

use super::isa::{FourTokens, for_each_lane};
use super::sums::{add_k_block, load_totals, store_totals, widen};
use super::unpack::{Q8Block, UnpackKQuant, UnpackSimple};
use super::vectors::vectors_of;
use crate::llm::kernels::operands::{OnPanelSums, RowSums};
use crate::llm::quantize::{BlockQ8Kx4, GROUPS, Interleave, PANEL_TOKENS, SUPER_BLOCK};

/// Blocks of 32 columns that are unpacked at a time.
const UNPACKED_BLOCKS: usize = 32;

#[inline(never)]
#[target_feature(enable = "neon")]
pub fn gemm_simple<I: FourTokens, F: UnpackSimple>(
    isa: I,
    panels: ChunksExact<'_, F::Block>,
    x: &[<F::Activations as Interleave>::Panel],
    sums: &mut [RowSums],
    on_sums: OnPanelSums<'_>,
) {
    // The weights, the scales and the offsets of each block.
    let none = [vdupq_n_f32(0.0); 2];
    let mut unpacked = [([[vdupq_n_s8(0); 2]; 8], none, none); UNPACKED_BLOCKS];
    for (panel, blocks) in panels.enumerate() {
        for (i, some) in blocks.chunks(UNPACKED_BLOCKS).enumerate() {
            for (block, (weights, scales, offsets)) in some.iter().zip(&mut unpacked) {
                *weights = isa.reorder(F::weights(block));
                *scales = F::scales(block);
                if F::HAS_OFFSETS {
                    *offsets = F::offsets(block);
                }
            }
            let of_tokens =
                x.chunks_exact(blocks.len()).zip(sums.as_chunks_mut::<PANEL_TOKENS>().0);
            for (x, sums) in of_tokens {
                let mut totals = [none; PANEL_TOKENS];
                if i > 0 {
                    totals = sums.each_ref().map(|sums| load_totals(sums));
                }
                let x = &x[i * UNPACKED_BLOCKS..][..some.len()];
                for ((weights, scales, offsets), x) in unpacked.iter().zip(x) {
                    let [qs @ .., d, sum] = F::Activations::panel_vectors(x);
                    let products = isa.four(weights, qs, F::start(vreinterpretq_s32_s8(*sum)));
                    let (d, sum) = (vreinterpretq_f32_s8(*d), vreinterpretq_f32_s8(*sum));
                    for_each_lane!(TOKEN => {
                        let total = &mut totals[TOKEN as usize];
                        for half in 0..2 {
                            let products = vcvtq_f32_s32(products[TOKEN as usize][half]);
                            let scaled = vmulq_f32(products, scales[half]);
                            total[half] = vfmaq_laneq_f32::<TOKEN>(total[half], scaled, d);
                            if F::HAS_OFFSETS {
                                total[half] =
                                    vfmaq_laneq_f32::<TOKEN>(total[half], offsets[half], sum);
                            }
                        }
                    });
                }
                for (totals, sums) in totals.into_iter().zip(sums) {
                    store_totals(totals, sums);
                }
            }
        }
        on_sums(panel, sums);
    }
}

#[inline(never)]
#[target_feature(enable = "neon")]
pub fn gemm_k_quant<I: FourTokens, F: UnpackKQuant>(
    isa: I,
    panels: ChunksExact<'_, F::Block>,
    x: &[BlockQ8Kx4],
    row_sums: &mut [RowSums],
    on_sums: OnPanelSums<'_>,
) {
    let mut weights = [[[vdupq_n_s8(0); 2]; 4]; GROUPS];
    for (panel, blocks) in panels.enumerate() {
        for (i, block) in blocks.iter().enumerate() {
            for (quarter, groups) in F::QUARTERS.iter().enumerate() {
                // Two columns' words at a time, of which the registers hold all groups.
                for i in [0, 2] {
                    let first = F::weights(block, quarter, i);
                    let second = F::weights(block, quarter, i + 1);
                    for (group, (first, second)) in groups.iter().zip(first.iter().zip(&second)) {
                        let [first, second] = isa.reorder([*first, *second]);
                        let weights = &mut weights[*group];
                        (weights[i], weights[i + 1]) = (first, second);
                    }
                }
            }
            let (scales, mins) = F::scales(block);
            let scales = scales.map(|scales| widen(scales));
            let d = F::d(block);
            let of_tokens =
                x.chunks_exact(blocks.len()).zip(row_sums.as_chunks_mut::<PANEL_TOKENS>().0);
            for (x, row_sums) in of_tokens {
                let vectors: &[int8x16_t; 89] = vectors_of(&x[i]);
                let (qs, rest) = vectors.split_at(SUPER_BLOCK / PANEL_TOKENS);
                let (starts, rest) = rest.split_at(GROUPS);
                let (x_sums, x_d) = rest.split_at(GROUPS / 2);
                let (qs, _) = qs.as_chunks::<4>();
                let [mut sums, mut min_sums] = [[[vdupq_n_s32(0); 2]; PANEL_TOKENS]; 2];
                for (((weights, scales), qs), start) in
                    weights.iter().zip(&scales).zip(qs).zip(starts)
                {
                    let products = isa.four(weights, qs, F::start(vreinterpretq_s32_s8(*start)));
                    // By reference: the compiler would copy the array with `memcpy`.
                    for (sums, products) in sums.iter_mut().zip(&products) {
                        for half in 0..2 {
                            sums[half] = vmlaq_s32(sums[half], products[half], scales[half]);
                        }
                    }
                }
                if F::HAS_MINS {
                    for (mins, x) in mins.as_chunks::<2>().0.iter().zip(x_sums) {
                        let [first, second] =
                            mins.map(|mins| vreinterpretq_s16_u16(vmovl_u8(mins)));
                        let x = vreinterpretq_s16_s8(*x);
                        let (x_first, x_second) = (vget_low_s16(x), vget_high_s16(x));
                        for_each_lane!(TOKEN => {
                            let [low, high] = &mut min_sums[TOKEN as usize];
                            *low = vmlal_lane_s16::<TOKEN>(*low, vget_low_s16(first), x_first);
                            *high = vmlal_high_lane_s16::<TOKEN>(*high, first, x_first);
                            *low = vmlal_lane_s16::<TOKEN>(*low, vget_low_s16(second), x_second);
                            *high = vmlal_high_lane_s16::<TOKEN>(*high, second, x_second);
                        });
                    }
                }
                let x_d = vreinterpretq_f32_s8(x_d[0]);
                for_each_lane!(TOKEN => {
                    let token = TOKEN as usize;
                    let mut total = [vdupq_n_f32(0.0); 2];
                    if i > 0 {
                        total = load_totals(&row_sums[token]);
                    }
                    let x_d = vgetq_lane_f32::<TOKEN>(x_d);
                    add_k_block::<F>(&mut total, &d, x_d, sums[token], min_sums[token]);
                    store_totals(total, &mut row_sums[token]);
                });
            }
        }
        on_sums(panel, row_sums);
    }
}
