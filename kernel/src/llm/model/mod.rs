//! Models: descriptions of networks, and one reader for each architecture.
//!
//! A [`Model`] is a description: the parts, their order, and the places of their weights in the
//! file. [`forward`] runs any model. An architecture is one module with a function that reads a
//! model from a file, and one line in [`ARCHITECTURES`].

#![forbid(unsafe_code)]

mod compute;
mod forward;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
pub mod header;
mod llama;
mod phi3;
mod qwen2;
mod qwen3;
pub mod reader;
mod repack;
pub mod rope;
pub mod scratch;
mod state;
pub mod tensors;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use compute::{Compute, Stage, StageHook};
pub use forward::{Input, Row};
pub use header::Shape;
use reader::Reader;
pub use repack::{Repack, Repacked};
use rope::Rope;
use tensors::{Matrix, Vector};

use crate::llm::Error;
use crate::llm::arena::ModelBytes;
use crate::llm::gguf::{Gguf, TensorInfo};
use crate::llm::kernels::BATCH;
use crate::llm::quantize::WeightType;

/// The most rows of one session in a forward pass, in a context of `n_ctx`.
pub fn batch(n_ctx: usize) -> usize {
    BATCH.min(n_ctx)
}

/// An architecture: how a family of models is read from its files.
pub struct Architecture {
    /// Its name, as `general.architecture` has it.
    pub name: &'static str,
    /// The norms of its models.
    norm: NormKind,
    /// Describes a model.
    read: fn(Reader<'_, '_>) -> Result<Model, Error>,
}

/// All architectures that the engine knows.
pub const ARCHITECTURES: &[Architecture] = &[
    gemma::ARCHITECTURE,
    gemma2::ARCHITECTURE,
    gemma3::ARCHITECTURE,
    gpt2::ARCHITECTURE,
    llama::ARCHITECTURE,
    phi3::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen3::ARCHITECTURE,
];

/// A model: the network from a token to the logits of the next one.
#[derive(Debug)]
pub struct Model {
    architecture: &'static str,
    shape: Shape,
    /// Added to the variance in norms.
    norm_epsilon: f32,
    /// `[n_vocab, n_embd]`.
    token_embd: Matrix,
    /// The factor of embeddings.
    embedding_scale: Option<f32>,
    /// `[n_ctx_train, n_embd]`, where positions are learned.
    position_embd: Option<Matrix>,
    /// The RoPE variants that layers refer to.
    ropes: Vec<Rope>,
    layers: Vec<Layer>,
    output_norm: Norm,
    /// `[n_vocab, n_embd]`.
    output: Linear,
    /// Softcap of the logits.
    logit_softcap: Option<f32>,
}

/// One layer: a mixer and a feed-forward network, each added to a row's state.
#[derive(Debug)]
struct Layer {
    mixer_norm: Norm,
    mixer: Mixer,
    /// Before the mixer's result is added.
    mixer_post_norm: Option<Norm>,
    ffn_norm: Norm,
    ffn: FeedForward,
    /// Before the network's result is added.
    ffn_post_norm: Option<Norm>,
}

/// The part of a layer that mixes positions.
///
/// A mixer decides on its layer's state: see `Model::state_shape`.
#[derive(Debug)]
enum Mixer {
    Attention(Attention),
}

impl Mixer {
    /// The maps that get the normed states.
    fn inputs(&self) -> &[Linear] {
        match self {
            Mixer::Attention(attn) => &attn.qkv,
        }
    }

    /// All its maps.
    fn maps(&self) -> impl Iterator<Item = &Linear> {
        match self {
            Mixer::Attention(attn) => attn.qkv.iter().chain([&attn.output]),
        }
    }

    /// All its norms.
    fn norms(&self) -> impl Iterator<Item = &Norm> {
        match self {
            Mixer::Attention(attn) => attn.qk_norms.iter().flatten(),
        }
    }
}

/// Attention with grouped queries.
#[derive(Debug)]
struct Attention {
    /// The maps to queries, keys and values, in this order: one fused map or three.
    ///
    /// `[n_embd_q + 2 * n_embd_kv, n_embd]` in all.
    qkv: Vec<Linear>,
    /// Norms of each head's query and key.
    qk_norms: Option<[Norm; 2]>,
    /// The number of the model's RoPE variant; `None` is no rotation.
    rope: Option<usize>,
    scale: Scale,
    /// Softcap of the scores.
    score_softcap: Option<f32>,
    /// The sliding window: positions seen, counted back from the token. `None` is all.
    window: Option<usize>,
    /// `[n_embd, n_embd_q]`.
    output: Linear,
}

/// The factor that keeps scores small, applied to scores or to queries.
///
/// The two round differently.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Scores(f32),
    Queries(f32),
}

/// A feed-forward network.
#[derive(Debug)]
enum FeedForward {
    Dense(Dense),
}

impl FeedForward {
    /// The maps that get the normed states.
    fn inputs(&self) -> &[Linear] {
        match self {
            FeedForward::Dense(dense) => &dense.up,
        }
    }

    /// All its maps.
    fn maps(&self) -> impl Iterator<Item = &Linear> {
        match self {
            FeedForward::Dense(dense) => dense.up.iter().chain([&dense.down]),
        }
    }

    /// Numbers of one row that go to the activation function, divided by `n_ff`.
    fn parts(&self) -> usize {
        match self {
            FeedForward::Dense(dense) => dense.parts(),
        }
    }
}

/// A feed-forward network that all rows go through.
#[derive(Debug)]
struct Dense {
    /// The maps to the gate and the values, in this order: one fused map or two.
    ///
    /// `[2 * n_ff, n_embd]` in all. Without a gate, one map to the values: `[n_ff, n_embd]`.
    up: Vec<Linear>,
    gated: bool,
    activation: Activation,
    /// `[n_embd, n_ff]`.
    down: Linear,
}

impl Dense {
    /// Outputs of `up` for each input of `down`.
    fn parts(&self) -> usize {
        if self.gated { 2 } else { 1 }
    }
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activation {
    Silu,
    Gelu,
}

/// A linear map: `[outputs, inputs]`, with an optional bias.
#[derive(Clone, Debug)]
pub struct Linear {
    weights: Matrix,
    bias: Option<Vector>,
}

/// A norm's weights.
#[derive(Clone, Debug)]
enum Norm {
    Rms { weights: Vector },
    Layer { weights: Vector, bias: Vector },
}

impl Norm {
    fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let (weights, bias) = match self {
            Norm::Rms { weights } => (weights, None),
            Norm::Layer { weights, bias } => (weights, Some(bias)),
        };
        core::iter::once(weights).chain(bias)
    }
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NormKind {
    Rms,
    Layer,
}

impl Architecture {
    /// The architecture of a file.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the file names no architecture, [`Error::NotAModel`] if the file
    /// holds no model, [`Error::Unsupported`] if the engine does not know the architecture.
    pub fn of(gguf: &Gguf<'_>) -> Result<&'static Self, Error> {
        let name = gguf.architecture()?;
        ARCHITECTURES.iter().find(|known| known.name == name).ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|known| known.name).collect();
            let known = known.join(", ");
            let what = format!("the architecture `{name:.80}`; those that work are {known}");
            Error::Unsupported { what }
        })
    }

    /// Finds the parts of a model with a vocabulary of `n_vocab` tokens.
    ///
    /// `files` are the parts of a split file, or the one file there is; the first has the metadata.
    /// The model expects matrices of the types that `packed` wants to be repacked ([`Repack`]), and
    /// [`Model::bind`] is to be called before its first forward pass.
    ///
    /// # Errors
    /// [`Error::ParseError`] if a part is missing or malformed, [`Error::Unsupported`] if a part
    /// or a type of weights is not known to this engine.
    pub fn model(
        &self,
        files: &[Gguf<'_>],
        n_vocab: usize,
        packed: fn(WeightType) -> bool,
    ) -> Result<Model, Error> {
        (self.read)(Reader::new(files, self, n_vocab, packed)?)
    }
}

impl Model {
    /// The name of its architecture.
    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Its token embeddings: `[n_vocab, n_embd]`.
    pub fn token_embd(&self) -> &Matrix {
        &self.token_embd
    }

    /// Reads the tensors that a forward pass needs as numbers: the RoPE factors.
    pub fn bind(&mut self, sources: &[ModelBytes]) {
        for rope in &mut self.ropes {
            rope.bind(sources);
        }
    }

    /// All its linear maps.
    fn maps(&self) -> impl Iterator<Item = &Linear> {
        let of_layers =
            self.layers.iter().flat_map(|layer| layer.mixer.maps().chain(layer.ffn.maps()));
        of_layers.chain([&self.output])
    }

    /// All its matrices. Matrices that share their bytes are listed twice.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let of_maps = self.maps().map(|map| &map.weights);
        of_maps.chain([&self.token_embd]).chain(&self.position_embd)
    }

    /// All its vectors.
    pub fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let of_layers = self.layers.iter().flat_map(|layer| {
            let post = layer.mixer_post_norm.iter().chain(&layer.ffn_post_norm);
            [&layer.mixer_norm, &layer.ffn_norm].into_iter().chain(post).chain(layer.mixer.norms())
        });
        let norms = of_layers.chain([&self.output_norm]).flat_map(Norm::vectors);
        norms.chain(self.maps().filter_map(|map| map.bias.as_ref()))
    }

    /// The most numbers per row that go to an activation function, gates included.
    fn n_gate_up(&self) -> usize {
        let parts = self.layers.iter().map(|layer| layer.ffn.parts());
        parts.max().unwrap_or(0) * self.shape.n_ff
    }

    /// Numbers of a row's angles, for all RoPE variants.
    fn n_angles(&self) -> usize {
        self.ropes.iter().map(Rope::n_rot).sum()
    }

    /// Splits a row's angles by RoPE variant.
    fn split_angles<'a>(&self, mut angles: &'a mut [f32]) -> impl Iterator<Item = &'a mut [f32]> {
        self.ropes.iter().map(move |rope| angles.split_off_mut(..rope.n_rot()).unwrap_or_default())
    }

    /// A layer's RoPE with its angles; `None` without rotation.
    fn rope<'a>(&self, attn: &Attention, angles: &'a [f32]) -> Option<(&Rope, &'a [f32])> {
        let (before, rest) = self.ropes.split_at(attn.rope?);
        let start = before.iter().map(Rope::n_rot).sum();
        let rope = rest.first()?;
        Some((rope, &angles[start..start + rope.n_rot()]))
    }
}

/// The weight type that holds most of a model's weights, by its name.
pub fn quantization(files: &[Gguf<'_>]) -> String {
    let tensors = || files.iter().flat_map(|gguf| gguf.tensors());
    let share = |name: &str| -> u64 {
        let of_type = tensors().filter(|tensor| tensor.kind.name == name);
        of_type.map(TensorInfo::elements).fold(0, u64::saturating_add)
    };
    let names: BTreeSet<&str> = tensors().map(|tensor| tensor.kind.name).collect();
    names.into_iter().max_by_key(|name| share(name)).unwrap_or_default().to_string()
}
