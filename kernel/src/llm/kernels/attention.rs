//! Attention: scores of queries with keys, and weighted sums of values.
//!
//! Written once for all [`Lanes`], with fused multiply-adds.

#![forbid(unsafe_code)]

use super::lanes::{BLOCK_VECTORS, LANES, Lanes, padded};
use crate::llm::quantize::{BLOCK, scale};

/// Queries that share the load of each key, and of each value.
pub const TOGETHER: usize = 2;

/// Bytes of a block.
const F32_BYTES: usize = 4 * BLOCK;
const Q8_0_BYTES: usize = 2 + BLOCK;

/// The keys, or the values, of a head at consecutive positions.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows<'a> {
    /// At least from the head's first row to the end of the head's last row.
    pub bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes of a row.
    pub width: usize,
}

#[inline]
fn f32_block<L: Lanes>(bytes: &[u8; F32_BYTES]) -> [L; BLOCK_VECTORS] {
    L::load_block::<[u8; 4]>(bytes.as_chunks().0.first_chunk().expect("a block"))
}

#[inline]
fn q8_0_block<L: Lanes>(bytes: &[u8; Q8_0_BYTES]) -> [L; BLOCK_VECTORS] {
    let ([d0, d1], numbers) = bytes.split_first_chunk().expect("a scale and a block");
    let d = L::splat(scale([*d0, *d1]));
    L::load_byte_block(numbers.first_chunk().expect("a block")).map(|four| four * d)
}

/// Calls a function for [`TOGETHER`] queries at a time, and for each of the others alone.
macro_rules! for_queries {
    ($of:ident($rows:expr, $inputs:expr, $outs:expr, $load:expr)) => {{
        let n_sharing = match L::SHARES_LOADS {
            true => $inputs.len() / TOGETHER * TOGETHER,
            false => 0,
        };
        let (inputs, alone) = $inputs.split_at(n_sharing);
        let (outs, outs_alone) = $outs.split_at_mut(n_sharing);
        let inputs = inputs.as_chunks::<TOGETHER>().0.iter();
        for (inputs, outs) in inputs.zip(outs.as_chunks_mut::<TOGETHER>().0) {
            $of($rows, inputs, outs, $load);
        }
        for (input, out) in alone.iter().zip(outs_alone) {
            $of($rows, core::array::from_ref(input), core::array::from_mut(out), $load);
        }
    }};
}

pub fn scores_f32<L: Lanes>(keys: HeadRows<'_>, queries: &[&[f32]], outs: &mut [&mut [f32]]) {
    for_queries!(scores_of(keys, queries, outs, &f32_block::<L>));
}

pub fn scores_f16<L: Lanes>(keys: HeadRows<'_>, queries: &[&[f32]], outs: &mut [&mut [f32]]) {
    for_queries!(scores_of(keys, queries, outs, &L::load_f16_block));
}

pub fn add_values_f32<L: Lanes>(
    values: HeadRows<'_>,
    probabilities: &[&[f32]],
    outs: &mut [&mut [f32]],
) {
    for_queries!(add_values_of(values, probabilities, outs, &f32_block::<L>));
}

pub fn add_values_f16<L: Lanes>(
    values: HeadRows<'_>,
    probabilities: &[&[f32]],
    outs: &mut [&mut [f32]],
) {
    for_queries!(add_values_of(values, probabilities, outs, &L::load_f16_block));
}

pub fn add_values_q8_0<L: Lanes>(
    values: HeadRows<'_>,
    probabilities: &[&[f32]],
    outs: &mut [&mut [f32]],
) {
    for_queries!(add_values_of(values, probabilities, outs, &q8_0_block::<L>));
}

/// The scores of Q queries with the same keys.
///
/// `load` makes vectors of a block of N bytes.
#[inline(always)]
fn scores_of<L: Lanes, const N: usize, const Q: usize>(
    keys: HeadRows<'_>,
    queries: &[&[f32]; Q],
    outs: &mut [&mut [f32]; Q],
    load: &impl Fn(&[u8; N]) -> [L; BLOCK_VECTORS],
) {
    let n = outs[0].len();
    // Four keys at a time. The last key fills up the last four.
    for first in (0..n).step_by(LANES) {
        let key = |i: usize| &keys.bytes[(first + i).min(n - 1) * keys.stride..][..keys.width];
        let sums = products([0, 1, 2, 3].map(key), queries, load);
        for (sums, out) in sums.iter().zip(&mut *outs) {
            let scores = L::sum_each(*sums);
            match out[first..].first_chunk_mut() {
                Some(out) => scores.store(out),
                None => {
                    let mut last = [0.0; LANES];
                    scores.store(&mut last);
                    out[first..].copy_from_slice(&last[..n - first]);
                }
            }
        }
    }
}

/// The products of queries with four keys: four sums for each query and key.
#[inline(always)]
fn products<L: Lanes, const N: usize, const Q: usize>(
    keys: [&[u8]; LANES],
    queries: &[&[f32]; Q],
    load: &impl Fn(&[u8; N]) -> [L; BLOCK_VECTORS],
) -> [[L; LANES]; Q] {
    let mut sums = [[L::splat(0.0); LANES]; Q];
    let mut add = |queries: [&[f32; BLOCK]; Q], keys: [&[u8; N]; LANES]| {
        for key in 0..LANES {
            let vectors = load(keys[key]);
            for query in 0..Q {
                let numbers = L::load_block(queries[query]);
                for i in 0..BLOCK_VECTORS {
                    sums[query][key] = vectors[i].mul_add(numbers[i], sums[query][key]);
                }
            }
        }
    };
    let queries = queries.map(|query| query.as_chunks());
    let keys = keys.map(|key| key.as_chunks::<N>());
    let n_blocks = queries[0].0.len();
    let blocks = queries.map(|(blocks, _)| &blocks[..n_blocks]);
    let key_blocks = keys.map(|(blocks, _)| &blocks[..n_blocks]);
    for i in 0..n_blocks {
        add(blocks.map(|blocks| &blocks[i]), key_blocks.map(|blocks| &blocks[i]));
    }
    if !queries[0].1.is_empty() {
        add(
            queries.map(|(_, rest)| padded(rest, 0.0)).each_ref(),
            keys.map(|(_, rest)| padded(rest, 0)).each_ref(),
        );
    }
    sums
}

/// Adds the same values to the sums of Q queries.
///
/// `load` makes vectors of a block of N bytes.
#[inline(always)]
fn add_values_of<L: Lanes, const N: usize, const Q: usize>(
    values: HeadRows<'_>,
    probabilities: &[&[f32]; Q],
    outs: &mut [&mut [f32]; Q],
    load: &impl Fn(&[u8; N]) -> [L; BLOCK_VECTORS],
) {
    if probabilities[0].is_empty() {
        return;
    }
    let rows = |from: usize| values.bytes[from..].chunks(values.stride);
    let (n_blocks, rest) = (outs[0].len() / BLOCK, outs[0].len() % BLOCK);
    for i in 0..n_blocks {
        let values = rows(i * N).map(|row| load(row.first_chunk().expect("a block of each row")));
        let blocks = outs.each_mut().map(|out| &mut out.as_chunks_mut().0[i]);
        add_block(values, probabilities, blocks);
    }
    if rest > 0 {
        let from = n_blocks * N;
        let values = rows(from).map(|row| load(&padded(&row[..values.width - from], 0)));
        let outs = outs.each_mut().map(|out| &mut out[n_blocks * BLOCK..]);
        let mut blocks = outs.each_ref().map(|out| padded(out, 0.0));
        add_block(values, probabilities, blocks.each_mut());
        for (out, block) in outs.into_iter().zip(&blocks) {
            out.copy_from_slice(&block[..rest]);
        }
    }
}

/// Adds blocks of values, weighted by the probabilities of each query.
///
/// The sums stay in registers.
#[inline(always)]
fn add_block<L: Lanes, const Q: usize>(
    values: impl Iterator<Item = [L; BLOCK_VECTORS]>,
    probabilities: &[&[f32]; Q],
    outs: [&mut [f32; BLOCK]; Q],
) {
    let mut sums = outs.each_ref().map(|out| L::load_block(out));
    for (position, values) in (0..probabilities[0].len()).zip(values) {
        for query in 0..Q {
            let probability = L::splat(probabilities[query][position]);
            for i in 0..BLOCK_VECTORS {
                sums[query][i] = values[i].mul_add(probability, sums[query][i]);
            }
        }
    }
    for (sums, out) in sums.iter().zip(outs) {
        L::store_block(*sums, out);
    }
}
