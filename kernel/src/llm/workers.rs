//! The thread pool as the engine sees it, and how work is shared among threads.
//!
//! Threads claim chunks of the work, one after the other. So cores of different speed all stay busy
//! until the end.

use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Mutex;

/// A thread pool that runs one job at a time.
///
/// The engine's results rely on the guarantees of each method. No `unsafe` code relies on them.
pub trait Workers: Sync {
    /// Number of participating threads.
    ///
    /// 1. The caller is included, so the number is 1 or more.
    /// 2. The number never changes.
    fn count(&self) -> usize;

    /// Runs a job on all threads.
    ///
    /// 1. `job(i)` is called once for each i in `0..count()`.
    /// 2. The calls run concurrently: one may wait for another.
    /// 3. The caller runs `job(0)`.
    /// 4. The method returns when all calls have returned. Their writes are visible to the caller.
    /// 5. If a call panics, the method does not unwind before the other calls have returned. It may
    ///    end the program instead.
    ///
    /// A job must not start another job of the same pool.
    ///
    /// # Panics
    /// A job starts another job, or a thread does not finish its call.
    fn run(&self, job: &(dyn Fn(usize) + Sync));

    /// The least work that is worth sharing, in multiply-adds.
    ///
    /// Below, waking other threads costs more than it saves.
    fn least_work(&self) -> usize {
        0
    }
}

/// The number of the calling thread in [`Workers::run`].
pub const CALLER: usize = 0;

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

/// Claims the next item. The lock is held only meanwhile.
fn claim<I: Iterator>(items: &Mutex<I>) -> Option<I::Item> {
    items.lock().next()
}

/// Calls `work` once for each item.
///
/// Each claim takes a lock, so an item must be worth more than a lock.
pub fn for_each<I>(workers: &dyn Workers, items: I, work: impl Fn(I::Item) + Sync)
where
    I: Iterator + Send,
{
    for_each_with(workers, core::iter::repeat(()), items, || (), |(), item| work(item));
}

/// As [`for_each`], with scratch space for each thread.
///
/// Each thread claims one of `places` for all its items. A thread without a place does nothing, so
/// there must be at least one place. The calling thread calls `between` after each of its items.
pub fn for_each_with<P, I>(
    workers: &dyn Workers,
    places: P,
    items: I,
    between: impl Fn() + Sync,
    work: impl Fn(&mut P::Item, I::Item) + Sync,
) where
    P: Iterator + Send,
    I: Iterator + Send,
{
    let (places, items) = (Mutex::new(places), Mutex::new(items));
    workers.run(&|thread| {
        let Some(mut place) = claim(&places) else { return };
        while let Some(item) = claim(&items) {
            work(&mut place, item);
            if thread == CALLER {
                between();
            }
        }
    });
}

/// The columns of a row-major matrix, which threads claim in bands.
///
/// Each column is claimed once.
pub struct Bands<'a, T> {
    start: *mut T,
    rows: usize,
    columns: usize,
    /// The first column that is not claimed.
    next: AtomicUsize,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: a shared `Bands` only hands out access to parts of the matrix, each part once (see
// `claim`). Parts of a `&mut [T]` go to other threads, which `T: Send` allows.
unsafe impl<T: Send> Sync for Bands<'_, T> {}

impl<'a, T> Bands<'a, T> {
    /// The bands of `matrix`, whose rows have `columns` numbers.
    ///
    /// # Panics
    /// It is not made of whole rows.
    pub fn new(matrix: &'a mut [T], columns: usize) -> Self {
        assert!(matrix.len().is_multiple_of(columns), "{} in rows of {columns}", matrix.len());
        let rows = matrix.len() / columns;
        let start = matrix.as_mut_ptr();
        Bands { start, rows, columns, next: AtomicUsize::new(0), matrix: PhantomData }
    }

    /// Claims the next columns, from the first unclaimed one up to `end(first)`.
    ///
    /// A band has at least one column, and at most the remaining columns. `None` if no column
    /// remains.
    pub fn claim(&self, end: impl Fn(usize) -> usize) -> Option<Band<'a, T>> {
        let mut first = self.next.load(Ordering::Relaxed);
        loop {
            if first >= self.columns {
                return None;
            }
            let end = end(first).clamp(first + 1, self.columns);
            let order = Ordering::Relaxed;
            match self.next.compare_exchange_weak(first, end, order, order) {
                Ok(_) => {
                    let (rows, stride) = (self.rows, self.columns);
                    let (start, matrix) = (self.start, PhantomData);
                    // `next` went from `first` to `end` here and never goes back, so no other band
                    // has these columns.
                    return Some(Band { start, rows, stride, columns: first..end, matrix });
                }
                Err(now) => first = now,
            }
        }
    }
}

/// Columns of a matrix that only this band can access.
pub struct Band<'a, T> {
    /// The matrix's first row.
    start: *mut T,
    rows: usize,
    /// Numbers from one row to the next.
    stride: usize,
    /// The columns, within `stride`.
    columns: Range<usize>,
    matrix: PhantomData<&'a mut [T]>,
}

impl<T> Band<'_, T> {
    /// The columns of the band.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The band's part of a row.
    ///
    /// # Panics
    /// The row does not exist.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        let [row] = self.disjoint_rows([row]);
        row
    }

    /// The band's parts of several rows.
    ///
    /// # Panics
    /// A row does not exist, or is named twice.
    pub fn disjoint_rows<const N: usize>(&mut self, rows: [usize; N]) -> [&mut [T]; N] {
        for (i, row) in rows.iter().enumerate() {
            assert!(*row < self.rows && !rows[..i].contains(row), "{rows:?} of {}", self.rows);
        }
        let part = self.part();
        // SAFETY: see `part`: each is a row, and no two are the same.
        rows.map(|row| unsafe { &mut *part(row) })
    }

    /// The band's parts of all rows, in their order.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        let part = self.part();
        // SAFETY: see `part`: each is a row, and each comes once.
        (0..self.rows).map(move |row| unsafe { &mut *part(row) })
    }

    /// The place of the band's part of each row.
    ///
    /// A part may be borrowed mutably while the band is borrowed mutably, each row's part once at a
    /// time. The reasons: `Bands::new` borrowed the matrix mutably, for longer. The row is a row of
    /// the matrix, or of the rows that `every` left. The columns lie within the row
    /// (`Bands::claim`), and no other band has these columns.
    fn part(&self) -> impl Fn(usize) -> *mut [T] + use<T> {
        let start = self.start.wrapping_add(self.columns.start);
        let (stride, len) = (self.stride, self.columns.len());
        move |row| core::ptr::slice_from_raw_parts_mut(start.wrapping_add(row * stride), len)
    }

    /// The rows `part`, `part + parts`, `part + 2 * parts` and so on.
    ///
    /// # Panics
    /// `part` is not below `parts`, or `parts` does not divide the rows.
    pub fn every(&mut self, parts: usize, part: usize) -> Band<'_, T> {
        assert!(part < parts && self.rows.is_multiple_of(parts), "{part} of {parts}");
        Band {
            start: self.start.wrapping_add(part * self.stride),
            rows: self.rows / parts,
            stride: self.stride * parts,
            columns: self.columns(),
            matrix: PhantomData,
        }
    }
}

#[cfg(test)]
#[path = "../../tests/support/threads.rs"]
pub(crate) mod threads;

#[cfg(test)]
mod tests {
    use super::threads::Threads;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn every_item_is_worked_on_once() {
        for workers in [&SingleThread as &dyn Workers, &Threads(3)] {
            for len in [0, 1, 7, 101, 1009] {
                let mut items = vec![0_usize; len];
                for_each(workers, items.iter_mut().enumerate(), |(i, item)| *item += i + 1);
                assert!(items.iter().enumerate().all(|(i, &item)| item == i + 1));
            }
        }
    }

    #[test]
    fn each_participant_has_one_place_and_those_without_do_nothing() {
        let mut places = [0_usize; 2];
        let work = |place: &mut &mut usize, item| **place += item;
        for_each_with(&Threads(5), places.iter_mut(), 0..1009, || (), work);
        assert_eq!(places.iter().sum::<usize>(), 1009 * 1008 / 2);
    }

    #[test]
    fn the_calling_thread_alone_is_called_between_its_items() {
        let caller = std::thread::current().id();
        for (workers, most) in [(&SingleThread as &dyn Workers, 1009), (&Threads(3), 1009)] {
            let (n, n_own) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let own = || std::thread::current().id() == caller;
            let between = || {
                assert!(own());
                n.fetch_add(1, Ordering::Relaxed);
            };
            let work = |(): &mut (), _| {
                n_own.fetch_add(usize::from(own()), Ordering::Relaxed);
            };
            for_each_with(workers, core::iter::repeat(()), 0..1009, between, work);
            assert_eq!(n.load(Ordering::Relaxed), n_own.load(Ordering::Relaxed));
            assert!(n.load(Ordering::Relaxed) <= most);
        }
    }

    #[test]
    fn every_number_is_in_one_band() {
        // In Miri each number takes long.
        let shapes = [(1, 1), (7, 13), (1, 101), (31, 1009)];
        let shapes = if cfg!(miri) { &shapes[..2] } else { &shapes };
        for workers in [&SingleThread as &dyn Workers, &Threads(3)] {
            for &(rows, columns) in shapes {
                for width in [0, 1, 8, 2000] {
                    let mut matrix = vec![0_usize; rows * columns];
                    let bands = Bands::new(&mut matrix, columns);
                    workers.run(&|_| {
                        while let Some(mut band) = bands.claim(|first| first + width) {
                            let Range { start, end } = band.columns();
                            assert!(end == columns || end - start == width.max(1));
                            for (row, part) in band.rows_mut().enumerate() {
                                for (i, x) in part.iter_mut().enumerate() {
                                    *x += row * columns + start + i + 1;
                                }
                            }
                        }
                    });
                    assert!(matrix.iter().enumerate().all(|(i, &x)| x == i + 1));
                }
            }
        }
    }

    #[test]
    fn every_so_many_rows_are_a_band_too() {
        let mut matrix: Vec<usize> = (0..6 * 7).collect();
        let bands = Bands::new(&mut matrix, 7);
        assert!(bands.claim(|first| first + 2).is_some());
        let mut band = bands.claim(|first| first + 3).unwrap();
        let mut second = band.every(3, 1);
        assert_eq!((second.rows(), second.columns()), (2, 2..5));
        let parts = [[7 + 2, 7 + 3, 7 + 4], [4 * 7 + 2, 4 * 7 + 3, 4 * 7 + 4]];
        assert_eq!(second.row(0), parts[0]);
        assert_eq!(second.row(1), parts[1]);
        assert!(second.rows_mut().eq(parts));
    }

    #[test]
    fn several_rows_of_a_band_are_at_hand_at_once() {
        let mut matrix: Vec<usize> = (0..4 * 3).collect();
        let mut band = Bands::new(&mut matrix, 3).claim(|first| first + 2).unwrap();
        let [third, first] = band.disjoint_rows([2, 0]);
        core::mem::swap(&mut third[1], &mut first[1]);
        assert_eq!(matrix, [0, 7, 2, 3, 4, 5, 6, 1, 8, 9, 10, 11]);
    }

    #[test]
    #[should_panic(expected = "[0, 1, 0] of 2")]
    fn no_row_is_at_hand_twice() {
        let mut matrix = [0; 6];
        Bands::new(&mut matrix, 3).claim(|first| first + 1).unwrap().disjoint_rows([0, 1, 0]);
    }

    #[test]
    #[should_panic(expected = "[2] of 2")]
    fn a_band_ends_with_its_matrix() {
        let mut matrix = [0; 6];
        Bands::new(&mut matrix, 3).claim(|first| first + 1).unwrap().row(2);
    }
}
