//! The `gemma` architecture (Gemma team 2024), and the parts its successors share.
//!
//! Scaled embeddings that serve as the output too, RoPE of halves, GeGLU, queries that are scaled
//! instead of scores.

use super::reader::{Reader, of_layer};
use super::rope::{Pairs, Rope};
use super::{Activation, Architecture, Attention, Layer, Model, NormKind, Scale};
use crate::llm::Error;

/// This architecture.
pub const ARCHITECTURE: Architecture = Architecture { name: "gemma", norm: NormKind::Rms, read };

fn read(mut reader: Reader<'_, '_>) -> Result<Model, Error> {
    let rope = reader.rope(Pairs::Halves)?;
    let scale = Scale::Queries(reader.head_scale());
    let layers = reader.layers(|reader, i| {
        let attn = Attention { scale, ..reader.attention(i)? };
        let ffn = reader.gated_feed_forward(i, Activation::Gelu)?;
        reader.layer(i, attn, ffn)
    })?;
    finish(reader, [rope].into(), layers)
}

/// The factor of queries in Gemma 2 and 3.
///
/// The largest model, recognised by its number of layers, derives the factor from `n_embd / n_head`
/// instead of the heads' width.
pub fn query_scale(reader: &Reader<'_, '_>, layers_of_27b: usize) -> Scale {
    let shape = &reader.shape;
    Scale::Queries(if shape.n_layer == layers_of_27b {
        1.0 / libm::sqrtf((shape.n_embd / shape.n_head) as f32)
    } else {
        reader.head_scale()
    })
}

/// A layer of Gemma 2 and 3, with norms before and after each part.
pub fn layer(reader: &mut Reader<'_, '_>, i: usize, attn: Attention) -> Result<Layer, Error> {
    let n_embd = reader.shape.n_embd;
    let ffn = reader.gated_feed_forward(i, Activation::Gelu)?;
    Ok(Layer {
        mixer_post_norm: Some(reader.norm(&of_layer(i, "post_attention_norm"), n_embd)?),
        ffn_post_norm: Some(reader.norm(&of_layer(i, "post_ffw_norm"), n_embd)?),
        ..reader.layer(i, attn, ffn)?
    })
}

/// The model with these layers and scaled embeddings.
pub fn finish(
    reader: Reader<'_, '_>,
    ropes: alloc::vec::Vec<Rope>,
    layers: alloc::vec::Vec<Layer>,
) -> Result<Model, Error> {
    let model = reader.finish(ropes, layers)?;
    Ok(Model { embedding_scale: Some(libm::sqrtf(model.shape.n_embd as f32)), ..model })
}
