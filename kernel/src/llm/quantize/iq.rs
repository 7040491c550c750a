//! The IQ types: weights are neighbours at once, as places in a table ([`super::grids`]), or, in
//! IQ4_XS, one by one as places in [`IQ4_VALUES`].
//!
//! Where ggml's code has fractions (scales with a half added, weights with an eighth), they are
//! whole numbers here and `d` is smaller by that power of two, which changes no bit of a result.

use super::grids::{IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use super::super_block::{GROUPS, Scales, SuperBlock};
use super::{IQ4_VALUES, SUPER_BLOCK, part, scale};

/// The magnitudes in the grids of the IQ2 types.
const IQ2_LEVELS: [i8; 4] = [8, 25, 43, 0];
/// Those in the grid of IQ3_XXS.
const IQ3_XXS_LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
/// Those in the grid of IQ3_S.
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

/// A block out of what `eight` gives for each 8 weights and `scale` for each group of 16. Scales
/// are odd: twice what is stored and one.
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

/// Half a byte of `bytes`: those with even `i` are the low ones.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (i % 2 * 4) & 15
}

/// IQ2_XXS: the scale as F16, then for each 32 weights four places in the grid of a byte each,
/// and a word with four times 7 signs and a scale of 4 bits.
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

/// IQ2_XS: the scale as F16, then for each 8 weights 16 bits with the place in the grid and 7
/// signs, then a scale of 4 bits for each 16 weights.
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

/// IQ2_S: the scale as F16, for each 8 weights the low 8 bits of the place in the grid, then for
/// each their signs, then for each two more bits of the place, then a scale of 4 bits for each 16.
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

/// IQ3_XXS: the scale as F16, a byte with the place in the grid for each 4 weights, and for each
/// 32 a word with four times 7 signs and a scale of 4 bits.
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

/// IQ3_S: the scale as F16, a byte with the low 8 bits of the place in the grid for each 4
/// weights, then the ninth bits, the signs, and a scale of 4 bits for each 32 weights.
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

/// Eight weights of -1, 0 or 1, with an eighth added or taken off: times 8.
fn ternary_and_eighth(place: u16, minus: bool) -> [i8; 8] {
    let eighth = if minus { -1 } else { 1 };
    eight(IQ1_S[usize::from(place)], &[eighth - 8, eighth, eighth + 8, 0])
}

/// IQ1_S: the scale as F16, for each 8 weights the low 8 bits of the place in the grid, and for
/// each 32 weights 16 bits with four times three more bits of the place, a scale of 3 bits, and
/// the sign of the eighth.
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

/// IQ1_M: for each 8 weights the low 8 bits of the place in the grid, then for each three more
/// bits and the sign of the eighth, then for each 64 weights 16 bits with four scales of 3 bits
/// and a quarter of the scale of the scales, which is an F16.
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

/// IQ4_XS: the scale as F16, 16 bits with the high two bits of the scales of 32 weights each, 4
/// bytes with the low four, and for each 32 weights 16 bytes as in IQ4_NL. Scales have 32 added.
pub fn iq4_xs(bytes: &[u8; 136]) -> SuperBlock {
    let pairs = part::<128>(bytes, 8);
    let weights = core::array::from_fn(|i| {
        let place = pairs[i / 32 * 16 + i % 16] >> (i / 16 % 2 * 4) & 15;
        IQ4_VALUES[usize::from(place)]
    });
    SuperBlock { weights, scales: iq4_xs_scales(bytes) }
}
