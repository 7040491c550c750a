//! The parts of a GGUF file, so that a test can break one part.

use std::collections::BTreeMap;

use kernel::llm::gguf::write::put_string;
pub use kernel::llm::gguf::write::scalar;
use kernel::llm::gguf::{Gguf, MAGIC, TensorType, ValueType};

/// A file. `None` fields are written correctly.
#[derive(Clone)]
pub struct File {
    pub magic: [u8; 4],
    pub version: u32,
    pub n_tensors: Option<u64>,
    pub n_entries: Option<u64>,
    pub entries: Vec<Entry>,
    pub tensors: Vec<Tensor>,
    /// The alignment of the tensors' data, whatever the keys say.
    pub alignment: usize,
}

/// A pair of key and value.
#[derive(Clone)]
pub struct Entry {
    pub key: Vec<u8>,
    pub key_len: Option<u64>,
    /// The number of the value's type, and the value as it lies in the file.
    pub value: Vec<u8>,
}

/// A tensor.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub name_len: Option<u64>,
    pub dims: Vec<u64>,
    pub n_dims: Option<u32>,
    pub kind: u32,
    pub offset: Option<u64>,
    pub data: Vec<u8>,
}

/// A place in a file.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    Byte(u64),
    /// Where the entry of this key starts.
    Key(&'a str),
    /// So many bytes after the start of this key's value, which its type's number is.
    Value(&'a str, u64),
    EndOfKeys,
    /// Where the description of this tensor starts.
    Tensor(&'a str),
    /// Its number of dimensions.
    Dims(&'a str),
    /// One of its dimensions.
    Dim(&'a str, u64),
    /// Its type.
    Type(&'a str),
    /// Where the data starts.
    Data,
}

/// The bytes of a file, and where its parts are.
pub struct Written {
    pub bytes: Vec<u8>,
    /// The entry and the value of each key.
    keys: BTreeMap<Vec<u8>, [u64; 2]>,
    end_of_keys: u64,
    /// The description, the dimensions and the type of each tensor.
    tensors: BTreeMap<String, [u64; 3]>,
    data: u64,
}

impl Written {
    /// The byte at which a part is.
    pub fn byte(&self, at: At<'_>) -> u64 {
        match at {
            At::Byte(byte) => byte,
            At::Key(key) => self.keys[key.as_bytes()][0],
            At::Value(key, n) => self.keys[key.as_bytes()][1] + n,
            At::EndOfKeys => self.end_of_keys,
            At::Tensor(name) => self.tensors[name][0],
            At::Dims(name) => self.tensors[name][1],
            At::Dim(name, i) => self.tensors[name][1] + 4 + 8 * i,
            At::Type(name) => self.tensors[name][2],
            At::Data => self.data,
        }
    }
}

/// The bytes of an array.
pub fn array(kind: ValueType, len: u64, elements: &[u8]) -> Vec<u8> {
    let head = [ValueType::Array as u32, kind as u32].map(u32::to_le_bytes).concat();
    [&head, &len.to_le_bytes()[..], elements].concat()
}

/// The bytes of a text.
pub fn string(text: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    put_string(&mut value, text);
    scalar(ValueType::String, &value)
}

/// The bytes of an array of texts.
pub fn strings<T: AsRef<[u8]>>(texts: &[T]) -> Vec<u8> {
    let mut elements = Vec::new();
    texts.iter().for_each(|text| put_string(&mut elements, text.as_ref()));
    array(ValueType::String, texts.len() as u64, &elements)
}

/// The bytes of an array of I32.
pub fn i32s(numbers: &[i32]) -> Vec<u8> {
    let elements: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    array(ValueType::I32, numbers.len() as u64, &elements)
}

/// The bytes of an array of F32.
pub fn f32s(numbers: &[f32]) -> Vec<u8> {
    let elements: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    array(ValueType::F32, numbers.len() as u64, &elements)
}

impl File {
    /// Takes a sound file apart.
    pub fn read(bytes: &[u8]) -> Self {
        let gguf = Gguf::parse(bytes).unwrap();
        let entries = gguf.raw_metadata().map(|(key, value)| Entry {
            key: key.into(),
            key_len: None,
            value: value.to_vec(),
        });
        let tensors = gguf.tensors().iter().map(|tensor| Tensor {
            name: tensor.name.into(),
            name_len: None,
            dims: tensor.dims[..tensor.n_dims].to_vec(),
            n_dims: None,
            kind: tensor.kind.id,
            offset: None,
            data: gguf.data(tensor).unwrap().to_vec(),
        });
        File {
            magic: MAGIC,
            version: 3,
            n_tensors: None,
            n_entries: None,
            entries: entries.collect(),
            tensors: tensors.collect(),
            alignment: gguf.alignment() as usize,
        }
    }

    /// Puts the file together. Of twins the last one's places count.
    pub fn write(&self) -> Written {
        let (mut keys, mut tensors) = (BTreeMap::new(), BTreeMap::new());
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.n_entries.unwrap_or(self.entries.len() as u64).to_le_bytes());
        for Entry { key, key_len, value } in &self.entries {
            let start = bytes.len() as u64;
            bytes.extend(key_len.unwrap_or(key.len() as u64).to_le_bytes());
            bytes.extend(key);
            keys.insert(key.clone(), [start, bytes.len() as u64]);
            bytes.extend(value);
        }
        let end_of_keys = bytes.len() as u64;
        let mut next = 0;
        for Tensor { name, name_len, dims, n_dims, kind, offset, data } in &self.tensors {
            let start = bytes.len() as u64;
            bytes.extend(name_len.unwrap_or(name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
            let dims_at = bytes.len() as u64;
            bytes.extend(n_dims.unwrap_or(dims.len() as u32).to_le_bytes());
            bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            tensors.insert(name.clone(), [start, dims_at, bytes.len() as u64]);
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.unwrap_or(next).to_le_bytes());
            next += data.len().next_multiple_of(self.alignment) as u64;
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        let data = bytes.len() as u64;
        for tensor in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
            bytes.extend(&tensor.data);
        }
        Written { bytes, keys, end_of_keys, tensors, data }
    }

    /// The value of a key that is there.
    pub fn value(&mut self, key: &str) -> &mut Vec<u8> {
        let entry = self.entries.iter_mut().find(|entry| entry.key == key.as_bytes());
        &mut entry.unwrap_or_else(|| panic!("there is no key {key}")).value
    }

    /// Sets a key, which may be new.
    pub fn set(&mut self, key: &str, value: Vec<u8>) {
        match self.entries.iter_mut().find(|entry| entry.key == key.as_bytes()) {
            Some(entry) => entry.value = value,
            None => self.entries.push(Entry { key: key.into(), key_len: None, value }),
        }
    }

    /// Sets a key to a number of type U32.
    pub fn set_u32(&mut self, key: &str, value: u32) {
        self.set(key, scalar(ValueType::U32, &value.to_le_bytes()));
    }

    /// Sets a key to a number of type F32.
    pub fn set_f32(&mut self, key: &str, value: f32) {
        self.set(key, scalar(ValueType::F32, &value.to_le_bytes()));
    }

    /// Removes a key that is there.
    pub fn remove(&mut self, key: &str) {
        self.value(key);
        self.entries.retain(|entry| entry.key != key.as_bytes());
    }

    /// A tensor that is there.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        tensor.unwrap_or_else(|| panic!("there is no tensor {name}"))
    }

    /// Keeps only these tokens of the vocabulary.
    pub fn keep_tokens(&mut self, tokens: &[usize]) {
        let bytes = self.write().bytes;
        let gguf = Gguf::parse(&bytes).unwrap();
        let array = |key, kind| gguf.array(key, kind).unwrap().unwrap();
        let texts: Vec<_> = array("tokenizer.ggml.tokens", ValueType::String).strings().collect();
        let scores: Vec<_> = array("tokenizer.ggml.scores", ValueType::F32).f32s().collect();
        let kinds: Vec<_> = array("tokenizer.ggml.token_type", ValueType::I32).i32s().collect();
        let texts_kept: Vec<_> = tokens.iter().map(|&i| texts[i].0).collect();
        let scores: Vec<_> = tokens.iter().map(|&i| scores[i]).collect();
        let kinds: Vec<_> = tokens.iter().map(|&i| kinds[i]).collect();
        self.set("tokenizer.ggml.tokens", strings(&texts_kept));
        self.set("tokenizer.ggml.scores", f32s(&scores));
        self.set("tokenizer.ggml.token_type", i32s(&kinds));
        for name in ["token_embd.weight", "output.weight"] {
            if let Some(tensor) = self.tensors.iter_mut().find(|tensor| tensor.name == name) {
                let row = tensor.data.len() / texts.len();
                let rows = tokens.iter().flat_map(|&i| &tensor.data[i * row..][..row]);
                tensor.data = rows.copied().collect();
                tensor.dims[1] = tokens.len() as u64;
            }
        }
    }
}

impl Tensor {
    /// Gives the tensor another shape and type, with data of the right size.
    ///
    /// Only the model can find the fault.
    pub fn reshape(&mut self, kind: TensorType, dims: &[u64]) {
        self.dims = dims.to_vec();
        self.kind = kind.id;
        let bytes = kind.size_of(dims.iter().product()).expect("a whole number of blocks");
        self.data.resize(bytes as usize, 0);
    }
}
