//! How the weights in a tile of eight rows are taken apart, type by type. The blocks are those of
//! `quantize/blocks.rs` and `quantize/k_quants.rs`, rearranged by `quantize/tiles.rs`: what is four
//! bytes of a block there is two vectors here, of four rows each.

use core::arch::aarch64::*;
use core::arch::asm;

use super::isa::Group;
use crate::llm::quantize::{BlockQ8_0, BlockQ8_1, GROUPS, IQ4_VALUES};

// Functions of a trait cannot say which instructions they take. This module is only built where the
// whole build has NEON; that is what "NEON is there" means below.

/// A number for each row.
pub type Totals = [float32x4_t; 2];

/// A tile: so many vectors.
pub trait Tile: Sized {
    /// The tiles of stripes.
    fn of(stripes: &[uint8x16_t]) -> &[Self];

    /// One of its vectors.
    fn vector(&self, i: usize) -> uint8x16_t;
}

impl<const N: usize> Tile for [uint8x16_t; N] {
    fn of(stripes: &[uint8x16_t]) -> &[Self] {
        stripes.as_chunks().0
    }

    #[inline(always)]
    fn vector(&self, i: usize) -> uint8x16_t {
        self[i]
    }
}

/// Types with blocks of 32 weights. A tile starts with the scales, and then the offsets, if there are
/// any.
pub trait Simple {
    /// A tile.
    type Tile: Tile;
    /// The blocks of activations.
    type Activations: super::tiles::Block8;

    /// The largest weight, less its sign.
    const LARGEST: i32;

    /// Whether it has offsets.
    const HAS_OFFSETS: bool = false;

    /// Whether it has [`Simple::nibbles`].
    const HAS_NIBBLES: bool = false;

    /// The words of a tile whose half bytes are the weights as they are, the low halves those of the
    /// first 16 columns; none if the type has other weights.
    #[inline(always)]
    fn nibbles(_: &Self::Tile) -> Option<[[uint8x16_t; 2]; 4]> {
        None
    }

    /// The weights, perhaps with a number added to each.
    fn weights(tile: &Self::Tile) -> [Group; 8];

    /// What that number takes to be put right, out of -8 times the sum of the activations.
    fn start(_: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is there.
        unsafe { vdupq_n_s32(0) }
    }

    /// The scales.
    #[inline(always)]
    fn scales(tile: &Self::Tile) -> Totals {
        f16s(tile.vector(0))
    }

    /// The offsets; without a meaning if there are none.
    #[inline(always)]
    fn offsets(tile: &Self::Tile) -> Totals {
        f16s(tile.vector(1))
    }
}

/// Types with blocks of 256 weights.
pub trait Super {
    /// A tile.
    type Tile: Tile;

    /// The largest weight; at most 64.
    const LARGEST: i32;

    /// Whether groups have minimums.
    const HAS_MINS: bool;

    /// The groups of 16 columns that each quarter of the block gives.
    const QUARTERS: [[usize; 4]; 4];

    /// The `i`-th four columns of each group of a quarter, perhaps with a number added to each
    /// weight.
    fn weights(tile: &Self::Tile, quarter: usize, i: usize) -> [Group; 4];

    /// What that number takes to be put right, out of -32 times the sum of a group's activations.
    fn start(_: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is there.
        unsafe { vdupq_n_s32(0) }
    }

    /// The scales of the groups, and their minimums, if there are any.
    fn scales(tile: &Self::Tile) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]);

    /// The scale of the scales, and that of the minimums.
    fn d(tile: &Self::Tile) -> [Totals; 2];
}

/// Numbers in F16.
#[inline(always)]
fn f16s(bytes: uint8x16_t) -> Totals {
    // SAFETY: NEON is there.
    unsafe {
        let numbers = vreinterpretq_f16_u8(bytes);
        [vcvt_f32_f16(vget_low_f16(numbers)), vcvt_high_f32_f16(numbers)]
    }
}

/// The low halves of the bytes.
#[inline(always)]
fn low(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: NEON is there.
    unsafe { vandq_u8(bytes, vdupq_n_u8(15)) }
}

/// The high halves of the bytes.
#[inline(always)]
fn high(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: NEON is there.
    unsafe { vshrq_n_u8::<4>(bytes) }
}

/// The numbers as signed ones.
#[inline(always)]
fn signed(numbers: uint8x16_t) -> int8x16_t {
    // SAFETY: NEON is there.
    unsafe { vreinterpretq_s8_u8(numbers) }
}

/// The words of a tile from vector `at`: word `i` of all rows.
#[inline(always)]
fn word<const N: usize>(tile: &[uint8x16_t; N], at: usize, i: usize) -> [uint8x16_t; 2] {
    [tile[at + 2 * i], tile[at + 2 * i + 1]]
}

/// Four words of a tile from vector `at`.
#[inline(always)]
fn words<const N: usize>(tile: &[uint8x16_t; N], at: usize) -> [[uint8x16_t; 2]; 4] {
    core::array::from_fn(|i| word(tile, at, i))
}

/// The weights of four words from vector `at`, the low halves of their bytes before the high ones.
#[inline(always)]
fn nibbles<const N: usize>(tile: &[uint8x16_t; N], at: usize) -> [[uint8x16_t; 2]; 8] {
    core::array::from_fn(|i| match i {
        0..4 => word(tile, at, i).map(low),
        _ => word(tile, at, i - 4).map(high),
    })
}

/// As [`nibbles`], with fifth bits from the word before: bit i for weight i.
#[inline(always)]
fn five_bits<const N: usize>(tile: &[uint8x16_t; N], at: usize) -> [[uint8x16_t; 2]; 8] {
    let bits = word(tile, at, 0);
    let low = nibbles(tile, at + 2);
    core::array::from_fn(|i| {
        // SAFETY: NEON is there.
        unsafe {
            // Of each row's word, the byte with the bits of these four columns, four times.
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

pub struct Q4_0;

impl Simple for Q4_0 {
    type Tile = [uint8x16_t; 9];
    type Activations = BlockQ8_0;

    const LARGEST: i32 = 15;
    const HAS_NIBBLES: bool = true;

    #[inline(always)]
    fn nibbles(tile: &Self::Tile) -> Option<[[uint8x16_t; 2]; 4]> {
        Some(words(tile, 1))
    }

    #[inline(always)]
    fn weights(tile: &Self::Tile) -> [Group; 8] {
        nibbles(tile, 1).map(|group| group.map(signed))
    }

    #[inline(always)]
    fn start(minus_8_sums: int32x4_t) -> int32x4_t {
        minus_8_sums
    }
}

pub struct Q4_1;

impl Simple for Q4_1 {
    type Tile = [uint8x16_t; 10];
    type Activations = BlockQ8_1;

    const HAS_OFFSETS: bool = true;
    const LARGEST: i32 = 15;
    const HAS_NIBBLES: bool = true;

    #[inline(always)]
    fn nibbles(tile: &Self::Tile) -> Option<[[uint8x16_t; 2]; 4]> {
        Some(words(tile, 2))
    }

    #[inline(always)]
    fn weights(tile: &Self::Tile) -> [Group; 8] {
        nibbles(tile, 2).map(|group| group.map(signed))
    }
}

pub struct Q5_0;

impl Simple for Q5_0 {
    type Tile = [uint8x16_t; 11];
    type Activations = BlockQ8_0;

    const LARGEST: i32 = 31;

    #[inline(always)]
    fn weights(tile: &Self::Tile) -> [Group; 8] {
        five_bits(tile, 1).map(|group| group.map(signed))
    }

    #[inline(always)]
    fn start(minus_8_sums: int32x4_t) -> int32x4_t {
        // 16 is added.
        // SAFETY: NEON is there.
        unsafe { vshlq_n_s32::<1>(minus_8_sums) }
    }
}

pub struct Q5_1;

impl Simple for Q5_1 {
    type Tile = [uint8x16_t; 12];
    type Activations = BlockQ8_1;

    const HAS_OFFSETS: bool = true;
    const LARGEST: i32 = 31;

    #[inline(always)]
    fn weights(tile: &Self::Tile) -> [Group; 8] {
        five_bits(tile, 2).map(|group| group.map(signed))
    }
}

pub struct Q8_0;

impl Simple for Q8_0 {
    type Tile = [uint8x16_t; 17];
    type Activations = BlockQ8_0;

    const LARGEST: i32 = 128;

    #[inline(always)]
    fn weights(tile: &Self::Tile) -> [Group; 8] {
        core::array::from_fn(|i| word(tile, 1, i).map(signed))
    }
}

pub struct Iq4Nl;

impl Simple for Iq4Nl {
    type Tile = [uint8x16_t; 9];
    type Activations = BlockQ8_0;

    const LARGEST: i32 = 128;

    #[inline(always)]
    fn weights(tile: &Self::Tile) -> [Group; 8] {
        // SAFETY: NEON is there; the reference is valid for reads of 16 bytes.
        unsafe {
            let values = vld1q_s8(IQ4_VALUES.as_ptr());
            nibbles(tile, 1).map(|group| group.map(|places| vqtbl1q_s8(values, places)))
        }
    }
}

/// Quarters whose groups share the low or high bits of the same bytes, 32 columns apart.
const STRIPED: [[usize; 4]; 4] = [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10, 12, 14], [9, 11, 13, 15]];
/// Quarters whose groups are neighbours.
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

/// The halves of vectors of bytes: the byte of each row, byte by byte.
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

/// The high `N` bits of the first bytes, and behind them those of the second. The intrinsic for this
/// instruction becomes four others.
#[inline(always)]
fn insert_behind<const N: i32>(mut first: uint8x16_t, second: uint8x16_t) -> uint8x16_t {
    // SAFETY: NEON is there; only registers are used.
    unsafe {
        asm!("sri {:v}.16b, {:v}.16b, #{}", inout(vreg) first, in(vreg) second, const N,
            options(pure, nomem, nostack, preserves_flags));
    }
    first
}

pub struct Q2K;

impl Super for Q2K {
    type Tile = [uint8x16_t; 42];

    const LARGEST: i32 = 3;
    const HAS_MINS: bool = true;
    const QUARTERS: [[usize; 4]; 4] = STRIPED;

    #[inline(always)]
    fn weights(tile: &Self::Tile, quarter: usize, i: usize) -> [Group; 4] {
        crumbs(word(tile, 8, 4 * quarter + i)).map(|group| group.map(signed))
    }

    #[inline(always)]
    fn scales(tile: &Self::Tile) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        let both: [uint8x16_t; 8] = core::array::from_fn(|i| tile[i]);
        (signed_halves(both.map(low)), halves(both.map(high)))
    }

    #[inline(always)]
    fn d(tile: &Self::Tile) -> [Totals; 2] {
        [f16s(tile[40]), f16s(tile[41])]
    }
}

pub struct Q3K;

impl Super for Q3K {
    type Tile = [uint8x16_t; 55];

    const LARGEST: i32 = 7;
    const HAS_MINS: bool = false;
    const QUARTERS: [[usize; 4]; 4] = STRIPED;

    #[inline(always)]
    fn weights(tile: &Self::Tile, quarter: usize, i: usize) -> [Group; 4] {
        let low = crumbs(word(tile, 16, 4 * quarter + i));
        let bits = word(tile, 0, 4 * (quarter % 2) + i);
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
        // 4 is added.
        // SAFETY: NEON is there.
        unsafe { vshrq_n_s32::<3>(minus_32_sums) }
    }

    #[inline(always)]
    fn scales(tile: &Self::Tile) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        // SAFETY: NEON is there.
        unsafe {
            // 16 scales of six bits, with 32 added: the low four are in 8 bytes, the high two in 4.
            let twos = crumbs([tile[52], tile[53]]);
            let scales = core::array::from_fn(|i| {
                let bytes = tile[48 + i % 4];
                let four = if i < 4 { low(bytes) } else { high(bytes) };
                let two = vshlq_n_u8::<4>(twos[i / 2][i % 2]);
                vsubq_u8(vorrq_u8(four, two), vdupq_n_u8(32))
            });
            (signed_halves(scales), [vdup_n_u8(0); GROUPS])
        }
    }

    #[inline(always)]
    fn d(tile: &Self::Tile) -> [Totals; 2] {
        [f16s(tile[54]), f16s(tile[54])]
    }
}

/// The scales and minimums of Q4_K and Q5_K: six bits for each 32 columns.
#[inline(always)]
fn q4_k_scales<const N: usize>(
    tile: &[uint8x16_t; N],
) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
    // SAFETY: NEON is there.
    unsafe {
        let bytes: [uint8x16_t; 6] = core::array::from_fn(|i| tile[2 + i]);
        let six = |i: usize| vandq_u8(bytes[i], vdupq_n_u8(63));
        // The high two bits of the last four are those of the first four's bytes.
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

pub struct Q4K;

impl Super for Q4K {
    type Tile = [uint8x16_t; 72];

    const LARGEST: i32 = 15;
    const HAS_MINS: bool = true;
    const QUARTERS: [[usize; 4]; 4] = NEIGHBOURS;

    #[inline(always)]
    fn weights(tile: &Self::Tile, quarter: usize, i: usize) -> [Group; 4] {
        let [a, b] = [0, 4].map(|piece| word(tile, 8, 8 * quarter + piece + i));
        [a.map(low), b.map(low), a.map(high), b.map(high)].map(|group| group.map(signed))
    }

    #[inline(always)]
    fn scales(tile: &Self::Tile) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        q4_k_scales(tile)
    }

    #[inline(always)]
    fn d(tile: &Self::Tile) -> [Totals; 2] {
        [f16s(tile[0]), f16s(tile[1])]
    }
}

pub struct Q5K;

impl Super for Q5K {
    type Tile = [uint8x16_t; 88];

    const LARGEST: i32 = 31;
    const HAS_MINS: bool = true;
    const QUARTERS: [[usize; 4]; 4] = NEIGHBOURS;

    #[inline(always)]
    fn weights(tile: &Self::Tile, quarter: usize, i: usize) -> [Group; 4] {
        let [a, b] = [0, 4].map(|piece| word(tile, 24, 8 * quarter + piece + i));
        let four = [a.map(low), b.map(low), a.map(high), b.map(high)];
        core::array::from_fn(|group| {
            let bits = word(tile, 8, group % 2 * 4 + i);
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
    fn scales(tile: &Self::Tile) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        q4_k_scales(tile)
    }

    #[inline(always)]
    fn d(tile: &Self::Tile) -> [Totals; 2] {
        [f16s(tile[0]), f16s(tile[1])]
    }
}

pub struct Q6K;

impl Super for Q6K {
    type Tile = [uint8x16_t; 105];

    const LARGEST: i32 = 63;
    const HAS_MINS: bool = false;
    const QUARTERS: [[usize; 4]; 4] = STRIPED;

    #[inline(always)]
    fn weights(tile: &Self::Tile, quarter: usize, i: usize) -> [Group; 4] {
        let first = 3 * (4 * quarter + i);
        let [a, b, c] = [0, 1, 2].map(|next| word(tile, 0, first + next));
        // SAFETY: NEON is there.
        unsafe {
            let six = |bytes| signed(vandq_u8(bytes, vdupq_n_u8(63)));
            // The high two bits of each, one behind the other.
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
    fn scales(tile: &Self::Tile) -> ([int8x8_t; GROUPS], [uint8x8_t; GROUPS]) {
        let scales = core::array::from_fn(|i| tile[96 + i]);
        // SAFETY: NEON is there.
        (signed_halves(scales), [unsafe { vdup_n_u8(0) }; GROUPS])
    }

    #[inline(always)]
    fn d(tile: &Self::Tile) -> [Totals; 2] {
        [f16s(tile[104]), f16s(tile[104])]
    }
}
