//! The state of one text: for each layer, the pages of the processed positions.
//!
//! [`KvMemory`] holds the keys and values of all texts. A text holds pages of that memory. Texts
//! with a common prefix may hold the same pages. A text writes only to pages that it alone holds.

#![forbid(unsafe_code)]

mod memory;
mod prefix;
mod shape;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use arrayvec::ArrayVec;
use spin::Mutex;

use crate::llm::Error;
use crate::llm::kernels::BATCH;
pub use crate::llm::kv_cache::pool::KV_CACHE;
use crate::llm::kv_cache::pool::{Page, PagePool};
use crate::llm::kv_cache::{Runs, Side, Slots};
pub use memory::KvMemory;
pub use shape::{CacheOptions, CacheShape, GroupShape, LayerShape, PAGE, StateShape};

/// The state of one text.
///
/// [`KvMemory::state`] makes a state. A state that is dropped releases its pages.
#[derive(Debug)]
pub struct State {
    shape: Arc<CacheShape>,
    pool: Arc<Mutex<PagePool>>,
    /// The pages of the text in each group.
    tables: Vec<Table>,
    /// Positions that all layers hold.
    len: usize,
    /// Positions up to which the text may write, from `len` on.
    reserved: usize,
    /// Pages at the start of the text that are in the prefix index, once `len` has passed them.
    ///
    /// A text that goes on within one of them takes that page out of the number.
    n_indexed: usize,
    /// Positions at the start of the text that depend on nothing but their tokens.
    ///
    /// A context shift leaves keys and values of tokens that were dropped.
    n_pure: usize,
}

/// The pages of a text in one group.
#[derive(Debug)]
struct Table {
    /// Page i of the text is in place `i % n_table`.
    pages: Vec<Option<Page>>,
    /// The first position whose row is still held.
    start: usize,
    /// The number of the page behind the last one held.
    end: usize,
}

impl State {
    /// The state of an empty text, with a table of empty places for each group.
    fn new(
        shape: Arc<CacheShape>,
        pool: Arc<Mutex<PagePool>>,
        tables: Vec<Vec<Option<Page>>>,
    ) -> Self {
        let tables = tables.into_iter().map(|pages| Table { pages, start: 0, end: 0 }).collect();
        State { shape, pool, tables, len: 0, reserved: 0, n_indexed: 0, n_pure: usize::MAX }
    }

    /// Its shape.
    pub fn shape(&self) -> &StateShape {
        &self.shape.text
    }

    /// Positions of the context.
    pub fn n_ctx(&self) -> usize {
        self.shape.text.n_ctx
    }

    /// Positions in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all positions, and releases all pages.
    pub fn clear(&mut self) {
        self.release_from(0);
    }

    /// Forgets the positions from `n` on, and returns how many remain: `n`, or 0.
    ///
    /// A layer with a window may have lost positions that the next row sees. Then all positions are
    /// forgotten. The positions of the last batch can always be forgotten alone.
    pub fn truncate(&mut self, n: usize) -> usize {
        if n < self.len {
            let mut groups = self.tables.iter().zip(&self.shape.groups);
            let fits =
                groups.all(|(table, group)| table.start <= (n + 1).saturating_sub(group.window));
            self.release_from(if fits { n } else { 0 });
        }
        self.len
    }

    /// Keeps the first `n` positions, and releases the pages behind them, the last ones first.
    fn release_from(&mut self, n: usize) {
        let mut pool = self.pool.lock();
        for (number, (table, group)) in self.tables.iter_mut().zip(&self.shape.groups).enumerate() {
            let n_pages = n.div_ceil(group.page);
            let released = match (group.n_table, n) {
                // All positions share one page.
                (1, 0) => 0..table.end.min(1),
                (1, _) => 0..0,
                (n_table, _) => n_pages.max(table.end.saturating_sub(n_table))..table.end,
            };
            for index in released.rev() {
                if let Some(page) = table.pages[index % group.n_table].take() {
                    pool.release(number, page);
                }
            }
            table.end = table.end.min(n_pages);
            table.start = if n == 0 { 0 } else { table.start };
        }
        drop(pool);
        (self.len, self.reserved) = (n, n);
        if n <= self.n_pure {
            self.n_pure = usize::MAX;
        }
    }

    /// Takes pages for the next `n` positions, and returns for how many there are pages.
    ///
    /// If too few pages are free, the positions up to the end of the present page remain.
    ///
    /// # Panics
    /// Fewer than `n` positions are left in the context.
    pub fn reserve(&mut self, memory: &mut KvMemory, n: usize) -> usize {
        let (len, n_ctx) = (self.len, self.n_ctx());
        assert!(len + n <= n_ctx, "{n} positions behind {len}, of {n_ctx}");
        if len + n <= self.reserved {
            return n;
        }
        let page = self.shape.groups[0].page;
        let up_to_end = n.min(page - len % page);
        for n in [n, up_to_end] {
            let end = len + n;
            let mut groups = 0..self.tables.len();
            if groups.all(|group| {
                let page = self.shape.groups[group].page;
                (len / page..end.div_ceil(page)).all(|index| self.own_page(memory, group, index))
            }) {
                for (table, group) in self.tables.iter_mut().zip(&self.shape.groups) {
                    table.start = table.start.max(group.first_held(end));
                }
                self.reserved = end;
                return n;
            }
        }
        0
    }

    /// Makes page `index` of a group one that this text may write to.
    ///
    /// The page is taken if the text has none, and copied if others hold it. Returns false if no
    /// page is free.
    fn own_page(&mut self, memory: &mut KvMemory, group: usize, index: usize) -> bool {
        let GroupShape { page: size, n_table, .. } = self.shape.groups[group];
        let table = &mut self.tables[group];
        let mut pool = self.pool.lock();
        let place = index % n_table;
        // A new page goes round to the place of a page that the window has left.
        let is_new = index >= table.end;
        let held = table.pages[place];
        let is_own = held.is_some_and(|page| match is_new {
            true => pool.is_exclusive(group, page),
            false => pool.make_exclusive(group, page),
        });
        if !is_own {
            let before = table.pages[(index + n_table - 1) % n_table];
            if let (Some(page), true) = (held, is_new) {
                table.pages[place] = None;
                pool.release(group, page);
                // Its positions are lost, even if no page is free for the new ones.
                table.start = table.start.max((index + 1).saturating_sub(n_table) * size);
            }
            let Some(page) = pool.take(group, before) else { return false };
            if let (Some(shared), false) = (held, is_new) {
                let n = self.len.saturating_sub(index * size).min(size);
                memory.copy_page(group, shared, page, n);
                pool.release(group, shared);
            }
            table.pages[place] = Some(page);
        }
        if is_new {
            table.end = index + 1;
            if n_table > 1 {
                table.start = table.start.max((index + 1).saturating_sub(n_table) * size);
            }
        }
        if group == 0 {
            self.n_indexed = self.n_indexed.min(index);
        }
        true
    }

    /// Takes the next `n` positions into use.
    ///
    /// # Panics
    /// [`State::reserve`] gave fewer positions.
    pub fn advance(&mut self, n: usize) {
        assert!(self.len + n <= self.reserved, "{n} positions, of {}", self.reserved - self.len);
        self.len += n;
    }

    /// The rows of positions in a layer.
    fn runs(&self, layer: usize, positions: Range<usize>) -> Runs<'_> {
        let group = self.shape.layers[layer];
        Runs::new(&self.tables[group].pages, self.shape.groups[group].page, positions)
    }

    /// The row of one position in a layer.
    fn row(&self, layer: usize, position: usize) -> usize {
        self.runs(layer, position..position + 1).next().map_or(0, |run| run.start)
    }

    /// Keys and values of a layer at these positions, which the layer must still hold.
    #[inline]
    pub fn kv<'a>(
        &'a self,
        memory: &'a KvMemory,
        layer: usize,
        positions: Range<usize>,
    ) -> (Side<'a>, Side<'a>) {
        let held = self.tables[self.shape.layers[layer]].start..self.reserved;
        assert!(
            held.start <= positions.start && positions.end <= held.end,
            "positions {positions:?} of {held:?}"
        );
        memory.sides(layer, self.runs(layer, positions))
    }

    /// Drops these positions, and moves up the positions behind them.
    ///
    /// Keys still hold the rotation of their old positions: see [`State::change_keys`]. The text
    /// then holds the pages from `dropped.start` on alone.
    ///
    /// # Errors
    /// [`Error::OutOfPages`] if a page must be copied and none is free; the positions are as
    /// before.
    ///
    /// # Panics
    /// A layer does not keep all positions, or `dropped` is not in use.
    pub fn drop_positions(
        &mut self,
        memory: &mut KvMemory,
        dropped: Range<usize>,
    ) -> Result<(), Error> {
        let (len, n_ctx) = (self.len, self.n_ctx());
        assert!(dropped.end <= len, "{dropped:?} of {len}");
        for (layer, &group) in self.shape.layers.iter().enumerate() {
            assert_eq!(self.shape.groups[group].kept, n_ctx, "layer {layer} keeps a window");
        }
        let (page, left) = (self.shape.groups[0].page, len - dropped.len());
        let changed = dropped.start / page..left.div_ceil(page);
        let pool = self.pool.lock();
        let pages = self.tables[0].pages.get(changed.clone()).unwrap_or_default();
        let n_copied = pages.iter().flatten().filter(|page| !pool.is_alone(0, **page)).count();
        if n_copied > pool.n_available(0) {
            return Err(Error::OutOfPages);
        }
        drop(pool);
        // From the last one on, as a page leaves the index with those behind it.
        for index in changed.rev() {
            self.own_page(memory, 0, index);
        }
        let (mut from, mut to) = (dropped.end, dropped.start);
        while from < len {
            let n = (len - from).min(page - from % page).min(page - to % page);
            memory.copy_rows(0, self.row(0, from), self.row(0, to), n);
            (from, to) = (from + n, to + n);
        }
        let n_pure = self.n_pure.min(dropped.start);
        self.release_from(left);
        self.n_pure = n_pure;
        Ok(())
    }

    /// Rewrites a layer's keys at a position, `[n_embd_kv]`, with `change`.
    ///
    /// The text must hold the position's page alone. `keys` is scratch space for the dequantised
    /// keys.
    pub fn change_keys(
        &mut self,
        memory: &mut KvMemory,
        layer: usize,
        position: usize,
        keys: &mut [f32],
        change: impl FnOnce(&mut [f32]),
    ) {
        memory.change_keys(layer, self.row(layer, position), keys, change);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The texts of a pass: their states, and the memory of their keys and values.
#[derive(Debug)]
pub struct Texts<'a> {
    /// The memory.
    pub memory: &'a mut KvMemory,
    /// The states.
    pub states: ArrayVec<&'a mut State, BATCH>,
}

impl Texts<'_> {
    /// Fills `slots` with those of positions in a layer.
    ///
    /// A position is a number of a state, and a place in the text of that state that was reserved.
    pub fn slots<'a>(
        &'a mut self,
        layer: usize,
        positions: impl Iterator<Item = (usize, usize)>,
        slots: &mut Slots<'a>,
    ) {
        let row = |(state, position): (usize, usize)| self.states[state].row(layer, position);
        self.memory.slots(layer, positions.map(row), slots);
    }

    /// Keys and values of a state in a layer: see [`State::kv`].
    #[inline]
    pub fn kv(&self, state: usize, layer: usize, positions: Range<usize>) -> (Side<'_>, Side<'_>) {
        self.states[state].kv(self.memory, layer, positions)
    }
}
