//! The way of the model from the disk into memory: read in large pieces straight to its place,
//! hashed on another core while the disk delivers the next piece.

#![forbid(unsafe_code)]

use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use hermit_abi::{EFBIG, ENODEV, ENOENT};
use spin::Mutex;

use crate::app::error::Error;
use crate::app::os::{self, Errno, File};
use crate::app::output::{Progress, say};
use crate::app::sha256::{Digest, Sha256};
use crate::llm;
use crate::llm::backend::{ContextOptions, ModelBuffer, memory_needed, settings_that_fit};
use crate::llm::workers::Workers;
use crate::report::Checksum;

/// Bytes of one read. Large, so that the disk's queue stays full for nearly all of the time;
/// small against a model, so that the hash follows closely.
pub const PIECE: usize = 8 << 20;
/// Bytes of the first read; each one after it is about twice as large, up to [`PIECE`]. So the hash
/// of a small model, too, starts long before the model is read.
const FIRST_PIECE: usize = 512 << 10;
/// Bytes that are hashed between two looks at the progress bar.
const PART: usize = 512 << 10;
/// Bytes read to find the header of a model that does not fit.
const HEADER: usize = 1 << 20;

/// A model in memory, and how it got there.
pub struct Loaded {
    /// The file's bytes.
    pub bytes: ModelBuffer,
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
    let bytes = match File::open(path) {
        Err(Errno(ENOENT | ENODEV)) => return Ok(None),
        Err(errno) => return Err(disk_error(path, errno)),
        Ok(file) => match file.read_all(limit) {
            Err(Errno(EFBIG)) => {
                return Err(Error::Unreadable { path: path.to_owned(), why: "is too large" });
            }
            bytes => bytes.map_err(|errno| disk_error(path, errno))?,
        },
    };
    let not_text = |_| Error::Unreadable { path: path.to_owned(), why: "is not UTF-8 text" };
    String::from_utf8(bytes).map(Some).map_err(not_text)
}

/// The name of the model to load: the one wanted, or the only one.
///
/// # Errors
/// There is none, or none of that name, or there are several and none is wanted.
pub fn choose_model(wanted: Option<&str>) -> Result<String, Error> {
    let mut present = match File::open("/models").and_then(|directory| directory.entries()) {
        Ok(names) => names,
        Err(Errno(ENOENT | ENODEV)) => Vec::new(),
        Err(errno) => return Err(disk_error("/models", errno)),
    };
    // A name with control characters could pose as an event wherever it is shown.
    present.retain(|name| {
        name.to_ascii_lowercase().ends_with(".gguf") && !name.contains(char::is_control)
    });
    present.sort();
    if present.is_empty() {
        return Err(Error::NoModel);
    }
    match wanted {
        Some(name) if present.iter().any(|other| other == name) => Ok(name.to_owned()),
        Some(name) => Err(Error::ModelNotFound { wanted: name.to_owned(), present }),
        None if present.len() == 1 => Ok(present.remove(0)),
        None => Err(Error::SeveralModels(present)),
    }
}

/// Loads the model `name`, and checks it against its `.sha256` file if `verify` says so. `context`
/// is the one that it will have, for a memory that does not suffice to be found out early.
///
/// # Errors
/// The memory does not suffice, the disk fails, the checksum is another, or the header shows that
/// the engine cannot run the model: that is found out before the rest of the file is read.
pub fn load(
    name: &str,
    verify: bool,
    context: ContextOptions,
    workers: &dyn Workers,
) -> Result<Loaded, Error> {
    let path = format!("/models/{name}");
    let expected = if verify { expected_digest(&path)? } else { None };
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
    let failed = |errno| disk_error(&path, errno);
    let file = File::open(&path).map_err(failed)?;
    let size = file.size().map_err(failed)?;
    let mut bytes = allocate(&file, size, context)?;
    let before_us = os::now_us();
    let mut done = 0;
    let mut judged = false;
    while !judged && done < bytes.len() && done < PIECE {
        let end = next_piece(done, bytes.len());
        file.read_full(&mut bytes.as_mut_slice()[done..end]).map_err(failed)?;
        done = end;
        judged = judge(&bytes[..done], size, context)?;
    }
    let head_us = os::now_us() - before_us;

    let (head, rest) = bytes.as_mut_slice().split_at_mut(done);
    let job = Job {
        pieces: Mutex::new(VecDeque::from([Some(&*head)])),
        news: AtomicU32::new(1),
        reader: Mutex::new(Some((&file, rest))),
        outcome: Mutex::new(Outcome { read: Ok(()), read_us: head_us, sha256: None, hash_us: 0 }),
        hashed: verify,
    };
    workers.run(&|worker| match worker {
        0 => job.read(name, size),
        1 if job.hashed => job.hash(name, size),
        _ => {}
    });
    if job.hashed && workers.count() == 1 {
        job.hash(name, size);
    }
    let Outcome { read, read_us, sha256, hash_us } = job.outcome.into_inner();
    read.map_err(failed)?;
    let load_us = os::now_us() - start_us;

    if let (Some(expected), Some(actual)) = (expected, sha256)
        && expected != actual
    {
        return Err(Error::ChecksumMismatch { expected, actual });
    }
    if !judged {
        judge(&bytes, size, context)?;
    }
    Ok(Loaded { bytes, file: name.to_owned(), checksum, sha256, load_us, read_us, hash_us })
}

/// Where the piece ends that starts at byte `done` of a file of `length` bytes.
fn next_piece(done: usize, length: usize) -> usize {
    length.min(done + (done + FIRST_PIECE).min(PIECE))
}

/// Whether the start of a model's file holds its header and that is sound. A header that is
/// malformed decides nothing yet: the checksum tells better what is wrong with the file, and the
/// engine reads the header again.
///
/// # Errors
/// The engine cannot run the model, or the memory does not suffice for what it needs besides its
/// file, for which there is memory already.
fn judge(prefix: &[u8], size: u64, context: ContextOptions) -> Result<bool, Error> {
    let needed = match memory_needed(prefix, size, context) {
        Ok(needed) => needed.total(),
        Err(llm::Error::HeaderCutShort { .. }) => return Ok(false),
        Err(llm::Error::ParseError { .. }) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let free = os::memory_available();
    if free >= needed as u64 {
        return Ok(true);
    }
    let instead = settings_that_fit(prefix, size, context, free);
    Err(no_room(size, needed, free + size, instead))
}

/// The digest in the `.sha256` file beside the model, if there is one.
fn expected_digest(path: &str) -> Result<Option<Digest>, Error> {
    let path = format!("{path}.sha256");
    let text = match read_text(&path, 4096) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        Err(Error::Unreadable { path, .. }) => return Err(Error::BadChecksumFile(path)),
        Err(error) => return Err(error),
    };
    // The format of sha256sum: the digest, a space, and then the name, which does not matter here.
    // A name with odd characters makes it start with a backslash.
    let digest = text.trim_start().trim_start_matches('\\').split_ascii_whitespace().next();
    match digest.and_then(Digest::from_hex) {
        Some(digest) => Ok(Some(digest)),
        None => Err(Error::BadChecksumFile(path)),
    }
}

/// Memory for a file of `size` bytes.
fn allocate(file: &File, size: u64, context: ContextOptions) -> Result<ModelBuffer, Error> {
    let too_large = || {
        // The header tells what the model needs besides its file. It is small in most models; where
        // it is not, the size of the file alone has to do.
        let header = ModelBuffer::try_new(bytes_of(size).min(HEADER)).and_then(|mut header| {
            let n = file.read_full(header.as_mut_slice()).unwrap_or(0);
            memory_needed(&header[..n], size, context)
        });
        match header {
            // More memory would not help.
            Err(error @ (llm::Error::Unsupported { .. } | llm::Error::InvalidConfig { .. })) => {
                Error::Engine(error)
            }
            needed => {
                let besides = needed.map_or(0, |needed| needed.total());
                // No setting makes the file smaller.
                no_room(size, besides, os::memory_available(), String::new())
            }
        }
    };
    ModelBuffer::try_new(bytes_of(size)).map_err(|_| too_large())
}

/// A size in memory; what does not fit an address fits no memory either.
fn bytes_of(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn no_room(size: u64, besides: usize, free: u64, instead: String) -> Error {
    let needed = size.saturating_add(besides as u64);
    Error::OutOfMemory { what: "the model with its cache and tables", needed, free, instead }
}

/// One load, shared between the core that reads and the one that hashes.
struct Job<'a> {
    /// Pieces that are read and not yet hashed; `None` ends them.
    pieces: Mutex<VecDeque<Option<&'a [u8]>>>,
    /// Counts the pieces put into the queue, for the hashing core to sleep on.
    news: AtomicU32,
    /// The file, and the place for its bytes: taken by the core that reads.
    reader: Mutex<Option<(&'a File, &'a mut [u8])>>,
    outcome: Mutex<Outcome>,
    /// Whether the pieces are hashed.
    hashed: bool,
}

struct Outcome {
    read: Result<(), Errno>,
    read_us: u64,
    sha256: Option<Digest>,
    hash_us: u64,
}

impl<'a> Job<'a> {
    /// The reading core's part: all of the file that is not read yet.
    fn read(&self, name: &str, size: u64) {
        let Some((file, mut rest)) = self.reader.lock().take() else { return };
        let mut progress = (!self.hashed).then(|| Progress::new(name, size));
        let mut done = bytes_of(size) - rest.len();
        let mut result = Ok(());
        let start_us = os::now_us();
        while !rest.is_empty() {
            let length = next_piece(done, done + rest.len()) - done;
            let (piece, after) = rest.split_at_mut(length);
            rest = after;
            result = file.read_full(piece).map(drop);
            if result.is_err() {
                break;
            }
            done += piece.len();
            if self.hashed {
                self.send(Some(piece));
            }
            if let Some(progress) = &mut progress {
                progress.update(done as u64);
            }
        }
        self.send(None);
        let mut outcome = self.outcome.lock();
        outcome.read = result;
        outcome.read_us += os::now_us() - start_us;
    }

    /// The hashing core's part.
    fn hash(&self, name: &str, size: u64) {
        let mut progress = Progress::new(name, size);
        let mut hash = Sha256::new();
        let (mut done, mut us) = (0, 0);
        loop {
            let news = self.news.load(Ordering::Acquire);
            let piece = self.pieces.lock().pop_front();
            match piece {
                Some(Some(piece)) => {
                    // In parts, so that the bar moves where the hash is slow.
                    for part in piece.chunks(PART) {
                        let before_us = os::now_us();
                        hash.update(part);
                        us += os::now_us() - before_us;
                        done += part.len() as u64;
                        progress.update(done);
                    }
                }
                Some(None) => break,
                None => os::futex_wait(&self.news, news),
            }
        }
        let mut outcome = self.outcome.lock();
        outcome.sha256 = Some(hash.finish());
        outcome.hash_us = us;
    }

    fn send(&self, piece: Option<&'a [u8]>) {
        self.pieces.lock().push_back(piece);
        self.news.fetch_add(1, Ordering::Release);
        os::futex_wake_all(&self.news);
    }
}
