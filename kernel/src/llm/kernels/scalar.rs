//! The portable kernels: the reference whose bits all other kernels must give.
//!
//! Blocks are added up in order. Sums of plain numbers run in [`LANES`] lanes, as in a vector unit,
//! and the lanes are added in a fixed order at the end. The reference also defines where a
//! multiply-add rounds once, and where twice.

pub use super::lanes::Portable as Vector;

use libm::fmaf;

use super::lanes::LANES;
use super::operands::{Activations, FORMATS_AGREE};
use crate::llm::quantize::{
    Block, BlockQ8_0, BlockQ8_1, BlockQ8K, GROUP, Row, SuperBlock, Visitor, WeightType,
};

/// The sum of the lanes, in the order of a pairwise addition of vectors.
fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
}

/// The dot product of one row.
pub fn dot(kind: WeightType, row: &[u8], x: &Activations<'_>) -> f32 {
    kind.visit(Dot { row: Row::of_file(row), x })
}

/// A dot product, for [`WeightType::visit`].
pub struct Dot<'a> {
    pub row: Row<'a>,
    pub x: &'a Activations<'a>,
}

impl Visitor for Dot<'_> {
    type Output = f32;

    fn numbers<const N: usize>(self, value: impl Fn(&[u8; N]) -> f32) -> f32 {
        let (Activations::F32(x) | Activations::F16(x) | Activations::BF16(x)) = *self.x else {
            unreachable!("{FORMATS_AGREE}")
        };
        dot_numbers(self.row.blocks().map(|block| value(&block)), x)
    }

    fn blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> Block) -> f32 {
        let blocks = self.row.blocks().map(|block| unpack(&block));
        match *self.x {
            Activations::Q8_0(x) => dot_blocks(blocks, x),
            Activations::Q8_1(x) => dot_blocks_with_offset(blocks, x),
            _ => unreachable!("{FORMATS_AGREE}"),
        }
    }

    fn super_blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> SuperBlock) -> f32 {
        let Activations::Q8K(x) = *self.x else { unreachable!("{FORMATS_AGREE}") };
        dot_super_blocks(self.row.blocks().map(|block| unpack(&block)), x)
    }
}

fn dot_numbers(mut weights: impl Iterator<Item = f32>, x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (fours, rest) = x.as_chunks::<LANES>();
    for x in fours {
        for (lane, (x, weight)) in lanes.iter_mut().zip(x.iter().zip(&mut weights)) {
            *lane += weight * x;
        }
    }
    rest.iter().zip(weights).fold(sum_lanes(lanes), |sum, (x, weight)| sum + weight * x)
}

/// The sum of the products of whole numbers, of at most 32.
///
/// So few products do not overflow. Wrapping arithmetic lets the compiler vectorise, whether or not
/// it checks other sums.
fn products(weights: &[i8], x: &[i8]) -> i32 {
    let products = weights.iter().zip(x).map(|(&w, &x)| i32::from(w).wrapping_mul(i32::from(x)));
    products.fold(0, i32::wrapping_add)
}

fn dot_blocks(weights: impl Iterator<Item = Block>, x: &[BlockQ8_0]) -> f32 {
    weights.zip(x).fold(0.0, |total, (block, x)| {
        fmaf(products(&block.weights, &x.qs) as f32 * block.d, x.d, total)
    })
}

fn dot_blocks_with_offset(weights: impl Iterator<Item = Block>, x: &[BlockQ8_1]) -> f32 {
    weights.zip(x).fold(0.0, |total, (block, x)| {
        let total = fmaf(products(&block.weights, &x.qs) as f32 * block.d, x.d, total);
        fmaf(block.offset, x.sum, total)
    })
}

fn dot_super_blocks(weights: impl Iterator<Item = SuperBlock>, x: &[BlockQ8K]) -> f32 {
    let mut total = 0.0;
    for (SuperBlock { weights, scales }, x) in weights.zip(x) {
        let mut sum = 0;
        for (group, &scale) in scales.scales.iter().enumerate() {
            let range = group * GROUP..(group + 1) * GROUP;
            sum += i32::from(scale) * products(&weights[range.clone()], &x.qs[range]);
        }
        total += scales.product(x.d, sum, || {
            scales.mins.iter().zip(&x.sums).map(|(&min, &x)| i32::from(min) * i32::from(x)).sum()
        });
    }
    total
}
