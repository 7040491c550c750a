//! Bit identity of a token in a batch (prefill) and alone (decode).
//!
//! For models of all architectures, KV caches of all types, one thread and several.

use kernel::llm::kv_cache::CacheType;
use kernel::llm::model::batch;
use kernel::llm::plan::ContextOptions;
use kernel::llm::workers::{SingleThread, Workers};

use crate::models::models;
use crate::text;
use crate::threads::Threads;

/// Tokens of a text: more than the 11 + 31 positions of a layer with a window.
const N: usize = 59;
const N_CTX: usize = 61;

/// Runs a text through a model, and returns the logits after each token.
///
/// `None` where logits were not wanted. `parts` gives the number of tokens of each part, and the
/// number of its last tokens whose logits are wanted. The last part is repeated. More than a batch
/// are several batches.
fn logits(
    file: &[u8],
    kind: CacheType,
    workers: &'static dyn Workers,
    parts: &[(usize, usize)],
) -> Vec<Option<Vec<u32>>> {
    let context = ContextOptions { n_ctx: Some(N_CTX), kv_cache: kind, ..Default::default() };
    let mut started = text::start(file, context, workers);
    let n_vocab = started.0.engine().metadata().n_vocab;

    let text: Vec<u32> = (0..N).map(|i| ((43 * i * i + 17 * i) % n_vocab) as u32).collect();
    let mut parts = parts.iter().copied();
    let (mut n, mut wanted) = (0, 0);
    let mut rest = &text[..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        (n, wanted) = parts.next().unwrap_or((n, wanted));
        let part = rest.split_off(..n.min(rest.len())).unwrap();
        for tokens in part.chunks(batch(N_CTX)) {
            let unwanted = tokens.len() - wanted.min(tokens.len());
            all.resize(all.len() + unwanted, None);
            let logits = text::logits(&mut started, tokens, unwanted);
            let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect();
            all.extend(logits.into_iter().map(|logits| Some(bits(logits))));
        }
    }
    all
}

/// Compares the logits of a text in parts with the logits token by token.
#[track_caller]
fn compare(
    name: &str,
    file: &[u8],
    kind: CacheType,
    workers: &'static dyn Workers,
    texts: &[impl AsRef<[(usize, usize)]>],
) {
    let alone = logits(file, kind, &SingleThread, &[(1, 1)]);
    // The comparison can fail: no two places of the text have the same logits.
    for (i, logits) in alone.iter().enumerate() {
        assert!(logits.is_some() && !alone[..i].contains(logits), "{name}: token {i}");
    }
    for parts in texts.iter().map(AsRef::as_ref) {
        let together = logits(file, kind, workers, parts);
        assert!(together.len() == N && together.iter().any(Option::is_some));
        let differs = |(together, alone)| !(Option::is_none(together) || together == alone);
        let place = together.iter().zip(&alone).position(differs);
        assert_eq!(place, None, "{name}, {kind}, {parts:?}");
    }
}

#[test]
fn a_token_in_a_batch_is_a_token_alone() {
    let models = models(|_| true);
    assert!(models.len() > 36);
    let texts = [1, 2, 3, 7, 31, 32, 33].into_iter().flat_map(|n| {
        // All of the text in batches. A prompt of which only the last logits are wanted, then
        // single tokens. And batches behind more tokens than a window has.
        [vec![(n, n)], vec![(n, 1), (1, 1)], vec![(19, 1), (n, n)]]
    });
    let texts: Vec<_> = texts.collect();
    for (name, file) in models {
        compare(&name, &file, CacheType::F16, &SingleThread, &texts);
    }
}

#[test]
fn threads_change_nothing() {
    for (name, file) in models(|name| name.ends_with("-Q4_0") || name.ends_with("-F16")) {
        for (n, threads) in [(1, 2), (7, 3), (33, 5)] {
            let texts: [&[_]; 2] = [&[(n, n)], &[(n, 1), (2, 2)]];
            compare(&name, &file, CacheType::F16, Box::leak(Box::new(Threads(threads))), &texts);
        }
    }
}

#[test]
fn caches_of_all_types_take_batches() {
    for (name, file) in models(|name| name.ends_with("-Q4_K_M")) {
        for kind in [CacheType::F32, CacheType::Q8_0] {
            let texts: [&[_]; 2] = [&[(7, 7)], &[(33, 1), (3, 3)]];
            compare(&name, &file, kind, &SingleThread, &texts);
            compare(&name, &file, kind, &Threads(3), &[[(3, 3), (31, 31)]]);
        }
    }
}

#[test]
fn any_of_the_last_tokens_can_be_asked_for() {
    for (name, file) in models(|name| name.ends_with("-Q8_0")) {
        let parts = [(13, 0), (1, 0), (17, 3), (2, 1), (23, 23), (3, 2)];
        compare(&name, &file, CacheType::F16, &SingleThread, &[parts]);
        compare(&name, &file, CacheType::F16, &Threads(2), &[parts]);
    }
}
