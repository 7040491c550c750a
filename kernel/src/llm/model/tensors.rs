//! The tensors of a model's files: their places, and which the model has taken.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use core::ops::Range;

use crate::llm::Error;
use crate::llm::arena::ModelBytes;
use crate::llm::gguf::{Gguf, TensorInfo};
use crate::llm::kernels::Rows;
use crate::llm::quantize::{F32Bytes, PANEL_ROWS, Row, WeightType};

/// A range of bytes in one of a model's sources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of the source: 0 is the file, or the first part of a split file.
    pub source: usize,
    /// The first byte.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
}

impl Place {
    /// The bytes there.
    pub fn of<'a>(&self, sources: &'a [ModelBytes]) -> &'a [u8] {
        &sources[self.source][self.start..][..self.len]
    }
}

/// A matrix of weights in a source: `[rows, columns]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub(super) kind: WeightType,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) place: Place,
    /// Whether each eight of its rows are packed into a row panel.
    pub(super) packed: bool,
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

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Rows that start with a row panel, and end with a row panel or with the matrix.
    pub fn rows_in<'a>(&self, sources: &'a [ModelBytes], rows: Range<usize>) -> Rows<'a> {
        let Matrix { kind, columns, packed, .. } = *self;
        Rows { kind, columns, bytes: self.bytes_of(sources, rows), packed }
    }

    /// Dequantises one row to `out`: `[columns]`.
    pub fn dequantize_row(&self, sources: &[ModelBytes], row: usize, out: &mut [f32]) {
        let panel = row / PANEL_ROWS * PANEL_ROWS;
        let row = if self.packed && panel + PANEL_ROWS <= self.rows {
            let bytes = self.bytes_of(sources, panel..panel + PANEL_ROWS);
            Row::of_panel(self.kind, bytes, row - panel)
        } else {
            Row::of_file(self.bytes_of(sources, row..row + 1))
        };
        row.dequantize(self.kind, out);
    }

    fn bytes_of<'a>(&self, sources: &'a [ModelBytes], rows: Range<usize>) -> &'a [u8] {
        let len = self.kind.row_bytes(self.columns);
        &self.place.of(sources)[rows.start * len..rows.end * len]
    }
}

/// A vector of F32 numbers in a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    place: Place,
}

impl Vector {
    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its numbers.
    pub fn values<'a>(&self, sources: &'a [ModelBytes]) -> &'a [F32Bytes] {
        self.place.of(sources).as_chunks().0
    }
}

/// Takes the tensors of a model out of its files, and keeps account of them.
pub struct Tensors<'f, 'a> {
    files: &'f [Gguf<'a>],
    /// Whether matrices of a type are expected in row panels.
    packed: fn(WeightType) -> bool,
    taken: BTreeSet<String>,
}

impl<'f, 'a> Tensors<'f, 'a> {
    /// All tensors of the files, not taken yet.
    pub fn new(files: &'f [Gguf<'a>], packed: fn(WeightType) -> bool) -> Self {
        Tensors { files, packed, taken: BTreeSet::new() }
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The tensor of this name, and the number of its file.
    fn find(&self, name: &str) -> Option<(usize, &'f TensorInfo<'a>)> {
        let found = self.files.iter().map(|gguf| gguf.tensor(name)).enumerate();
        found.filter_map(|(source, tensor)| Some((source, tensor?))).next()
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
        let Some((source, tensor)) = self.find(name) else { return Ok(None) };
        self.taken.insert(name.to_string());
        let Some(kind) = WeightType::from_tensor_type(tensor.kind) else {
            let what = format!("the tensor type {} (of `{name}`)", tensor.kind);
            return Err(Error::Unsupported { what });
        };
        if tensor.dims != [columns as u64, rows as u64, 1, 1] {
            return Err(wrong_shape(tensor, &format!("[{columns}, {rows}]")));
        }
        let place = self.place(source, tensor);
        let mut matrix = Matrix { kind, rows, columns, place, packed: false };
        matrix.packed = (self.packed)(kind) && matrix.panels().is_some();
        Ok(Some(matrix))
    }

    /// The vector of this name, which must be there, in F32, and of this length.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vector, Error> {
        self.optional_vector(name, len)?.ok_or_else(|| self.missing(name))
    }

    /// The vector of this name, if there is one, which must be F32 of this length.
    pub fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Vector>, Error> {
        let Some((source, tensor)) = self.find(name) else { return Ok(None) };
        self.taken.insert(name.to_string());
        if WeightType::from_tensor_type(tensor.kind) != Some(WeightType::F32) {
            let what = format!("`{name}` in {}, where only F32 is read", tensor.kind);
            return Err(Error::Unsupported { what });
        }
        if tensor.dims != [len as u64, 1, 1, 1] {
            return Err(wrong_shape(tensor, &format!("[{len}]")));
        }
        Ok(Some(Vector { place: self.place(source, tensor) }))
    }

    /// Checks that every tensor was taken.
    ///
    /// A tensor that is not used would silently make another model.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming a tensor that is left.
    pub fn finish(self) -> Result<(), Error> {
        let mut tensors = self.files.iter().flat_map(|gguf| gguf.tensors());
        match tensors.find(|tensor| !self.taken.contains(tensor.name)) {
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
            at: self.files[0].data_offset(),
        }
    }

    fn place(&self, source: usize, tensor: &TensorInfo<'_>) -> Place {
        // A file too large for any memory is only judged by its header, so no weight will be read.
        let Range { start, end } = self.files[source].range(tensor).unwrap_or(0..0);
        Place { source, start, len: end - start }
    }
}

fn wrong_shape(tensor: &TensorInfo<'_>, expected: &str) -> Error {
    let shape = &tensor.dims[..tensor.n_dims];
    Error::ParseError {
        what: format!("`{}` has the shape {shape:?}, expected {expected}", tensor.name),
        at: tensor.at,
    }
}
