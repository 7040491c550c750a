//! Writes GGUF models of random weights.
//!
//! Tensors have the types that llama.cpp's quantiser gives a `Q4_0` file. Matrices are in Q4_0, the
//! output is in Q6_K, and norms, biases and positions are in F32.
//!
//! The text of such a model has no meaning, but the numbers are sound. A matrix keeps the magnitude
//! of its input, no number is a NaN, and the text never ends by itself.

#![forbid(unsafe_code)]

use std::io::{self, Write};

use kernel::llm::gguf::write::{Builder, put_string};
use kernel::llm::gguf::{DEFAULT_ALIGNMENT, TensorType};
use kernel::llm::quantize::f32_to_f16;

use crate::random::Random;
use crate::shape::Shape;

/// The letters of prompts. Each is a token, and no two merge into one.
const LETTERS: &[u8] = b"abcdefghijklm";

/// The content of a tensor.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// The same F32 everywhere.
    Number(f32),
    /// Random F32 up to this magnitude.
    Noise(f32),
    /// A matrix in Q4_0.
    Q4_0,
    /// A matrix in Q6_K; the row of this number is zero.
    Q6K { zero: u64 },
}

/// A tensor of shape `[rows, columns]`.
struct Tensor {
    name: String,
    columns: u64,
    rows: u64,
    content: Content,
}

impl Tensor {
    fn kind(&self) -> TensorType {
        match self.content {
            Content::Number(_) | Content::Noise(_) => TensorType::F32,
            Content::Q4_0 => TensorType::Q4_0,
            Content::Q6K { .. } => TensorType::Q6_K,
        }
    }

    fn bytes(&self) -> u64 {
        self.kind().size_of(self.columns * self.rows).expect("the shapes have whole blocks")
    }

    /// Writes row number `i` to `row`.
    fn fill(&self, i: u64, random: &mut Random, row: &mut [u8]) {
        // With this amplitude, sums over a row are about as large as their terms.
        let amplitude = 1.0 / (self.columns as f32).sqrt();
        match self.content {
            Content::Number(number) => {
                row.as_chunks_mut().0.fill(number.to_le_bytes());
            }
            Content::Noise(size) => {
                for chunk in row.as_chunks_mut().0 {
                    *chunk = (size * random.float()).to_le_bytes();
                }
            }
            Content::Q4_0 => {
                random.fill(row);
                for block in row.as_chunks_mut::<18>().0 {
                    // Nibbles less 8 have the mean -0.5, which a random sign cancels. Their root
                    // mean square is 4.6.
                    let scale = random.float();
                    let scale = (1.0 + 0.5 * scale.abs()) * scale.signum() * amplitude / 5.8;
                    block[..2].copy_from_slice(&f32_to_f16(scale).to_le_bytes());
                }
            }
            Content::Q6K { zero } => {
                random.fill(row);
                for block in row.as_chunks_mut::<210>().0 {
                    for scale in &mut block[192..208] {
                        // The scale is an i8 from -32 to 31. Scales and 6-bit weights both have the
                        // root mean square 18.5.
                        *scale = (*scale % 64).wrapping_sub(32);
                    }
                    let scale = if i == zero { 0.0 } else { amplitude / (18.5 * 18.5) };
                    block[208..].copy_from_slice(&f32_to_f16(scale).to_le_bytes());
                }
            }
        }
    }
}

/// A prompt of `n_tokens` tokens, for any of these models.
pub fn prompt(n_tokens: usize) -> String {
    LETTERS.iter().cycle().take(n_tokens).map(|&letter| char::from(letter)).collect()
}

/// A model to be written.
pub struct Model {
    metadata: Builder,
    tensors: Vec<Tensor>,
}

impl Model {
    /// The model of this shape and name.
    pub fn new(name: &str, shape: &Shape) -> Model {
        let metadata = match shape.architecture {
            "gpt2" => gpt2_vocabulary(hyper_parameters(name, shape), shape.n_vocab),
            _ => llama_vocabulary(hyper_parameters(name, shape), shape.n_vocab),
        };
        Model { metadata, tensors: tensors(shape) }
    }

    /// The size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.header().len() as u64 + self.tensors.iter().map(|t| padded(t.bytes())).sum::<u64>()
    }

    /// Writes the file, with the same bytes each time.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.header())?;
        let mut random = Random::new(29);
        for tensor in &self.tensors {
            let mut row = vec![0; (tensor.bytes() / tensor.rows) as usize];
            for i in 0..tensor.rows {
                tensor.fill(i, &mut random, &mut row);
                out.write_all(&row)?;
            }
            out.write_all(&vec![0; (padded(tensor.bytes()) - tensor.bytes()) as usize])?;
        }
        Ok(())
    }

    /// The file up to the data of its first tensor.
    ///
    /// The kernel's [`Builder`] would hold the whole file in memory, twice. Here it makes the
    /// metadata alone.
    fn header(&self) -> Vec<u8> {
        // The builder's number of tensors, behind magic and version, is 0.
        let mut out = self.metadata.build();
        out[8..16].copy_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        let mut offset = 0;
        for tensor in &self.tensors {
            put_string(&mut out, tensor.name.as_bytes());
            let dims = [tensor.columns, tensor.rows];
            let dims = if tensor.rows == 1 { &dims[..1] } else { &dims[..] };
            out.extend((dims.len() as u32).to_le_bytes());
            out.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            out.extend(tensor.kind().id.to_le_bytes());
            out.extend(u64::to_le_bytes(offset));
            offset += padded(tensor.bytes());
        }
        out.resize(padded(out.len() as u64) as usize, 0);
        out
    }
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(DEFAULT_ALIGNMENT.into())
}

fn hyper_parameters(name: &str, shape: &Shape) -> Builder {
    let architecture = shape.architecture;
    let mut metadata = Builder::new()
        .string("general.architecture", architecture)
        .string("general.name", format!("random weights in the shape of {name}"))
        // llama.cpp's number for "mostly Q4_0".
        .u32("general.file_type", 2);
    for (key, value) in [
        ("context_length", shape.n_ctx),
        ("embedding_length", shape.n_embd),
        ("block_count", shape.n_layer),
        ("feed_forward_length", shape.n_ff),
        ("attention.head_count", shape.n_head),
        ("attention.head_count_kv", shape.n_head_kv),
    ] {
        metadata = metadata.u32(&format!("{architecture}.{key}"), value as u32);
    }
    match architecture {
        "gpt2" => metadata.f32("gpt2.attention.layer_norm_epsilon", 1e-5),
        _ => metadata
            .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
            .u32("llama.rope.dimension_count", (shape.n_embd / shape.n_head) as u32),
    }
}

/// The id of the token that ends a text.
fn end_token(shape: &Shape) -> u64 {
    match shape.architecture {
        "gpt2" => shape.n_vocab - 1,
        _ => 2,
    }
}

/// A SentencePiece vocabulary: special tokens, bytes, and words.
///
/// No prompt contains the words. They are about as long as real ones.
fn llama_vocabulary(metadata: Builder, n_vocab: u64) -> Builder {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let mut kinds = [&[2, 3, 3][..], &[6; 256]].concat();
    tokens.extend((tokens.len() as u64..n_vocab).map(|i| format!("▁{i:04x}")));
    kinds.resize(tokens.len(), 1);
    let scores: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32)).collect();
    metadata
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.unknown_token_id", 0)
        // So that a prompt has one token for each letter.
        .bool("tokenizer.ggml.add_bos_token", false)
        .bool("tokenizer.ggml.add_space_prefix", false)
}

/// A byte-level vocabulary of the same kind.
fn gpt2_vocabulary(metadata: Builder, n_vocab: u64) -> Builder {
    // GPT-2 writes bytes as characters: a visible byte as itself, the others from U+0100 on.
    let is_visible = |&byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let (visible, others): (Vec<u32>, Vec<u32>) = (0..256).partition(is_visible);
    let others = (0..others.len() as u32).map(|i| 0x100 + i);
    let characters = visible.into_iter().chain(others);
    let mut tokens: Vec<String> =
        characters.map(|code| char::from_u32(code).expect("below U+0144").into()).collect();
    tokens.extend((tokens.len() as u64..n_vocab - 1).map(|i| format!("Ġ{i:04x}")));
    tokens.push("<|endoftext|>".into());
    let mut kinds = vec![1; tokens.len()];
    kinds[tokens.len() - 1] = 3;
    metadata
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &kinds)
        // Some merges are required; these letters are in no prompt.
        .strings("tokenizer.ggml.merges", &["w o", "r d"])
        .u32("tokenizer.ggml.bos_token_id", n_vocab as u32 - 1)
        .u32("tokenizer.ggml.eos_token_id", n_vocab as u32 - 1)
        .bool("tokenizer.ggml.add_bos_token", false)
}

fn tensors(shape: &Shape) -> Vec<Tensor> {
    let &Shape { architecture, n_layer, n_embd, n_head, n_head_kv, n_ff, n_vocab, n_ctx } = shape;
    let n_embd_kv = n_embd / n_head * n_head_kv;
    let mut tensors = Vec::new();
    let mut add = |name: String, rows, columns, content| {
        tensors.push(Tensor { name, columns, rows, content });
    };
    let is_gpt2 = architecture == "gpt2";
    add("token_embd.weight".into(), n_vocab, n_embd, Content::Q4_0);
    // A logit of 0 among thousands of random ones is never the largest.
    let output = Content::Q6K { zero: end_token(shape) };
    add("output.weight".into(), n_vocab, n_embd, output);
    add("output_norm.weight".into(), 1, n_embd, Content::Number(1.0));
    if is_gpt2 {
        add("output_norm.bias".into(), 1, n_embd, Content::Noise(0.01));
        add("position_embd.weight".into(), n_ctx, n_embd, Content::Noise(0.1));
    }
    let llama = [
        ("attn_q", n_embd, n_embd),
        ("attn_k", n_embd_kv, n_embd),
        ("attn_v", n_embd_kv, n_embd),
        ("attn_output", n_embd, n_embd),
        ("ffn_gate", n_ff, n_embd),
        ("ffn_up", n_ff, n_embd),
        ("ffn_down", n_embd, n_ff),
    ];
    let gpt2 = [
        ("attn_qkv", n_embd + 2 * n_embd_kv, n_embd),
        ("attn_output", n_embd, n_embd),
        ("ffn_up", n_ff, n_embd),
        ("ffn_down", n_embd, n_ff),
    ];
    let matrices = if is_gpt2 { &gpt2[..] } else { &llama };
    for i in 0..n_layer {
        for norm in ["attn_norm", "ffn_norm"] {
            add(format!("blk.{i}.{norm}.weight"), 1, n_embd, Content::Number(1.0));
            if is_gpt2 {
                add(format!("blk.{i}.{norm}.bias"), 1, n_embd, Content::Noise(0.01));
            }
        }
        for &(name, rows, columns) in matrices {
            add(format!("blk.{i}.{name}.weight"), rows, columns, Content::Q4_0);
            if is_gpt2 {
                add(format!("blk.{i}.{name}.bias"), 1, rows, Content::Noise(0.01));
            }
        }
    }
    tensors
}

#[cfg(test)]
mod tests;
