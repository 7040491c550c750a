//! The `qwen3` architecture (Qwen team 2025).
//!
//! `qwen2` with norms of each head's query and key, and without biases.

use super::reader::Reader;
use super::rope::Pairs;
use super::{Activation, Architecture, Attention, Model, NormKind};
use crate::llm::Error;

/// This architecture.
pub const ARCHITECTURE: Architecture = Architecture { name: "qwen3", norm: NormKind::Rms, read };

fn read(mut reader: Reader<'_, '_>) -> Result<Model, Error> {
    let rope = reader.rope(Pairs::Halves)?;
    let layers = reader.layers(|reader, i| {
        let qk_norms = Some(reader.qk_norms(i)?);
        let attn = Attention { qk_norms, ..reader.attention(i)? };
        let ffn = reader.gated_feed_forward(i, Activation::Silu)?;
        reader.layer(i, attn, ffn)
    })?;
    reader.finish([rope].into(), layers)
}
