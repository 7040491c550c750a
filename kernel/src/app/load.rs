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
use core::ops::ControlFlow;

use crate::app::error::Error;
use crate::app::os;
use crate::app::output::say;
use crate::app::sha256::Digest;
use crate::app::timeout::TIMEOUT_S;
use crate::backend::{self, LoadError};
use crate::llm::engine::Weights;
use crate::llm::plan::{ContextOptions, Plan};
use crate::llm::workers::Workers;
use crate::report::Checksum;

use find::{expected_digest, open_model};
use memory::{Header, allocate, judge, plan};
use pipeline::{HASHES, Outcome, Pipeline, Reader, next_chunk};

pub use find::{ModelFile, choose_model, disk_error, list_models, read_text};
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

/// What the calling thread does while a model is loaded.
pub struct Meanwhile<'a> {
    /// Called between two chunks, in the middle of a job of the workers, which it must not use.
    ///
    /// Returns whether `between` has something to do.
    pub look: &'a (dyn Fn() -> bool + Sync),
    /// Called between two steps of the load, such as two slices. It may use the workers.
    ///
    /// Returns the length of the next slice in µs, `None` for one without an end. Gives the load up
    /// by `Break`.
    pub between: &'a mut dyn FnMut() -> ControlFlow<(), Option<u64>>,
}

impl<'a> Meanwhile<'a> {
    /// What `look` does, and nothing between slices.
    pub fn nothing(between: &'a mut dyn FnMut() -> ControlFlow<(), Option<u64>>) -> Self {
        Meanwhile { look: &|| false, between }
    }

    /// Does what is to be done between two slices.
    fn go_on(&mut self) -> Result<Option<u64>, Error> {
        match (self.between)() {
            ControlFlow::Continue(length_us) => Ok(length_us),
            ControlFlow::Break(()) => Err(Error::LoadGivenUp),
        }
    }
}

/// Goes on with a load at once: nothing else is to be done.
pub fn at_once() -> ControlFlow<(), Option<u64>> {
    ControlFlow::Continue(None)
}

/// Loads the model at a path of the disk.
///
/// With `verify`, the file is checked against its `.sha256` file. With `repack`, the weights are
/// repacked for the kernels on the way, if the header is found in time. The memory for `context` is
/// checked before the file is read.
///
/// # Errors
/// The memory does not suffice, the disk fails, or the checksum differs. The header shows that the
/// engine cannot run the model; the rest of the file is not read then. [`Error::LoadGivenUp`] if
/// `meanwhile` says so.
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
    mut meanwhile: Meanwhile<'_>,
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
    let file = open_model(path)?;
    let size = file.size().map_err(failed)?;
    let mut bytes = allocate(&file, size, context)?;
    let mut head_us = 0;
    let mut done = 0;
    let mut header = Header::CutShort;
    while matches!(header, Header::CutShort) && done < bytes.len().min(LONGEST_HEADER) {
        meanwhile.go_on()?;
        let before_us = os::now_us();
        let end = next_chunk(done, bytes.len());
        file.read_full(&mut bytes.as_mut_slice()[done..end]).map_err(failed)?;
        done = end;
        header = judge(&bytes[..done], size, context)?;
        head_us += os::now_us() - before_us;
    }

    let repack = match &header {
        Header::Sound(plan) if repack => Some(plan.repack(0)),
        _ => None,
    };
    let hashes = HASHES.min(workers.count() - 1);
    let reader = Reader::new(&file, bytes.as_mut_slice(), done);
    let hashes = verify.then_some(hashes);
    let pipeline =
        Pipeline::new((name, size), reader, hashes, repack.as_ref(), timeout_s, meanwhile.look);
    while !pipeline.slice(workers, meanwhile.go_on()?) {}
    let Outcome { read, read_us, sha256, hash_us } = pipeline.finish();
    read.map_err(failed)?;
    let read_us = head_us + read_us;
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
    let loaded =
        load(&absolute, true, true, context, workers, TIMEOUT_S, Meanwhile::nothing(&mut at_once));
    match loaded {
        Ok(Loaded { plan, weights, .. }) => Ok(backend::Loaded { plan, weights }),
        Err(Error::Engine(error)) => Err(LoadError::Engine(error)),
        Err(error) => Err(LoadError::File { path: path.to_owned(), why: error.fault().message }),
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;
    use std::vec::Vec;

    use spin::Mutex;

    use super::pipeline::READS;
    use super::*;
    use crate::app::fake_abi::{in_world, run_in_world};
    use crate::app::sha256::Sha256;
    use crate::llm::arena::ModelBuffer;
    use crate::llm::workers::SingleThread;
    use crate::llm::workers::threads::Threads;

    /// Reads of the header of `tiny.gguf`. The load does what is to be done before each.
    const N_HEADER: usize = 1;

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
    fn a_load_in_slices_gives_what_a_load_at_once_gives() {
        let model = include_bytes!("../../../test_models/tiny.gguf");
        let whole = ModelBuffer::from(&model[..]);
        let plan = Plan::read(&whole, whole.len() as u64).unwrap();
        let repacked = plan.repack(0).all(whole, &SingleThread);
        for (threads, length_us, least) in [
            (1, Some(0), 40),
            (2, Some(0), 20),
            (3, Some(0), 20),
            (3, Some(2_000), 2),
            (3, None, 1),
        ] {
            let mut n_slices = 0;
            let mut between = || {
                n_slices += 1;
                ControlFlow::Continue(length_us)
            };
            run_in_world(
                |world| {
                    world.files.insert("/models/tiny.gguf", model.to_vec());
                },
                || {
                    let meanwhile = Meanwhile::nothing(&mut between);
                    let (path, context) = ("/models/tiny.gguf", ContextOptions::default());
                    let workers = Threads(threads);
                    let loaded = load(path, true, true, context, &workers, 30, meanwhile).unwrap();
                    let mut hash = Sha256::new();
                    hash.update(model);
                    assert_eq!(loaded.figures.sha256, Some(hash.finish()), "{threads} threads");
                    assert!(*loaded.weights == *repacked, "{threads} threads, {length_us:?}");
                },
            );
            let n_slices = n_slices - N_HEADER;
            assert!(n_slices >= least, "{threads}, {length_us:?}: {n_slices} slices");
            assert!(length_us.is_some() || n_slices == 1);
        }
    }

    #[test]
    fn a_slice_ends_when_the_calling_thread_has_something_else_to_do() {
        let model = include_bytes!("../../../test_models/tiny.gguf");
        for threads in [1, 3] {
            let caller = thread::current().id();
            let n_looks = AtomicU32::new(0);
            let look = || {
                assert_eq!(thread::current().id(), caller);
                n_looks.fetch_add(1, Ordering::Relaxed) == 1
            };
            let mut slices = 0..N_HEADER + 2;
            let mut between = || match slices.next() {
                Some(_) => ControlFlow::Continue(None),
                None => ControlFlow::Break(()),
            };
            let (result, _) = run_in_world(
                |world| {
                    world.files.insert("/models/tiny.gguf", model.to_vec());
                },
                || {
                    let meanwhile = Meanwhile { look: &look, between: &mut between };
                    let (path, context) = ("/models/tiny.gguf", ContextOptions::default());
                    let workers = Threads(threads);
                    load(path, true, true, context, &workers, 30, meanwhile).map(drop)
                },
            );
            // The first slice was cut short, the second one did the rest.
            assert!(result.is_ok(), "{result:?}");
            assert_eq!(slices.len(), 0, "{threads}");
            assert!(n_looks.into_inner() > 1);
        }
    }

    #[test]
    fn a_load_can_be_given_up_and_leaves_nothing() {
        let model = include_bytes!("../../../test_models/tiny.gguf");
        let mut slices = 0..N_HEADER + 3;
        let mut between = || match slices.next() {
            Some(_) => ControlFlow::Continue(Some(0)),
            None => ControlFlow::Break(()),
        };
        let ((result, mapped), _) = run_in_world(
            |world| {
                world.files.insert("/models/tiny.gguf", model.to_vec());
            },
            || {
                let meanwhile = Meanwhile::nothing(&mut between);
                let (path, context) = ("/models/tiny.gguf", ContextOptions::default());
                let result = load(path, true, true, context, &Threads(2), 30, meanwhile);
                (result.map(drop), in_world(|world| world.mapped))
            },
        );
        assert!(matches!(result, Err(Error::LoadGivenUp)), "{result:?}");
        assert_eq!(mapped, 0);
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
            // The threads panic in the first slice.
            let mut slices = 0..N_HEADER + 1;
            let mut between = || match slices.next() {
                Some(_) => ControlFlow::Continue(None),
                None => ControlFlow::Break(()),
            };
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
                        Meanwhile::nothing(&mut between),
                    ))
                },
            );
            assert_eq!(*workers.panics.lock(), [expected; 2], "{verify}");
        }
    }
}
