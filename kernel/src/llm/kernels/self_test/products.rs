//! Checks of matrix products, for each weight type and each set of kernels.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::{LENGTHS, Outcome, ROWS, TOLERANCE, compare, summary};
use crate::cpu::Features;
use crate::llm::arena::ModelBuffer;
use crate::llm::kernels::fixtures::{ActivationBuffers, Noise, random_row, with_scales};
use crate::llm::kernels::{
    ActivationPanels, Batch, OutputRows, Rows, active, multiply_with, pack_panel, scalar,
};
use crate::llm::quantize::{ActivationType, PANEL_ROWS, WeightType, dequantize_row};

/// Tokens, for each case. The longest rows get tokens for GEMM and for GEMV.
const TOKENS: [usize; 7] = [1, 2, 3, 5, 1, 4, 14];
/// More numbers of tokens: GEMM takes none of them, all, and all but each possible remainder.
const EACH_NUMBER_OF_TOKENS: RangeInclusive<usize> = 1..=11;
/// Blocks in a row, and rows, for each of [`EACH_NUMBER_OF_TOKENS`].
const SHAPE: (usize, usize) = (3, 17);
/// The tolerance where activations carry their sum as an F16.
///
/// The sum comes from the scale before rounding.
const TOLERANCE_Q8_1: f64 = 1e-3;

/// The check of each weight type.
pub fn checks() -> impl Iterator<Item = (String, Outcome)> {
    WeightType::ALL
        .iter()
        .map(|&kind| (format!("kernel {}", kind.tensor_type().name.to_lowercase()), check(kind)))
}

/// The products of each token: `[n_tokens, n_rows]`.
struct Products(Vec<Vec<f32>>);

impl OutputRows for Products {
    fn of_tokens(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.0.iter_mut().map(|sums| &mut sums[..])
    }
}

/// Checks the dot products of a weight type.
fn check(kind: WeightType) -> Outcome {
    let tolerance = match kind.activations() {
        ActivationType::Q8_1 => TOLERANCE_Q8_1,
        _ => TOLERANCE,
    };
    let mut noise = Noise::new(17);
    let block = kind.tensor_type().block_weights as usize;
    let mut cases = Vec::new();
    let shapes = LENGTHS.into_iter().zip(ROWS).zip(TOKENS);
    for ((blocks, rows), tokens) in shapes.chain(EACH_NUMBER_OF_TOKENS.map(|n| (SHAPE, n))) {
        let x = noise.floats(tokens * blocks * block);
        cases.push((random_row(kind, rows * blocks, 1.0, &mut noise), x, tokens));
    }
    // The largest sums: all weights at an end of their range, and all activations.
    for byte in [0x00, 0x77, 0x80, 0x88, 0xff] {
        for x in [1.0, -1.0] {
            for tokens in [1, 2] {
                let n = 5 * block;
                let bytes = vec![byte; 9 * kind.row_bytes(n)];
                let rows = with_scales(kind, bytes, 1.0, &mut noise);
                cases.push((rows, vec![x; tokens * n], tokens));
            }
        }
    }
    let mut largest = 0.0_f64;
    for (rows, x, tokens) in cases {
        let n = x.len() / tokens;
        let row_bytes = kind.row_bytes(n);
        let x = ActivationBuffers::new(kind, &x, tokens);
        let values = x.values();
        let mut weights = vec![0.0; n];
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits();
        let expected = compare_sets(kind, n, &rows, &x, same)?;
        for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
            dequantize_row(kind, bytes, &mut weights);
            for (token, x) in values.chunks_exact(n).enumerate() {
                let products = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                let sum = expected[token][row];
                largest = largest.max(compare(n, sum, sum, tolerance, products)?);
            }
        }
    }
    Ok(summary(largest))
}

/// Multiplies rows of `columns` weights by each kernel set of the processor.
///
/// The rows are multiplied in the file's layout and as row panels. Returns the products of each
/// token: `[n_tokens, n_rows]`.
///
/// # Errors
/// A product is not the `same` as the portable kernel's.
pub(crate) fn compare_sets(
    kind: WeightType,
    columns: usize,
    rows: &[u8],
    x: &ActivationBuffers,
    same: impl Fn(f32, f32) -> bool,
) -> Result<Vec<Vec<f32>>, String> {
    let row_bytes = kind.row_bytes(columns);
    let tokens = x.n;
    let of_token = |token| {
        let x = x.batch().token(token);
        rows.chunks_exact(row_bytes).map(|row| scalar::dot(kind, row, &x)).collect()
    };
    let expected: Vec<Vec<f32>> = (0..tokens).map(of_token).collect();
    for (set, packed) in active::KernelSet::all(Features::of_this_core())
        .flat_map(|set| [(set, false), (set, true)])
        .filter(|(_, packed)| !packed || kind.has_panels())
    {
        let rows =
            if packed { packed_rows(kind, rows, row_bytes) } else { ModelBuffer::from(rows) };
        let rows = Rows { kind, columns, bytes: &rows, packed };
        // By GEMM for the tokens in panels, and by GEMV alone.
        for batch in [x.batch(), Batch { panels: ActivationPanels::None, ..x.batch() }] {
            let mut actual = Products(expected.iter().map(|sums| vec![0.0; sums.len()]).collect());
            multiply_with(set, &rows, &batch, &mut actual);
            for (token, (actual, expected)) in actual.0.iter().zip(&expected).enumerate() {
                for (row, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
                    if !same(actual, expected) {
                        return Err(format!(
                            "length {columns}, row {row}, token {token} of {tokens}: {} gives \
                             {actual:e}, the portable kernel {expected:e}",
                            set.name()
                        ));
                    }
                }
            }
        }
    }
    Ok(expected)
}

/// Packs each eight of the rows into a panel.
fn packed_rows(kind: WeightType, rows: &[u8], row_bytes: usize) -> ModelBuffer {
    let mut rows = ModelBuffer::from(rows);
    let mut copy = Vec::new();
    for eight in rows.as_mut_slice().chunks_exact_mut(PANEL_ROWS * row_bytes) {
        pack_panel(kind, eight, &mut copy);
    }
    rows
}
