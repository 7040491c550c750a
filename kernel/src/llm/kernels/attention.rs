//! Attention: scores of a query with keys, and the weighted sum of values.
//!
//! Written once for all [`Lanes`], with fused multiply-adds.

#![forbid(unsafe_code)]

use super::lanes::{BLOCK_VECTORS, LANES, Lanes, padded};
use crate::llm::quantize::{BLOCK, scale};

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

pub fn scores_f32<L: Lanes>(keys: HeadRows<'_>, query: &[f32], out: &mut [f32]) {
    scores(keys, query, out, f32_block::<L>);
}

pub fn scores_f16<L: Lanes>(keys: HeadRows<'_>, query: &[f32], out: &mut [f32]) {
    scores(keys, query, out, L::load_f16_block);
}

pub fn add_values_f32<L: Lanes>(values: HeadRows<'_>, probabilities: &[f32], out: &mut [f32]) {
    add_values(values, probabilities, out, f32_block::<L>);
}

pub fn add_values_f16<L: Lanes>(values: HeadRows<'_>, probabilities: &[f32], out: &mut [f32]) {
    add_values(values, probabilities, out, L::load_f16_block);
}

pub fn add_values_q8_0<L: Lanes>(values: HeadRows<'_>, probabilities: &[f32], out: &mut [f32]) {
    add_values(values, probabilities, out, q8_0_block::<L>);
}

/// `load` makes vectors of a block of N bytes.
#[inline(always)]
fn scores<L: Lanes, const N: usize>(
    keys: HeadRows<'_>,
    query: &[f32],
    out: &mut [f32],
    load: impl Fn(&[u8; N]) -> [L; BLOCK_VECTORS],
) {
    let Some(last) = out.len().checked_sub(1) else { return };
    // Four keys at a time. The last key fills up the last four.
    let four = |first: usize| {
        let key = |i: usize| &keys.bytes[(first + i).min(last) * keys.stride..][..keys.width];
        L::sum_each(products([0, 1, 2, 3].map(key), query, &load))
    };
    let (fours, rest) = out.as_chunks_mut::<LANES>();
    for (i, out) in fours.iter_mut().enumerate() {
        four(LANES * i).store(out);
    }
    if !rest.is_empty() {
        let mut scores = [0.0; LANES];
        four(LANES * fours.len()).store(&mut scores);
        rest.copy_from_slice(&scores[..rest.len()]);
    }
}

/// The products of a query with four keys: four sums for each key.
#[inline(always)]
fn products<L: Lanes, const N: usize>(
    keys: [&[u8]; LANES],
    query: &[f32],
    load: &impl Fn(&[u8; N]) -> [L; BLOCK_VECTORS],
) -> [L; LANES] {
    let mut sums = [L::splat(0.0); LANES];
    let mut add = |query: &[f32; BLOCK], keys: [&[u8; N]; LANES]| {
        let query = L::load_block(query);
        for (sum, key) in sums.iter_mut().zip(keys) {
            for (key, query) in load(key).into_iter().zip(query) {
                *sum = key.mul_add(query, *sum);
            }
        }
    };
    let (blocks, rest) = query.as_chunks();
    let keys = keys.map(|key| key.as_chunks::<N>());
    let [a, b, c, d] = keys.map(|(blocks, _)| blocks);
    for ((((query, a), b), c), d) in blocks.iter().zip(a).zip(b).zip(c).zip(d) {
        add(query, [a, b, c, d]);
    }
    if !rest.is_empty() {
        add(&padded(rest, 0.0), keys.map(|(_, rest)| padded(rest, 0)).each_ref());
    }
    sums
}

/// `load` makes vectors of a block of N bytes.
#[inline(always)]
fn add_values<L: Lanes, const N: usize>(
    values: HeadRows<'_>,
    probabilities: &[f32],
    out: &mut [f32],
    load: impl Fn(&[u8; N]) -> [L; BLOCK_VECTORS],
) {
    if probabilities.is_empty() {
        return;
    }
    let rows = |from: usize| values.bytes[from..].chunks(values.stride);
    let (blocks, rest) = out.as_chunks_mut();
    for (i, out) in blocks.iter_mut().enumerate() {
        let values = rows(i * N).map(|row| load(row.first_chunk().expect("a block of each row")));
        add_block(values, probabilities, out);
    }
    if !rest.is_empty() {
        let from = blocks.len() * N;
        let values = rows(from).map(|row| load(&padded(&row[..values.width - from], 0)));
        let mut block = padded(rest, 0.0);
        add_block(values, probabilities, &mut block);
        rest.copy_from_slice(&block[..rest.len()]);
    }
}

/// Adds blocks of values, weighted by probabilities. The sums stay in registers.
#[inline(always)]
fn add_block<L: Lanes>(
    values: impl Iterator<Item = [L; BLOCK_VECTORS]>,
    probabilities: &[f32],
    out: &mut [f32; BLOCK],
) {
    let mut sums = L::load_block(out);
    for (values, &probability) in values.zip(probabilities) {
        let probability = L::splat(probability);
        sums = core::array::from_fn(|i| values[i].mul_add(probability, sums[i]));
    }
    L::store_block(sums, out);
}
