//! The scratch memory of a forward pass.

use super::{Linear, Model};
use crate::llm::Error;
use crate::llm::arena::{Frame, Plain, slice_bytes};
use crate::llm::kernels::Activations;
use crate::llm::kv_cache::CacheShape;
use crate::llm::quantize::{
    ActivationType, BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, SUPER_BLOCK, WeightType, quantize_q8_0,
    quantize_q8_1, quantize_q8_k, round_to_bf16, round_to_f16,
};
use crate::llm::sampling::Candidate;

/// All slices that one forward pass and the choice of a token need.
pub struct Scratch<'a> {
    /// The state of the token: `[n_embd]`.
    pub x: &'a mut [f32],
    /// What is added to it: `[n_embd]`.
    pub delta: &'a mut [f32],
    /// The normed state, or the joined heads: `[max(n_embd, n_embd_q)]`.
    pub normed: &'a mut [f32],
    /// Queries, keys and values: `[n_embd_q + 2 * n_embd_kv]`.
    pub qkv: &'a mut [f32],
    /// For each head the scores of all positions, then its result: `[n_head, n_ctx + head_size]`.
    pub heads: &'a mut [f32],
    /// Gate and values of the feed-forward network: `[2 * n_ff]`.
    pub gate_up: &'a mut [f32],
    /// The angles of each of the model's rotations: `[n_rot]` for each.
    pub angles: &'a mut [f32],
    /// `[n_vocab]`.
    pub logits: &'a mut [f32],
    /// For the sampler: `[n_vocab]`.
    pub candidates: &'a mut [Candidate],
    /// Activations in the formats of the weights.
    pub quantized: Quantized<'a>,
}

/// Where slices come from: an arena's frame, or only a sum of their sizes.
trait Source<'a> {
    fn take<T: Plain>(&mut self, n: usize) -> Result<&'a mut [T], Error>;
}

impl<'a> Source<'a> for Frame<'a> {
    fn take<T: Plain>(&mut self, n: usize) -> Result<&'a mut [T], Error> {
        Frame::take(self, n)
    }
}

/// Counts what would be taken.
struct Counter(usize);

impl<'a> Source<'a> for Counter {
    fn take<T: Plain>(&mut self, n: usize) -> Result<&'a mut [T], Error> {
        self.0 = self.0.saturating_add(slice_bytes::<T>(n));
        Ok(&mut [])
    }
}

impl<'a> Scratch<'a> {
    fn from_source(
        source: &mut impl Source<'a>,
        model: &Model,
        cache: &CacheShape,
    ) -> Result<Self, Error> {
        let shape = model.shape();
        let head_stride = cache.n_ctx.saturating_add(shape.head_size);
        Ok(Scratch {
            x: source.take(shape.n_embd)?,
            delta: source.take(shape.n_embd)?,
            normed: source.take(shape.n_embd.max(shape.n_embd_q()))?,
            qkv: source.take(shape.n_embd_q() + 2 * shape.n_embd_kv())?,
            heads: source.take(shape.n_head.saturating_mul(head_stride))?,
            gate_up: source.take(2 * shape.n_ff)?,
            angles: source.take(model.n_angles())?,
            logits: source.take(shape.n_vocab)?,
            candidates: source.take(shape.n_vocab)?,
            quantized: Quantized::from_source(source, model, cache)?,
        })
    }

    /// Takes all slices from a frame.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the arena is smaller than [`Scratch::bytes`].
    pub fn take(frame: &mut Frame<'a>, model: &Model, cache: &CacheShape) -> Result<Self, Error> {
        Self::from_source(frame, model, cache)
    }

    /// Bytes that an arena must have for these slices.
    pub fn bytes(model: &Model, cache: &CacheShape) -> usize {
        let mut counter = Counter(0);
        // A counter never fails; if it did, no arena would be large enough.
        match Scratch::from_source(&mut counter, model, cache) {
            Ok(_) => counter.0,
            Err(_) => usize::MAX,
        }
    }
}

/// A vector of activations in each of the formats in which a model's weights want it.
pub struct Quantized<'a> {
    f32: &'a mut [f32],
    f16: &'a mut [f32],
    bf16: &'a mut [f32],
    q8_0: &'a mut [BlockQ8_0],
    q8_1: &'a mut [BlockQ8_1],
    q8_k: &'a mut [BlockQ8K],
    len: usize,
}

impl<'a> Quantized<'a> {
    /// Takes room for the widest vector in each format, none for formats that no weights want.
    fn from_source(
        source: &mut impl Source<'a>,
        model: &Model,
        cache: &CacheShape,
    ) -> Result<Self, Error> {
        let maps = model.maps().map(|Linear { weights, .. }| (weights.kind(), weights.columns()));
        let mut widest = [0; ActivationType::COUNT];
        for (kind, width) in maps.chain([(cache.kind.weight_type(), model.shape().n_embd_q())]) {
            let widest = &mut widest[kind.activations() as usize];
            *widest = width.max(*widest);
        }
        let widest = |kind| widest[kind as usize];
        Ok(Quantized {
            f32: source.take(widest(ActivationType::F32))?,
            f16: source.take(widest(ActivationType::F16))?,
            bf16: source.take(widest(ActivationType::BF16))?,
            q8_0: source.take(widest(ActivationType::Q8_0) / BLOCK)?,
            q8_1: source.take(widest(ActivationType::Q8_1) / BLOCK)?,
            q8_k: source.take(widest(ActivationType::Q8_K) / SUPER_BLOCK)?,
            len: 0,
        })
    }

    /// Brings `x` into the formats that weights of these types need.
    pub fn set(&mut self, x: &[f32], kinds: impl Iterator<Item = WeightType>) {
        self.len = x.len();
        let mut done = [false; ActivationType::COUNT];
        for kind in kinds {
            let kind = kind.activations();
            if core::mem::replace(&mut done[kind as usize], true) {
                continue;
            }
            match kind {
                ActivationType::F32 => self.f32[..x.len()].copy_from_slice(x),
                ActivationType::F16 => {
                    for (out, &x) in self.f16.iter_mut().zip(x) {
                        *out = round_to_f16(x);
                    }
                }
                ActivationType::BF16 => {
                    for (out, &x) in self.bf16.iter_mut().zip(x) {
                        *out = round_to_bf16(x);
                    }
                }
                ActivationType::Q8_0 => quantize_q8_0(x, self.q8_0),
                ActivationType::Q8_1 => quantize_q8_1(x, self.q8_1),
                ActivationType::Q8_K => quantize_q8_k(x, self.q8_k),
            }
        }
    }

    /// The vector for weights of this type, which must have been named to [`Quantized::set`].
    pub fn for_weights(&self, kind: WeightType) -> Activations<'_> {
        match kind.activations() {
            ActivationType::F32 => Activations::F32(&self.f32[..self.len]),
            ActivationType::F16 => Activations::F16(&self.f16[..self.len]),
            ActivationType::BF16 => Activations::BF16(&self.bf16[..self.len]),
            ActivationType::Q8_0 => Activations::Q8_0(&self.q8_0[..self.len / BLOCK]),
            ActivationType::Q8_1 => Activations::Q8_1(&self.q8_1[..self.len / BLOCK]),
            ActivationType::Q8_K => Activations::Q8K(&self.q8_k[..self.len / SUPER_BLOCK]),
        }
    }
}
