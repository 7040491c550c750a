//! The way of the model from the disk into memory.
//!
//! The file is read in large pieces straight to its place. Other cores hash each piece, and then
//! repack it for the kernels, while the disk delivers the next ones.

#![forbid(unsafe_code)]

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use hermit_abi::{EFBIG, ENODEV, ENOENT};
use spin::Mutex;

use crate::app::config::NotText;
use crate::app::error::Error;
use crate::app::os::{self, Errno, File};
use crate::app::output::{Progress, say};
use crate::app::patience::{PATIENCE_S, Patience};
use crate::app::sha256::{Digest, Sha256};
use crate::backend::{self, LoadError};
use crate::llm;
use crate::llm::arena::ModelBuffer;
use crate::llm::engine::Weights;
use crate::llm::gguf;
use crate::llm::model::Repack;
use crate::llm::plan::{ContextOptions, Plan};
use crate::llm::workers::Workers;
use crate::model_files::{LONGEST_SUM_FILE, SUM_ENDING, SumError, digest_of, is_model};
use crate::report::Checksum;

/// Bytes of one read. Large, so that the disk's queue stays full for nearly all of the time;
/// small against a model, so that the hash follows closely.
pub const PIECE: usize = 8 << 20;
/// Bytes of the first read; each one after it is about twice as large, up to [`PIECE`]. So the hash
/// of a small model, too, starts long before the model is read.
const FIRST_PIECE: usize = 512 << 10;
/// Bytes that are hashed between two looks at the progress bar.
const PART: usize = 512 << 10;
/// Most bytes read before the header must have ended: a vocabulary of 256k tokens takes some 10 MB.
const LONGEST_HEADER: usize = 4 * PIECE;
/// Bytes read to find the header of a model that does not fit.
const HEADER: usize = 1 << 20;

/// The thread that reads, and the one that hashes if there are as many.
const READS: usize = 0;
const HASHES: usize = 1;

/// A model in memory, and how it got there.
pub struct Loaded {
    /// What its header says.
    pub plan: Plan,
    /// The file's bytes, repacked for the kernels if that was wanted.
    pub weights: Weights,
    /// The file's name.
    pub file: String,
    /// What became of the checksum.
    pub checksum: Checksum,
    /// SHA-256 of the bytes, if it was computed.
    pub sha256: Option<Digest>,
    /// Times in µs: in all, in reads, in the hash.
    pub load_us: u64,
    /// Time that the reads took.
    pub read_us: u64,
    /// Time that the hash took.
    pub hash_us: u64,
}

/// The error for a file that could not be read.
pub fn disk_error(path: &str, errno: Errno) -> Error {
    Error::Disk { path: path.to_owned(), errno, detail: os::disk_error() }
}

/// Reads a small file as text; `None` if it is not there.
///
/// # Errors
/// The disk fails, or the file is larger than `limit` bytes or no UTF-8.
pub fn read_text(path: &str, limit: usize) -> Result<Option<String>, Error> {
    let Some(bytes) = read_file(path, limit)? else { return Ok(None) };
    let bytes = bytes
        .map_err(|TooLarge| Error::Unreadable { path: path.to_owned(), why: "is too large" })?;
    match NotText::check(&bytes) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(at) => Err(Error::NotText { path: path.to_owned(), at }),
    }
}

/// A file has more bytes than it may.
struct TooLarge;

/// Reads a small file; `None` if it is not there.
///
/// # Errors
/// The disk fails.
fn read_file(path: &str, limit: usize) -> Result<Option<Result<Vec<u8>, TooLarge>>, Error> {
    match File::open(path).and_then(|file| file.read_all(limit)) {
        Ok(bytes) => Ok(Some(Ok(bytes))),
        Err(Errno(EFBIG)) => Ok(Some(Err(TooLarge))),
        Err(Errno(ENOENT | ENODEV)) => Ok(None),
        Err(errno) => Err(disk_error(path, errno)),
    }
}

/// The path of the model to load: the one wanted, or the only one.
///
/// `wanted` is the name of its file.
/// Hidden files do not count, such as those that macOS puts beside others, and nor do files that are
/// no GGUF where there is another one that is.
///
/// # Errors
/// There is none, or none of that name, or there are several and none is wanted.
pub fn choose_model(wanted: Option<&str>) -> Result<String, Error> {
    let mut present = match File::open("/models").and_then(|directory| directory.entries()) {
        Ok(names) => names,
        Err(Errno(ENOENT)) => Vec::new(),
        Err(Errno(ENODEV)) => return Err(Error::NoModel { disk: os::disk_failure() }),
        Err(errno) => return Err(disk_error("/models", errno)),
    };
    // A name with control characters could pose as an event wherever it is shown.
    present.retain(|name| !name.contains(char::is_control));
    if let Some(name) = wanted
        && present.iter().any(|other| other == name)
    {
        return Ok(path_of(name));
    }
    present.retain(|name| is_model(name));
    present.sort();
    if present.is_empty() {
        return Err(Error::NoModel { disk: None });
    }
    if let Some(name) = wanted {
        return Err(Error::ModelNotFound { wanted: name.to_owned(), present });
    }
    if let [only] = &present[..] {
        return Ok(path_of(only));
    }
    let mut models = Vec::new();
    for name in &present {
        if starts_as_gguf(name)? {
            models.push(name);
        } else {
            log::warn!("{name} does not count: it is no GGUF file");
        }
    }
    match &models[..] {
        [only] => Ok(path_of(only)),
        [] => Err(Error::SeveralModels(present)),
        _ => Err(Error::SeveralModels(models.into_iter().cloned().collect())),
    }
}

/// The path of the model's file of this name.
fn path_of(name: &str) -> String {
    format!("/models/{name}")
}

/// Whether the file `name` in `models/` starts as a model does.
fn starts_as_gguf(name: &str) -> Result<bool, Error> {
    let path = path_of(name);
    let failed = |errno| disk_error(&path, errno);
    let file = File::open(&path).map_err(failed)?;
    let mut start = [0; gguf::MAGIC.len()];
    if file.size().map_err(failed)? < start.len() as u64 {
        return Ok(false);
    }
    file.read_full(&mut start).map_err(failed)?;
    Ok(start == gguf::MAGIC)
}

/// Loads the model at a path of the disk.
///
/// It is checked against its `.sha256` file if `verify` says so. `context` is the one that it will
/// have: a memory that does not suffice for it is found out early. Its weights are repacked for the
/// kernels on the way if `repack` says so and its header is found in time.
///
/// Where one of the `workers` does not read or hash anything for `patience_s` seconds while the others
/// wait for it, the run ends with a panic that names it.
///
/// # Errors
/// The memory does not suffice, the disk fails, or the checksum is another. The header shows that the
/// engine cannot run the model; the rest of the file is not read then.
pub fn load(
    path: &str,
    verify: bool,
    repack: bool,
    context: ContextOptions,
    workers: &dyn Workers,
    patience_s: u32,
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
        let end = next_piece(done, bytes.len());
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
    let job = Job {
        name,
        size,
        reader: Mutex::new(Some(Reader { file: &file, rest: bytes.as_mut_slice(), present: done })),
        read: Queue::default(),
        hashed: Queue::default(),
        patience_s,
        hashes: verify.then_some(hashes),
        repack: repack.as_ref(),
        outcome: Mutex::new(&mut outcome),
    };
    workers.run(&|worker| job.take_part(worker));
    drop(job);
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
        // The whole file is here, and what is wrong with it is not the disk's fault.
        Header::CutShort | Header::Malformed => plan(&bytes, size, context)?,
    };
    let weights = match repack {
        Some(repack) => repack.finish(bytes).into(),
        None => bytes.into(),
    };
    let file = name.to_owned();
    Ok(Loaded { plan, weights, file, checksum, sha256, load_us, read_us, hash_us })
}

/// Loads a model for [`crate::backend::TransformerBackend::load_model`]: checked, and repacked on the
/// way. The path is one of the model disk; a slash before it makes no difference.
///
/// # Errors
/// As [`load`].
pub fn for_backend(
    path: &str,
    context: ContextOptions,
    workers: &'static dyn Workers,
) -> Result<backend::Loaded, LoadError> {
    let absolute = format!("/{}", path.trim_start_matches('/'));
    match load(&absolute, true, true, context, workers, PATIENCE_S) {
        Ok(Loaded { plan, weights, .. }) => Ok(backend::Loaded { plan, weights }),
        Err(Error::Engine(error)) => Err(LoadError::Engine(error)),
        Err(error) => Err(LoadError::File { path: path.to_owned(), why: error.fault().message }),
    }
}

/// Where the piece ends that starts at byte `done` of a file of `length` bytes.
fn next_piece(done: usize, length: usize) -> usize {
    length.min(done + (done + FIRST_PIECE).min(PIECE))
}

/// What the start of a model's file shows.
enum Header {
    /// It does not hold the whole header.
    CutShort,
    /// The header is malformed. The checksum tells better what is wrong with the file, and the
    /// engine reads the header again.
    Malformed,
    /// The engine can run the model.
    Sound(Box<Plan>),
}

/// Reads the header in the start of a model's file.
///
/// # Errors
/// The engine cannot run the model, or the memory does not suffice for what it needs besides its
/// file, for which there is memory already.
fn judge(prefix: &[u8], size: u64, context: ContextOptions) -> Result<Header, Error> {
    match plan(prefix, size, context) {
        Ok(plan) => Ok(Header::Sound(Box::new(plan))),
        Err(Error::Engine(llm::Error::HeaderCutShort { .. })) => Ok(Header::CutShort),
        Err(Error::Engine(llm::Error::ParseError { .. })) => Ok(Header::Malformed),
        Err(error) => Err(error),
    }
}

/// The plan of a model, if the memory suffices for what it needs besides its file.
fn plan(prefix: &[u8], size: u64, context: ContextOptions) -> Result<Plan, Error> {
    // Before the plan takes its tables, which are among what is needed.
    let free = os::memory_available();
    let plan = Plan::read(prefix, size)?;
    let needed = plan.needed(context)?.total();
    if free >= needed as u64 {
        return Ok(plan);
    }
    let instead = plan.settings_that_fit(context, free);
    Err(no_room(size, needed, free + size, instead))
}

/// The digest in the `.sha256` file beside the model `name` at `path`, if there is one.
fn expected_digest(name: &str, path: &str) -> Result<Option<Digest>, Error> {
    let path = format!("{path}{SUM_ENDING}");
    let digest = match read_file(&path, LONGEST_SUM_FILE)? {
        None => return Ok(None),
        Some(Ok(text)) => digest_of(name, &text),
        Some(Err(TooLarge)) => Err(SumError::TooLong),
    };
    match digest {
        Ok(digest) => Ok(Some(Digest(digest))),
        Err(why) => Err(Error::BadChecksumFile { path, why }),
    }
}

/// Memory for a file of `size` bytes.
fn allocate(file: &File, size: u64, context: ContextOptions) -> Result<ModelBuffer, Error> {
    let too_large = || {
        // The header tells what the model needs besides its file. It is small in most models; where
        // it is not, the size of the file alone has to do.
        let header = ModelBuffer::try_new(bytes_of(size).min(HEADER)).and_then(|mut header| {
            let n = file.read_full(header.as_mut_slice()).unwrap_or(0);
            Plan::read(&header[..n], size)?.needed(context)
        });
        match header {
            // More memory would not help.
            Err(error @ (llm::Error::Unsupported { .. } | llm::Error::InvalidConfig { .. })) => {
                Error::Engine(error)
            }
            needed => {
                let besides = needed.map_or(0, |needed| needed.total());
                let free = os::memory_available();
                // No setting makes the file smaller.
                let instead = String::new();
                if free >= size.saturating_add(besides as u64) {
                    // There is enough, but what the firmware left in the middle parts it.
                    let (what, free) = ("the model's file, in one piece,", largest_piece(size));
                    return Error::OutOfMemory { what, needed: size, free, instead };
                }
                no_room(size, besides, free, instead)
            }
        }
    };
    ModelBuffer::try_new_in(os::PAGES, bytes_of(size)).map_err(|_| too_large())
}

/// Bytes of the largest piece of memory that a model's file can have, less than `size` bytes; somewhat fewer.
fn largest_piece(size: u64) -> u64 {
    let (mut fits, mut too_large) = (0, size);
    while too_large - fits > 4096 {
        let middle = fits + (too_large - fits) / 2;
        *(if os::PAGES.has(bytes_of(middle)) { &mut fits } else { &mut too_large }) = middle;
    }
    fits
}

/// A size in memory; what does not fit an address fits no memory either.
fn bytes_of(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn no_room(size: u64, besides: usize, free: u64, instead: String) -> Error {
    let needed = size.saturating_add(besides as u64);
    Error::OutOfMemory { what: "the model with its cache and tables", needed, free, instead }
}

/// One load, shared between the core that reads, the one that hashes, and those that repack.
struct Job<'a> {
    name: &'a str,
    size: u64,
    /// Taken by the core that reads.
    reader: Mutex<Option<Reader<'a>>>,
    /// Pieces that are to be hashed.
    read: Queue<'a>,
    /// Pieces that are to be repacked.
    hashed: Queue<'a>,
    /// How many seconds one waits for the other.
    patience_s: u32,
    /// Who hashes the pieces, if anybody does.
    hashes: Option<usize>,
    /// How they are repacked, if they are.
    repack: Option<&'a Repack>,
    outcome: Mutex<&'a mut Outcome>,
}

struct Outcome {
    read: Result<(), Errno>,
    read_us: u64,
    sha256: Option<Digest>,
    hash_us: u64,
}

/// A file that is being read.
struct Reader<'a> {
    file: &'a File,
    /// The place for all its bytes.
    rest: &'a mut [u8],
    /// How many of them are there already.
    present: usize,
}

/// A piece of the file, and at which byte of it it starts.
type Piece<'a> = (usize, &'a mut [u8]);

/// Pieces of the file on their way from one core to others.
#[derive(Default)]
struct Queue<'a> {
    pieces: Mutex<Pieces<'a>>,
    /// Counts what was put in, for those to sleep on who wait for it.
    news: AtomicU32,
}

#[derive(Default)]
struct Pieces<'a> {
    /// `None` ends them.
    waiting: VecDeque<Option<Piece<'a>>>,
    /// How many ever came.
    come: usize,
    /// How many of them are gone.
    gone: usize,
}

impl<'a> Queue<'a> {
    fn push(&self, piece: Option<Piece<'a>>) {
        let mut pieces = self.pieces.lock();
        pieces.come += usize::from(piece.is_some());
        pieces.waiting.push_back(piece);
        drop(pieces);
        self.news.fetch_add(1, Ordering::Release);
        os::futex_wake_all(&self.news);
    }

    /// The next piece, when there is one; `None` when there will be no more.
    ///
    /// # Panics
    /// There is neither for `patience_s` seconds; `late` says who should have done what.
    fn pop(&self, patience_s: u32, late: impl Fn() -> (usize, &'static str)) -> Option<Piece<'a>> {
        let mut patience = Patience::new(Some(patience_s));
        loop {
            let news = self.news.load(Ordering::Acquire);
            let mut pieces = self.pieces.lock();
            match pieces.waiting.front() {
                // It stays, for the others.
                Some(None) => return None,
                Some(Some(_)) => {
                    pieces.gone += 1;
                    return pieces.waiting.pop_front().flatten();
                }
                None => {}
            }
            drop(pieces);
            if patience.is_over() {
                let (thread, done) = late();
                panic!("thread {thread} has {done} nothing of the model for {patience_s} s");
            }
            patience.sleep(&self.news, news);
        }
    }
}

impl<'a> Job<'a> {
    /// What this worker does: some read and hash, and whoever has nothing else left to do repacks.
    /// All stay until everything is hashed, so that none waits long for the others at the end.
    fn take_part(&self, worker: usize) {
        if worker == READS {
            self.read();
        }
        if self.hashes == Some(worker) {
            self.hash();
        }
        while let Some((start, piece)) = self.next_of(&self.hashed) {
            if let Some(repack) = self.repack {
                repack.chunk(start, piece);
            }
        }
    }

    /// The next piece that comes through one of the queues.
    ///
    /// # Panics
    /// None comes in time.
    fn next_of(&self, queue: &Queue<'a>) -> Option<Piece<'a>> {
        queue.pop(self.patience_s, || self.late())
    }

    /// The thread that has not done what the others wait for, and what that is.
    fn late(&self) -> (usize, &'static str) {
        if let Some(hashes) = self.hashes {
            let read = self.read.pieces.lock();
            // A piece, or the end of them, waits for it or is with it.
            if !read.waiting.is_empty() || read.gone > self.hashed.pieces.lock().come {
                return (hashes, "hashed");
            }
        }
        (READS, "read")
    }

    /// Reads all of the file that is not read yet.
    fn read(&self) {
        let Some(Reader { file, mut rest, mut present }) = self.reader.lock().take() else {
            return;
        };
        let next = if self.hashes.is_some() { &self.read } else { &self.hashed };
        let mut progress = self.hashes.is_none().then(|| Progress::new(self.name, self.size));
        let mut start = 0;
        let mut result = Ok(());
        let start_us = os::now_us();
        while !rest.is_empty() {
            let whole = start + rest.len();
            // What is there already goes ahead, but not a small rest of it alone.
            let ahead = present >= FIRST_PIECE;
            let end = if ahead { start + present } else { next_piece(start, whole) };
            let end = self.repack.map_or(end, |repack| repack.cut(start, end));
            let (piece, after) = rest.split_at_mut(end - start);
            rest = after;
            let here = present.min(piece.len());
            result = file.read_full(&mut piece[here..]).map(drop);
            if result.is_err() {
                break;
            }
            present -= here;
            next.push(Some((start, piece)));
            start = end;
            if let Some(progress) = &mut progress {
                progress.update(start as u64);
            }
        }
        next.push(None);
        let mut outcome = self.outcome.lock();
        outcome.read = result;
        outcome.read_us += os::now_us() - start_us;
    }

    /// Hashes what is read.
    fn hash(&self) {
        let mut progress = Progress::new(self.name, self.size);
        let mut hash = Sha256::new();
        let (mut done, mut us) = (0, 0);
        while let Some((start, piece)) = self.next_of(&self.read) {
            // In parts, so that the bar moves where the hash is slow.
            for part in piece.chunks(PART) {
                let before_us = os::now_us();
                hash.update(part);
                us += os::now_us() - before_us;
                done += part.len() as u64;
                progress.update(done);
            }
            self.hashed.push(Some((start, piece)));
        }
        self.hashed.push(None);
        let mut outcome = self.outcome.lock();
        outcome.sha256 = Some(hash.finish());
        outcome.hash_us = us;
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

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
                    ))
                },
            );
            assert_eq!(*workers.panics.lock(), [expected; 2], "{verify}");
        }
    }
}
