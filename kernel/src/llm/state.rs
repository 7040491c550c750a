//! The state of one text: for each layer, the KV cache of the processed positions.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::ops::Range;

use crate::llm::Error;
use crate::llm::arena::ModelBuffer;
use crate::llm::kv_cache::{CacheType, KvLayer, KvShape, Side, Slot};

/// The name of a state's memory in errors.
pub const KV_CACHE: &str = "the KV cache";

/// The shape of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateShape {
    /// Positions of the text: the context.
    pub n_ctx: usize,
    /// The format of keys and values.
    pub kv_cache: CacheType,
    /// The shape of each layer's state.
    pub layers: Vec<LayerShape>,
}

/// The shape of one layer's state. The layer's mixer decides on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerShape {
    /// Attention: keys and values of the latest positions.
    Kv(KvShape),
}

impl LayerShape {
    /// Size in bytes; `None` if it overflows.
    fn bytes(&self) -> Option<usize> {
        match self {
            LayerShape::Kv(shape) => shape.bytes(),
        }
    }
}

impl StateShape {
    /// Size in bytes; `None` if it overflows.
    pub fn bytes(&self) -> Option<usize> {
        self.layers.iter().try_fold(0_usize, |sum, layer| sum.checked_add(layer.bytes()?))
    }
}

/// The states of all layers for one text, in one allocation.
#[derive(Debug)]
pub struct State {
    shape: StateShape,
    /// For each layer: the start of its memory, and its layout.
    layers: Vec<(usize, LayerState)>,
    memory: ModelBuffer,
    /// Positions that all layers hold.
    len: usize,
}

/// The memory of one layer.
#[derive(Debug)]
enum LayerState {
    Kv(KvLayer),
}

impl State {
    /// The state of an empty text.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(shape: StateShape) -> Result<Self, Error> {
        let bytes = shape.bytes().unwrap_or(usize::MAX);
        let no_memory = || Error::OutOfMemory { what: KV_CACHE, asked: bytes as u64 };
        let memory = ModelBuffer::try_new(bytes).map_err(|_| no_memory())?;
        let mut start = 0;
        let mut layers = Vec::with_capacity(shape.layers.len());
        for layer in &shape.layers {
            let LayerShape::Kv(kv) = layer;
            let kv = KvLayer::new(kv.clone()).ok_or_else(no_memory)?;
            let next = start + kv.bytes();
            layers.push((start, LayerState::Kv(kv)));
            start = next;
        }
        Ok(State { shape, layers, memory, len: 0 })
    }

    /// Its shape.
    pub fn shape(&self) -> &StateShape {
        &self.shape
    }

    /// Positions of the context.
    pub fn n_ctx(&self) -> usize {
        self.shape.n_ctx
    }

    /// Positions in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all positions.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Forgets the positions from `n` on, and returns how many remain: `n`, or 0.
    ///
    /// A layer with a window may have overwritten positions that the next row sees. Then all
    /// positions are forgotten. The positions of the last batch can always be forgotten alone.
    pub fn truncate(&mut self, n: usize) -> usize {
        if n < self.len {
            let len = self.len;
            let fits =
                self.layers.iter().all(|(_, LayerState::Kv(kv))| kv.shape().can_truncate(len, n));
            self.len = if fits { n } else { 0 };
        }
        self.len
    }

    fn layer(&self, layer: usize) -> (&KvLayer, &[u8]) {
        let (start, LayerState::Kv(kv)) = &self.layers[layer];
        (kv, &self.memory[*start..][..kv.bytes()])
    }

    fn layer_mut(&mut self, layer: usize) -> (&KvLayer, &mut [u8]) {
        let (start, LayerState::Kv(kv)) = &self.layers[layer];
        (kv, &mut self.memory[*start..][..kv.bytes()])
    }

    /// The slots of a layer for the next `n` positions.
    ///
    /// The positions are free until [`State::advance`].
    ///
    /// # Panics
    /// Fewer than `n` positions are left, or the layer keeps fewer.
    pub fn slots(&mut self, layer: usize, n: usize) -> impl Iterator<Item = Slot<'_>> + Send {
        let (len, n_ctx) = (self.len, self.shape.n_ctx);
        assert!(len + n <= n_ctx, "{n} positions behind {len}, of {n_ctx}");
        let (kv, memory) = self.layer_mut(layer);
        kv.slots(memory, len, n)
    }

    /// Takes the next `n` positions into use.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// Keys and values of a layer at these positions, which the layer must still keep.
    pub fn kv(&self, layer: usize, positions: Range<usize>) -> (Side<'_>, Side<'_>) {
        let (kv, memory) = self.layer(layer);
        kv.sides(memory, positions)
    }

    /// Drops these positions, and moves up the positions behind them.
    ///
    /// Keys still hold the rotation of their old positions: see [`State::change_keys`].
    ///
    /// # Panics
    /// A layer does not keep all positions, or `dropped` is not in use.
    pub fn drop_positions(&mut self, dropped: Range<usize>) {
        let len = self.len;
        assert!(dropped.end <= len, "{dropped:?} of {len}");
        for layer in 0..self.layers.len() {
            let n_ctx = self.shape.n_ctx;
            let (kv, memory) = self.layer_mut(layer);
            assert_eq!(kv.shape().kept, n_ctx, "layer {layer} keeps a window");
            kv.drop_positions(memory, dropped.clone(), len);
        }
        self.len -= dropped.len();
    }

    /// Rewrites a layer's keys at a position, `[n_embd_kv]`, with `change`.
    ///
    /// `keys` is scratch space for the dequantised keys.
    pub fn change_keys(
        &mut self,
        layer: usize,
        position: usize,
        keys: &mut [f32],
        change: impl FnOnce(&mut [f32]),
    ) {
        let (kv, memory) = self.layer_mut(layer);
        kv.change_keys(memory, position, keys, change);
    }
}
