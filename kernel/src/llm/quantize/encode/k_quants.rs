//! Quantisers of the K-quants.
//!
//! A search finds the scale of each group. Scales are rounded to a few bits, and the weights are
//! rounded again by the rounded scales.

use super::super::activations::{first_of_largest, round_half_even};
use super::super::{Scales, k_quants};
use super::search::{Found, Search, TINY, nearest, signed_3_bits, signed_6_bits, with_min};
use super::{SUPER_BLOCK, f32_to_f16, join};

/// Two bits of each number: four runs of 32 share 32 bytes.
fn crumbs(q: &[u8; SUPER_BLOCK]) -> [u8; 64] {
    core::array::from_fn(|i| {
        let plane = |s: usize| (q[i / 32 * 128 + s * 32 + i % 32] & 3) << (2 * s);
        plane(0) | plane(1) | plane(2) | plane(3)
    })
}

/// Four bits of each number: two runs of 32 share 32 bytes.
fn nibbles(q: &[u8; SUPER_BLOCK]) -> [u8; 128] {
    core::array::from_fn(|i| {
        let plane = |s: usize| (q[i / 32 * 64 + s * 32 + i % 32] & 15) << (4 * s);
        plane(0) | plane(1)
    })
}

/// Bit `bit` of each number: eight runs of 32 share 32 bytes.
fn bits(q: &[u8; SUPER_BLOCK], bit: usize) -> [u8; 32] {
    core::array::from_fn(|i| (0..8).fold(0, |byte, s| byte | (q[s * 32 + i] >> bit & 1) << s))
}

fn f16(x: f32) -> [u8; 2] {
    f32_to_f16(x).to_le_bytes()
}

/// The largest number, at least 0.
fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |largest, &x| if x > largest { x } else { largest })
}

/// Searches in each group of `N` weights.
///
/// Returns 256 integers, and the scale and minimum of each group.
fn search_groups<const N: usize, const GROUPS: usize>(
    x: &[f32; SUPER_BLOCK],
    search: impl Fn(&[f32; N]) -> Found<N>,
) -> ([u8; SUPER_BLOCK], [f32; GROUPS], [f32; GROUPS]) {
    let (mut q, mut scales, mut mins) = ([0; SUPER_BLOCK], [0.0; GROUPS], [0.0; GROUPS]);
    let groups = x.as_chunks::<N>().0.iter().zip(q.as_chunks_mut::<N>().0);
    for ((x, q), (scale, min)) in groups.zip(scales.iter_mut().zip(&mut mins)) {
        let found = search(x);
        (*q, *scale, *min) = (found.q, found.scale, found.min);
    }
    (q, scales, mins)
}

/// Rounds the weights again, by the scales as stored.
///
/// Integers run from `least` to `most`, and are stored with `-least` added. A group with a scale of
/// 0 keeps its integers.
fn round_again(
    x: &[f32; SUPER_BLOCK],
    scales: &Scales,
    least: i32,
    most: i32,
    q: &mut [u8; SUPER_BLOCK],
) {
    let groups = x.as_chunks::<16>().0.iter().zip(q.as_chunks_mut::<16>().0);
    for ((x, q), (&scale, &min)) in groups.zip(scales.scales.iter().zip(&scales.mins)) {
        let d = scales.d * f32::from(scale);
        if d == 0.0 {
            continue;
        }
        let min = scales.d_min * f32::from(min);
        *q = x.map(|x| (nearest((x + min) / d, least, most) - least) as u8);
    }
}

pub fn q2_k(x: &[f32; SUPER_BLOCK]) -> [u8; 84] {
    const SEARCH: Search = Search { most: 3, start: -0.5, steps: 15, cost: f32::abs };
    let (mut q, scales, mins) =
        search_groups::<16, 16>(x, |x| with_min(x, &x.map(f32::abs), &SEARCH));
    // Scales and minimums in four bits each.
    let four_bits = |x: &[f32; 16]| {
        let largest = largest(x);
        let inverse = if largest > 0.0 { 15.0 / largest } else { 0.0 };
        (largest / 15.0, x.map(|x| round_half_even(inverse * x) as u8))
    };
    let ((d, scales), (d_min, mins)) = (four_bits(&scales), four_bits(&mins));
    let both: [u8; 16] = core::array::from_fn(|i| scales[i] | mins[i] << 4);
    let mut block = join(&[&both, &[0; 64], &f16(d), &f16(d_min)]);
    round_again(x, &k_quants::q2_k_scales(&block), 0, 3, &mut q);
    block[16..80].copy_from_slice(&crumbs(&q));
    block
}

pub fn q3_k(x: &[f32; SUPER_BLOCK]) -> [u8; 110] {
    let (mut q, scales, _) = search_groups::<16, 16>(x, signed_3_bits);
    let largest = first_of_largest(&scales);
    let mut packed = [0; 12];
    let mut d = 0.0;
    if largest != 0.0 {
        let inverse = -32.0 / largest;
        d = 1.0 / inverse;
        // Six bits each, with 32 added: the low four in 8 bytes, the high two in 4.
        for (i, scale) in scales.iter().enumerate() {
            let scale = (nearest(inverse * scale, -32, 31) + 32) as u8;
            packed[i % 8] |= (scale & 15) << (i / 8 * 4);
            packed[8 + i % 4] |= (scale >> 4) << (i / 4 * 2);
        }
    }
    let mut block = join(&[&[0; 96], &packed, &f16(d)]);
    round_again(x, &k_quants::q3_k_scales(&block), -4, 3, &mut q);
    block[..32].copy_from_slice(&bits(&q, 2));
    block[32..96].copy_from_slice(&crumbs(&q));
    block
}

/// The numbers and the first 16 bytes of Q4_K and Q5_K.
fn four_or_five_bits(x: &[f32; SUPER_BLOCK], search: &Search) -> ([u8; SUPER_BLOCK], [u8; 16]) {
    let (mut q, scales, mins) = search_groups::<32, 8>(x, |x| {
        let squares = x.iter().fold(0.0, |sum, x| sum + x * x);
        let average = libm::sqrtf(squares / 32.0);
        with_min(x, &x.map(|x| average + x.abs()), search)
    });
    // Scales and minimums in six bits each: see `k_quants::q4_k_scales`.
    let six_bits = |x: &[f32; 8]| {
        let largest = largest(x);
        let inverse = if largest > 0.0 { 63.0 / largest } else { 0.0 };
        (largest / 63.0, x.map(|x| (round_half_even(inverse * x) as u8).min(63)))
    };
    let ((d, scales), (d_min, mins)) = (six_bits(&scales), six_bits(&mins));
    let packed: [u8; 12] = core::array::from_fn(|i| match i {
        0..4 => scales[i] | scales[i + 4] >> 4 << 6,
        4..8 => mins[i - 4] | mins[i] >> 4 << 6,
        _ => scales[i - 4] & 15 | (mins[i - 4] & 15) << 4,
    });
    let start = join(&[&f16(d), &f16(d_min), &packed]);
    round_again(x, &k_quants::q4_k_scales(&start), 0, search.most, &mut q);
    (q, start)
}

pub fn q4_k(x: &[f32; SUPER_BLOCK]) -> [u8; 144] {
    const SEARCH: Search = Search { most: 15, start: -1.0, steps: 20, cost: |x| x * x };
    let (q, start) = four_or_five_bits(x, &SEARCH);
    join(&[&start, &nibbles(&q)])
}

pub fn q5_k(x: &[f32; SUPER_BLOCK]) -> [u8; 176] {
    const SEARCH: Search = Search { most: 31, start: -0.5, steps: 15, cost: |x| x * x };
    let (q, start) = four_or_five_bits(x, &SEARCH);
    join(&[&start, &bits(&q, 4), &nibbles(&q)])
}

pub fn q6_k(x: &[f32; SUPER_BLOCK]) -> [u8; 210] {
    let (mut q, scales, _) = search_groups::<16, 16>(x, signed_6_bits);
    let largest = first_of_largest(&scales);
    if largest.abs() < TINY {
        return [0; 210];
    }
    let inverse = -128.0 / largest;
    let scales = scales.map(|scale| round_half_even(inverse * scale).min(127) as u8);
    let mut block = join(&[&[0; 192], &scales, &f16(1.0 / inverse)]);
    round_again(x, &k_quants::q6_k_scales(&block), -32, 31, &mut q);
    // Two runs of 64 share 64 bytes.
    for (i, low) in block[..128].iter_mut().enumerate() {
        let plane = |s: usize| q[i / 64 * 128 + s * 64 + i % 64] & 15;
        *low = plane(0) | plane(1) << 4;
    }
    block[128..192].copy_from_slice(&crumbs(&q.map(|q| q >> 4)));
    block
}
