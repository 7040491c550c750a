//! What runs where there are no vector kernels: the portable ones.

#![forbid(unsafe_code)]

use alloc::vec::Vec;

use super::scalar::Dot;
use super::{Activations, Quads, RowSums};
use crate::cpu::Features;
use crate::llm::quantize::{Row, TILE_ROWS, WeightType, move_units};

pub use super::scalar::{Vector, dot};
pub use crate::llm::quantize::interleave_words;

/// The portable kernels are one set.
#[derive(Clone, Copy, Debug)]
pub struct Set;

impl Set {
    /// Rows suit them as they are, and tokens one by one.
    pub const WANTS_STRIPES: bool = false;

    /// The only set.
    pub fn all(_: Features) -> impl Iterator<Item = Set> {
        core::iter::once(Set)
    }

    /// The only set.
    pub fn best(_: Features) -> Set {
        Set
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        "scalar"
    }
}

/// The products of the rows of stripes with one token's activations: `sums` are those of each
/// stripe.
pub fn multiply_stripes(
    _: Set,
    kind: WeightType,
    stripes: &[u8],
    x: &Activations<'_>,
    sums: &mut [RowSums],
) {
    let stripe_bytes = TILE_ROWS * kind.row_bytes(x.len());
    for (stripe, sums) in stripes.chunks_exact(stripe_bytes).zip(sums) {
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = kind.visit(Dot { row: Row::of_stripe(kind, stripe, row), x });
        }
    }
}

/// Not there, see [`Set::WANTS_STRIPES`].
pub fn multiply_batch(
    _: Set,
    _: WeightType,
    _: usize,
    _: &[u8],
    _: &Quads<'_>,
    _: &mut [RowSums],
    _: &mut dyn FnMut(usize, &[RowSums]),
) {
    unreachable!("tokens are taken one by one")
}

/// Copies the sums of a stripe.
pub fn copy_sums(sums: &RowSums, out: &mut RowSums) {
    *out = *sums;
}

/// Rearranges eight rows to a stripe.
pub fn make_stripe(kind: WeightType, rows: &mut [u8], copy: &mut Vec<u8>) {
    kind.make_stripe(rows, copy, move_units::<4>);
}
