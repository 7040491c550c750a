//! The instructions that multiply bytes: `smull`, `sdot`, `smmla`.
//!
//! [`OneToken`] multiplies eight rows of weights with one token's activations, [`FourTokens`] with
//! four tokens' activations.
//!
//! `sdot` and `smmla` are in inline assembly, as their intrinsics are not stable. A value of
//! [`DotProd`] or [`I8mm`] is only made after the processor's features were read. So code that
//! holds a value may use the instructions.

use core::arch::aarch64::*;
use core::arch::asm;

use super::vectors::load_vectors;
use crate::cpu::Features;
use crate::llm::quantize::BLOCK;

/// Four columns of eight rows: `[8 rows, 4 columns]`, four rows in each vector.
pub type FourColumns = [int8x16_t; 2];

/// A sum for each of eight rows.
pub type IntSums = [int32x4_t; 2];

/// Instructions for one token.
pub trait OneToken: Copy {
    /// Whether the registers suffice for two panels at once.
    const TWO_PANELS: bool;

    /// A block of activations in registers.
    type Block: Copy;

    /// Loads a block of activations.
    fn load(self, x: &[i8; BLOCK]) -> Self::Block;

    /// Keeps the compiler from moving a part of [`OneToken::one`] in front of a loop over tokens.
    #[inline(always)]
    fn keep_in_loop(self, _: &mut [FourColumns; BLOCK / 4]) {}

    /// Adds the dot products of each row with the token's activations to `start`.
    fn one(self, weights: &[FourColumns; BLOCK / 4], x: Self::Block, start: int32x4_t) -> IntSums;

    /// Four dot products of 16 columns each, with activations of their own.
    ///
    /// `weights(i)` gives columns `4 * i` to `4 * i + 3` of each.
    fn sixteen_columns(
        self,
        weights: impl Fn(usize) -> [FourColumns; 4],
        x: [int8x16_t; 4],
        start: [int32x4_t; 4],
    ) -> [IntSums; 4];
}

/// Instructions for four tokens. `N` is a number of groups of four columns.
pub trait FourTokens: Copy {
    /// Reorders weights for [`FourTokens::four`].
    #[inline(always)]
    fn reorder<const N: usize>(self, weights: [FourColumns; N]) -> [FourColumns; N] {
        weights
    }

    /// Adds dot products of each row with four tokens' activations to `start`.
    ///
    /// Each vector of `x` holds four activations of each token. Lane i of `start` is for token i.
    fn four<const N: usize>(
        self,
        weights: &[FourColumns; N],
        x: &[int8x16_t; N],
        start: int32x4_t,
    ) -> [IntSums; 4];
}

/// Repeats code for each lane of a vector.
///
/// The lane is part of an instruction, which a loop cannot express.
macro_rules! for_each_lane {
    ($lane:ident => $body:block) => {{
        {
            const $lane: i32 = 0;
            $body
        }
        {
            const $lane: i32 = 1;
            $body
        }
        {
            const $lane: i32 = 2;
            $body
        }
        {
            const $lane: i32 = 3;
            $body
        }
    }};
}
pub(super) use for_each_lane;

/// Advanced SIMD without extensions: 16-bit sums, as long as they suffice.
#[derive(Clone, Copy, Debug)]
pub struct Neon {
    /// The largest magnitude of a weight.
    pub largest: i32,
}

impl Neon {
    /// Whether the sum of `n` products fits in 16 bits. Activations are at most 127.
    #[inline(always)]
    fn fits(self, n: usize) -> bool {
        self.largest * 127 * n as i32 <= i16::MAX.into()
    }
}

/// Adds products of four columns of eight rows with four activations.
///
/// The activations are repeated in all lanes. Each vector of `sums` holds two rows.
#[inline(always)]
fn add_products(sums: [int16x8_t; 4], weights: FourColumns, x: int8x16_t) -> [int16x8_t; 4] {
    let [a, b, c, d] = sums;
    let [first, second] = weights;
    // SAFETY: this module is only built where the whole build has NEON.
    unsafe {
        [
            vmlal_s8(a, vget_low_s8(first), vget_low_s8(x)),
            vmlal_high_s8(b, first, x),
            vmlal_s8(c, vget_low_s8(second), vget_low_s8(x)),
            vmlal_high_s8(d, second, x),
        ]
    }
}

/// Repeats the four activations of a lane in all lanes.
#[inline(always)]
fn repeat<const LANE: i32>(x: int8x16_t) -> int8x16_t {
    // SAFETY: as in `add_products`.
    unsafe { vreinterpretq_s8_s32(vdupq_laneq_s32::<LANE>(vreinterpretq_s32_s8(x))) }
}

impl Neon {
    /// Adds up products with activations that are repeated in all lanes.
    #[inline(always)]
    fn sums<const N: usize>(
        self,
        weights: [FourColumns; N],
        x: [int8x16_t; N],
        start: int32x4_t,
    ) -> IntSums {
        // SAFETY: as in `add_products`.
        unsafe {
            if self.fits(N) {
                let mut sums = [vdupq_n_s16(0); 4];
                for (weights, x) in weights.into_iter().zip(x) {
                    sums = add_products(sums, weights, x);
                }
                return self.add_lanes(sums, N, start);
            }
            let mut sums = [vdupq_n_s32(0); 4];
            let pairs = weights.as_chunks::<2>().0.iter().zip(x.as_chunks::<2>().0);
            for (&[weights0, weights1], &[x0, x1]) in pairs {
                let two = add_products([vdupq_n_s16(0); 4], weights0, x0);
                let two = add_products(two, weights1, x1);
                for (sum, two) in sums.iter_mut().zip(two) {
                    *sum = vpadalq_s16(*sum, two);
                }
            }
            let [a, b, c, d] = sums;
            [vaddq_s32(start, vpaddq_s32(a, b)), vaddq_s32(start, vpaddq_s32(c, d))]
        }
    }

    /// Adds up the four lanes of each row. Each lane is a sum of `n` products.
    #[inline(always)]
    fn add_lanes(self, sums: [int16x8_t; 4], n: usize, start: int32x4_t) -> IntSums {
        // SAFETY: as in `add_products`.
        unsafe {
            if self.fits(2 * n) {
                let [a, b, c, d] = sums;
                return [
                    vpadalq_s16(start, vpaddq_s16(a, b)),
                    vpadalq_s16(start, vpaddq_s16(c, d)),
                ];
            }
            let [a, b, c, d] = sums.map(|sums| vpaddlq_s16(sums));
            [vaddq_s32(start, vpaddq_s32(a, b)), vaddq_s32(start, vpaddq_s32(c, d))]
        }
    }
}

impl OneToken for Neon {
    const TWO_PANELS: bool = false;

    /// Each four activations, repeated in all lanes.
    type Block = [int8x16_t; BLOCK / 4];

    #[inline(always)]
    fn load(self, x: &[i8; BLOCK]) -> Self::Block {
        let (halves, _) = x.as_chunks::<16>();
        // SAFETY: each reference is valid for reads of 16 bytes.
        let [first, second] =
            [0, 1].map(|half: usize| unsafe { vld4q_dup_s32(halves[half].as_ptr().cast()) });
        let (int32x4x4_t(a, b, c, d), int32x4x4_t(e, f, g, h)) = (first, second);
        // SAFETY: as in `add_products`.
        [a, b, c, d, e, f, g, h].map(|four| unsafe { vreinterpretq_s8_s32(four) })
    }

    /// The compiler would widen all weights to 16 bits there, for which there are no registers.
    #[inline(always)]
    fn keep_in_loop(self, weights: &mut [FourColumns; BLOCK / 4]) {
        for weights in weights.as_flattened_mut() {
            // SAFETY: there is no instruction.
            unsafe {
                asm!("/* {:v} */", inout(vreg) * weights, options(nomem, nostack, preserves_flags));
            }
        }
    }

    #[inline(always)]
    fn one(self, weights: &[FourColumns; BLOCK / 4], x: Self::Block, start: int32x4_t) -> IntSums {
        self.sums(*weights, x, start)
    }

    #[inline(always)]
    fn sixteen_columns(
        self,
        weights: impl Fn(usize) -> [FourColumns; 4],
        x: [int8x16_t; 4],
        start: [int32x4_t; 4],
    ) -> [IntSums; 4] {
        // SAFETY: as in `add_products`.
        let mut sums = unsafe { [[vdupq_n_s16(0); 4]; 4] };
        for_each_lane!(LANE => {
            let weights = weights(LANE as usize);
            for i in 0..4 {
                sums[i] = add_products(sums[i], weights[i], repeat::<LANE>(x[i]));
            }
        });
        core::array::from_fn(|i| self.add_lanes(sums[i], 4, start[i]))
    }
}

impl FourTokens for Neon {
    /// One token after the other.
    #[inline(always)]
    fn four<const N: usize>(
        self,
        weights: &[FourColumns; N],
        x: &[int8x16_t; N],
        start: int32x4_t,
    ) -> [IntSums; 4] {
        let mut sums = [[start; 2]; 4];
        for_each_lane!(TOKEN => {
            // SAFETY: as in `add_products`.
            let start = unsafe { vdupq_laneq_s32::<TOKEN>(start) };
            sums[TOKEN as usize] = self.sums(*weights, x.map(repeat::<TOKEN>), start);
        });
        sums
    }
}

/// Cores with `sdot` (FEAT_DotProd).
#[derive(Clone, Copy, Debug)]
pub struct DotProd(());

impl DotProd {
    /// If these features have it.
    pub fn of(features: Features) -> Option<Self> {
        features.dotprod().then_some(DotProd(()))
    }

    /// `sdot`: adds products of each lane's four weights with lane `LANE` of `x`.
    #[inline(always)]
    fn add<const LANE: i32>(
        self,
        mut sums: int32x4_t,
        weights: int8x16_t,
        x: int8x16_t,
    ) -> int32x4_t {
        // SAFETY: a value of this type only exists where the processor has the instruction.
        unsafe {
            asm!(".arch_extension dotprod", "sdot {:v}.4s, {:v}.16b, {:v}.4b[{}]",
                inout(vreg) sums, in(vreg) weights, in(vreg) x, const LANE,
                options(nomem, nostack, preserves_flags));
        }
        sums
    }
}

impl OneToken for DotProd {
    const TWO_PANELS: bool = true;

    type Block = [int8x16_t; 2];

    #[inline(always)]
    fn load(self, x: &[i8; BLOCK]) -> Self::Block {
        // SAFETY: as in `add_products`.
        unsafe { load_vectors(x).map(|half| vreinterpretq_s8_u8(half)) }
    }

    #[inline(always)]
    fn one(self, weights: &[FourColumns; BLOCK / 4], x: Self::Block, start: int32x4_t) -> IntSums {
        let [mut first, mut second] = [start; 2];
        for (weights, x) in weights.as_chunks::<4>().0.iter().zip(x) {
            for_each_lane!(LANE => {
                let [a, b] = weights[LANE as usize];
                first = self.add::<LANE>(first, a, x);
                second = self.add::<LANE>(second, b, x);
            });
        }
        [first, second]
    }

    #[inline(always)]
    fn sixteen_columns(
        self,
        weights: impl Fn(usize) -> [FourColumns; 4],
        x: [int8x16_t; 4],
        start: [int32x4_t; 4],
    ) -> [IntSums; 4] {
        let mut sums = start.map(|start| [start; 2]);
        for_each_lane!(LANE => {
            let weights = weights(LANE as usize);
            for i in 0..4 {
                let ([first, second], [a, b]) = (sums[i], weights[i]);
                sums[i] = [self.add::<LANE>(first, a, x[i]), self.add::<LANE>(second, b, x[i])];
            }
        });
        sums
    }
}

impl FourTokens for DotProd {
    #[inline(always)]
    fn four<const N: usize>(
        self,
        weights: &[FourColumns; N],
        x: &[int8x16_t; N],
        start: int32x4_t,
    ) -> [IntSums; 4] {
        let mut sums = [[start; 2]; 4];
        for_each_lane!(TOKEN => {
            // SAFETY: as in `add_products`.
            sums[TOKEN as usize] = unsafe { [vdupq_laneq_s32::<TOKEN>(start); 2] };
        });
        for (&[a, b], &x) in weights.iter().zip(x) {
            for_each_lane!(TOKEN => {
                let [first, second] = sums[TOKEN as usize];
                sums[TOKEN as usize] =
                    [self.add::<TOKEN>(first, a, x), self.add::<TOKEN>(second, b, x)];
            });
        }
        sums
    }
}

/// Cores with `sdot` and `smmla` (FEAT_I8MM).
///
/// GEMV has no use for products of matrices, so [`I8mm::dotprod`] serves one token.
#[derive(Clone, Copy, Debug)]
pub struct I8mm {
    /// For one token.
    pub dotprod: DotProd,
    /// Private, so that only [`I8mm::of`] makes a value.
    _private: (),
}

impl I8mm {
    /// If these features have both.
    pub fn of(features: Features) -> Option<Self> {
        let dotprod = DotProd::of(features).filter(|_| features.i8mm())?;
        Some(I8mm { dotprod, _private: () })
    }

    /// Adds the products of two rows with two tokens, of eight columns: `[2, 2]`.
    #[inline(always)]
    fn add(self, mut sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: a value of this type only exists where the processor has the instruction.
        unsafe {
            asm!(".arch_extension i8mm", "smmla {:v}.4s, {:v}.16b, {:v}.16b",
                inout(vreg) sums, in(vreg) weights, in(vreg) x,
                options(nomem, nostack, preserves_flags));
        }
        sums
    }
}

/// Combines twice four columns of four rows into eight columns of two rows each.
///
/// The result holds the first two rows, and the last two. The same goes for tokens.
#[inline(always)]
fn eight_columns(first: int8x16_t, second: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: as in `add_products`.
    unsafe {
        let (first, second) = (vreinterpretq_s32_s8(first), vreinterpretq_s32_s8(second));
        [
            vreinterpretq_s8_s32(vzip1q_s32(first, second)),
            vreinterpretq_s8_s32(vzip2q_s32(first, second)),
        ]
    }
}

impl FourTokens for I8mm {
    /// Combines two [`FourColumns`]: eight columns of rows 0, 1, 4, 5, and of the others.
    #[inline(always)]
    fn reorder<const N: usize>(self, mut weights: [FourColumns; N]) -> [FourColumns; N] {
        for [first, second] in weights.as_chunks_mut::<2>().0 {
            let [a, b] = eight_columns(first[0], second[0]);
            let [c, d] = eight_columns(first[1], second[1]);
            (*first, *second) = ([a, c], [b, d]);
        }
        weights
    }

    #[inline(always)]
    fn four<const N: usize>(
        self,
        weights: &[FourColumns; N],
        x: &[int8x16_t; N],
        start: int32x4_t,
    ) -> [IntSums; 4] {
        // SAFETY: as in `add_products`.
        let starts = unsafe {
            let pairs = vreinterpretq_s64_s32(start);
            [
                vreinterpretq_s32_s64(vdupq_laneq_s64::<0>(pairs)),
                vreinterpretq_s32_s64(vdupq_laneq_s64::<1>(pairs)),
            ]
        };
        // Sums of two tokens and two rows each.
        let mut sums = starts.map(|start| [start; 4]);
        let pairs = weights.as_chunks::<2>().0.iter().zip(x.as_chunks::<2>().0);
        for (&[[rows01, rows45], [rows23, rows67]], &[x0, x1]) in pairs {
            for (sums, x) in sums.iter_mut().zip(eight_columns(x0, x1)) {
                for (sums, rows) in sums.iter_mut().zip([rows01, rows23, rows45, rows67]) {
                    *sums = self.add(*sums, rows, x);
                }
            }
        }
        let [first, second] = sums.map(|[a, b, c, d]| {
            // SAFETY: as in `add_products`.
            unsafe { [[vuzp1q_s32(a, b), vuzp1q_s32(c, d)], [vuzp2q_s32(a, b), vuzp2q_s32(c, d)]] }
        });
        let ([t0, t1], [t2, t3]) = (first, second);
        [t0, t1, t2, t3]
    }
}
