//! Goldens that are runs of several models.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A file of them.
#[derive(Deserialize)]
pub struct Goldens<Run> {
    pub settings: Settings,
    /// Tokens that each run generates.
    pub n_generated: usize,
    pub models: BTreeMap<String, Model<Run>>,
}

/// How llama.cpp was set.
#[derive(Deserialize)]
pub struct Settings {
    pub n_ctx: usize,
}

/// A model and its generated texts.
#[derive(Deserialize)]
pub struct Model<Run> {
    pub sha256: String,
    pub runs: Vec<Run>,
}
