//! The `gemma2` architecture (Gemma team 2024).
//!
//! `gemma` with norms after each part too, softcapping of scores and logits, and a sliding window
//! in every second layer.

use super::reader::Reader;
use super::rope::Pairs;
use super::{Architecture, Attention, Model, NormKind, gemma};
use crate::llm::Error;

/// This architecture.
pub const ARCHITECTURE: Architecture = Architecture { name: "gemma2", norm: NormKind::Rms, read };

fn read(mut reader: Reader<'_, '_>) -> Result<Model, Error> {
    let header = &reader.header;
    let window = header.optional("attention.sliding_window")?.unwrap_or(4096);
    let is_windowed = header.windowed_layers(reader.shape.n_layer, 2)?;
    let score_softcap = Some(header.positive("attn_logit_softcapping")?.unwrap_or(50.0));
    let logit_softcap = Some(header.positive("final_logit_softcapping")?.unwrap_or(30.0));
    let scale = gemma::query_scale(&reader, 46);
    let rope = reader.rope(Pairs::Halves)?;
    let layers = reader.layers(|reader, i| {
        let window = is_windowed(i).then_some(window);
        let attn = Attention { scale, score_softcap, window, ..reader.attention(i)? };
        gemma::layer(reader, i, attn)
    })?;
    let model = gemma::finish(reader, [rope].into(), layers)?;
    Ok(Model { logit_softcap, ..model })
}
