//! The values of the metadata.

use alloc::format;
use alloc::string::{String, ToString};

use super::ValueType;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the format's types")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Text, by convention UTF-8; not checked.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of the metadata: elements of one type that is no array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<'a> {
    pub(super) kind: ValueType,
    pub(super) len: usize,
    /// The elements as they lie in the file.
    pub(super) bytes: &'a [u8],
    /// Byte of the file at which the elements start.
    pub(super) at: u64,
}

impl<'a> Value<'a> {
    /// The value as people read it; arrays by their type and length, long text cut.
    pub fn describe(&self) -> String {
        match self {
            Value::U8(n) => n.to_string(),
            Value::I8(n) => n.to_string(),
            Value::U16(n) => n.to_string(),
            Value::I16(n) => n.to_string(),
            Value::U32(n) => n.to_string(),
            Value::I32(n) => n.to_string(),
            Value::U64(n) => n.to_string(),
            Value::I64(n) => n.to_string(),
            // With an exponent where the number is long.
            Value::F32(x) => format!("{x:?}"),
            Value::F64(x) => format!("{x:?}"),
            Value::Bool(b) => b.to_string(),
            Value::String(text) => {
                let shown: String = String::from_utf8_lossy(text).chars().take(80).collect();
                format!("{shown:?}")
            }
            Value::Array(array) => format!("an array of {} {}", array.len, array.kind),
        }
    }

    /// The text, if this is a string.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Array<'a> {
    /// Type of the elements.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The strings of an array, each with its byte in the file.
    ///
    /// Empty for another element type.
    pub fn strings(&self) -> impl Iterator<Item = (&'a [u8], u64)> + use<'a> {
        let mut rest = if self.kind == ValueType::String { self.bytes } else { &[] };
        let end = self.at.saturating_add(self.bytes.len() as u64);
        core::iter::from_fn(move || {
            let at = end.saturating_sub(rest.len() as u64);
            let (len, tail) = rest.split_first_chunk::<8>()?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
            let (text, tail) = tail.split_at_checked(len)?;
            rest = tail;
            Some((text, at))
        })
    }

    /// The elements of an array of F32; empty for another element type.
    pub fn f32s(&self) -> impl Iterator<Item = f32> + use<'a> {
        self.words_of(&[ValueType::F32]).map(f32::from_le_bytes)
    }

    /// The elements of an array of F32 or I32; integers are rounded.
    ///
    /// Empty for another element type.
    #[allow(clippy::cast_precision_loss, reason = "a number is rounded, as llama.cpp does")]
    pub fn numbers(&self) -> impl Iterator<Item = f32> + use<'a> {
        let is_whole = self.kind == ValueType::I32;
        let words = self.words_of(&[ValueType::F32, ValueType::I32]);
        words.map(move |word| match is_whole {
            true => i32::from_le_bytes(word) as f32,
            false => f32::from_le_bytes(word),
        })
    }

    /// The elements of an array of I32; empty for another element type.
    pub fn i32s(&self) -> impl Iterator<Item = i32> + use<'a> {
        self.words_of(&[ValueType::I32]).map(i32::from_le_bytes)
    }

    /// The bits of the elements of an array of U32 or I32.
    ///
    /// Empty for another element type.
    pub fn words(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.words_of(&[ValueType::U32, ValueType::I32]).map(u32::from_le_bytes)
    }

    /// The elements of an array of U32, I32 or booleans.
    ///
    /// Booleans count as 0 and 1. `None` for another element type, or if an element is negative.
    pub fn integers(&self) -> Option<impl Iterator<Item = u32> + Clone + use<'a>> {
        let width = match self.kind {
            ValueType::U32 | ValueType::I32 => 4,
            ValueType::Bool => 1,
            _ => return None,
        };
        let integer = |bytes: &[u8]| match bytes {
            &[a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            byte => u32::from(byte != [0]),
        };
        let integers = self.bytes.chunks_exact(width).map(integer);
        let negative = |n: u32| self.kind == ValueType::I32 && n > i32::MAX as u32;
        (!integers.clone().any(negative)).then_some(integers)
    }

    fn words_of(&self, kinds: &[ValueType]) -> impl Iterator<Item = [u8; 4]> + use<'a> {
        let bytes = if kinds.contains(&self.kind) { self.bytes } else { &[] };
        bytes.as_chunks::<4>().0.iter().copied()
    }
}
