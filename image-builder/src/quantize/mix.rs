//! The type of each tensor, by the mixes of llama.cpp's quantiser.
//!
//! The rules are those of `llama-quant.cpp` without an importance matrix, for the kernel's
//! architectures.

use anyhow::{Result, bail};
use kernel::llm::gguf::{Gguf, TensorInfo, TensorType};
use kernel::llm::model::Architecture;
use kernel::llm::quantize::WeightType;

/// A file type (`llama_ftype`): the type of most weights, and a mix for the others.
#[derive(Clone, Copy, Debug)]
pub struct FileType {
    /// llama.cpp's name.
    pub name: &'static str,
    /// The number in `general.file_type`.
    pub number: u32,
    /// The type of most weights.
    pub kind: WeightType,
    mix: Mix,
}

/// The weights that get more bits than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    /// None: all weights have one type, those of the output too.
    Plain,
    /// Those of the output.
    Output,
    Q2K,
    Q3KM,
    Q3KL,
    Q4KS,
    /// Q4_K_M and Q5_K_M.
    Medium,
}

const fn file_type(name: &'static str, number: u32, kind: WeightType, mix: Mix) -> FileType {
    FileType { name, number, kind, mix }
}

/// All file types. For Q3_K, Q4_K and Q5_K see [`parse`].
const FILE_TYPES: [FileType; 17] = [
    file_type("Q2_K", 10, WeightType::Q2_K, Mix::Q2K),
    file_type("Q3_K_S", 11, WeightType::Q3_K, Mix::Output),
    file_type("Q3_K_M", 12, WeightType::Q3_K, Mix::Q3KM),
    file_type("Q3_K_L", 13, WeightType::Q3_K, Mix::Q3KL),
    file_type("Q4_0", 2, WeightType::Q4_0, Mix::Output),
    file_type("Q4_1", 3, WeightType::Q4_1, Mix::Output),
    file_type("Q4_K_S", 14, WeightType::Q4_K, Mix::Q4KS),
    file_type("Q4_K_M", 15, WeightType::Q4_K, Mix::Medium),
    file_type("Q5_0", 8, WeightType::Q5_0, Mix::Output),
    file_type("Q5_1", 9, WeightType::Q5_1, Mix::Output),
    file_type("Q5_K_S", 16, WeightType::Q5_K, Mix::Output),
    file_type("Q5_K_M", 17, WeightType::Q5_K, Mix::Medium),
    file_type("Q6_K", 18, WeightType::Q6_K, Mix::Output),
    file_type("Q8_0", 7, WeightType::Q8_0, Mix::Output),
    file_type("F16", 1, WeightType::F16, Mix::Plain),
    file_type("BF16", 32, WeightType::BF16, Mix::Plain),
    file_type("F32", 0, WeightType::F32, Mix::Plain),
];

/// The file type of this name, in upper or lower case.
///
/// As in llama.cpp, Q3_K, Q4_K and Q5_K are short for Q3_K_M, Q4_K_M and Q5_K_M.
pub fn parse(name: &str) -> Result<FileType, String> {
    let wanted = match name.to_ascii_uppercase() {
        name if ["Q3_K", "Q4_K", "Q5_K"].contains(&name.as_str()) => name + "_M",
        name => name,
    };
    FILE_TYPES.iter().find(|file_type| file_type.name == wanted).copied().ok_or_else(|| {
        let names: Vec<&str> = FILE_TYPES.iter().map(|file_type| file_type.name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

impl FileType {
    /// The same type for all weights.
    pub fn pure(self) -> FileType {
        FileType { mix: Mix::Plain, ..self }
    }
}

/// The new types of `tensors`, in order.
///
/// The order must be that of the file to write.
///
/// # Errors
/// The kernel does not run the model's architecture, or the header is malformed.
pub fn choose(
    gguf: &Gguf<'_>,
    tensors: &[&TensorInfo<'_>],
    file_type: FileType,
) -> Result<Vec<TensorType>> {
    let mut chooser = Chooser::new(gguf, file_type)?;
    Ok(tensors.iter().map(|tensor| chooser.kind(tensor)).collect())
}

struct Chooser {
    file_type: FileType,
    n_layer: u64,
    /// Query heads for each key/value head.
    n_gqa: u64,
    /// Whether it is a model of 70 billion parameters, whose `attn_v` is small.
    is_70b: bool,
    /// Whether the output is tied to the embedding.
    tied: bool,
    /// The number of `attn_v` matrices in the model, and of those seen so far.
    n_attn_v: u64,
    attn_v: u64,
    /// The number of `ffn_down` matrices seen so far.
    ffn_down: u64,
}

impl Chooser {
    fn new(gguf: &Gguf<'_>, file_type: FileType) -> Result<Chooser> {
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
            file_type,
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
        let mut kind = self.file_type.kind;
        if self.file_type.mix != Mix::Plain {
            kind = self.mixed(tensor);
        }
        that_fits(kind, tensor.dims[0]).tensor_type()
    }

    fn mixed(&mut self, tensor: &TensorInfo<'_>) -> WeightType {
        use WeightType::{Q3_K, Q4_K, Q5_K, Q6_K, Q8_0};
        let (name, FileType { kind, mix, .. }) = (tensor.name, self.file_type);
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

/// Whether layer `i` is in the first or last eighth of `n`, or every third between.
fn gets_more_bits(i: u64, n: u64) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

/// Whether a tensor changes: not vectors, norms and position embeddings.
fn is_quantized(tensor: &TensorInfo<'_>) -> bool {
    let name = tensor.name;
    tensor.dims[1..].iter().any(|&dim| dim > 1)
        && name.ends_with("weight")
        && !name.contains("_norm.weight")
        && !["position_embd.weight", "token_types.weight"].contains(&name)
}

/// The type, or one with more bits whose blocks divide a row of `columns` weights.
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
