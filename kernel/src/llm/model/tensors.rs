//! The tensors of a model's file: where they lie, and which of them are taken.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use crate::llm::Error;
use crate::llm::gguf::{Gguf, TensorInfo};
use crate::llm::kernels::Rows;
use crate::llm::quantize::{F32Bytes, Row, TILE_ROWS, WeightType};

/// A matrix of weights in the file: `[rows, columns]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub(super) kind: WeightType,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Where it lies in the file.
    pub(super) bytes: Range<usize>,
    /// Whether each whole eight of its rows were rearranged to a stripe.
    pub(super) striped: bool,
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

    /// Some rows, the first of which is the first of a stripe, and the last the last of one or of
    /// the matrix. `file` is the whole file.
    pub fn rows_in<'a>(&self, file: &'a [u8], rows: Range<usize>) -> Rows<'a> {
        let Matrix { kind, columns, striped, .. } = *self;
        Rows { kind, columns, bytes: self.bytes_of(file, rows), striped }
    }

    /// Writes the weights of one row to `out`.
    pub fn dequantize_row(&self, file: &[u8], row: usize, out: &mut [f32]) {
        let stripe = row / TILE_ROWS * TILE_ROWS;
        let row = if self.striped && stripe + TILE_ROWS <= self.rows {
            let bytes = self.bytes_of(file, stripe..stripe + TILE_ROWS);
            Row::of_stripe(self.kind, bytes, row - stripe)
        } else {
            Row::of_file(self.bytes_of(file, row..row + 1))
        };
        row.dequantize(self.kind, out);
    }

    fn bytes_of<'a>(&self, file: &'a [u8], rows: Range<usize>) -> &'a [u8] {
        let len = self.kind.row_bytes(self.columns);
        &file[self.bytes.clone()][rows.start * len..rows.end * len]
    }
}

/// A vector of F32 numbers in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    /// Where it lies in the file.
    bytes: Range<usize>,
}

impl Vector {
    /// Its numbers. `file` is the whole file.
    pub fn values<'a>(&self, file: &'a [u8]) -> &'a [F32Bytes] {
        file[self.bytes.clone()].as_chunks().0
    }
}

/// Takes the tensors of a model out of its file, and keeps account of them.
pub struct Tensors<'f, 'a> {
    gguf: &'f Gguf<'a>,
    taken: BTreeSet<String>,
}

impl<'f, 'a> Tensors<'f, 'a> {
    /// All tensors of the file, none of them taken.
    pub fn new(gguf: &'f Gguf<'a>) -> Self {
        Tensors { gguf, taken: BTreeSet::new() }
    }

    /// The matrix of this name, which must be there and have this shape.
    pub fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, Error> {
        self.optional_matrix(name, rows, columns)?.ok_or_else(|| self.missing(name))
    }

    /// The matrix of this name, if there is one; it must have this shape.
    pub fn optional_matrix(
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
            return Err(wrong_shape(tensor, &format!("[{columns}, {rows}]")));
        }
        Ok(Some(Matrix { kind, rows, columns, bytes: self.range(tensor), striped: false }))
    }

    /// The vector of this name, which must be there, in F32, and of this length.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vector, Error> {
        self.optional_vector(name, len)?.ok_or_else(|| self.missing(name))
    }

    /// The vector of this name, if there is one; it must be in F32 and have this length.
    pub fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Vector>, Error> {
        let Some(tensor) = self.gguf.tensor(name) else { return Ok(None) };
        self.taken.insert(name.to_string());
        if WeightType::from_tensor_type(tensor.kind) != Some(WeightType::F32) {
            let what = format!("`{name}` in {}, where only F32 is read", tensor.kind);
            return Err(Error::Unsupported { what });
        }
        if tensor.dims != [len as u64, 1, 1, 1] {
            return Err(wrong_shape(tensor, &format!("[{len}]")));
        }
        Ok(Some(Vector { bytes: self.range(tensor) }))
    }

    /// The numbers of a vector (see [`Tensors::optional_vector`]); zeros while the file is judged by its
    /// header alone.
    pub fn optional_numbers(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        if self.optional_vector(name, len)?.is_none() {
            return Ok(None);
        }
        let bytes = self.gguf.tensor(name).and_then(|tensor| self.gguf.data(tensor));
        let bytes: &[F32Bytes] = bytes.unwrap_or_default().as_chunks().0;
        let mut numbers: Vec<f32> = bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        numbers.resize(len, 0.0);
        Ok(Some(numbers))
    }

    /// Makes sure that every tensor of the file was taken: one that is not used would silently
    /// make another model.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming one that is left.
    pub fn finish(self) -> Result<(), Error> {
        match self.gguf.tensors().iter().find(|tensor| !self.taken.contains(tensor.name)) {
            None => Ok(()),
            Some(tensor) => {
                Err(Error::Unsupported { what: format!("the tensor `{}`", tensor.name) })
            }
        }
    }

    /// The error for a tensor that must be there and is not.
    pub fn missing(&self, name: &str) -> Error {
        Error::ParseError {
            what: format!("the tensor `{name}` is missing"),
            at: self.gguf.data_offset(),
        }
    }

    fn range(&self, tensor: &TensorInfo<'_>) -> Range<usize> {
        // A file too large for any memory is only judged by its header: no weight will be used.
        self.gguf.range(tensor).unwrap_or(0..0)
    }
}

fn wrong_shape(tensor: &TensorInfo<'_>, expected: &str) -> Error {
    let shape = &tensor.dims[..tensor.n_dims];
    Error::ParseError {
        what: format!("`{}` has the shape {shape:?}, expected {expected}", tensor.name),
        at: tensor.at,
    }
}
