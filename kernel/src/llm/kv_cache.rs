//! Keys and values of the positions that were processed, as F16 (llama.cpp's default).

#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::ops::Range;

use crate::llm::quantize::f32_to_f16;
use crate::llm::{Error, with_capacity};

/// The cache of one text, all layers in one allocation: `[n_layer, 2, n_ctx, n_embd_kv]`, keys
/// before values.
#[derive(Debug)]
pub struct KvCache {
    data: Vec<u16>,
    n_ctx: usize,
    n_embd_kv: usize,
    len: usize,
}

/// Keys or values of a layer: `[positions, n_embd_kv]`.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    data: &'a [u16],
    n_embd_kv: usize,
}

impl<'a> Side<'a> {
    /// The part of one head, `head_size` wide, at each position in turn.
    pub fn head(&self, head: usize, head_size: usize) -> impl Iterator<Item = &'a [u16]> + use<'a> {
        let start = head * head_size;
        self.data.chunks_exact(self.n_embd_kv).map(move |row| &row[start..start + head_size])
    }
}

impl KvCache {
    /// Size in bytes of a cache of this shape; `None` if it overflows.
    pub fn bytes(n_layer: usize, n_ctx: usize, n_embd_kv: usize) -> Option<usize> {
        let elements = n_layer.checked_mul(2)?.checked_mul(n_ctx)?.checked_mul(n_embd_kv)?;
        elements.checked_mul(size_of::<u16>())
    }

    /// An empty cache of `n_ctx` positions, each with `n_embd_kv` numbers for the keys and as many
    /// for the values of each layer.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(n_layer: usize, n_ctx: usize, n_embd_kv: usize) -> Result<Self, Error> {
        let bytes = Self::bytes(n_layer, n_ctx, n_embd_kv).unwrap_or(usize::MAX);
        let elements = bytes / size_of::<u16>();
        let mut data = with_capacity(elements, "the KV cache")?;
        data.resize(elements, 0);
        Ok(KvCache { data, n_ctx, n_embd_kv, len: 0 })
    }

    /// Positions that hold keys and values of all layers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions there are.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Forgets all positions.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Writes keys and values of one layer at the first free position, [`KvCache::len`], rounded
    /// to F16. It counts as free until [`KvCache::advance`].
    ///
    /// # Panics
    /// The cache is full, or a slice has not `n_embd_kv` elements.
    pub fn write(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        assert!(self.len < self.n_ctx, "position {} of {}", self.len, self.n_ctx);
        for (side, numbers) in [keys, values].into_iter().enumerate() {
            assert_eq!(numbers.len(), self.n_embd_kv);
            let start = ((layer * 2 + side) * self.n_ctx + self.len) * self.n_embd_kv;
            for (cell, &x) in self.data[start..start + self.n_embd_kv].iter_mut().zip(numbers) {
                *cell = f32_to_f16(x);
            }
        }
    }

    /// Takes the first free position into use.
    pub fn advance(&mut self) {
        self.len += 1;
    }

    /// Keys and values of one layer at these positions.
    pub fn layer(&self, layer: usize, positions: Range<usize>) -> (Side<'_>, Side<'_>) {
        let side = |side| {
            let start = (layer * 2 + side) * self.n_ctx;
            let rows = start + positions.start..start + positions.end;
            let data = &self.data[rows.start * self.n_embd_kv..rows.end * self.n_embd_kv];
            Side { data, n_embd_kv: self.n_embd_kv }
        };
        (side(0), side(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::quantize::f16_to_f32;

    #[test]
    fn what_is_written_is_read_rounded_to_f16() {
        let (n_layer, n_ctx, n_embd_kv) = (3, 5, 14);
        let mut cache = KvCache::try_new(n_layer, n_ctx, n_embd_kv).unwrap();
        let number = |layer: usize, side: usize, position: usize, i: usize| {
            ((layer * 2 + side) * 7 + position) as f32 + i as f32 / 16.0 + 0.1
        };
        for position in 0..n_ctx {
            for layer in 0..n_layer {
                let row = |side| -> Vec<f32> {
                    (0..n_embd_kv).map(|i| number(layer, side, position, i)).collect()
                };
                cache.write(layer, &row(0), &row(1));
            }
            cache.advance();
        }
        assert_eq!(cache.len(), n_ctx);
        for layer in 0..n_layer {
            let (keys, values) = cache.layer(layer, 0..n_ctx);
            for (side, half) in [keys, values].into_iter().enumerate() {
                for head in 0..2 {
                    let rows: Vec<_> = half.head(head, 7).collect();
                    assert_eq!(rows.len(), n_ctx);
                    for (position, row) in rows.into_iter().enumerate() {
                        for (i, &bits) in row.iter().enumerate() {
                            let x = number(layer, side, position, head * 7 + i);
                            assert_eq!(bits, f32_to_f16(x));
                            assert!((f16_to_f32(bits) - x).abs() <= x / 2048.0);
                        }
                    }
                }
            }
        }
        cache.clear();
        assert!(cache.is_empty());
    }

    #[test]
    fn its_size_is_the_one_stated() {
        let cache = KvCache::try_new(6, 256, 128).unwrap();
        assert_eq!(cache.data.len() * 2, KvCache::bytes(6, 256, 128).unwrap());
        assert_eq!(KvCache::bytes(6, 256, 128), Some(6 * 256 * 128 * 4));
        assert_eq!(KvCache::bytes(usize::MAX, 2, 1), None);
        let error = KvCache::try_new(usize::MAX / 8, 3, 5).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { what: "the KV cache", .. }));
    }

    #[test]
    #[should_panic(expected = "position 1 of 1")]
    fn a_full_cache_takes_nothing() {
        let mut cache = KvCache::try_new(1, 1, 1).unwrap();
        cache.advance();
        cache.write(0, &[0.0], &[0.0]);
    }
}
