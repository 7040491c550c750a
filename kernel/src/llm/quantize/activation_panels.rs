//! Activation panels: activations of four tokens, interleaved for the GEMM kernels.
//!
//! A panel holds four activations of the first token, four of the second, and so on. llama.cpp's
//! `block_q8_0x4` is the same idea.

use super::{BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, GROUPS, SUPER_BLOCK};

/// Tokens of a panel.
pub const PANEL_TOKENS: usize = 4;

/// Four activations of each of the four tokens.
pub type Words = [i8; 4 * PANEL_TOKENS];

/// A [`BlockQ8_0`] of each of four tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub struct BlockQ8_0x4 {
    /// The activations over the scale.
    pub qs: [Words; BLOCK / 4],
    /// The scales.
    pub d: [f32; PANEL_TOKENS],
    /// The tokens' [`BlockQ8_0::minus_8_sums`].
    pub minus_8_sums: [i32; PANEL_TOKENS],
}

/// A [`BlockQ8_1`] of each of four tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub struct BlockQ8_1x4 {
    /// The activations over the scale.
    pub qs: [Words; BLOCK / 4],
    /// The scales.
    pub d: [f32; PANEL_TOKENS],
    /// The tokens' [`BlockQ8_1::sum`].
    pub sum: [f32; PANEL_TOKENS],
}

/// A [`BlockQ8K`] of each of four tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub struct BlockQ8Kx4 {
    /// The activations over the scale.
    pub qs: [Words; SUPER_BLOCK / 4],
    /// The tokens' [`BlockQ8K::minus_32_sums`].
    pub minus_32_sums: [[i32; PANEL_TOKENS]; GROUPS],
    /// The tokens' [`BlockQ8K::sums`].
    pub sums: [[i16; PANEL_TOKENS]; GROUPS],
    /// The scales.
    pub d: [f32; PANEL_TOKENS],
}

/// A type of activation blocks that can be packed into panels.
pub trait Interleave: Copy {
    /// The block of four tokens.
    type Panel: Copy;

    /// A block of zeros, in place of a missing token.
    const ZERO: Self;

    /// A panel block of zeros.
    const ZEROS: Self::Panel;

    /// Interleaves the blocks of four tokens.
    ///
    /// `words` interleaves their words, as [`interleave_tokens`].
    fn interleave(
        tokens: [&Self; PANEL_TOKENS],
        panel: &mut Self::Panel,
        words: impl Fn([&[i8]; PANEL_TOKENS], &mut [Words]),
    );
}

/// Interleaves the words of four tokens.
pub fn interleave_tokens(tokens: [&[i8]; PANEL_TOKENS], out: &mut [Words]) {
    let tokens = tokens.map(|qs| qs.as_chunks::<4>().0);
    for (i, out) in out.iter_mut().enumerate() {
        for (out, qs) in out.as_chunks_mut::<4>().0.iter_mut().zip(tokens) {
            *out = qs[i];
        }
    }
}

impl Interleave for BlockQ8_0 {
    type Panel = BlockQ8_0x4;
    const ZERO: Self = BlockQ8_0 { qs: [0; BLOCK], d: 0.0, minus_8_sums: 0 };
    const ZEROS: BlockQ8_0x4 = BlockQ8_0x4 {
        qs: [[0; 4 * PANEL_TOKENS]; BLOCK / 4],
        d: [0.0; PANEL_TOKENS],
        minus_8_sums: [0; PANEL_TOKENS],
    };

    fn interleave(
        tokens: [&Self; PANEL_TOKENS],
        panel: &mut BlockQ8_0x4,
        words: impl Fn([&[i8]; PANEL_TOKENS], &mut [Words]),
    ) {
        words(tokens.map(|block| &block.qs[..]), &mut panel.qs);
        panel.d = tokens.map(|block| block.d);
        panel.minus_8_sums = tokens.map(|block| block.minus_8_sums);
    }
}

impl Interleave for BlockQ8_1 {
    type Panel = BlockQ8_1x4;
    const ZERO: Self = BlockQ8_1 { qs: [0; BLOCK], d: 0.0, sum: 0.0 };
    const ZEROS: BlockQ8_1x4 = BlockQ8_1x4 {
        qs: [[0; 4 * PANEL_TOKENS]; BLOCK / 4],
        d: [0.0; PANEL_TOKENS],
        sum: [0.0; PANEL_TOKENS],
    };

    fn interleave(
        tokens: [&Self; PANEL_TOKENS],
        panel: &mut BlockQ8_1x4,
        words: impl Fn([&[i8]; PANEL_TOKENS], &mut [Words]),
    ) {
        words(tokens.map(|block| &block.qs[..]), &mut panel.qs);
        panel.d = tokens.map(|block| block.d);
        panel.sum = tokens.map(|block| block.sum);
    }
}

impl Interleave for BlockQ8K {
    type Panel = BlockQ8Kx4;
    const ZERO: Self =
        BlockQ8K { qs: [0; SUPER_BLOCK], minus_32_sums: [0; GROUPS], sums: [0; GROUPS], d: 0.0 };
    const ZEROS: BlockQ8Kx4 = BlockQ8Kx4 {
        qs: [[0; 4 * PANEL_TOKENS]; SUPER_BLOCK / 4],
        minus_32_sums: [[0; PANEL_TOKENS]; GROUPS],
        sums: [[0; PANEL_TOKENS]; GROUPS],
        d: [0.0; PANEL_TOKENS],
    };

    fn interleave(
        tokens: [&Self; PANEL_TOKENS],
        panel: &mut BlockQ8Kx4,
        words: impl Fn([&[i8]; PANEL_TOKENS], &mut [Words]),
    ) {
        words(tokens.map(|block| &block.qs[..]), &mut panel.qs);
        for i in 0..GROUPS {
            panel.minus_32_sums[i] = tokens.map(|block| block.minus_32_sums[i]);
            panel.sums[i] = tokens.map(|block| block.sums[i]);
        }
        panel.d = tokens.map(|block| block.d);
    }
}

/// Packs the blocks of each four tokens into panels.
///
/// From `[n_tokens, n]` to `[n_tokens / 4, n]`, rounded up. Missing tokens count as zeros.
///
/// `words(tokens, out)` interleaves the words of four tokens, as [`interleave_tokens`] does.
pub fn interleave<B: Interleave>(
    tokens: &[B],
    n: usize,
    panels: &mut [B::Panel],
    words: impl Fn([&[i8]; PANEL_TOKENS], &mut [Words]),
) {
    let zero = B::ZERO;
    for (tokens, panels) in tokens.chunks(PANEL_TOKENS * n).zip(panels.chunks_exact_mut(n)) {
        for (i, panel) in panels.iter_mut().enumerate() {
            let of_token = |token: usize| tokens.get(token * n + i).unwrap_or(&zero);
            B::interleave(core::array::from_fn(of_token), panel, &words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_interleaved() {
        // Three tokens of two blocks, in which all activations differ.
        let block = |token: usize, block: usize| BlockQ8_0 {
            qs: core::array::from_fn(|i| (token * 40 + block * 20 + i / 2) as i8),
            d: (2 * token + block) as f32,
            minus_8_sums: (7 * token + block) as i32,
        };
        let blocks: [BlockQ8_0; 6] = core::array::from_fn(|i| block(i / 2, i % 2));
        let mut panels = [BlockQ8_0::ZEROS; 2];
        interleave(&blocks, 2, &mut panels, interleave_tokens);
        for (i, panel) in panels.iter().enumerate() {
            assert_eq!(panel.d, [i as f32, 2.0 + i as f32, 4.0 + i as f32, 0.0]);
            assert_eq!(panel.minus_8_sums, [i as i32, 7 + i as i32, 14 + i as i32, 0]);
            for (word, words) in panel.qs.iter().enumerate() {
                for token in 0..3 {
                    let expected = &block(token, i).qs[4 * word..4 * word + 4];
                    assert_eq!(&words[4 * token..4 * token + 4], expected);
                }
                assert_eq!(words[12..], [0; 4]);
            }
        }
    }
}
