//! The scratch memory of a forward pass.

use super::{Linear, Model};
use crate::llm::Error;
use crate::llm::arena::{Frame, Plain, slice_bytes};
use crate::llm::kernels::{
    ActivationPanels, Activations, Batch, TOGETHER, interleave, n_in_panels, quantize_q8_0,
    quantize_q8_1, quantize_q8_k, round_f16, wants_panels,
};
use crate::llm::kv_cache::CacheType;
use crate::llm::quantize::{
    ActivationType, BLOCK, BlockQ8_0, BlockQ8_0x4, BlockQ8_1, BlockQ8_1x4, BlockQ8K, BlockQ8Kx4,
    PANEL_TOKENS, SUPER_BLOCK, WeightType, round_to_bf16,
};
use crate::llm::sampling::Candidate;

/// The sizes that decide how much scratch memory a forward pass needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScratchShape {
    /// Rows of a pass at most: 1 to [`crate::llm::kernels::BATCH`].
    pub n_rows: usize,
    /// Rows whose logits are computed at once, at most.
    pub n_outputs: usize,
    /// Positions of a text.
    pub n_ctx: usize,
    /// The format of keys and values.
    pub kv_cache: CacheType,
}

/// The scratch slices of a forward pass and of sampling.
pub struct Scratch<'a> {
    /// The sizes of the slices.
    pub shape: ScratchShape,
    /// The states of the rows: `[n_rows, n_embd]`.
    pub x: &'a mut [f32],
    /// The output of a layer's part, before it is added to `x`: `[n_rows, n_embd]`.
    pub delta: &'a mut [f32],
    /// The normed states, or the joined heads: `[n_rows, max(n_embd, n_embd_q)]`.
    pub normed: &'a mut [f32],
    /// Queries, keys and values: `[n_rows, n_embd_q + 2 * n_embd_kv]`.
    pub qkv: &'a mut [f32],
    /// Attention scores: `[n_head, n_ctx]`, rounded up to [`TOGETHER`] heads.
    ///
    /// So many heads of any rows are processed at a time.
    pub scores: &'a mut [f32],
    /// Gate and values of the FFN: `[n_rows, 2, n_ff]`, or `[n_rows, n_ff]`.
    pub gate_up: &'a mut [f32],
    /// The angles of each of the model's rotations: `[n_rows, n_angles]`.
    pub angles: &'a mut [f32],
    /// Logits: `[n_outputs, n_vocab]`.
    pub logits: &'a mut [f32],
    /// For the sampler: `[n_vocab]`.
    pub candidates: &'a mut [Candidate],
    /// Activations in the formats of the weights.
    pub quantized: Quantized<'a>,
}

/// A source of slices: an arena's frame, or a counter of their sizes.
trait Source<'a> {
    fn take<T: Plain>(&mut self, n: usize) -> Result<&'a mut [T], Error>;
}

impl<'a> Source<'a> for Frame<'a> {
    fn take<T: Plain>(&mut self, n: usize) -> Result<&'a mut [T], Error> {
        Frame::take(self, n)
    }
}

/// Counts the bytes of slices.
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
        sizes: ScratchShape,
    ) -> Result<Self, Error> {
        let shape = model.shape();
        let rows = |width: usize| sizes.n_rows.saturating_mul(width);
        Ok(Scratch {
            shape: sizes,
            x: source.take(rows(shape.n_embd))?,
            delta: source.take(rows(shape.n_embd))?,
            normed: source.take(rows(shape.n_embd.max(shape.n_embd_q())))?,
            qkv: source.take(rows(shape.n_embd_qkv()))?,
            scores: source
                .take(shape.n_head.next_multiple_of(TOGETHER).saturating_mul(sizes.n_ctx))?,
            gate_up: source.take(rows(model.n_gate_up()))?,
            angles: source.take(rows(model.n_angles()))?,
            logits: source.take(sizes.n_outputs.saturating_mul(shape.n_vocab))?,
            candidates: source.take(shape.n_vocab)?,
            quantized: Quantized::from_source(source, model, sizes)?,
        })
    }

    /// Takes all slices from a frame.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the arena is smaller than [`Scratch::bytes`].
    pub fn take(frame: &mut Frame<'a>, model: &Model, sizes: ScratchShape) -> Result<Self, Error> {
        Self::from_source(frame, model, sizes)
    }

    /// Bytes that an arena must have for these slices.
    pub fn bytes(model: &Model, sizes: ScratchShape) -> usize {
        let mut counter = Counter(0);
        // A counter never fails; if it did, no arena would be large enough.
        match Scratch::from_source(&mut counter, model, sizes) {
            Ok(_) => counter.0,
            Err(_) => usize::MAX,
        }
    }
}

/// Activations of tokens, in each format that the model's weights take.
pub struct Quantized<'a> {
    f32: &'a mut [f32],
    f16: &'a mut [f32],
    bf16: &'a mut [f32],
    q8_0: &'a mut [BlockQ8_0],
    q8_1: &'a mut [BlockQ8_1],
    q8_k: &'a mut [BlockQ8K],
    panels_q8_0: &'a mut [BlockQ8_0x4],
    panels_q8_1: &'a mut [BlockQ8_1x4],
    panels_q8_k: &'a mut [BlockQ8Kx4],
    len: usize,
}

impl<'a> Quantized<'a> {
    /// Takes room for the widest vectors in each format that some weights take.
    fn from_source(
        source: &mut impl Source<'a>,
        model: &Model,
        sizes: ScratchShape,
    ) -> Result<Self, Error> {
        let of_map = |map: &Linear| (map.weights.kind(), map.weights.columns());
        let of_queries = (sizes.kv_cache.weight_type(), model.shape().n_embd_q());
        let widest_panels =
            widest(model.maps().map(of_map).filter(|&(kind, _)| wants_panels(kind)));
        let widest = widest(model.maps().map(of_map).chain([of_queries]));
        let n = sizes.n_rows;
        // GEMV of one row needs no panels.
        let panels = if n == 1 { 0 } else { n.div_ceil(PANEL_TOKENS) };
        let panels = |kind, block| panels.saturating_mul(widest_panels[kind as usize] / block);
        let room = |kind, block| n.saturating_mul(widest[kind as usize] / block);
        Ok(Quantized {
            f32: source.take(room(ActivationType::F32, 1))?,
            f16: source.take(room(ActivationType::F16, 1))?,
            bf16: source.take(room(ActivationType::BF16, 1))?,
            q8_0: source.take(room(ActivationType::Q8_0, BLOCK))?,
            q8_1: source.take(room(ActivationType::Q8_1, BLOCK))?,
            q8_k: source.take(room(ActivationType::Q8_K, SUPER_BLOCK))?,
            panels_q8_0: source.take(panels(ActivationType::Q8_0, BLOCK))?,
            panels_q8_1: source.take(panels(ActivationType::Q8_1, BLOCK))?,
            panels_q8_k: source.take(panels(ActivationType::Q8_K, SUPER_BLOCK))?,
            len: 0,
        })
    }

    /// Room for `n` vectors of this width, one after the other, each to be set.
    pub fn vectors(
        &mut self,
        n: usize,
        width: usize,
    ) -> impl Iterator<Item = Quantized<'_>> + Send {
        self.len = n * width;
        let (mut f32, mut f16, mut bf16) =
            (rows(self.f32, width), rows(self.f16, width), rows(self.bf16, width));
        let (mut q8_0, mut q8_1) = (rows(self.q8_0, width / BLOCK), rows(self.q8_1, width / BLOCK));
        let mut q8_k = rows(self.q8_k, width / SUPER_BLOCK);
        (0..n).map(move |_| Quantized {
            f32: f32.next().unwrap_or_default(),
            f16: f16.next().unwrap_or_default(),
            bf16: bf16.next().unwrap_or_default(),
            q8_0: q8_0.next().unwrap_or_default(),
            q8_1: q8_1.next().unwrap_or_default(),
            q8_k: q8_k.next().unwrap_or_default(),
            panels_q8_0: &mut [],
            panels_q8_1: &mut [],
            panels_q8_k: &mut [],
            len: width,
        })
    }

    /// Converts `x` to the formats that weights of these types take.
    pub fn set(&mut self, x: &[f32], kinds: impl Iterator<Item = WeightType>) {
        self.len = x.len();
        for kind in formats(kinds) {
            match kind {
                ActivationType::F32 => self.f32[..x.len()].copy_from_slice(x),
                ActivationType::F16 => {
                    let out = &mut self.f16[..x.len()];
                    out.copy_from_slice(x);
                    round_f16(out);
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

    /// All activations for weights of a type that [`Quantized::set`] was given.
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

    /// Packs activations of `n` tokens into panels, for packed weights: see [`n_in_panels`].
    ///
    /// `kinds` are the types of the weights.
    pub fn interleave(&mut self, kinds: impl Iterator<Item = WeightType>, n: usize) {
        let width = self.len / n;
        for kind in formats(kinds.filter(|&kind| wants_panels(kind))) {
            let n = n_in_panels(kind, n);
            match kind {
                ActivationType::Q8_0 => {
                    let width = width / BLOCK;
                    interleave(&self.q8_0[..n * width], width, self.panels_q8_0);
                }
                ActivationType::Q8_1 => {
                    let width = width / BLOCK;
                    interleave(&self.q8_1[..n * width], width, self.panels_q8_1);
                }
                ActivationType::Q8_K => {
                    let width = width / SUPER_BLOCK;
                    interleave(&self.q8_k[..n * width], width, self.panels_q8_k);
                }
                ActivationType::F32 | ActivationType::F16 | ActivationType::BF16 => {}
            }
        }
    }

    /// All activations of `n` tokens, for GEMV or GEMM: see [`Quantized::for_weights`].
    pub fn batch(&self, kind: WeightType, n: usize) -> Batch<'_> {
        let panels = match kind.activations() {
            format if !wants_panels(kind) || n_in_panels(format, n) == 0 => ActivationPanels::None,
            ActivationType::Q8_0 => ActivationPanels::Q8_0(self.panels_q8_0),
            ActivationType::Q8_1 => ActivationPanels::Q8_1(self.panels_q8_1),
            ActivationType::Q8_K => ActivationPanels::Q8K(self.panels_q8_k),
            ActivationType::F32 | ActivationType::F16 | ActivationType::BF16 => {
                ActivationPanels::None
            }
        };
        Batch { n, x: self.for_weights(kind), panels }
    }
}

/// The formats that weights of these types take, each once.
fn formats(kinds: impl Iterator<Item = WeightType>) -> impl Iterator<Item = ActivationType> {
    let mut done = [false; ActivationType::COUNT];
    let formats = kinds.map(WeightType::activations);
    formats.filter(move |&kind| !core::mem::replace(&mut done[kind as usize], true))
}

/// The widest vector of activations for these weights, for each format.
fn widest(maps: impl Iterator<Item = (WeightType, usize)>) -> [usize; ActivationType::COUNT] {
    let mut widest = [0; ActivationType::COUNT];
    for (kind, width) in maps {
        let widest = &mut widest[kind.activations() as usize];
        *widest = width.max(*widest);
    }
    widest
}

/// The rows of a matrix, and empty rows after its end.
///
/// A width of 0 gives empty rows. So does a format that no weights take, as it has no room.
pub fn rows<T>(mut matrix: &mut [T], width: usize) -> impl Iterator<Item = &mut [T]> {
    core::iter::repeat_with(move || matrix.split_off_mut(..width).unwrap_or_default())
}
