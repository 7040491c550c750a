//! Products of stripes of eight rows (`quantize/tiles.rs`) with the activations of one token or of
//! several.
//!
//! One token's activations meet the weights as they are taken apart. For several tokens, some hundred
//! columns of the stripe are taken apart first, into a buffer that stays in the nearest cache, and
//! the tokens go over them, four at a time.

use core::arch::aarch64::*;
use core::slice::ChunksExact;

use super::formats::{self, Simple, Super, Tile, Totals};
use super::isa::{DotProd, FourTokens, I8mm, Neon, OneToken, Sums, for_each_lane};
use super::vectors::{as_vectors, load_s8, load_vectors, store_f32, store_vectors, vectors_of};
use crate::cpu::Features;
use crate::llm::kernels::{Activations, Quads, RowSums};
use crate::llm::quantize::{
    BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, GROUP, GROUPS, Interleave, QUAD, QuadQ8_0, QuadQ8_1,
    QuadQ8K, SUPER_BLOCK, WeightType,
};

/// The instructions in use.
#[derive(Clone, Copy, Debug)]
pub enum Set {
    /// Those of every Armv8-A core.
    Neon,
    /// And `sdot`.
    DotProd(DotProd),
    /// And `smmla`.
    I8mm(I8mm),
}

impl Set {
    /// Whether weights are to be rearranged to stripes.
    pub const WANTS_STRIPES: bool = true;

    /// The best that a processor with these features has.
    pub fn best(features: Features) -> Set {
        Set::all(features).last().unwrap_or(Set::Neon)
    }

    /// All that a processor with these features has, the best one last.
    pub fn all(features: Features) -> impl Iterator<Item = Set> {
        let dotprod = DotProd::of(features).map(Set::DotProd);
        let i8mm = I8mm::of(features).map(Set::I8mm);
        [Some(Set::Neon), dotprod, i8mm].into_iter().flatten()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Set::Neon => "neon",
            Set::DotProd(_) => "dotprod",
            Set::I8mm(_) => "i8mm",
        }
    }
}

/// Calls one of the functions below for a type of weights.
macro_rules! for_type {
    ($kind:expr, $simple:ident, $super_blocks:ident, ($($argument:expr),*)) => {
        match $kind {
            WeightType::Q4_0 => $simple::<formats::Q4_0>($($argument),*),
            WeightType::Q4_1 => $simple::<formats::Q4_1>($($argument),*),
            WeightType::Q5_0 => $simple::<formats::Q5_0>($($argument),*),
            WeightType::Q5_1 => $simple::<formats::Q5_1>($($argument),*),
            WeightType::Q8_0 => $simple::<formats::Q8_0>($($argument),*),
            WeightType::IQ4_NL => $simple::<formats::Iq4Nl>($($argument),*),
            WeightType::Q2_K => $super_blocks::<formats::Q2K>($($argument),*),
            WeightType::Q3_K => $super_blocks::<formats::Q3K>($($argument),*),
            WeightType::Q4_K => $super_blocks::<formats::Q4K>($($argument),*),
            WeightType::Q5_K => $super_blocks::<formats::Q5K>($($argument),*),
            WeightType::Q6_K => $super_blocks::<formats::Q6K>($($argument),*),
            kind => unreachable!("{kind:?} has no tiles"),
        }
    };
}

/// The products of the rows of stripes with one token's activations: `sums` are those of each
/// stripe.
///
/// # Panics
/// There are no tiles of this type, or the activations are not what it wants.
pub fn multiply_stripes(
    set: Set,
    kind: WeightType,
    stripes: &[u8],
    x: &Activations<'_>,
    sums: &mut [RowSums],
) {
    let stripes = as_vectors(stripes);
    for_type!(kind, simple, super_blocks, (set, stripes, x, sums));
}

/// What gets the sums of each stripe: which stripe it is, and those of each token.
pub type Put<'a> = &'a mut dyn FnMut(usize, &[RowSums]);

/// The products of the rows of stripes of so many columns with the activations of several tokens.
/// `sums` is room for those of a stripe, of whole groups of four tokens; `put` gets them.
///
/// # Panics
/// As [`multiply_stripes`].
pub fn multiply_batch(
    set: Set,
    kind: WeightType,
    columns: usize,
    stripes: &[u8],
    x: &Quads<'_>,
    sums: &mut [RowSums],
    put: Put<'_>,
) {
    let stripes = as_vectors(stripes);
    for_type!(kind, simple_batch, super_batch, (set, columns, stripes, x, sums, put));
}

/// Calls a kernel for one token with the instructions of a set.
macro_rules! for_one_token {
    ($set:expr, $largest:expr, $isa:ident => $call:expr) => {
        // SAFETY: this module is only built where the whole build has NEON.
        unsafe {
            match $set {
                Set::Neon => {
                    let $isa = Neon { largest: $largest };
                    $call
                }
                Set::DotProd($isa) | Set::I8mm(I8mm { dotprod: $isa, .. }) => $call,
            }
        }
    };
}

/// Calls a kernel for four tokens at a time with the instructions of a set.
macro_rules! for_four_tokens {
    ($set:expr, $largest:expr, $isa:ident => $call:expr) => {
        // SAFETY: this module is only built where the whole build has NEON.
        unsafe {
            match $set {
                Set::Neon => {
                    let $isa = Neon { largest: $largest };
                    $call
                }
                Set::DotProd($isa) => $call,
                Set::I8mm($isa) => $call,
            }
        }
    };
}

fn simple<F: Simple>(set: Set, stripes: &[uint8x16_t], x: &Activations<'_>, sums: &mut [RowSums]) {
    let (tiles, x) = (F::Tile::of(stripes), F::Activations::of(x));
    if F::HAS_NIBBLES && matches!(set, Set::Neon) {
        // SAFETY: this module is only built where the whole build has NEON.
        return unsafe { nibbles_one::<F>(tiles, x, sums) };
    }
    for_one_token!(set, F::LARGEST, isa => simple_one::<_, F>(isa, tiles, x, sums));
}

fn simple_batch<F: Simple>(
    set: Set,
    columns: usize,
    stripes: &[uint8x16_t],
    x: &Quads<'_>,
    sums: &mut [RowSums],
    put: Put<'_>,
) {
    let stripes = F::Tile::of(stripes).chunks_exact(columns / BLOCK);
    let x = F::Activations::quads(x);
    for_four_tokens!(set, F::LARGEST, isa => simple_quads::<_, F>(isa, stripes, x, sums, put));
}

fn super_blocks<F: Super>(
    set: Set,
    stripes: &[uint8x16_t],
    x: &Activations<'_>,
    sums: &mut [RowSums],
) {
    let Activations::Q8K(x) = *x else { unreachable!("{CHECKED}") };
    let tiles = F::Tile::of(stripes);
    for_one_token!(set, F::LARGEST, isa => super_one::<_, F>(isa, tiles, x, sums));
}

fn super_batch<F: Super>(
    set: Set,
    columns: usize,
    stripes: &[uint8x16_t],
    x: &Quads<'_>,
    sums: &mut [RowSums],
    put: Put<'_>,
) {
    let stripes = F::Tile::of(stripes).chunks_exact(columns / SUPER_BLOCK);
    let Quads::Q8K(x) = *x else { unreachable!("{CHECKED}") };
    for_four_tokens!(set, F::LARGEST, isa => super_quads::<_, F>(isa, stripes, x, sums, put));
}

/// Why other activations never come here.
const CHECKED: &str = "the caller has compared the formats";

/// The activations that [`Simple`] types are multiplied with.
pub trait Block8: Interleave {
    /// Those of the one token.
    fn of<'a>(x: &Activations<'a>) -> &'a [Self];

    /// Those of several tokens.
    fn quads<'a>(x: &Quads<'a>) -> &'a [Self::Quad];

    /// The activations, their scale, and what the type has of their sum, bit by bit.
    fn parts(&self) -> (&[i8; BLOCK], f32, u32);

    /// The same of four tokens: eight vectors, one and one.
    fn quad_vectors(quad: &Self::Quad) -> &[int8x16_t; 10];
}

impl Block8 for BlockQ8_0 {
    fn of<'a>(x: &Activations<'a>) -> &'a [Self] {
        let Activations::Q8_0(x) = *x else { unreachable!("{CHECKED}") };
        x
    }

    fn quads<'a>(x: &Quads<'a>) -> &'a [QuadQ8_0] {
        let Quads::Q8_0(x) = *x else { unreachable!("{CHECKED}") };
        x
    }

    #[inline(always)]
    fn parts(&self) -> (&[i8; BLOCK], f32, u32) {
        (&self.qs, self.d, self.minus_8_sums as u32)
    }

    #[inline(always)]
    fn quad_vectors(quad: &QuadQ8_0) -> &[int8x16_t; 10] {
        vectors_of(quad)
    }
}

impl Block8 for BlockQ8_1 {
    fn of<'a>(x: &Activations<'a>) -> &'a [Self] {
        let Activations::Q8_1(x) = *x else { unreachable!("{CHECKED}") };
        x
    }

    fn quads<'a>(x: &Quads<'a>) -> &'a [QuadQ8_1] {
        let Quads::Q8_1(x) = *x else { unreachable!("{CHECKED}") };
        x
    }

    #[inline(always)]
    fn parts(&self) -> (&[i8; BLOCK], f32, u32) {
        (&self.qs, self.d, self.sum.to_bits())
    }

    #[inline(always)]
    fn quad_vectors(quad: &QuadQ8_1) -> &[int8x16_t; 10] {
        vectors_of(quad)
    }
}

/// The sums of the rows out of vectors.
#[target_feature(enable = "neon")]
fn store_totals(totals: Totals, sums: &mut RowSums) {
    store_vectors(sums, totals.map(|totals| vreinterpretq_u8_f32(totals)));
}

#[target_feature(enable = "neon")]
fn load_totals(sums: &RowSums) -> Totals {
    load_vectors(sums).map(|sums| vreinterpretq_f32_u8(sums))
}

/// Copies the sums of a stripe, which the compiler would call a function for.
pub fn copy_sums(sums: &RowSums, out: &mut RowSums) {
    // SAFETY: this module is only built where the whole build has NEON.
    unsafe { store_totals(load_totals(sums), out) }
}

// Each kernel is a function of its own: put into one, they would all save what only one of them
// needs.

#[inline(never)]
#[target_feature(enable = "neon")]
fn simple_one<I: OneToken, F: Simple>(
    isa: I,
    tiles: &[F::Tile],
    x: &[F::Activations],
    row_sums: &mut [RowSums],
) {
    // Where two stripes can share each block of activations, they do.
    let (pairs, single) = match I::TWO_STRIPES {
        true => row_sums.as_chunks_mut::<2>(),
        false => (Default::default(), row_sums),
    };
    let (of_pairs, of_single) = tiles.split_at(pairs.len() * 2 * x.len());
    for (tiles, row_sums) in of_pairs.chunks_exact(2 * x.len()).zip(pairs) {
        let (first, second) = tiles.split_at(x.len());
        for (totals, row_sums) in
            simple_totals::<_, F, 2>(isa, [first, second], x).iter().zip(row_sums)
        {
            store_totals(*totals, row_sums);
        }
    }
    for (tiles, row_sums) in of_single.chunks_exact(x.len()).zip(single) {
        let [totals] = simple_totals::<_, F, 1>(isa, [tiles], x);
        store_totals(totals, row_sums);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn simple_totals<I: OneToken, F: Simple, const N: usize>(
    isa: I,
    stripes: [&[F::Tile]; N],
    x: &[F::Activations],
) -> [Totals; N] {
    let stripes = stripes.map(|tiles| &tiles[..x.len()]);
    let mut totals = [[vdupq_n_f32(0.0); 2]; N];
    for (i, x) in x.iter().enumerate() {
        let (qs, d, sum) = x.parts();
        let start = F::start(vdupq_n_s32(sum as i32));
        let qs = load_vectors::<_, _, 2>(qs).map(|qs| vreinterpretq_s8_u8(qs));
        for (totals, tiles) in totals.iter_mut().zip(stripes) {
            let tile = &tiles[i];
            let sums = isa.one(F::weights(tile), &qs, start);
            add_scaled::<F>(totals, sums, tile, (d, sum));
        }
    }
    totals
}

/// Adds the sums of a block's products, scaled. `(d, sum)` are those of [`Block8::parts`].
#[inline]
#[target_feature(enable = "neon")]
fn add_scaled<F: Simple>(totals: &mut Totals, sums: Sums, tile: &F::Tile, (d, sum): (f32, u32)) {
    let scales = F::scales(tile);
    for half in 0..2 {
        let scaled = vmulq_f32(vcvtq_f32_s32(sums[half]), scales[half]);
        totals[half] = vfmaq_n_f32(totals[half], scaled, d);
        if F::HAS_OFFSETS {
            let offsets = F::offsets(tile)[half];
            totals[half] = vfmaq_n_f32(totals[half], offsets, f32::from_bits(sum));
        }
    }
}

/// Blocks of activations that are prepared for half bytes at a time: 1 KiB.
const PREPARED: usize = 16;

/// What [`nibble_totals`] multiplies with: for each of the four words of a block four pairs of
/// numbers of 16 bits.
type Factors = [[i32; 4]; 4];

/// One token for weights that are half bytes, in lanes of 16 bits, so that they need not be taken
/// apart. A lane holds four, a + 16 b + 256 c + 4096 d. Shifted right by 12 bits it is d, by 8 bits
/// c + 16 d, and so on: what is too much in one goes off with the factor of the next one. All of that
/// is right modulo 2^16, and so is the sum, which fits: 16 products of at most 15 and 127.
#[inline(never)]
#[target_feature(enable = "neon")]
fn nibbles_one<F: Simple>(tiles: &[F::Tile], x: &[F::Activations], row_sums: &mut [RowSums]) {
    let mut factors = [Factors::default(); PREPARED];
    for (n, part) in x.chunks(PREPARED).enumerate() {
        for (factors, x) in factors.iter_mut().zip(part) {
            prepare_factors(x.parts().0, factors);
        }
        // Two stripes share each block's factors.
        let mut stripes = tiles.chunks_exact(x.len()).map(|tiles| &tiles[n * PREPARED..]);
        let (pairs, single) = row_sums.as_chunks_mut::<2>();
        for row_sums in pairs {
            let (Some(first), Some(second)) = (stripes.next(), stripes.next()) else { break };
            nibble_totals::<F, 2>(n == 0, [first, second], part, &factors, row_sums);
        }
        if let (Some(tiles), [row_sums]) = (stripes.next(), single) {
            let row_sums = core::array::from_mut(row_sums);
            nibble_totals::<F, 1>(n == 0, [tiles], part, &factors, row_sums);
        }
    }
}

/// The factors of a block's activations: of a lane's four weights a and c are of neighbouring columns,
/// b and d of those 16 behind.
#[inline]
#[target_feature(enable = "neon")]
fn prepare_factors(qs: &[i8; BLOCK], factors: &mut Factors) {
    let [low, high] = load_vectors(qs).map(|qs| vreinterpretq_s16_u8(qs));
    let even = |x| vshrq_n_s16::<8>(vshlq_n_s16::<8>(x));
    let odd = |x| vshrq_n_s16::<8>(x);
    let less_16 = |x, before| vsubq_s16(x, vshlq_n_s16::<4>(before));
    let (a, b, c, d) = (even(low), even(high), odd(low), odd(high));
    let [a, b, c, d] =
        [a, less_16(b, a), less_16(c, b), less_16(d, c)].map(|x| vreinterpretq_s32_s16(x));
    // SAFETY: the reference is valid for writes of 64 bytes.
    unsafe { vst4q_s32(factors.as_mut_ptr().cast(), int32x4x4_t(a, b, c, d)) };
}

/// Adds the products of blocks to the sums of N stripes, or begins those.
#[inline]
#[target_feature(enable = "neon")]
fn nibble_totals<F: Simple, const N: usize>(
    begin: bool,
    stripes: [&[F::Tile]; N],
    x: &[F::Activations],
    factors: &[Factors; PREPARED],
    row_sums: &mut [RowSums; N],
) {
    let stripes = stripes.map(|tiles| &tiles[..x.len()]);
    let mut totals = [[vdupq_n_f32(0.0); 2]; N];
    if !begin {
        for (totals, row_sums) in totals.iter_mut().zip(&*row_sums) {
            *totals = load_totals(row_sums);
        }
    }
    for (i, (x, factors)) in x.iter().zip(factors).enumerate() {
        let mut sums = [[vdupq_n_s16(0); 2]; N];
        for (word, factors) in factors.iter().enumerate() {
            // SAFETY: the reference is valid for reads of 16 bytes.
            let int32x4x4_t(a, b, c, d) = unsafe { vld4q_dup_s32(factors.as_ptr()) };
            let [a, b, c, d] = [a, b, c, d].map(|x| vreinterpretq_s16_s32(x));
            for (sums, tiles) in sums.iter_mut().zip(stripes) {
                let Some(words) = F::nibbles(&tiles[i]) else { return };
                for (sum, lanes) in sums.iter_mut().zip(words[word]) {
                    let lanes = vreinterpretq_u16_u8(lanes);
                    let signed = |lanes| vreinterpretq_s16_u16(lanes);
                    *sum = vmlaq_s16(*sum, signed(lanes), a);
                    *sum = vmlaq_s16(*sum, signed(vshrq_n_u16::<4>(lanes)), b);
                    *sum = vmlaq_s16(*sum, signed(vshrq_n_u16::<8>(lanes)), c);
                    *sum = vmlaq_s16(*sum, signed(vshrq_n_u16::<12>(lanes)), d);
                }
            }
        }
        let (_, d, sum) = x.parts();
        let start = F::start(vdupq_n_s32(sum as i32));
        for ((totals, sums), tiles) in totals.iter_mut().zip(sums).zip(stripes) {
            let sums = sums.map(|sums| vpadalq_s16(start, sums));
            add_scaled::<F>(totals, sums, &tiles[i], (d, sum));
        }
    }
    for (totals, row_sums) in totals.iter().zip(row_sums) {
        store_totals(*totals, row_sums);
    }
}

/// Blocks of 32 columns that are taken apart at a time.
const BLOCKS_AT_ONCE: usize = 32;

#[inline(never)]
#[target_feature(enable = "neon")]
fn simple_quads<I: FourTokens, F: Simple>(
    isa: I,
    stripes: ChunksExact<'_, F::Tile>,
    x: &[<F::Activations as Interleave>::Quad],
    sums: &mut [RowSums],
    put: Put<'_>,
) {
    // Each with its weights, its scales and its offsets.
    let none = [vdupq_n_f32(0.0); 2];
    let mut taken_apart = [([[vdupq_n_s8(0); 2]; 8], none, none); BLOCKS_AT_ONCE];
    for (stripe, tiles) in stripes.enumerate() {
        for (i, some) in tiles.chunks(BLOCKS_AT_ONCE).enumerate() {
            for (tile, (weights, scales, offsets)) in some.iter().zip(&mut taken_apart) {
                *weights = isa.arrange(F::weights(tile));
                *scales = F::scales(tile);
                if F::HAS_OFFSETS {
                    *offsets = F::offsets(tile);
                }
            }
            let of_tokens = x.chunks_exact(tiles.len()).zip(sums.as_chunks_mut::<QUAD>().0);
            for (x, sums) in of_tokens {
                let mut totals = [none; QUAD];
                if i > 0 {
                    totals = sums.each_ref().map(|sums| load_totals(sums));
                }
                let x = &x[i * BLOCKS_AT_ONCE..][..some.len()];
                for ((weights, scales, offsets), x) in taken_apart.iter().zip(x) {
                    let [qs @ .., d, sum] = F::Activations::quad_vectors(x);
                    let products = isa.four(weights, qs, F::start(vreinterpretq_s32_s8(*sum)));
                    let (d, sum) = (vreinterpretq_f32_s8(*d), vreinterpretq_f32_s8(*sum));
                    for_each_lane!(TOKEN => {
                        let total = &mut totals[TOKEN as usize];
                        for half in 0..2 {
                            let products = vcvtq_f32_s32(products[TOKEN as usize][half]);
                            let scaled = vmulq_f32(products, scales[half]);
                            total[half] = vfmaq_laneq_f32::<TOKEN>(total[half], scaled, d);
                            if F::HAS_OFFSETS {
                                total[half] =
                                    vfmaq_laneq_f32::<TOKEN>(total[half], offsets[half], sum);
                            }
                        }
                    });
                }
                for (totals, sums) in totals.into_iter().zip(sums) {
                    store_totals(totals, sums);
                }
            }
        }
        put(stripe, sums);
    }
}

/// The numbers of each row, wider.
#[target_feature(enable = "neon")]
fn widen(numbers: int8x8_t) -> Sums {
    let numbers = vmovl_s8(numbers);
    [vmovl_s16(vget_low_s16(numbers)), vmovl_high_s16(numbers)]
}

/// Adds the products of a block of 256, of activations of scale `x_d`, from the sums of whole
/// numbers: as `scale_sums` of the portable kernels has it.
#[target_feature(enable = "neon")]
fn add_block<F: Super>(
    total: &mut Totals,
    [d, d_min]: &[Totals; 2],
    x_d: f32,
    sums: Sums,
    min_sums: Sums,
) {
    for half in 0..2 {
        let mut product = vmulq_f32(vcvtq_f32_s32(sums[half]), vmulq_n_f32(d[half], x_d));
        if F::HAS_MINS {
            let min = vmulq_f32(vcvtq_f32_s32(min_sums[half]), vmulq_n_f32(d_min[half], x_d));
            // An infinite scale times 0 would be no number.
            let none = vreinterpretq_s32_u32(vceqzq_f32(d_min[half]));
            let min = vbicq_s32(vreinterpretq_s32_f32(min), none);
            product = vsubq_f32(product, vreinterpretq_f32_s32(min));
        }
        total[half] = vaddq_f32(total[half], product);
    }
}

#[inline(never)]
#[target_feature(enable = "neon")]
fn super_one<I: OneToken, F: Super>(
    isa: I,
    tiles: &[F::Tile],
    x: &[BlockQ8K],
    row_sums: &mut [RowSums],
) {
    for (tiles, row_sums) in tiles.chunks_exact(x.len()).zip(row_sums) {
        let mut total = [vdupq_n_f32(0.0); 2];
        for (tile, x) in tiles.iter().zip(x) {
            let (scales, mins) = F::scales(tile);
            let (mut sums, mut min_sums) = ([vdupq_n_s32(0); 2], [vdupq_n_s32(0); 2]);
            for_each_lane!(QUARTER => {
                let quarter = QUARTER as usize;
                let groups = F::QUARTERS[quarter];
                let qs = groups.map(|group| load_s8(&x.qs, group * GROUP));
                let start = groups.map(|group| F::start(vdupq_n_s32(x.minus_32_sums[group])));
                let products = isa.sixteens(|i| F::weights(tile, quarter, i), qs, start);
                for (products, group) in products.into_iter().zip(groups) {
                    let scales = widen(scales[group]);
                    for half in 0..2 {
                        sums[half] = vmlaq_s32(sums[half], products[half], scales[half]);
                    }
                }
            });
            if F::HAS_MINS {
                for (mins, &x) in mins.into_iter().zip(&x.sums) {
                    let mins = vreinterpretq_s16_u16(vmovl_u8(mins));
                    min_sums[0] = vmlal_n_s16(min_sums[0], vget_low_s16(mins), x);
                    min_sums[1] = vmlal_high_n_s16(min_sums[1], mins, x);
                }
            }
            add_block::<F>(&mut total, &F::d(tile), x.d, sums, min_sums);
        }
        // Not `store_totals`, whose one store of both makes the compiler spill registers in the loop
        // above.
        for (sums, total) in row_sums.as_chunks_mut().0.iter_mut().zip(total) {
            store_f32(sums, total);
        }
    }
}

#[inline(never)]
#[target_feature(enable = "neon")]
fn super_quads<I: FourTokens, F: Super>(
    isa: I,
    stripes: ChunksExact<'_, F::Tile>,
    x: &[QuadQ8K],
    row_sums: &mut [RowSums],
    put: Put<'_>,
) {
    let mut weights = [[[vdupq_n_s8(0); 2]; 4]; GROUPS];
    for (stripe, tiles) in stripes.enumerate() {
        row_sums.fill([0.0; 8]);
        for (i, tile) in tiles.iter().enumerate() {
            for (quarter, groups) in F::QUARTERS.into_iter().enumerate() {
                let words: [_; 4] = core::array::from_fn(|i| F::weights(tile, quarter, i));
                for (i, group) in groups.into_iter().enumerate() {
                    weights[group] = isa.arrange(words.map(|groups| groups[i]));
                }
            }
            let (scales, mins) = F::scales(tile);
            let scales = scales.map(|scales| widen(scales));
            let d = F::d(tile);
            let of_tokens = x.chunks_exact(tiles.len()).zip(row_sums.as_chunks_mut::<QUAD>().0);
            for (x, row_sums) in of_tokens {
                let vectors: &[int8x16_t; 89] = vectors_of(&x[i]);
                let (qs, rest) = vectors.split_at(SUPER_BLOCK / QUAD);
                let (starts, rest) = rest.split_at(GROUPS);
                let (x_sums, x_d) = rest.split_at(GROUPS / 2);
                let (qs, _) = qs.as_chunks::<4>();
                let mut sums = [[vdupq_n_s32(0); 2]; QUAD];
                let mut min_sums = sums;
                for (((weights, scales), qs), start) in
                    weights.iter().zip(&scales).zip(qs).zip(starts)
                {
                    let products = isa.four(weights, qs, F::start(vreinterpretq_s32_s8(*start)));
                    for (sums, products) in sums.iter_mut().zip(products) {
                        for half in 0..2 {
                            sums[half] = vmlaq_s32(sums[half], products[half], scales[half]);
                        }
                    }
                }
                if F::HAS_MINS {
                    for (mins, x) in mins.as_chunks::<2>().0.iter().zip(x_sums) {
                        let [first, second] =
                            mins.map(|mins| vreinterpretq_s16_u16(vmovl_u8(mins)));
                        let x = vreinterpretq_s16_s8(*x);
                        let (x_first, x_second) = (vget_low_s16(x), vget_high_s16(x));
                        for_each_lane!(TOKEN => {
                            let [low, high] = &mut min_sums[TOKEN as usize];
                            *low = vmlal_lane_s16::<TOKEN>(*low, vget_low_s16(first), x_first);
                            *high = vmlal_high_lane_s16::<TOKEN>(*high, first, x_first);
                            *low = vmlal_lane_s16::<TOKEN>(*low, vget_low_s16(second), x_second);
                            *high = vmlal_high_lane_s16::<TOKEN>(*high, second, x_second);
                        });
                    }
                }
                let x_d = vreinterpretq_f32_s8(x_d[0]);
                for_each_lane!(TOKEN => {
                    let token = TOKEN as usize;
                    let mut total = load_totals(&row_sums[token]);
                    let x_d = vgetq_lane_f32::<TOKEN>(x_d);
                    add_block::<F>(&mut total, &d, x_d, sums[token], min_sums[token]);
                    store_totals(total, &mut row_sums[token]);
                });
            }
        }
        put(stripe, row_sums);
    }
}
