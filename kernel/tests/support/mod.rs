//! Helpers of the tests against llama.cpp.

use std::path::Path;

use sha2::{Digest, Sha256};

/// A file of `test_models`.
pub fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A model of `test_models`, checked to be the model of its goldens.
pub fn read_model(name: &str, sha256: &str) -> Vec<u8> {
    let model = read(name);
    assert_eq!(hex(&Sha256::digest(&model)), sha256, "{name}: goldens of another model");
    model
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
