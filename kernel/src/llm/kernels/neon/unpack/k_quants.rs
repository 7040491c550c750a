//! K-quants: super-blocks of 256 weights.

use core::arch::aarch64::*;
use core::arch::asm;

use super::{FourColumns, Totals, UnpackKQuant, f16s, high, low, signed, word};
use crate::llm::quantize::GROUPS;

/// Quarters whose groups are bit planes of the same bytes, 32 columns apart.
const STRIDED: [[usize; 4]; 4] = [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10, 12, 14], [9, 11, 13, 15]];
/// Quarters of four neighbouring groups.
const NEIGHBOURS: [[usize; 4]; 4] = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]];

/// Bits 0 and 1, 2 and 3, 4 and 5, 6 and 7 of a word's bytes.
#[inline(always)]
fn crumbs(word: [uint8x16_t; 2]) -> [[uint8x16_t; 2]; 4] {
    // SAFETY: NEON is there.
    unsafe {
        let mask = vdupq_n_u8(3);
        [
            word.map(|bytes| vandq_u8(bytes, mask)),
            word.map(|bytes| vandq_u8(vshrq_n_u8::<2>(bytes), mask)),
            word.map(|bytes| vandq_u8(vshrq_n_u8::<4>(bytes), mask)),
            word.map(|bytes| vshrq_n_u8::<6>(bytes)),
        ]
    }
}

/// Splits vectors into halves: a byte of each of the eight rows.
#[inline(always)]
fn halves(vectors: [uint8x16_t; GROUPS / 2]) -> [uint8x8_t; GROUPS] {
    // SAFETY: NEON is there.
    core::array::from_fn(|i| unsafe {
        if i % 2 == 0 { vget_low_u8(vectors[i / 2]) } else { vget_high_u8(vectors[i / 2]) }
    })
}

#[inline(always)]
fn signed_halves(vectors: [uint8x16_t; GROUPS / 2]) -> [int8x8_t; GROUPS] {
    // SAFETY: NEON is there.
    halves(vectors).map(|half| unsafe { vreinterpret_s8_u8(half) })
}

/// `sri`: keeps the high `N` bits of `first`, and shifts `second` in behind them.
///
/// The compiler turns the intrinsic for `sri` into four other instructions.
#[inline(always)]
fn insert_behind<const N: i32>(mut first: uint8x16_t, second: uint8x16_t) -> uint8x16_t {
    // SAFETY: NEON is there; only registers are used.
    unsafe {
        asm!("sri {:v}.16b, {:v}.16b, #{}", inout(vreg) first, in(vreg) second, const N,
            options(pure, nomem, nostack, preserves_flags));
    }
    first
}

/// 2-bit weights, with a scale and a minimum for 16.
pub struct Q2K;

impl UnpackKQuant for Q2K {
    type Block = [uint8x16_t; 42];

    const LARGEST: i32 = 3;
    const HAS_MINS: bool = true;
    const QUARTERS: [[usize; 4]; 4] = STRIDED;

    #[inline(always)]
    fn weights(block: &Self::Block, quarter: usize, i: usize) -> [FourColumns; 4] {
        crumbs(word(block, 8, 4 * quarter + i)).map(|group| group.map(signed))
    }

    #[inline(always)]
    fn scales(block: &Self::Block) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        let both: [uint8x16_t; 8] = core::array::from_fn(|i| block[i]);
        (signed_halves(both.map(low)), halves(both.map(high)))
    }

    #[inline(always)]
    fn d(block: &Self::Block) -> [Totals; 2] {
        [f16s(block[40]), f16s(block[41])]
    }
}

/// 3-bit weights, with a scale for 16.
pub struct Q3K;

impl UnpackKQuant for Q3K {
    type Block = [uint8x16_t; 55];

    const LARGEST: i32 = 7;
    const HAS_MINS: bool = false;
    const QUARTERS: [[usize; 4]; 4] = STRIDED;

    #[inline(always)]
    fn weights(block: &Self::Block, quarter: usize, i: usize) -> [FourColumns; 4] {
        let low = crumbs(word(block, 16, 4 * quarter + i));
        let bits = word(block, 0, 4 * (quarter % 2) + i);
        core::array::from_fn(|group| {
            // SAFETY: NEON is there.
            unsafe {
                let bit = vdupq_n_u8(1 << (quarter / 2 * 4 + group));
                let third = bits.map(|bits| vandq_u8(vtstq_u8(bits, bit), vdupq_n_u8(4)));
                let [low0, low1] = low[group];
                [signed(vorrq_u8(low0, third[0])), signed(vorrq_u8(low1, third[1]))]
            }
        })
    }

    #[inline(always)]
    fn start(minus_32_sums: int32x4_t) -> int32x4_t {
        // Stored with 4 added.
        // SAFETY: NEON is there.
        unsafe { vshrq_n_s32::<3>(minus_32_sums) }
    }

    #[inline(always)]
    fn scales(block: &Self::Block) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        // SAFETY: NEON is there.
        unsafe {
            // 16 scales of six bits, with 32 added: the low four bits in 8 bytes, the high two in
            // 4.
            let twos = crumbs([block[52], block[53]]);
            let scales = core::array::from_fn(|i| {
                let bytes = block[48 + i % 4];
                let four = if i < 4 { low(bytes) } else { high(bytes) };
                let two = vshlq_n_u8::<4>(twos[i / 2][i % 2]);
                vsubq_u8(vorrq_u8(four, two), vdupq_n_u8(32))
            });
            (signed_halves(scales), [vdup_n_u8(0); GROUPS])
        }
    }

    #[inline(always)]
    fn d(block: &Self::Block) -> [Totals; 2] {
        [f16s(block[54]), f16s(block[54])]
    }
}

/// The scales and minimums of Q4_K and Q5_K, six bits each for 32 columns.
#[inline(always)]
fn q4_k_scales<const N: usize>(
    block: &[uint8x16_t; N],
) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
    // SAFETY: NEON is there.
    unsafe {
        let bytes: [uint8x16_t; 6] = core::array::from_fn(|i| block[2 + i]);
        let six = |i: usize| vandq_u8(bytes[i], vdupq_n_u8(63));
        // The bytes of the first four hold the high two bits of the last four.
        let join = |four, i: usize| vorrq_u8(four, vshlq_n_u8::<4>(vshrq_n_u8::<6>(bytes[i])));
        let scales = [six(0), six(1), join(low(bytes[4]), 0), join(low(bytes[5]), 1)];
        let mins = [six(2), six(3), join(high(bytes[4]), 2), join(high(bytes[5]), 3)];
        let twice = |of_32: [uint8x16_t; 4]| {
            let half = |i: usize| match i % 2 {
                0 => vget_low_u8(of_32[i / 2]),
                _ => vget_high_u8(of_32[i / 2]),
            };
            core::array::from_fn(|group| half(group / 2))
        };
        let scales: [uint8x8_t; GROUPS] = twice(scales);
        (scales.map(|scale| vreinterpret_s8_u8(scale)), twice(mins))
    }
}

/// 4-bit weights, with a scale and a minimum for 32.
pub struct Q4K;

impl UnpackKQuant for Q4K {
    type Block = [uint8x16_t; 72];

    const LARGEST: i32 = 15;
    const HAS_MINS: bool = true;
    const QUARTERS: [[usize; 4]; 4] = NEIGHBOURS;

    #[inline(always)]
    fn weights(block: &Self::Block, quarter: usize, i: usize) -> [FourColumns; 4] {
        let [a, b] = [0, 4].map(|half| word(block, 8, 8 * quarter + half + i));
        [a.map(low), b.map(low), a.map(high), b.map(high)].map(|group| group.map(signed))
    }

    #[inline(always)]
    fn scales(block: &Self::Block) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        q4_k_scales(block)
    }

    #[inline(always)]
    fn d(block: &Self::Block) -> [Totals; 2] {
        [f16s(block[0]), f16s(block[1])]
    }
}

/// 5-bit weights, with a scale and a minimum for 32.
pub struct Q5K;

impl UnpackKQuant for Q5K {
    type Block = [uint8x16_t; 88];

    const LARGEST: i32 = 31;
    const HAS_MINS: bool = true;
    const QUARTERS: [[usize; 4]; 4] = NEIGHBOURS;

    #[inline(always)]
    fn weights(block: &Self::Block, quarter: usize, i: usize) -> [FourColumns; 4] {
        let [a, b] = [0, 4].map(|half| word(block, 24, 8 * quarter + half + i));
        let four = [a.map(low), b.map(low), a.map(high), b.map(high)];
        core::array::from_fn(|group| {
            let bits = word(block, 8, group % 2 * 4 + i);
            // SAFETY: NEON is there.
            unsafe {
                let bit = vdupq_n_u8(1 << (2 * quarter + group / 2));
                let fifth = bits.map(|bits| vandq_u8(vtstq_u8(bits, bit), vdupq_n_u8(16)));
                let [four0, four1] = four[group];
                [signed(vorrq_u8(four0, fifth[0])), signed(vorrq_u8(four1, fifth[1]))]
            }
        })
    }

    #[inline(always)]
    fn scales(block: &Self::Block) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        q4_k_scales(block)
    }

    #[inline(always)]
    fn d(block: &Self::Block) -> [Totals; 2] {
        [f16s(block[0]), f16s(block[1])]
    }
}

/// 6-bit weights, with a scale for 16. See `q6_k` in `quantize/packed.rs`.
pub struct Q6K;

impl UnpackKQuant for Q6K {
    type Block = [uint8x16_t; 105];

    const LARGEST: i32 = 63;
    const HAS_MINS: bool = false;
    const QUARTERS: [[usize; 4]; 4] = STRIDED;

    #[inline(always)]
    fn weights(block: &Self::Block, quarter: usize, i: usize) -> [FourColumns; 4] {
        let first = 3 * (4 * quarter + i);
        let [a, b, c] = [0, 1, 2].map(|next| word(block, 0, first + next));
        // SAFETY: NEON is there.
        unsafe {
            let six = |bytes| signed(vandq_u8(bytes, vdupq_n_u8(63)));
            // The fourth weight: the high two bits of each of the three bytes.
            let fourth = |half: usize| {
                let bits = insert_behind::<2>(c[half], b[half]);
                signed(vshrq_n_u8::<2>(insert_behind::<4>(bits, a[half])))
            };
            [a.map(six), b.map(six), c.map(six), [fourth(0), fourth(1)]]
        }
    }

    #[inline(always)]
    fn start(minus_32_sums: int32x4_t) -> int32x4_t {
        minus_32_sums
    }

    #[inline(always)]
    fn scales(block: &Self::Block) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        let scales = core::array::from_fn(|i| block[96 + i]);
        // SAFETY: NEON is there.
        (signed_halves(scales), [unsafe { vdup_n_u8(0) }; GROUPS])
    }

    #[inline(always)]
    fn d(block: &Self::Block) -> [Totals; 2] {
        [f16s(block[104]), f16s(block[104])]
    }
}
