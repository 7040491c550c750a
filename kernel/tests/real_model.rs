//! The tests of `backend::self_test` on every model in the folder `MODEL_DIR`.
//!
//! Without `MODEL_DIR`, on the models of `test_models`. They take long, and a model of one's own
//! can be put to the test with them:
//!
//!     MODEL_DIR=path/to/models cargo test -p kernel --test real_model -- --ignored --nocapture

#[path = "support/memory.rs"]
mod memory;
#[path = "support/threads.rs"]
mod threads;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant;

use kernel::backend::self_test::{Machine, TESTS};
use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, TransformerBackend};
use kernel::llm::workers::SingleThread;

use memory::{Counting, LIVE};
use threads::Threads;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn memory_free() -> u64 {
    (1 << 60) - LIVE.get() as u64
}

fn now_us() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_micros() as u64
}

fn models() -> Vec<PathBuf> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models");
    let folder = std::env::var_os("MODEL_DIR").map_or(committed, PathBuf::from);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut models: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    models.sort();
    assert!(!models.is_empty(), "there is no model in {}", folder.display());
    models
}

/// Runs the test of this name on each model.
fn run(name: &str) {
    let test = TESTS.iter().find(|test| test.name == name).unwrap();
    let machine = Machine { now_us, memory_free, threads: &Threads(3) };
    let mut failed = Vec::new();
    for path in models() {
        let file = std::fs::read(&path).unwrap();
        let options =
            BackendOptions { context: ContextOptions::default(), workers: &SingleThread, now_us };
        let mut backend = TransformerBackend::with_options(options);
        let loaded = backend.load_bytes(ModelBuffer::from(&file[..])).map_err(|e| e.to_string());
        drop(file);
        let outcome = loaded.and_then(|()| test.run(&mut backend, machine));
        let model = path.display();
        match outcome {
            Ok(finding) => println!("{name}, {model}: {:.1} {}", finding.figure, finding.detail),
            Err(error) => failed.push(format!("{model}: {error}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[test]
            #[ignore = "takes long; runs on the models in MODEL_DIR"]
            fn $name() {
                run(stringify!($name));
            }
        )*

        #[test]
        fn none_is_forgotten() {
            let names: Vec<_> = TESTS.iter().map(|test| test.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

tests! {
    test_load_real_model
    test_generate_single_token
    test_generate_multiple_tokens
    test_sampling_strategies
    test_performance_targets
    test_long_generation
    test_concurrent_inference
    test_shared_passes
    test_repeated_inference
    test_kv_cache_speedup
}
