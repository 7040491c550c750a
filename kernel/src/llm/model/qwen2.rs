//! The `qwen2` architecture (Yang et al. 2024): Qwen 1.5, 2 and 2.5.
//!
//! `llama` with RoPE of halves, and biases on queries, keys and values.

use super::reader::Reader;
use super::rope::Pairs;
use super::{Architecture, Model, NormKind, llama};
use crate::llm::Error;

/// This architecture.
pub const ARCHITECTURE: Architecture = Architecture { name: "qwen2", norm: NormKind::Rms, read };

fn read(reader: Reader<'_, '_>) -> Result<Model, Error> {
    llama::model(reader, Pairs::Halves)
}
