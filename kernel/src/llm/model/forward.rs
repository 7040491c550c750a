//! The forward pass: from tokens of several texts to the logits of the next tokens.

use core::ops::Range;

use arrayvec::ArrayVec;

use super::compute::Stage;
use super::scratch::{Quantized, Scratch, rows};
use super::{
    Activation, Attention, Compute, Dense, FeedForward, Layer, Linear, Mixer, Model, Norm, Scale,
};
use crate::llm::kernels::{
    BATCH, TOGETHER, add, geglu, gelu, layer_norm, rms_norm, scale, silu, softcap, softmax, swiglu,
};
use crate::llm::kv_cache::{HadamardRotation, Slots};
use crate::llm::quantize::SUPER_BLOCK;
use crate::llm::state::{LayerShape, State, Texts};
use crate::llm::workers::{Band, for_each, for_each_with};

/// Cost of an element-wise op per number, in multiply-adds.
///
/// The cost decides whether threads share an op.
const ELEMENTWISE_COST: usize = 8;

/// A norm, and the maps that get the normed states.
type Next<'m> = (&'m Norm, &'m [Linear]);

/// The input of a row.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A token of the vocabulary.
    Token(u32),
    /// An embedding: `[n_embd]`.
    Embedding(&'a [f32]),
}

/// One row of a forward pass: one position of one session's text.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The input at the position.
    pub input: Input<'a>,
    /// The position in the session's text.
    pub position: usize,
    /// The number of the session's state in the pass.
    pub session: usize,
    /// Whether its logits are wanted.
    pub wants_logits: bool,
}

/// The rows of a pass, and the number of rows of each session.
struct PassRows<'a> {
    rows: &'a [Row<'a>],
    counts: ArrayVec<usize, BATCH>,
}

impl<'a> PassRows<'a> {
    /// # Panics
    /// The rows are not grouped by session, or their positions are not the next ones.
    fn new(rows: &'a [Row<'a>], states: &[&mut State]) -> Self {
        let mut counts = ArrayVec::new();
        for &Row { position, session, .. } in rows {
            while counts.len() <= session {
                counts.push(0);
            }
            assert_eq!(counts.len(), session + 1, "the rows of session {session} are contiguous");
            let next = states[session].len() + counts[session];
            assert_eq!(position, next, "the next position of session {session}");
            counts[session] += 1;
        }
        PassRows { rows, counts }
    }
}

impl Model {
    /// Processes rows at the next positions of their sessions' states, which were reserved.
    ///
    /// Rows are grouped by session. Returns the number of rows whose logits are wanted. Their
    /// states lie in `scratch`, in the order of the rows, for [`Model::logits`].
    ///
    /// A row's numbers are the same, to the bit, whichever rows are processed with it.
    ///
    /// # Panics
    /// There are more rows than the scratch memory is for, the rows are not grouped by session, or
    /// a state has reserved too few positions.
    pub fn forward(
        &self,
        compute: Compute<'_>,
        rows: &[Row<'_>],
        texts: &mut Texts<'_>,
        scratch: &mut Scratch<'_>,
    ) -> usize {
        assert!(rows.len() <= scratch.shape.n_rows, "{} rows", rows.len());
        let pass = PassRows::new(rows, &texts.states);
        let mut wanted = ArrayVec::<Row<'_>, BATCH>::new();
        wanted.extend(rows.iter().filter(|row| row.wants_logits).copied());
        let n_embd = self.shape.n_embd;
        self.embed(compute, rows, texts, scratch);
        let observe = |stage, n: usize, scratch: &Scratch<'_>| {
            if let Some(observer) = compute.observer {
                observer(stage, &scratch.x[..n * n_embd]);
            }
        };
        observe(Stage::Embedding, rows.len(), scratch);
        let mut active = rows;
        for (i, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(i + 1);
            match &layer.mixer {
                Mixer::Attention(attn) => {
                    self.write_keys_values(compute, i, attn, &pass, texts, scratch);
                    if next.is_none() {
                        // The other rows only contribute keys and values.
                        self.keep_wanted(rows, scratch);
                        active = &wanted;
                    }
                    if active.is_empty() {
                        break;
                    }
                    self.attention(compute, i, attn, active, texts, scratch);
                }
            }
            let n = active.len();
            let to_ffn = Some((&layer.ffn_norm, layer.ffn.inputs()));
            self.add_and_prepare(compute, layer.mixer_post_norm.as_ref(), to_ffn, n, scratch);
            match &layer.ffn {
                FeedForward::Dense(dense) => self.dense(compute, dense, n, scratch),
            }
            let to_next = next.map(|next| (&next.mixer_norm, next.mixer.inputs()));
            self.add_and_prepare(compute, layer.ffn_post_norm.as_ref(), to_next, n, scratch);
            observe(Stage::Layer(i), n, scratch);
        }
        for (state, n) in texts.states.iter_mut().zip(pass.counts) {
            state.advance(n);
        }
        wanted.len()
    }

    /// Computes the wanted logits of rows in one matrix product: `[n_rows, n_vocab]`.
    ///
    /// `rows` counts the rows that wanted logits in [`Model::forward`].
    ///
    /// # Panics
    /// There are more rows than the scratch memory has outputs.
    pub fn logits(&self, compute: Compute<'_>, rows: Range<usize>, scratch: &mut Scratch<'_>) {
        let (n, n_embd) = (rows.len(), self.shape.n_embd);
        assert!(n <= scratch.shape.n_outputs, "logits of {n} rows");
        let Scratch { x, normed, logits, quantized, .. } = scratch;
        let x = &x[rows.start * n_embd..rows.end * n_embd];
        let output = one(&self.output);
        let states = x.chunks_exact(n_embd).zip(normed.chunks_exact_mut(n_embd));
        let workers = compute.workers_for(n, n_embd * ELEMENTWISE_COST);
        for_each(workers, states.zip(quantized.vectors(n, n_embd)), |((x, normed), vector)| {
            self.prepare(compute, (&self.output_norm, output), x, normed, vector);
        });
        if let Some(observer) = compute.observer {
            observer(Stage::OutputNorm, &normed[..n * n_embd]);
        }
        let logits = &mut logits[..n * self.shape.n_vocab];
        compute.multiply(output, quantized, 1, logits, |band| {
            if let Some(cap) = self.logit_softcap {
                band.rows_mut().for_each(|row| softcap(row, cap));
            }
        });
    }

    /// Embeds the rows, prepares them for the first layer, and computes RoPE angles.
    fn embed(
        &self,
        compute: Compute<'_>,
        rows_in: &[Row<'_>],
        texts: &Texts<'_>,
        scratch: &mut Scratch<'_>,
    ) {
        let n_embd = self.shape.n_embd;
        let Layer { mixer_norm, mixer, .. } = &self.layers[0];
        let Scratch { x, delta, normed, angles, quantized, .. } = scratch;
        let n = rows_in.len();
        let vectors = x.chunks_exact_mut(n_embd).zip(delta.chunks_exact_mut(n_embd));
        let normed = normed.chunks_exact_mut(n_embd).zip(quantized.vectors(n, n_embd));
        let angles = rows(angles, self.n_angles());
        let items = rows_in.iter().zip(vectors).zip(normed).zip(angles);
        let workers = compute.workers_for(n, n_embd * ELEMENTWISE_COST);
        for_each(workers, items, |(((row, (x, delta)), (normed, vector)), angles)| {
            match row.input {
                Input::Token(token) => {
                    self.token_embd.dequantize_row(compute.sources, token as usize, x);
                    if let Some(factor) = self.embedding_scale {
                        scale(x, factor);
                    }
                }
                Input::Embedding(embedding) => x.copy_from_slice(embedding),
            }
            if let Some(embeddings) = &self.position_embd {
                embeddings.dequantize_row(compute.sources, row.position, delta);
                add(x, delta);
            }
            let n_ctx = texts.states[row.session].n_ctx();
            for (rope, angles) in self.ropes.iter().zip(self.split_angles(angles)) {
                rope.angles(row.position, n_ctx, angles);
            }
            self.prepare(compute, (mixer_norm, mixer.inputs()), x, normed, vector);
        });
    }

    /// Norms a vector in place.
    fn norm(&self, compute: Compute<'_>, norm: &Norm, x: &mut [f32]) {
        match norm {
            Norm::Rms { weights } => {
                rms_norm(x, weights.values(compute.sources), self.norm_epsilon)
            }
            Norm::Layer { weights, bias } => {
                let (weights, bias) =
                    (weights.values(compute.sources), bias.values(compute.sources));
                layer_norm(x, weights, bias, self.norm_epsilon);
            }
        }
    }

    /// Prepares a token's state for the maps that come next.
    fn prepare(
        &self,
        compute: Compute<'_>,
        (norm, maps): Next<'_>,
        x: &[f32],
        normed: &mut [f32],
        mut vector: Quantized<'_>,
    ) {
        normed.copy_from_slice(x);
        self.norm(compute, norm, normed);
        vector.set(normed, maps.iter().map(|map| map.weights.kind()));
    }

    /// Adds `delta` to the states of `n` rows, and prepares them for the next maps.
    ///
    /// `norm` is applied to `delta` first.
    fn add_and_prepare(
        &self,
        compute: Compute<'_>,
        norm: Option<&Norm>,
        next: Option<Next<'_>>,
        n: usize,
        scratch: &mut Scratch<'_>,
    ) {
        let n_embd = self.shape.n_embd;
        let Scratch { x, delta, normed, quantized, .. } = scratch;
        let states = x.chunks_exact_mut(n_embd).zip(delta.chunks_exact_mut(n_embd));
        let normed = normed.chunks_exact_mut(n_embd).zip(quantized.vectors(n, n_embd));
        let workers = compute.workers_for(n, n_embd * ELEMENTWISE_COST);
        for_each(workers, states.zip(normed), |((x, delta), (normed, vector))| {
            if let Some(norm) = norm {
                self.norm(compute, norm, delta);
            }
            add(x, delta);
            if let Some(next) = next {
                self.prepare(compute, next, x, normed, vector);
            }
        });
    }

    /// Computes Q, K and V of rows, and writes keys and values to the KV cache.
    fn write_keys_values(
        &self,
        compute: Compute<'_>,
        layer: usize,
        attn: &Attention,
        pass: &PassRows<'_>,
        texts: &mut Texts<'_>,
        scratch: &mut Scratch<'_>,
    ) {
        let shape = &self.shape;
        let n = pass.rows.len();
        let Scratch { qkv, angles, quantized, .. } = scratch;
        let qkv = &mut qkv[..n * shape.n_embd_qkv()];
        compute.multiply(&attn.qkv, quantized, 1, qkv, |_| ());

        let (n_embd_q, head_size) = (shape.n_embd_q(), shape.head_size);
        let rotation = rotation(texts, layer);
        let vectors = qkv.chunks_exact_mut(shape.n_embd_qkv()).zip(rows(angles, self.n_angles()));
        let mut slots = Slots::new();
        let positions = pass.rows.iter().map(|row| (row.session, row.position));
        texts.slots(layer, positions, &mut slots);
        let slots = slots.iter_mut().flatten();
        let workers = compute.workers_for(n, shape.n_embd_qkv() * ELEMENTWISE_COST);
        for_each(workers, vectors.zip(slots), |((qkv, angles), slot)| {
            let (queries_keys, values) = qkv.split_at_mut(n_embd_q + shape.n_embd_kv());
            if let Some([q_norm, k_norm]) = &attn.qk_norms {
                let (queries, keys) = queries_keys.split_at_mut(n_embd_q);
                queries
                    .chunks_exact_mut(head_size)
                    .for_each(|query| self.norm(compute, q_norm, query));
                keys.chunks_exact_mut(head_size).for_each(|key| self.norm(compute, k_norm, key));
            }
            if let Some((rope, angles)) = self.rope(attn, angles) {
                queries_keys.chunks_exact_mut(head_size).for_each(|head| rope.rotate(head, angles));
            }
            if let Scale::Queries(factor) = attn.scale {
                scale(&mut queries_keys[..n_embd_q], factor);
            }
            rotation.keys(queries_keys);
            rotation.values(values);
            slot.write(&queries_keys[n_embd_q..], values);
        });
    }

    /// Moves the states and queries of the rows whose logits are wanted to the front.
    fn keep_wanted(&self, rows: &[Row<'_>], scratch: &mut Scratch<'_>) {
        let wanted = rows.iter().enumerate().filter(|(_, row)| row.wants_logits);
        for (to, (from, _)) in wanted.enumerate().filter(|(to, (from, _))| to != from) {
            for (matrix, width) in
                [(&mut *scratch.x, self.shape.n_embd), (&mut *scratch.qkv, self.shape.n_embd_qkv())]
            {
                matrix.copy_within(from * width..(from + 1) * width, to * width);
            }
        }
    }

    /// Attention of rows to the positions up to their own; its result goes to `delta`.
    fn attention(
        &self,
        compute: Compute<'_>,
        layer: usize,
        attn: &Attention,
        active: &[Row<'_>],
        texts: &Texts<'_>,
        scratch: &mut Scratch<'_>,
    ) {
        let shape = &self.shape;
        let (head_size, n_head) = (shape.head_size, shape.n_head);
        let Scratch { delta, normed, qkv, scores, quantized, shape: sizes, .. } = scratch;
        let n = active.len();
        let joined = &mut normed[..n * shape.n_embd_q()];

        // As in ggml, queries are converted to the format that the keys' type takes.
        let kind = sizes.kv_cache.weight_type();
        let n_embd_q = shape.n_embd_q();
        let of_rows = qkv.chunks_exact(shape.n_embd_qkv()).zip(quantized.vectors(n, n_embd_q));
        let workers = compute.workers_for(n, n_embd_q * ELEMENTWISE_COST);
        for_each(workers, of_rows, |(qkv, mut vector)| {
            vector.set(&qkv[..n_embd_q], core::iter::once(kind));
        });
        let queries = quantized.for_weights(kind);

        // Some heads with the same keys and values at a time.
        let group = n_head / shape.n_head_kv;
        let of_group = group.div_ceil(TOGETHER);
        let heads = joined.chunks_exact_mut(group * head_size);
        let heads = heads.flat_map(|heads| heads.chunks_mut(TOGETHER * head_size)).enumerate();
        let places = scores.chunks_exact_mut(TOGETHER * sizes.n_ctx);
        let longest = active.iter().map(|row| row.position + 1).max().unwrap_or(0);
        let n_items = n * shape.n_head_kv * of_group;
        let workers = compute.workers_for(n_items, 2 * TOGETHER * head_size * longest);
        let between = || compute.call_on_stage();
        for_each_with(workers, places, heads, between, |scores, (i, results)| {
            let (row, head_kv) = (i / of_group / shape.n_head_kv, i / of_group % shape.n_head_kv);
            let head = head_kv * group + i % of_group * TOGETHER;
            let Row { position, session, .. } = active[row];
            let end = position + 1;
            let seen = attn.window.map_or(0, |window| end.saturating_sub(window))..end;
            let n_seen = seen.len();
            let (keys, values) = texts.kv(session, layer, seen);
            let start = row * n_embd_q + head * head_size;
            let mut results: ArrayVec<_, TOGETHER> = results.chunks_exact_mut(head_size).collect();
            let starts = (0..results.len()).map(|i| start + i * head_size);
            let queries: ArrayVec<_, TOGETHER> =
                starts.map(|start| queries.part(start..start + head_size)).collect();
            let scores = scores.chunks_exact_mut(sizes.n_ctx).take(results.len());
            let mut scores: ArrayVec<_, TOGETHER> =
                scores.map(|scores| &mut scores[..n_seen]).collect();
            keys.scores(head_kv, &queries, &mut scores);
            for scores in &mut scores {
                if let Some(cap) = attn.score_softcap {
                    softcap(scores, cap);
                }
                if let Scale::Scores(factor) = attn.scale {
                    scale(scores, factor);
                }
                softmax(scores);
            }
            values.weighted_sums(head_kv, &mut scores, &mut results);
        });

        let rotation = rotation(texts, layer);
        let joined = joined.chunks_exact_mut(shape.n_embd_q());
        let joined = joined.zip(quantized.vectors(n, shape.n_embd_q()));
        let workers = compute.workers_for(n, shape.n_embd_q() * ELEMENTWISE_COST);
        for_each(workers, joined, |(joined, mut vector)| {
            rotation.values(joined);
            vector.set(joined, core::iter::once(attn.output.weights.kind()));
        });
        let delta = &mut delta[..n * shape.n_embd];
        compute.multiply(one(&attn.output), quantized, 1, delta, |_| ());
    }

    /// A dense feed-forward network; its result goes to `delta`.
    fn dense(&self, compute: Compute<'_>, ffn: &Dense, n: usize, scratch: &mut Scratch<'_>) {
        let n_ff = self.shape.n_ff;
        let width = ffn.parts() * n_ff;
        let Scratch { delta, gate_up, quantized, .. } = scratch;
        let gate_up = &mut gate_up[..n * width];
        compute.multiply(&ffn.up, quantized, ffn.parts(), gate_up, |band| ffn.activate(band));

        // In chunks of whole blocks of each format, as there may be one long vector.
        let chunk = if n_ff.is_multiple_of(SUPER_BLOCK) { SUPER_BLOCK } else { n_ff };
        let n_chunks = n * (n_ff / chunk);
        let hidden = gate_up.chunks_exact(width).flat_map(|row| row[..n_ff].chunks_exact(chunk));
        let hidden = hidden.zip(quantized.vectors(n_chunks, chunk));
        for_each(
            compute.workers_for(n_chunks, chunk * ELEMENTWISE_COST),
            hidden,
            |(hidden, mut vector)| {
                vector.set(hidden, core::iter::once(ffn.down.weights.kind()));
            },
        );
        let delta = &mut delta[..n * self.shape.n_embd];
        compute.multiply(one(&ffn.down), quantized, 1, delta, |_| ());
    }
}

impl Dense {
    /// Applies the activation function to the rows of a band.
    ///
    /// With a gate, the function is applied to every other row, and the result multiplied with the
    /// next row.
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

/// The Hadamard rotation of a layer's Q, K and V, the same for all states.
fn rotation(texts: &Texts<'_>, layer: usize) -> HadamardRotation {
    let LayerShape::Kv(shape) = &texts.memory.shape().text.layers[layer];
    shape.rotation()
}
