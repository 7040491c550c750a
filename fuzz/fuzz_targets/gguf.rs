//! Reads any bytes as a GGUF file, with the tokenizer, the model and the chats that it describes.
#![no_main]

use std::ops::ControlFlow;

use fuzz::limits::Limits;
use kernel::backend::{BackendOptions, ContextOptions, Plan, Progress, TransformerBackend};
use kernel::llm::Error;
use kernel::llm::arena::ModelBuffer;
use kernel::llm::chat::Declared;
use kernel::llm::gguf::write::put_string;
use kernel::llm::gguf::{Gguf, ValueType};
use kernel::llm::workers::SingleThread;
use libfuzzer_sys::fuzz_target;

/// The header's vectors while they grow, and the tokenizer's tables; the tables of any byte-level
/// tokenizer hold 256 characters.
const LIMITS: Limits = Limits { memory: (64, 64 << 10), ns_per_byte: 20_000 };

/// Size of the largest file on a FAT volume.
const FILE_BYTES: u64 = u32::MAX as u64;

/// A copy of the file, the cache, and buffers as long as the vocabulary and the widest layer.
const LIMITS_OF_TEXT: Limits = Limits { memory: (64, 4 << 20), ns_per_byte: 100_000 };

fuzz_target!(|data: &[u8]| {
    LIMITS.hold(data.len(), || read(data));
    LIMITS_OF_TEXT.hold(data.len(), || generate(data));
});

fn read(data: &[u8]) {
    let file_bytes = data.len() as u64;
    // Whole, and as the start of a file that has room for all the tensors that its header tells of.
    for file_bytes in [file_bytes, FILE_BYTES] {
        let _ =
            Plan::read(data, file_bytes).and_then(|plan| plan.needed(ContextOptions::default()));
    }
    let Ok(gguf) = Gguf::parse(data) else { return };
    let declared = Declared::from_gguf(&gguf);
    assert!(declared.has_template || (declared.problem.is_none() && declared.known.is_none()));
    check_metadata(&gguf, data);
    check_tensors(&gguf, data);
    // With less than the header, more is asked for: never more than there is, and never an error
    // of another kind.
    let header = data.len().min(gguf.data_offset() as usize);
    let end = gguf.tensors().last().map_or(header, |tensor| tensor.at as usize);
    for cut in [end / 2, end.saturating_sub(1)] {
        match Gguf::parse_header(&data[..cut], file_bytes) {
            Err(Error::HeaderCutShort { needed }) => {
                assert!(cut < needed as usize && needed <= file_bytes, "{needed} after {cut}");
            }
            // Padding was all that was cut off.
            Ok(_) if gguf.tensors().is_empty() => {}
            other => panic!("{other:?} of a prefix of {cut} bytes"),
        }
    }
}

/// Has the model write a text that outgrows its context, if it is whole.
fn generate(data: &[u8]) {
    let context =
        ContextOptions { n_ctx: Some(8), context_shift: true, ..ContextOptions::default() };
    let options = BackendOptions { context, workers: &SingleThread, now_us: || 0 };
    let mut backend = TransformerBackend::with_options(options);
    if backend.load_bytes(ModelBuffer::from(data)).is_err() {
        return;
    }
    let mut text = String::new();
    let answer = backend.infer_streaming("a b", 9, &mut |progress| {
        if let Progress::Text(part) = progress {
            text.push_str(part);
        }
        ControlFlow::Continue(())
    });
    let n_vocab = backend.model_metadata().expect("a loaded model").n_vocab;
    if let Ok(result) = answer {
        assert_eq!((result.output, result.tokens.len()), (text, result.tokens_emitted));
        assert!(result.tokens.iter().all(|&token| (token as usize) < n_vocab));
    }
}

fn check_metadata(gguf: &Gguf<'_>, data: &[u8]) {
    // The entries as they lie in the file are the file, behind magic, version and two counts.
    let mut raw = Vec::new();
    for (key, value) in gguf.raw_metadata() {
        put_string(&mut raw, key.as_bytes());
        raw.extend(value);
    }
    assert_eq!(data[24..][..raw.len()], raw);
    for entry in gguf.metadata() {
        entry.value.describe();
        // No name is there twice, so each is found as itself.
        let found = gguf.entry(entry.key).expect("a key that is there");
        assert_eq!(found.at, entry.at);
        for kind in [ValueType::String, ValueType::F32, ValueType::I32, ValueType::U32] {
            let Ok(Some(array)) = gguf.array(entry.key, kind) else { continue };
            let n = match kind {
                ValueType::String => array.strings().count(),
                ValueType::F32 => array.f32s().count(),
                ValueType::I32 => array.i32s().count(),
                _ => array.integers().expect("no u32 is negative").count(),
            };
            assert_eq!(n, array.len());
        }
    }
}

fn check_tensors(gguf: &Gguf<'_>, data: &[u8]) {
    let mut end = 0;
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(tensor.name).map(|found| found.at), Some(tensor.at));
        // Each lies behind the one before it, aligned and in the file.
        assert!(tensor.offset >= end && tensor.offset.is_multiple_of(gguf.alignment().into()));
        end = tensor.offset + tensor.size;
        assert!(gguf.data_offset() + end <= data.len() as u64);
        assert_eq!(gguf.data(tensor).map(<[u8]>::len), Some(tensor.size as usize));
        assert_eq!(tensor.kind.size_of(tensor.elements()), Some(tensor.size));
    }
}
