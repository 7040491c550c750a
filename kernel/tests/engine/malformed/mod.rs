//! Malformed files, refused by errors that name the fault and its place.
//!
//! No file may cause a panic, or memory use out of proportion to the file.
//!
//! A file goes the whole way: header, tokenizer, model, backend; twice, since a machine judges it
//! by its header before it is loaded. `container.rs`, `model.rs` and `vocabulary.rs` are the tables
//! of faults. The tables hold the cases of llama.cpp's `tests/test-gguf.cpp`, and cases that broke
//! other parsers.

mod bits;
mod container;
mod file;
mod model;
mod vocabulary;

use std::path::Path;

use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, Plan, TransformerBackend};
use kernel::llm::Error;
use kernel::llm::workers::SingleThread;

use crate::memory::{LARGEST, LIVE, PEAK};
use file::{At, File};

/// The largest allocation that there is room for.
const MEMORY: usize = 32 << 20;

/// The result of `run`, and its peak memory in bytes.
fn measured<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let made = run();
    (made, PEAK.get() - before)
}

/// The memory limit for refusing a file of `file_bytes` bytes.
///
/// Table entries are larger in memory than in the file.
fn bound(file_bytes: usize) -> usize {
    (64 << 10) + 32 * file_bytes
}

/// Loads a file and, if that works, lets it answer.
fn load(bytes: &[u8], n_ctx: Option<usize>) -> Result<(), Error> {
    LARGEST.set(MEMORY);
    let file = ModelBuffer::from(bytes);
    let context = ContextOptions { n_ctx, ..ContextOptions::default() };
    let options = BackendOptions { context, workers: &SingleThread, now_us: || 0 };
    let mut backend = TransformerBackend::with_options(options);
    let (loaded, peak) = measured(|| backend.load_bytes(file));
    let judged = Plan::read(bytes, bytes.len() as u64).and_then(|plan| plan.needed(context));
    match (loaded, judged) {
        (Ok(()), Ok(needed)) => assert!(peak <= needed.total(), "{peak} of {needed:?}"),
        (Err(Error::OutOfMemory { what, asked }), Ok(needed)) => {
            assert!(needed.total() > MEMORY);
            return Err(Error::OutOfMemory { what, asked });
        }
        (Err(error), Err(judged)) => {
            assert!(peak <= bound(bytes.len()), "{peak} for {} bytes: {error}", bytes.len());
            assert_eq!(error, judged);
            assert!(error.to_string().len() < 400, "{error}");
            return Err(error);
        }
        (loaded, judged) => panic!("{loaded:?} but by its header {judged:?}"),
    }
    match backend.infer("ab", 2) {
        // A vocabulary may have no token for a text; a context may have one position only.
        Ok(_) | Err(Error::InvalidConfig { .. } | Error::ContextFull { .. }) => Ok(()),
        Err(error) => panic!("{error}"),
    }
}

/// The expected answer to a file.
#[derive(Clone, Copy, Debug)]
enum Expected<'a> {
    /// A parse error with these words and this place.
    Parse(&'a str, At<'a>),
    /// The engine lacks the feature of this text.
    Unsupported(&'a str),
    /// The file is of this format, and no model.
    NotAModel(&'a str),
    /// Nothing: the file is sound.
    Sound,
}

use Expected::{NotAModel, Parse, Sound, Unsupported};

/// A way to break a file.
struct Fault {
    name: &'static str,
    edit: fn(&mut File),
    expected: Expected<'static>,
}

const fn fault(name: &'static str, edit: fn(&mut File), expected: Expected<'static>) -> Fault {
    Fault { name, edit, expected }
}

/// The fault of the answer to a file, if any.
fn judge(file: &File, expected: Expected<'_>) -> Result<(), String> {
    let written = file.write();
    match (load(&written.bytes, None), expected) {
        (Ok(()), Sound) => Ok(()),
        (Err(Error::ParseError { what, at }), Parse(words, place))
            if what.contains(words) && at == written.byte(place) =>
        {
            Ok(())
        }
        (Err(Error::Unsupported { what }), Unsupported(words)) if what.contains(words) => Ok(()),
        (Err(error @ Error::NotAModel { .. }), NotAModel(words))
            if error.to_string().contains(words) =>
        {
            Ok(())
        }
        (answer, Parse(_, place)) => {
            Err(format!("{answer:?}, expected {expected:?} ({})", written.byte(place)))
        }
        (answer, _) => Err(format!("{answer:?}, expected {expected:?}")),
    }
}

/// Tries a table of faults on a file that is sound.
#[track_caller]
fn try_all(sound: &File, faults: &[Fault]) {
    assert_eq!(judge(sound, Sound), Ok(()));
    let wrong = faults.iter().filter_map(|Fault { name, edit, expected }| {
        let mut file = sound.clone();
        edit(&mut file);
        judge(&file, *expected).err().map(|answer| format!("{name}: {answer}\n"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), faults.len(), wrong.concat());
}

/// A small model of an architecture, with a vocabulary of eleven tokens.
fn model(name: &str) -> File {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models/architectures");
    let path = folder.join(format!("{name}-Q4_0.gguf"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut file = File::read(&bytes);
    file.keep_tokens(&[0, 1, 2, 259, 260, 261, 262, 263, 264, 265, 266]);
    file
}

/// The small models, by their architectures.
fn models() -> impl Iterator<Item = (&'static str, File)> {
    kernel::llm::model::ARCHITECTURES
        .iter()
        .map(|architecture| (architecture.name, model(architecture.name)))
}

#[test]
fn what_there_is_no_memory_for_is_refused() {
    let mut file = model("llama");
    file.set_u32("llama.context_length", i32::MAX as u32);
    let bytes = file.write().bytes;
    assert_eq!(load(&bytes, Some(997)), Ok(()));
    // Two layers, keys and values, 32 numbers of two bytes; then the scores of four heads, and more
    // than that, are too many already.
    let n_ctx = MEMORY / 256 + 1;
    let error = load(&bytes, Some(n_ctx)).unwrap_err();
    assert_eq!(error, Error::OutOfMemory { what: "the KV cache", asked: n_ctx as u64 * 256 });
    let n_ctx = i32::MAX as usize;
    let Error::OutOfMemory { what, asked } = load(&bytes, Some(n_ctx)).unwrap_err() else {
        panic!("another error");
    };
    assert!(what == "scratch memory" && asked > n_ctx as u64 * 16, "{asked} bytes of {what}");
}
