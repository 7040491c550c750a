//! The one pass over the header.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{
    ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, Entry, Gguf, MAGIC, MAX_DIMS, MAX_NAME, TensorInfo,
    TensorType, Value, ValueType,
};
use crate::formats::Format;
use crate::llm::{Error, with_capacity};

/// Strings and arrays are at most this long (llama.cpp's limit).
const MAX_LEN: u64 = 1 << 30;
/// Least size of an entry: key length, one byte of key, type, one byte of value.
const MIN_ENTRY: u64 = 8 + 1 + 4 + 1;
/// Least size of a tensor's description: name length, dimensions, type, offset.
const MIN_TENSOR: u64 = 8 + 4 + 4 + 8;

fn error<T>(at: u64, what: impl Into<String>) -> Result<T, Error> {
    Err(Error::ParseError { what: what.into(), at })
}

/// A place in the file, and the bytes behind it.
struct Reader<'a> {
    rest: &'a [u8],
    /// Byte of the file at which `rest` starts.
    at: u64,
    /// Size of the file, of which `rest` may be cut short.
    file_bytes: u64,
}

impl<'a> Reader<'a> {
    /// Bytes of the file that are left.
    fn left(&self) -> u64 {
        self.file_bytes.saturating_sub(self.at)
    }

    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], Error> {
        let split = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let Some((taken, rest)) = split else {
            if len <= self.left() {
                return Err(Error::HeaderCutShort { needed: self.at.saturating_add(len) });
            }
            return error(
                self.at,
                format!("the file ends inside {what}: {len} bytes needed, {} left", self.left()),
            );
        };
        self.rest = rest;
        // It lies in memory, so the sum is far from overflow.
        self.at = self.at.saturating_add(len);
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, what)?);
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Error> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, Error> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A number of things of which each takes `least` bytes or more.
    fn count(&mut self, least: u64, what: &str) -> Result<u64, Error> {
        let at = self.at;
        let count = self.u64(what)?;
        if count.checked_mul(least).is_none_or(|bytes| bytes > self.left()) {
            return error(
                at,
                format!("{what} is {count}, more than the {} bytes left can hold", self.left()),
            );
        }
        Ok(count)
    }

    fn string(&mut self, what: &str) -> Result<&'a [u8], Error> {
        let at = self.at;
        let len = self.u64(what)?;
        if len > MAX_LEN {
            return error(at, format!("{what} is {len} bytes long, the limit is {MAX_LEN}"));
        }
        self.take(len, what)
    }

    fn text(&mut self, what: &str) -> Result<&'a str, Error> {
        let at = self.at;
        match core::str::from_utf8(self.string(what)?) {
            Ok(text) => Ok(text),
            Err(_) => error(at, format!("{what} is no UTF-8")),
        }
    }

    fn value(&mut self, key: &str) -> Result<Value<'a>, Error> {
        let at = self.at;
        let id = self.u32("a value's type")?;
        let Some(kind) = ValueType::from_id(id) else {
            return error(at, format!("the type of `{key:.80}` is {id}, which does not exist"));
        };
        let what = "a value";
        Ok(match kind {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.bytes(what)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.bytes(what)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.bytes(what)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.bytes(what)?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(self.bytes(what)?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.bytes(what)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.bytes(what)?)),
            ValueType::Bool => Value::Bool(self.bytes::<1>(what)? != [0]),
            ValueType::String => Value::String(self.string(what)?),
            ValueType::Array => Value::Array(self.array(key)?),
            ValueType::U64 => Value::U64(u64::from_le_bytes(self.bytes(what)?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.bytes(what)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.bytes(what)?)),
        })
    }

    fn array(&mut self, key: &str) -> Result<Array<'a>, Error> {
        let at = self.at;
        let id = self.u32("an array's type")?;
        let kind = ValueType::from_id(id);
        let Some((kind, size)) = kind.and_then(|kind| Some((kind, kind.size()?))) else {
            return error(
                at,
                format!("`{key:.80}` is an array of type {id}, which cannot be in one"),
            );
        };
        let at = self.at;
        let len = self.count(size, "an array's length")?;
        if len > MAX_LEN {
            return error(at, format!("`{key:.80}` has {len} elements, the limit is {MAX_LEN}"));
        }
        let (start, at) = (self.rest, self.at);
        if kind == ValueType::String {
            for _ in 0..len {
                self.string("a string in an array")?;
            }
        } else {
            // `count` bounded the length by the file, so the product fits.
            self.take(len.saturating_mul(size), "an array")?;
        }
        let bytes = &start[..start.len().saturating_sub(self.rest.len())];
        // Elements lie in memory, so there are no more than a usize counts.
        Ok(Array { kind, len: usize::try_from(len).unwrap_or(usize::MAX), bytes, at })
    }

    fn tensor(&mut self) -> Result<TensorInfo<'a>, Error> {
        let at = self.at;
        let name = self.text("a tensor's name")?;
        if name.len() >= MAX_NAME {
            return error(
                at,
                format!("a tensor's name is {} bytes long, the limit is 63", name.len()),
            );
        }
        let dims_at = self.at;
        let n_dims = self.u32("a tensor's number of dimensions")? as usize;
        if n_dims > MAX_DIMS {
            return error(dims_at, format!("`{name}` has {n_dims} dimensions, the limit is 4"));
        }
        let mut dims = [1; MAX_DIMS];
        let mut elements = 1_u64;
        for dim in &mut dims[..n_dims] {
            let at = self.at;
            *dim = self.u64("a tensor's dimension")?;
            // ggml counts in i64.
            let product = elements.checked_mul(*dim).filter(|&n| n < i64::MAX as u64);
            elements = match product {
                Some(0) => return error(at, format!("`{name}` has a dimension of 0")),
                Some(product) => product,
                None => return error(at, format!("`{name}` has too many weights to count")),
            };
        }
        let type_at = self.at;
        let id = self.u32("a tensor's type")?;
        let Some(kind) = TensorType::from_id(id) else {
            let fate = if TensorType::is_removed(id) { "was removed" } else { "does not exist" };
            return error(type_at, format!("`{name}` is of type {id}, which {fate}"));
        };
        if !dims[0].is_multiple_of(kind.block_weights) {
            return error(
                dims_at,
                format!(
                    "a row of `{name}` has {} weights, no whole number of {kind} blocks of {}",
                    dims[0], kind.block_weights
                ),
            );
        }
        let Some(size) = kind.size_of(elements) else {
            return error(dims_at, format!("the size of `{name}` in bytes overflows"));
        };
        let offset = self.u64("a tensor's offset")?;
        Ok(TensorInfo { name, dims, n_dims, kind, offset, size, at })
    }
}

fn check_version(version: u32, at: u64) -> Result<(), Error> {
    match version {
        2 | 3 => Ok(()),
        v if v != 0 && v & 0xffff == 0 => error(
            at,
            format!(
                "this is a big-endian file (version {}); only little-endian ones are read",
                v.swap_bytes()
            ),
        ),
        v => error(at, format!("this is GGUF version {v}; versions 2 and 3 are read")),
    }
}

fn alignment(entry: Option<&Entry<'_>>) -> Result<u32, Error> {
    let Some(entry) = entry else { return Ok(DEFAULT_ALIGNMENT) };
    match entry.value {
        Value::U32(alignment) if alignment.is_power_of_two() => Ok(alignment),
        ref other => error(
            entry.at,
            format!("`{ALIGNMENT_KEY}` must be a power of two (u32) but is {}", other.describe()),
        ),
    }
}

/// Checks that tensors' data is contiguous and lies in the file.
fn check_layout(
    tensors: &[TensorInfo<'_>],
    alignment: u32,
    data_offset: u64,
    file_bytes: u64,
) -> Result<(), Error> {
    let mut expected = 0_u64;
    for tensor in tensors {
        let name = tensor.name;
        if tensor.offset != expected {
            return error(
                tensor.at,
                format!("the data of `{name}` is at {}, expected at {expected}", tensor.offset),
            );
        }
        let end = data_offset.checked_add(expected).and_then(|at| at.checked_add(tensor.size));
        if end.is_none_or(|end| end > file_bytes) {
            return error(
                tensor.at,
                format!(
                    "the file ends inside the data of `{name}`: {} bytes from byte {} of {file_bytes}",
                    tensor.size,
                    data_offset.saturating_add(expected)
                ),
            );
        }
        let end = expected.checked_add(tensor.size);
        let next = end.and_then(|end| end.checked_next_multiple_of(alignment.into()));
        let Some(next) = next else {
            return error(tensor.at, format!("the padding after `{name}` overflows"));
        };
        expected = next;
    }
    Ok(())
}

/// The name of a header's memory in errors.
const HEADER: &str = "the model's header";

fn push<T>(items: &mut Vec<T>, item: T) -> Result<(), Error> {
    let asked = items.len().saturating_add(1).saturating_mul(size_of::<T>()) as u64;
    items.try_reserve(1).map_err(|_| Error::OutOfMemory { what: HEADER, asked })?;
    items.push(item);
    Ok(())
}

/// The numbers of the items by their names; of equal ones in the order of the file.
fn index<T>(items: &[T], name: impl Fn(&T) -> &str) -> Result<Vec<usize>, Error> {
    let mut index = with_capacity(items.len(), HEADER)?;
    index.extend(0..items.len());
    index.sort_unstable_by(|&a, &b| name(&items[a]).cmp(name(&items[b])).then(a.cmp(&b)));
    Ok(index)
}

/// The first item in that order whose name another one before it has.
fn twin<'t, T>(items: &'t [T], index: &[usize], name: impl Fn(&T) -> &str) -> Option<&'t T> {
    let twins = index.windows(2).find(|pair| name(&items[pair[0]]) == name(&items[pair[1]]))?;
    Some(&items[twins[1]])
}

/// Reads the header of a file of `file_bytes` bytes that starts with `bytes`.
pub fn header(bytes: &[u8], file_bytes: u64) -> Result<Gguf<'_>, Error> {
    if file_bytes == 0
        && let Some(found) = Format::of(&[])
    {
        return Err(Error::NotAModel { found });
    }
    let mut reader = Reader { rest: bytes, at: 0, file_bytes };
    let magic = reader.bytes::<4>("the magic number")?;
    if magic != MAGIC {
        return match Format::of(bytes) {
            Some(found) => Err(Error::NotAModel { found }),
            None => error(0, format!("this is no GGUF file: it starts with {magic:02x?}")),
        };
    }
    let version = reader.u32("the version")?;
    check_version(version, 4)?;
    let n_tensors = reader.count(MIN_TENSOR, "the number of tensors")?;
    let n_entries = reader.count(MIN_ENTRY, "the number of keys")?;

    let mut metadata = Vec::new();
    for _ in 0..n_entries {
        let at = reader.at;
        let key = reader.text("a key")?;
        if key.is_empty() {
            return error(at, "a key is empty");
        }
        let at = reader.at;
        let value = reader.value(key)?;
        push(&mut metadata, Entry { key, value, at })?;
    }
    let metadata_end = reader.at;
    let keys = index(&metadata, |entry| entry.key)?;
    if let Some(entry) = twin(&metadata, &keys, |entry| entry.key) {
        return error(entry.start(), format!("the key `{:.80}` appears twice", entry.key));
    }
    let alignment = alignment(metadata.iter().find(|entry| entry.key == ALIGNMENT_KEY))?;

    let mut tensors = Vec::new();
    for _ in 0..n_tensors {
        push(&mut tensors, reader.tensor()?)?;
    }
    let names = index(&tensors, |tensor| tensor.name)?;
    if let Some(TensorInfo { name, at, .. }) = twin(&tensors, &names, |tensor| tensor.name) {
        return error(*at, format!("the tensor `{name}` appears twice"));
    }
    // The header lies in memory, so its end is far from overflow.
    let data_offset = reader.at.next_multiple_of(alignment.into());
    check_layout(&tensors, alignment, data_offset, file_bytes)?;
    Ok(Gguf {
        bytes,
        version,
        alignment,
        metadata_end,
        data_offset,
        metadata,
        keys,
        tensors,
        names,
    })
}
