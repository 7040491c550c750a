//! Rearranging rows to stripes, and the activations of tokens to stand side by side.

use alloc::vec::Vec;
use core::arch::aarch64::*;

use super::vectors::{load_s8, load_u8, store_vectors};
use crate::llm::quantize::{QUAD, TILE_ROWS, WeightType, Words, move_units};

/// Rearranges eight rows to a stripe.
pub fn make_stripe(kind: WeightType, rows: &mut [u8], copy: &mut Vec<u8>) {
    kind.make_stripe(rows, copy, |fields, out| {
        // SAFETY: this module is only built where the whole build has NEON.
        unsafe { move_words(fields, out) }
    });
}

/// Puts words of eight fields side by side, four of each at a time.
#[target_feature(enable = "neon")]
fn move_words(fields: [&[u8]; TILE_ROWS], out: &mut [u8]) {
    let fields = fields.map(|field| field.as_chunks::<16>());
    let (fours, words) = out.as_chunks_mut::<{ 4 * 4 * TILE_ROWS }>();
    for (i, out) in fours.iter_mut().enumerate() {
        let rows = fields.map(|(fours, _)| vreinterpretq_u32_u8(load_u8(&fours[i], 0)));
        let [a, b, c, d, e, f, g, h] = rows;
        let words = [transposed([a, b, c, d]), transposed([e, f, g, h])];
        let in_order = |i: usize| vreinterpretq_u8_u32(words[i % 2][i / 2]);
        store_vectors::<_, _, 8>(out, core::array::from_fn(in_order));
    }
    move_units::<4>(fields.map(|(_, rest)| rest), words);
}

/// Puts words of four tokens side by side, four of each at a time: there are whole fours.
pub fn interleave_words(tokens: [&[i8]; QUAD], out: &mut [Words]) {
    let tokens = tokens.map(|qs| qs.as_chunks::<16>().0);
    for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        // SAFETY: this module is only built where the whole build has NEON.
        unsafe {
            let words = transposed(tokens.map(|qs| vreinterpretq_u32_s8(load_s8(&qs[i], 0))));
            store_vectors::<_, _, 4>(out, words.map(|words| vreinterpretq_u8_u32(words)));
        }
    }
}

/// The first word of each vector, the second of each, ...
#[target_feature(enable = "neon")]
fn transposed([a, b, c, d]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let (ac, bd) = ([vzip1q_u32(a, c), vzip2q_u32(a, c)], [vzip1q_u32(b, d), vzip2q_u32(b, d)]);
    [
        vzip1q_u32(ac[0], bd[0]),
        vzip2q_u32(ac[0], bd[0]),
        vzip1q_u32(ac[1], bd[1]),
        vzip2q_u32(ac[1], bd[1]),
    ]
}
