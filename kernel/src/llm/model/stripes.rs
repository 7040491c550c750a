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
/// Bytes that a thread rearranges before it looks for more, about.
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

impl Matrix {
    /// Its rows that can become stripes.
    fn stripes(&self) -> Option<Stripes> {
        let stripe_bytes = TILE_ROWS * self.kind.row_bytes(self.columns);
        let n = self.bytes.len() / stripe_bytes;
        let fits = n > 0 && self.bytes.start.is_multiple_of(ALIGNMENT) && self.kind.has_tiles();
        let bytes = self.bytes.start..self.bytes.start + n * stripe_bytes;
        fits.then_some(Stripes { bytes, kind: self.kind, stripe_bytes })
    }
}

/// Which bytes of a model's file are to be rearranged, and how. The file can be cut to pieces for
/// that, of which each is rearranged alone, as it comes from the disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrangement {
    /// By their place; none overlap.
    stripes: Vec<Stripes>,
}

impl Arrangement {
    /// Where to cut a piece off that starts at byte `start` of the file: the last place up to `end`
    /// that is no stripe's inside, or the first one after that if there is none.
    pub fn cut(&self, start: usize, end: usize) -> usize {
        let i = self.stripes.partition_point(|stripes| stripes.bytes.end <= end);
        match self.stripes.get(i) {
            Some(Stripes { bytes, stripe_bytes, .. }) if bytes.start < end => {
                let inside = (end - bytes.start) % stripe_bytes;
                if end - inside > start { end - inside } else { end - inside + stripe_bytes }
            }
            _ => end,
        }
    }

    /// Rearranges a piece of the file that starts at its byte `start` and is cut off by
    /// [`Arrangement::cut`], as the piece before it is.
    ///
    /// # Panics
    /// The piece begins or ends within a stripe.
    pub fn rearrange(&self, start: usize, piece: &mut [u8]) {
        let end = start + piece.len();
        let first = self.stripes.partition_point(|stripes| stripes.bytes.end <= start);
        let mut copy = Vec::new();
        for Stripes { bytes, kind, stripe_bytes } in &self.stripes[first..] {
            if bytes.start >= end {
                break;
            }
            let rows = &mut piece[bytes.start.max(start) - start..bytes.end.min(end) - start];
            assert!(rows.len().is_multiple_of(*stripe_bytes), "a piece of a stripe");
            for rows in rows.chunks_exact_mut(*stripe_bytes) {
                make_stripe(*kind, rows, &mut copy);
            }
        }
    }

    /// Rearranges a whole file.
    pub fn rearrange_all(&self, file: &mut [u8], workers: &dyn Workers) {
        let (mut start, mut rest) = (0, file);
        let pieces = core::iter::from_fn(move || {
            let length = self.cut(start, start + CHUNK.min(rest.len())) - start;
            let (piece, after) = core::mem::take(&mut rest).split_at_mut(length);
            rest = after;
            start += length;
            (length > 0).then_some((start - length, piece))
        });
        for_each(workers, pieces, |(start, piece)| self.rearrange(start, piece));
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

    /// Goes over to a file whose weights of the wanted types are rearranged, and says how they are.
    pub fn arrange(&mut self, wanted: impl Fn(WeightType) -> bool) -> Arrangement {
        let mut stripes: Vec<Stripes> = Vec::new();
        for matrix in self.matrices_mut().filter(|matrix| wanted(matrix.kind)) {
            if let Some(of_matrix) = matrix.stripes() {
                matrix.striped = true;
                stripes.push(of_matrix);
            }
        }
        // Embeddings may be the output's weights too.
        stripes.sort_by_key(|stripes| stripes.bytes.start);
        stripes.dedup();
        Arrangement { stripes }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use crate::llm::gguf::Gguf;
    use crate::llm::model::{Architecture, Model};
    use crate::llm::quantize::WeightType;
    use crate::llm::workers::SingleThread;
    use crate::llm::workers::threads::Threads;

    /// A model whose embeddings are its output's weights too, in Q4_0, with a number of tokens that
    /// eight does not divide.
    const FILE: &[u8] = include_bytes!("../../../../test_models/architectures/gemma-Q4_0.gguf");

    fn model(file: &[u8]) -> Model {
        of_gguf(&Gguf::parse(file).unwrap())
    }

    fn of_gguf(gguf: &Gguf<'_>) -> Model {
        let n_vocab = gguf.tensor("token_embd.weight").unwrap().dims[1] as usize;
        Architecture::of(gguf).unwrap().model(gguf, n_vocab).unwrap()
    }

    #[test]
    fn weights_are_found_where_they_went() {
        let before = model(FILE);
        for workers in [&SingleThread as &dyn super::Workers, &Threads(3)] {
            let (mut after, mut file) = (model(FILE), FILE.to_vec());
            after.arrange(WeightType::has_tiles).rearrange_all(&mut file, workers);
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

    #[test]
    fn the_header_alone_tells_the_arrangement() {
        let data = Gguf::parse(FILE).unwrap().data_offset() as usize;
        let gguf = Gguf::parse_header(&FILE[..data], FILE.len() as u64).unwrap();
        let arrangement = of_gguf(&gguf).arrange(WeightType::has_tiles);
        assert!(!arrangement.stripes.is_empty());
        assert_eq!(arrangement, model(FILE).arrange(WeightType::has_tiles));
    }

    #[test]
    fn a_file_is_cut_where_no_stripe_is_torn() {
        let arrangement = model(FILE).arrange(WeightType::has_tiles);
        let mut whole = FILE.to_vec();
        arrangement.rearrange_all(&mut whole, &SingleThread);
        // Shorter than a stripe, and longer than a matrix.
        for length in [1, 257, 4099, 31_013] {
            let mut file = FILE.to_vec();
            let (mut start, mut cuts) = (0, 0);
            while start < file.len() {
                let wanted = (start + length).min(file.len());
                let end = arrangement.cut(start, wanted);
                assert!(end > start && end <= file.len(), "{start}, {wanted}: {end}");
                arrangement.rearrange(start, &mut file[start..end]);
                cuts += usize::from(end != wanted);
                start = end;
            }
            assert!(cuts > 0);
            assert!(file == whole, "in pieces of {length} bytes");
        }
    }
}
