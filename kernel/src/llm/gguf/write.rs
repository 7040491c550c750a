//! Writes small GGUF files, above all for tests.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, TensorType, ValueType};

/// A builder of GGUF files: collects entries and tensors, then writes a file.
///
/// ```
/// use kernel::llm::gguf::{Gguf, TensorType, write::Builder};
///
/// let bytes = Builder::new()
///     .string("general.architecture", "llama")
///     .tensor("a", &[2], TensorType::F32, vec![0; 8])
///     .build();
/// assert_eq!(Gguf::parse(&bytes).unwrap().tensors().len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    version: u32,
    alignment: u32,
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    kind: TensorType,
    data: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

/// Writes text as the file has it: its length, then its bytes.
pub fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// The description of a tensor in a header.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    /// Its name.
    pub name: &'a str,
    /// Weights in each dimension; the first is the length of a row.
    pub dims: &'a [u64],
    /// Type of its weights.
    pub kind: TensorType,
    /// Size of its data in bytes.
    pub size: u64,
}

/// The bytes of a scalar value of the metadata, after the number of its type.
pub fn scalar(kind: ValueType, value: &[u8]) -> Vec<u8> {
    [&(kind as u32).to_le_bytes(), value].concat()
}

/// Writes the header of a file.
///
/// The data of the tensors follows, each at the next multiple of the alignment. `entries` are keys
/// with values as [`super::Gguf::raw_metadata`] gives them. An alignment other than
/// [`DEFAULT_ALIGNMENT`] must be among them.
pub fn header<'a>(
    version: u32,
    entries: &[(impl AsRef<str>, impl AsRef<[u8]>)],
    tensors: impl ExactSizeIterator<Item = Description<'a>>,
    alignment: u32,
) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(version.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        put_string(&mut out, key.as_ref().as_bytes());
        out.extend(value.as_ref());
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        put_string(&mut out, tensor.name.as_bytes());
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        out.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
        out.extend(tensor.kind.id.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.size.next_multiple_of(alignment.into());
    }
    out
}

impl Builder {
    /// An empty file of version 3.
    pub fn new() -> Self {
        let (version, alignment) = (3, DEFAULT_ALIGNMENT);
        Builder { version, alignment, entries: Vec::new(), tensors: Vec::new() }
    }

    /// Sets the version that the header names.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sets the alignment of tensor data, and adds the key for it.
    ///
    /// # Panics
    /// `alignment` is 0.
    pub fn alignment(mut self, alignment: u32) -> Self {
        assert_ne!(alignment, 0, "padding to multiples of 0");
        self.alignment = alignment;
        self.u32(ALIGNMENT_KEY, alignment)
    }

    /// Adds a key with the bytes of its value, type number first.
    pub fn raw(mut self, key: &str, value: Vec<u8>) -> Self {
        self.entries.push((key.to_string(), value));
        self
    }

    fn scalar(self, key: &str, kind: ValueType, value: &[u8]) -> Self {
        self.raw(key, scalar(kind, value))
    }

    fn array(self, key: &str, kind: ValueType, len: usize, elements: &[u8]) -> Self {
        let [array, kind] = [ValueType::Array as u32, kind as u32].map(u32::to_le_bytes);
        self.raw(key, [&array, &kind, &(len as u64).to_le_bytes()[..], elements].concat())
    }

    /// Adds a number.
    pub fn u32(self, key: &str, value: u32) -> Self {
        self.scalar(key, ValueType::U32, &value.to_le_bytes())
    }

    /// Adds a floating-point number.
    pub fn f32(self, key: &str, value: f32) -> Self {
        self.scalar(key, ValueType::F32, &value.to_le_bytes())
    }

    /// Adds a boolean.
    pub fn bool(self, key: &str, value: bool) -> Self {
        self.scalar(key, ValueType::Bool, &[value.into()])
    }

    /// Adds a text.
    pub fn string(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let mut bytes = Vec::new();
        put_string(&mut bytes, value.as_ref());
        self.scalar(key, ValueType::String, &bytes)
    }

    /// Adds an array of texts.
    pub fn strings<T: AsRef<[u8]>>(self, key: &str, values: &[T]) -> Self {
        let mut bytes = Vec::new();
        for value in values {
            put_string(&mut bytes, value.as_ref());
        }
        self.array(key, ValueType::String, values.len(), &bytes)
    }

    /// Adds an array of F32.
    pub fn f32s(self, key: &str, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, ValueType::F32, values.len(), &bytes)
    }

    /// Adds an array of I32.
    pub fn i32s(self, key: &str, values: &[i32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, ValueType::I32, values.len(), &bytes)
    }

    /// Adds a tensor. The first of `dims` is the length of a row.
    ///
    /// Nothing is checked, so that tests can write malformed files.
    pub fn tensor(mut self, name: &str, dims: &[u64], kind: TensorType, data: Vec<u8>) -> Self {
        self.tensors.push(Tensor { name: name.to_string(), dims: dims.to_vec(), kind, data });
        self
    }

    /// Adds a tensor of F32.
    pub fn tensor_f32(self, name: &str, dims: &[u64], weights: &[f32]) -> Self {
        let data = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        self.tensor(name, dims, TensorType::F32, data)
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let alignment = self.alignment as usize;
        let tensors = self.tensors.iter().map(|tensor| Description {
            name: &tensor.name,
            dims: &tensor.dims,
            kind: tensor.kind,
            size: tensor.data.len() as u64,
        });
        let mut out = header(self.version, &self.entries, tensors, self.alignment);
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(alignment), 0);
            out.extend(&tensor.data);
        }
        out
    }
}
