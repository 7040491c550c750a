//! The KV cache of an attention layer, in F16 (llama.cpp's default), F32 or Q8_0.
//!
//! Rows have the layout of weights of these types, so the same kernels multiply them. The rows of a
//! text lie in pages, whose numbers [`PagePool`](pool::PagePool) gives out.
//! [`KvMemory`](crate::llm::state::KvMemory) holds the memory of all layers and texts.

#![forbid(unsafe_code)]

pub mod pool;
#[cfg(test)]
mod tests;

use core::fmt;
use core::ops::Range;
use core::str::FromStr;

use arrayvec::ArrayVec;

use self::pool::Page;
use crate::llm::kernels::{
    Activations, BATCH, HeadRows, TOGETHER, add_values_f16, add_values_f32, add_values_q8_0, dot,
    hadamard, round_f16, scores_f16, scores_f32, store_f16,
};
use crate::llm::quantize::{BLOCK, WeightType, dequantize_row, encode};

/// The formats of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// 32-bit floating point: nothing is rounded.
    F32,
    /// 16-bit floating point.
    #[default]
    F16,
    /// Signed bytes with one scale for 32 numbers of a head.
    Q8_0,
}

impl CacheType {
    /// All of them.
    pub const ALL: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::Q8_0];

    /// The name in settings: "f16".
    pub const fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
        }
    }

    /// The type of weights that has the same layout.
    pub const fn weight_type(self) -> WeightType {
        match self {
            CacheType::F32 => WeightType::F32,
            CacheType::F16 => WeightType::F16,
            CacheType::Q8_0 => WeightType::Q8_0,
        }
    }

    /// Writes a row of whole blocks.
    fn encode(self, x: &[f32], row: &mut [u8]) {
        match self {
            CacheType::F32 => {
                for (bytes, x) in row.as_chunks_mut().0.iter_mut().zip(x) {
                    *bytes = x.to_le_bytes();
                }
            }
            CacheType::F16 => store_f16(x, row.as_chunks_mut().0),
            CacheType::Q8_0 => {
                for (block, x) in row.as_chunks_mut().0.iter_mut().zip(x.as_chunks::<BLOCK>().0) {
                    *block = encode::q8_0(x);
                }
            }
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CacheType {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(())
    }
}

/// The shape of one layer's keys and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// The format of keys and values. Q8_0 takes heads of whole blocks.
    pub kind: CacheType,
    /// Heads of keys, and of values.
    pub n_head_kv: usize,
    /// Width of a head.
    pub head_size: usize,
    /// Positions that the layer keeps, the latest ones: 1 or more.
    pub kept: usize,
    /// Positions that a row sees at most, its own included: up to `kept`.
    pub window: usize,
}

impl KvShape {
    /// Size of `n_rows` positions in bytes; `None` if it overflows.
    pub fn bytes(&self, n_rows: usize) -> Option<usize> {
        self.row_bytes()?.checked_mul(2)?.checked_mul(n_rows)
    }

    /// Bytes of the keys, or the values, of one position.
    fn row_bytes(&self) -> Option<usize> {
        self.n_head_kv.checked_mul(self.kind.weight_type().row_bytes(self.head_size))
    }

    /// The rotation of queries, keys and values.
    pub fn rotation(&self) -> HadamardRotation {
        let of_heads = |most: usize| {
            let width = 1 << self.head_size.trailing_zeros().min(most.trailing_zeros());
            (self.kind == CacheType::Q8_0 && width >= HadamardRotation::LEAST).then_some(width)
        };
        HadamardRotation { keys: of_heads(1 << 31), values: of_heads(HadamardRotation::LEAST) }
    }
}

/// Hadamard rotation of Q, K and V before Q8_0 quantisation, to reduce outliers.
///
/// llama.cpp does so where heads are wide enough. Queries and keys are rotated alike, so their
/// products stay. The weighted sum of values is rotated back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HadamardRotation {
    keys: Option<usize>,
    values: Option<usize>,
}

impl HadamardRotation {
    /// The least width that is rotated.
    const LEAST: usize = 64;

    /// Rotates queries or keys; twice is the identity.
    pub fn keys(self, x: &mut [f32]) {
        if let Some(width) = self.keys {
            hadamard(x, width);
        }
    }

    /// Rotates values; twice is the identity.
    pub fn values(self, x: &mut [f32]) {
        if let Some(width) = self.values {
            hadamard(x, width);
        }
    }
}

/// Positions of a text, as runs of rows that lie one after the other in memory.
///
/// Position p is row `p % page` of the page in `pages[p / page % pages.len()]`. Neighbouring pages
/// are one run.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    pages: &'a [Option<Page>],
    page: usize,
    positions: Range<usize>,
}

impl<'a> Runs<'a> {
    /// Positions of a text whose pages have `page` positions each.
    pub fn new(pages: &'a [Option<Page>], page: usize, positions: Range<usize>) -> Self {
        Runs { pages, page, positions }
    }

    /// The row of a position.
    ///
    /// # Panics
    /// The text holds no page of that position.
    fn row(&self, position: usize) -> usize {
        match self.pages[position / self.page % self.pages.len()] {
            Some(page) => page as usize * self.page + position % self.page,
            None => panic!("no page of position {position}"),
        }
    }

    /// The run from position `start` on, which is before the end.
    fn run_at(&self, start: usize) -> Range<usize> {
        let left = self.positions.end - start;
        let first = self.row(start);
        let mut n = self.page - start % self.page;
        while n < left && self.row(start + n) == first + n {
            n += self.page;
        }
        first..first + n.min(left)
    }
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.positions.start;
        (start < self.positions.end).then(|| {
            let run = self.run_at(start);
            self.positions.start += run.len();
            run
        })
    }
}

/// Keys or values of a text in a layer.
#[derive(Clone, Debug)]
pub struct Side<'a> {
    kind: CacheType,
    /// The rows of all texts.
    rows: &'a [u8],
    /// The rows of this text.
    runs: Runs<'a>,
    row_bytes: usize,
    head_bytes: usize,
}

impl<'a> Side<'a> {
    /// The part of one head at each position.
    pub(in crate::llm) fn head(&self, head: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let range = head * self.head_bytes..(head + 1) * self.head_bytes;
        let (rows, row_bytes) = (self.rows, self.row_bytes);
        let parts = self.runs.clone().map(move |run| run.start * row_bytes..run.end * row_bytes);
        let rows = parts.flat_map(move |part| rows[part].chunks_exact(row_bytes));
        rows.map(move |row| &row[range.clone()])
    }

    /// Calls `work` for each run of a head's rows, with the places of the run's positions.
    fn each_run(&self, head: usize, mut work: impl FnMut(HeadRows<'a>, Range<usize>)) {
        let Range { start, end } = self.runs.positions;
        let (stride, width) = (self.row_bytes, self.head_bytes);
        let mut first = start;
        while first < end {
            let run = self.runs.run_at(first);
            let n = run.len();
            let bytes = &self.rows[run.start * stride + head * width..run.end * stride];
            work(HeadRows { bytes, stride, width }, first - start..first - start + n);
            first += n;
        }
    }

    /// Attention scores: dot products of queries with a head's keys.
    ///
    /// There are up to [`TOGETHER`] queries.
    ///
    /// # Panics
    /// The queries are not in the format that the keys' type takes.
    pub fn scores(&self, head: usize, queries: &[Activations<'_>], outs: &mut [&mut [f32]]) {
        let scores = match self.kind {
            CacheType::F32 => scores_f32,
            CacheType::F16 => scores_f16,
            CacheType::Q8_0 => {
                for (query, out) in queries.iter().zip(outs) {
                    for (score, key) in out.iter_mut().zip(self.head(head)) {
                        *score = dot(WeightType::Q8_0, key, query);
                    }
                }
                return;
            }
        };
        let floats = queries.iter().map(|query| match (self.kind, query) {
            (CacheType::F32, Activations::F32(query)) => *query,
            (CacheType::F16, Activations::F16(query)) => *query,
            (kind, _) => panic!("keys in {kind} with queries in {:?}", query.kind()),
        });
        let floats: ArrayVec<&[f32], TOGETHER> = floats.collect();
        self.each_run(head, |keys, places| {
            let outs = outs.iter_mut().map(|out| &mut out[places.clone()]);
            scores(keys, &floats, &mut outs.collect::<ArrayVec<_, TOGETHER>>());
        });
    }

    /// The sums of a head's values, each weighted by probabilities of the positions.
    ///
    /// There are up to [`TOGETHER`] sums. With values in F16, probabilities are rounded to F16
    /// first, as in ggml.
    pub fn weighted_sums(
        &self,
        head: usize,
        probabilities: &mut [&mut [f32]],
        outs: &mut [&mut [f32]],
    ) {
        if self.kind == CacheType::F16 {
            probabilities.iter_mut().for_each(|probabilities| round_f16(probabilities));
        }
        outs.iter_mut().for_each(|out| out.fill(0.0));
        self.each_run(head, |values, places| {
            let probabilities = probabilities.iter().map(|of_all| &of_all[places.clone()]);
            let probabilities: ArrayVec<&[f32], TOGETHER> = probabilities.collect();
            match self.kind {
                CacheType::F32 => add_values_f32(values, &probabilities, outs),
                CacheType::F16 => add_values_f16(values, &probabilities, outs),
                CacheType::Q8_0 => add_values_q8_0(values, &probabilities, outs),
            }
        });
    }
}

/// The place of one position's keys and values in one layer.
#[derive(Debug)]
pub struct Slot<'a> {
    kind: CacheType,
    keys: &'a mut [u8],
    values: &'a mut [u8],
}

impl Slot<'_> {
    /// Writes keys and values: `[n_embd_kv]` each.
    ///
    /// # Panics
    /// `keys` or `values` have another length than `n_embd_kv`.
    pub fn write(&mut self, keys: &[f32], values: &[f32]) {
        for (numbers, row) in [(keys, &mut *self.keys), (values, &mut *self.values)] {
            assert_eq!(self.kind.weight_type().row_bytes(numbers.len()), row.len());
            self.kind.encode(numbers, row);
        }
    }
}

/// The slots of a pass in one layer, each of them present.
pub type Slots<'a> = ArrayVec<Option<Slot<'a>>, BATCH>;

/// One layer's keys and values of all texts.
///
/// The memory is `[2, n_rows, n_embd_kv]`, keys before values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLayer {
    shape: KvShape,
    n_rows: usize,
    row_bytes: usize,
}

impl KvLayer {
    /// A layer of this shape with `n_rows` rows; `None` if its size overflows.
    pub fn new(shape: KvShape, n_rows: usize) -> Option<Self> {
        shape.bytes(n_rows)?;
        Some(KvLayer { row_bytes: shape.row_bytes()?, shape, n_rows })
    }

    /// Its shape.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        2 * self.side_bytes()
    }

    /// Bytes of the keys, or the values.
    fn side_bytes(&self) -> usize {
        self.n_rows * self.row_bytes
    }

    /// The bytes of rows of the keys (`side` 0) or the values (1).
    fn rows(&self, side: usize, rows: Range<usize>) -> Range<usize> {
        let first = side * self.side_bytes();
        first + rows.start * self.row_bytes..first + rows.end * self.row_bytes
    }

    /// Fills `slots` with those of rows, in the order of `rows`: up to [`BATCH`] rows.
    ///
    /// # Panics
    /// A row does not exist, or is named twice.
    pub fn slots<'a>(
        &self,
        memory: &'a mut [u8],
        rows: impl Iterator<Item = usize>,
        slots: &mut Slots<'a>,
    ) {
        // Arrays are filled in their place, as a token would pay for each copy of them.
        let mut order = ArrayVec::<(usize, usize), BATCH>::new();
        order.extend(rows.enumerate().map(|(i, row)| (row, i)));
        // Rows are split off the memory from the first one to the last one.
        order.sort_unstable();
        slots.clear();
        slots.extend(order.iter().map(|_| None));
        let (keys, values) = memory.split_at_mut(self.side_bytes());
        let mut rows =
            keys.chunks_exact_mut(self.row_bytes).zip(values.chunks_exact_mut(self.row_bytes));
        let mut next = 0;
        for &(row, i) in &order {
            assert!(row >= next, "row {row} is named twice");
            let Some((keys, values)) = rows.nth(row - next) else {
                panic!("row {row} of {}", self.n_rows)
            };
            slots[i] = Some(Slot { kind: self.shape.kind, keys, values });
            next = row + 1;
        }
    }

    /// Keys and values of a text.
    #[inline]
    pub fn sides<'a>(&self, memory: &'a [u8], runs: Runs<'a>) -> (Side<'a>, Side<'a>) {
        let (keys, values) = memory.split_at(self.side_bytes());
        let side = |rows, runs| Side {
            kind: self.shape.kind,
            rows,
            runs,
            row_bytes: self.row_bytes,
            head_bytes: self.row_bytes / self.shape.n_head_kv,
        };
        (side(keys, runs.clone()), side(values, runs))
    }

    /// Copies rows to the rows from `to` on, which may overlap with them.
    pub fn copy_rows(&self, memory: &mut [u8], rows: Range<usize>, to: usize) {
        for side in 0..2 {
            let to = self.rows(side, to..to).start;
            memory.copy_within(self.rows(side, rows.clone()), to);
        }
    }

    /// Rewrites the keys of a row, `[n_embd_kv]`, with `change`.
    ///
    /// `keys` is scratch space for the dequantised keys.
    pub fn change_keys(
        &self,
        memory: &mut [u8],
        row: usize,
        keys: &mut [f32],
        change: impl FnOnce(&mut [f32]),
    ) {
        let bytes = self.rows(0, row..row + 1);
        dequantize_row(self.shape.kind.weight_type(), &memory[bytes.clone()], keys);
        change(keys);
        self.shape.kind.encode(keys, &mut memory[bytes]);
    }
}
