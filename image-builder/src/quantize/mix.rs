//! Which tensor is to be of which type: the mixes of llama.cpp's quantiser (`llama-quant.cpp`)
//! without an importance matrix, for the architectures that the kernel runs.

use anyhow::{Result, bail};
use kernel::llm::gguf::{Gguf, TensorInfo, TensorType};
use kernel::llm::model::Architecture;
use kernel::llm::quantize::WeightType;

/// A type of files: what most weights are to be in, and how many bits the others get.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// llama.cpp's name for it.
    pub name: &'static str,
    /// Its number in `general.file_type`.
    pub file_type: u32,
    /// What most weights are to be in.
    pub kind: WeightType,
    mix: Mix,
}

/// Which weights get more bits than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    /// All are of one type, that of the output too.
    Plain,
    /// Only those of the output.
    Output,
    Q2K,
    Q3KM,
    Q3KL,
    Q4KS,
    /// Q4_K_M and Q5_K_M.
    Medium,
}

const fn target(name: &'static str, file_type: u32, kind: WeightType, mix: Mix) -> Target {
    Target { name, file_type, kind, mix }
}

/// All types of files. For Q3_K, Q4_K and Q5_K see [`parse`].
const TARGETS: [Target; 17] = [
    target("Q2_K", 10, WeightType::Q2_K, Mix::Q2K),
    target("Q3_K_S", 11, WeightType::Q3_K, Mix::Output),
    target("Q3_K_M", 12, WeightType::Q3_K, Mix::Q3KM),
    target("Q3_K_L", 13, WeightType::Q3_K, Mix::Q3KL),
    target("Q4_0", 2, WeightType::Q4_0, Mix::Output),
    target("Q4_1", 3, WeightType::Q4_1, Mix::Output),
    target("Q4_K_S", 14, WeightType::Q4_K, Mix::Q4KS),
    target("Q4_K_M", 15, WeightType::Q4_K, Mix::Medium),
    target("Q5_0", 8, WeightType::Q5_0, Mix::Output),
    target("Q5_1", 9, WeightType::Q5_1, Mix::Output),
    target("Q5_K_S", 16, WeightType::Q5_K, Mix::Output),
    target("Q5_K_M", 17, WeightType::Q5_K, Mix::Medium),
    target("Q6_K", 18, WeightType::Q6_K, Mix::Output),
    target("Q8_0", 7, WeightType::Q8_0, Mix::Output),
    target("F16", 1, WeightType::F16, Mix::Plain),
    target("BF16", 32, WeightType::BF16, Mix::Plain),
    target("F32", 0, WeightType::F32, Mix::Plain),
];

/// The type of files of this name, in either case. As in llama.cpp, Q3_K, Q4_K and Q5_K are short
/// for the middle ones.
pub fn parse(name: &str) -> Result<Target, String> {
    let wanted = match name.to_ascii_uppercase() {
        name if ["Q3_K", "Q4_K", "Q5_K"].contains(&name.as_str()) => name + "_M",
        name => name,
    };
    TARGETS.iter().find(|target| target.name == wanted).copied().ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

impl Target {
    /// The same type for all weights.
    pub fn pure(self) -> Target {
        Target { mix: Mix::Plain, ..self }
    }
}

/// The types that `tensors` of the model `gguf` are to have, in their order, which must be that of
/// the file to write.
///
/// # Errors
/// The kernel does not run the model's architecture, or its header makes no sense.
pub fn choose(
    gguf: &Gguf<'_>,
    tensors: &[&TensorInfo<'_>],
    target: Target,
) -> Result<Vec<TensorType>> {
    let mut chooser = Chooser::new(gguf, target)?;
    Ok(tensors.iter().map(|tensor| chooser.kind(tensor)).collect())
}

struct Chooser {
    target: Target,
    n_layer: u64,
    /// Heads of queries for each of keys and values.
    n_gqa: u64,
    /// Whether it is one of those with 70 thousand million parameters, whose `attn_v` is small.
    is_70b: bool,
    /// Whether the embedding is the output's matrix too.
    tied: bool,
    /// Matrices of values in the model, and seen so far.
    n_attn_v: u64,
    attn_v: u64,
    /// Second matrices of feed-forward networks seen so far.
    ffn_down: u64,
}

impl Chooser {
    fn new(gguf: &Gguf<'_>, target: Target) -> Result<Chooser> {
        let architecture = Architecture::of(gguf)?.name;
        let number = |key: &str| -> Result<Option<u64>> {
            Ok(gguf.unsigned(&format!("{architecture}.{key}"))?)
        };
        let required = |key: &str| -> Result<u64> {
            match number(key)? {
                Some(n) if n > 0 => Ok(n),
                _ => bail!("the key `{architecture}.{key}` is missing or 0"),
            }
        };
        if number("expert_count")?.is_some_and(|n| n > 0) {
            bail!("mixtures of experts are not supported");
        }
        let n_layer = required("block_count")?;
        let n_head = required("attention.head_count")?;
        let n_head_kv = number("attention.head_count_kv")?.unwrap_or(n_head);
        Ok(Chooser {
            target,
            n_layer,
            n_gqa: n_head.checked_div(n_head_kv).unwrap_or(0),
            is_70b: n_layer == 80
                && (architecture == "qwen2" || architecture == "llama" && n_head != n_head_kv),
            tied: gguf.tensor("output.weight").is_none(),
            n_attn_v: gguf.tensors().iter().filter(|tensor| is_attn_v(tensor.name)).count() as u64,
            attn_v: 0,
            ffn_down: 0,
        })
    }

    fn kind(&mut self, tensor: &TensorInfo<'_>) -> TensorType {
        if !is_quantized(tensor) {
            return tensor.kind;
        }
        let mut kind = self.target.kind;
        if self.target.mix != Mix::Plain {
            kind = self.mixed(tensor);
        }
        that_fits(kind, tensor.dims[0]).tensor_type()
    }

    fn mixed(&mut self, tensor: &TensorInfo<'_>) -> WeightType {
        use WeightType::{Q3_K, Q4_K, Q5_K, Q6_K, Q8_0};
        let (name, Target { kind, mix, .. }) = (tensor.name, self.target);
        if name == "output.weight" || self.tied && name == "token_embd.weight" {
            let fits = tensor.dims[0].is_multiple_of(kind.tensor_type().block_weights);
            return if fits && kind != Q8_0 { Q6_K } else { Q8_0 };
        }
        if is_attn_v(name) {
            let i = self.attn_v;
            self.attn_v += 1;
            let kind = match mix {
                Mix::Q2K if self.n_gqa >= 4 => Q4_K,
                Mix::Q2K => Q3_K,
                Mix::Q3KM if i < 2 => Q5_K,
                Mix::Q3KM => Q4_K,
                Mix::Q3KL => Q5_K,
                Mix::Q4KS if i < 4 => Q5_K,
                Mix::Medium if gets_more_bits(i, self.n_attn_v) => Q6_K,
                _ => kind,
            };
            return if self.is_70b && [Q3_K, Q4_K].contains(&kind) { Q5_K } else { kind };
        }
        if name.contains("ffn_down") {
            let (i, n) = (self.ffn_down, self.n_layer);
            self.ffn_down += 1;
            return match mix {
                Mix::Q2K => Q3_K,
                Mix::Q3KM if i < n / 16 => Q5_K,
                Mix::Q3KM => Q4_K,
                Mix::Q3KL => Q5_K,
                Mix::Q4KS if i < n / 8 => Q5_K,
                Mix::Medium if gets_more_bits(i, n) => Q6_K,
                _ => kind,
            };
        }
        if name.contains("attn_output.weight") {
            return match mix {
                Mix::Q2K => Q3_K,
                Mix::Q3KM => Q4_K,
                Mix::Q3KL => Q5_K,
                _ => kind,
            };
        }
        kind
    }
}

fn is_attn_v(name: &str) -> bool {
    name.contains("attn_v.weight") || name.contains("attn_qkv.weight")
}

/// The first and last eighth of `n` layers, and every third between.
fn gets_more_bits(i: u64, n: u64) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

/// Vectors, norms and embeddings of positions stay as they are.
fn is_quantized(tensor: &TensorInfo<'_>) -> bool {
    let name = tensor.name;
    tensor.dims[1..].iter().any(|&dim| dim > 1)
        && name.ends_with("weight")
        && !name.contains("_norm.weight")
        && !["position_embd.weight", "token_types.weight"].contains(&name)
}

/// The type itself, or one of more bits whose blocks make up a row of `columns` weights.
fn that_fits(kind: WeightType, columns: u64) -> WeightType {
    let fits = |kind: WeightType| columns.is_multiple_of(kind.tensor_type().block_weights);
    if fits(kind) {
        return kind;
    }
    let smaller = match kind {
        WeightType::Q2_K | WeightType::Q3_K => WeightType::Q4_0,
        WeightType::Q4_K => WeightType::Q5_0,
        WeightType::Q5_K => WeightType::Q5_1,
        _ => WeightType::Q8_0,
    };
    if fits(smaller) { smaller } else { WeightType::F16 }
}
