//! Packs rows into row panels, and activations into activation panels.

use alloc::vec::Vec;
use core::arch::aarch64::*;

use super::vectors::{load_s8, load_u8, store_vectors};
use crate::llm::quantize::{PANEL_ROWS, PANEL_TOKENS, WeightType, Words, interleave_units};

/// Packs eight rows into a row panel.
pub fn pack_panel(kind: WeightType, rows: &mut [u8], copy: &mut Vec<u8>) {
    kind.pack_panel(rows, copy, |fields, out| {
        // SAFETY: this module is only built where the whole build has NEON.
        unsafe { interleave_rows(fields, out) }
    });
}

/// Interleaves the words of eight rows' fields, four words of each at a time.
#[target_feature(enable = "neon")]
fn interleave_rows(fields: [&[u8]; PANEL_ROWS], out: &mut [u8]) {
    let fields = fields.map(|field| field.as_chunks::<16>());
    let (fours, words) = out.as_chunks_mut::<{ 4 * 4 * PANEL_ROWS }>();
    for (i, out) in fours.iter_mut().enumerate() {
        let rows = fields.map(|(fours, _)| vreinterpretq_u32_u8(load_u8(&fours[i], 0)));
        let [a, b, c, d, e, f, g, h] = rows;
        let words = [transposed([a, b, c, d]), transposed([e, f, g, h])];
        let in_order = |i: usize| vreinterpretq_u8_u32(words[i % 2][i / 2]);
        store_vectors::<_, _, 8>(out, core::array::from_fn(in_order));
    }
    interleave_units::<4>(fields.map(|(_, rest)| rest), words);
}

/// Interleaves the words of four tokens, four words of each at a time.
///
/// The number of words is a multiple of four.
pub fn interleave_tokens(tokens: [&[i8]; PANEL_TOKENS], out: &mut [Words]) {
    let tokens = tokens.map(|qs| qs.as_chunks::<16>().0);
    for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        // SAFETY: this module is only built where the whole build has NEON.
        unsafe {
            let words = transposed(tokens.map(|qs| vreinterpretq_u32_s8(load_s8(&qs[i], 0))));
            store_vectors::<_, _, 4>(out, words.map(|words| vreinterpretq_u8_u32(words)));
        }
    }
}

/// Transposes four vectors of four words.
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
