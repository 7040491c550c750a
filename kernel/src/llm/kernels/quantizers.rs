//! Quantisation of activations, written once for all [`Lanes`].
//!
//! The bits equal those of ggml's reference code (`ggml-quants.c`). Halves are rounded away from
//! zero, or to even, as in ggml.

#![forbid(unsafe_code)]

use super::lanes::{BLOCK_VECTORS, Lanes, ROUND};
use crate::llm::quantize::{self, BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, Interleave, SUPER_BLOCK};

/// The largest of 32 numbers in four lanes.
#[inline(always)]
fn largest<L: Lanes>([a, b, c, d, e, f, g, h]: [L; BLOCK_VECTORS]) -> L {
    a.max(b).max(c.max(d)).max(e.max(f).max(g.max(h)))
}

/// The first number of the largest magnitude, with its sign; 0 without numbers.
#[inline(always)]
fn first_of_largest<L: Lanes>(x: &[f32; SUPER_BLOCK]) -> f32 {
    let mut most = [L::splat(0.0); 2];
    for block in x.as_chunks().0 {
        let block = L::load_block(block);
        let negated = block.map(|x| L::splat(0.0) - x);
        most = [most[0].max(largest(block)), most[1].max(largest(negated))];
    }
    match most.map(L::largest) {
        [positive, negative] if positive > negative => positive,
        [positive, negative] if negative > positive => -negative,
        // Equal magnitudes: find out which one comes first.
        _ => quantize::first_of_largest(x),
    }
}

/// The nearest F16.
#[inline(always)]
fn rounded<L: Lanes>(x: f32) -> f32 {
    L::splat(x).round_to_f16().largest()
}

/// Quantises 32 activations. Returns their scale, not rounded, and their sum.
#[inline(always)]
fn quantize_32<L: Lanes>(x: &[f32; BLOCK], qs: &mut [i8; BLOCK]) -> (f32, i32) {
    let x: [L; BLOCK_VECTORS] = L::load_block(x);
    let d = largest(x.map(L::abs)).largest() / 127.0;
    let inverse = L::splat(if d == 0.0 { 0.0 } else { 1.0 / d });
    let bytes = x.map(|x| (x * inverse).bits_of_whole());
    let [first, second] = L::store_low_bytes(bytes, qs);
    (d, i32::from(first) + i32::from(second))
}

pub fn quantize_q8_0<L: Lanes>(x: &[f32], out: &mut [BlockQ8_0]) {
    for (x, block) in x.as_chunks().0.iter().zip(out) {
        let (d, sum) = quantize_32::<L>(x, &mut block.qs);
        (block.d, block.minus_8_sums) = (rounded::<L>(d), -8 * sum);
    }
}

pub fn quantize_q8_1<L: Lanes>(x: &[f32], out: &mut [BlockQ8_1]) {
    for (x, block) in x.as_chunks().0.iter().zip(out) {
        let (d, sum) = quantize_32::<L>(x, &mut block.qs);
        (block.d, block.sum) = (rounded::<L>(d), rounded::<L>(sum as f32 * d));
    }
}

pub fn quantize_q8_k<L: Lanes>(x: &[f32], out: &mut [BlockQ8K]) {
    for (x, block) in x.as_chunks::<SUPER_BLOCK>().0.iter().zip(out) {
        // The first number of the largest magnitude becomes -127.
        let largest = first_of_largest::<L>(x);
        if largest == 0.0 {
            *block = BlockQ8K::ZERO;
            continue;
        }
        let inverse = -127.0 / largest;
        let blocks = x.as_chunks().0.iter().zip(block.qs.as_chunks_mut().0);
        for ((x, qs), sums) in blocks.zip(block.sums.as_chunks_mut().0) {
            let bytes = L::load_block(x).map(|x: L| x * L::splat(inverse) + L::splat(ROUND));
            *sums = L::store_low_bytes(bytes, qs);
        }
        block.minus_32_sums = block.sums.map(|sum| -32 * i32::from(sum));
        block.d = 1.0 / inverse;
    }
}
