//! The forward pass: from a token to the logits of the next one.

use core::ops::Range;

use super::scratch::{Quantized, Scratch, rows};
use super::{
    Activation, Attention, Context, FeedForward, Layer, Linear, Model, Norm, Scale, batch,
};
use crate::llm::kernels::{
    add, geglu, gelu, layer_norm, rms_norm, scale, silu, soft_cap, softmax, swiglu,
};
use crate::llm::kv_cache::KvCache;
use crate::llm::quantize::SUPER_BLOCK;
use crate::llm::workers::{Band, for_each, for_each_with};

/// What an element-wise step takes for each number, in multiplications of a matrix.
const STEP: usize = 8;

/// What vectors are prepared for: a norm, and the maps that get the normed ones.
type Next<'m> = (&'m Norm, &'m [Linear]);

impl Model {
    /// Processes tokens at the cache's next positions, as many as [`batch`] says at most; the
    /// positions must be free. [`Model::logits`] of the last `wanted` of them can be had afterwards.
    ///
    /// A token's states are, to the bit, the same whichever tokens are processed with it.
    ///
    /// # Panics
    /// There are too many tokens, or more are wanted than there are.
    pub fn forward(
        &self,
        context: Context<'_>,
        tokens: &[u32],
        wanted: usize,
        cache: &mut KvCache,
        scratch: &mut Scratch<'_>,
    ) {
        let mut n = tokens.len();
        assert!(wanted <= n && n <= batch(cache.n_ctx()), "{wanted} of {n} tokens");
        self.embed(context, tokens, cache, scratch);
        for (i, layer) in self.layers.iter().enumerate() {
            self.write_keys_values(context, i, &layer.attn, n, cache, scratch);
            let next = self.layers.get(i + 1);
            if next.is_none() {
                // Of the others nothing is seen any more but keys and values.
                self.keep_last(n, wanted, scratch);
                n = wanted;
            }
            if n == 0 {
                break;
            }
            let end = cache.len() + tokens.len();
            self.attention(context, i, &layer.attn, end - n..end, cache, scratch);
            let to_ffn = Some((&layer.ffn_norm, &layer.ffn.up[..]));
            self.add_and_prepare(context, layer.attn_post_norm.as_ref(), to_ffn, n, scratch);
            self.feed_forward(context, &layer.ffn, n, scratch);
            let to_next = next.map(|next| (&next.attn_norm, &next.attn.qkv[..]));
            self.add_and_prepare(context, layer.ffn_post_norm.as_ref(), to_next, n, scratch);
            if context.verbose {
                let states = scratch.x[..n * self.shape.n_embd].chunks_exact(self.shape.n_embd);
                states.for_each(|state| log::debug!("layer {i}: norm {:.4}", norm(state)));
            }
        }
        cache.advance(tokens.len());
    }

    /// Computes the logits of what follows one of the tokens that [`Model::forward`] was asked for,
    /// 0 being the first of them.
    pub fn logits(&self, context: Context<'_>, token: usize, scratch: &mut Scratch<'_>) {
        let n_embd = self.shape.n_embd;
        let Scratch { x, normed, logits, quantized, .. } = scratch;
        let (x, normed) = (&x[token * n_embd..][..n_embd], &mut normed[..n_embd]);
        let vector = quantized.vectors(1, n_embd);
        let output = one(&self.output);
        vector.for_each(|vector| {
            self.prepare(context, (&self.output_norm, output), x, normed, vector)
        });
        context.multiply(output, quantized, 1, logits, |band| {
            if let Some(cap) = self.logit_cap {
                soft_cap(band.row(0), cap);
            }
        });
    }

    /// The states of tokens before the first layer, prepared for it; and the angles at their
    /// positions.
    fn embed(
        &self,
        context: Context<'_>,
        tokens: &[u32],
        cache: &KvCache,
        scratch: &mut Scratch<'_>,
    ) {
        let n_embd = self.shape.n_embd;
        let Layer { attn_norm, attn, .. } = &self.layers[0];
        let Scratch { x, delta, normed, angles, quantized, .. } = scratch;
        let states = x.chunks_exact_mut(n_embd).zip(delta.chunks_exact_mut(n_embd));
        let normed = normed.chunks_exact_mut(n_embd).zip(quantized.vectors(tokens.len(), n_embd));
        let angles = rows(angles, self.n_angles());
        let items = tokens.iter().zip(cache.len()..).zip(states).zip(normed).zip(angles);
        let workers = context.workers_for(tokens.len(), n_embd * STEP);
        for_each(
            workers,
            items,
            |((((&token, position), (x, delta)), (normed, vector)), angles)| {
                self.token_embd.dequantize_row(context.file, token as usize, x);
                if let Some(factor) = self.embedding_scale {
                    scale(x, factor);
                }
                if let Some(embeddings) = &self.position_embd {
                    embeddings.dequantize_row(context.file, position, delta);
                    add(x, delta);
                }
                for (rope, angles) in self.ropes.iter().zip(self.split_angles(angles)) {
                    rope.angles(position, cache.n_ctx(), angles);
                }
                self.prepare(context, (attn_norm, &attn.qkv), x, normed, vector);
            },
        );
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

    /// Prepares a token's state for the maps that come next.
    fn prepare(
        &self,
        context: Context<'_>,
        (norm, maps): Next<'_>,
        x: &[f32],
        normed: &mut [f32],
        mut vector: Quantized<'_>,
    ) {
        normed.copy_from_slice(x);
        self.norm(context, norm, normed);
        vector.set(normed, maps.iter().map(|map| map.weights.kind()));
    }

    /// Adds `delta` to the states of `n` tokens, normed before if a norm is given, and prepares them
    /// for what comes next.
    fn add_and_prepare(
        &self,
        context: Context<'_>,
        norm: Option<&Norm>,
        next: Option<Next<'_>>,
        n: usize,
        scratch: &mut Scratch<'_>,
    ) {
        let n_embd = self.shape.n_embd;
        let Scratch { x, delta, normed, quantized, .. } = scratch;
        let states = x.chunks_exact_mut(n_embd).zip(delta.chunks_exact_mut(n_embd));
        let normed = normed.chunks_exact_mut(n_embd).zip(quantized.vectors(n, n_embd));
        let workers = context.workers_for(n, n_embd * STEP);
        for_each(workers, states.zip(normed), |((x, delta), (normed, vector))| {
            if let Some(norm) = norm {
                self.norm(context, norm, delta);
            }
            add(x, delta);
            if let Some(next) = next {
                self.prepare(context, next, x, normed, vector);
            }
        });
    }

    /// Puts queries, keys and values of `n` tokens into `qkv`, and the keys and values into the
    /// cache as well.
    fn write_keys_values(
        &self,
        context: Context<'_>,
        layer: usize,
        attn: &Attention,
        n: usize,
        cache: &mut KvCache,
        scratch: &mut Scratch<'_>,
    ) {
        let shape = &self.shape;
        let Scratch { qkv, angles, quantized, .. } = scratch;
        let qkv = &mut qkv[..n * shape.n_embd_qkv()];
        context.multiply(&attn.qkv, quantized, 1, qkv, |_| ());

        let (n_embd_q, head_size) = (shape.n_embd_q(), shape.head_size);
        let spread = cache.shape().spread();
        let tokens = qkv.chunks_exact_mut(shape.n_embd_qkv()).zip(rows(angles, self.n_angles()));
        let workers = context.workers_for(n, shape.n_embd_qkv() * STEP);
        for_each(workers, tokens.zip(cache.slots(layer, n)), |((qkv, angles), slot)| {
            let (queries_keys, values) = qkv.split_at_mut(n_embd_q + shape.n_embd_kv());
            if let Some([q_norm, k_norm]) = &attn.qk_norms {
                let (queries, keys) = queries_keys.split_at_mut(n_embd_q);
                queries
                    .chunks_exact_mut(head_size)
                    .for_each(|query| self.norm(context, q_norm, query));
                keys.chunks_exact_mut(head_size).for_each(|key| self.norm(context, k_norm, key));
            }
            if let Some((rope, angles)) = self.rope(attn, angles) {
                queries_keys.chunks_exact_mut(head_size).for_each(|head| rope.rotate(head, angles));
            }
            if let Scale::Queries(factor) = attn.scale {
                scale(&mut queries_keys[..n_embd_q], factor);
            }
            spread.keys(queries_keys);
            spread.values(values);
            slot.write(&queries_keys[n_embd_q..], values);
        });
    }

    /// Of `n` tokens keeps the states and queries of the last `wanted`.
    fn keep_last(&self, n: usize, wanted: usize, scratch: &mut Scratch<'_>) {
        for (rows, width) in
            [(&mut *scratch.x, self.shape.n_embd), (&mut *scratch.qkv, self.shape.n_embd_qkv())]
        {
            rows.copy_within((n - wanted) * width..n * width, 0);
        }
    }

    /// Puts into `delta` what the heads of the tokens at these positions see, each up to its own.
    fn attention(
        &self,
        context: Context<'_>,
        layer: usize,
        attn: &Attention,
        positions: Range<usize>,
        cache: &KvCache,
        scratch: &mut Scratch<'_>,
    ) {
        let shape = &self.shape;
        let (head_size, n_head) = (shape.head_size, shape.n_head);
        let Scratch { delta, normed, qkv, scores, quantized, .. } = scratch;
        let n = positions.len();
        let joined = &mut normed[..n * shape.n_embd_q()];

        let group = n_head / shape.n_head_kv;
        // ggml multiplies keys, too, with numbers in the format that their type wants.
        let kind = cache.shape().kind.weight_type();
        let heads = joined.chunks_exact_mut(head_size);
        let heads = heads.zip(quantized.vectors(n * n_head, head_size)).enumerate();
        let places = scores.chunks_exact_mut(cache.n_ctx());
        let workers = context.workers_for(n * n_head, 2 * head_size * positions.end);
        for_each_with(workers, places, heads, |scores, (i, (result, mut query))| {
            let (token, head) = (i / n_head, i % n_head);
            let end = positions.start + token + 1;
            let seen = attn.window.map_or(0, |window| end.saturating_sub(window))..end;
            let scores = &mut scores[..seen.len()];
            let (keys, values) = cache.layer(layer, seen);
            let place = token * shape.n_embd_qkv() + head * head_size;
            query.set(&qkv[place..][..head_size], core::iter::once(kind));
            keys.scores(head / group, query.for_weights(kind), scores);
            if let Some(cap) = attn.score_cap {
                soft_cap(scores, cap);
            }
            if let Scale::Scores(factor) = attn.scale {
                scale(scores, factor);
            }
            softmax(scores);
            values.weighted_sum(head / group, scores, result);
        });

        let spread = cache.shape().spread();
        let joined = joined.chunks_exact_mut(shape.n_embd_q());
        let joined = joined.zip(quantized.vectors(n, shape.n_embd_q()));
        let workers = context.workers_for(n, shape.n_embd_q() * STEP);
        for_each(workers, joined, |(joined, mut vector)| {
            spread.values(joined);
            vector.set(joined, core::iter::once(attn.output.weights.kind()));
        });
        let delta = &mut delta[..n * shape.n_embd];
        context.multiply(one(&attn.output), quantized, 1, delta, |_| ());
    }

    /// Puts into `delta` what the feed-forward network makes of `n` tokens.
    fn feed_forward(
        &self,
        context: Context<'_>,
        ffn: &FeedForward,
        n: usize,
        scratch: &mut Scratch<'_>,
    ) {
        let n_ff = self.shape.n_ff;
        let width = ffn.parts() * n_ff;
        let Scratch { delta, gate_up, quantized, .. } = scratch;
        let gate_up = &mut gate_up[..n * width];
        context.multiply(&ffn.up, quantized, ffn.parts(), gate_up, |band| ffn.activate(band));

        // In pieces that are whole blocks of each format: there may be one long vector.
        let piece = if n_ff.is_multiple_of(SUPER_BLOCK) { SUPER_BLOCK } else { n_ff };
        let pieces = n * (n_ff / piece);
        let hidden = gate_up.chunks_exact(width).flat_map(|row| row[..n_ff].chunks_exact(piece));
        let hidden = hidden.zip(quantized.vectors(pieces, piece));
        for_each(context.workers_for(pieces, piece * STEP), hidden, |(hidden, mut vector)| {
            vector.set(hidden, core::iter::once(ffn.down.weights.kind()));
        });
        let delta = &mut delta[..n * self.shape.n_embd];
        context.multiply(one(&ffn.down), quantized, 1, delta, |_| ());
    }
}

impl FeedForward {
    /// Applies the activation function to the rows of a band: to all, or, where there is a gate, to
    /// every other one, multiplied then with the one behind it.
    fn activate(&self, band: &mut Band<'_, f32>) {
        for row in (0..band.rows()).step_by(self.parts()) {
            if self.gated {
                let [hidden, up] = band.disjoint_rows([row, row + 1]);
                match self.activation {
                    Activation::Silu => swiglu(hidden, up),
                    Activation::Gelu => geglu(hidden, up),
                }
            } else {
                match self.activation {
                    Activation::Silu => silu(band.row(row)),
                    Activation::Gelu => gelu(band.row(row)),
                }
            }
        }
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
