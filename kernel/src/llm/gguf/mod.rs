//! Reads GGUF files, versions 2 and 3, from memory without copying.
//!
//! [`Gguf::parse`] checks the whole header once: every length against the bytes that are left,
//! every sum for overflow, every offset against the file. Accessors after it cannot panic on any
//! input. Time is linear in the header, times the logarithm of the number of names. No allocation
//! is larger than a small multiple of the header.
//!
//! ggml's `docs/gguf.md` specifies the format. Where the specification is silent, this reader
//! accepts the same files as llama.cpp's `gguf.cpp`.

#![forbid(unsafe_code)]
// No arithmetic wraps on a number of the file.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation))]

mod read;
mod types;
mod value;
#[allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "it writes files of its caller's and reads none"
)]
pub mod write;

#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

pub use types::{TensorType, ValueType};
pub use value::{Array, Value};

use crate::formats::Format;
use crate::llm::Error;

/// The first four bytes of each file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensor data if the file names none, in bytes.
pub const DEFAULT_ALIGNMENT: u32 = 32;
/// The key that names the alignment.
pub const ALIGNMENT_KEY: &str = "general.alignment";
/// Dimensions a tensor may have.
pub const MAX_DIMS: usize = 4;
/// Tensor names are shorter than this, in bytes.
pub const MAX_NAME: usize = 64;

/// Another content of a GGUF file than a model, recognised by the text of one key.
struct Kind {
    key: &'static str,
    text: &'static str,
    name: &'static str,
    hint: &'static str,
}

const TYPE: &str = "general.type";
const ARCHITECTURE: &str = "general.architecture";
const TOKENS: &str = "tokenizer.ggml.tokens";
const PROJECTOR: &str = "a projector for images or sounds (mmproj)";
const BESIDE: &str = "take the file of the language model, which lies beside this one; what goes in \
                      and comes out is text alone";
const ADAPTER: &str = "a LoRA adapter";
const MERGE: &str = "merge the adapter into its model with llama.cpp's `llama-export-lora`, and take \
                     the file that comes out";
const MADE_FOR: &str = "take the file of the model that it was made for";

/// As llama.cpp's tools write them.
const OTHER_KINDS: &[Kind] = &[
    Kind { key: TYPE, text: "adapter", name: ADAPTER, hint: MERGE },
    Kind { key: "adapter.type", text: "lora", name: ADAPTER, hint: MERGE },
    Kind { key: TYPE, text: "mmproj", name: PROJECTOR, hint: BESIDE },
    Kind { key: TYPE, text: "clip-vision", name: PROJECTOR, hint: BESIDE },
    Kind { key: ARCHITECTURE, text: "clip", name: PROJECTOR, hint: BESIDE },
    Kind { key: TYPE, text: "imatrix", name: "an importance matrix", hint: MADE_FOR },
    Kind { key: ARCHITECTURE, text: "controlvector", name: "a control vector", hint: MADE_FOR },
];

/// The header of a GGUF file.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    bytes: &'a [u8],
    version: u32,
    alignment: u32,
    metadata_end: u64,
    data_offset: u64,
    metadata: Vec<Entry<'a>>,
    /// Numbers of the entries, by their keys in order.
    keys: Vec<usize>,
    tensors: Vec<TensorInfo<'a>>,
    /// Numbers of the tensors, by their names in order.
    names: Vec<usize>,
}

/// One pair of key and value.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The key; never empty.
    pub key: &'a str,
    /// Its value.
    pub value: Value<'a>,
    /// Byte of the file at which the value starts.
    pub at: u64,
}

/// The description of one tensor in the header.
#[derive(Clone, Debug)]
pub struct TensorInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Weights in each dimension; the first is the length of a row. Unused ones are 1.
    pub dims: [u64; MAX_DIMS],
    /// Dimensions that the file names.
    pub n_dims: usize,
    /// Type of its weights.
    pub kind: TensorType,
    /// Where its data starts, in bytes from [`Gguf::data_offset`].
    pub offset: u64,
    /// Size of its data in bytes.
    pub size: u64,
    /// Byte of the file at which this description starts.
    pub at: u64,
}

impl Entry<'_> {
    /// Byte of the file at which the entry starts.
    ///
    /// Eight bytes with the key's length come first, then the key, then the value.
    fn start(&self) -> u64 {
        self.at.saturating_sub(self.key.len() as u64).saturating_sub(8)
    }
}

impl TensorInfo<'_> {
    /// Number of weights.
    pub fn elements(&self) -> u64 {
        // The reader made sure that this product does not overflow.
        self.dims.iter().product()
    }
}

impl<'a> Gguf<'a> {
    /// Reads the header of a whole file.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the file is malformed or ends too early, [`Error::OutOfMemory`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        read::header(bytes, bytes.len() as u64)
    }

    /// Reads the header from the first bytes of a file, before the model is loaded.
    ///
    /// The file has `file_bytes` bytes. [`Gguf::data`] gives `None` for data behind `prefix`.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the file is malformed, [`Error::HeaderCutShort`] if `prefix` does
    /// not hold the whole header, [`Error::OutOfMemory`].
    pub fn parse_header(prefix: &'a [u8], file_bytes: u64) -> Result<Self, Error> {
        read::header(prefix, file_bytes.max(prefix.len() as u64))
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of tensor data in bytes: a power of two.
    pub fn alignment(&self) -> u32 {
        self.alignment
    }

    /// Byte of the file at which the data of the first tensor starts.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// All metadata in the file's order.
    pub fn metadata(&self) -> &[Entry<'a>] {
        &self.metadata
    }

    /// Each key with the raw bytes of its value, starting with the type's number.
    pub fn raw_metadata(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        let ends = self.metadata.iter().skip(1).map(Entry::start).chain([self.metadata_end]);
        // All of the header lies in memory.
        let place = |at| usize::try_from(at).unwrap_or(usize::MAX);
        let entries = self.metadata.iter().zip(ends);
        entries.map(move |(entry, end)| (entry.key, &self.bytes[place(entry.at)..place(end)]))
    }

    /// All tensors in the file's order.
    pub fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo<'a>> {
        let place = self.names.binary_search_by_key(&name, |&i| self.tensors[i].name).ok()?;
        Some(&self.tensors[self.names[place]])
    }

    /// The place of a tensor's data in the file.
    ///
    /// `None` if no memory can hold that many bytes.
    pub fn range(&self, tensor: &TensorInfo<'_>) -> Option<Range<usize>> {
        let start = self.data_offset.checked_add(tensor.offset)?;
        let end = start.checked_add(tensor.size)?;
        Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    /// The data of a tensor.
    ///
    /// `None` if the data is not in memory: see [`Gguf::parse_header`].
    pub fn data(&self, tensor: &TensorInfo<'_>) -> Option<&'a [u8]> {
        self.bytes.get(self.range(tensor)?)
    }

    /// The entry of this key.
    pub fn entry(&self, key: &str) -> Option<&Entry<'a>> {
        let place = self.keys.binary_search_by_key(&key, |&i| self.metadata[i].key).ok()?;
        Some(&self.metadata[self.keys[place]])
    }

    /// The value of this key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The text of this key; `None` without the key.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the value is no string or no UTF-8.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.typed(key, "UTF-8 text", |value| match value {
            Value::String(text) => core::str::from_utf8(text).ok(),
            _ => None,
        })
    }

    /// The value of this key as text for people, whatever its type.
    ///
    /// Empty without the key. Bytes that are not UTF-8 become replacement characters.
    pub fn shown(&self, key: &str) -> String {
        match self.get(key) {
            None => String::new(),
            Some(Value::String(text)) => String::from_utf8_lossy(text).into_owned(),
            Some(other) => other.describe(),
        }
    }

    /// The name of the model's architecture (`general.architecture`).
    ///
    /// # Errors
    /// [`Error::NotAModel`] if the file holds something else than a model, [`Error::ParseError`] if
    /// it names no architecture.
    pub fn architecture(&self) -> Result<&'a str, Error> {
        let is = |key: &str, text: &str| {
            self.get(key).and_then(Value::as_bytes) == Some(text.as_bytes())
        };
        let kind = OTHER_KINDS.iter().find(|kind| is(kind.key, kind.text));
        if let Some(&Kind { name, hint, .. }) = kind {
            return Err(Error::NotAModel { found: Format::Other { name, hint } });
        }
        let name = self.string(ARCHITECTURE)?.ok_or_else(|| self.missing(ARCHITECTURE))?;
        if self.tensors.is_empty() && self.get(TOKENS).is_some() {
            let found = Format::Other { name: "a vocabulary without weights", hint: MADE_FOR };
            return Err(Error::NotAModel { found });
        }
        Ok(name)
    }

    /// The whole number of this key; `None` without the key.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the value is no integer or is negative.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "a whole number", |value| match *value {
            Value::U8(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::U64(n) => Some(n),
            Value::I8(n) => n.try_into().ok(),
            Value::I16(n) => n.try_into().ok(),
            Value::I32(n) => n.try_into().ok(),
            Value::I64(n) => n.try_into().ok(),
            _ => None,
        })
    }

    /// The number of this key; `None` without the key.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the value is no finite floating-point number.
    #[allow(clippy::cast_possible_truncation, reason = "a number is rounded, as llama.cpp does")]
    pub fn float(&self, key: &str) -> Result<Option<f32>, Error> {
        self.typed(key, "a finite number", |value| match *value {
            Value::F32(x) if x.is_finite() => Some(x),
            Value::F64(x) if (x as f32).is_finite() => Some(x as f32),
            _ => None,
        })
    }

    /// The boolean of this key; `None` without the key.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the value is no truth value.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", |value| match *value {
            Value::Bool(b) => Some(b),
            _ => None,
        })
    }

    /// The array of this key, with elements of type `kind`; `None` without the key.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the value is no such array.
    pub fn array(&self, key: &str, kind: ValueType) -> Result<Option<&Array<'a>>, Error> {
        self.array_of(key, &[kind])
    }

    /// The array of this key, with elements of one of `kinds`; `None` without the key.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the value is no such array.
    pub fn array_of(&self, key: &str, kinds: &[ValueType]) -> Result<Option<&Array<'a>>, Error> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match &entry.value {
            Value::Array(array) if kinds.contains(&array.kind) => Ok(Some(array)),
            other => {
                let kinds: Vec<String> = kinds.iter().map(ValueType::to_string).collect();
                let (kinds, other) = (kinds.join(" or "), other.describe());
                let what = format!("`{key}` must be an array of {kinds} but is {other}");
                Err(Error::ParseError { what, at: entry.at })
            }
        }
    }

    /// The error for a key that must be there and is not.
    pub fn missing(&self, key: &str) -> Error {
        Error::ParseError { what: format!("the key `{key}` is missing"), at: self.metadata_end }
    }

    /// The error for a key whose value makes no sense.
    pub fn invalid(&self, key: &str, why: &str) -> Error {
        let at = self.entry(key).map_or(self.metadata_end, |entry| entry.at);
        Error::ParseError { what: format!("`{key}` {why}"), at }
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match convert(&entry.value) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::ParseError {
                what: format!("`{key}` must be {wanted} but is {}", entry.value.describe()),
                at: entry.at,
            }),
        }
    }
}
