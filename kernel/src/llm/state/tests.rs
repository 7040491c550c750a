use alloc::vec;
use alloc::vec::Vec;

mod shared;

use super::*;
use crate::llm::kernels::fixtures::{ActivationBuffers, Noise};
use crate::llm::kv_cache::{CacheType, KvShape};
use crate::llm::quantize::dequantize_row;

/// How far a number of at most 1 may be off, once it was in the cache.
fn limit(kind: CacheType) -> f32 {
    match kind {
        CacheType::F32 => 0.0,
        CacheType::F16 => 1.0 / 4096.0,
        // Half a step of 1/127, and the scale's rounding to F16.
        CacheType::Q8_0 => 0.5 / 127.0 + 1.0 / 2048.0,
    }
}

fn layer_shape(kind: CacheType, kept: usize, window: usize) -> KvShape {
    KvShape { kind, n_head_kv: 3, head_size: 32, kept, window }
}

/// A text and its memory.
struct Cache {
    memory: KvMemory,
    state: State,
}

impl Cache {
    fn new(shape: StateShape) -> Self {
        let options = CacheOptions { n_texts: 1, n_positions: shape.n_ctx, shares_prefixes: false };
        let memory = KvMemory::try_new(CacheShape::new(shape, options)).unwrap();
        let state = memory.state().unwrap();
        Cache { memory, state }
    }

    /// Writes numbers of each layer for the next positions.
    fn write(&mut self, numbers: &[[[Vec<f32>; 2]; 3]]) {
        let n = numbers.len();
        assert_eq!(self.state.reserve(&mut self.memory, n), n);
        for layer in 0..self.state.shape().layers.len() {
            for (slot, numbers) in self.slots(layer, n).iter_mut().flatten().zip(numbers) {
                let [keys, values] = &numbers[layer];
                slot.write(keys, values);
            }
        }
        self.state.advance(n);
    }

    fn slots(&mut self, layer: usize, n: usize) -> Slots<'_> {
        let len = self.state.len();
        let rows = (len..len + n).map(|i| self.state.row(layer, i));
        let mut slots = Slots::new();
        self.memory.slots(layer, rows, &mut slots);
        slots
    }

    fn kv(&self, layer: usize, positions: Range<usize>) -> (Side<'_>, Side<'_>) {
        self.state.kv(&self.memory, layer, positions)
    }
}

fn shape_of(kind: CacheType, layers: &[(usize, usize)]) -> StateShape {
    let layers = layers.iter().map(|&(kept, window)| layer_shape(kind, kept, window));
    StateShape { n_ctx: 13, kv_cache: kind, layers: layers.map(LayerShape::Kv).collect() }
}

fn shape(kind: CacheType) -> StateShape {
    shape_of(kind, &[(13, 13), (5, 3), (13, 13)])
}

/// Keys and values, `[n_embd_kv]` each, of a layer at a position.
fn numbers(layer: usize, position: usize) -> [Vec<f32>; 2] {
    let mut noise = Noise::new((layer * 101 + position) as u64);
    [noise.floats(96), noise.floats(96)]
}

/// The numbers of three layers at a position.
fn of_layers(position: usize) -> [[Vec<f32>; 2]; 3] {
    [0, 1, 2].map(|layer| numbers(layer, position))
}

/// A cache of the numbers of these positions, the first one first.
fn filled(shape: StateShape, positions: &[usize]) -> Cache {
    let mut cache = Cache::new(shape);
    positions.iter().for_each(|&position| cache.write(&[of_layers(position)]));
    cache
}

/// Keys and values of a layer: `[2, n_positions, n_embd_kv]`.
fn held(cache: &Cache, layer: usize, positions: Range<usize>) -> [Vec<Vec<f32>>; 2] {
    let (keys, values) = cache.kv(layer, positions.clone());
    let LayerShape::Kv(KvShape { kind, n_head_kv, head_size, .. }) =
        cache.state.shape().layers[layer];
    [keys, values].map(|side| {
        let mut rows = vec![Vec::new(); positions.len()];
        for head in 0..n_head_kv {
            assert_eq!(side.head(head).count(), positions.len());
            for (row, bytes) in rows.iter_mut().zip(side.head(head)) {
                let mut numbers = vec![f32::NAN; head_size];
                dequantize_row(kind.weight_type(), bytes, &mut numbers);
                row.extend(numbers);
            }
        }
        rows
    })
}

#[track_caller]
fn assert_near(actual: &[f32], expected: &[f32], limit: f32) {
    assert_eq!(actual.len(), expected.len());
    for (a, e) in actual.iter().zip(expected) {
        assert!((a - e).abs() <= limit, "{a}, expected {e} within {limit}");
    }
}

#[test]
fn what_is_written_is_read_rounded() {
    for kind in CacheType::ALL {
        let positions: Vec<usize> = (0..13).collect();
        let cache = filled(shape(kind), &positions);
        assert_eq!(cache.state.len(), 13);
        // The layer in the middle keeps five; they go round.
        for (layer, seen) in [(0, 0..13), (1, 8..13), (1, 9..12), (1, 10..11), (2, 3..11)] {
            let held = held(&cache, layer, seen.clone());
            for (row, position) in seen.enumerate() {
                let expected = numbers(layer, position);
                for side in 0..2 {
                    assert_near(&held[side][row], &expected[side], limit(kind));
                }
            }
        }
    }
}

#[test]
fn positions_written_at_once_are_those_written_one_by_one() {
    for kind in CacheType::ALL {
        let mut cache = Cache::new(shape(kind));
        // The layer in the middle keeps five: two of three go round.
        for positions in [0..1, 1..4, 4..4, 4..7, 7..11, 11..13] {
            cache.state.reserve(&mut cache.memory, positions.len());
            let n_slots = cache.slots(1, positions.len()).iter().flatten().count();
            assert_eq!(n_slots, positions.len());
            cache.write(&Vec::from_iter(positions.map(of_layers)));
        }
        let expected = filled(shape(kind), &Vec::from_iter(0..13));
        assert_eq!(cache.state.len(), 13);
        assert_eq!(cache.memory.all_bytes(), expected.memory.all_bytes());
    }
}

#[test]
#[should_panic(expected = "row 3 is named twice")]
fn no_more_positions_are_written_at_once_than_a_layer_keeps() {
    let mut cache = filled(shape(CacheType::F16), &[0; 3]);
    cache.state.reserve(&mut cache.memory, 6);
    let _ = cache.slots(1, 6);
}

#[test]
fn an_emptied_cache_starts_anew() {
    let mut cache = filled(shape(CacheType::F32), &[0, 1, 2, 3, 4, 5, 6]);
    cache.state.clear();
    assert!(cache.state.is_empty());
    cache.write(&[of_layers(7)]);
    let [keys, values] = numbers(1, 7);
    assert_eq!(held(&cache, 1, 0..1), [[keys], [values]]);
}

#[test]
fn its_size_is_the_one_stated() {
    for (kind, bytes) in [(CacheType::F32, 128), (CacheType::F16, 64), (CacheType::Q8_0, 34)] {
        let shape = shape(kind);
        assert_eq!(shape.bytes(), Some((13 + 5 + 13) * 2 * 3 * bytes));
        assert_eq!(Cache::new(shape.clone()).memory.bytes(), shape.bytes().unwrap());
        for kept in [vec![usize::MAX], vec![usize::MAX / 192 / 2; 2], vec![1 << 50]] {
            let layers: Vec<_> = kept.into_iter().map(|kept| (kept, kept)).collect();
            let large = shape_of(kind, &layers);
            let options = CacheOptions { n_texts: 1, n_positions: 13, shares_prefixes: false };
            let error = KvMemory::try_new(CacheShape::new(large.clone(), options)).unwrap_err();
            let asked = large.bytes().unwrap_or(usize::MAX) as u64;
            assert_eq!(error, Error::OutOfMemory { what: KV_CACHE, asked });
        }
    }
}

#[test]
#[should_panic(expected = "1 positions behind 13, of 13")]
fn a_full_cache_takes_nothing() {
    filled(shape(CacheType::F16), &[0; 14]);
}

#[test]
#[should_panic(expected = "positions 1..7 of 2..7")]
fn a_window_gives_no_more_than_it_keeps() {
    filled(shape(CacheType::F16), &[0; 7]).kv(1, 1..7);
}

#[test]
fn scores_and_sums_are_those_of_the_numbers_held() {
    for kind in CacheType::ALL {
        let positions: Vec<usize> = (0..11).collect();
        let cache = filled(shape(kind), &positions);
        let query = Noise::new(7).floats(32);
        let query = ActivationBuffers::new(kind.weight_type(), &query, 1);
        let probabilities = Noise::new(11).floats(5);
        for layer in 0..2 {
            let seen = 6..11;
            let [key_rows, value_rows] = held(&cache, layer, seen.clone());
            let (keys, values) = cache.kv(layer, seen);
            for head in 0..3 {
                let of_head = |row: &Vec<f32>| row[head * 32..(head + 1) * 32].to_vec();
                let mut scores = [f32::NAN; 5];
                keys.scores(head, &[query.batch().x], &mut [&mut scores]);
                let expected: Vec<f32> = key_rows
                    .iter()
                    .map(|row| of_head(row).iter().zip(query.values()).map(|(k, q)| k * q).sum())
                    .collect();
                assert_near(&scores, &expected, 1e-5);
                let mut sum = [f32::NAN; 32];
                values.weighted_sums(head, &mut [&mut probabilities.clone()], &mut [&mut sum]);
                let mut expected = [0.0; 32];
                for (row, p) in value_rows.iter().zip(&probabilities) {
                    expected.iter_mut().zip(of_head(row)).for_each(|(sum, v)| *sum += p * v);
                }
                // Probabilities beside F16 are rounded to it.
                let limit = if kind == CacheType::F16 { 1e-3 } else { 1e-6 };
                assert_near(&sum, &expected, limit);
            }
        }
    }
}

#[test]
fn positions_behind_those_dropped_move_up() {
    for kind in CacheType::ALL {
        let all = shape_of(kind, &[(13, 13); 3]);
        let mut cache = filled(all.clone(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        cache.state.drop_positions(&mut cache.memory, 3..7).unwrap();
        let expected = filled(all, &[0, 1, 2, 7, 8, 9, 10]);
        assert_eq!(cache.state.len(), expected.state.len());
        for layer in 0..3 {
            assert_eq!(held(&cache, layer, 0..7), held(&expected, layer, 0..7));
        }
    }
}

#[test]
#[should_panic(expected = "layer 1 keeps a window")]
fn positions_are_not_dropped_where_only_a_window_is_kept() {
    let mut cache = filled(shape(CacheType::F16), &[0; 7]);
    let _ = cache.state.drop_positions(&mut cache.memory, 0..3);
}

#[test]
fn keys_are_changed_where_they_are() {
    for kind in CacheType::ALL {
        let mut cache = filled(shape(kind), &[0, 1, 2, 3, 4, 5, 6]);
        let before = held(&cache, 1, 2..7);
        let mut keys = [f32::NAN; 96];
        let twice = |keys: &mut [f32]| keys.iter_mut().for_each(|key| *key *= -2.0);
        cache.state.change_keys(&mut cache.memory, 1, 5, &mut keys, twice);
        let after = held(&cache, 1, 2..7);
        for row in 0..5 {
            let factor = if row == 3 { -2.0 } else { 1.0 };
            let expected: Vec<f32> = before[0][row].iter().map(|key| factor * key).collect();
            assert_near(&after[0][row], &expected, 0.0);
        }
        assert_eq!(after[1], before[1]);
    }
}

#[test]
fn a_text_is_cut_where_the_next_row_still_sees_all() {
    // The layer in the middle keeps five positions and sees three.
    let positions: Vec<usize> = (0..11).collect();
    for (n, left) in [(11, 11), (10, 10), (8, 8), (7, 0), (1, 0), (0, 0)] {
        let mut cache = filled(shape(CacheType::F32), &positions);
        assert_eq!(cache.state.truncate(n), left, "{n}");
        assert_eq!(cache.state.len(), left);
        if left > 2 {
            let expected = filled(shape(CacheType::F32), &positions[..left]);
            for layer in 0..3 {
                assert_eq!(
                    held(&cache, layer, left - 2..left),
                    held(&expected, layer, left - 2..left)
                );
            }
        }
    }
    // Nothing is overwritten yet, or there is no ring.
    let truncate = |mut cache: Cache, n| cache.state.truncate(n);
    assert_eq!(truncate(filled(shape(CacheType::F16), &positions[..5]), 1), 1);
    assert_eq!(truncate(filled(shape_of(CacheType::F16, &[(13, 13)]), &positions), 1), 1);
    assert_eq!(truncate(filled(shape(CacheType::F16), &positions), 13), 11);
}

#[test]
fn a_text_that_was_cut_remembers_which_positions_are_overwritten() {
    let mut cache = filled(shape(CacheType::F32), &Vec::from_iter(0..11));
    assert_eq!(cache.state.truncate(8), 8);
    // Position 4 was overwritten by position 9 before the text was cut.
    assert_eq!(cache.state.truncate(6), 0);
}
