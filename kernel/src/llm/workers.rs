//! Threads that share one job, and the one way in which the engine shares its work among them.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A team of threads that works on one job at a time.
pub trait Workers: Sync {
    /// Number of participants, the caller included: 1 or more.
    fn count(&self) -> usize;

    /// Calls `job(i)` once for each participant i in `0..count()`, at the same time, the caller
    /// being one of them, and returns when all have returned.
    fn run(&self, job: &(dyn Fn(usize) + Sync));
}

/// The caller alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleThread;

impl Workers for SingleThread {
    fn count(&self) -> usize {
        1
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        job(0);
    }
}

/// Chunks of a slice that several threads take, each chunk once.
struct Chunks<'a, T> {
    start: *mut T,
    len: usize,
    chunk: usize,
    next: AtomicUsize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a shared `Chunks` only hands out `&mut [T]` to parts of the slice, each part once (see
// `take`). That is to send parts of a `&mut [T]` to other threads, which `T: Send` allows.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    fn new(slice: &'a mut [T], chunk: usize) -> Self {
        let (start, len) = (slice.as_mut_ptr(), slice.len());
        Chunks { start, len, chunk, next: AtomicUsize::new(0), slice: PhantomData }
    }

    /// The next chunk and its number; `None` when all are taken.
    fn take(&self) -> Option<(usize, &'a mut [T])> {
        // Each participant takes one number too many, so the counter cannot wrap.
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let first = index.checked_mul(self.chunk).filter(|&first| first < self.len)?;
        let len = self.chunk.min(self.len - first);
        // SAFETY: `first + len <= self.len`, so this is a part of the slice that `new` borrowed
        // mutably for 'a. The counter gives each index once and parts of different indices do not
        // overlap, so no other reference to this part exists.
        Some((index, unsafe { core::slice::from_raw_parts_mut(self.start.add(first), len) }))
    }
}

/// Splits `slice` into chunks of `chunk` elements (the last may be shorter) and calls
/// `work(index, chunk)` once for each. Participants claim chunks from an atomic counter, so that
/// cores of different speed all stay busy until the end.
///
/// # Panics
/// `chunk` is 0.
pub fn for_each_chunk<T: Send>(
    workers: &dyn Workers,
    slice: &mut [T],
    chunk: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    assert_ne!(chunk, 0, "chunks of nothing");
    if workers.count() == 1 || slice.len() <= chunk {
        for (index, part) in slice.chunks_mut(chunk).enumerate() {
            work(index, part);
        }
        return;
    }
    let chunks = Chunks::new(slice, chunk);
    workers.run(&|_| {
        while let Some((index, part)) = chunks.take() {
            work(index, part);
        }
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::vec;

    /// Threads of the host, started anew for each job.
    pub struct HostThreads(pub usize);

    impl Workers for HostThreads {
        fn count(&self) -> usize {
            self.0
        }

        fn run(&self, job: &(dyn Fn(usize) + Sync)) {
            std::thread::scope(|scope| {
                for i in 1..self.0 {
                    scope.spawn(move || job(i));
                }
                job(0);
            });
        }
    }

    #[test]
    fn every_chunk_is_worked_on_once() {
        for workers in [&SingleThread as &dyn Workers, &HostThreads(3)] {
            for len in [0, 1, 7, 101, 1009] {
                for chunk in [1, 7, 13, 2000] {
                    let mut slice = vec![0_usize; len];
                    for_each_chunk(workers, &mut slice, chunk, |index, part| {
                        for (i, x) in part.iter_mut().enumerate() {
                            *x += index * chunk + i + 1;
                        }
                    });
                    assert!(slice.iter().enumerate().all(|(i, &x)| x == i + 1));
                }
            }
        }
    }
}
