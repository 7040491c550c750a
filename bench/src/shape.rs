//! The models' shapes and the processors that are measured.

#![forbid(unsafe_code)]

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The name of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum ShapeName {
    /// A llama of 10 million parameters.
    Tiny,
    /// GPT-2 with 124 million parameters and an output of its own.
    Gpt2,
    /// TinyLlama with 1.1 billion parameters.
    TinyLlama,
    /// SmolLM2-135M-Instruct itself, which is downloaded; for `serve` alone.
    SmolLm2,
}

/// The shape of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// `general.architecture`: "llama" or "gpt2".
    pub architecture: &'static str,
    /// Layers.
    pub n_layer: u64,
    /// Width of the embedding, a multiple of 256 for Q6_K.
    pub n_embd: u64,
    /// Attention heads.
    pub n_head: u64,
    /// Key and value heads.
    pub n_head_kv: u64,
    /// Width of the feed-forward network.
    pub n_ff: u64,
    /// Tokens in the vocabulary.
    pub n_vocab: u64,
    /// Positions of the training context in the model's header.
    pub n_ctx: u64,
}

impl ShapeName {
    /// The shapes of random weights.
    pub const RANDOM: [ShapeName; 3] = [ShapeName::Tiny, ShapeName::Gpt2, ShapeName::TinyLlama];

    /// The name in commands, tables and files.
    pub fn name(self) -> &'static str {
        match self {
            ShapeName::Tiny => "tiny",
            ShapeName::Gpt2 => "gpt2",
            ShapeName::TinyLlama => "tinyllama",
            ShapeName::SmolLm2 => "smollm2",
        }
    }

    /// The name in tables and messages.
    pub fn title(self) -> &'static str {
        match self {
            ShapeName::Tiny => "tiny",
            ShapeName::Gpt2 => "GPT-2-124M",
            ShapeName::TinyLlama => "TinyLlama-1.1B",
            ShapeName::SmolLm2 => "SmolLM2-135M",
        }
    }

    /// The number of tokens to generate when rates are measured.
    pub fn tokens(self) -> usize {
        match self {
            ShapeName::Tiny => 97,
            ShapeName::Gpt2 | ShapeName::SmolLm2 => 17,
            ShapeName::TinyLlama => 7,
        }
    }

    /// The shape itself; `None` of a model that is downloaded.
    pub fn shape(self) -> Option<Shape> {
        let tiny = Shape {
            architecture: "llama",
            n_layer: 6,
            n_embd: 256,
            n_head: 8,
            n_head_kv: 4,
            n_ff: 1024,
            n_vocab: 8192,
            n_ctx: 1024,
        };
        Some(match self {
            ShapeName::SmolLm2 => return None,
            ShapeName::Tiny => tiny,
            ShapeName::Gpt2 => Shape {
                architecture: "gpt2",
                n_layer: 12,
                n_embd: 768,
                n_head: 12,
                n_head_kv: 12,
                n_ff: 3072,
                n_vocab: 50257,
                n_ctx: 1024,
            },
            ShapeName::TinyLlama => Shape {
                n_layer: 22,
                n_embd: 2048,
                n_head: 32,
                n_ff: 5632,
                n_vocab: 32000,
                n_ctx: 2048,
                ..tiny
            },
        })
    }
}

/// A processor: the simplest with each set of instructions that kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Cpu {
    /// Advanced SIMD of Armv8.0: the Raspberry Pi 4.
    CortexA72,
    /// With dot products, like the Apple M1 and the Cortex-A76.
    NeoverseN1,
    /// All features of QEMU but SVE: with matrix products (`i8mm`).
    Max,
}

impl Cpu {
    /// The value of QEMU's `-cpu`.
    pub fn qemu(self) -> &'static str {
        match self {
            Cpu::CortexA72 => "cortex-a72",
            Cpu::NeoverseN1 => "neoverse-n1",
            // TCG is very slow with the architected cipher for pointer authentication.
            Cpu::Max => "max,sve=off,pauth-impdef=on",
        }
    }

    /// The name in commands and tables.
    pub fn name(self) -> &'static str {
        match self {
            Cpu::Max => "max",
            other => other.qemu(),
        }
    }
}
