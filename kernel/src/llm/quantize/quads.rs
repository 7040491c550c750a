//! The activations of four tokens side by side: four of the first token, four of the second, ..., as
//! kernels want them that multiply several tokens at once.

use super::{BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, GROUPS, SUPER_BLOCK};

/// Tokens side by side.
pub const QUAD: usize = 4;

/// Four activations of each token.
type Words = [i8; 4 * QUAD];

/// A [`BlockQ8_0`] of each of four tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub struct QuadQ8_0 {
    /// The activations over the scale.
    pub qs: [Words; BLOCK / 4],
    /// The scales.
    pub d: [f32; QUAD],
    /// The tokens' [`BlockQ8_0::minus_8_sums`].
    pub minus_8_sums: [i32; QUAD],
}

/// A [`BlockQ8_1`] of each of four tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub struct QuadQ8_1 {
    /// The activations over the scale.
    pub qs: [Words; BLOCK / 4],
    /// The scales.
    pub d: [f32; QUAD],
    /// The tokens' [`BlockQ8_1::sum`].
    pub sum: [f32; QUAD],
}

/// A [`BlockQ8K`] of each of four tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub struct QuadQ8K {
    /// The activations over the scale.
    pub qs: [Words; SUPER_BLOCK / 4],
    /// The tokens' [`BlockQ8K::minus_32_sums`].
    pub minus_32_sums: [[i32; QUAD]; GROUPS],
    /// The tokens' [`BlockQ8K::sums`].
    pub sums: [[i16; QUAD]; GROUPS],
    /// The scales.
    pub d: [f32; QUAD],
}

/// Blocks of a type of activations that can stand side by side.
pub trait Interleave: Copy {
    /// Four of them.
    type Quad: Copy;

    /// A block of zeros, in the place of a token that is not there.
    const ZERO: Self;

    /// Puts those of four tokens side by side.
    fn interleave(tokens: [&Self; QUAD]) -> Self::Quad;
}

fn words<const N: usize, const WORDS: usize>(qs: [&[i8; N]; QUAD]) -> [Words; WORDS] {
    core::array::from_fn(|i| core::array::from_fn(|j| qs[j / 4][4 * i + j % 4]))
}

impl Interleave for BlockQ8_0 {
    type Quad = QuadQ8_0;
    const ZERO: Self = BlockQ8_0 { qs: [0; BLOCK], d: 0.0, minus_8_sums: 0 };

    fn interleave(tokens: [&Self; QUAD]) -> QuadQ8_0 {
        QuadQ8_0 {
            qs: words(tokens.map(|block| &block.qs)),
            d: tokens.map(|block| block.d),
            minus_8_sums: tokens.map(|block| block.minus_8_sums),
        }
    }
}

impl Interleave for BlockQ8_1 {
    type Quad = QuadQ8_1;
    const ZERO: Self = BlockQ8_1 { qs: [0; BLOCK], d: 0.0, sum: 0.0 };

    fn interleave(tokens: [&Self; QUAD]) -> QuadQ8_1 {
        QuadQ8_1 {
            qs: words(tokens.map(|block| &block.qs)),
            d: tokens.map(|block| block.d),
            sum: tokens.map(|block| block.sum),
        }
    }
}

impl Interleave for BlockQ8K {
    type Quad = QuadQ8K;
    const ZERO: Self =
        BlockQ8K { qs: [0; SUPER_BLOCK], minus_32_sums: [0; GROUPS], sums: [0; GROUPS], d: 0.0 };

    fn interleave(tokens: [&Self; QUAD]) -> QuadQ8K {
        QuadQ8K {
            qs: words(tokens.map(|block| &block.qs)),
            minus_32_sums: core::array::from_fn(|i| tokens.map(|block| block.minus_32_sums[i])),
            sums: core::array::from_fn(|i| tokens.map(|block| block.sums[i])),
            d: tokens.map(|block| block.d),
        }
    }
}

/// Puts the blocks of up to four tokens, `[tokens, n]`, side by side: `[n]`.
pub fn interleave<B: Interleave>(tokens: &[B], n: usize, quads: &mut [B::Quad]) {
    let zero = B::ZERO;
    for (i, quad) in quads[..n].iter_mut().enumerate() {
        let of_token = |token: usize| tokens.get(token * n + i).unwrap_or(&zero);
        *quad = B::interleave(core::array::from_fn(of_token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_side_by_side() {
        // Three tokens of two blocks, every activation another.
        let block = |token: usize, block: usize| BlockQ8_0 {
            qs: core::array::from_fn(|i| (token * 40 + block * 20 + i / 2) as i8),
            d: (2 * token + block) as f32,
            minus_8_sums: (7 * token + block) as i32,
        };
        let blocks: [BlockQ8_0; 6] = core::array::from_fn(|i| block(i / 2, i % 2));
        let mut quads = [BlockQ8_0::interleave([&BlockQ8_0::ZERO; 4]); 2];
        interleave(&blocks, 2, &mut quads);
        for (i, quad) in quads.iter().enumerate() {
            assert_eq!(quad.d, [i as f32, 2.0 + i as f32, 4.0 + i as f32, 0.0]);
            assert_eq!(quad.minus_8_sums, [i as i32, 7 + i as i32, 14 + i as i32, 0]);
            for (word, words) in quad.qs.iter().enumerate() {
                for token in 0..3 {
                    let expected = &block(token, i).qs[4 * word..4 * word + 4];
                    assert_eq!(&words[4 * token..4 * token + 4], expected);
                }
                assert_eq!(words[12..], [0; 4]);
            }
        }
    }
}
