use alloc::vec::Vec;

use super::*;

/// Tokens of a page.
const N: usize = 3;

fn pool(n_pages: &[usize]) -> PagePool {
    PagePool::try_new(n_pages.iter().copied(), Some(N)).unwrap()
}

/// Takes and releases a page that the index then names.
fn cache(pool: &mut PagePool, parent: Option<Page>, tokens: [u32; N]) -> Page {
    let page = pool.take(0, parent).unwrap();
    pool.insert(parent, page, &tokens);
    page
}

#[test]
fn pages_are_taken_behind_the_last_one_and_come_back() {
    let mut pool = pool(&[5]);
    assert_eq!(
        [None, Some(0), Some(3), Some(4)].map(|after| pool.take(0, after)),
        [Some(0), Some(1), Some(4), Some(2)]
    );
    assert_eq!((pool.take(0, Some(4)), pool.n_available(0)), (Some(3), 0));
    assert_eq!(pool.take(0, None), None);
    pool.release(0, 4);
    assert_eq!((pool.n_available(0), pool.n_cached(0)), (1, 0));
    assert_eq!(pool.take(0, Some(0)), Some(4));
}

#[test]
fn the_page_that_was_released_first_is_evicted_first() {
    let mut pool = pool(&[4]);
    let a = cache(&mut pool, None, [1, 2, 3]);
    let b = cache(&mut pool, Some(a), [4, 5, 6]);
    let c = cache(&mut pool, None, [7, 8, 9]);
    let d = cache(&mut pool, Some(c), [1, 2, 3]);
    // The text of c and d ends first, then that of a and b. Another text holds a again.
    for page in [d, c, b, a] {
        pool.release(0, page);
    }
    assert_eq!((pool.n_available(0), pool.n_cached(0)), (4, 4));
    pool.hold(0, a);
    assert_eq!([(); 4].map(|()| pool.take(0, None)), [Some(d), Some(c), Some(b), None]);
    assert_eq!(pool.best_child(None, &[1, 2, 3]), Some((a, 3)));
    assert_eq!(pool.best_child(Some(a), &[4, 5, 6]), None);
    assert_eq!(pool.best_child(None, &[7, 8, 9]), None);
}

#[test]
fn a_free_page_is_taken_before_a_cached_one() {
    let mut pool = pool(&[3]);
    let a = cache(&mut pool, None, [1, 2, 3]);
    pool.release(0, a);
    assert_eq!([(); 4].map(|()| pool.take(0, Some(2))), [Some(1), Some(2), Some(a), None]);
}

#[test]
fn the_child_with_the_longest_common_prefix_is_found() {
    let mut pool = pool(&[7]);
    let a = cache(&mut pool, None, [1, 2, 3]);
    let b = cache(&mut pool, None, [1, 2, 4]);
    let c = cache(&mut pool, None, [1, 7, 4]);
    let below = cache(&mut pool, Some(b), [5, 5, 5]);
    for (tokens, expected) in [
        (&[1, 2, 3, 9][..], Some((a, 3))),
        (&[1, 2, 4], Some((b, 3))),
        (&[1, 7], Some((c, 2))),
        (&[2, 2, 3], None),
        (&[5, 5, 5], None),
        (&[], None),
    ] {
        assert_eq!(pool.best_child(None, tokens), expected, "{tokens:?}");
    }
    assert_eq!(pool.best_child(None, &[1, 2]).unwrap().1, 2);
    assert_eq!(pool.best_child(Some(b), &[5, 5, 6]), Some((below, 2)));
}

#[test]
fn a_node_leaves_the_index_with_all_nodes_behind_it() {
    let mut pool = pool(&[8, 3]);
    let first = cache(&mut pool, None, [1, 1, 1]);
    let other = cache(&mut pool, None, [2, 2, 2]);
    let nodes: Vec<Page> = (0..3).map(|i| cache(&mut pool, Some(first), [i, 0, 0])).collect();
    let deep = cache(&mut pool, Some(nodes[1]), [9, 9, 9]);
    let window = pool.take(1, None).unwrap();
    pool.attach(1, deep, window);
    assert_eq!((pool.page_of(1, deep), pool.is_exclusive(1, window)), (Some(window), false));
    pool.hold(0, first);
    assert!(!pool.make_exclusive(0, first), "two texts hold it");
    pool.release(0, first);
    assert!(pool.make_exclusive(0, first) && pool.is_exclusive(0, first));
    for node in nodes.into_iter().chain([first, deep]) {
        assert!(!pool.is_indexed(0, node));
    }
    assert_eq!((pool.page_of(1, deep), pool.is_exclusive(1, window)), (None, true));
    assert_eq!(pool.best_child(None, &[1, 1, 1]), None);
    assert_eq!(pool.best_child(None, &[2, 2, 2]), Some((other, 3)));
}

#[test]
fn windows_are_evicted_alone() {
    let mut pool = pool(&[4, 1]);
    let a = cache(&mut pool, None, [1, 1, 1]);
    let window = pool.take(1, None).unwrap();
    pool.attach(1, a, window);
    pool.release(1, window);
    assert_eq!(pool.take(1, None), Some(window));
    assert_eq!((pool.page_of(1, a), pool.is_indexed(0, a)), (None, true));
}
