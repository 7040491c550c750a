//! The `llama` architecture: RMSNorm, rotary positions over pairs of neighbours, grouped-query
//! attention, SwiGLU (Touvron et al. 2023; llama.cpp's `llm_build_llama`).

use alloc::format;
use alloc::vec::Vec;

use super::scratch::Scratch;
use super::{Context, Matrix, Shape, TensorSource};
use crate::llm::Error;
use crate::llm::gguf::Gguf;
use crate::llm::kernels::{
    Rope, add, add_scaled_f16, dot_f16, rms_norm, rotate, silu_mul, softmax,
};
use crate::llm::kv_cache::KvCache;
use crate::llm::quantize::round_to_f16;
use crate::llm::workers::for_each_chunk;

/// The architecture's name in the file.
pub const NAME: &str = "llama";

/// A model of this architecture: where its weights lie in the file.
#[derive(Debug)]
pub struct Llama {
    shape: Shape,
    /// `[n_vocab, n_embd]`.
    token_embd: Matrix,
    layers: Vec<Layer>,
    output_norm: Matrix,
    /// `[n_vocab, n_embd]`; the embedding itself if the file has none.
    output: Matrix,
    /// What divides RoPE's frequencies, one for each pair.
    rope_factors: Option<Vec<f32>>,
}

#[derive(Debug)]
struct Layer {
    attn_norm: Matrix,
    /// `[n_embd_q, n_embd]`, then twice `[n_embd_kv, n_embd]`.
    attn_q: Matrix,
    attn_k: Matrix,
    attn_v: Matrix,
    /// `[n_embd, n_embd_q]`.
    attn_output: Matrix,
    ffn_norm: Matrix,
    /// Each `[n_ff, n_embd]`.
    ffn_gate: Matrix,
    ffn_up: Matrix,
    /// `[n_embd, n_ff]`.
    ffn_down: Matrix,
}

impl Llama {
    /// Finds the parts of a model with a vocabulary of `n_vocab` tokens.
    ///
    /// # Errors
    /// [`Error::ParseError`] if a part is missing or malformed, [`Error::Unsupported`] if the
    /// model has parts or types of weights that this engine does not know.
    pub fn from_gguf(gguf: &Gguf<'_>, n_vocab: usize) -> Result<Self, Error> {
        let shape = Shape { n_vocab, ..Shape::from_gguf(gguf, NAME)? };
        let experts = format!("{NAME}.expert_count");
        if gguf.unsigned(&experts)?.is_some_and(|n| n > 0) {
            return Err(Error::Unsupported { what: "experts (`llama.expert_count`)".into() });
        }
        let (n_embd, n_ff) = (shape.n_embd, shape.n_ff);
        let (n_embd_q, n_embd_kv) = (shape.n_embd_q(), shape.n_embd_kv());
        let mut tensors = TensorSource::new(gguf);
        let token_embd = tensors.matrix("token_embd.weight", n_vocab, n_embd)?;
        // Grows with the tensors that are found, not with the number that the file claims.
        let mut layers = Vec::new();
        for i in 0..shape.n_layer {
            let name = |part: &str| format!("blk.{i}.{part}.weight");
            layers.push(Layer {
                attn_norm: tensors.vector(&name("attn_norm"), n_embd)?,
                attn_q: tensors.matrix(&name("attn_q"), n_embd_q, n_embd)?,
                attn_k: tensors.matrix(&name("attn_k"), n_embd_kv, n_embd)?,
                attn_v: tensors.matrix(&name("attn_v"), n_embd_kv, n_embd)?,
                attn_output: tensors.matrix(&name("attn_output"), n_embd, n_embd_q)?,
                ffn_norm: tensors.vector(&name("ffn_norm"), n_embd)?,
                ffn_gate: tensors.matrix(&name("ffn_gate"), n_ff, n_embd)?,
                ffn_up: tensors.matrix(&name("ffn_up"), n_ff, n_embd)?,
                ffn_down: tensors.matrix(&name("ffn_down"), n_embd, n_ff)?,
            });
        }
        let output_norm = tensors.vector("output_norm.weight", n_embd)?;
        let output = tensors.optional("output.weight", n_vocab, n_embd)?;
        let output = output.unwrap_or_else(|| token_embd.clone());
        let rope_factors = Self::rope_factors(&mut tensors, gguf, &shape)?;
        tensors.finish()?;
        Ok(Llama { shape, token_embd, layers, output_norm, output, rope_factors })
    }

    fn rope_factors(
        tensors: &mut TensorSource<'_, '_>,
        gguf: &Gguf<'_>,
        shape: &Shape,
    ) -> Result<Option<Vec<f32>>, Error> {
        const FACTORS: &str = "rope_freqs.weight";
        let Some(matrix) = tensors.optional(FACTORS, 1, shape.n_rot / 2)? else {
            return Ok(None);
        };
        TensorSource::check_vector(FACTORS, &matrix)?;
        let bytes = gguf.tensor(FACTORS).and_then(|tensor| gguf.data(tensor));
        let bytes = bytes.unwrap_or_default().as_chunks().0;
        Ok(Some(bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()))
    }

    /// The model's shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Processes one token at the cache's first free position, which must exist. The logits of the
    /// next token are only computed if `wants_logits`.
    pub fn forward(
        &self,
        context: Context<'_>,
        token: u32,
        cache: &mut KvCache,
        scratch: &mut Scratch<'_>,
        wants_logits: bool,
    ) {
        let shape = &self.shape;
        let rope = Rope { base: shape.rope_base, scale: shape.rope_scale };
        rope.angles(cache.len(), self.rope_factors.as_deref(), scratch.angles);
        self.token_embd.dequantize_row(context.file, token as usize, scratch.x);
        for (i, layer) in self.layers.iter().enumerate() {
            self.attention(context, i, layer, cache, scratch);
            self.feed_forward(context, layer, scratch);
        }
        cache.advance();
        if wants_logits {
            let Scratch { x, normed, logits, quantized, .. } = scratch;
            self.norm(context, &self.output_norm, x, normed);
            context.multiply(&[&self.output], &normed[..shape.n_embd], quantized, logits);
        }
    }

    /// Norms the token's state.
    fn norm(&self, context: Context<'_>, weights: &Matrix, x: &[f32], normed: &mut [f32]) {
        let weights = weights.data(context.file).as_chunks().0;
        rms_norm(normed, x, weights, self.shape.norm_epsilon);
    }

    /// Adds to the token's state what its heads see at the positions so far.
    fn attention(
        &self,
        context: Context<'_>,
        index: usize,
        layer: &Layer,
        cache: &mut KvCache,
        scratch: &mut Scratch<'_>,
    ) {
        let shape = &self.shape;
        let head_size = shape.head_size;
        let Scratch { x, delta, normed, qkv, heads, angles, quantized, .. } = scratch;

        self.norm(context, &layer.attn_norm, x, normed);
        let matrices = [&layer.attn_q, &layer.attn_k, &layer.attn_v];
        context.multiply(&matrices, &normed[..shape.n_embd], quantized, qkv);
        let (queries, keys_values) = qkv.split_at_mut(shape.n_embd_q());
        let (keys, values) = keys_values.split_at_mut(shape.n_embd_kv());
        for head in queries.chunks_exact_mut(head_size).chain(keys.chunks_exact_mut(head_size)) {
            rotate(head, angles);
        }
        cache.write(index, keys, values);
        // Keys are F16, so the queries are rounded to it too (ggml's `vec_dot_type` of F16).
        queries.iter_mut().for_each(|x| *x = round_to_f16(*x));

        let positions = cache.len() + 1;
        let (keys, values) = cache.layer(index, positions);
        let group = shape.n_head / shape.n_head_kv;
        let scale = 1.0 / libm::sqrtf(head_size as f32);
        let stride = cache.n_ctx() + head_size;
        for_each_chunk(context.workers, heads, stride, |head, part| {
            let (scores, result) = part.split_at_mut(cache.n_ctx());
            let scores = &mut scores[..positions];
            let query = &queries[head * head_size..(head + 1) * head_size];
            for (score, key) in scores.iter_mut().zip(keys.head(head / group, head_size)) {
                *score = dot_f16(key, query) * scale;
            }
            softmax(scores);
            result.fill(0.0);
            for (p, value) in scores.iter().zip(values.head(head / group, head_size)) {
                // Values are F16, so the probabilities are rounded to it too.
                add_scaled_f16(result, round_to_f16(*p), value);
            }
        });
        for (joined, part) in normed.chunks_exact_mut(head_size).zip(heads.chunks_exact(stride)) {
            joined.copy_from_slice(&part[cache.n_ctx()..]);
        }
        context.multiply(&[&layer.attn_output], &normed[..shape.n_embd_q()], quantized, delta);
        add(x, delta);
    }

    /// Adds to the token's state what the feed-forward network makes of it.
    fn feed_forward(&self, context: Context<'_>, layer: &Layer, scratch: &mut Scratch<'_>) {
        let Scratch { x, delta, normed, gate_up, quantized, .. } = scratch;
        self.norm(context, &layer.ffn_norm, x, normed);
        let matrices = [&layer.ffn_gate, &layer.ffn_up];
        context.multiply(&matrices, &normed[..self.shape.n_embd], quantized, gate_up);
        let (gate, up) = gate_up.split_at_mut(self.shape.n_ff);
        silu_mul(gate, up);
        context.multiply(&[&layer.ffn_down], gate, quantized, delta);
        add(x, delta);
    }
}
