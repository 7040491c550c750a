//! The resources of a forward pass, and its matrix products.

use core::ops::Range;

use super::Linear;
use super::scratch::Quantized;
use crate::llm::arena::ModelBytes;
use crate::llm::kernels::{self, OutputRows, add_bias};
use crate::llm::quantize::PANEL_ROWS;
use crate::llm::workers::{Band, Bands, CALLER, SingleThread, Workers};

/// A point of a forward pass at which an observer gets the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The embeddings.
    Embedding,
    /// The output of a layer.
    Layer(usize),
    /// The output's norm.
    OutputNorm,
}

/// Gets the states of the rows at a stage: `[n_rows, n_embd]`.
pub type Observer<'a> = dyn Fn(Stage, &[f32]) + Sync + 'a;

/// Called by the thread that runs a pass, between its stages and within long ones.
///
/// The hook must be short, and must not use the pass's threads.
pub type StageHook<'a> = dyn Fn() + Sync + 'a;

/// The resources of a forward pass: weights and threads.
#[derive(Clone, Copy)]
pub struct Compute<'a> {
    /// The model's sources: its file, or the parts of a split file.
    pub sources: &'a [ModelBytes],
    /// The threads.
    pub workers: &'a dyn Workers,
    /// Gets the states, if there is an observer.
    pub observer: Option<&'a Observer<'a>>,
    /// Called between stages, if there is a hook.
    pub on_stage: Option<&'a StageHook<'a>>,
}

/// A chunk of a matrix starts at a multiple of this many rows: with a row panel.
pub const ROWS: usize = PANEL_ROWS;
/// The least multiply-adds of a claim.
const LEAST_CLAIMED: usize = 1 << 13;
/// The most multiply-adds of a claim if there is a [`StageHook`].
///
/// A claim of so many takes one core up to some 10 ms, under emulation too.
const MOST_CLAIMED: usize = 1 << 22;
/// Guided scheduling: each claim takes 1 / (2 * threads) of the remaining rows.
///
/// So the last claims are small.
const SHARES_PER_WORKER: usize = 2;

impl<'a> Compute<'a> {
    /// Calls the stage hook. For the thread that runs the pass.
    pub fn call_on_stage(&self) {
        if let Some(on_stage) = self.on_stage {
            on_stage();
        }
    }

    /// The threads for `items` of `work` multiply-adds each.
    ///
    /// The caller alone if sharing costs more than it saves.
    pub fn workers_for(&self, items: usize, work: usize) -> &'a dyn Workers {
        match items > 1 && items.saturating_mul(work) >= self.workers.least_work() {
            true => self.workers,
            false => &SingleThread,
        }
    }

    /// Applies linear maps to `n` vectors: see [`kernels::multiply`].
    ///
    /// The outputs of all maps, one map after the other, are cut into `parts` of the same width:
    /// `out` is `[n, parts, width]`. `finish` gets each band of the `n * parts` rows once the band
    /// is complete.
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
        // All parts of an output column have the same number of inputs.
        let work = maps.iter().map(|map| map.weights.columns()).max().unwrap_or(0) * n * parts;
        let workers = self.workers_for(width.div_ceil(ROWS), work * ROWS);
        let shares = match workers.count() {
            1 => 1,
            count => count * SHARES_PER_WORKER,
        };
        let least = LEAST_CLAIMED / work.max(1);
        let most = match self.on_stage {
            Some(_) => MOST_CLAIMED / work.max(1),
            None => usize::MAX,
        };
        let end = |first: usize| {
            let share = (width - first).div_ceil(shares).max(least).min(most);
            let share = share.next_multiple_of(ROWS);
            let ends = (0..parts).map(|part| {
                let (map, row) = find(maps, part * width + first);
                first + share.min(map.weights.rows() - row)
            });
            ends.min().unwrap_or(width)
        };
        x.interleave(maps.iter().map(|map| map.weights.kind()), n);
        let x = &*x;
        let bands = Bands::new(out, width);
        workers.run(&|thread| {
            while let Some(mut band) = bands.claim(end) {
                let Range { start, end } = band.columns();
                for part in 0..parts {
                    let (map, row) = find(maps, part * width + start);
                    let rows = row..row + (end - start);
                    self.multiply_rows(map, rows, x, &mut band.every(parts, part));
                }
                finish(&mut band);
                if thread == CALLER {
                    self.call_on_stage();
                }
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
        kernels::multiply(&weights.rows_in(self.sources, rows.clone()), &x, out);
        if let Some(bias) = bias {
            let bias = &bias.values(self.sources)[rows];
            out.rows_mut().for_each(|row| add_bias(row, bias));
        }
    }
}

impl OutputRows for Band<'_, f32> {
    fn of_tokens(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.rows_mut()
    }
}

/// The map that holds a row of all maps' rows, and the row's number in the map.
///
/// # Panics
/// The row does not exist.
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
