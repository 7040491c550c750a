//! The `qwen2` architecture (Yang et al. 2024): `llama` with rotated halves, and biases on queries,
//! keys and values. Qwen 1.5, 2 and 2.5.

use super::reader::Reader;
use super::rope::Pairs;
use super::{Activation, Architecture, Model, NormKind};
use crate::llm::Error;

/// This architecture.
pub const ARCHITECTURE: Architecture = Architecture { name: "qwen2", norm: NormKind::Rms, read };

fn read(mut reader: Reader<'_, '_>) -> Result<Model, Error> {
    let rope = reader.rope(Pairs::Halves)?;
    let layers = reader.layers(|reader, i| {
        let attn = reader.attention(i)?;
        let ffn = reader.gated_feed_forward(i, Activation::Silu)?;
        reader.layer(i, attn, ffn)
    })?;
    reader.finish([rope].into(), layers)
}
