//! Dot products of single rows in the file's layout: ggml's `vec_dot`.

mod blocks;
mod floats;
mod super_blocks;

use crate::llm::kernels::operands::Activations;
use crate::llm::kernels::scalar;
use crate::llm::quantize::{Block, BlockQ8K, SuperBlock, Visitor, WeightType};

/// The dot product of a row in the file's layout with one token's activations.
///
/// Rows of a type with panels come here only if they do not fill a panel.
pub fn dot(kind: WeightType, row: &[u8], x: &Activations<'_>) -> f32 {
    // SAFETY: this module is only built where `target_feature = "neon"` holds for the whole build,
    // so that the instructions are there.
    unsafe {
        match (kind, *x) {
            (_, Activations::F32(x)) => floats::dot_f32(row.as_chunks().0, x),
            (_, Activations::F16(x)) => floats::dot_f16(row.as_chunks().0, x),
            (_, Activations::BF16(x)) => floats::dot_bf16(row.as_chunks().0, x),
            (WeightType::Q8_0, Activations::Q8_0(x)) => blocks::dot_q8_0(row.as_chunks().0, x),
            (WeightType::MXFP4, Activations::Q8_0(x)) => blocks::dot_mxfp4(row.as_chunks().0, x),
            (WeightType::IQ4_XS, Activations::Q8K(x)) => {
                super_blocks::dot_iq4_xs(row.as_chunks().0, x)
            }
            (WeightType::TQ2_0, Activations::Q8K(x)) => {
                super_blocks::dot_tq2_0(row.as_chunks().0, x)
            }
            (kind, Activations::Q8K(x)) if !kind.has_panels() => kind.visit(Unpacked { row, x }),
            (_, x) => scalar::dot(kind, row, &x),
        }
    }
}

/// Types with super-blocks that have no kernel of their own.
struct Unpacked<'a> {
    row: &'a [u8],
    x: &'a [BlockQ8K],
}

impl Visitor for Unpacked<'_> {
    type Output = f32;

    fn numbers<const N: usize>(self, _: impl Fn(&[u8; N]) -> f32) -> f32 {
        unreachable!("numbers have other activations")
    }

    fn blocks<const N: usize>(self, _: impl Fn(&[u8; N]) -> Block) -> f32 {
        unreachable!("blocks of 32 have other activations")
    }

    fn super_blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> SuperBlock) -> f32 {
        // SAFETY: as in `dot`.
        unsafe { super_blocks::dot_unpacked(self.row.as_chunks().0, self.x, unpack) }
    }
}
