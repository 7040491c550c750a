//! A naive forward pass: double precision, no cache, no quantised activations.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::llm::gguf::Gguf;
use crate::llm::quantize::{WeightType, dequantize_row};

/// The rows of a tensor.
fn rows(gguf: &Gguf<'_>, name: &str) -> Vec<Vec<f64>> {
    let tensor = gguf.tensor(&format!("{name}.weight")).unwrap();
    let kind = WeightType::from_tensor_type(tensor.kind).unwrap();
    let columns = tensor.dims[0] as usize;
    let data = gguf.data(tensor).unwrap();
    data.chunks(kind.row_bytes(columns))
        .map(|row| {
            let mut out = vec![0.0; columns];
            dequantize_row(kind, row, &mut out);
            out.into_iter().map(f64::from).collect()
        })
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn multiply(matrix: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    matrix.iter().map(|row| dot(row, x)).collect()
}

fn norm(gguf: &Gguf<'_>, name: &str, x: &[f64]) -> Vec<f64> {
    let weights = &rows(gguf, name)[0];
    let epsilon = gguf.float("llama.attention.layer_norm_rms_epsilon").unwrap().unwrap();
    let root = (dot(x, x) / x.len() as f64 + f64::from(epsilon)).sqrt();
    x.iter().zip(weights).map(|(x, w)| x / root * w).collect()
}

/// The logits after the last of `tokens`.
pub fn logits(gguf: &Gguf<'_>, tokens: &[u32]) -> Vec<f64> {
    let number = |key: &str| gguf.unsigned(&format!("llama.{key}")).unwrap().unwrap() as usize;
    let (n_head, n_head_kv) = (number("attention.head_count"), number("attention.head_count_kv"));
    let n_rot = number("rope.dimension_count");
    let base = f64::from(gguf.float("llama.rope.freq_base").unwrap().unwrap());
    let stretch = gguf.float("llama.rope.scaling.factor").unwrap().unwrap_or(1.0);
    let factors = gguf.tensor("rope_freqs.weight").map(|_| rows(gguf, "rope_freqs").remove(0));
    let head_size = number("embedding_length") / n_head;

    let rotate = |heads: &mut [f64], position: usize| {
        for head in heads.chunks_mut(head_size) {
            for i in 0..n_rot / 2 {
                let frequency = base.powf(-2.0 * i as f64 / n_rot as f64);
                let factor = factors.as_ref().map_or(1.0, |factors| factors[i]);
                let angle = position as f64 / f64::from(stretch) * frequency / factor;
                let (a, b) = (head[2 * i], head[2 * i + 1]);
                head[2 * i] = a * angle.cos() - b * angle.sin();
                head[2 * i + 1] = a * angle.sin() + b * angle.cos();
            }
        }
    };

    let embeddings = rows(gguf, "token_embd");
    let mut states: Vec<Vec<f64>> =
        tokens.iter().map(|&t| embeddings[t as usize].clone()).collect();
    for layer in 0..number("block_count") {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let project = |part: &str, x: &[f64]| multiply(&rows(gguf, &name(part)), x);
        let normed: Vec<_> = states.iter().map(|x| norm(gguf, &name("attn_norm"), x)).collect();
        let mut queries: Vec<_> = normed.iter().map(|x| project("attn_q", x)).collect();
        let mut keys: Vec<_> = normed.iter().map(|x| project("attn_k", x)).collect();
        let values: Vec<_> = normed.iter().map(|x| project("attn_v", x)).collect();
        for position in 0..tokens.len() {
            rotate(&mut queries[position], position);
            rotate(&mut keys[position], position);
        }
        for position in 0..tokens.len() {
            let mut joined = Vec::new();
            for head in 0..n_head {
                let of = |all: &[f64], head: usize| all[head * head_size..][..head_size].to_vec();
                let kv_head = head * n_head_kv / n_head;
                let query = of(&queries[position], head);
                let weights: Vec<f64> = (0..=position)
                    .map(|p| dot(&query, &of(&keys[p], kv_head)) / (head_size as f64).sqrt())
                    .map(f64::exp)
                    .collect();
                let sum: f64 = weights.iter().sum();
                for i in 0..head_size {
                    let seen =
                        (0..=position).map(|p| weights[p] * values[p][kv_head * head_size + i]);
                    joined.push(seen.sum::<f64>() / sum);
                }
            }
            let delta = project("attn_output", &joined);
            states[position].iter_mut().zip(delta).for_each(|(x, delta)| *x += delta);
        }
        for state in &mut states {
            let normed = norm(gguf, &name("ffn_norm"), state);
            let gate = project("ffn_gate", &normed);
            let up = project("ffn_up", &normed);
            let hidden: Vec<f64> =
                gate.iter().zip(up).map(|(g, up)| g / (1.0 + (-g).exp()) * up).collect();
            let delta = project("ffn_down", &hidden);
            state.iter_mut().zip(delta).for_each(|(x, delta)| *x += delta);
        }
    }
    let normed = norm(gguf, "output_norm", states.last().unwrap());
    let output = if gguf.tensor("output.weight").is_some() { "output" } else { "token_embd" };
    multiply(&rows(gguf, output), &normed)
}
