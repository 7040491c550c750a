//! Reads any bytes as a GGUF file, with the tokenizer and the model that it describes.
#![no_main]

use kernel::llm::backend::{ContextOptions, memory_needed};
use kernel::llm::gguf::Gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = memory_needed(data, data.len() as u64, ContextOptions::default());
    let Ok(gguf) = Gguf::parse(data) else { return };
    for entry in gguf.metadata() {
        entry.value.describe();
    }
    // Each tensor lies in the file.
    for tensor in gguf.tensors() {
        assert!(gguf.data_offset() + tensor.offset + tensor.size <= data.len() as u64);
    }
});
