//! Types with blocks of 32 weights.

use core::arch::aarch64::*;

use super::{FourColumns, UnpackSimple, high, low, signed, word};
use crate::llm::quantize::{BlockQ8_0, BlockQ8_1, IQ4_VALUES};

/// Four words from vector `at` of a panel block.
#[inline(always)]
fn words<const N: usize>(block: &[uint8x16_t; N], at: usize) -> [[uint8x16_t; 2]; 4] {
    core::array::from_fn(|i| word(block, at, i))
}

/// The nibbles of four words from vector `at`: the low nibbles, then the high ones.
#[inline(always)]
fn nibbles<const N: usize>(block: &[uint8x16_t; N], at: usize) -> [[uint8x16_t; 2]; 8] {
    core::array::from_fn(|i| match i {
        0..4 => word(block, at, i).map(low),
        _ => word(block, at, i - 4).map(high),
    })
}

/// As [`nibbles`], with the fifth bits from the word before: bit i is for weight i.
#[inline(always)]
fn five_bits<const N: usize>(block: &[uint8x16_t; N], at: usize) -> [[uint8x16_t; 2]; 8] {
    let bits = word(block, at, 0);
    let low = nibbles(block, at + 2);
    core::array::from_fn(|i| {
        // SAFETY: NEON is there.
        unsafe {
            // The byte with the bits of these four columns, four times, out of each row's word.
            let rows = vreinterpretq_u8_u32(vdupq_n_u32(0x0101_0101 * (i as u32 / 2)));
            let first =
                vcombine_u8(vcreate_u8(0x0404_0404_0000_0000), vcreate_u8(0x0c0c_0c0c_0808_0808));
            let places = vaddq_u8(first, rows);
            let own = vdupq_n_u32(if i % 2 == 0 { 0x0804_0201 } else { 0x8040_2010 });
            let own = vreinterpretq_u8_u32(own);
            let fifth = |half: usize| {
                vandq_u8(vtstq_u8(vqtbl1q_u8(bits[half], places), own), vdupq_n_u8(16))
            };
            [vorrq_u8(low[i][0], fifth(0)), vorrq_u8(low[i][1], fifth(1))]
        }
    })
}

/// 4-bit weights with a scale.
pub struct Q4_0;

impl UnpackSimple for Q4_0 {
    type Block = [uint8x16_t; 9];
    type Activations = BlockQ8_0;

    const LARGEST: i32 = 15;
    const HAS_NIBBLES: bool = true;

    #[inline(always)]
    fn nibbles(block: &Self::Block) -> Option<[[uint8x16_t; 2]; 4]> {
        Some(words(block, 1))
    }

    #[inline(always)]
    fn weights(block: &Self::Block) -> [FourColumns; 8] {
        nibbles(block, 1).map(|group| group.map(signed))
    }

    #[inline(always)]
    fn start(minus_8_sums: int32x4_t) -> int32x4_t {
        minus_8_sums
    }
}

/// 4-bit weights with a scale and an offset.
pub struct Q4_1;

impl UnpackSimple for Q4_1 {
    type Block = [uint8x16_t; 10];
    type Activations = BlockQ8_1;

    const HAS_OFFSETS: bool = true;
    const LARGEST: i32 = 15;
    const HAS_NIBBLES: bool = true;

    #[inline(always)]
    fn nibbles(block: &Self::Block) -> Option<[[uint8x16_t; 2]; 4]> {
        Some(words(block, 2))
    }

    #[inline(always)]
    fn weights(block: &Self::Block) -> [FourColumns; 8] {
        nibbles(block, 2).map(|group| group.map(signed))
    }
}

/// 5-bit weights with a scale.
pub struct Q5_0;

impl UnpackSimple for Q5_0 {
    type Block = [uint8x16_t; 11];
    type Activations = BlockQ8_0;

    const LARGEST: i32 = 31;

    #[inline(always)]
    fn weights(block: &Self::Block) -> [FourColumns; 8] {
        five_bits(block, 1).map(|group| group.map(signed))
    }

    #[inline(always)]
    fn start(minus_8_sums: int32x4_t) -> int32x4_t {
        // Stored with 16 added.
        // SAFETY: NEON is there.
        unsafe { vshlq_n_s32::<1>(minus_8_sums) }
    }
}

/// 5-bit weights with a scale and an offset.
pub struct Q5_1;

impl UnpackSimple for Q5_1 {
    type Block = [uint8x16_t; 12];
    type Activations = BlockQ8_1;

    const HAS_OFFSETS: bool = true;
    const LARGEST: i32 = 31;

    #[inline(always)]
    fn weights(block: &Self::Block) -> [FourColumns; 8] {
        five_bits(block, 2).map(|group| group.map(signed))
    }
}

/// 8-bit weights with a scale.
pub struct Q8_0;

impl UnpackSimple for Q8_0 {
    type Block = [uint8x16_t; 17];
    type Activations = BlockQ8_0;

    const LARGEST: i32 = 128;

    #[inline(always)]
    fn weights(block: &Self::Block) -> [FourColumns; 8] {
        core::array::from_fn(|i| word(block, 1, i).map(signed))
    }
}

/// 4-bit indices into [`IQ4_VALUES`], with a scale.
pub struct Iq4Nl;

impl UnpackSimple for Iq4Nl {
    type Block = [uint8x16_t; 9];
    type Activations = BlockQ8_0;

    const LARGEST: i32 = 128;

    #[inline(always)]
    fn weights(block: &Self::Block) -> [FourColumns; 8] {
        // SAFETY: NEON is there; the reference is valid for reads of 16 bytes.
        unsafe {
            let values = vld1q_s8(IQ4_VALUES.as_ptr());
            nibbles(block, 1).map(|group| group.map(|places| vqtbl1q_s8(values, places)))
        }
    }
}
