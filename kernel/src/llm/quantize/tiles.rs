//! The layout in which the kernels read weights: tiles of eight rows.
//!
//! A tile holds one block of each of eight neighbouring rows, cut into small units (four bytes of
//! weights, the bytes of a scale) of which those of the eight rows stand side by side. So one load
//! gets the same columns of several rows, and a sum of each row has a lane of its own. A stripe is
//! the tiles of eight rows one after the other. It takes the bytes that the rows took, so that a
//! file is rearranged in place, stripe by stripe.

use alloc::vec::Vec;

use super::WeightType;

/// Rows of a tile.
pub const TILE_ROWS: usize = 8;

/// Neighbouring parts of a block that are treated alike.
#[derive(Clone, Copy, Debug)]
struct Field {
    /// Bytes that stay together.
    unit: usize,
    /// How many of those there are.
    count: usize,
}

/// Scales and offsets of a block in F16.
const fn f16(count: usize) -> Field {
    Field { unit: 2, count }
}

/// Weights, or bits of weights: as many as a dot product of bytes adds up.
const fn words(count: usize) -> Field {
    Field { unit: 4, count }
}

/// Scales of groups.
const fn bytes(count: usize) -> Field {
    Field { unit: 1, count }
}

impl WeightType {
    /// The fields of a block, in their order; none if there are no tiles of this type.
    const fn fields(self) -> &'static [Field] {
        match self {
            WeightType::Q4_0 | WeightType::IQ4_NL => const { &[f16(1), words(4)] },
            WeightType::Q4_1 => const { &[f16(2), words(4)] },
            WeightType::Q5_0 => const { &[f16(1), words(5)] },
            WeightType::Q5_1 => const { &[f16(2), words(5)] },
            WeightType::Q8_0 => const { &[f16(1), words(8)] },
            WeightType::Q2_K => const { &[bytes(16), words(16), f16(2)] },
            WeightType::Q3_K => const { &[words(24), bytes(12), f16(1)] },
            WeightType::Q4_K => const { &[f16(2), bytes(12), words(32)] },
            WeightType::Q5_K => const { &[f16(2), bytes(12), words(40)] },
            WeightType::Q6_K => const { &[words(48), bytes(16), f16(1)] },
            _ => &[],
        }
    }

    /// Whether weights of this type can be rearranged to tiles.
    pub const fn has_tiles(self) -> bool {
        !self.fields().is_empty()
    }

    /// Calls `copy(in the block, in the tile, bytes)` for each unit of the block of one row.
    fn for_each_unit(self, row: usize, mut copy: impl FnMut(usize, usize, usize)) {
        let mut start = 0;
        for &Field { unit, count } in self.fields() {
            for i in 0..count {
                copy(start + i * unit, start * TILE_ROWS + (i * TILE_ROWS + row) * unit, unit);
            }
            start += unit * count;
        }
    }

    /// Takes the block of row `row` out of a tile.
    pub fn block_of_tile<const N: usize>(self, tile: &[u8], row: usize) -> [u8; N] {
        let mut block = [0; N];
        self.for_each_unit(row, |to, from, n| {
            block[to..to + n].copy_from_slice(&tile[from..from + n]);
        });
        if self == WeightType::Q6_K
            && let Some(weights) = block.first_chunk_mut()
        {
            *weights = q6_k::unjoin(weights);
        }
        block
    }

    /// Rearranges eight rows, which lie one after the other, to a stripe. `copy` is room for a copy
    /// of them; `move_words(fields, out)` puts words of eight blocks side by side, as
    /// [`move_units`] does.
    ///
    /// # Panics
    /// These are not eight rows of whole blocks.
    pub fn make_stripe(
        self,
        rows: &mut [u8],
        copy: &mut Vec<u8>,
        move_words: impl Fn([&[u8]; TILE_ROWS], &mut [u8]),
    ) {
        let block_bytes = self.tensor_type().block_bytes as usize;
        assert!(rows.len().is_multiple_of(TILE_ROWS * block_bytes), "{} bytes", rows.len());
        copy.clear();
        copy.extend_from_slice(rows);
        if self == WeightType::Q6_K {
            for block in copy.chunks_exact_mut(block_bytes) {
                if let Some(weights) = block.first_chunk_mut() {
                    *weights = q6_k::join(weights);
                }
            }
        }
        let row_bytes = rows.len() / TILE_ROWS;
        for (i, tile) in rows.chunks_exact_mut(TILE_ROWS * block_bytes).enumerate() {
            let mut start = i * block_bytes;
            let mut rest = tile;
            for &Field { unit, count } in self.fields() {
                let bytes = unit * count;
                let of_row = |row: usize| &copy[row * row_bytes + start..][..bytes];
                let fields: [&[u8]; TILE_ROWS] = core::array::from_fn(of_row);
                let (out, after) = rest.split_at_mut(TILE_ROWS * bytes);
                match unit {
                    1 => move_units::<1>(fields, out),
                    2 => move_units::<2>(fields, out),
                    _ => move_words(fields, out),
                }
                start += bytes;
                rest = after;
            }
        }
    }
}

/// The weights of a block of Q6_K in tiles: of each four weights that share a byte of high bits, three
/// have a byte of their own, whose two high bits are those of the fourth. Such bytes take fewer steps
/// to take apart than the file's, which has four bits of a weight here and two there.
mod q6_k {
    /// The bytes of a block's weights.
    type Weights = [u8; 192];

    /// The places of the bytes with four weights' bits: two in the first half of a block, of the low
    /// four bits of two weights each, and one with all their high two bits; and of what they become.
    fn places() -> impl Iterator<Item = ([usize; 3], [usize; 3])> {
        (0..64).map(|i| {
            // Each quarter has 16 such bytes, from two pieces of its half.
            let (quarter, byte) = (i / 16, i % 16);
            let first = quarter / 2 * 64 + quarter % 2 * 16 + byte;
            let joined = quarter * 48 + byte / 4 * 12 + byte % 4;
            ([first, first + 32, 128 + i], [joined, joined + 4, joined + 8])
        })
    }

    /// The bytes of the tiles from those of the file.
    pub fn join(weights: &Weights) -> Weights {
        let mut joined = [0; 192];
        for (from, to) in places() {
            let [a, b, high] = from.map(|i| weights[i]);
            let fourth = b >> 4 | high >> 6 << 4;
            joined[to[0]] = a & 15 | (high & 3) << 4 | fourth << 6;
            joined[to[1]] = b & 15 | (high >> 2 & 3) << 4 | fourth >> 2 << 6;
            joined[to[2]] = a >> 4 | (high >> 4 & 3) << 4 | fourth >> 4 << 6;
        }
        joined
    }

    /// The bytes of the file from those of the tiles.
    pub fn unjoin(joined: &Weights) -> Weights {
        let mut weights = [0; 192];
        for (to, from) in places() {
            let [a, b, c] = from.map(|i| joined[i]);
            let fourth = a >> 6 | b >> 6 << 2 | c >> 6 << 4;
            let [a, b, c] = [a, b, c].map(|byte| byte & 63);
            weights[to[0]] = a & 15 | c << 4;
            weights[to[1]] = b & 15 | fourth << 4;
            weights[to[2]] = a >> 4 | b >> 4 << 2 | c >> 4 << 4 | fourth >> 4 << 6;
        }
        weights
    }
}

/// Puts units of eight fields side by side: the first of each, the second of each, ...
pub fn move_units<const UNIT: usize>(fields: [&[u8]; TILE_ROWS], out: &mut [u8]) {
    let fields = fields.map(|field| field.as_chunks::<UNIT>().0);
    let (out, _) = out.as_chunks_mut::<UNIT>();
    for (i, out) in out.chunks_exact_mut(TILE_ROWS).enumerate() {
        for (out, field) in out.iter_mut().zip(fields) {
            *out = field[i];
        }
    }
}

/// A row of weights, as it lies in the file or in a stripe.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    bytes: &'a [u8],
    /// The type, and which row of the stripe.
    of_stripe: Option<(WeightType, usize)>,
}

impl<'a> Row<'a> {
    /// A row in the file.
    pub fn of_file(bytes: &'a [u8]) -> Self {
        Row { bytes, of_stripe: None }
    }

    /// One of the eight rows of a stripe.
    pub fn of_stripe(kind: WeightType, stripe: &'a [u8], row: usize) -> Self {
        Row { bytes: stripe, of_stripe: Some((kind, row)) }
    }

    /// Its blocks, of `N` bytes each.
    pub fn blocks<const N: usize>(self) -> impl Iterator<Item = [u8; N]> {
        let rows = if self.of_stripe.is_some() { TILE_ROWS } else { 1 };
        self.bytes.chunks_exact(rows * N).map(move |chunk| match self.of_stripe {
            Some((kind, row)) => kind.block_of_tile(chunk, row),
            None => *chunk.first_chunk().expect("a block"),
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::llm::kernels::self_test::Noise;

    #[test]
    fn the_fields_are_all_of_a_block() {
        for kind in WeightType::ALL.iter().filter(|kind| kind.has_tiles()) {
            let bytes: usize = kind.fields().iter().map(|field| field.unit * field.count).sum();
            assert_eq!(bytes, kind.tensor_type().block_bytes as usize, "{kind:?}");
        }
    }

    #[test]
    fn a_stripe_has_the_blocks_of_its_rows() {
        let mut noise = Noise::new(5);
        let mut copy = Vec::new();
        for kind in WeightType::ALL.iter().filter(|kind| kind.has_tiles()) {
            let block_bytes = kind.tensor_type().block_bytes as usize;
            let rows: Vec<u8> = (0..7 * TILE_ROWS * block_bytes).map(|_| noise.byte()).collect();
            let mut stripe = rows.clone();
            kind.make_stripe(&mut stripe, &mut copy, move_units::<4>);
            assert_ne!(stripe, rows);
            for (i, tile) in stripe.chunks_exact(TILE_ROWS * block_bytes).enumerate() {
                for (row, bytes) in rows.chunks_exact(7 * block_bytes).enumerate() {
                    let block: [u8; 256] = kind.block_of_tile(tile, row);
                    assert_eq!(block[..block_bytes], bytes[i * block_bytes..][..block_bytes]);
                }
            }
        }
    }

    #[test]
    fn words_of_eight_rows_stand_side_by_side() {
        let mut rows: Vec<u8> = (0..8).flat_map(|row| [row; 34]).collect();
        WeightType::Q8_0.make_stripe(&mut rows, &mut Vec::new(), move_units::<4>);
        let expected = |n: usize| (0..8).flat_map(move |row| vec![row; n]);
        assert!(rows[..16].iter().copied().eq(expected(2)));
        assert!(rows[16..].chunks_exact(32).all(|words| words.iter().copied().eq(expected(4))));
    }
}
