//! Repacking: packs weights in place into row panels, which the kernels read fast.
//!
//! `quantize/packed.rs` describes a panel.

use alloc::vec::Vec;
use core::ops::{Deref, Range};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::Model;
use super::tensors::Matrix;
use crate::llm::arena::{ModelBuffer, ModelBytes};
use crate::llm::kernels::pack_panel;
use crate::llm::quantize::{PANEL_ROWS, WeightType};
use crate::llm::workers::{Workers, for_each};

/// Alignment from which kernels load vectors.
const ALIGNMENT: usize = 16;
/// Approximate bytes that a thread repacks before it claims more.
const CHUNK: usize = 256 << 10;

/// Rows of a matrix that become panels of eight rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panels {
    /// Where they lie in their source.
    bytes: Range<usize>,
    kind: WeightType,
    /// Bytes of a panel.
    panel_bytes: usize,
}

impl Matrix {
    /// Its rows that can become panels.
    pub(super) fn panels(&self) -> Option<Panels> {
        let panel_bytes = PANEL_ROWS * self.kind.row_bytes(self.columns);
        let start = self.place.start;
        let n = self.place.len / panel_bytes;
        let fits = n > 0 && start.is_multiple_of(ALIGNMENT) && self.kind.has_panels();
        let bytes = start..start + n * panel_bytes;
        fits.then_some(Panels { bytes, kind: self.kind, panel_bytes })
    }
}

/// The repacking of one source: which of its bytes become row panels.
///
/// The source can be cut into chunks, and each chunk repacked alone as it comes from the disk.
#[derive(Debug)]
pub struct Repack {
    /// Sorted by place, without overlap.
    panels: Vec<Panels>,
    /// Bytes that were repacked.
    done: AtomicUsize,
}

/// A source whose matrices were all repacked.
#[derive(Debug)]
pub struct Repacked(ModelBuffer);

impl Repacked {
    /// The final bytes: see [`ModelBuffer::finish`].
    pub fn finish(self) -> ModelBytes {
        self.0.finish()
    }
}

impl Deref for Repacked {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Repack {
    /// The end of a chunk that starts at byte `start` of the source.
    ///
    /// The last panel boundary up to `end`, else the first one after it.
    pub fn cut(&self, start: usize, end: usize) -> usize {
        let i = self.panels.partition_point(|panels| panels.bytes.end <= end);
        match self.panels.get(i) {
            Some(Panels { bytes, panel_bytes, .. }) if bytes.start < end => {
                let inside = (end - bytes.start) % panel_bytes;
                if end - inside > start { end - inside } else { end - inside + panel_bytes }
            }
            _ => end,
        }
    }

    /// Repacks a chunk from byte `start` of the source to a place from [`Repack::cut`].
    ///
    /// Each chunk must be repacked once.
    ///
    /// # Panics
    /// The chunk begins or ends within a panel.
    pub fn chunk(&self, start: usize, chunk: &mut [u8]) {
        let end = start + chunk.len();
        let first = self.panels.partition_point(|panels| panels.bytes.end <= start);
        let mut copy = Vec::new();
        for Panels { bytes, kind, panel_bytes } in &self.panels[first..] {
            if bytes.start >= end {
                break;
            }
            let rows = &mut chunk[bytes.start.max(start) - start..bytes.end.min(end) - start];
            assert!(rows.len().is_multiple_of(*panel_bytes), "a part of a panel");
            for rows in rows.chunks_exact_mut(*panel_bytes) {
                pack_panel(*kind, rows, &mut copy);
            }
            self.done.fetch_add(rows.len(), Ordering::Relaxed);
        }
    }

    /// The source, once all its chunks are repacked.
    ///
    /// # Panics
    /// A chunk was left out, or repacked twice.
    pub fn finish(self, source: ModelBuffer) -> Repacked {
        let all: usize = self.panels.iter().map(|panels| panels.bytes.len()).sum();
        let done = self.done.into_inner();
        assert_eq!(done, all, "bytes that were repacked");
        Repacked(source)
    }

    /// Repacks a whole source.
    pub fn all(self, mut source: ModelBuffer, workers: &dyn Workers) -> Repacked {
        self.chunks(&mut source, workers);
        self.finish(source)
    }

    fn chunks(&self, source: &mut [u8], workers: &dyn Workers) {
        let (mut start, mut rest) = (0, source);
        let chunks = core::iter::from_fn(move || {
            let length = self.cut(start, start + CHUNK.min(rest.len())) - start;
            let (chunk, after) = core::mem::take(&mut rest).split_at_mut(length);
            rest = after;
            start += length;
            (length > 0).then_some((start - length, chunk))
        });
        for_each(workers, chunks, |(start, chunk)| self.chunk(start, chunk));
    }
}

impl Model {
    /// The repacking of one source.
    pub fn repack(&self, source: usize) -> Repack {
        let packed =
            self.matrices().filter(|matrix| matrix.packed && matrix.place.source == source);
        let mut panels: Vec<Panels> = packed.filter_map(Matrix::panels).collect();
        // The embeddings may serve as the output's weights too.
        panels.sort_by_key(|panels| panels.bytes.start);
        panels.dedup();
        Repack { panels, done: AtomicUsize::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use crate::llm::arena::{ModelBuffer, ModelBytes};
    use crate::llm::gguf::Gguf;
    use crate::llm::model::{Architecture, Model};
    use crate::llm::quantize::WeightType;
    use crate::llm::workers::SingleThread;
    use crate::llm::workers::threads::Threads;

    /// A model in Q4_0 whose embeddings are the output's weights too.
    ///
    /// Eight does not divide its number of tokens.
    const FILE: &[u8] = include_bytes!("../../../../test_models/architectures/gemma-Q4_0.gguf");

    fn of_gguf(gguf: Gguf<'_>, packed: fn(WeightType) -> bool) -> Model {
        let n_vocab = gguf.tensor("token_embd.weight").unwrap().dims[1] as usize;
        Architecture::of(&gguf).unwrap().model(&[gguf], n_vocab, packed).unwrap()
    }

    /// The model without repacking, and with repacking.
    fn models() -> (Model, Model) {
        let read = |packed| of_gguf(Gguf::parse(FILE).unwrap(), packed);
        (read(|_| false), read(WeightType::has_panels))
    }

    #[test]
    fn weights_are_found_where_they_went() {
        let (before, after) = models();
        let as_in_file = [ModelBytes::from(FILE)];
        for workers in [&SingleThread as &dyn super::Workers, &Threads(3)] {
            let repacked = [after.repack(0).all(ModelBuffer::from(FILE), workers).finish()];
            assert_ne!(&repacked[0][..], FILE);
            let width = before.shape.n_embd;
            let rows = before.token_embd.rows();
            let all = |model: &Model, sources: &[ModelBytes]| -> Vec<_> {
                let mut out = vec![0.0; rows * width];
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    model.token_embd.dequantize_row(sources, i, out);
                }
                out
            };
            assert_eq!(all(&after, &repacked), all(&before, &as_in_file));
        }
    }

    #[test]
    fn the_header_alone_tells_the_panels() {
        let data = Gguf::parse(FILE).unwrap().data_offset() as usize;
        let gguf = Gguf::parse_header(&FILE[..data], FILE.len() as u64).unwrap();
        let repack = of_gguf(gguf, WeightType::has_panels).repack(0);
        assert!(!repack.panels.is_empty());
        assert_eq!(repack.panels, models().1.repack(0).panels);
        assert!(models().0.repack(0).panels.is_empty() && models().1.repack(1).panels.is_empty());
    }

    #[test]
    fn a_file_is_cut_where_no_panel_is_torn() {
        let (_, model) = models();
        let whole = model.repack(0).all(ModelBuffer::from(FILE), &SingleThread);
        // Shorter than a panel, and longer than a matrix.
        for length in [1, 257, 4099, 31_013] {
            let repack = model.repack(0);
            let mut file = ModelBuffer::from(FILE);
            let (mut start, mut cuts) = (0, 0);
            while start < file.len() {
                let wanted = (start + length).min(file.len());
                let end = repack.cut(start, wanted);
                assert!(end > start && end <= file.len(), "{start}, {wanted}: {end}");
                repack.chunk(start, &mut file[start..end]);
                cuts += usize::from(end != wanted);
                start = end;
            }
            assert!(cuts > 0);
            assert!(repack.finish(file).0[..] == whole.0[..], "in chunks of {length} bytes");
        }
    }

    #[test]
    #[should_panic(expected = "bytes that were repacked")]
    fn a_chunk_that_was_left_out_is_noticed() {
        let repack = models().1.repack(0);
        let mut file = ModelBuffer::from(FILE);
        let end = repack.cut(0, file.len() / 2);
        repack.chunk(0, &mut file[..end]);
        repack.finish(file);
    }

    #[test]
    #[should_panic(expected = "bytes that were repacked")]
    fn a_source_that_was_not_repacked_is_noticed() {
        models().1.repack(0).finish(ModelBuffer::from(FILE));
    }
}
