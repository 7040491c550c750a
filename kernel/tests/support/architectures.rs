//! The small models of all architectures.

use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// The models of `test_models/architectures` that `wanted` wants, by their names.
pub fn models(wanted: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models/architectures");
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let models = files.filter_map(|path| {
        let name: String = path.file_stem()?.to_str()?.into();
        let is_model = path.extension()? == "gguf" && wanted(&name);
        is_model.then(|| (name, std::fs::read(&path).unwrap()))
    });
    models.collect()
}
