//! Report of a model.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Result;
use kernel::llm::gguf::{Gguf, TensorInfo, Value};
use kernel::llm::plan::ContextOptions;
use serde::Serialize;

use super::{Checksum, table};
use crate::chat;
use crate::checksum;
use crate::model::{ModelFile, why};
use crate::size;

/// A model's file.
#[derive(Serialize)]
pub struct Model {
    kind: &'static str,
    file: String,
    bytes: u64,
    sha256: String,
    /// The comparison of the checksum with the `.sha256` file beside the model.
    pub checksum: Checksum,
    gguf_version: u32,
    alignment: u32,
    data_offset: u64,
    parameters: u64,
    /// The memory to run the model, if the kernel's engine can run it.
    memory: Option<Memory>,
    /// Why the engine cannot run it.
    unsupported: Option<String>,
    /// The hyperparameters, by the keys of the model's architecture.
    shape: BTreeMap<String, serde_json::Value>,
    tokenizer: BTreeMap<String, serde_json::Value>,
    /// The texts around the messages of a chat, if the model has a chat template.
    chat_template: Option<chat::Found>,
    metadata: BTreeMap<String, serde_json::Value>,
    tensor_types: Vec<TypeUse>,
    tensors: Vec<Tensor>,
}

/// The model's memory with the engine's default context, in bytes.
#[derive(Serialize)]
struct Memory {
    file: u64,
    kv_cache: usize,
    arena: usize,
    tables: usize,
}

impl Memory {
    fn total(&self) -> u64 {
        let parts = [self.kv_cache, self.arena, self.tables];
        parts.into_iter().fold(self.file, |sum, bytes| sum.saturating_add(bytes as u64))
    }
}

/// The tensors of one type.
#[derive(Serialize)]
struct TypeUse {
    #[serde(rename = "type")]
    kind: &'static str,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    dims: Vec<u64>,
    /// The first byte in the file.
    start: u64,
    bytes: u64,
}

/// Reads the model at `path`.
pub fn read(path: &Path) -> Result<Model> {
    let model = ModelFile::open(path)?;
    let gguf = model.gguf();
    let sum = model.sum()?;
    let needed = model.memory_needed(ContextOptions::default());
    let unsupported = needed.as_ref().err().map(why);
    let memory = needed.ok().map(|needed| Memory {
        file: model.bytes,
        kv_cache: needed.kv_cache_bytes,
        arena: needed.arena_bytes,
        tables: needed.table_bytes,
    });
    let architecture = gguf.string("general.architecture").ok().flatten().unwrap_or_default();
    Ok(Model {
        kind: "model",
        file: path.display().to_string(),
        bytes: model.bytes,
        sha256: sum.to_string(),
        checksum: Checksum::compare(sum, checksum::read_beside(path)?),
        gguf_version: gguf.version(),
        alignment: gguf.alignment(),
        data_offset: gguf.data_offset(),
        parameters: gguf.tensors().iter().map(TensorInfo::elements).sum(),
        memory,
        unsupported,
        shape: entries(&gguf, &format!("{architecture}.")),
        tokenizer: entries(&gguf, "tokenizer."),
        chat_template: chat::find(&gguf, chat::now()?),
        metadata: entries(&gguf, "general."),
        tensor_types: type_uses(&gguf),
        tensors: tensors(&gguf),
    })
}

/// The entries whose key starts with `prefix`, by the rest of the key.
fn entries(gguf: &Gguf<'_>, prefix: &str) -> BTreeMap<String, serde_json::Value> {
    let entries = gguf.metadata().iter();
    entries
        .filter_map(|entry| Some((entry.key.strip_prefix(prefix)?.to_owned(), json(&entry.value))))
        .collect()
}

/// A value as JSON; an array as a text with its type and length.
fn json(value: &Value<'_>) -> serde_json::Value {
    match *value {
        Value::U8(n) => n.into(),
        Value::I8(n) => n.into(),
        Value::U16(n) => n.into(),
        Value::I16(n) => n.into(),
        Value::U32(n) => n.into(),
        Value::I32(n) => n.into(),
        Value::U64(n) => n.into(),
        Value::I64(n) => n.into(),
        // The shortest number that rounds to this F32: 1e-5, not 9.999999747378752e-6.
        Value::F32(x) => x.to_string().parse::<f64>().unwrap_or_default().into(),
        Value::F64(x) => x.into(),
        Value::Bool(b) => b.into(),
        Value::String(text) => String::from_utf8_lossy(text).into(),
        Value::Array(_) => value.describe().into(),
    }
}

fn type_uses(gguf: &Gguf<'_>) -> Vec<TypeUse> {
    let mut by_type: BTreeMap<u32, TypeUse> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let empty = TypeUse { kind: tensor.kind.name, tensors: 0, parameters: 0, bytes: 0 };
        let used = by_type.entry(tensor.kind.id).or_insert(empty);
        used.tensors += 1;
        used.parameters += tensor.elements();
        used.bytes += tensor.size;
    }
    let mut uses: Vec<TypeUse> = by_type.into_values().collect();
    uses.sort_by_key(|used| std::cmp::Reverse(used.bytes));
    uses
}

fn tensors(gguf: &Gguf<'_>) -> Vec<Tensor> {
    let describe = |tensor: &TensorInfo<'_>| Tensor {
        name: tensor.name.to_owned(),
        kind: tensor.kind.name,
        dims: tensor.dims[..tensor.n_dims].to_vec(),
        start: gguf.data_offset() + tensor.offset,
        bytes: tensor.size,
    };
    gguf.tensors().iter().map(describe).collect()
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters = self.parameters as f64 / 1e6;
        writeln!(f, "{}: {}, {parameters:.1} million weights", self.file, size::human(self.bytes))?;
        writeln!(
            f,
            "GGUF version {}, data aligned to {} bytes, from byte {}",
            self.gguf_version, self.alignment, self.data_offset
        )?;
        writeln!(f, "SHA-256 {} ({})", self.sha256, self.checksum)?;
        if let Some(memory) = &self.memory {
            let size = |bytes: usize| size::human(bytes as u64);
            writeln!(
                f,
                "Runs in {}: the file, {} of KV cache, {} of scratch memory, {} of tables",
                size::human(memory.total()),
                size(memory.kv_cache),
                size(memory.arena),
                size(memory.tables)
            )?;
        }
        if let Some(why) = &self.unsupported {
            writeln!(f, "The kernel will not run it: {why}")?;
        }
        if let Some(found) = &self.chat_template {
            write!(f, "\n{found}")?;
        }
        let parts =
            [("General", &self.metadata), ("Shape", &self.shape), ("Tokenizer", &self.tokenizer)];
        for (title, entries) in parts {
            writeln!(f, "\n{title}")?;
            let rows: Vec<_> =
                entries.iter().map(|(key, value)| vec![key.clone(), short(value)]).collect();
            table(f, &rows)?;
        }
        writeln!(f, "\nTensor types")?;
        let rows: Vec<_> = self
            .tensor_types
            .iter()
            .map(|used| {
                vec![
                    used.kind.to_owned(),
                    format!("{} tensor{}", used.tensors, if used.tensors == 1 { "" } else { "s" }),
                    format!("{:.3} million weights", used.parameters as f64 / 1e6),
                    size::human(used.bytes),
                ]
            })
            .collect();
        table(f, &rows)?;
        writeln!(f, "\nTensors")?;
        let rows: Vec<_> = self
            .tensors
            .iter()
            .map(|tensor| {
                let dims: Vec<String> = tensor.dims.iter().map(u64::to_string).collect();
                vec![
                    tensor.name.clone(),
                    dims.join(" × "),
                    tensor.kind.to_owned(),
                    format!("{} bytes", tensor.bytes),
                    format!("at {}", tensor.start),
                ]
            })
            .collect();
        table(f, &rows)
    }
}

/// A value for a table. Long texts, such as chat templates, are cut.
fn short(value: &serde_json::Value) -> String {
    const MOST: usize = 60;
    let text = match value {
        serde_json::Value::String(text) => text.replace('\n', "⏎"),
        other => other.to_string(),
    };
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}
