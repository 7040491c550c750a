//! Where a forward pass works, and its one expensive step.

use core::ops::Range;

use super::Linear;
use super::scratch::Quantized;
use crate::llm::kernels::{self, Output, add_bias};
use crate::llm::quantize::TILE_ROWS;
use crate::llm::workers::{Band, Bands, SingleThread, Workers};

/// Where the work is done: the file's bytes and the threads.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The whole file.
    pub file: &'a [u8],
    /// The threads.
    pub workers: &'a dyn Workers,
    /// Whether the size of the activations after each layer is logged.
    pub verbose: bool,
}

/// Rows that a band of a matrix starts at are multiples of this: whole stripes.
pub const ROWS: usize = TILE_ROWS;
/// Multiplications that are worth claiming.
const LEAST_CLAIMED: usize = 1 << 13;
/// Shares of what is left for each thread: one takes as much, so that the bands become smaller
/// towards the end and a slow one holds up the others for little.
const SHARES_PER_WORKER: usize = 2;

impl<'a> Context<'a> {
    /// The threads for so many pieces of so much work each, in multiplications; the caller alone
    /// where that is sooner done.
    pub fn workers_for(&self, pieces: usize, work: usize) -> &'a dyn Workers {
        match pieces > 1 && pieces.saturating_mul(work) >= self.workers.least_work() {
            true => self.workers,
            false => &SingleThread,
        }
    }

    /// Applies linear maps to `n` vectors. What all maps make of one, one map after the other, is cut
    /// into `parts` of the same width: `out` is `[n, parts, width]`. `finish` gets each band of its
    /// `n * parts` rows as soon as it is there.
    ///
    /// The weights of a band are read from memory once for all vectors. A band lies in one map for
    /// each part, and starts there at a multiple of [`ROWS`].
    pub fn multiply(
        &self,
        maps: &[Linear],
        x: &mut Quantized<'_>,
        parts: usize,
        out: &mut [f32],
        finish: impl Fn(&mut Band<'_, f32>) + Sync,
    ) {
        let rows: usize = maps.iter().map(|map| map.weights.rows()).sum();
        let (n, width) = (out.len() / rows, rows / parts);
        // All parts of a column have as many.
        let work = maps.iter().map(|map| map.weights.columns()).max().unwrap_or(0) * n * parts;
        let workers = self.workers_for(width.div_ceil(ROWS), work * ROWS);
        let shares = match workers.count() {
            1 => 1,
            count => count * SHARES_PER_WORKER,
        };
        let least = LEAST_CLAIMED / work.max(1);
        let end = |first: usize| {
            let share = (width - first).div_ceil(shares).max(least).next_multiple_of(ROWS);
            let ends = (0..parts).map(|part| {
                let (map, row) = find(maps, part * width + first);
                first + share.min(map.weights.rows() - row)
            });
            ends.min().unwrap_or(width)
        };
        x.interleave(maps.iter().map(|map| map.weights.kind()), n);
        let x = &*x;
        let bands = Bands::new(out, width);
        workers.run(&|_| {
            while let Some(mut band) = bands.claim(end) {
                let Range { start, end } = band.columns();
                for part in 0..parts {
                    let (map, row) = find(maps, part * width + start);
                    let rows = row..row + (end - start);
                    self.multiply_rows(map, rows, x, &mut band.every(parts, part));
                }
                finish(&mut band);
            }
        });
    }

    /// Some rows of a map times each of `n` vectors: `[n, rows]`.
    fn multiply_rows(
        &self,
        map: &Linear,
        rows: Range<usize>,
        x: &Quantized<'_>,
        out: &mut Band<'_, f32>,
    ) {
        let Linear { weights, bias } = map;
        let x = x.batch(weights.kind(), out.rows());
        kernels::multiply(&weights.rows_in(self.file, rows.clone()), &x, out);
        if let Some(bias) = bias {
            let bias = &bias.values(self.file)[rows];
            out.rows_mut().for_each(|row| add_bias(row, bias));
        }
    }
}

impl Output for Band<'_, f32> {
    fn of_tokens(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.rows_mut()
    }
}

/// The map that has this one of all rows, and which one it is there.
///
/// # Panics
/// There is no such row.
fn find(maps: &[Linear], row: usize) -> (&Linear, usize) {
    let mut left = row;
    for map in maps {
        match left.checked_sub(map.weights.rows()) {
            None => return (map, left),
            Some(behind) => left = behind,
        }
    }
    panic!("row {row} is {left} rows behind the last");
}
