//! The `phi3` architecture (Abdin et al. 2024).
//!
//! `llama` with fused tensors, RoPE of halves with factors for short and long contexts (LongRoPE),
//! and queries that are scaled instead of scores. As in llama.cpp, the sliding window of some of
//! these models is not applied. Their files name the wrong layers for it.

use super::reader::Reader;
use super::rope::Pairs;
use super::{Activation, Architecture, Attention, Model, NormKind, Scale};
use crate::llm::Error;

/// This architecture.
pub const ARCHITECTURE: Architecture = Architecture { name: "phi3", norm: NormKind::Rms, read };

fn read(mut reader: Reader<'_, '_>) -> Result<Model, Error> {
    let rope = reader.rope(Pairs::Halves)?;
    let scale = Scale::Queries(reader.head_scale());
    let layers = reader.layers(|reader, i| {
        let attn = Attention { scale, ..reader.attention(i)? };
        let ffn = reader.fused_feed_forward(i, Activation::Silu)?;
        reader.layer(i, attn, ffn)
    })?;
    reader.finish([rope].into(), layers)
}
