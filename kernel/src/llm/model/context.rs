//! Where a forward pass works, and its one expensive step.

use super::Linear;
use super::scratch::Quantized;
use crate::llm::kernels::{self, add_bias};
use crate::llm::workers::{Workers, for_each_chunk};

/// Where the work is done: the file's bytes and the threads.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The whole file.
    pub file: &'a [u8],
    /// The threads.
    pub workers: &'a dyn Workers,
    /// Whether the size of the activations after each layer is logged.
    pub verbose: bool,
}

/// The least rows that are worth claiming.
const MIN_CHUNK: usize = 8;
/// Chunks for each thread, so that a slow one holds up the others for little.
const CHUNKS_PER_WORKER: usize = 8;

impl Context<'_> {
    /// Applies several linear maps to the same vector: `out` gets their results, one after the
    /// other. `quantized` is scratch space.
    pub fn multiply(
        &self,
        maps: &[Linear],
        x: &[f32],
        quantized: &mut Quantized<'_>,
        out: &mut [f32],
    ) {
        quantized.set(x, maps.iter().map(|map| map.weights.kind()));
        let quantized = &*quantized;
        let per_worker = out.len() / (self.workers.count() * CHUNKS_PER_WORKER);
        let chunk = per_worker.max(MIN_CHUNK);
        for_each_chunk(self.workers, out, chunk, |index, part| {
            let mut first = index * chunk;
            let mut part = part;
            for Linear { weights, .. } in maps {
                if first >= weights.rows() {
                    first -= weights.rows();
                    continue;
                }
                let n = part.len().min(weights.rows() - first);
                let (now, later) = core::mem::take(&mut part).split_at_mut(n);
                let x = quantized.for_weights(weights.kind());
                let rows = weights.rows_in(self.file, first..first + n);
                kernels::multiply(weights.kind(), rows, &x, now);
                (first, part) = (0, later);
                if part.is_empty() {
                    break;
                }
            }
        });
        let mut out = out;
        for Linear { weights, bias } in maps {
            let (now, later) = out.split_at_mut(weights.rows());
            if let Some(bias) = bias {
                add_bias(now, bias.values(self.file));
            }
            out = later;
        }
    }
}
