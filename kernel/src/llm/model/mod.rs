//! Models: what every architecture's file has in common, and one module for each architecture.

#![forbid(unsafe_code)]

pub mod llama;
pub mod scratch;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use core::ops::Range;

use scratch::Quantized;

use crate::llm::Error;
use crate::llm::gguf::{Gguf, TensorInfo};
use crate::llm::kernels::dot;
use crate::llm::quantize::{WeightType, dequantize_row};
use crate::llm::workers::{Workers, for_each_chunk};

/// The shape of a model, from its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Layers.
    pub n_layer: usize,
    /// Width of the embedding.
    pub n_embd: usize,
    /// Attention heads.
    pub n_head: usize,
    /// Heads of keys and values; each serves `n_head / n_head_kv` attention heads.
    pub n_head_kv: usize,
    /// Width of a head.
    pub head_size: usize,
    /// Width of the part of a head that is rotated.
    pub n_rot: usize,
    /// Width of the feed-forward network.
    pub n_ff: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Positions that the model was trained for.
    pub n_ctx_train: usize,
    /// Added to the mean square in RMSNorm.
    pub norm_epsilon: f32,
    /// Base of RoPE's frequencies.
    pub rope_base: f32,
    /// What RoPE multiplies positions with.
    pub rope_scale: f32,
}

impl Shape {
    /// Width of keys, or of values, of all heads.
    pub fn n_embd_kv(&self) -> usize {
        self.n_head_kv * self.head_size
    }

    /// Width of the queries of all heads.
    pub fn n_embd_q(&self) -> usize {
        self.n_head * self.head_size
    }

    /// Reads the shape from the keys of an architecture.
    fn from_gguf(gguf: &Gguf<'_>, architecture: &str) -> Result<Self, Error> {
        let key = |name: &str| format!("{architecture}.{name}");
        let optional = |name: &str| -> Result<Option<usize>, Error> {
            let key = key(name);
            match gguf.unsigned(&key)? {
                None => Ok(None),
                // Numbers of this size have no meaning; what is above 2^31 would overflow later.
                Some(n) => match usize::try_from(n) {
                    Ok(n) if (1..1 << 31).contains(&n) => Ok(Some(n)),
                    _ => Err(gguf.invalid(&key, &format!("is {n}, not between 1 and 2^31"))),
                },
            }
        };
        let required = |name: &str| optional(name)?.ok_or_else(|| gguf.missing(&key(name)));

        let n_embd = required("embedding_length")?;
        let n_head = required("attention.head_count")?;
        let n_head_kv = optional("attention.head_count_kv")?.unwrap_or(n_head);
        if !n_head.is_multiple_of(n_head_kv) {
            let why = format!("is {n_head_kv}, which does not divide the {n_head} heads");
            return Err(gguf.invalid(&key("attention.head_count_kv"), &why));
        }
        let head_size = match optional("attention.key_length")? {
            Some(size) => size,
            None if n_embd.is_multiple_of(n_head) => n_embd / n_head,
            None => {
                let why = format!("is {n_head}, which does not divide the width {n_embd}");
                return Err(gguf.invalid(&key("attention.head_count"), &why));
            }
        };
        if optional("attention.value_length")?.unwrap_or(head_size) != head_size {
            return Err(Error::Unsupported { what: "values of another width than keys".into() });
        }
        let n_rot = optional("rope.dimension_count")?.unwrap_or(head_size);
        if n_rot > head_size || !n_rot.is_multiple_of(2) {
            let why = format!("is {n_rot}, not an even number up to {head_size}");
            return Err(gguf.invalid(&key("rope.dimension_count"), &why));
        }
        let epsilon = key("attention.layer_norm_rms_epsilon");
        let norm_epsilon = gguf.float(&epsilon)?.ok_or_else(|| gguf.missing(&epsilon))?;
        if norm_epsilon < 0.0 {
            return Err(gguf.invalid(&epsilon, "is negative"));
        }
        let rope_base = gguf.float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
        if rope_base <= 0.0 {
            return Err(gguf.invalid(&key("rope.freq_base"), "is not above 0"));
        }
        Ok(Shape {
            n_layer: required("block_count")?,
            n_embd,
            n_head,
            n_head_kv,
            head_size,
            n_rot,
            n_ff: required("feed_forward_length")?,
            n_vocab: 0,
            n_ctx_train: required("context_length")?,
            norm_epsilon,
            rope_base,
            rope_scale: rope_scale(gguf, architecture)?,
        })
    }
}

/// What positions are multiplied with, where the context was stretched by linear scaling.
fn rope_scale(gguf: &Gguf<'_>, architecture: &str) -> Result<f32, Error> {
    let type_key = format!("{architecture}.rope.scaling.type");
    let kind = gguf.string(&type_key)?.unwrap_or("linear");
    let mut factor = 0.0;
    for name in ["rope.scaling.factor", "rope.scale_linear"] {
        let key = format!("{architecture}.{name}");
        if let Some(value) = gguf.float(&key)? {
            if value < 0.0 {
                return Err(gguf.invalid(&key, "is negative"));
            }
            factor = value;
            break;
        }
    }
    match kind {
        "none" => Ok(1.0),
        // As in llama.cpp, a factor of 0 stands for none.
        "linear" if factor == 0.0 => Ok(1.0),
        "linear" => Ok(1.0 / factor),
        other => Err(Error::Unsupported { what: format!("the RoPE scaling `{other}`") }),
    }
}

/// A matrix of weights in the file: `[rows, columns]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    kind: WeightType,
    rows: usize,
    columns: usize,
    /// Where it lies in the file.
    bytes: Range<usize>,
}

impl Matrix {
    /// Format of the weights.
    pub fn kind(&self) -> WeightType {
        self.kind
    }

    /// Number of rows: of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: of inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The bytes of one row. `file` is the whole file.
    fn row<'a>(&self, file: &'a [u8], row: usize) -> &'a [u8] {
        let len = self.kind.row_bytes(self.columns);
        &file[self.bytes.clone()][row * len..(row + 1) * len]
    }

    /// Writes the weights of one row to `out`.
    pub fn dequantize_row(&self, file: &[u8], row: usize, out: &mut [f32]) {
        dequantize_row(self.kind, self.row(file, row), out);
    }

    /// All weights in one piece, for vectors.
    pub fn data<'a>(&self, file: &'a [u8]) -> &'a [u8] {
        &file[self.bytes.clone()]
    }
}

/// Takes the tensors of a model out of its file, and keeps account of them.
struct TensorSource<'f, 'a> {
    gguf: &'f Gguf<'a>,
    taken: BTreeSet<String>,
}

impl<'f, 'a> TensorSource<'f, 'a> {
    fn new(gguf: &'f Gguf<'a>) -> Self {
        TensorSource { gguf, taken: BTreeSet::new() }
    }

    /// The matrix of this name, which must have this shape.
    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, Error> {
        match self.optional(name, rows, columns)? {
            Some(matrix) => Ok(matrix),
            None => Err(Error::ParseError {
                what: format!("the tensor `{name}` is missing"),
                at: self.gguf.data_offset(),
            }),
        }
    }

    /// The vector of this name, which must be in F32 and have this length.
    fn vector(&mut self, name: &str, len: usize) -> Result<Matrix, Error> {
        let vector = self.matrix(name, 1, len)?;
        Self::check_vector(name, &vector)?;
        Ok(vector)
    }

    fn check_vector(name: &str, vector: &Matrix) -> Result<(), Error> {
        match vector.kind {
            WeightType::F32 => Ok(()),
            kind => Err(Error::Unsupported {
                what: format!("`{name}` in {}, where only F32 is read", kind.tensor_type()),
            }),
        }
    }

    fn optional(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Option<Matrix>, Error> {
        let Some(tensor) = self.gguf.tensor(name) else { return Ok(None) };
        self.taken.insert(name.to_string());
        let Some(kind) = WeightType::from_tensor_type(tensor.kind) else {
            let what = format!("the tensor type {} (of `{name}`)", tensor.kind);
            return Err(Error::Unsupported { what });
        };
        if tensor.dims != [columns as u64, rows as u64, 1, 1] {
            return Err(self.wrong_shape(tensor, rows, columns));
        }
        match self.gguf.range(tensor) {
            Some(bytes) => Ok(Some(Matrix { kind, rows, columns, bytes })),
            // Only while a file is judged by its header: the matrix will not be used.
            None => Ok(Some(Matrix { kind, rows, columns, bytes: 0..0 })),
        }
    }

    fn wrong_shape(&self, tensor: &TensorInfo<'_>, rows: usize, columns: usize) -> Error {
        let shape = &tensor.dims[..tensor.n_dims];
        Error::ParseError {
            what: format!(
                "`{}` has the shape {shape:?}, expected [{columns}, {rows}]",
                tensor.name
            ),
            at: tensor.at,
        }
    }

    /// Makes sure that every tensor of the file was taken: one that is not used would silently
    /// make another model.
    fn finish(self) -> Result<(), Error> {
        match self.gguf.tensors().iter().find(|tensor| !self.taken.contains(tensor.name)) {
            None => Ok(()),
            Some(tensor) => {
                Err(Error::Unsupported { what: format!("the tensor `{}`", tensor.name) })
            }
        }
    }
}

/// Where the work is done: the file's bytes and the threads.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The whole file.
    pub file: &'a [u8],
    /// The threads.
    pub workers: &'a dyn Workers,
}

/// The least rows that are worth claiming.
const MIN_CHUNK: usize = 8;
/// Chunks for each thread, so that a slow one holds up the others for little.
const CHUNKS_PER_WORKER: usize = 8;

impl Context<'_> {
    /// Multiplies several matrices with the same vector: `out` gets the rows' products, one matrix
    /// after the other. `quantized` is scratch space.
    pub fn multiply(
        &self,
        matrices: &[&Matrix],
        x: &[f32],
        quantized: &mut Quantized<'_>,
        out: &mut [f32],
    ) {
        quantized.set(x, matrices.iter().map(|matrix| matrix.kind));
        let quantized = &*quantized;
        let per_worker = out.len() / (self.workers.count() * CHUNKS_PER_WORKER);
        let chunk = per_worker.max(MIN_CHUNK);
        for_each_chunk(self.workers, out, chunk, |index, part| {
            let mut first = index * chunk;
            let mut part = part;
            for matrix in matrices {
                if first >= matrix.rows {
                    first -= matrix.rows;
                    continue;
                }
                let n = part.len().min(matrix.rows - first);
                let (now, later) = core::mem::take(&mut part).split_at_mut(n);
                let x = quantized.for_weights(matrix.kind);
                for (row, out) in (first..).zip(now) {
                    *out = dot(matrix.kind, matrix.row(self.file, row), &x);
                }
                (first, part) = (0, later);
                if part.is_empty() {
                    break;
                }
            }
        });
    }
}

/// The weight type that holds most of a model's weights, by its name.
pub fn quantization(gguf: &Gguf<'_>) -> String {
    let share = |name: &str| -> u64 {
        let tensors = gguf.tensors().iter().filter(|tensor| tensor.kind.name == name);
        tensors.map(TensorInfo::elements).fold(0, u64::saturating_add)
    };
    let names: BTreeSet<&str> = gguf.tensors().iter().map(|tensor| tensor.kind.name).collect();
    names.into_iter().max_by_key(|name| share(name)).unwrap_or_default().to_string()
}
