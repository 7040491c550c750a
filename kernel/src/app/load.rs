//! The load of a model: from the disk into memory, checked and repacked.
//!
//! The file is read in large chunks, straight into its final memory. Another core hashes each
//! chunk, and idle cores repack the hashed chunks for the kernels, while the disk delivers the next
//! ones.

#![forbid(unsafe_code)]

mod find;
mod memory;
mod pipeline;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use crate::app::error::Error;
use crate::app::os::{self, File};
use crate::app::output::say;
use crate::app::sha256::Digest;
use crate::app::timeout::TIMEOUT_S;
use crate::backend::{self, LoadError};
use crate::llm::engine::Weights;
use crate::llm::plan::{ContextOptions, Plan};
use crate::llm::workers::Workers;
use crate::report::Checksum;

use find::expected_digest;
use memory::{Header, allocate, judge, plan};
use pipeline::{HASHES, Outcome, Pipeline, Reader, next_chunk};

pub use find::{choose_model, disk_error, read_text};
pub use pipeline::CHUNK;

/// Most bytes read before the header must have ended: a vocabulary of 256k tokens takes some 10 MB.
const LONGEST_HEADER: usize = 4 * CHUNK;

/// A model in memory, and the figures of its load.
pub struct Loaded {
    /// The plan of the model, from its header.
    pub plan: Plan,
    /// The file's bytes, repacked for the kernels if that was wanted.
    pub weights: Weights,
    /// The figures of the load.
    pub figures: Figures,
}

/// The figures of a load.
pub struct Figures {
    /// The file's name.
    pub file: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Result of the checksum.
    pub checksum: Checksum,
    /// SHA-256 of the bytes, if it was computed.
    pub sha256: Option<Digest>,
    /// Time of the load in µs.
    pub load_us: u64,
    /// Time of the reads in µs.
    pub read_us: u64,
    /// Time of the hash in µs.
    pub hash_us: u64,
}

/// Loads the model at a path of the disk.
///
/// With `verify`, the file is checked against its `.sha256` file. With `repack`, the weights are
/// repacked for the kernels on the way, if the header is found in time. The memory for `context` is
/// checked before the file is read. The first worker calls `meanwhile` between two chunks.
///
/// # Errors
/// The memory does not suffice, the disk fails, or the checksum differs. The header shows that the
/// engine cannot run the model; the rest of the file is not read then.
///
/// # Panics
/// One of the `workers` reads or hashes nothing for `timeout_s` seconds while the others wait. The
/// message names the worker.
pub fn load(
    path: &str,
    verify: bool,
    repack: bool,
    context: ContextOptions,
    workers: &dyn Workers,
    timeout_s: u32,
    meanwhile: &(dyn Fn() + Sync),
) -> Result<Loaded, Error> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let expected = if verify { expected_digest(name, path)? } else { None };
    let checksum = match (verify, &expected) {
        (false, _) => Checksum::Skipped,
        (true, None) => Checksum::Missing,
        (true, Some(_)) => Checksum::Verified,
    };
    match checksum {
        Checksum::Skipped => say!("{name} is not checked: verify = false"),
        Checksum::Missing => log::warn!("{name} is not checked: there is no {name}.sha256"),
        Checksum::Verified => {}
    }

    let start_us = os::now_us();
    let failed = |errno| disk_error(path, errno);
    let file = File::open(path).map_err(failed)?;
    let size = file.size().map_err(failed)?;
    let mut bytes = allocate(&file, size, context)?;
    let before_us = os::now_us();
    let mut done = 0;
    let mut header = Header::CutShort;
    while matches!(header, Header::CutShort) && done < bytes.len().min(LONGEST_HEADER) {
        let end = next_chunk(done, bytes.len());
        file.read_full(&mut bytes.as_mut_slice()[done..end]).map_err(failed)?;
        done = end;
        header = judge(&bytes[..done], size, context)?;
    }
    let head_us = os::now_us() - before_us;

    let mut outcome = Outcome { read: Ok(()), read_us: head_us, sha256: None, hash_us: 0 };
    let repack = match &header {
        Header::Sound(plan) if repack => Some(plan.repack(0)),
        _ => None,
    };
    let hashes = HASHES.min(workers.count() - 1);
    let reader = Reader { file: &file, rest: bytes.as_mut_slice(), present: done };
    let hashes = verify.then_some(hashes);
    let mut pipeline =
        Pipeline::new((name, size), reader, hashes, repack.as_ref(), timeout_s, &mut outcome);
    pipeline.meanwhile = meanwhile;
    workers.run(&|worker| pipeline.run(worker));
    drop(pipeline);
    let Outcome { read, read_us, sha256, hash_us } = outcome;
    read.map_err(failed)?;
    let load_us = os::now_us() - start_us;

    if let (Some(expected), Some(actual)) = (expected, sha256)
        && expected != actual
    {
        return Err(Error::ChecksumMismatch { expected, actual });
    }
    let plan = match header {
        Header::Sound(plan) => *plan,
        // The whole file is in memory: a fault in the header is not the disk's.
        Header::CutShort | Header::Malformed => plan(&bytes, size, context)?,
    };
    let weights = match repack {
        Some(repack) => repack.finish(bytes).into(),
        None => bytes.into(),
    };
    let (file, bytes) = (name.to_owned(), size);
    let figures = Figures { file, bytes, checksum, sha256, load_us, read_us, hash_us };
    Ok(Loaded { plan, weights, figures })
}

/// Loads a model for [`crate::backend::TransformerBackend::load_model`]: checked and repacked.
///
/// `path` is a path of the model disk, with or without a slash at its start.
///
/// # Errors
/// As [`load`].
pub fn for_backend(
    path: &str,
    context: ContextOptions,
    workers: &'static dyn Workers,
) -> Result<backend::Loaded, LoadError> {
    let absolute = format!("/{}", path.trim_start_matches('/'));
    match load(&absolute, true, true, context, workers, TIMEOUT_S, &|| {}) {
        Ok(Loaded { plan, weights, .. }) => Ok(backend::Loaded { plan, weights }),
        Err(Error::Engine(error)) => Err(LoadError::Engine(error)),
        Err(error) => Err(LoadError::File { path: path.to_owned(), why: error.fault().message }),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;
    use std::vec::Vec;

    use spin::Mutex;

    use super::pipeline::READS;
    use super::*;
    use crate::app::fake_abi::run_in_world;

    /// Threads of which one never does its part. What each of the others panics with is kept.
    struct Stalled {
        threads: usize,
        stalled: usize,
        panics: Mutex<Vec<String>>,
    }

    impl Workers for Stalled {
        fn count(&self) -> usize {
            self.threads
        }

        fn run(&self, job: &(dyn Fn(usize) + Sync)) {
            thread::scope(|scope| {
                for worker in (0..self.threads).filter(|&worker| worker != self.stalled) {
                    scope.spawn(move || {
                        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(worker))) {
                            let message = payload.downcast_ref::<String>().cloned();
                            self.panics.lock().push(message.unwrap_or_default());
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn a_thread_that_does_not_answer_is_named_by_all_others() {
        let model = include_bytes!("../../../test_models/tiny.gguf");
        for (verify, stalled, expected) in [
            (true, READS, "thread 0 has read nothing of the model for 1 s"),
            (true, HASHES, "thread 1 has hashed nothing of the model for 1 s"),
            (false, READS, "thread 0 has read nothing of the model for 1 s"),
        ] {
            let workers = Stalled { threads: 3, stalled, panics: Mutex::new(Vec::new()) };
            run_in_world(
                |world| {
                    world.files.insert("/models/tiny.gguf", model.to_vec());
                },
                || {
                    drop(load(
                        "/models/tiny.gguf",
                        verify,
                        true,
                        ContextOptions::default(),
                        &workers,
                        1,
                        &|| {},
                    ))
                },
            );
            assert_eq!(*workers.panics.lock(), [expected; 2], "{verify}");
        }
    }
}
