//! Random weights and activations, for self tests and unit tests.

#![forbid(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;

use super::operands::{ActivationPanels, Activations, Batch};
use super::{interleave, quantize_q8_0, quantize_q8_1, quantize_q8_k};
use crate::llm::quantize::{
    ActivationType, BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, Interleave, PANEL_TOKENS, SUPER_BLOCK,
    WeightType, f32_to_bf16, f32_to_f16, round_to_bf16, round_to_f16,
};
use crate::llm::sampling::SplitMix64;

/// Seeded random numbers.
pub(crate) struct Noise(SplitMix64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Noise(SplitMix64::new(seed))
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        (2.0 * self.0.next_unit() - 1.0) as f32
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub fn byte(&mut self) -> u8 {
        self.0.next_u64() as u8
    }
}

/// A row of `blocks` blocks: random bits, with scales of up to `amplitude`.
pub(crate) fn random_row(
    kind: WeightType,
    blocks: usize,
    amplitude: f32,
    noise: &mut Noise,
) -> Vec<u8> {
    let bytes = (0..kind.row_bytes(blocks * kind.tensor_type().block_weights as usize))
        .map(|_| noise.byte())
        .collect();
    with_scales(kind, bytes, amplitude, noise)
}

/// The row of weights in `bytes`, with random scales of up to `amplitude`.
pub(super) fn with_scales(
    kind: WeightType,
    mut bytes: Vec<u8>,
    amplitude: f32,
    noise: &mut Noise,
) -> Vec<u8> {
    for block in bytes.chunks_mut(kind.tensor_type().block_bytes as usize) {
        set_scales(kind, block, || amplitude * noise.float());
    }
    bytes
}

/// Sets the floating-point numbers of a block.
fn set_scales(kind: WeightType, block: &mut [u8], mut scale: impl FnMut() -> f32) {
    let places: &[usize] = match kind {
        WeightType::F32 => return block.copy_from_slice(&scale().to_le_bytes()),
        WeightType::BF16 => return block.copy_from_slice(&f32_to_bf16(scale()).to_le_bytes()),
        // A power of two: the exponent of half of the scale.
        WeightType::MXFP4 => return block[0] = (scale().to_bits() >> 23) as u8,
        WeightType::IQ1_M => {
            // The high bits of the last four words hold four bits of the scale each.
            let bits = f32_to_f16(scale());
            for (i, word) in block[48..].as_chunks_mut::<2>().0.iter_mut().enumerate() {
                word[1] = word[1] & 15 | (bits >> (4 * i) << 4) as u8;
            }
            return;
        }
        WeightType::Q2_K => &[80, 82],
        WeightType::Q3_K => &[108],
        WeightType::Q6_K => &[208],
        WeightType::TQ1_0 => &[52],
        WeightType::TQ2_0 => &[64],
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => &[0, 2],
        _ => &[0],
    };
    for &place in places {
        block[place..place + 2].copy_from_slice(&f32_to_f16(scale()).to_le_bytes());
    }
}

/// The activations of several tokens in the format that a weight type takes.
pub(crate) struct ActivationBuffers {
    pub n: usize,
    kind: ActivationType,
    numbers: Vec<f32>,
    q8_0: Blocks<BlockQ8_0>,
    q8_1: Blocks<BlockQ8_1>,
    q8_k: Blocks<BlockQ8K>,
}

/// Blocks of activations, and the same blocks in panels.
struct Blocks<B: Interleave> {
    blocks: Vec<B>,
    panels: Vec<B::Panel>,
}

impl<B: Interleave> Blocks<B> {
    fn empty() -> Self {
        Blocks { blocks: Vec::new(), panels: Vec::new() }
    }

    /// The blocks that `quantize` makes of `n` tokens.
    fn new(n: usize, blocks: usize, quantize: impl FnOnce(&mut [B])) -> Self {
        let mut all = vec![B::ZERO; blocks];
        quantize(&mut all);
        let per_token = blocks / n;
        let mut panels = vec![B::ZEROS; n.div_ceil(PANEL_TOKENS) * per_token];
        interleave(&all, per_token, &mut panels);
        Blocks { blocks: all, panels }
    }
}

impl ActivationBuffers {
    /// Activations of `n` tokens in the format for `kind`.
    pub fn new(kind: WeightType, x: &[f32], n: usize) -> Self {
        let kind = kind.activations();
        let mut owned = ActivationBuffers {
            n,
            kind,
            numbers: Vec::new(),
            q8_0: Blocks::empty(),
            q8_1: Blocks::empty(),
            q8_k: Blocks::empty(),
        };
        let (small, large) = (x.len() / BLOCK, x.len() / SUPER_BLOCK);
        match kind {
            ActivationType::F32 => owned.numbers = x.into(),
            ActivationType::F16 => owned.numbers = x.iter().map(|&x| round_to_f16(x)).collect(),
            ActivationType::BF16 => owned.numbers = x.iter().map(|&x| round_to_bf16(x)).collect(),
            ActivationType::Q8_0 => owned.q8_0 = Blocks::new(n, small, |out| quantize_q8_0(x, out)),
            ActivationType::Q8_1 => owned.q8_1 = Blocks::new(n, small, |out| quantize_q8_1(x, out)),
            ActivationType::Q8_K => owned.q8_k = Blocks::new(n, large, |out| quantize_q8_k(x, out)),
        }
        owned
    }

    /// The activations as the kernels take them.
    pub fn batch(&self) -> Batch<'_> {
        let (x, panels) = match self.kind {
            ActivationType::F32 => (Activations::F32(&self.numbers), ActivationPanels::None),
            ActivationType::F16 => (Activations::F16(&self.numbers), ActivationPanels::None),
            ActivationType::BF16 => (Activations::BF16(&self.numbers), ActivationPanels::None),
            ActivationType::Q8_0 => {
                (Activations::Q8_0(&self.q8_0.blocks), ActivationPanels::Q8_0(&self.q8_0.panels))
            }
            ActivationType::Q8_1 => {
                (Activations::Q8_1(&self.q8_1.blocks), ActivationPanels::Q8_1(&self.q8_1.panels))
            }
            ActivationType::Q8_K => {
                (Activations::Q8K(&self.q8_k.blocks), ActivationPanels::Q8K(&self.q8_k.panels))
            }
        };
        Batch { n: self.n, x, panels }
    }

    /// The dequantised values.
    pub fn values(&self) -> Vec<f32> {
        fn times<const N: usize>(qs: &[i8; N], d: f32) -> impl Iterator<Item = f32> {
            qs.iter().map(move |&q| d * f32::from(q))
        }
        match self.batch().x {
            Activations::F32(x) | Activations::F16(x) | Activations::BF16(x) => x.into(),
            Activations::Q8_0(x) => x.iter().flat_map(|block| times(&block.qs, block.d)).collect(),
            Activations::Q8_1(x) => x.iter().flat_map(|block| times(&block.qs, block.d)).collect(),
            Activations::Q8K(x) => x.iter().flat_map(|block| times(&block.qs, block.d)).collect(),
        }
    }
}
