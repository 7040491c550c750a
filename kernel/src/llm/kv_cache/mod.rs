//! Keys and values of the positions that were processed, as F16 (llama.cpp's default), F32 or Q8_0.
//!
//! Rows have the layout of weights of these types, so the same kernels multiply them. A layer that
//! sees only a window keeps no more positions than the tokens of a batch see together.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::str::FromStr;

use crate::llm::Error;
use crate::llm::arena::ModelBuffer;
use crate::llm::kernels::{
    Activations, HeadRows, add_values_f16, add_values_f32, add_values_q8_0, dot, hadamard,
    round_f16, scores_f16, scores_f32, store_f16,
};
use crate::llm::quantize::{BLOCK, WeightType, dequantize_row, encode};

/// What the memory of a cache is called in errors.
pub const KV_CACHE: &str = "the KV cache";

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

/// The shape of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// The format of keys and values. Q8_0 takes heads of whole blocks.
    pub kind: CacheType,
    /// Positions of the text that it serves.
    pub n_ctx: usize,
    /// Heads of keys, and of values.
    pub n_head_kv: usize,
    /// Width of a head.
    pub head_size: usize,
    /// The positions that each layer keeps, the latest ones: from 1 to `n_ctx`.
    pub kept: Vec<usize>,
}

impl CacheShape {
    /// Size in bytes; `None` if it overflows.
    pub fn bytes(&self) -> Option<usize> {
        let position = self.row_bytes()?.checked_mul(2)?;
        let mut layers = self.kept.iter();
        layers.try_fold(0_usize, |sum, &kept| sum.checked_add(kept.checked_mul(position)?))
    }

    /// Bytes of the keys, or the values, of a position in one layer.
    fn row_bytes(&self) -> Option<usize> {
        self.n_head_kv.checked_mul(self.kind.weight_type().row_bytes(self.head_size))
    }

    /// How queries, keys and values are spread.
    pub fn spread(&self) -> Spread {
        let of_heads = |most: usize| {
            let width = 1 << self.head_size.trailing_zeros().min(most.trailing_zeros());
            (self.kind == CacheType::Q8_0 && width >= Spread::LEAST).then_some(width)
        };
        Spread { keys: of_heads(1 << 31), values: of_heads(Spread::LEAST) }
    }
}

/// How numbers are spread over their neighbours before they are rounded to Q8_0, so that a large one
/// does not take all accuracy from the rest of its block: as llama.cpp does where heads are wide
/// enough, by Hadamard's matrix. Queries are spread as keys are, which leaves their products as they
/// were; what the values add up to is spread back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    keys: Option<usize>,
    values: Option<usize>,
}

impl Spread {
    /// The least width over which anything is spread.
    const LEAST: usize = 64;

    /// Spreads queries or keys, or takes that back.
    pub fn keys(self, x: &mut [f32]) {
        if let Some(width) = self.keys {
            hadamard(x, width);
        }
    }

    /// Spreads values, or takes that back.
    pub fn values(self, x: &mut [f32]) {
        if let Some(width) = self.values {
            hadamard(x, width);
        }
    }
}

/// The cache of one text, all layers in one allocation: for each layer `[2, kept, n_embd_kv]`, keys
/// before values. Position p lies in row `p % kept`.
#[derive(Debug)]
pub struct KvCache {
    data: ModelBuffer,
    shape: CacheShape,
    /// Where each layer starts in `data`.
    starts: Vec<usize>,
    row_bytes: usize,
    len: usize,
}

/// Keys or values of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    kind: CacheType,
    /// Rows of positions, the later ones in the second part.
    parts: [&'a [u8]; 2],
    row_bytes: usize,
    head_bytes: usize,
}

impl<'a> Side<'a> {
    /// The part of one head at each position in turn.
    fn head(&self, head: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let range = head * self.head_bytes..(head + 1) * self.head_bytes;
        let row_bytes = self.row_bytes;
        let rows = self.parts.into_iter().flat_map(move |part| part.chunks_exact(row_bytes));
        rows.map(move |row| &row[range.clone()])
    }

    /// The rows of one head and their number, for each part.
    fn head_rows(&self, head: usize) -> [(HeadRows<'a>, usize); 2] {
        self.parts.map(|part| {
            let bytes = part.get(head * self.head_bytes..).unwrap_or_default();
            let rows = HeadRows { bytes, stride: self.row_bytes, width: self.head_bytes };
            (rows, part.len() / self.row_bytes)
        })
    }

    /// The dot products of a query, in the format that the keys' type wants, with the keys of a head
    /// at each position.
    pub fn scores(&self, head: usize, query: Activations<'_>, out: &mut [f32]) {
        match (self.kind, query) {
            (CacheType::F32, Activations::F32(query)) => {
                self.each_part(head, out, |keys, out| scores_f32(keys, query, out));
            }
            (CacheType::F16, Activations::F16(query)) => {
                self.each_part(head, out, |keys, out| scores_f16(keys, query, out));
            }
            (kind, _) => {
                for (score, key) in out.iter_mut().zip(self.head(head)) {
                    *score = dot(kind.weight_type(), key, &query);
                }
            }
        }
    }

    /// Calls `scores` for each part of the keys of a head, with the scores of its positions.
    fn each_part(
        &self,
        head: usize,
        mut out: &mut [f32],
        scores: impl Fn(HeadRows<'_>, &mut [f32]),
    ) {
        for (keys, n) in self.head_rows(head) {
            let (now, later) = out.split_at_mut(n);
            scores(keys, now);
            out = later;
        }
    }

    /// The sum of the values of a head, each times the probability of its position. ggml rounds what
    /// is multiplied with F16 to F16 too; so are the probabilities then.
    pub fn weighted_sum(&self, head: usize, probabilities: &mut [f32], out: &mut [f32]) {
        if self.kind == CacheType::F16 {
            round_f16(probabilities);
        }
        out.fill(0.0);
        let mut probabilities = &*probabilities;
        for (values, n) in self.head_rows(head) {
            let (now, later) = probabilities.split_at(n);
            match self.kind {
                CacheType::F32 => add_values_f32(values, now, out),
                CacheType::F16 => add_values_f16(values, now, out),
                CacheType::Q8_0 => add_values_q8_0(values, now, out),
            }
            probabilities = later;
        }
    }
}

/// Where the keys and the values of one position in one layer go.
#[derive(Debug)]
pub struct Slot<'a> {
    kind: CacheType,
    keys: &'a mut [u8],
    values: &'a mut [u8],
}

impl Slot<'_> {
    /// Writes them, `[n_embd_kv]` each.
    ///
    /// # Panics
    /// They are not as many as the place is for.
    pub fn write(self, keys: &[f32], values: &[f32]) {
        for (numbers, row) in [(keys, self.keys), (values, self.values)] {
            assert_eq!(self.kind.weight_type().row_bytes(numbers.len()), row.len());
            self.kind.encode(numbers, row);
        }
    }
}

impl KvCache {
    /// An empty cache.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(shape: CacheShape) -> Result<Self, Error> {
        let bytes = shape.bytes().unwrap_or(usize::MAX);
        let no_memory = |_| Error::OutOfMemory { what: KV_CACHE, asked: bytes as u64 };
        let data = ModelBuffer::try_new(bytes).map_err(no_memory)?;
        // What was allocated did not overflow.
        let row_bytes = shape.row_bytes().unwrap_or(0);
        let starts = shape.kept.iter().scan(0, |next, kept| {
            let start = *next;
            *next += 2 * kept * row_bytes;
            Some(start)
        });
        Ok(KvCache { data, starts: starts.collect(), row_bytes, shape, len: 0 })
    }

    /// Its shape.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Positions that hold keys and values of all layers, in layers that keep as many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions there are.
    pub fn n_ctx(&self) -> usize {
        self.shape.n_ctx
    }

    /// Forgets all positions.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The bytes of rows of a layer's keys (`side` 0) or values (1).
    fn rows(&self, layer: usize, side: usize, rows: Range<usize>) -> Range<usize> {
        let first = self.starts[layer] + side * self.shape.kept[layer] * self.row_bytes;
        first + rows.start * self.row_bytes..first + rows.end * self.row_bytes
    }

    /// The places in one layer of the next `n` positions, which count as free until
    /// [`KvCache::advance`].
    ///
    /// # Panics
    /// The cache has not so many left, or the layer does not keep so many.
    pub fn slots(&mut self, layer: usize, n: usize) -> impl Iterator<Item = Slot<'_>> + Send {
        let (len, kept, n_ctx) = (self.len, self.shape.kept[layer], self.shape.n_ctx);
        assert!(n <= kept && len + n <= n_ctx, "{n} positions behind {len}, of {kept} and {n_ctx}");
        let (kind, row_bytes) = (self.shape.kind, self.row_bytes);
        let side_bytes = kept * row_bytes;
        let layer = &mut self.data[self.starts[layer]..][..2 * side_bytes];
        let (keys, values) = layer.split_at_mut(side_bytes);
        let [keys, values] = [keys, values].map(|side| {
            // From the first free row up to the last one, and on at the first.
            let (before, from) = side.split_at_mut(len % kept * row_bytes);
            from.chunks_exact_mut(row_bytes).chain(before.chunks_exact_mut(row_bytes))
        });
        keys.zip(values).take(n).map(move |(keys, values)| Slot { kind, keys, values })
    }

    /// Takes the next `n` positions into use.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// Keys and values of one layer at these positions, which are among those that it keeps.
    pub fn layer(&self, layer: usize, positions: Range<usize>) -> (Side<'_>, Side<'_>) {
        let kept = self.shape.kept[layer];
        assert!(positions.len() <= kept, "{} of {kept} positions", positions.len());
        let first = positions.start % kept;
        // The rows up to the last one, and those that go on at the first.
        let end = first + positions.len();
        let parts = [first..end.min(kept), 0..end.saturating_sub(kept)];
        let side = |side| Side {
            kind: self.shape.kind,
            parts: parts.clone().map(|rows| &self.data[self.rows(layer, side, rows)]),
            row_bytes: self.row_bytes,
            head_bytes: self.row_bytes / self.shape.n_head_kv,
        };
        (side(0), side(1))
    }

    /// Drops these positions; those behind them move up. Their keys still say where they were:
    /// [`KvCache::change_keys`] is to tell them.
    ///
    /// # Panics
    /// A layer does not keep all positions, or these are not all in use.
    pub fn drop_positions(&mut self, dropped: Range<usize>) {
        assert!(dropped.end <= self.len, "{dropped:?} of {}", self.len);
        for layer in 0..self.starts.len() {
            assert_eq!(self.shape.kept[layer], self.n_ctx(), "layer {layer} keeps a window");
            for side in 0..2 {
                let to = self.rows(layer, side, dropped.clone()).start;
                let moved = self.rows(layer, side, dropped.end..self.len);
                self.data.copy_within(moved, to);
            }
        }
        self.len -= dropped.len();
    }

    /// Has `change` change the keys of a layer at a position, `[n_embd_kv]`, by way of `keys`.
    pub fn change_keys(
        &mut self,
        layer: usize,
        position: usize,
        keys: &mut [f32],
        change: impl FnOnce(&mut [f32]),
    ) {
        let row = position % self.shape.kept[layer];
        let bytes = self.rows(layer, 0, row..row + 1);
        dequantize_row(self.shape.kind.weight_type(), &self.data[bytes.clone()], keys);
        change(keys);
        self.shape.kind.encode(keys, &mut self.data[bytes]);
    }
}
