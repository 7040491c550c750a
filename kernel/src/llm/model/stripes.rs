//! Weights rearranged in place, so that the kernels read them fast (`quantize/tiles.rs`).

use alloc::vec::Vec;
use core::ops::Range;

use super::tensors::Matrix;
use super::{Layer, Model};
use crate::llm::kernels::make_stripe;
use crate::llm::quantize::{TILE_ROWS, WeightType};
use crate::llm::workers::{Workers, for_each};

/// Where kernels can load vectors from.
const ALIGNMENT: usize = 16;
/// Bytes that a thread rearranges before it looks for more.
const CHUNK: usize = 256 << 10;

/// Rows of a matrix that become stripes of eight rows.
#[derive(Clone, Debug, PartialEq)]
struct Stripes {
    /// Where they lie in the file.
    bytes: Range<usize>,
    kind: WeightType,
    /// Bytes of a stripe.
    stripe_bytes: usize,
}

impl Stripes {
    /// Rearranges some of them.
    fn rearrange(&self, rows: &mut [u8]) {
        let mut copy = Vec::with_capacity(self.stripe_bytes);
        for rows in rows.chunks_exact_mut(self.stripe_bytes) {
            make_stripe(self.kind, rows, &mut copy);
        }
    }
}

impl Matrix {
    /// Its rows that can become stripes.
    fn stripes(&self) -> Option<Stripes> {
        let stripe_bytes = TILE_ROWS * self.kind.row_bytes(self.columns);
        let n = self.rows / TILE_ROWS;
        let fits = n > 0 && self.bytes.start.is_multiple_of(ALIGNMENT) && self.kind.has_tiles();
        let bytes = self.bytes.start..self.bytes.start + n * stripe_bytes;
        fits.then_some(Stripes { bytes, kind: self.kind, stripe_bytes })
    }
}

impl Model {
    /// All matrices, those that share weights each.
    fn matrices_mut(&mut self) -> impl Iterator<Item = &mut Matrix> {
        let of_layers = self.layers.iter_mut().flat_map(|Layer { attn, ffn, .. }| {
            attn.qkv.iter_mut().chain([&mut attn.output]).chain(&mut ffn.up).chain([&mut ffn.down])
        });
        let of_maps = of_layers.chain([&mut self.output]).map(|map| &mut map.weights);
        of_maps.chain([&mut self.token_embd]).chain(&mut self.position_embd)
    }

    /// Rearranges the model's weights of the wanted types in `file`: the whole file, as it was read.
    pub fn rearrange(
        &mut self,
        file: &mut [u8],
        wanted: impl Fn(WeightType) -> bool,
        workers: &dyn Workers,
    ) {
        let mut all: Vec<Stripes> = Vec::new();
        for matrix in self.matrices_mut().filter(|matrix| wanted(matrix.kind)) {
            if let Some(stripes) = matrix.stripes() {
                matrix.striped = true;
                all.push(stripes);
            }
        }
        // Embeddings may be the output's weights too.
        all.sort_by_key(|stripes| stripes.bytes.start);
        all.dedup();
        for stripes in all {
            let chunk = (CHUNK / stripes.stripe_bytes).max(1) * stripes.stripe_bytes;
            let rows = &mut file[stripes.bytes.clone()];
            for_each(workers, rows.chunks_mut(chunk), |rows| stripes.rearrange(rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use crate::llm::gguf::Gguf;
    use crate::llm::model::{Architecture, Model};
    use crate::llm::workers::SingleThread;
    use crate::llm::workers::threads::Threads;

    /// A model whose embeddings are its output's weights too, in Q4_0, with a number of tokens that
    /// eight does not divide.
    const FILE: &[u8] = include_bytes!("../../../../test_models/architectures/gemma-Q4_0.gguf");

    fn model(file: &[u8]) -> Model {
        let gguf = Gguf::parse(file).unwrap();
        let n_vocab = gguf.tensor("token_embd.weight").unwrap().dims[1] as usize;
        Architecture::of(&gguf).unwrap().model(&gguf, n_vocab).unwrap()
    }

    #[test]
    fn weights_are_found_where_they_went() {
        let before = model(FILE);
        for workers in [&SingleThread as &dyn super::Workers, &Threads(3)] {
            let (mut after, mut file) = (model(FILE), FILE.to_vec());
            after.rearrange(&mut file, |kind| kind.has_tiles(), workers);
            assert_ne!(file, FILE);
            let width = before.shape.n_embd;
            let rows = before.token_embd.rows();
            let row = |model: &Model, file: &[u8], row| {
                let mut out = vec![0.0; width];
                model.token_embd.dequantize_row(file, row, &mut out);
                out
            };
            let all = |model: &Model, file: &[u8]| -> Vec<_> {
                (0..rows).map(|i| row(model, file, i)).collect()
            };
            assert_eq!(all(&after, &file), all(&before, FILE));
        }
    }
}
