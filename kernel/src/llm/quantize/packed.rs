//! Row panels: the packed layout of weights that the GEMV and GEMM kernels read.
//!
//! A row panel packs eight neighbouring rows of a matrix. It consists of panel blocks, one after
//! the other: `[n_blocks]`. A panel block holds a block of each of the eight rows, cut into units:
//! four bytes of weights, or the bytes of a scale. The units of the eight rows are interleaved. So
//! one load gets the same columns of several rows, and the sum of each row has a lane of its own.
//!
//! A panel takes the bytes that its rows took, so that a file is repacked in place. The same is
//! done by llama.cpp's `repack.cpp`, in layouts of its own (`block_q4_0x8`).

use alloc::vec::Vec;

use super::WeightType;

/// Rows of a panel.
pub const PANEL_ROWS: usize = 8;

/// A field of a block: neighbouring units of the same size.
#[derive(Clone, Copy, Debug)]
struct Field {
    /// Bytes of a unit.
    unit: usize,
    /// Number of units.
    count: usize,
}

/// A field of scales and offsets in F16.
const fn f16(count: usize) -> Field {
    Field { unit: 2, count }
}

/// A field of weights, or of bits of weights: `sdot` adds up four bytes.
const fn words(count: usize) -> Field {
    Field { unit: 4, count }
}

/// A field of group scales.
const fn bytes(count: usize) -> Field {
    Field { unit: 1, count }
}

impl WeightType {
    /// The fields of a block, in order. Empty if the type has no panels.
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

    /// Whether weights of this type can be packed into row panels.
    pub const fn has_panels(self) -> bool {
        !self.fields().is_empty()
    }

    /// Calls `copy(in block, in panel block, bytes)` for each unit of a row.
    fn for_each_unit(self, row: usize, mut copy: impl FnMut(usize, usize, usize)) {
        let mut start = 0;
        for &Field { unit, count } in self.fields() {
            for i in 0..count {
                copy(start + i * unit, start * PANEL_ROWS + (i * PANEL_ROWS + row) * unit, unit);
            }
            start += unit * count;
        }
    }

    /// The block of one row, out of a panel block.
    pub fn block_of_row<const N: usize>(self, panel_block: &[u8], row: usize) -> [u8; N] {
        let mut block = [0; N];
        self.for_each_unit(row, |to, from, n| {
            block[to..to + n].copy_from_slice(&panel_block[from..from + n]);
        });
        if self == WeightType::Q6_K
            && let Some(weights) = block.first_chunk_mut()
        {
            *weights = q6_k::unjoin(weights);
        }
        block
    }

    /// Packs eight rows, which lie one after the other, into a panel.
    ///
    /// `copy` is scratch space for a copy of the rows. `interleave_words(fields, out)` interleaves
    /// words of eight blocks, as [`interleave_units`] does.
    ///
    /// # Panics
    /// `rows` are not eight rows of whole blocks.
    pub fn pack_panel(
        self,
        rows: &mut [u8],
        copy: &mut Vec<u8>,
        interleave_words: impl Fn([&[u8]; PANEL_ROWS], &mut [u8]),
    ) {
        let block_bytes = self.tensor_type().block_bytes as usize;
        assert!(rows.len().is_multiple_of(PANEL_ROWS * block_bytes), "{} bytes", rows.len());
        copy.clear();
        copy.extend_from_slice(rows);
        if self == WeightType::Q6_K {
            for block in copy.chunks_exact_mut(block_bytes) {
                if let Some(weights) = block.first_chunk_mut() {
                    *weights = q6_k::join(weights);
                }
            }
        }
        let row_bytes = rows.len() / PANEL_ROWS;
        for (i, panel_block) in rows.chunks_exact_mut(PANEL_ROWS * block_bytes).enumerate() {
            let mut start = i * block_bytes;
            let mut rest = panel_block;
            for &Field { unit, count } in self.fields() {
                let bytes = unit * count;
                let of_row = |row: usize| &copy[row * row_bytes + start..][..bytes];
                let fields: [&[u8]; PANEL_ROWS] = core::array::from_fn(of_row);
                let (out, after) = rest.split_at_mut(PANEL_ROWS * bytes);
                match unit {
                    1 => interleave_units::<1>(fields, out),
                    2 => interleave_units::<2>(fields, out),
                    _ => interleave_words(fields, out),
                }
                start += bytes;
                rest = after;
            }
        }
    }
}

/// Q6_K in panel blocks: a layout that unpacks in fewer instructions.
///
/// The file has four bits of a weight in one place and two in another. Each four weights share a
/// byte of high bits. In a panel block, three of the four have a byte of their own. The fourth
/// weight is in the two high bits of the three bytes.
mod q6_k {
    /// The bytes of a block's weights.
    type Weights = [u8; 192];

    /// The places of three bytes with four weights: in the file, in a panel block.
    ///
    /// In the file, two bytes hold the low four bits of two weights each. The third byte holds the
    /// high two bits of all four.
    fn places() -> impl Iterator<Item = ([usize; 3], [usize; 3])> {
        (0..64).map(|i| {
            // Each quarter has 16 such triples, from two runs of 16 bytes in its half.
            let (quarter, byte) = (i / 16, i % 16);
            let first = quarter / 2 * 64 + quarter % 2 * 16 + byte;
            let joined = quarter * 48 + byte / 4 * 12 + byte % 4;
            ([first, first + 32, 128 + i], [joined, joined + 4, joined + 8])
        })
    }

    /// Converts from the file's layout.
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

    /// Converts back to the file's layout.
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

/// Interleaves the units of eight fields: all first units, all second units, ...
pub fn interleave_units<const UNIT: usize>(fields: [&[u8]; PANEL_ROWS], out: &mut [u8]) {
    let fields = fields.map(|field| field.as_chunks::<UNIT>().0);
    let (out, _) = out.as_chunks_mut::<UNIT>();
    for (i, out) in out.chunks_exact_mut(PANEL_ROWS).enumerate() {
        for (out, field) in out.iter_mut().zip(fields) {
            *out = field[i];
        }
    }
}

/// A row of weights, in the file's layout or in a panel.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    bytes: &'a [u8],
    /// The type, and the number of the row in the panel.
    of_panel: Option<(WeightType, usize)>,
}

impl<'a> Row<'a> {
    /// A row in the file's layout.
    pub fn of_file(bytes: &'a [u8]) -> Self {
        Row { bytes, of_panel: None }
    }

    /// Row `row` of a panel.
    pub fn of_panel(kind: WeightType, panel: &'a [u8], row: usize) -> Self {
        Row { bytes: panel, of_panel: Some((kind, row)) }
    }

    /// The blocks of the row, of `N` bytes each.
    pub fn blocks<const N: usize>(self) -> impl Iterator<Item = [u8; N]> {
        let rows = if self.of_panel.is_some() { PANEL_ROWS } else { 1 };
        self.bytes.chunks_exact(rows * N).map(move |chunk| match self.of_panel {
            Some((kind, row)) => kind.block_of_row(chunk, row),
            None => *chunk.first_chunk().expect("a block"),
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::llm::kernels::fixtures::Noise;

    #[test]
    fn the_fields_are_all_of_a_block() {
        for kind in WeightType::ALL.iter().filter(|kind| kind.has_panels()) {
            let bytes: usize = kind.fields().iter().map(|field| field.unit * field.count).sum();
            assert_eq!(bytes, kind.tensor_type().block_bytes as usize, "{kind:?}");
        }
    }

    #[test]
    fn a_panel_has_the_blocks_of_its_rows() {
        let mut noise = Noise::new(5);
        let mut copy = Vec::new();
        for kind in WeightType::ALL.iter().filter(|kind| kind.has_panels()) {
            let block_bytes = kind.tensor_type().block_bytes as usize;
            let rows: Vec<u8> = (0..7 * PANEL_ROWS * block_bytes).map(|_| noise.byte()).collect();
            let mut panel = rows.clone();
            kind.pack_panel(&mut panel, &mut copy, interleave_units::<4>);
            assert_ne!(panel, rows);
            for (i, panel_block) in panel.chunks_exact(PANEL_ROWS * block_bytes).enumerate() {
                for (row, bytes) in rows.chunks_exact(7 * block_bytes).enumerate() {
                    let block: [u8; 256] = kind.block_of_row(panel_block, row);
                    assert_eq!(block[..block_bytes], bytes[i * block_bytes..][..block_bytes]);
                }
            }
        }
    }

    #[test]
    fn words_of_eight_rows_are_interleaved() {
        let mut rows: Vec<u8> = (0..8).flat_map(|row| [row; 34]).collect();
        WeightType::Q8_0.pack_panel(&mut rows, &mut Vec::new(), interleave_units::<4>);
        let expected = |n: usize| (0..8).flat_map(move |row| vec![row; n]);
        assert!(rows[..16].iter().copied().eq(expected(2)));
        assert!(rows[16..].chunks_exact(32).all(|words| words.iter().copied().eq(expected(4))));
    }
}
