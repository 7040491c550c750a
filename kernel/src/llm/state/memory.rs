//! The memory of the KV cache of all texts, in one allocation.

use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use super::{CacheShape, State};
use crate::llm::arena::ModelBuffer;
use crate::llm::kv_cache::pool::{KV_CACHE, Page, PagePool};
use crate::llm::kv_cache::{KvLayer, Runs, Side, Slots};
use crate::llm::{Error, with_capacity};

/// The keys and values of all texts, and the pool of their pages.
#[derive(Debug)]
pub struct KvMemory {
    shape: Arc<CacheShape>,
    /// For each layer: the start of its memory, and its layout.
    layers: Vec<(usize, KvLayer)>,
    memory: ModelBuffer,
    pool: Arc<Mutex<PagePool>>,
}

impl KvMemory {
    /// Memory without texts.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(shape: CacheShape) -> Result<Self, Error> {
        let bytes = shape.bytes().unwrap_or(usize::MAX);
        let no_memory = || Error::OutOfMemory { what: KV_CACHE, asked: bytes as u64 };
        let memory = ModelBuffer::try_new(bytes).map_err(|_| no_memory())?;
        let mut start = 0;
        let mut layers = Vec::with_capacity(shape.text.layers.len());
        for (kv, rows) in shape.layers() {
            let layer = rows.and_then(|rows| KvLayer::new(kv.clone(), rows));
            let layer = layer.ok_or_else(no_memory)?;
            let next = start + layer.bytes();
            layers.push((start, layer));
            start = next;
        }
        let pool = PagePool::try_new(shape.n_pages(), shape.shared_page())?;
        let pool = Arc::new(Mutex::new(pool));
        Ok(KvMemory { shape: Arc::new(shape), layers, memory, pool })
    }

    /// The state of an empty text.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn state(&self) -> Result<State, Error> {
        let mut tables = with_capacity(self.shape.groups.len(), KV_CACHE)?;
        for group in &self.shape.groups {
            let mut pages = with_capacity(group.n_table, KV_CACHE)?;
            pages.resize(group.n_table, None);
            tables.push(pages);
        }
        Ok(State::new(Arc::clone(&self.shape), Arc::clone(&self.pool), tables))
    }

    /// Its shape.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Size of keys and values in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Whether the pages of a state are pages of this memory.
    pub fn is_of(&self, state: &State) -> bool {
        Arc::ptr_eq(&self.pool, &state.pool)
    }

    /// Positions for which texts can take pages, cached ones included.
    pub fn n_available(&self) -> usize {
        self.shape.groups.first().map_or(0, |group| group.page * self.pool.lock().n_available(0))
    }

    /// Positions that are cached for later texts and in use by none.
    pub fn n_cached(&self) -> usize {
        self.shape.groups.first().map_or(0, |group| group.page * self.pool.lock().n_cached(0))
    }

    /// The bytes of all layers.
    #[cfg(test)]
    pub(super) fn all_bytes(&self) -> &[u8] {
        &self.memory
    }

    /// The pool of pages.
    #[cfg(test)]
    pub(super) fn pool(&self) -> &Mutex<PagePool> {
        &self.pool
    }

    fn layer_mut(&mut self, layer: usize) -> (&KvLayer, &mut [u8]) {
        let (start, layer) = &self.layers[layer];
        (layer, &mut self.memory[*start..][..layer.bytes()])
    }

    /// Fills `slots` with those of rows of a layer, in the order of `rows`.
    pub(super) fn slots<'a>(
        &'a mut self,
        layer: usize,
        rows: impl Iterator<Item = usize>,
        slots: &mut Slots<'a>,
    ) {
        let (layer, memory) = self.layer_mut(layer);
        layer.slots(memory, rows, slots);
    }

    /// Keys and values of a text in a layer.
    #[inline]
    pub(super) fn sides<'a>(&'a self, layer: usize, runs: Runs<'a>) -> (Side<'a>, Side<'a>) {
        let (start, layer) = &self.layers[layer];
        layer.sides(&self.memory[*start..][..layer.bytes()], runs)
    }

    /// Copies `n` rows in all layers of a group, from row `from` on to row `to`.
    pub(super) fn copy_rows(&mut self, group: usize, from: usize, to: usize, n: usize) {
        for layer in 0..self.layers.len() {
            if self.shape.layers[layer] == group {
                let (layer, memory) = self.layer_mut(layer);
                layer.copy_rows(memory, from..from + n, to);
            }
        }
    }

    /// Copies the first `n` rows of a page to another page of the group.
    pub(super) fn copy_page(&mut self, group: usize, from: Page, to: Page, n: usize) {
        let page = self.shape.groups[group].page;
        self.copy_rows(group, from as usize * page, to as usize * page, n);
    }

    /// Rewrites the keys of a row of a layer, `[n_embd_kv]`, with `change`.
    pub(super) fn change_keys(
        &mut self,
        layer: usize,
        row: usize,
        keys: &mut [f32],
        change: impl FnOnce(&mut [f32]),
    ) {
        let (layer, memory) = self.layer_mut(layer);
        layer.change_keys(memory, row, keys, change);
    }
}
