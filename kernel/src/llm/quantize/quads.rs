//! The activations of four tokens side by side: four of the first token, four of the second, ..., as
//! kernels want them that multiply several tokens at once.

use super::{BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, GROUPS, SUPER_BLOCK};

/// Tokens side by side.
pub const QUAD: usize = 4;

/// Four activations of each token.
pub type Words = [i8; 4 * QUAD];

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

    /// Four blocks of zeros.
    const ZEROS: Self::Quad;

    /// Puts those of four tokens side by side, their words as [`interleave_words`] does.
    fn interleave(
        tokens: [&Self; QUAD],
        quad: &mut Self::Quad,
        words: impl Fn([&[i8]; QUAD], &mut [Words]),
    );
}

/// Puts the words of four tokens side by side.
pub fn interleave_words(tokens: [&[i8]; QUAD], out: &mut [Words]) {
    let tokens = tokens.map(|qs| qs.as_chunks::<4>().0);
    for (i, out) in out.iter_mut().enumerate() {
        for (out, qs) in out.as_chunks_mut::<4>().0.iter_mut().zip(tokens) {
            *out = qs[i];
        }
    }
}

impl Interleave for BlockQ8_0 {
    type Quad = QuadQ8_0;
    const ZERO: Self = BlockQ8_0 { qs: [0; BLOCK], d: 0.0, minus_8_sums: 0 };
    const ZEROS: QuadQ8_0 =
        QuadQ8_0 { qs: [[0; 4 * QUAD]; BLOCK / 4], d: [0.0; QUAD], minus_8_sums: [0; QUAD] };

    fn interleave(
        tokens: [&Self; QUAD],
        quad: &mut QuadQ8_0,
        words: impl Fn([&[i8]; QUAD], &mut [Words]),
    ) {
        words(tokens.map(|block| &block.qs[..]), &mut quad.qs);
        quad.d = tokens.map(|block| block.d);
        quad.minus_8_sums = tokens.map(|block| block.minus_8_sums);
    }
}

impl Interleave for BlockQ8_1 {
    type Quad = QuadQ8_1;
    const ZERO: Self = BlockQ8_1 { qs: [0; BLOCK], d: 0.0, sum: 0.0 };
    const ZEROS: QuadQ8_1 =
        QuadQ8_1 { qs: [[0; 4 * QUAD]; BLOCK / 4], d: [0.0; QUAD], sum: [0.0; QUAD] };

    fn interleave(
        tokens: [&Self; QUAD],
        quad: &mut QuadQ8_1,
        words: impl Fn([&[i8]; QUAD], &mut [Words]),
    ) {
        words(tokens.map(|block| &block.qs[..]), &mut quad.qs);
        quad.d = tokens.map(|block| block.d);
        quad.sum = tokens.map(|block| block.sum);
    }
}

impl Interleave for BlockQ8K {
    type Quad = QuadQ8K;
    const ZERO: Self =
        BlockQ8K { qs: [0; SUPER_BLOCK], minus_32_sums: [0; GROUPS], sums: [0; GROUPS], d: 0.0 };
    const ZEROS: QuadQ8K = QuadQ8K {
        qs: [[0; 4 * QUAD]; SUPER_BLOCK / 4],
        minus_32_sums: [[0; QUAD]; GROUPS],
        sums: [[0; QUAD]; GROUPS],
        d: [0.0; QUAD],
    };

    fn interleave(
        tokens: [&Self; QUAD],
        quad: &mut QuadQ8K,
        words: impl Fn([&[i8]; QUAD], &mut [Words]),
    ) {
        words(tokens.map(|block| &block.qs[..]), &mut quad.qs);
        for i in 0..GROUPS {
            quad.minus_32_sums[i] = tokens.map(|block| block.minus_32_sums[i]);
            quad.sums[i] = tokens.map(|block| block.sums[i]);
        }
        quad.d = tokens.map(|block| block.d);
    }
}

/// Puts the blocks of each four tokens, `[tokens, n]`, side by side: `[tokens / 4, n]`, rounded up.
/// `words(tokens, out)` puts words of four tokens side by side, as [`interleave_words`] does.
pub fn interleave<B: Interleave>(
    tokens: &[B],
    n: usize,
    quads: &mut [B::Quad],
    words: impl Fn([&[i8]; QUAD], &mut [Words]),
) {
    let zero = B::ZERO;
    for (tokens, quads) in tokens.chunks(QUAD * n).zip(quads.chunks_exact_mut(n)) {
        for (i, quad) in quads.iter_mut().enumerate() {
            let of_token = |token: usize| tokens.get(token * n + i).unwrap_or(&zero);
            B::interleave(core::array::from_fn(of_token), quad, &words);
        }
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
        let mut quads = [BlockQ8_0::ZEROS; 2];
        interleave(&blocks, 2, &mut quads, interleave_words);
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
