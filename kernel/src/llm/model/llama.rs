//! The `llama` architecture (Touvron et al. 2023).
//!
//! RMSNorm, RoPE of neighbours, grouped queries, SwiGLU. TinyLlama, Llama 2 and 3, SmolLM. Mistral
//! too: llama.cpp does not apply its window either.

use super::reader::Reader;
use super::rope::Pairs;
use super::{Activation, Architecture, Model, NormKind};
use crate::llm::Error;

/// This architecture.
pub const ARCHITECTURE: Architecture = Architecture { name: "llama", norm: NormKind::Rms, read };

fn read(reader: Reader<'_, '_>) -> Result<Model, Error> {
    model(reader, Pairs::Neighbours)
}

/// A model of this kind, with RoPE of these pairs.
pub fn model(mut reader: Reader<'_, '_>, pairs: Pairs) -> Result<Model, Error> {
    let rope = reader.rope(pairs)?;
    let layers = reader.layers(|reader, i| {
        let attn = reader.attention(i)?;
        let ffn = reader.gated_feed_forward(i, Activation::Silu)?;
        reader.layer(i, attn, ffn)
    })?;
    reader.finish([rope].into(), layers)
}
