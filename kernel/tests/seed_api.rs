//! The front of the engine in the words of its first description.

use kernel::backend::{SamplingConfig, TransformerBackend};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

/// Paths are relative to the repository's root, where a user is.
fn in_the_root() {
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
}

#[test]
fn a_model_answers_in_a_few_calls() -> Result {
    in_the_root();
    let mut backend = TransformerBackend::new();
    assert!(!backend.is_loaded());
    backend.load_model("test_models/tiny.gguf")?;
    assert!(backend.is_loaded());
    assert_eq!(backend.model_metadata().unwrap().n_layer, 6);
    backend.set_sampling_config(SamplingConfig::greedy());
    backend.set_verbose(true);
    let result = backend.infer("The capital of France is", 10)?;
    // The model may end its text before.
    assert!((1..=10).contains(&result.tokens_emitted), "{}", result.tokens_emitted);
    assert!(result.latency_us > 0);
    assert!(result.output.starts_with(' '), "{:?}", result.output);

    // The end of a story is open; the strategies differ there.
    let greedy = backend.infer("Once upon a time", 40)?.output;
    backend.set_sampling_config(SamplingConfig::creative());
    let creative = backend.infer("Once upon a time", 40)?.output;
    assert!(!greedy.is_empty() && !creative.is_empty());
    assert_ne!(creative, greedy);
    Ok(())
}

#[test]
fn a_file_that_is_no_model_is_named() {
    in_the_root();
    let mut backend = TransformerBackend::new();
    let error = |result: std::result::Result<(), _>| -> String {
        let error: kernel::backend::LoadError = result.unwrap_err();
        error.to_string()
    };
    let missing = error(backend.load_model("test_models/none.gguf"));
    assert!(missing.starts_with("cannot load test_models/none.gguf: "), "{missing}");
    let other = error(backend.load_model("Cargo.toml"));
    assert!(other.contains("GGUF"), "{other}");
    assert!(!backend.is_loaded());
}
