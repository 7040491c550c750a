//! The IQ types: neighbouring weights are indices into a grid ([`super::grids`]).
//!
//! IQ4_XS stores an index into [`IQ4_VALUES`] for each weight.
//!
//! ggml's code has fractions: scales with a half added, weights with an eighth. Here scales and
//! weights are integers, and `d` is smaller by that power of two. No bit of a result changes.

use super::grids::{IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use super::super_block::{GROUPS, Scales, SuperBlock};
use super::{IQ4_VALUES, SUPER_BLOCK, part, scale};

/// The magnitudes in the grids of the IQ2 types.
const IQ2_LEVELS: [i8; 4] = [8, 25, 43, 0];
/// The magnitudes in the grid of IQ3_XXS.
const IQ3_XXS_LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
/// The magnitudes in the grid of IQ3_S.
const IQ3_S_LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// Eight weights of two bits each.
fn eight(entry: u16, levels: &[i8; 4]) -> [i8; 8] {
    core::array::from_fn(|i| levels[usize::from(entry >> (2 * i) & 3)])
}

/// Eight weights of three bits each: four from each entry.
fn two_fours(entries: [u16; 2], levels: &[i8; 8]) -> [i8; 8] {
    core::array::from_fn(|i| levels[usize::from(entries[i / 4] >> (i % 4 * 3) & 7)])
}

/// Negates the weights whose bit is set.
fn with_signs(weights: [i8; 8], signs: u8) -> [i8; 8] {
    core::array::from_fn(|i| if signs >> i & 1 == 1 { -weights[i] } else { weights[i] })
}

/// Eight signs of which seven are stored: their number is even.
fn even_signs(seven: u32) -> u8 {
    let seven = seven as u8 & 127;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// A block of weights from `eight`, 8 at a time, and of scales for groups of 16.
///
/// Scales are odd: twice the stored scale plus one.
fn block(
    d: f32,
    stored_scale: impl Fn(usize) -> u8,
    eight: impl Fn(usize) -> [i8; 8],
) -> SuperBlock {
    let mut weights = [0; SUPER_BLOCK];
    for (i, weights) in weights.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *weights = eight(i);
    }
    let scales: [i8; GROUPS] = core::array::from_fn(|group| 2 * stored_scale(group) as i8 + 1);
    SuperBlock { weights, scales: Scales::without_mins(d, scales) }
}

/// Word `i` of 16 bits in `bytes`.
fn half_word(bytes: &[u8], i: usize) -> u16 {
    bytes.as_chunks().0.get(i).map_or(0, |&word| u16::from_le_bytes(word))
}

/// Word `i` of 32 bits in `bytes`.
fn word(bytes: &[u8], i: usize) -> u32 {
    bytes.as_chunks().0.get(i).map_or(0, |&word| u32::from_le_bytes(word))
}

/// Nibble `i` of `bytes`; even ones are the low nibbles.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (i % 2 * 4) & 15
}

/// IQ2_XXS: a scale (F16), then eight bytes for each 32 weights.
///
/// The bytes are four grid indices, and a word with four times 7 signs and a scale of 4 bits.
pub fn iq2_xxs(bytes: &[u8; 66]) -> SuperBlock {
    let words = &bytes[2..];
    let signs_and_scale = |i: usize| word(words, 2 * i + 1);
    block(
        scale(*part(bytes, 0)) * 0.125,
        |group| (signs_and_scale(group / 2) >> 28) as u8,
        |i| {
            let place = words[i / 4 * 8 + i % 4];
            let signs = even_signs(signs_and_scale(i / 4) >> (i % 4 * 7));
            with_signs(eight(IQ2_XXS[usize::from(place)], &IQ2_LEVELS), signs)
        },
    )
}

/// IQ2_XS: a scale (F16), grid indices with signs, scales.
///
/// Each 8 weights have 16 bits: 9 of the grid index, 7 of signs. Each 16 weights have a scale of 4
/// bits.
pub fn iq2_xs(bytes: &[u8; 74]) -> SuperBlock {
    block(
        scale(*part(bytes, 0)) * 0.125,
        |group| nibble(&bytes[66..], group),
        |i| {
            let both = half_word(&bytes[2..], i);
            let grid = eight(IQ2_XS[usize::from(both & 511)], &IQ2_LEVELS);
            with_signs(grid, even_signs(u32::from(both >> 9)))
        },
    )
}

/// IQ2_S: a scale (F16), low bits of grid indices, signs, high bits, scales.
///
/// Each 8 weights have 8 low bits and 2 high bits of the index, and 8 signs. Each 16 weights have a
/// scale of 4 bits.
pub fn iq2_s(bytes: &[u8; 82]) -> SuperBlock {
    block(
        scale(*part(bytes, 0)) * 0.125,
        |group| nibble(&bytes[74..], group),
        |i| {
            let high = u16::from(bytes[66 + i / 4]) >> (i % 4 * 2) & 3;
            let place = u16::from(bytes[2 + i]) | high << 8;
            with_signs(eight(IQ2_S[usize::from(place)], &IQ2_LEVELS), bytes[34 + i])
        },
    )
}

/// IQ3_XXS: a scale (F16), grid indices, signs with scales.
///
/// Each 4 weights have an index of 8 bits. Each 32 weights have a word with four times 7 signs and
/// a scale of 4 bits.
pub fn iq3_xxs(bytes: &[u8; 98]) -> SuperBlock {
    let signs_and_scale = |i: usize| word(&bytes[66..], i);
    block(
        scale(*part(bytes, 0)) * 0.25,
        |group| (signs_and_scale(group / 2) >> 28) as u8,
        |i| {
            let entries = [0, 1].map(|j| IQ3_XXS[usize::from(bytes[2 + 2 * i + j])]);
            let signs = even_signs(signs_and_scale(i / 4) >> (i % 4 * 7));
            with_signs(two_fours(entries, &IQ3_XXS_LEVELS), signs)
        },
    )
}

/// IQ3_S: a scale (F16), low bits of grid indices, ninth bits, signs, scales.
///
/// Each 4 weights have an index of 9 bits. Each 32 weights have a scale of 4 bits.
pub fn iq3_s(bytes: &[u8; 110]) -> SuperBlock {
    block(
        scale(*part(bytes, 0)),
        |group| nibble(&bytes[106..], group / 2),
        |i| {
            let entries = [2 * i, 2 * i + 1].map(|j| {
                let high = u16::from(bytes[66 + j / 8]) >> (j % 8) & 1;
                IQ3_S[usize::from(u16::from(bytes[2 + j]) | high << 8)]
            });
            with_signs(two_fours(entries, &IQ3_S_LEVELS), bytes[74 + i])
        },
    )
}

/// Eight weights of -1, 0 or 1, plus or minus an eighth, times 8.
fn ternary_and_eighth(place: u16, minus: bool) -> [i8; 8] {
    let eighth = if minus { -1 } else { 1 };
    eight(IQ1_S[usize::from(place)], &[eighth - 8, eighth, eighth + 8, 0])
}

/// IQ1_S: a scale (F16), low bits of grid indices, and 16 bits for each 32 weights.
///
/// Each 8 weights have 8 low bits of the index. The 16 bits are three high bits of four indices, a
/// scale of 3 bits, and the sign of the eighth.
pub fn iq1_s(bytes: &[u8; 50]) -> SuperBlock {
    let high = |i: usize| half_word(&bytes[34..], i);
    block(
        scale(*part(bytes, 0)) * 0.125,
        |group| (high(group / 2) >> 12 & 7) as u8,
        |i| {
            let high = high(i / 4);
            let place = u16::from(bytes[2 + i]) | (high >> (i % 4 * 3) & 7) << 8;
            ternary_and_eighth(place, high & 0x8000 != 0)
        },
    )
}

/// IQ1_M: low bits of grid indices, high bits with signs, scales.
///
/// Each 8 weights have 8 low bits and 3 high bits of the index, and the sign of the eighth. Each 64
/// weights have 16 bits: four scales of 3 bits, and four bits of the scale of the scales, an F16.
pub fn iq1_m(bytes: &[u8; 56]) -> SuperBlock {
    let words: [u16; 4] = core::array::from_fn(|i| half_word(&bytes[48..], i));
    let d = words.iter().rev().fold(0, |d, word| d << 4 | word >> 12);
    block(
        scale(d.to_le_bytes()) * 0.125,
        |group| (words[group / 4] >> (group % 4 * 3) & 7) as u8,
        |i| {
            let high = nibble(&bytes[32..48], i);
            ternary_and_eighth(u16::from(bytes[i]) | u16::from(high & 7) << 8, high & 8 != 0)
        },
    )
}

/// The scales of IQ4_XS: see [`iq4_xs`].
pub fn iq4_xs_scales(bytes: &[u8; 136]) -> Scales {
    let high = half_word(&bytes[2..], 0);
    let scales = core::array::from_fn(|group| {
        let i = group / 2;
        let high = (high >> (2 * i) & 3) as u8;
        (nibble(&bytes[4..8], i) | high << 4) as i8 - 32
    });
    Scales::without_mins(scale(*part(bytes, 0)), scales)
}

/// IQ4_XS: a scale (F16), high bits of scales, low bits of scales, weights.
///
/// Each 32 weights have a scale of 2 high bits and 4 low bits, with 32 added, and 16 bytes as in
/// IQ4_NL.
pub fn iq4_xs(bytes: &[u8; 136]) -> SuperBlock {
    let pairs = part::<128>(bytes, 8);
    let weights = core::array::from_fn(|i| {
        let place = pairs[i / 32 * 16 + i % 16] >> (i / 16 % 2 * 4) & 15;
        IQ4_VALUES[usize::from(place)]
    });
    SuperBlock { weights, scales: iq4_xs_scales(bytes) }
}
