//! The types with blocks of 32 weights.

use super::super::activations::{first_of_largest, quantize_32};
use super::{BLOCK, f32_to_f16, join};

/// 1 / d; 0 if d is 0.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Packs nibbles: low ones from the first half, high ones from the second half.
fn pairs(q: &[u8; BLOCK]) -> [u8; BLOCK / 2] {
    core::array::from_fn(|i| q[i] & 15 | (q[i + BLOCK / 2] & 15) << 4)
}

/// Bit i is the fifth bit of number i.
fn fifth_bits(q: &[u8; BLOCK]) -> [u8; 4] {
    q.iter().rev().fold(0_u32, |bits, q| bits << 1 | u32::from(q >> 4 & 1)).to_le_bytes()
}

/// Integers from 0 to `2 * half - 1` with one scale.
///
/// The number of the largest magnitude becomes 0.
fn around_zero(x: &[f32; BLOCK], half: f32) -> ([u8; 2], [u8; BLOCK]) {
    let d = first_of_largest(x) / -half;
    let inverse = inverse(d);
    let q = x.map(|x| ((x * inverse + (half + 0.5)) as u8).min(2 * half as u8 - 1));
    (f32_to_f16(d).to_le_bytes(), q)
}

/// Integers from 0 to `most` with a scale and an offset.
fn from_least(x: &[f32; BLOCK], most: u8) -> ([u8; 4], [u8; BLOCK]) {
    let least = x.iter().fold(f32::MAX, |least, &x| if x < least { x } else { least });
    let largest = x.iter().fold(f32::MIN, |largest, &x| if x > largest { x } else { largest });
    let d = (largest - least) / f32::from(most);
    let inverse = inverse(d);
    let q = x.map(|x| (((x - least) * inverse + 0.5) as u8).min(most));
    let ([d0, d1], [m0, m1]) = (f32_to_f16(d).to_le_bytes(), f32_to_f16(least).to_le_bytes());
    ([d0, d1, m0, m1], q)
}

pub fn q4_0(x: &[f32; BLOCK]) -> [u8; 18] {
    let (d, q) = around_zero(x, 8.0);
    join(&[&d, &pairs(&q)])
}

pub fn q4_1(x: &[f32; BLOCK]) -> [u8; 20] {
    let (d_and_offset, q) = from_least(x, 15);
    join(&[&d_and_offset, &pairs(&q)])
}

pub fn q5_0(x: &[f32; BLOCK]) -> [u8; 22] {
    let (d, q) = around_zero(x, 16.0);
    join(&[&d, &fifth_bits(&q), &pairs(&q)])
}

pub fn q5_1(x: &[f32; BLOCK]) -> [u8; 24] {
    let (d_and_offset, q) = from_least(x, 31);
    join(&[&d_and_offset, &fifth_bits(&q), &pairs(&q)])
}

/// Quantises a block to Q8_0.
pub fn q8_0(x: &[f32; BLOCK]) -> [u8; 34] {
    let (q, d) = quantize_32(x);
    join(&[&f32_to_f16(d).to_le_bytes(), &q.map(|q| q as u8)])
}
