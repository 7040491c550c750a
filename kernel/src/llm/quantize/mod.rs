//! The number formats of weights and activations.
//!
//! Weights come in the blocks of ggml (`ggml-common.h`); they are read where they lie in the file.
//! For each type one function unpacks a block into integers and scales ([`Block`], [`SuperBlock`]).
//! Dequantised values and portable dot products follow from these parts. To add a type, write that
//! function and add its line to the table of [`WeightType`].

#![forbid(unsafe_code)]

mod activation_panels;
mod activations;
mod bf16;
pub mod blocks;
pub mod encode;
mod f16;
mod grids;
pub mod iq;
pub mod k_quants;
mod packed;
#[cfg(test)]
mod properties;
mod super_block;
pub mod ternary;
#[cfg(test)]
mod tests;

pub use activation_panels::{
    BlockQ8_0x4, BlockQ8_1x4, BlockQ8Kx4, Interleave, PANEL_TOKENS, Words, interleave,
    interleave_tokens,
};
pub use activations::{ActivationType, BlockQ8_0, BlockQ8_1, BlockQ8K, first_of_largest};
pub use bf16::{bf16_to_f32, f32_to_bf16, round_to_bf16};
pub use blocks::Block;
pub use f16::{f16_to_f32, f32_to_f16, round_to_f16};
pub use packed::{PANEL_ROWS, Row, interleave_units};
pub use super_block::{GROUP, GROUPS, Scales, SuperBlock};

use crate::llm::gguf::TensorType;

/// Weights in a block of the simple types.
pub const BLOCK: usize = 32;
/// Weights in a block of the K types and most IQ types.
pub const SUPER_BLOCK: usize = 256;

/// A block of F32: one weight, little endian.
pub type F32Bytes = [u8; 4];
/// A block of F16 or BF16: one weight, little endian.
pub type F16Bytes = [u8; 2];
/// A block of Q8_0: its scale in F16, then 32 signed bytes.
pub type Q8_0Bytes = [u8; 2 + BLOCK];

/// The weights of IQ4_NL and IQ4_XS, denser around zero.
pub const IQ4_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// The weights of MXFP4, doubled. Bits: a sign, two of exponent, one of fraction.
pub const FP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// An operation on rows of any weight type, for [`WeightType::visit`].
///
/// `visit` calls the method that fits the type, so that the method is compiled for that type.
pub trait Visitor {
    /// The result.
    type Output;

    /// The type has blocks of one weight, whose value `value` gives.
    fn numbers<const N: usize>(self, value: impl Fn(&[u8; N]) -> f32) -> Self::Output;

    /// The type has blocks of 32 weights, which `unpack` unpacks.
    fn blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> Block) -> Self::Output;

    /// The type has super-blocks of 256 weights, which `unpack` unpacks.
    fn super_blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> SuperBlock) -> Self::Output;
}

macro_rules! weight_types {
    ($($(#[$doc:meta])* $name:ident: $activations:ident, $shape:ident($unpack:expr);)*) => {
        /// The formats in which weights may be.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(non_camel_case_types, reason = "ggml's names")]
        pub enum WeightType {
            $($(#[$doc])* $name,)*
        }

        impl WeightType {
            /// All of them.
            pub const ALL: &[WeightType] = &[$(WeightType::$name),*];

            /// The tensor type of this format, with its name and the size of its blocks.
            pub const fn tensor_type(self) -> TensorType {
                match self {
                    $(WeightType::$name => TensorType::$name,)*
                }
            }

            /// The format of activations that weights of this type are multiplied with.
            pub const fn activations(self) -> ActivationType {
                match self {
                    $(WeightType::$name => ActivationType::$activations,)*
                }
            }

            /// Calls the visitor's method for this type.
            pub fn visit<V: Visitor>(self, visitor: V) -> V::Output {
                match self {
                    $(WeightType::$name => visitor.$shape($unpack),)*
                }
            }
        }
    };
}

// Name, format of the activations, shape of the blocks, and the function that unpacks a block.
weight_types! {
    /// 32-bit floating point.
    F32: F32, numbers(f32_value);
    /// 16-bit floating point.
    F16: F16, numbers(f16_value);
    /// The upper halves of 32-bit floating point.
    BF16: BF16, numbers(bf16_value);
    /// 4-bit weights with one scale for 32.
    Q4_0: Q8_0, blocks(blocks::q4_0);
    /// 4-bit weights with a scale and an offset for 32.
    Q4_1: Q8_1, blocks(blocks::q4_1);
    /// 5-bit weights with one scale for 32.
    Q5_0: Q8_0, blocks(blocks::q5_0);
    /// 5-bit weights with a scale and an offset for 32.
    Q5_1: Q8_1, blocks(blocks::q5_1);
    /// 8-bit weights with one scale for 32.
    Q8_0: Q8_0, blocks(blocks::q8_0);
    /// 2-bit weights with a scale and a minimum for 16, and scales of both for 256.
    Q2_K: Q8_K, super_blocks(k_quants::q2_k);
    /// 3-bit weights with one scale for 16 and one for 256.
    Q3_K: Q8_K, super_blocks(k_quants::q3_k);
    /// 4-bit weights with a scale and a minimum for 32, and scales of both for 256.
    Q4_K: Q8_K, super_blocks(k_quants::q4_k);
    /// 5-bit weights with a scale and a minimum for 32, and scales of both for 256.
    Q5_K: Q8_K, super_blocks(k_quants::q5_k);
    /// 6-bit weights with one scale for 16 and one for 256.
    Q6_K: Q8_K, super_blocks(k_quants::q6_k);
    /// 8 weights at once out of 256 choices, with one scale for 32 and one for 256.
    IQ2_XXS: Q8_K, super_blocks(iq::iq2_xxs);
    /// 8 weights at once out of 512 choices, with one scale for 16 and one for 256.
    IQ2_XS: Q8_K, super_blocks(iq::iq2_xs);
    /// 8 weights at once out of 1024 choices, with one scale for 16 and one for 256.
    IQ2_S: Q8_K, super_blocks(iq::iq2_s);
    /// 4 weights at once out of 256 choices, with one scale for 32 and one for 256.
    IQ3_XXS: Q8_K, super_blocks(iq::iq3_xxs);
    /// 4 weights at once out of 512 choices, with one scale for 32 and one for 256.
    IQ3_S: Q8_K, super_blocks(iq::iq3_s);
    /// 8 weights at once out of 2048 choices, with one scale for 32 and one for 256.
    IQ1_S: Q8_K, super_blocks(iq::iq1_s);
    /// 8 weights at once out of 2048 choices, with one scale for 16 and one for 256.
    IQ1_M: Q8_K, super_blocks(iq::iq1_m);
    /// 4-bit weights out of 16 values, with one scale for 32.
    IQ4_NL: Q8_0, blocks(blocks::iq4_nl);
    /// 4-bit weights out of 16 values, with one scale for 32 and one for 256.
    IQ4_XS: Q8_K, super_blocks(iq::iq4_xs);
    /// Weights of -1, 0 and 1, five in a byte, with one scale for 256.
    TQ1_0: Q8_K, super_blocks(ternary::tq1_0);
    /// Weights of -1, 0 and 1, four in a byte, with one scale for 256.
    TQ2_0: Q8_K, super_blocks(ternary::tq2_0);
    /// 4-bit floating point with one scale, a power of two, for 32.
    MXFP4: Q8_0, blocks(blocks::mxfp4);
}

impl WeightType {
    /// The format of a tensor type; `None` if the engine does not support it.
    pub fn from_tensor_type(kind: TensorType) -> Option<Self> {
        Self::ALL.iter().find(|format| format.tensor_type().id == kind.id).copied()
    }

    /// Size in bytes of a row of `n` weights, which are whole blocks.
    pub const fn row_bytes(self, n: usize) -> usize {
        let kind = self.tensor_type();
        n / kind.block_weights as usize * kind.block_bytes as usize
    }
}

fn f32_value(bytes: &F32Bytes) -> f32 {
    f32::from_le_bytes(*bytes)
}

fn f16_value(bytes: &F16Bytes) -> f32 {
    f16_to_f32(u16::from_le_bytes(*bytes))
}

fn bf16_value(bytes: &F16Bytes) -> f32 {
    bf16_to_f32(u16::from_le_bytes(*bytes))
}

/// The scale in two bytes of a block: an F16.
pub fn scale(bytes: [u8; 2]) -> f32 {
    f16_to_f32(u16::from_le_bytes(bytes))
}

/// Unpacks bit fields of `BITS` bits: `[N]`.
///
/// Each `RUN` bytes hold `8 / BITS` runs of `RUN` fields. The first run is in the lowest bits.
fn fields<const BITS: usize, const RUN: usize, const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut fields = [0; N];
    for (i, run) in fields.chunks_exact_mut(RUN).enumerate() {
        let (chunk, shift) = (i * BITS / 8, i * BITS % 8);
        for (field, byte) in run.iter_mut().zip(&bytes[chunk * RUN..][..RUN]) {
            *field = byte >> shift & ((1 << BITS) - 1);
        }
    }
    fields
}

/// The weight that a field stores with `added` on top.
///
/// A field has six bits at most. Wrapping arithmetic has no check of its own, which would keep the
/// compiler from vectorising.
fn signed(field: u8, added: i8) -> i8 {
    (field as i8).wrapping_sub(added)
}

/// The `N` bytes of a block from `at`.
fn part<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("the layouts end with the block")
}

/// Writes the row of weights in `bytes` to `out`.
pub fn dequantize_row(kind: WeightType, bytes: &[u8], out: &mut [f32]) {
    Row::of_file(bytes).dequantize(kind, out);
}

impl Row<'_> {
    /// Writes the weights, of this type, to `out`.
    pub fn dequantize(self, kind: WeightType, out: &mut [f32]) {
        kind.visit(Dequantize { row: self, out });
    }
}

struct Dequantize<'a> {
    row: Row<'a>,
    out: &'a mut [f32],
}

impl Visitor for Dequantize<'_> {
    type Output = ();

    fn numbers<const N: usize>(self, value: impl Fn(&[u8; N]) -> f32) {
        for (block, out) in self.row.blocks().zip(self.out) {
            *out = value(&block);
        }
    }

    fn blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> Block) {
        for (block, out) in self.row.blocks().zip(self.out.as_chunks_mut::<BLOCK>().0) {
            let Block { weights, d, offset } = unpack(&block);
            *out = weights.map(|q| f32::from(q) * d + offset);
        }
    }

    fn super_blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> SuperBlock) {
        for (block, out) in self.row.blocks().zip(self.out.as_chunks_mut().0) {
            unpack(&block).dequantize(out);
        }
    }
}
