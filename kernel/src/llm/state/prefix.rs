//! Prefixes that texts share.

use super::{KvMemory, State};
use crate::llm::kv_cache::pool::{Page, PagePool};

/// A node of the prefix index, and the number of its first tokens that fit.
type Last = (Page, usize);

impl State {
    /// Adds the whole pages of the text to the prefix index.
    ///
    /// `tokens` are those of the text. If another text has computed a page of the same prefix, this
    /// text holds that page from now on, and releases its own. Both have the same bits, as a row's
    /// bits depend on its prefix only.
    pub fn share(&mut self, tokens: &[u32]) {
        let Some(page) = self.shape.shared_page() else { return };
        let n_pages = self.len.min(self.n_pure) / page;
        if self.n_indexed >= n_pages {
            return;
        }
        let mut pool = self.pool.lock();
        let [first, others @ ..] = &mut self.tables[..] else { return };
        while self.n_indexed < n_pages {
            let index = self.n_indexed;
            let parent = index.checked_sub(1).and_then(|before| first.pages[before]);
            if parent.is_some_and(|parent| !pool.is_indexed(0, parent)) {
                return;
            }
            let Some(own) = first.pages[index] else { return };
            let tokens = &tokens[index * page..][..page];
            let node = match pool.best_child(parent, tokens) {
                Some((node, n)) if n == page => {
                    pool.hold(0, node);
                    pool.release(0, own);
                    first.pages[index] = Some(node);
                    node
                }
                _ => {
                    pool.insert(parent, own, tokens);
                    own
                }
            };
            for (group, table) in (1..).zip(&*others) {
                let is_held = table.start <= index * page && index < table.end;
                let own = table.pages[index % table.pages.len()].filter(|_| is_held);
                if let (Some(own), None) = (own, pool.page_of(group, node)) {
                    pool.attach(group, node, own);
                }
            }
            self.n_indexed += 1;
        }
    }

    /// Tokens at the start of `tokens` that the index knows: an upper bound for
    /// [`State::take_prefix`].
    pub fn known_prefix(&self, tokens: &[u32]) -> usize {
        let Some(page) = self.shape.shared_page() else { return 0 };
        let most = tokens.len().saturating_sub(1).min(self.n_ctx());
        let pool = self.pool.lock();
        let (mut parent, mut known) = (None, 0);
        while let Some((node, n)) = pool.best_child(parent, &tokens[known..most]) {
            known += n;
            if n < page {
                break;
            }
            parent = Some(node);
        }
        known
    }

    /// Gives an empty text the longest prefix of `tokens` that is in the index.
    ///
    /// Whole pages are shared. The first rows of a last page are copied. The last token of `tokens`
    /// is left for its logits. In a layer with a sliding window, all positions that the next row
    /// sees must be cached, too. Returns the number of positions, 0 if the text is not empty.
    pub fn take_prefix(&mut self, memory: &mut KvMemory, tokens: &[u32]) -> usize {
        let Some(page) = self.shape.shared_page() else { return 0 };
        if self.len > 0 {
            return 0;
        }
        self.clear();
        let most = tokens.len().saturating_sub(1).min(self.n_ctx());
        let (n_pages, last) = self.hold_nodes(&tokens[..most]);
        let shorter = (1..=n_pages).rev().map(|n| (n, None));
        for (n_pages, last) in core::iter::once((n_pages, last)).chain(shorter) {
            let n = n_pages * page + last.map_or(0, |(_, n)| n);
            if self.hold_windows(n, last) && last.is_none_or(|last| self.copy_last(memory, n, last))
            {
                // Pages of group 0 behind the prefix are released here.
                self.release_from(n);
                self.n_indexed = n_pages;
                return n;
            }
            self.release_windows();
        }
        self.clear();
        0
    }

    /// Holds the nodes whose tokens are the next ones, and finds the best node behind them.
    ///
    /// Returns the number of held nodes, too.
    fn hold_nodes(&mut self, tokens: &[u32]) -> (usize, Option<Last>) {
        let mut pool = self.pool.lock();
        let table = &mut self.tables[0];
        let mut parent = None;
        let page = self.shape.groups[0].page;
        while let Some((node, n)) = pool.best_child(parent, &tokens[table.end * page..]) {
            if n < page {
                return (table.end, Some((node, n)));
            }
            pool.hold(0, node);
            table.pages[table.end] = Some(node);
            table.end += 1;
            parent = Some(node);
        }
        (table.end, None)
    }

    /// Holds the pages of all windows that the row behind `n` positions sees.
    ///
    /// Returns false if one is not cached.
    fn hold_windows(&mut self, n: usize, last: Option<Last>) -> bool {
        let mut pool = self.pool.lock();
        let [nodes, tables @ ..] = &mut self.tables[..] else { return false };
        for (group, table) in (1..).zip(tables) {
            let shape = &self.shape.groups[group];
            let first = (n + 1).saturating_sub(shape.window) / shape.page;
            (table.start, table.end) = (first * shape.page, first);
            for index in first..n / shape.page {
                let page = nodes.pages[index].and_then(|node| pool.page_of(group, node));
                let Some(page) = page else { return false };
                pool.hold(group, page);
                table.pages[index % shape.n_table] = Some(page);
                table.end = index + 1;
            }
            if last.is_some_and(|(node, _)| pool.page_of(group, node).is_none()) {
                return false;
            }
        }
        true
    }

    /// Releases the pages of all groups but the first.
    fn release_windows(&mut self) {
        let mut pool = self.pool.lock();
        for (group, table) in self.tables.iter_mut().enumerate().skip(1) {
            for page in table.pages.iter_mut().filter_map(Option::take) {
                pool.release(group, page);
            }
            (table.start, table.end) = (0, 0);
        }
    }

    /// Copies the first rows of a node's pages to pages of this text, up to position `end`.
    ///
    /// Returns false if no page is free.
    fn copy_last(&mut self, memory: &mut KvMemory, end: usize, (node, n): Last) -> bool {
        let mut pool = self.pool.lock();
        let groups = 0..self.tables.len();
        // Pages that a text holds are not evicted.
        let sources = |pool: &PagePool, group| pool.page_of(group, node);
        for group in groups.clone() {
            if let Some(source) = sources(&pool, group) {
                pool.hold(group, source);
            }
        }
        let mut is_copied = true;
        for group in groups.clone() {
            let table = &mut self.tables[group];
            let (n_table, index) = (table.pages.len(), (end - n) / self.shape.groups[group].page);
            let before = table.pages[(index + n_table - 1) % n_table];
            if let (Some(source), Some(own)) = (sources(&pool, group), pool.take(group, before)) {
                memory.copy_page(group, source, own, n);
                table.pages[index % n_table] = Some(own);
                table.end = index + 1;
            } else {
                is_copied = false;
            }
        }
        for group in groups {
            if let Some(source) = sources(&pool, group) {
                pool.release(group, source);
            }
        }
        is_copied
    }
}
