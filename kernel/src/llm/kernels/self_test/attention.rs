//! Checks of attention's kernels, for each type of the KV cache.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{LENGTHS, Outcome, ROWS, TOLERANCE, both_lanes, compare, summary};
use crate::llm::kernels::fixtures::{Noise, random_row};
use crate::llm::kernels::{HeadRows, TOGETHER, active, attention, scalar};
use crate::llm::quantize::{WeightType, dequantize_row};

/// The check of each type of the KV cache.
pub fn checks() -> impl Iterator<Item = (String, Outcome)> {
    OF_CACHES.iter().map(|of_cache| {
        let name = of_cache.kind.tensor_type().name.to_lowercase();
        (format!("kernel attention {name}"), check(of_cache))
    })
}

/// A kernel of attention.
type Attend = fn(HeadRows<'_>, &[&[f32]], &mut [&mut [f32]]);
/// The kernels of attention for a type of the KV cache: in use, and portable.
pub struct OfCache {
    kind: WeightType,
    scores: Option<[Attend; 2]>,
    add_values: [Attend; 2],
}

pub const OF_CACHES: [OfCache; 3] = [
    OfCache {
        kind: WeightType::F32,
        scores: Some(both_lanes!(attention::scores_f32)),
        add_values: both_lanes!(attention::add_values_f32),
    },
    OfCache {
        kind: WeightType::F16,
        scores: Some(both_lanes!(attention::scores_f16)),
        add_values: both_lanes!(attention::add_values_f16),
    },
    // Keys in Q8_0 are multiplied by the kernels for weights.
    OfCache {
        kind: WeightType::Q8_0,
        scores: None,
        add_values: both_lanes!(attention::add_values_q8_0),
    },
];

/// Queries at once: some share the load of each key, and one has none to share with.
const QUERIES: usize = TOGETHER + 1;

fn attend(kernel: Attend, head: HeadRows<'_>, inputs: &[Vec<f32>], outs: &mut [Vec<f32>]) {
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut outs: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
    kernel(head, &inputs, &mut outs);
}

fn check(of_cache: &OfCache) -> Outcome {
    let kind = of_cache.kind;
    let block = kind.tensor_type().block_weights as usize;
    let mut noise = Noise::new(23);
    let mut largest = 0.0_f64;
    // Heads of whole blocks, and others. The head in use is the second of three.
    for (blocks, positions) in LENGTHS.into_iter().zip(ROWS) {
        let n = blocks * block;
        let rows = random_row(kind, 3 * blocks * positions, 1.0, &mut noise);
        let width = kind.row_bytes(n);
        let head = HeadRows { bytes: &rows[width..], stride: 3 * width, width };
        let mut numbers = vec![0.0; 3 * n * positions];
        dequantize_row(kind, &rows, &mut numbers);
        let number = |position: usize, i: usize| f64::from(numbers[(3 * position + 1) * n + i]);

        if let Some([active, portable]) = of_cache.scores {
            let queries = [(); QUERIES].map(|()| noise.floats(n));
            let [mut actual, mut expected] = [(); 2].map(|()| vec![vec![0.0; positions]; QUERIES]);
            attend(active, head, &queries, &mut actual);
            attend(portable, head, &queries, &mut expected);
            for ((query, actual), expected) in queries.iter().zip(&actual).zip(&expected) {
                for position in 0..positions {
                    let products = (0..n).map(|i| number(position, i) * f64::from(query[i]));
                    let (actual, expected) = (actual[position], expected[position]);
                    largest = largest.max(compare(n, actual, expected, TOLERANCE, products)?);
                }
            }
        }
        let before = [(); QUERIES].map(|()| noise.floats(n));
        let probabilities = [(); QUERIES].map(|()| noise.floats(positions));
        let [mut actual, mut expected] = [before.clone(), before.clone()];
        let [active, portable] = of_cache.add_values;
        attend(active, head, &probabilities, &mut actual);
        attend(portable, head, &probabilities, &mut expected);
        for query in 0..QUERIES {
            for i in 0..n {
                let products = probabilities[query].iter().enumerate();
                let products = products.map(|(position, &p)| number(position, i) * f64::from(p));
                let terms = products.chain([f64::from(before[query][i])]);
                let (actual, expected) = (actual[query][i], expected[query][i]);
                largest = largest.max(compare(n, actual, expected, TOLERANCE, terms)?);
            }
        }
    }
    Ok(summary(largest))
}
