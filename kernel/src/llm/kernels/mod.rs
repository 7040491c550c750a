//! The inner loops: dot products of weights with activations, and the element-wise steps.
//!
//! Each dot product has a portable reference ([`scalar`]) and, with the feature `simd`, one for
//! the vector unit at hand. All give the same bits, so that a model's text does not depend on the
//! machine: integer sums are exact, and the order of floating-point sums is fixed.
//!
//! The element-wise steps are written once, over [`lanes`].
//!
//! The numbers follow ggml's CPU backend (`ops.cpp`, `vec.h`, `ggml-quants.c`).

mod activations;
mod attention;
mod elementwise;
mod functions;
mod lanes;
#[cfg(all(feature = "simd", target_arch = "aarch64", target_feature = "neon"))]
mod neon;
#[cfg(not(all(feature = "simd", target_arch = "aarch64", target_feature = "neon")))]
mod portable;
mod scalar;
pub mod self_test;
mod steps;

#[cfg(all(feature = "simd", target_arch = "aarch64", target_feature = "neon"))]
use neon as active;
#[cfg(not(all(feature = "simd", target_arch = "aarch64", target_feature = "neon")))]
use portable as active;

pub use attention::HeadRows;
pub use elementwise::*;

use alloc::vec::Vec;
use core::ops::Range;

use crate::cpu::Features;
use crate::llm::quantize::{
    self, ActivationType, BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, Interleave, QUAD, QuadQ8_0,
    QuadQ8_1, QuadQ8K, SUPER_BLOCK, Scales, TILE_ROWS, WeightType,
};

/// Lanes in which floating-point sums run.
pub const LANES: usize = 4;

/// Tokens that can be multiplied with the same weights at once.
pub const BATCH: usize = 32;

/// The sums of the rows of a stripe for a token.
pub type RowSums = [f32; TILE_ROWS];

/// The kernels in use: the best that the processor has.
fn set() -> active::Set {
    static SET: spin::Once<active::Set> = spin::Once::new();
    *SET.call_once(|| active::Set::best(Features::of_this_core()))
}

/// Which kernels are in use: "scalar", "neon", "dotprod" or "i8mm".
pub fn name() -> &'static str {
    set().name()
}

/// Whether the kernels want weights of this type as stripes.
pub fn wants_stripes(kind: WeightType) -> bool {
    active::Set::WANTS_STRIPES && kind.has_tiles()
}

/// Rearranges eight rows of weights, which lie one after the other, to a stripe
/// ([`WeightType::make_stripe`]). `copy` is room for a copy of them.
///
/// # Panics
/// These are not eight rows of whole blocks.
pub fn make_stripe(kind: WeightType, rows: &mut [u8], copy: &mut Vec<u8>) {
    active::make_stripe(kind, rows, copy);
}

/// Puts the blocks of each four tokens side by side, as [`quantize::interleave`] does.
pub fn interleave<B: Interleave>(tokens: &[B], n: usize, quads: &mut [B::Quad]) {
    quantize::interleave(tokens, n, quads, active::interleave_words);
}

/// Neighbouring rows of a matrix of weights.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The format of the weights.
    pub kind: WeightType,
    /// Weights of a row.
    pub columns: usize,
    /// The rows, one after the other.
    pub bytes: &'a [u8],
    /// Whether each whole eight of them are rearranged to a stripe.
    pub striped: bool,
}

impl<'a> Rows<'a> {
    /// The stripes, and the rows that are as in the file.
    fn split(&self) -> (&'a [u8], &'a [u8]) {
        let stripe_bytes = TILE_ROWS * self.row_bytes();
        let striped = if self.striped { self.bytes.len() / stripe_bytes * stripe_bytes } else { 0 };
        self.bytes.split_at(striped)
    }

    fn row_bytes(&self) -> usize {
        self.kind.row_bytes(self.columns)
    }
}

/// The activations of some tokens, a row's length each.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// How many tokens: 1 to [`BATCH`].
    pub n: usize,
    /// Those of one token after the other.
    pub x: Activations<'a>,
    /// If there are several, the same as [`crate::llm::quantize::Interleave`] puts them.
    pub quads: Quads<'a>,
}

/// The activations of each four tokens side by side: `[tokens / 4, blocks]`.
#[derive(Clone, Copy, Debug)]
pub enum Quads<'a> {
    /// Not there: there is one token, or no weights want it.
    None,
    /// Of [`Activations::Q8_0`].
    Q8_0(&'a [QuadQ8_0]),
    /// Of [`Activations::Q8_1`].
    Q8_1(&'a [QuadQ8_1]),
    /// Of [`Activations::Q8K`].
    Q8K(&'a [QuadQ8K]),
}

impl<'a> Batch<'a> {
    /// One token's activations.
    pub fn one(x: Activations<'a>) -> Self {
        Batch { n: 1, x, quads: Quads::None }
    }

    /// Those of one of the tokens.
    fn token(&self, token: usize) -> Activations<'a> {
        let len = self.x.len() / self.n;
        self.x.part(token * len..(token + 1) * len)
    }
}

/// Activations, in the format in which the weights at hand want them.
#[derive(Clone, Copy, Debug)]
pub enum Activations<'a> {
    /// As they are, for weights in F32.
    F32(&'a [f32]),
    /// Rounded to F16, for weights in F16.
    F16(&'a [f32]),
    /// Rounded to BF16, for weights in BF16.
    BF16(&'a [f32]),
    /// For weights in blocks of 32 without an offset.
    Q8_0(&'a [BlockQ8_0]),
    /// For weights in blocks of 32 with an offset.
    Q8_1(&'a [BlockQ8_1]),
    /// For weights in blocks of 256.
    Q8K(&'a [BlockQ8K]),
}

impl<'a> Activations<'a> {
    /// Some of them, which are whole blocks.
    pub fn part(&self, range: Range<usize>) -> Activations<'a> {
        let blocks = |n: usize| {
            debug_assert!(range.start.is_multiple_of(n) && range.end.is_multiple_of(n));
            range.start / n..range.end / n
        };
        match *self {
            Activations::F32(x) => Activations::F32(&x[range]),
            Activations::F16(x) => Activations::F16(&x[range]),
            Activations::BF16(x) => Activations::BF16(&x[range]),
            Activations::Q8_0(x) => Activations::Q8_0(&x[blocks(BLOCK)]),
            Activations::Q8_1(x) => Activations::Q8_1(&x[blocks(BLOCK)]),
            Activations::Q8K(x) => Activations::Q8K(&x[blocks(SUPER_BLOCK)]),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Activations::F32(x) | Activations::F16(x) | Activations::BF16(x) => x.len(),
            Activations::Q8_0(x) => x.len() * BLOCK,
            Activations::Q8_1(x) => x.len() * BLOCK,
            Activations::Q8K(x) => x.len() * SUPER_BLOCK,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their format.
    pub fn kind(&self) -> ActivationType {
        match self {
            Activations::F32(_) => ActivationType::F32,
            Activations::F16(_) => ActivationType::F16,
            Activations::BF16(_) => ActivationType::BF16,
            Activations::Q8_0(_) => ActivationType::Q8_0,
            Activations::Q8_1(_) => ActivationType::Q8_1,
            Activations::Q8K(_) => ActivationType::Q8_K,
        }
    }
}

/// Where products go: a row of them for each token.
pub trait Output {
    /// Those of each token, one for each row of weights.
    fn of_tokens(&mut self) -> impl Iterator<Item = &mut [f32]>;
}

/// The dot products of rows of weights with the activations of each token, in the format that the
/// weights want ([`WeightType::activations`]).
///
/// # Panics
/// The activations are in another format, or `out` or they are of another length or of other tokens.
pub fn multiply(rows: &Rows<'_>, x: &Batch<'_>, out: &mut impl Output) {
    multiply_with(set(), rows, x, out);
}

fn multiply_with(set: active::Set, rows: &Rows<'_>, x: &Batch<'_>, out: &mut impl Output) {
    let kind = rows.kind;
    assert!(kind.activations() == x.x.kind(), "{kind:?} weights with {:?} activations", x.x.kind());
    assert!(x.n * rows.columns == x.x.len() && x.n <= BATCH, "{} activations", x.x.len());
    let n_out = out.of_tokens().count();
    assert!(x.n == n_out, "{} tokens with room for {n_out}", x.n);
    let row_bytes = rows.row_bytes();
    let (stripes, rest) = rows.split();
    let striped = stripes.len() / row_bytes;
    if striped == 0 {
        // The types that have no tiles, and matrices of a few rows.
    } else if matches!(x.quads, Quads::None) || !active::Set::WANTS_STRIPES {
        for (token, out) in out.of_tokens().enumerate() {
            let (sums, _) = out[..striped].as_chunks_mut();
            active::multiply_stripes(set, kind, stripes, &x.token(token), sums);
        }
    } else {
        let mut sums = [[0.0; TILE_ROWS]; BATCH];
        let sums = &mut sums[..x.n.next_multiple_of(QUAD)];
        active::multiply_batch(set, kind, rows.columns, stripes, &x.quads, sums, &mut |i, sums| {
            for (sums, out) in sums.iter().zip(out.of_tokens()) {
                active::copy_sums(sums, &mut out.as_chunks_mut().0[i]);
            }
        });
    }
    for (token, out) in out.of_tokens().enumerate() {
        let x = x.token(token);
        let sums = &mut out[striped..];
        assert_eq!(rest.len(), sums.len() * row_bytes, "bytes of rows for {} places", sums.len());
        for (sum, row) in sums.iter_mut().zip(rest.chunks_exact(row_bytes)) {
            *sum = active::dot(kind, row, &x);
        }
    }
}

/// The dot product of one row, as it lies in the file, with activations in the format that `kind`
/// wants.
///
/// # Panics
/// The activations are in another format, or of another length.
pub fn dot(kind: WeightType, row: &[u8], x: &Activations<'_>) -> f32 {
    assert!(kind.activations() == x.kind(), "{kind:?} weights with {:?} activations", x.kind());
    assert!(row.len() == kind.row_bytes(x.len()), "{} bytes of a row", row.len());
    active::dot(kind, row, x)
}

/// The dot product of a block of 256 weights with activations of scale `x_d`, from the sums of whole
/// numbers: `sum`, of the products, and `min_sum`, of what the minimums take off.
fn scale_sums(scales: &Scales, x_d: f32, sum: i32, min_sum: impl FnOnce() -> i32) -> f32 {
    let product = sum as f32 * (scales.d * x_d);
    // Most types have none, and an infinite scale times 0 would be no number.
    if scales.d_min == 0.0 { product } else { product - min_sum() as f32 * (scales.d_min * x_d) }
}
