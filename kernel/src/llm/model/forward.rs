//! The forward pass: from a token to the logits of the next one.

use super::scratch::Scratch;
use super::{Activation, Attention, Context, FeedForward, Linear, Model, Norm, Scale};
use crate::llm::kernels::{
    add, geglu, gelu, layer_norm, rms_norm, scale, silu, soft_cap, softmax, swiglu,
};
use crate::llm::kv_cache::KvCache;
use crate::llm::workers::for_each_chunk;

impl Model {
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
        self.embed(context, token, cache.len(), scratch);
        for (rope, angles) in self.ropes.iter().zip(self.split_angles(scratch.angles)) {
            rope.angles(cache.len(), cache.n_ctx(), angles);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            self.norm_into(context, &layer.attn_norm, scratch);
            self.attention(context, i, &layer.attn, cache, scratch);
            self.add_normed(context, layer.attn_post_norm.as_ref(), scratch);
            self.norm_into(context, &layer.ffn_norm, scratch);
            self.feed_forward(context, &layer.ffn, scratch);
            self.add_normed(context, layer.ffn_post_norm.as_ref(), scratch);
            if context.verbose {
                log::debug!("layer {i}: norm {:.4}", norm(scratch.x));
            }
        }
        cache.advance();
        if wants_logits {
            self.norm_into(context, &self.output_norm, scratch);
            let Scratch { normed, logits, quantized, .. } = scratch;
            let normed = &normed[..self.shape.n_embd];
            context.multiply(one(&self.output), normed, quantized, logits);
            if let Some(cap) = self.logit_cap {
                soft_cap(logits, cap);
            }
        }
    }

    /// The token's state before the first layer.
    fn embed(&self, context: Context<'_>, token: u32, position: usize, scratch: &mut Scratch<'_>) {
        let Scratch { x, delta, .. } = scratch;
        self.token_embd.dequantize_row(context.file, token as usize, x);
        if let Some(factor) = self.embedding_scale {
            scale(x, factor);
        }
        if let Some(embeddings) = &self.position_embd {
            embeddings.dequantize_row(context.file, position, delta);
            add(x, delta);
        }
    }

    /// Norms a vector in place.
    fn norm(&self, context: Context<'_>, norm: &Norm, x: &mut [f32]) {
        match norm {
            Norm::Rms { weights } => rms_norm(x, weights.values(context.file), self.norm_epsilon),
            Norm::Layer { weights, bias } => {
                let (weights, bias) = (weights.values(context.file), bias.values(context.file));
                layer_norm(x, weights, bias, self.norm_epsilon);
            }
        }
    }

    /// Puts the normed state of the token into `normed`.
    fn norm_into(&self, context: Context<'_>, norm: &Norm, scratch: &mut Scratch<'_>) {
        let normed = &mut scratch.normed[..self.shape.n_embd];
        normed.copy_from_slice(scratch.x);
        self.norm(context, norm, normed);
    }

    /// Adds `delta` to the token's state, normed before if a norm is given.
    fn add_normed(&self, context: Context<'_>, norm: Option<&Norm>, scratch: &mut Scratch<'_>) {
        if let Some(norm) = norm {
            self.norm(context, norm, scratch.delta);
        }
        add(scratch.x, scratch.delta);
    }

    /// Puts into `delta` what the token's heads see at the positions so far.
    fn attention(
        &self,
        context: Context<'_>,
        layer: usize,
        attn: &Attention,
        cache: &mut KvCache,
        scratch: &mut Scratch<'_>,
    ) {
        let shape = &self.shape;
        let head_size = shape.head_size;
        let Scratch { delta, normed, qkv, heads, angles, quantized, .. } = scratch;

        context.multiply(&attn.qkv, &normed[..shape.n_embd], quantized, qkv);
        let (queries, keys_values) = qkv.split_at_mut(shape.n_embd_q());
        let (keys, values) = keys_values.split_at_mut(shape.n_embd_kv());
        if let Some([q_norm, k_norm]) = &attn.qk_norms {
            queries.chunks_exact_mut(head_size).for_each(|q| self.norm(context, q_norm, q));
            keys.chunks_exact_mut(head_size).for_each(|k| self.norm(context, k_norm, k));
        }
        if let Some((rope, angles)) = self.rope(attn, angles) {
            let heads = queries.chunks_exact_mut(head_size);
            heads
                .chain(keys.chunks_exact_mut(head_size))
                .for_each(|head| rope.rotate(head, angles));
        }
        if let Scale::Queries(factor) = attn.scale {
            scale(queries, factor);
        }
        let spread = cache.shape().spread();
        spread.keys(queries);
        spread.keys(keys);
        spread.values(values);
        cache.write(layer, keys, values);
        // ggml multiplies keys, too, with numbers in the format that their type wants.
        let kind = cache.shape().kind.weight_type();
        quantized.set(queries, core::iter::once(kind));
        let queries = quantized.for_weights(kind);

        let end = cache.len() + 1;
        let seen = attn.window.map_or(0, |window| end.saturating_sub(window))..end;
        let n_seen = seen.len();
        let (keys, values) = cache.layer(layer, seen);
        let group = shape.n_head / shape.n_head_kv;
        let stride = cache.n_ctx() + head_size;
        for_each_chunk(context.workers, heads, stride, |head, part| {
            let (scores, result) = part.split_at_mut(cache.n_ctx());
            let scores = &mut scores[..n_seen];
            let query = queries.part(head * head_size..(head + 1) * head_size);
            keys.scores(head / group, query, scores);
            if let Some(cap) = attn.score_cap {
                soft_cap(scores, cap);
            }
            if let Scale::Scores(factor) = attn.scale {
                scale(scores, factor);
            }
            softmax(scores);
            values.weighted_sum(head / group, scores, result);
        });
        let joined = &mut normed[..shape.n_embd_q()];
        for (joined, part) in joined.chunks_exact_mut(head_size).zip(heads.chunks_exact(stride)) {
            joined.copy_from_slice(&part[cache.n_ctx()..]);
        }
        spread.values(joined);
        context.multiply(one(&attn.output), joined, quantized, delta);
    }

    /// Puts into `delta` what the feed-forward network makes of the token.
    fn feed_forward(&self, context: Context<'_>, ffn: &FeedForward, scratch: &mut Scratch<'_>) {
        let n_ff = self.shape.n_ff;
        let Scratch { delta, normed, gate_up, quantized, .. } = scratch;
        let gate_up = &mut gate_up[..if ffn.gated { 2 * n_ff } else { n_ff }];
        context.multiply(&ffn.up, &normed[..self.shape.n_embd], quantized, gate_up);
        let (hidden, up) = gate_up.split_at_mut(n_ff);
        match (ffn.activation, ffn.gated) {
            (Activation::Silu, true) => swiglu(hidden, up),
            (Activation::Silu, false) => silu(hidden),
            (Activation::Gelu, true) => geglu(hidden, up),
            (Activation::Gelu, false) => gelu(hidden),
        }
        context.multiply(one(&ffn.down), hidden, quantized, delta);
    }
}

/// A list of one map.
fn one(map: &Linear) -> &[Linear] {
    core::slice::from_ref(map)
}

/// The Euclidean norm.
fn norm(x: &[f32]) -> f32 {
    libm::sqrt(x.iter().map(|&x| f64::from(x) * f64::from(x)).sum()) as f32
}
