//! The pipeline of a load: one core reads chunks, one hashes them, the others repack them.
//!
//! The pipeline runs in slices. A slice is one job of the threads, which leave it at a chunk's
//! border. What waits in the queues stays there for the next slice. So the threads can run forward
//! passes of other models between two slices.

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use spin::Mutex;

use crate::app::os::{self, Errno, File};
use crate::app::output::Progress;
use crate::app::sha256::{Digest, Sha256};
use crate::app::timeout::Timeout;
use crate::llm::model::Repack;
use crate::llm::workers::{CALLER, Workers};

/// Bytes of one read.
///
/// Large, so that the disk's queue stays full for nearly all of the time; small against a model, so
/// that the hash follows closely.
pub const CHUNK: usize = 8 << 20;
/// Bytes of the first read. Each further read is about twice as large, up to [`CHUNK`]. So the hash
/// of a small model starts early, too.
const FIRST_CHUNK: usize = 512 << 10;
/// Bytes of a chunk in a slice that ends at a time, so that the slice ends in time.
const SHORT_CHUNK: usize = 256 << 10;
/// Bytes that are hashed between two updates of the progress bar.
const PART: usize = 512 << 10;

/// The thread that reads.
pub const READS: usize = CALLER;
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
    /// Locked by the thread that reads.
    reader: Mutex<Reader<'a>>,
    /// Locked by the thread that hashes.
    hasher: Mutex<Hasher<'a>>,
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
    /// What the calling thread does between two chunks; whether the slice is to end.
    look: &'a (dyn Fn() -> bool + Sync),
    /// The time at which the present slice ends, in µs.
    ends_us: AtomicU64,
    /// Whether the threads leave the present slice.
    ends: AtomicBool,
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
    file: &'a File,
    /// Memory for the bytes behind the last chunk.
    rest: &'a mut [u8],
    /// Bytes of `rest` that were read before.
    present: usize,
    /// Bytes of all chunks so far.
    start: usize,
    is_done: bool,
    result: Result<(), Errno>,
    us: u64,
    /// Shown if nothing is hashed.
    progress: Option<Progress<'a>>,
}

impl<'a> Reader<'a> {
    /// A reader of `file` into memory for all of its bytes, of which the first `present` are there.
    pub fn new(file: &'a File, memory: &'a mut [u8], present: usize) -> Self {
        Reader {
            file,
            rest: memory,
            present,
            start: 0,
            is_done: false,
            result: Ok(()),
            us: 0,
            progress: None,
        }
    }
}

/// The hash of the chunks so far.
struct Hasher<'a> {
    hash: Sha256,
    done: u64,
    us: u64,
    is_done: bool,
    progress: Option<Progress<'a>>,
}

/// A chunk of the file, and its first byte's place in the file.
type Chunk<'a> = (usize, &'a mut [u8]);

/// Chunks of the file on their way from one thread to others.
#[derive(Default)]
struct Queue<'a> {
    chunks: Mutex<Chunks<'a>>,
    /// Counts the pushes and the ends of slices; threads that wait sleep on this word.
    changes: AtomicU32,
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
        self.wake();
    }

    /// Wakes the threads that wait.
    fn wake(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        os::futex_wake_all(&self.changes);
    }

    /// Whether all chunks were popped, and no more will come.
    fn is_over(&self) -> bool {
        matches!(self.chunks.lock().waiting.front(), Some(None))
    }
}

impl<'a> Pipeline<'a> {
    /// A pipeline for the file `name` of `size` bytes.
    ///
    /// The calling thread calls `look` between two chunks. If `look` returns true, the slice ends.
    pub fn new(
        (name, size): (&'a str, u64),
        reader: Reader<'a>,
        hashes: Option<usize>,
        repack: Option<&'a Repack>,
        timeout_s: u32,
        look: &'a (dyn Fn() -> bool + Sync),
    ) -> Self {
        let hasher = Hasher { hash: Sha256::new(), done: 0, us: 0, is_done: false, progress: None };
        Pipeline {
            name,
            size,
            reader: Mutex::new(reader),
            hasher: Mutex::new(hasher),
            read: Queue::default(),
            hashed: Queue::default(),
            timeout_s,
            hashes,
            repack,
            look,
            ends_us: AtomicU64::new(u64::MAX),
            ends: AtomicBool::new(false),
        }
    }

    /// Runs a slice of about `length_us` µs, or without an end; returns whether the load is done.
    ///
    /// # Panics
    /// One of the `workers` reads or hashes nothing in time while the others wait for it.
    pub fn slice(&self, workers: &dyn Workers, length_us: Option<u64>) -> bool {
        let ends_us = length_us.map_or(u64::MAX, |us| os::now_us().saturating_add(us));
        self.ends_us.store(ends_us, Ordering::Relaxed);
        self.ends.store(false, Ordering::Relaxed);
        workers.run(&|worker| self.run(worker));
        self.hashed.is_over()
    }

    /// The result of a load that is done.
    pub fn finish(self) -> Outcome {
        let (reader, hasher) = (self.reader.into_inner(), self.hasher.into_inner());
        Outcome {
            read: reader.result,
            read_us: reader.us,
            sha256: self.hashes.map(|_| hasher.hash.finish()),
            hash_us: hasher.us,
        }
    }

    /// The part of one thread in a slice: reading, hashing, and then repacking.
    ///
    /// All threads stay until everything is hashed, so that none waits long for the others at the
    /// end.
    fn run(&self, thread: usize) {
        if thread == READS {
            self.read();
        }
        if self.hashes == Some(thread) {
            self.hash(thread);
        }
        while let Some((start, chunk)) = self.pop(&self.hashed, thread) {
            if let Some(repack) = self.repack {
                repack.chunk(start, chunk);
            }
            self.after_chunk(thread);
        }
    }

    /// Ends the slice if its time is over, or if the calling thread has to do something else.
    fn after_chunk(&self, thread: usize) {
        let is_over = os::now_us() >= self.ends_us.load(Ordering::Relaxed);
        if is_over || (thread == CALLER && (self.look)()) {
            self.ends.store(true, Ordering::Release);
            self.read.wake();
            self.hashed.wake();
        }
    }

    /// Whether the threads leave the slice.
    fn is_ending(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }

    /// The most bytes of a chunk in the present slice.
    fn most(&self) -> usize {
        if self.ends_us.load(Ordering::Relaxed) == u64::MAX { CHUNK } else { SHORT_CHUNK }
    }

    /// The end of the chunk that starts at byte `start` and ends at byte `end` at most, if it can.
    fn cut(&self, start: usize, end: usize) -> usize {
        self.repack.map_or(end, |repack| repack.cut(start, end))
    }

    /// Waits for the next chunk; `None` at the end of the chunks or of the slice.
    ///
    /// # Panics
    /// Neither comes in time. The message names the thread that the others wait for.
    fn pop(&self, queue: &Queue<'a>, thread: usize) -> Option<Chunk<'a>> {
        let mut timeout = Timeout::new(Some(self.timeout_s));
        loop {
            let changes = queue.changes.load(Ordering::Acquire);
            if self.is_ending() {
                return None;
            }
            let mut chunks = queue.chunks.lock();
            match chunks.waiting.front_mut() {
                // The end stays, for the other threads.
                Some(None) => return None,
                Some(waiting) => {
                    let (start, chunk) = waiting.take()?;
                    let end = self.cut(start, start + chunk.len().min(self.most()));
                    let (chunk, rest) = chunk.split_at_mut(end - start);
                    if rest.is_empty() {
                        chunks.waiting.pop_front();
                    } else {
                        *waiting = Some((end, rest));
                    }
                    chunks.popped += 1;
                    return Some((start, chunk));
                }
                None => {}
            }
            drop(chunks);
            if timeout.is_over() {
                let (thread, done) = self.late();
                let timeout_s = self.timeout_s;
                panic!("thread {thread} has {done} nothing of the model for {timeout_s} s");
            }
            timeout.sleep(&queue.changes, changes);
            if thread == CALLER {
                self.after_chunk(thread);
            }
        }
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

    /// Reads on in the file.
    fn read(&self) {
        let mut reader = self.reader.lock();
        let Reader { file, rest, present, start, is_done, result, us, progress } = &mut *reader;
        let next = if self.hashes.is_some() { &self.read } else { &self.hashed };
        if self.hashes.is_none() {
            progress.get_or_insert_with(|| Progress::new(self.name, self.size));
        }
        let start_us = os::now_us();
        while !*is_done && !self.is_ending() {
            if rest.is_empty() {
                *is_done = true;
                next.push(None);
                break;
            }
            let whole = *start + rest.len();
            // The bytes already read are the first chunk, unless they are too few to be worth one.
            let ahead = *present >= FIRST_CHUNK;
            let end = if ahead { *start + *present } else { next_chunk(*start, whole) };
            let end = if ahead { end } else { end.min(*start + self.most()) };
            let end = self.cut(*start, end);
            let (chunk, after) = core::mem::take(rest).split_at_mut(end - *start);
            let here = (*present).min(chunk.len());
            *result = file.read_full(&mut chunk[here..]).map(drop);
            if result.is_err() {
                // Nothing is left to read: the next turn ends the chunks.
                continue;
            }
            *rest = after;
            *present -= here;
            next.push(Some((*start, chunk)));
            *start = end;
            if let Some(progress) = progress {
                progress.update(end as u64);
            }
            self.after_chunk(READS);
        }
        *us += os::now_us() - start_us;
    }

    /// Hashes the chunks that are read.
    fn hash(&self, thread: usize) {
        let mut hasher = self.hasher.lock();
        let Hasher { hash, done, us, is_done, progress } = &mut *hasher;
        let progress = progress.get_or_insert_with(|| Progress::new(self.name, self.size));
        while let Some((start, chunk)) = self.pop(&self.read, thread) {
            // In parts, so that the bar moves where the hash is slow.
            for part in chunk.chunks(PART) {
                let before_us = os::now_us();
                hash.update(part);
                *us += os::now_us() - before_us;
                *done += part.len() as u64;
                progress.update(*done);
                self.after_chunk(thread);
            }
            self.hashed.push(Some((start, chunk)));
        }
        if !*is_done && self.read.is_over() {
            *is_done = true;
            self.hashed.push(None);
        }
    }
}
