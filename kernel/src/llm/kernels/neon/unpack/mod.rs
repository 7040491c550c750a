//! Unpacks the weights of panel blocks, type by type.
//!
//! `quantize/blocks.rs` and `quantize/k_quants.rs` describe the blocks, and `quantize/packed.rs`
//! how blocks of eight rows are packed. Four bytes of a row's block become two vectors here: four
//! rows each.

mod k_quants;
mod simple;

use core::arch::aarch64::*;

use super::isa::FourColumns;
use super::vectors::vectors_of;
use crate::llm::kernels::operands::{ActivationPanels, Activations, FORMATS_AGREE};
use crate::llm::quantize::{
    BLOCK, BlockQ8_0, BlockQ8_0x4, BlockQ8_1, BlockQ8_1x4, GROUPS, Interleave,
};

pub use k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K};
pub use simple::{Iq4Nl, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

// Methods of a trait cannot name the instructions that they need. This module is only built where
// the whole build has NEON. The SAFETY reason "NEON is there" means that.

/// A number for each of the eight rows of a panel.
pub type Totals = [float32x4_t; 2];

/// A panel block, as vectors: a block of weights of each of eight rows.
pub trait PanelBlock: Sized {
    /// The panel blocks of row panels.
    fn of(panels: &[uint8x16_t]) -> &[Self];

    /// Vector `i` of the block.
    fn vector(&self, i: usize) -> uint8x16_t;
}

impl<const N: usize> PanelBlock for [uint8x16_t; N] {
    fn of(panels: &[uint8x16_t]) -> &[Self] {
        panels.as_chunks().0
    }

    #[inline(always)]
    fn vector(&self, i: usize) -> uint8x16_t {
        self[i]
    }
}

/// Unpacks a type with blocks of 32 weights.
///
/// A panel block starts with the scales. Offsets follow, if the type has any.
pub trait UnpackSimple {
    /// A panel block.
    type Block: PanelBlock;
    /// A block of activations.
    type Activations: Q8Block;

    /// The largest magnitude of an unpacked weight.
    const LARGEST: i32;

    /// Whether the type has offsets.
    const HAS_OFFSETS: bool = false;

    /// Whether the type has [`UnpackSimple::nibbles`].
    const HAS_NIBBLES: bool = false;

    /// The words whose nibbles are the weights: `[4 words, 8 rows]`.
    ///
    /// Low nibbles are the weights of the first 16 columns. `None` if the type stores weights
    /// otherwise.
    #[inline(always)]
    fn nibbles(_: &Self::Block) -> Option<[[uint8x16_t; 2]; 4]> {
        None
    }

    /// The weights as stored: a type may add a constant to each weight.
    fn weights(block: &Self::Block) -> [FourColumns; 8];

    /// The initial accumulator, which corrects for that constant.
    ///
    /// The argument is -8 times the sum of the activations.
    fn start(_: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is there.
        unsafe { vdupq_n_s32(0) }
    }

    /// The scales of the eight rows.
    #[inline(always)]
    fn scales(block: &Self::Block) -> Totals {
        f16s(block.vector(0))
    }

    /// The offsets of the eight rows. Without a meaning if [`UnpackSimple::HAS_OFFSETS`] is false.
    #[inline(always)]
    fn offsets(block: &Self::Block) -> Totals {
        f16s(block.vector(1))
    }
}

/// Unpacks a K-quant: a type with super-blocks of 256 weights.
pub trait UnpackKQuant {
    /// A panel block.
    type Block: PanelBlock;

    /// The largest unpacked weight: at most 64.
    const LARGEST: i32;

    /// Whether groups have minimums.
    const HAS_MINS: bool;

    /// The groups of 16 columns that each quarter of the block holds.
    const QUARTERS: [[usize; 4]; 4];

    /// Columns `4 * i` to `4 * i + 3` of each group of a quarter, as stored.
    ///
    /// A type may add a constant to each weight.
    fn weights(block: &Self::Block, quarter: usize, i: usize) -> [FourColumns; 4];

    /// The initial accumulator, which corrects for that constant.
    ///
    /// The argument is -32 times the sum of a group's activations.
    fn start(_: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is there.
        unsafe { vdupq_n_s32(0) }
    }

    /// The scales of the groups, and the minimums of the groups.
    fn scales(block: &Self::Block) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]);

    /// The scale of the scales, and the scale of the minimums.
    fn d(block: &Self::Block) -> [Totals; 2];
}

/// A block of activations for [`UnpackSimple`] types: Q8_0 or Q8_1.
pub trait Q8Block: Interleave {
    /// The blocks of one token.
    fn of<'a>(x: &Activations<'a>) -> &'a [Self];

    /// The activation panels of several tokens.
    fn panels<'a>(x: &ActivationPanels<'a>) -> &'a [Self::Panel];

    /// The activations, their scale, and the bits of the correction from their sum.
    fn parts(&self) -> (&[i8; BLOCK], f32, u32);

    /// The vectors of a panel block: eight of activations, then scales, then corrections.
    fn panel_vectors(panel: &Self::Panel) -> &[int8x16_t; 10];
}

impl Q8Block for BlockQ8_0 {
    fn of<'a>(x: &Activations<'a>) -> &'a [Self] {
        let Activations::Q8_0(x) = *x else { unreachable!("{FORMATS_AGREE}") };
        x
    }

    fn panels<'a>(x: &ActivationPanels<'a>) -> &'a [BlockQ8_0x4] {
        let ActivationPanels::Q8_0(x) = *x else { unreachable!("{FORMATS_AGREE}") };
        x
    }

    #[inline(always)]
    fn parts(&self) -> (&[i8; BLOCK], f32, u32) {
        (&self.qs, self.d, self.minus_8_sums as u32)
    }

    #[inline(always)]
    fn panel_vectors(panel: &BlockQ8_0x4) -> &[int8x16_t; 10] {
        vectors_of(panel)
    }
}

impl Q8Block for BlockQ8_1 {
    fn of<'a>(x: &Activations<'a>) -> &'a [Self] {
        let Activations::Q8_1(x) = *x else { unreachable!("{FORMATS_AGREE}") };
        x
    }

    fn panels<'a>(x: &ActivationPanels<'a>) -> &'a [BlockQ8_1x4] {
        let ActivationPanels::Q8_1(x) = *x else { unreachable!("{FORMATS_AGREE}") };
        x
    }

    #[inline(always)]
    fn parts(&self) -> (&[i8; BLOCK], f32, u32) {
        (&self.qs, self.d, self.sum.to_bits())
    }

    #[inline(always)]
    fn panel_vectors(panel: &BlockQ8_1x4) -> &[int8x16_t; 10] {
        vectors_of(panel)
    }
}

/// Eight numbers in F16.
#[inline(always)]
fn f16s(bytes: uint8x16_t) -> Totals {
    // SAFETY: NEON is there.
    unsafe {
        let numbers = vreinterpretq_f16_u8(bytes);
        [vcvt_f32_f16(vget_low_f16(numbers)), vcvt_high_f32_f16(numbers)]
    }
}

/// The low nibbles.
#[inline(always)]
fn low(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: NEON is there.
    unsafe { vandq_u8(bytes, vdupq_n_u8(15)) }
}

/// The high nibbles.
#[inline(always)]
fn high(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: NEON is there.
    unsafe { vshrq_n_u8::<4>(bytes) }
}

/// The bytes as signed numbers.
#[inline(always)]
fn signed(numbers: uint8x16_t) -> int8x16_t {
    // SAFETY: NEON is there.
    unsafe { vreinterpretq_s8_u8(numbers) }
}

/// Word `i` of all rows, counted from vector `at` of a panel block.
#[inline(always)]
fn word<const N: usize>(block: &[uint8x16_t; N], at: usize, i: usize) -> [uint8x16_t; 2] {
    [block[at + 2 * i], block[at + 2 * i + 1]]
}
