//! Texts that share pages, against a model that knows what each position must hold.

use alloc::vec;
use alloc::vec::Vec;

use proptest::collection::vec as any_of;
use proptest::prelude::*;

use super::*;

/// Positions of a context: three pages and a part of one.
const N_CTX: usize = 3 * PAGE + 7;
/// Positions that the layer in the middle keeps, and those that it sees.
const KEPT: usize = WINDOW + PAGE - 1;
const WINDOW: usize = 11;
/// Texts at a time.
const N_TEXTS: usize = 3;

fn cache_shape(n_pages: usize, windowed: bool) -> CacheShape {
    let (kept, window) = if windowed { (KEPT, WINDOW) } else { (N_CTX, N_CTX) };
    let shape = |(kept, window)| {
        LayerShape::Kv(KvShape { kind: CacheType::F32, n_head_kv: 1, head_size: 1, kept, window })
    };
    let layers = [(N_CTX, N_CTX), (kept, window), (N_CTX, N_CTX)].map(shape);
    let text = StateShape { n_ctx: N_CTX, kv_cache: CacheType::F32, layers: layers.into() };
    let n_positions = N_CTX * (n_pages / 4) + n_pages % 4 * PAGE;
    CacheShape::new(text, CacheOptions { n_texts: N_TEXTS, n_positions, shares_prefixes: true })
}

/// The hash of a prefix: it depends on all its tokens.
fn hash(before: u32, token: u32) -> u32 {
    (before * 131 + token + 7) % 1_000_003
}

/// A key or a value of a layer at a position with this hash.
fn content(hash: u32, layer: usize, side: usize) -> f32 {
    (hash * 6 + (2 * layer + side) as u32) as f32
}

/// A text that is tested, and what it must hold.
struct Text {
    state: State,
    tokens: Vec<u32>,
    /// The hashes of the keys and the values at each position.
    hashes: Vec<[u32; 2]>,
}

impl Text {
    fn new(memory: &KvMemory) -> Self {
        Text { state: memory.state().unwrap(), tokens: Vec::new(), hashes: Vec::new() }
    }

    /// Notes tokens that the state holds, or is to hold.
    fn note(&mut self, tokens: &[u32]) {
        for &token in tokens {
            let hash = hash(self.hashes.last().map_or(0, |&[keys, _]| keys), token);
            self.hashes.push([hash; 2]);
            self.tokens.push(token);
        }
    }

    /// Appends a pass of tokens; returns how many found pages.
    fn push(&mut self, memory: &mut KvMemory, tokens: &[u32]) -> usize {
        let len = self.state.len();
        let n = self.state.reserve(memory, tokens.len().min(N_CTX - len));
        self.note(&tokens[..n]);
        for layer in 0..3 {
            let states = core::iter::once(&mut self.state).collect();
            let mut texts = Texts { memory, states };
            let mut slots = Slots::new();
            texts.slots(layer, (len..len + n).map(|position| (0, position)), &mut slots);
            for (slot, &[keys, values]) in slots.iter_mut().flatten().zip(&self.hashes[len..]) {
                slot.write(&[content(keys, layer, 0)], &[content(values, layer, 1)]);
            }
        }
        self.state.advance(n);
        self.state.share(&self.tokens);
        n
    }

    fn truncate(&mut self, n: usize) {
        let left = self.state.truncate(n);
        assert!(left == n.min(self.tokens.len()) || left == 0);
        self.tokens.truncate(left);
        self.hashes.truncate(left);
    }

    fn take_prefix(&mut self, memory: &mut KvMemory, tokens: &[u32]) -> usize {
        assert!(self.tokens.is_empty());
        let n = self.state.take_prefix(memory, tokens);
        self.note(&tokens[..n]);
        n
    }

    /// As a context shift does it: keys are rewritten.
    fn shift(&mut self, memory: &mut KvMemory, n_keep: usize) {
        let n = (self.tokens.len() - n_keep) / 2;
        let before = self.state.len();
        if self.state.drop_positions(memory, n_keep..n_keep + n).is_err() {
            assert_eq!(self.state.len(), before);
            return;
        }
        self.tokens.drain(n_keep..n_keep + n);
        self.hashes.drain(n_keep..n_keep + n);
        for position in n_keep..self.state.len() {
            let [keys, _] = &mut self.hashes[position];
            *keys = hash(*keys, 1000);
            for layer in 0..3 {
                let key = content(self.hashes[position][0], layer, 0);
                self.state.change_keys(memory, layer, position, &mut [0.0], |keys| keys[0] = key);
            }
        }
    }

    /// Checks what the row behind the text sees, and all that the full layers hold.
    fn check(&self, memory: &KvMemory, windowed: bool) {
        let len = self.state.len();
        assert_eq!(len, self.tokens.len());
        for layer in 0..3 {
            let first = match windowed && layer == 1 {
                true => (len + 1).saturating_sub(WINDOW).min(len),
                false => 0,
            };
            let (keys, values) = self.state.kv(memory, layer, first..len);
            for (number, side) in [keys, values].into_iter().enumerate() {
                assert_eq!(side.head(0).count(), len - first);
                for (row, hashes) in side.head(0).zip(&self.hashes[first..]) {
                    let expected = content(hashes[number], layer, number).to_le_bytes();
                    assert_eq!(row, expected, "layer {layer}, side {number}");
                }
            }
        }
    }
}

/// Checks the counts of all pages against the texts that hold them.
fn check_pool(memory: &KvMemory, texts: &[Text]) {
    let pool = memory.pool().lock();
    for (group, shape) in memory.shape().groups.iter().enumerate() {
        let mut counts = vec![0; shape.n_pages];
        for text in texts {
            let table = &text.state.tables[group];
            for page in table.pages.iter().flatten() {
                counts[*page as usize] += 1;
            }
        }
        pool.check(group, &counts);
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// Appends a pass of tokens that follow from a seed.
    Push {
        text: usize,
        n: usize,
        seed: u32,
    },
    Truncate {
        text: usize,
        n: usize,
    },
    /// Ends a text, and starts the next one with the prefix of an earlier one.
    Restart {
        text: usize,
        like: usize,
        n: usize,
    },
    Drop {
        text: usize,
    },
    Shift {
        text: usize,
        keep: usize,
    },
}

fn any_op() -> impl Strategy<Value = Op> {
    let text = 0..N_TEXTS;
    prop_oneof![
        8 => (text.clone(), 1..=PAGE, 0..3_u32).prop_map(|(text, n, seed)| Op::Push { text, n, seed }),
        2 => (text.clone(), 0..N_CTX).prop_map(|(text, n)| Op::Truncate { text, n }),
        4 => (text.clone(), 0..8_usize, 0..=N_CTX + 3)
            .prop_map(|(text, like, n)| Op::Restart { text, like, n }),
        1 => text.clone().prop_map(|text| Op::Drop { text }),
        1 => (text, 0..2 * PAGE).prop_map(|(text, keep)| Op::Shift { text, keep }),
    ]
}

/// Texts of different seeds have a page and a part of one in common.
fn tokens(seed: u32, first: usize, n: usize) -> impl Iterator<Item = u32> {
    (first..first + n).map(move |i| if i % 41 == 40 { seed } else { i as u32 % 7 })
}

fn run(ops: Vec<Op>, n_pages: usize, windowed: bool) {
    let mut memory = KvMemory::try_new(cache_shape(n_pages, windowed)).unwrap();
    let mut texts: Vec<Text> = (0..N_TEXTS).map(|_| Text::new(&memory)).collect();
    // Tokens of texts that ended.
    let mut earlier: Vec<Vec<u32>> = vec![tokens(0, 0, N_CTX).collect()];
    for op in ops {
        match op {
            Op::Push { text, n, seed } => {
                let first = texts[text].state.len();
                let tokens: Vec<u32> = tokens(seed, first, n).collect();
                texts[text].push(&mut memory, &tokens);
            }
            Op::Truncate { text, n } => texts[text].truncate(n),
            Op::Restart { text, like, n } => {
                earlier.push(texts[text].tokens.clone());
                let like = &earlier[earlier.len() - 1 - like % earlier.len()];
                let tokens: Vec<u32> = like.iter().copied().chain([9; 4]).take(n).collect();
                texts[text].truncate(0);
                texts[text].take_prefix(&mut memory, &tokens);
            }
            Op::Drop { text } => texts[text] = Text::new(&memory),
            Op::Shift { text, keep } => {
                let len = texts[text].state.len();
                if !windowed && len > 1 {
                    texts[text].shift(&mut memory, keep % len);
                }
            }
        }
        texts.iter().for_each(|text| text.check(&memory, windowed));
        check_pool(&memory, &texts);
    }
    texts.clear();
    check_pool(&memory, &texts);
    assert_eq!(memory.n_available(), n_pages * PAGE);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn texts_hold_what_they_would_hold_alone(
        ops in any_of(any_op(), 1..60),
        n_pages in 4..15_usize,
    ) {
        run(ops, n_pages, false);
    }

    #[test]
    fn texts_with_windows_hold_what_they_would_hold_alone(
        ops in any_of(any_op(), 1..60),
        n_pages in 4..15_usize,
    ) {
        run(ops, n_pages, true);
    }
}

#[test]
fn a_page_that_a_window_has_left_is_lost_though_no_page_is_free() {
    let push = |text, n| Op::Push { text, n, seed: 0 };
    let restart = |text, like, n| Op::Restart { text, like, n };
    let ops = vec![
        push(1, 8),
        push(1, 24),
        push(0, 7),
        push(0, 1),
        restart(0, 5, 33),
        push(1, 25),
        restart(2, 4, 8),
        push(1, 26),
        push(2, 25),
        push(1, 14),
        Op::Truncate { text: 1, n: 1 },
    ];
    run(ops, 4, true);
}

/// Texts in a cache of so many pages.
fn texts<const N: usize>(n_pages: usize, windowed: bool) -> (KvMemory, [Text; N]) {
    let memory = KvMemory::try_new(cache_shape(n_pages, windowed)).unwrap();
    let texts = core::array::from_fn(|_| Text::new(&memory));
    (memory, texts)
}

/// Appends tokens in passes; returns how many found pages.
fn push_all(text: &mut Text, memory: &mut KvMemory, tokens: &[u32]) -> usize {
    tokens.chunks(PAGE).map(|tokens| text.push(memory, tokens)).sum()
}

#[test]
fn a_prefix_is_shared_and_a_part_of_a_page_copied() {
    let (mut memory, [mut first, mut second]) = texts(8, false);
    let prompt: Vec<u32> = tokens(5, 0, 2 * PAGE + 5).collect();
    assert_eq!(push_all(&mut first, &mut memory, &prompt), prompt.len());
    // Nothing but whole pages is cached, and the last token is left.
    for (n, cached) in [
        (prompt.len(), 2 * PAGE),
        (2 * PAGE + 1, 2 * PAGE),
        (2 * PAGE, 2 * PAGE - 1),
        (PAGE + 3, PAGE + 2),
        (2, 1),
        (1, 0),
        (0, 0),
    ] {
        assert_eq!(second.take_prefix(&mut memory, &prompt[..n]), cached, "{n}");
        second.check(&memory, false);
        let shared = (0..cached / PAGE)
            .all(|i| first.state.tables[0].pages[i] == second.state.tables[0].pages[i]);
        assert!(shared);
        second.truncate(0);
    }
    let mut other = prompt;
    other[PAGE + 13] = 8;
    assert_eq!(second.take_prefix(&mut memory, &other), PAGE + 13);
    check_pool(&memory, &[first, second]);
}

#[test]
fn a_text_that_is_cut_within_a_shared_page_goes_on_in_a_copy() {
    let (mut memory, [mut first, mut second]) = texts(8, false);
    let prompt: Vec<u32> = tokens(5, 0, 2 * PAGE + 1).collect();
    push_all(&mut first, &mut memory, &prompt);
    assert_eq!(second.take_prefix(&mut memory, &prompt), 2 * PAGE);
    second.truncate(PAGE + 3);
    assert_eq!(second.push(&mut memory, &[8; 5]), 5);
    assert_ne!(first.state.tables[0].pages[1], second.state.tables[0].pages[1]);
    assert_eq!(first.state.tables[0].pages[0], second.state.tables[0].pages[0]);
    first.check(&memory, false);
    second.check(&memory, false);
    // The first text alone holds its second page now, and goes on in it.
    let page = first.state.tables[0].pages[1];
    first.truncate(PAGE + 1);
    first.push(&mut memory, &[6]);
    assert_eq!(first.state.tables[0].pages[1], page);
    second.check(&memory, false);
}

#[test]
fn texts_that_compute_the_same_page_hold_it_once() {
    let (mut memory, [mut first, mut second]) = texts(8, false);
    let prompt: Vec<u32> = tokens(5, 0, PAGE).collect();
    first.push(&mut memory, &prompt[..7]);
    second.push(&mut memory, &prompt);
    assert_eq!(memory.n_available(), 6 * PAGE);
    first.push(&mut memory, &prompt[7..]);
    assert_eq!(memory.n_available(), 7 * PAGE);
    first.check(&memory, false);
    check_pool(&memory, &[first, second]);
}

#[test]
fn a_cache_without_pages_gives_those_of_the_text_that_ended_first() {
    let (mut memory, [mut a, mut b, mut c]) = texts(8, false);
    let [of_a, of_b, of_c] = [5, 6, 7].map(|token| vec![token; 3 * PAGE]);
    push_all(&mut a, &mut memory, &of_a);
    push_all(&mut b, &mut memory, &of_b);
    b.truncate(0);
    a.truncate(0);
    assert_eq!((memory.n_available(), memory.n_cached()), (8 * PAGE, 6 * PAGE));
    // Two free pages, then the last one of b.
    assert_eq!(push_all(&mut c, &mut memory, &of_c), 3 * PAGE);
    assert_eq!(b.take_prefix(&mut memory, &of_b), 2 * PAGE);
    // The last page of a is the only one that no text holds, so that it cannot be copied.
    assert_eq!(a.take_prefix(&mut memory, &of_a), 2 * PAGE);
    assert_eq!((memory.n_available(), memory.n_cached()), (PAGE, PAGE));
    assert_eq!((a.push(&mut memory, &[1]), memory.n_available()), (1, 0));
    // Up to the end of the present page there is room, and then none.
    c.truncate(3 * PAGE - 5);
    assert_eq!((c.push(&mut memory, &[1; 9]), c.push(&mut memory, &[1])), (5, 0));
    b.truncate(0);
    assert_eq!(c.push(&mut memory, &[1; 4]), 4);
    check_pool(&memory, &[a, b, c]);
}

#[test]
fn a_shift_rewrites_copies_of_shared_pages_or_nothing() {
    let prompt: Vec<u32> = tokens(5, 0, 3 * PAGE).collect();
    let len = 3 * PAGE - 1;
    // Of the second text's pages two are shared, and change. One page is free, or two are.
    for (n_pages, left) in [(5, len), (6, len - (len - 3) / 2)] {
        let (mut memory, [mut first, mut second]) = texts(n_pages, false);
        push_all(&mut first, &mut memory, &prompt);
        assert_eq!(second.take_prefix(&mut memory, &prompt), len);
        second.shift(&mut memory, 3);
        assert_eq!(second.state.len(), left);
        second.check(&memory, false);
        first.check(&memory, false);
        if left < len {
            // What is computed after a shift depends on dropped tokens, and is not cached.
            assert_eq!(push_all(&mut second, &mut memory, &[1; PAGE]), PAGE);
            drop(second);
            assert_eq!(memory.n_cached(), 0);
        }
    }
}

#[test]
fn a_prefix_is_taken_as_far_as_its_windows_are_cached() {
    let (mut memory, [mut first, mut second]) = texts(12, true);
    assert!(memory.shape().groups[1].n_table == 3);
    let prompt: Vec<u32> = tokens(5, 0, N_CTX).collect();
    push_all(&mut first, &mut memory, &prompt);
    for n in [N_CTX, 3 * PAGE, 2 * PAGE + 9, PAGE + 3] {
        assert_eq!(second.take_prefix(&mut memory, &prompt[..n]), (n - 1).min(3 * PAGE));
        second.check(&memory, true);
        second.truncate(0);
    }
    // Other texts take all pages of windows but those of the text that is there.
    let n_windows = memory.shape().groups[1].n_pages;
    let taken: Vec<Page> = {
        let mut pool = memory.pool().lock();
        core::iter::from_fn(|| pool.take(1, None)).collect()
    };
    assert_eq!(taken.len(), n_windows - 3);
    assert_eq!(second.take_prefix(&mut memory, &prompt[..PAGE + 3]), 0);
    assert_eq!(second.take_prefix(&mut memory, &prompt), 3 * PAGE);
    assert_eq!(second.push(&mut memory, &[1]), 0, "no page for a window is free");
    second.truncate(0);
    // The first rows of the third page cannot be copied.
    assert_eq!(second.take_prefix(&mut memory, &prompt[..2 * PAGE + 9]), 2 * PAGE);
    second.check(&memory, true);
    let mut pool = memory.pool().lock();
    taken.into_iter().for_each(|page| pool.release(1, page));
}

#[test]
fn the_pages_of_a_window_go_round() {
    let (mut memory, [mut text]) = texts(12, true);
    for i in 0..N_CTX {
        text.push(&mut memory, &[i as u32]);
        text.check(&memory, true);
    }
    let held = text.state.tables[1].pages.iter().flatten().count();
    assert_eq!((held, text.state.tables[1].start), (3, PAGE));
    assert_eq!(text.state.truncate(2 * PAGE), 2 * PAGE);
    assert_eq!(text.state.truncate(PAGE), 0);
}
