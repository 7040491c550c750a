//! The configured model: its load, and the report of it.

#![forbid(unsafe_code)]

use alloc::borrow::ToOwned;
use alloc::format;

use crate::app::error::Error;
use crate::app::load::{self, Figures, Loaded, Meanwhile, at_once};
use crate::app::os;
use crate::app::output::{emit, say};
use crate::app::timeout::TIMEOUT_S;
use crate::backend::TransformerBackend;
use crate::llm::workers::Workers;
use crate::llm::workspace::Workspace;
use crate::report::{self, Event};
use crate::settings::Config;

/// Whether the log shows the weights.
pub fn is_verbose(config: &Config) -> bool {
    config.log >= log::LevelFilter::Debug
}

/// Loads the model at a path of the disk.
///
/// # Errors
/// Those of [`load::load`].
pub fn load_model(
    path: &str,
    config: &Config,
    pool: &dyn Workers,
    meanwhile: Meanwhile<'_>,
) -> Result<Loaded, Error> {
    // The log shows the weights in the file's order, so the load does not repack.
    let repack = !is_verbose(config);
    let options = config.context_options();
    load::load(path, config.verify, repack, options, pool, TIMEOUT_S, meanwhile)
}

/// Loads the model at a path of the disk into a backend, and reports the model.
///
/// A model that the backend has is given up first.
///
/// # Errors
/// Those of [`load::load`]. The backend has no model then.
pub fn load_into(
    backend: &mut TransformerBackend,
    path: &str,
    config: &Config,
    pool: &dyn Workers,
) -> Result<(), Error> {
    backend.unload();
    let loaded = load_model(path, config, pool, Meanwhile::nothing(&mut at_once))?;
    backend.load(loaded.plan, loaded.weights)?;
    if let Some(workspace) = backend.workspace() {
        report_model(&loaded.figures, workspace);
    }
    Ok(())
}

/// Reports a model that was unloaded.
pub fn report_unload(file: &str) {
    let memory_in_use_bytes = os::memory_in_use();
    say!("{file} is unloaded: {:.1} MB of memory are in use", memory_in_use_bytes as f64 / 1e6);
    emit(&Event::Unload(report::Unload { file: file.to_owned(), memory_in_use_bytes }));
}

/// Reports a model that was loaded.
pub fn report_model(loaded: &Figures, workspace: &Workspace) {
    let load_mb_per_s = loaded.bytes as f64 / loaded.load_us.max(1) as f64;
    let (model, state) = (workspace.engine().metadata(), workspace.state_shape());
    say!(
        "{}: {} {}, {:.1} M parameters, {:.1} MB in {:.3} s ({load_mb_per_s:.0} MB/s)",
        loaded.file,
        model.architecture,
        model.quantization,
        model.parameters as f64 / 1e6,
        loaded.bytes as f64 / 1e6,
        loaded.load_us as f64 / 1e6,
    );
    emit(&Event::Model(report::Model {
        name: if model.name.is_empty() { loaded.file.clone() } else { model.name.clone() },
        file: loaded.file.clone(),
        architecture: model.architecture.clone(),
        quantization: model.quantization.clone(),
        parameters: model.parameters,
        n_layer: model.n_layer,
        n_embd: model.n_embd,
        n_head: model.n_head,
        n_head_kv: model.n_head_kv,
        n_ff: model.n_ff,
        n_vocab: model.n_vocab,
        n_ctx: state.n_ctx,
        bytes: loaded.bytes,
        sha256: loaded.sha256.map(|digest| format!("{digest}")),
        checksum: loaded.checksum,
        load_us: loaded.load_us,
        read_us: loaded.read_us,
        hash_us: loaded.hash_us,
        load_mb_per_s,
        kv_cache_bytes: state.bytes().unwrap_or(0) as u64,
    }));
}
