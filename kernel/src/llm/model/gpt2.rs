//! The `gpt2` architecture (Radford et al. 2019).
//!
//! Learned positions, LayerNorm, biases on every map, GELU.

use super::reader::Reader;
use super::{Activation, Architecture, Attention, Model, NormKind};
use crate::llm::Error;

/// This architecture.
pub const ARCHITECTURE: Architecture = Architecture { name: "gpt2", norm: NormKind::Layer, read };

/// The tensors of each layer. Without a bias it would be another model.
const PARTS: [&str; 5] =
    ["attn_qkv.weight", "attn_qkv.bias", "attn_output.bias", "ffn_up.bias", "ffn_down.bias"];

fn read(mut reader: Reader<'_, '_>) -> Result<Model, Error> {
    let position_embd = reader.position_embd()?;
    let layers = reader.layers(|reader, i| {
        reader.require(i, &PARTS)?;
        let attn = Attention { rope: None, ..reader.attention(i)? };
        let ffn = reader.feed_forward(i, Activation::Gelu)?;
        reader.layer(i, attn, ffn)
    })?;
    let model = reader.finish([].into(), layers)?;
    Ok(Model { position_embd: Some(position_embd), ..model })
}
