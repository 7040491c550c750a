//! What runs where there are no vector kernels: the portable ones.

#![forbid(unsafe_code)]

use alloc::vec::Vec;

use super::cpu::Features;
use super::scalar::{self, Dot};
use super::{Activations, Batch, RowSums, each_row};
use crate::llm::quantize::{Row, WeightType, move_units};

pub use super::scalar::{Vector, add_scaled_f16, add_scaled_f32, add_scaled_q8_0};

/// The portable kernels are one set.
#[derive(Clone, Copy, Debug)]
pub struct Set;

impl Set {
    /// Rows suit them as they are.
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

/// The dot products of rows of weights with activations: one for each of `out`.
pub fn multiply(kind: WeightType, rows: &[u8], x: &Activations<'_>, out: &mut [f32]) {
    each_row(rows, out, |row| scalar::dot(kind, row, x));
}

/// The products of the rows of a stripe with each token of the batch.
pub fn multiply_stripe(
    _: Set,
    kind: WeightType,
    stripe: &[u8],
    x: &Batch<'_>,
    sums: &mut [RowSums],
) {
    for (token, sums) in sums[..x.n].iter_mut().enumerate() {
        let x = x.token(token);
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = kind.visit(Dot { row: Row::of_stripe(kind, stripe, row), x: &x });
        }
    }
}

/// Rearranges eight rows to a stripe.
pub fn make_stripe(kind: WeightType, rows: &mut [u8], copy: &mut Vec<u8>) {
    kind.make_stripe(rows, copy, move_units::<4>);
}
