//! The pipeline of a load: one core reads chunks, one hashes them, the others repack them.

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::Mutex;

use crate::app::os::{self, Errno, File};
use crate::app::output::Progress;
use crate::app::sha256::{Digest, Sha256};
use crate::app::timeout::Timeout;
use crate::llm::model::Repack;

/// Bytes of one read.
///
/// Large, so that the disk's queue stays full for nearly all of the time; small against a model, so
/// that the hash follows closely.
pub const CHUNK: usize = 8 << 20;
/// Bytes of the first read. Each further read is about twice as large, up to [`CHUNK`]. So the hash
/// of a small model starts early, too.
const FIRST_CHUNK: usize = 512 << 10;
/// Bytes that are hashed between two updates of the progress bar.
const PART: usize = 512 << 10;

/// The thread that reads.
pub const READS: usize = 0;
/// The thread that hashes, if there is a second thread.
pub const HASHES: usize = 1;

/// The end of the chunk that starts at byte `done` of a file of `length` bytes.
pub fn next_chunk(done: usize, length: usize) -> usize {
    length.min(done + (done + FIRST_CHUNK).min(CHUNK))
}

/// One load, shared by the thread that reads, the thread that hashes, and the threads that repack.
pub struct Pipeline<'a> {
    name: &'a str,
    size: u64,
    /// Taken by the thread that reads.
    reader: Mutex<Option<Reader<'a>>>,
    /// Chunks to hash.
    read: Queue<'a>,
    /// Chunks to repack.
    hashed: Queue<'a>,
    /// Seconds that one thread waits for another.
    timeout_s: u32,
    /// The thread that hashes the chunks, if any does.
    hashes: Option<usize>,
    /// How the chunks are repacked, if they are.
    repack: Option<&'a Repack>,
    /// What the thread that reads does between two chunks.
    pub meanwhile: &'a (dyn Fn() + Sync),
    outcome: Mutex<&'a mut Outcome>,
}

/// Result of a load.
pub struct Outcome {
    /// Result of the reads.
    pub read: Result<(), Errno>,
    /// Time of the reads in µs.
    pub read_us: u64,
    /// SHA-256 of the file, if it was computed.
    pub sha256: Option<Digest>,
    /// Time of the hash in µs.
    pub hash_us: u64,
}

/// A file that is being read.
pub struct Reader<'a> {
    /// The file.
    pub file: &'a File,
    /// Memory for all bytes of the file.
    pub rest: &'a mut [u8],
    /// Bytes that were read before.
    pub present: usize,
}

/// A chunk of the file, and its first byte's place in the file.
type Chunk<'a> = (usize, &'a mut [u8]);

/// Chunks of the file on their way from one thread to others.
#[derive(Default)]
struct Queue<'a> {
    chunks: Mutex<Chunks<'a>>,
    /// Counts the pushes; threads that wait sleep on this word.
    pushes: AtomicU32,
}

#[derive(Default)]
struct Chunks<'a> {
    /// `None` is the end.
    waiting: VecDeque<Option<Chunk<'a>>>,
    /// Chunks ever pushed.
    pushed: usize,
    /// Chunks ever popped.
    popped: usize,
}

impl<'a> Queue<'a> {
    fn push(&self, chunk: Option<Chunk<'a>>) {
        let mut chunks = self.chunks.lock();
        chunks.pushed += usize::from(chunk.is_some());
        chunks.waiting.push_back(chunk);
        drop(chunks);
        self.pushes.fetch_add(1, Ordering::Release);
        os::futex_wake_all(&self.pushes);
    }

    /// Waits for the next chunk; `None` at the end.
    ///
    /// # Panics
    /// Neither comes for `timeout_s` seconds; `late` names the thread and its task.
    fn pop(&self, timeout_s: u32, late: impl Fn() -> (usize, &'static str)) -> Option<Chunk<'a>> {
        let mut timeout = Timeout::new(Some(timeout_s));
        loop {
            let pushes = self.pushes.load(Ordering::Acquire);
            let mut chunks = self.chunks.lock();
            match chunks.waiting.front() {
                // The end stays, for the other threads.
                Some(None) => return None,
                Some(Some(_)) => {
                    chunks.popped += 1;
                    return chunks.waiting.pop_front().flatten();
                }
                None => {}
            }
            drop(chunks);
            if timeout.is_over() {
                let (thread, done) = late();
                panic!("thread {thread} has {done} nothing of the model for {timeout_s} s");
            }
            timeout.sleep(&self.pushes, pushes);
        }
    }
}

impl<'a> Pipeline<'a> {
    /// A pipeline for the file `name` of `size` bytes.
    pub fn new(
        (name, size): (&'a str, u64),
        reader: Reader<'a>,
        hashes: Option<usize>,
        repack: Option<&'a Repack>,
        timeout_s: u32,
        outcome: &'a mut Outcome,
    ) -> Self {
        Pipeline {
            name,
            size,
            reader: Mutex::new(Some(reader)),
            read: Queue::default(),
            hashed: Queue::default(),
            timeout_s,
            hashes,
            repack,
            meanwhile: &|| {},
            outcome: Mutex::new(outcome),
        }
    }

    /// The part of one thread: reading, hashing, and then repacking.
    ///
    /// All threads stay until everything is hashed, so that none waits long for the others at the
    /// end.
    pub fn run(&self, thread: usize) {
        if thread == READS {
            self.read();
        }
        if self.hashes == Some(thread) {
            self.hash();
        }
        while let Some((start, chunk)) = self.next_of(&self.hashed) {
            if let Some(repack) = self.repack {
                repack.chunk(start, chunk);
            }
            if thread == READS {
                (self.meanwhile)();
            }
        }
    }

    /// The next chunk of one of the queues.
    ///
    /// # Panics
    /// No chunk comes in time.
    fn next_of(&self, queue: &Queue<'a>) -> Option<Chunk<'a>> {
        queue.pop(self.timeout_s, || self.late())
    }

    /// The thread that the others wait for, and the task that it has not done.
    fn late(&self) -> (usize, &'static str) {
        if let Some(hashes) = self.hashes {
            let read = self.read.chunks.lock();
            // A chunk, or the end, waits for this thread or is being hashed.
            if !read.waiting.is_empty() || read.popped > self.hashed.chunks.lock().pushed {
                return (hashes, "hashed");
            }
        }
        (READS, "read")
    }

    /// Reads the rest of the file.
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
            // The bytes already read are the first chunk, unless they are too few to be worth one.
            let ahead = present >= FIRST_CHUNK;
            let end = if ahead { start + present } else { next_chunk(start, whole) };
            let end = self.repack.map_or(end, |repack| repack.cut(start, end));
            let (chunk, after) = rest.split_at_mut(end - start);
            rest = after;
            let here = present.min(chunk.len());
            result = file.read_full(&mut chunk[here..]).map(drop);
            if result.is_err() {
                break;
            }
            present -= here;
            next.push(Some((start, chunk)));
            start = end;
            if let Some(progress) = &mut progress {
                progress.update(start as u64);
            }
            (self.meanwhile)();
        }
        next.push(None);
        let mut outcome = self.outcome.lock();
        outcome.read = result;
        outcome.read_us += os::now_us() - start_us;
    }

    /// Hashes the chunks that are read.
    fn hash(&self) {
        let mut progress = Progress::new(self.name, self.size);
        let mut hash = Sha256::new();
        let (mut done, mut us) = (0, 0);
        while let Some((start, chunk)) = self.next_of(&self.read) {
            // In parts, so that the bar moves where the hash is slow.
            for part in chunk.chunks(PART) {
                let before_us = os::now_us();
                hash.update(part);
                us += os::now_us() - before_us;
                done += part.len() as u64;
                progress.update(done);
                if self.hashes == Some(READS) {
                    (self.meanwhile)();
                }
            }
            self.hashed.push(Some((start, chunk)));
        }
        self.hashed.push(None);
        let mut outcome = self.outcome.lock();
        outcome.sha256 = Some(hash.finish());
        outcome.hash_us = us;
    }
}
