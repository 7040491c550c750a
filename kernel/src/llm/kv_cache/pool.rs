//! The pool of KV pages: which pages are free, and which hold a prefix for later texts.
//!
//! A page holds the keys and values of consecutive positions, in all layers of its group. The pool
//! counts the texts that hold a page. A text writes to a page only if no other text holds the page
//! and the prefix index does not name the page.
//!
//! The prefix index is a tree. A node is a page of group 0 and the tokens of that page. The path
//! from the root to a node is the prefix of a text. Nodes are compared by their tokens, never by a
//! hash alone. The other groups may have a page for a node, too.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use crate::llm::{Error, with_capacity};

/// The name of a pool's memory in errors.
pub const KV_CACHE: &str = "the KV cache";

/// The number of a page in its group.
pub type Page = u32;

/// The pages of all groups, and the prefix index.
#[derive(Debug)]
pub struct PagePool {
    /// Tokens of a page.
    page: usize,
    groups: Vec<Group>,
    /// The prefix index: a node for each page of group 0. Empty if texts share no prefixes.
    nodes: Vec<Node>,
    /// The tokens of each node: `[n_nodes, page]`.
    tokens: Vec<u32>,
    /// The first node without a parent.
    first_root: Option<Page>,
    /// Counts releases.
    clock: u64,
}

/// The pages of one group.
#[derive(Debug)]
struct Group {
    pages: Vec<PageUse>,
    /// The page of each node, for nodes that have one in this group.
    of_node: Vec<Option<Page>>,
}

/// The use of one page.
#[derive(Clone, Copy, Debug, Default)]
struct PageUse {
    /// Texts that hold the page.
    n_texts: u32,
    /// The node that has the page.
    node: Option<Page>,
    /// The time at which the last text released the page.
    released: u64,
}

impl PageUse {
    fn is_free(&self) -> bool {
        self.n_texts == 0 && self.node.is_none()
    }
}

/// The links of one node of the prefix index.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    parent: Option<Page>,
    first_child: Option<Page>,
    /// The next node with the same parent.
    next: Option<Page>,
}

/// A vector of `n` default values.
fn defaults<T: Clone + Default>(n: usize) -> Result<Vec<T>, Error> {
    let mut items = with_capacity(n, KV_CACHE)?;
    items.resize(n, T::default());
    Ok(items)
}

impl PagePool {
    /// A pool of free pages.
    ///
    /// `n_pages` has the number of pages of each group. `page` is the number of tokens of a page if
    /// texts share prefixes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(
        n_pages: impl Iterator<Item = usize>,
        page: Option<usize>,
    ) -> Result<Self, Error> {
        let mut groups: Vec<Group> = Vec::new();
        for n in n_pages {
            let n_nodes = groups.first().map_or(n, |first| first.pages.len());
            let of_node = if page.is_some() { defaults(n_nodes)? } else { Vec::new() };
            groups.push(Group { pages: defaults(n)?, of_node });
        }
        let n_nodes = groups.first().map_or(0, |group| group.of_node.len());
        let page = page.unwrap_or(0);
        let (nodes, tokens) = (defaults(n_nodes)?, defaults(n_nodes.saturating_mul(page))?);
        Ok(PagePool { page, groups, nodes, tokens, first_root: None, clock: 0 })
    }

    /// Bytes that the pool's tables take.
    pub fn bytes(n_pages: impl Iterator<Item = usize>, page: Option<usize>) -> usize {
        let mut n_nodes = None;
        n_pages.fold(0, |sum, n| {
            let of_pages = n.saturating_mul(size_of::<PageUse>());
            let of_nodes = page.map_or(0, |page| {
                let own = if n_nodes.is_none() { size_of::<Node>() + page * 4 } else { 0 };
                n_nodes.get_or_insert(n).saturating_mul(size_of::<Option<Page>>() + own)
            });
            sum.saturating_add(of_pages).saturating_add(of_nodes)
        })
    }

    /// Pages of a group that a text can take: free ones, and those that only the index names.
    pub fn n_available(&self, group: usize) -> usize {
        self.groups[group].pages.iter().filter(|page| page.n_texts == 0).count()
    }

    /// Pages of a group that only the index names.
    pub fn n_cached(&self, group: usize) -> usize {
        let is_cached = |page: &&PageUse| page.n_texts == 0 && page.node.is_some();
        self.groups[group].pages.iter().filter(is_cached).count()
    }

    fn page_use(&mut self, group: usize, page: Page) -> &mut PageUse {
        &mut self.groups[group].pages[page as usize]
    }

    /// Takes a page for a text, the first free one behind `after`; `None` if all are held.
    ///
    /// If no page is free, the least recently used page of the index is taken.
    pub fn take(&mut self, group: usize, after: Option<Page>) -> Option<Page> {
        let pages = &self.groups[group].pages;
        let first = after.map_or(0, |page| page as usize + 1);
        let mut order = (first..pages.len()).chain(0..first);
        let free = order.find(|&i| pages[i].is_free()).map(|i| i as Page);
        let page = free.or_else(|| self.evict(group))?;
        self.page_use(group, page).n_texts = 1;
        Some(page)
    }

    /// Frees the page that was released first of those that only the index names.
    fn evict(&mut self, group: usize) -> Option<Page> {
        let pages = (0..).zip(&self.groups[group].pages);
        let cached = pages.filter(|(_, page)| page.n_texts == 0 && page.node.is_some());
        let (page, _) = cached.min_by_key(|(_, page)| page.released)?;
        self.remove(group, page);
        Some(page)
    }

    /// Takes a page out of the index: in group 0 with the nodes behind it.
    ///
    /// A text that holds a node holds the nodes before it, and releases these later. So the nodes
    /// behind a page that no text holds were released before that page.
    fn remove(&mut self, group: usize, page: Page) {
        if group == 0 {
            self.remove_node(page);
        } else if let Some(node) = self.page_use(group, page).node.take() {
            self.groups[group].of_node[node as usize] = None;
        }
    }

    /// Counts one more text that holds a page.
    pub fn hold(&mut self, group: usize, page: Page) {
        self.page_use(group, page).n_texts += 1;
    }

    /// Counts one text less that holds a page.
    pub fn release(&mut self, group: usize, page: Page) {
        self.clock += 1;
        let clock = self.clock;
        let page = self.page_use(group, page);
        page.n_texts -= 1;
        page.released = clock;
    }

    /// Whether the index names a page.
    pub fn is_indexed(&self, group: usize, page: Page) -> bool {
        self.groups[group].pages[page as usize].node.is_some()
    }

    /// Whether the only text that holds a page may write to it.
    pub fn is_exclusive(&self, group: usize, page: Page) -> bool {
        let page = &self.groups[group].pages[page as usize];
        page.n_texts == 1 && page.node.is_none()
    }

    /// Whether one text alone holds a page.
    pub fn is_alone(&self, group: usize, page: Page) -> bool {
        self.groups[group].pages[page as usize].n_texts == 1
    }

    /// Takes a page out of the index if one text alone holds the page. Returns whether one does.
    pub fn make_exclusive(&mut self, group: usize, page: Page) -> bool {
        let is_alone = self.is_alone(group, page);
        if is_alone {
            self.remove(group, page);
        }
        is_alone
    }

    /// The first child of a node, or the first root.
    fn first_child(&mut self, parent: Option<Page>) -> &mut Option<Page> {
        match parent {
            Some(parent) => &mut self.nodes[parent as usize].first_child,
            None => &mut self.first_root,
        }
    }

    /// The child of a node whose tokens have the longest common prefix with `tokens`.
    ///
    /// Without a parent, the children are the roots. Returns the child and the number of common
    /// tokens, 1 or more.
    pub fn best_child(&self, parent: Option<Page>, tokens: &[u32]) -> Option<(Page, usize)> {
        let mut next = match parent {
            Some(parent) => self.nodes[parent as usize].first_child,
            None => self.first_root,
        };
        let mut best = None;
        let mut longest = 0;
        while let Some(node) = next {
            let of_node = &self.tokens[node as usize * self.page..][..self.page];
            let n = of_node.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            if n > longest {
                (best, longest) = (Some((node, n)), n);
            }
            next = self.nodes[node as usize].next.filter(|_| longest < self.page);
        }
        best
    }

    /// Adds a page of group 0 to the index, as a child of `parent`.
    ///
    /// # Panics
    /// The page is in the index, or `tokens` are not those of a page.
    pub fn insert(&mut self, parent: Option<Page>, page: Page, tokens: &[u32]) {
        assert!(!self.is_indexed(0, page), "page {page} is in the index");
        self.tokens[page as usize * self.page..][..self.page].copy_from_slice(tokens);
        let next = self.first_child(parent).replace(page);
        self.nodes[page as usize] = Node { parent, first_child: None, next };
        self.attach(0, page, page);
    }

    /// Gives a node its page of a group. The page must not be in the index.
    pub fn attach(&mut self, group: usize, node: Page, page: Page) {
        self.page_use(group, page).node = Some(node);
        self.groups[group].of_node[node as usize] = Some(page);
    }

    /// The page of a node in a group.
    pub fn page_of(&self, group: usize, node: Page) -> Option<Page> {
        self.groups[group].of_node[node as usize]
    }

    /// Takes a node and all nodes behind it out of the index, the last ones first.
    fn remove_node(&mut self, first: Page) {
        if !self.is_indexed(0, first) {
            return;
        }
        let mut node = first;
        loop {
            let Node { parent, first_child, next } = self.nodes[node as usize];
            if let Some(child) = first_child {
                node = child;
                continue;
            }
            // The link to the node becomes the link to the next one.
            let mut link = self.first_child(parent);
            while let Some(other) = link.filter(|&other| other != node) {
                link = &mut self.nodes[other as usize].next;
            }
            *link = next;
            for group in &mut self.groups {
                if let Some(page) = group.of_node[node as usize].take() {
                    group.pages[page as usize].node = None;
                }
            }
            match parent {
                Some(parent) if node != first => node = parent,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
impl PagePool {
    /// Checks that `counts` are those of a group, and that the links of the index hold together.
    pub fn check(&self, group: usize, counts: &[u32]) {
        let pages = &self.groups[group].pages;
        assert_eq!(pages.iter().map(|page| page.n_texts).collect::<Vec<_>>(), counts);
        for (i, page) in pages.iter().enumerate() {
            let of_node = page.node.map(|node| self.groups[group].of_node[node as usize]);
            assert!(of_node.is_none_or(|page| page == Some(i as Page)));
            let Some(node) = page.node else { continue };
            let parent = self.nodes[node as usize].parent;
            let mut next =
                parent.map_or(self.first_root, |node| self.nodes[node as usize].first_child);
            while next.is_some_and(|next| next != node) {
                next = next.and_then(|next| self.nodes[next as usize].next);
            }
            assert_eq!(next, Some(node), "the parent of {node} has it as a child");
            let Some(parent) = parent.filter(|_| group == 0) else { continue };
            // Who holds a node holds the nodes before it, and releases them later.
            let before = pages[parent as usize];
            assert!(before.node == Some(parent) && before.n_texts >= page.n_texts);
            assert!(before.n_texts > 0 || before.released > page.released);
        }
    }
}
