//! Small models of random weights.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::llm::gguf::write::Builder;
use crate::llm::kernels::fixtures::{Noise, random_row};
use crate::llm::quantize::{WeightType, dequantize_row};

/// The shape of a model, and what makes it special.
#[derive(Clone, Debug)]
pub struct Synthetic {
    pub kind: WeightType,
    pub n_layer: u32,
    pub n_embd: u32,
    pub n_head: u32,
    pub n_head_kv: u32,
    pub n_rot: u32,
    pub n_ff: u32,
    /// Whether the output is the embedding.
    pub tied: bool,
    /// Whether there are factors for RoPE's frequencies.
    pub rope_factors: bool,
    pub seed: u64,
}

pub const N_CTX_TRAIN: u32 = 97;

impl Synthetic {
    /// A model with weights of this type.
    pub fn new(kind: WeightType) -> Self {
        let base = Synthetic {
            kind,
            n_layer: 2,
            n_embd: 256,
            n_head: 4,
            n_head_kv: 2,
            n_rot: 64,
            n_ff: 96,
            tied: false,
            rope_factors: false,
            seed: 29,
        };
        match kind {
            // No width is a multiple of anything that kernels like. Heads are 11 wide, of which 6
            // are rotated.
            WeightType::F32 | WeightType::F16 => {
                Synthetic { n_embd: 66, n_head: 6, n_rot: 6, n_ff: 37, ..base }
            }
            _ if kind.tensor_type().block_weights == 256 => Synthetic { n_ff: 512, ..base },
            _ => base,
        }
    }

    /// The texts of the vocabulary: special tokens, bytes, and some texts.
    pub fn vocabulary() -> Vec<(String, f32, i32)> {
        let mut tokens: Vec<(String, f32, i32)> = Vec::new();
        for (text, kind) in [("<unk>", 2), ("<s>", 3), ("</s>", 3)] {
            tokens.push((text.into(), 0.0, kind));
        }
        tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
        for (i, text) in ["▁", "a", "b", "c", "ab", "▁a", "▁ab", "abc"].into_iter().enumerate()
        {
            tokens.push((text.into(), -(i as f32), 1));
        }
        tokens
    }

    fn matrix(&self, noise: &mut Noise, rows: u32, columns: u32) -> Vec<u8> {
        let block = self.kind.tensor_type().block_weights as usize;
        // The average magnitude of a weight, with scales of up to 1 (1 / sqrt(3) on average).
        let mut sample = vec![0.0; 1 << 14];
        let row = random_row(self.kind, sample.len() / block, 1.0, &mut Noise::new(7));
        dequantize_row(self.kind, &row, &mut sample);
        let squares: f32 = sample.iter().map(|x| x * x).sum();
        let size = libm::sqrtf(3.0 * squares / sample.len() as f32);
        let amplitude = 2.0 / (size * libm::sqrtf(columns as f32));
        let blocks = columns as usize / block;
        (0..rows).flat_map(|_| random_row(self.kind, blocks, amplitude, noise)).collect()
    }

    /// The file's parts.
    pub fn builder(&self) -> Builder {
        let mut noise = Noise::new(self.seed);
        let vocabulary = Self::vocabulary();
        let texts: Vec<&str> = vocabulary.iter().map(|(text, ..)| text.as_str()).collect();
        let scores: Vec<f32> = vocabulary.iter().map(|&(_, score, _)| score).collect();
        let kinds: Vec<i32> = vocabulary.iter().map(|&(.., kind)| kind).collect();
        let mut builder = Builder::new()
            .string("general.architecture", "llama")
            .string("general.name", "synthetic")
            .u32("llama.block_count", self.n_layer)
            .u32("llama.context_length", N_CTX_TRAIN)
            .u32("llama.embedding_length", self.n_embd)
            .u32("llama.feed_forward_length", self.n_ff)
            .u32("llama.attention.head_count", self.n_head)
            .u32("llama.attention.head_count_kv", self.n_head_kv)
            .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
            .u32("llama.rope.dimension_count", self.n_rot)
            .f32("llama.rope.freq_base", 1000.0)
            .string("tokenizer.ggml.model", "llama")
            .strings("tokenizer.ggml.tokens", &texts)
            .f32s("tokenizer.ggml.scores", &scores)
            .i32s("tokenizer.ggml.token_type", &kinds);

        let n_vocab = vocabulary.len() as u32;
        let n_embd_kv = self.n_embd / self.n_head * self.n_head_kv;
        let mut matrices = vec![(String::from("token_embd"), n_vocab, self.n_embd)];
        for i in 0..self.n_layer {
            for (name, rows, columns) in [
                ("attn_norm", 1, self.n_embd),
                ("attn_q", self.n_embd, self.n_embd),
                ("attn_k", n_embd_kv, self.n_embd),
                ("attn_v", n_embd_kv, self.n_embd),
                ("attn_output", self.n_embd, self.n_embd),
                ("ffn_norm", 1, self.n_embd),
                ("ffn_gate", self.n_ff, self.n_embd),
                ("ffn_up", self.n_ff, self.n_embd),
                ("ffn_down", self.n_embd, self.n_ff),
            ] {
                matrices.push((format!("blk.{i}.{name}"), rows, columns));
            }
        }
        matrices.push(("output_norm".into(), 1, self.n_embd));
        if !self.tied {
            matrices.push(("output".into(), n_vocab, self.n_embd));
        }
        for (name, rows, columns) in matrices {
            let name = format!("{name}.weight");
            if rows == 1 {
                let weights: Vec<f32> = (0..columns).map(|_| 1.0 + 0.5 * noise.float()).collect();
                builder = builder.tensor_f32(&name, &[columns.into()], &weights);
            } else {
                let dims = [columns.into(), rows.into()];
                let data = self.matrix(&mut noise, rows, columns);
                builder = builder.tensor(&name, &dims, self.kind.tensor_type(), data);
            }
        }
        if self.rope_factors {
            let factors: Vec<f32> = (0..self.n_rot / 2).map(|i| 1.0 + i as f32).collect();
            builder = builder.tensor_f32("rope_freqs.weight", &[factors.len() as u64], &factors);
        }
        builder
    }
}
