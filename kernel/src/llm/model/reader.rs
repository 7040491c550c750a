//! Reads the parts that architectures have in common.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::compute::ROWS;
use super::header::{Header, Shape};
use super::rope::{Pairs, Rope};
use super::tensors::{Matrix, Tensors};
use super::{
    Activation, Architecture, Attention, Dense, FeedForward, Layer, Linear, Mixer, Model, Norm,
    NormKind, Scale,
};
use crate::llm::Error;
use crate::llm::gguf::Gguf;
use crate::llm::quantize::WeightType;

/// Reads a model's parts. Each method takes the tensors of the part that it returns.
///
/// All methods have the same errors. [`Error::ParseError`]: a tensor or a key is missing or
/// malformed. [`Error::Unsupported`]: the engine does not support its kind.
pub struct Reader<'f, 'a> {
    /// The header.
    pub header: Header<'f, 'a>,
    /// The shape, from the header.
    pub shape: Shape,
    tensors: Tensors<'f, 'a>,
    architecture: &'static str,
    norm: NormKind,
    norm_epsilon: f32,
}

impl<'f, 'a> Reader<'f, 'a> {
    /// A reader of a model of this architecture with a vocabulary of `n_vocab` tokens.
    pub(super) fn new(
        files: &'f [Gguf<'a>],
        architecture: &Architecture,
        n_vocab: usize,
        packed: fn(WeightType) -> bool,
    ) -> Result<Self, Error> {
        let tensors = Tensors::new(files, packed);
        let header = Header::new(&files[0], architecture.name);
        let shape = Shape::read(&header, n_vocab)?;
        let epsilon = match architecture.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let norm_epsilon = header.non_negative(epsilon)?;
        Ok(Reader {
            norm_epsilon: norm_epsilon.ok_or_else(|| header.missing(epsilon))?,
            header,
            shape,
            tensors,
            architecture: architecture.name,
            norm: architecture.norm,
        })
    }

    /// The model's RoPE.
    pub fn rope(&mut self, pairs: Pairs) -> Result<Rope, Error> {
        Rope::read(&self.header, &self.shape, &mut self.tensors, pairs)
    }

    /// The learned embeddings of positions.
    pub fn position_embd(&mut self) -> Result<Matrix, Error> {
        let shape = &self.shape;
        self.tensors.matrix("position_embd.weight", shape.n_ctx_train, shape.n_embd)
    }

    /// All layers, each as `layer` reads it.
    pub(super) fn layers(
        &mut self,
        mut layer: impl FnMut(&mut Self, usize) -> Result<Layer, Error>,
    ) -> Result<Vec<Layer>, Error> {
        // Grows with the tensors that are found, not with the number that the file claims.
        let mut layers = Vec::new();
        for i in 0..self.shape.n_layer {
            layers.push(layer(self, i)?);
        }
        Ok(layers)
    }

    /// A layer with one norm before attention and one before the feed-forward network.
    pub(super) fn layer(&mut self, i: usize, attn: Attention, ffn: Dense) -> Result<Layer, Error> {
        let n_embd = self.shape.n_embd;
        Ok(Layer {
            mixer_norm: self.norm(&of_layer(i, "attn_norm"), n_embd)?,
            mixer: Mixer::Attention(attn),
            mixer_post_norm: None,
            ffn_norm: self.norm(&of_layer(i, "ffn_norm"), n_embd)?,
            ffn: FeedForward::Dense(ffn),
            ffn_post_norm: None,
        })
    }

    /// Attention over all positions, with the model's first RoPE variant.
    ///
    /// [`Reader::head_scale`] is the factor of the scores.
    pub(super) fn attention(&mut self, i: usize) -> Result<Attention, Error> {
        let shape = &self.shape;
        let (n_embd, n_embd_q, n_embd_kv) = (shape.n_embd, shape.n_embd_q(), shape.n_embd_kv());
        let scale = Scale::Scores(self.head_scale());
        let fused =
            self.optional_linear(&of_layer(i, "attn_qkv"), n_embd_q + 2 * n_embd_kv, n_embd)?;
        let qkv = match fused {
            Some(fused) => vec![fused],
            None => vec![
                self.linear(&of_layer(i, "attn_q"), n_embd_q, n_embd)?,
                self.linear(&of_layer(i, "attn_k"), n_embd_kv, n_embd)?,
                self.linear(&of_layer(i, "attn_v"), n_embd_kv, n_embd)?,
            ],
        };
        Ok(Attention {
            qkv,
            qk_norms: None,
            rope: Some(0),
            scale,
            score_softcap: None,
            window: None,
            output: self.linear(&of_layer(i, "attn_output"), n_embd, n_embd_q)?,
        })
    }

    /// One over the root of the heads' width.
    pub fn head_scale(&self) -> f32 {
        1.0 / libm::sqrtf(self.shape.head_size as f32)
    }

    /// The norms of each head's query and key.
    pub(super) fn qk_norms(&mut self, i: usize) -> Result<[Norm; 2], Error> {
        let head_size = self.shape.head_size;
        Ok([
            self.norm(&of_layer(i, "attn_q_norm"), head_size)?,
            self.norm(&of_layer(i, "attn_k_norm"), head_size)?,
        ])
    }

    /// A feed-forward network without a gate.
    pub(super) fn feed_forward(
        &mut self,
        i: usize,
        activation: Activation,
    ) -> Result<Dense, Error> {
        let (n_embd, n_ff) = (self.shape.n_embd, self.shape.n_ff);
        let up = vec![self.linear(&of_layer(i, "ffn_up"), n_ff, n_embd)?];
        let down = self.linear(&of_layer(i, "ffn_down"), n_embd, n_ff)?;
        Ok(Dense { up, gated: false, activation, down })
    }

    /// A gated feed-forward network.
    pub(super) fn gated_feed_forward(
        &mut self,
        i: usize,
        activation: Activation,
    ) -> Result<Dense, Error> {
        let (n_embd, n_ff) = (self.shape.n_embd, self.shape.n_ff);
        let up = vec![
            self.linear(&of_layer(i, "ffn_gate"), n_ff, n_embd)?,
            self.linear(&of_layer(i, "ffn_up"), n_ff, n_embd)?,
        ];
        let down = self.linear(&of_layer(i, "ffn_down"), n_embd, n_ff)?;
        Ok(Dense { up, gated: true, activation, down })
    }

    /// A gated feed-forward network whose gate and values are one tensor.
    pub(super) fn fused_feed_forward(
        &mut self,
        i: usize,
        activation: Activation,
    ) -> Result<Dense, Error> {
        let (n_embd, n_ff) = (self.shape.n_embd, self.shape.n_ff);
        if !n_ff.is_multiple_of(ROWS) {
            let what = format!("half of a tensor, {n_ff} rows, which {ROWS} does not divide");
            return Err(Error::Unsupported { what });
        }
        let up = vec![self.linear(&of_layer(i, "ffn_up"), 2 * n_ff, n_embd)?];
        let down = self.linear(&of_layer(i, "ffn_down"), n_embd, n_ff)?;
        Ok(Dense { up, gated: true, activation, down })
    }

    /// Checks that a layer has these tensors, optional for other architectures.
    pub fn require(&self, i: usize, parts: &[&str]) -> Result<(), Error> {
        let mut names = parts.iter().map(|part| of_layer(i, part));
        match names.find(|name| !self.tensors.contains(name)) {
            None => Ok(()),
            Some(name) => Err(self.tensors.missing(&name)),
        }
    }

    /// The norm of this name.
    pub(super) fn norm(&mut self, name: &str, width: usize) -> Result<Norm, Error> {
        let weights = self.tensors.vector(&format!("{name}.weight"), width)?;
        Ok(match self.norm {
            NormKind::Rms => Norm::Rms { weights },
            NormKind::Layer => {
                Norm::Layer { weights, bias: self.tensors.vector(&format!("{name}.bias"), width)? }
            }
        })
    }

    /// The model with these layers, its embedding and its output. No tensor may be left.
    pub(super) fn finish(mut self, ropes: Vec<Rope>, layers: Vec<Layer>) -> Result<Model, Error> {
        let shape = self.shape.clone();
        let token_embd = self.tensors.matrix("token_embd.weight", shape.n_vocab, shape.n_embd)?;
        let output_norm = self.norm("output_norm", shape.n_embd)?;
        let output = match self.optional_linear("output", shape.n_vocab, shape.n_embd)? {
            Some(output) => output,
            // The embedding serves as the output too.
            None => Linear { weights: token_embd.clone(), bias: None },
        };
        self.tensors.finish()?;
        Ok(Model {
            architecture: self.architecture,
            shape,
            norm_epsilon: self.norm_epsilon,
            token_embd,
            embedding_scale: None,
            position_embd: None,
            ropes,
            layers,
            output_norm,
            output,
            logit_softcap: None,
        })
    }

    /// The linear map of this name, with a bias if the file has one.
    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear, Error> {
        let weights = self.tensors.matrix(&format!("{name}.weight"), rows, columns)?;
        let bias = self.tensors.optional_vector(&format!("{name}.bias"), rows)?;
        Ok(Linear { weights, bias })
    }

    /// The linear map of this name, if there is one.
    fn optional_linear(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Option<Linear>, Error> {
        if !self.tensors.contains(&format!("{name}.weight")) {
            return Ok(None);
        }
        self.linear(name, rows, columns).map(Some)
    }
}

/// The name of a part of a layer.
pub fn of_layer(i: usize, part: &str) -> String {
    format!("blk.{i}.{part}")
}
