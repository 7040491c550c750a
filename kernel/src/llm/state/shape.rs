//! The shapes of a text's state and of the KV cache of all texts.

use alloc::vec::Vec;

use crate::llm::kernels::BATCH;
use crate::llm::kv_cache::pool::PagePool;
use crate::llm::kv_cache::{CacheType, KvShape};

/// Positions of a page where texts share prefixes: as many as a pass has rows.
pub const PAGE: usize = BATCH;

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

impl StateShape {
    /// Size in bytes of the positions that one text keeps; `None` if it overflows.
    pub fn bytes(&self) -> Option<usize> {
        self.layers
            .iter()
            .try_fold(0_usize, |sum, LayerShape::Kv(kv)| sum.checked_add(kv.bytes(kv.kept)?))
    }
}

/// The texts that a KV cache is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Texts that are processed at once.
    pub n_texts: usize,
    /// Positions of all texts: at least the context of one.
    pub n_positions: usize,
    /// Whether texts share the pages of common prefixes.
    pub shares_prefixes: bool,
}

/// The shape of the KV cache of all texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// The shape of each text's state.
    pub text: StateShape,
    /// Whether texts share the pages of common prefixes.
    ///
    /// No text does in a model whose layers all have a sliding window.
    pub shares_prefixes: bool,
    /// The groups of layers. If texts share prefixes, the first group keeps all positions.
    pub groups: Vec<GroupShape>,
    /// The group of each layer.
    pub layers: Vec<usize>,
}

/// The layers that keep the same number of positions.
///
/// The pages of a text go round: page i of a text takes the place of page `i - n_table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupShape {
    /// Positions that a text keeps.
    pub kept: usize,
    /// Positions that a row sees at most, its own included.
    pub window: usize,
    /// Positions of a page.
    pub page: usize,
    /// Pages of a text, at most.
    pub n_table: usize,
    /// Pages of all texts.
    pub n_pages: usize,
}

impl GroupShape {
    /// The first of `n` positions that a text still holds.
    ///
    /// A single page is written round and round. Several pages are replaced one by one.
    pub fn first_held(&self, n: usize) -> usize {
        match self.n_table {
            1 => n.saturating_sub(self.page),
            n_table => n.div_ceil(self.page).saturating_sub(n_table) * self.page,
        }
    }
}

impl CacheShape {
    /// The shape of a KV cache for texts of this shape.
    ///
    /// Without sharing, a text takes one page of each group, with all positions that it keeps.
    ///
    /// With sharing, a page has [`PAGE`] positions. Layers with a sliding window have pages for the
    /// windows of twice as many texts as are processed at once. The other half caches the windows
    /// of earlier texts.
    pub fn new(text: StateShape, options: CacheOptions) -> Self {
        let CacheOptions { n_texts, n_positions, shares_prefixes } = options;
        let n_ctx = text.n_ctx;
        let mut groups: Vec<GroupShape> = Vec::new();
        for LayerShape::Kv(KvShape { kept, window, .. }) in &text.layers {
            match groups.iter_mut().find(|group| group.kept == *kept) {
                Some(group) => group.window = group.window.max(*window),
                None => groups.push(GroupShape {
                    kept: *kept,
                    window: *window,
                    page: *kept,
                    n_table: 1,
                    n_pages: (n_positions / n_ctx).max(1),
                }),
            }
        }
        groups.sort_by_key(|group| core::cmp::Reverse(group.kept));
        let shares_prefixes = shares_prefixes && groups.first().is_some_and(|g| g.kept == n_ctx);
        if shares_prefixes {
            let of_text = n_ctx.div_ceil(PAGE);
            let of_rest = (n_positions % n_ctx).div_ceil(PAGE);
            let n_pages = (n_positions / n_ctx).saturating_mul(of_text).saturating_add(of_rest);
            for group in &mut groups {
                group.page = PAGE;
                // Kept positions may start at the last position of a page.
                group.n_table = of_text.min((group.kept - 1).div_ceil(PAGE) + 1);
                group.n_pages = match group.n_table < of_text {
                    true => n_pages.min(n_texts.saturating_mul(2 * group.n_table)),
                    false => n_pages,
                };
            }
        }
        let group_of = |LayerShape::Kv(kv): &LayerShape| {
            groups.iter().position(|group| group.kept == kv.kept).unwrap_or(0)
        };
        let layers = text.layers.iter().map(group_of).collect();
        CacheShape { text, shares_prefixes, groups, layers }
    }

    /// The shape of each layer, and the rows of all texts in it.
    pub fn layers(&self) -> impl Iterator<Item = (&KvShape, Option<usize>)> {
        self.text.layers.iter().zip(&self.layers).map(|(LayerShape::Kv(kv), &group)| {
            let GroupShape { page, n_pages, .. } = self.groups[group];
            (kv, page.checked_mul(n_pages))
        })
    }

    /// Size of keys and values in bytes; `None` if it overflows.
    pub fn bytes(&self) -> Option<usize> {
        self.layers().try_fold(0_usize, |sum, (kv, rows)| sum.checked_add(kv.bytes(rows?)?))
    }

    /// Size of the tables of pages in bytes, those of `n_texts` texts included.
    pub fn table_bytes(&self, n_texts: usize) -> usize {
        let of_text: usize = self.groups.iter().map(|group| group.n_table).sum();
        let of_texts = n_texts.saturating_mul(of_text).saturating_mul(size_of::<Option<u32>>());
        self.pool_bytes().saturating_add(of_texts)
    }

    fn pool_bytes(&self) -> usize {
        PagePool::bytes(self.n_pages(), self.shared_page())
    }

    /// The number of pages of each group.
    pub fn n_pages(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().map(|group| group.n_pages)
    }

    /// Positions of a page, if texts share prefixes.
    pub fn shared_page(&self) -> Option<usize> {
        self.shares_prefixes.then_some(PAGE)
    }
}
