//! The `gemma3` architecture (Gemma team 2025).
//!
//! `gemma2` with norms of each head's query and key instead of softcapping of scores. Five of six
//! layers have a sliding window. Their RoPE has a base of its own and no scaling.

use super::reader::Reader;
use super::rope::Pairs;
use super::{Architecture, Attention, Model, NormKind, gemma};
use crate::llm::Error;

/// This architecture.
pub const ARCHITECTURE: Architecture = Architecture { name: "gemma3", norm: NormKind::Rms, read };

fn read(mut reader: Reader<'_, '_>) -> Result<Model, Error> {
    let header = &reader.header;
    // Without the key, or with a window of 0, the model has no window.
    let window = header.optional_or_zero("attention.sliding_window")?;
    let window = Some(window).filter(|&window| window > 0);
    let is_windowed = header.windowed_layers(reader.shape.n_layer, 6)?;
    let local_base = header.positive("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let logit_softcap = header.non_negative("final_logit_softcapping")?.filter(|&cap| cap > 0.0);
    let scale = gemma::query_scale(&reader, 62);
    let rope = reader.rope(Pairs::Halves)?;
    let local = rope.local(local_base);
    let layers = reader.layers(|reader, i| {
        let window = window.filter(|_| is_windowed(i));
        let qk_norms = Some(reader.qk_norms(i)?);
        let attn = Attention {
            qk_norms,
            rope: Some(usize::from(window.is_some())),
            scale,
            window,
            ..reader.attention(i)?
        };
        gemma::layer(reader, i, attn)
    })?;
    let model = gemma::finish(reader, [rope, local].into(), layers)?;
    Ok(Model { logit_softcap, ..model })
}
