//! Properties of blocks of any bytes.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use proptest::collection::vec as any_of;
use proptest::prelude::*;

use super::*;
use crate::llm::kernels::fixtures::ActivationBuffers;
use crate::llm::kernels::self_test::compare_sets;

/// Cases for each property: enough to meet odd scales, few enough to take seconds.
const CASES: u32 = 256;

/// The ranges of the integers in a block: weights, group scales, minimums.
struct Bounds {
    weights: RangeInclusive<i8>,
    scales: RangeInclusive<i8>,
    mins: RangeInclusive<u8>,
}

/// From the widths of the fields (`ggml-common.h`), or from the type's tables.
fn bounds(kind: WeightType) -> Bounds {
    let (weights, scales, mins) = match kind {
        WeightType::F32 | WeightType::F16 | WeightType::BF16 => (0..=0, 0..=0, 0),
        WeightType::Q4_0 => (-8..=7, 1..=1, 0),
        WeightType::Q4_1 => (0..=15, 1..=1, 0),
        WeightType::Q5_0 => (-16..=15, 1..=1, 0),
        WeightType::Q5_1 => (0..=31, 1..=1, 0),
        WeightType::Q8_0 => (-128..=127, 1..=1, 0),
        WeightType::IQ4_NL => (-127..=113, 1..=1, 0),
        WeightType::MXFP4 => (-12..=12, 1..=1, 0),
        WeightType::Q2_K => (0..=3, 0..=15, 15),
        WeightType::Q3_K => (-4..=3, -32..=31, 0),
        WeightType::Q4_K => (0..=15, 0..=63, 63),
        WeightType::Q5_K => (0..=31, 0..=63, 63),
        WeightType::Q6_K => (-32..=31, -128..=127, 0),
        WeightType::IQ2_XXS | WeightType::IQ2_XS | WeightType::IQ2_S => (-43..=43, 1..=31, 0),
        WeightType::IQ3_XXS => (-62..=62, 1..=31, 0),
        WeightType::IQ3_S => (-15..=15, 1..=31, 0),
        WeightType::IQ1_S | WeightType::IQ1_M => (-9..=9, 1..=15, 0),
        WeightType::IQ4_XS => (-127..=113, -32..=31, 0),
        // Two bits hold a fourth weight, which no quantiser writes.
        WeightType::TQ1_0 | WeightType::TQ2_0 => (-1..=2, 1..=1, 0),
    };
    Bounds { weights, scales, mins: 0..=mins }
}

/// Unpacks the blocks of a row, and checks parts and values against bounds.
struct Check<'a> {
    kind: WeightType,
    row: &'a [u8],
    values: &'a [f32],
}

/// The same number, or both NaN.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

impl Visitor for Check<'_> {
    type Output = ();

    fn numbers<const N: usize>(self, value: impl Fn(&[u8; N]) -> f32) {
        for (block, &actual) in Row::of_file(self.row).blocks().zip(self.values) {
            assert!(same(value(&block), actual), "{:?} of {block:?}", self.kind);
        }
    }

    fn blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> Block) {
        let Bounds { weights: range, .. } = bounds(self.kind);
        let values = self.values.as_chunks::<BLOCK>().0;
        for (block, values) in Row::of_file(self.row).blocks().zip(values) {
            let Block { weights, d, offset } = unpack(&block);
            assert!(weights.iter().all(|q| range.contains(q)), "{:?}: {weights:?}", self.kind);
            let largest = range.start().unsigned_abs().max(range.end().unsigned_abs());
            check_values(values, d, f32::from(largest), offset);
        }
    }

    fn super_blocks<const N: usize>(self, unpack: impl Fn(&[u8; N]) -> SuperBlock) {
        let bounds = bounds(self.kind);
        let values = self.values.as_chunks::<SUPER_BLOCK>().0;
        for (block, values) in Row::of_file(self.row).blocks().zip(values) {
            let SuperBlock { weights, scales: Scales { d, d_min, scales, mins } } = unpack(&block);
            assert!(weights.iter().all(|q| bounds.weights.contains(q)), "{:?}", self.kind);
            assert!(scales.iter().all(|scale| bounds.scales.contains(scale)), "{:?}", self.kind);
            assert!(mins.iter().all(|min| bounds.mins.contains(min)), "{:?}", self.kind);
            let groups = values.as_chunks::<GROUP>().0.iter().zip(weights.as_chunks::<GROUP>().0);
            for ((values, weights), (&scale, &min)) in groups.zip(scales.iter().zip(&mins)) {
                let largest = weights.iter().map(|q| q.unsigned_abs()).max().unwrap_or(0);
                let scaled = d * f32::from(scale);
                check_values(values, scaled, f32::from(largest), -(d_min * f32::from(min)));
            }
        }
    }
}

/// Finite scales and offsets give finite values within bounds. A NaN scale gives NaN.
fn check_values(values: &[f32], scale: f32, largest: f32, offset: f32) {
    let bound = scale.abs() * largest + offset.abs();
    for &value in values {
        if bound.is_finite() {
            // Rounded twice.
            assert!(value.abs() <= bound * (1.0 + 1e-6), "{value}, {scale} and {offset}");
        } else if scale.is_nan() || offset.is_nan() {
            assert!(value.is_nan(), "{value}, {scale} and {offset}");
        }
    }
}

fn any_kind() -> impl Strategy<Value = WeightType> {
    (0..WeightType::ALL.len()).prop_map(|i| WeightType::ALL[i])
}

/// A type, and rows of `blocks` blocks of random bytes.
fn any_rows(rows: RangeInclusive<usize>) -> impl Strategy<Value = (WeightType, usize, Vec<u8>)> {
    (any_kind(), 1..=3_usize, rows).prop_flat_map(|(kind, blocks, rows)| {
        let block_bytes = kind.tensor_type().block_bytes as usize;
        let bytes = any_of(any::<u8>(), rows * blocks * block_bytes);
        (Just(kind), Just(blocks), bytes)
    })
}

/// Activations, of which some are odd.
fn any_activation() -> impl Strategy<Value = f32> {
    prop_oneof![
        9 => -2.0..2.0_f32,
        1 => any::<u32>().prop_map(f32::from_bits),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(CASES)
    })]

    #[test]
    fn any_bytes_are_blocks_whose_values_are_within_the_format(
        (kind, _, bytes) in any_rows(1..=1),
    ) {
        let TensorType { block_weights, block_bytes, .. } = kind.tensor_type();
        let n = bytes.len() / block_bytes as usize * block_weights as usize;
        let mut values = vec![f32::MIN_POSITIVE; n];
        dequantize_row(kind, &bytes, &mut values);
        kind.visit(Check { kind, row: &bytes, values: &values });
    }

    #[test]
    fn places_for_values_may_be_too_few(
        (kind, _, bytes) in any_rows(1..=1),
        n in 0..600_usize,
    ) {
        // No more is written than there are blocks and places for whole ones.
        let mut values = vec![0.25; n];
        dequantize_row(kind, &bytes, &mut values);
        let TensorType { block_weights, block_bytes, .. } = kind.tensor_type();
        let block = block_weights as usize;
        let blocks = (bytes.len() / block_bytes as usize).min(n / block);
        prop_assert!(values[blocks * block..].iter().all(|&value| value == 0.25));
    }

    #[test]
    fn kernels_give_the_reference_for_any_bytes(
        (kind, blocks, bytes) in any_rows(1..=11),
        tokens in 1..=5_usize,
        seed in any_of(any_activation(), 64),
    ) {
        let columns = blocks * kind.tensor_type().block_weights as usize;
        let x: Vec<f32> = seed.iter().copied().cycle().take(tokens * columns).collect();
        let x = ActivationBuffers::new(kind, &x, tokens);
        if let Err(difference) = compare_sets(kind, columns, &bytes, &x, same) {
            prop_assert!(false, "{kind:?}: {difference}");
        }
    }

    #[test]
    fn a_panel_holds_the_blocks_of_its_rows((kind, blocks, bytes) in any_rows(8..=8)) {
        prop_assume!(kind.has_panels());
        let block_bytes = kind.tensor_type().block_bytes as usize;
        let mut panel = bytes.clone();
        kind.pack_panel(&mut panel, &mut Vec::new(), interleave_units::<4>);
        for (i, panel_block) in panel.chunks_exact(PANEL_ROWS * block_bytes).enumerate() {
            for (row, bytes) in bytes.chunks_exact(blocks * block_bytes).enumerate() {
                let block: [u8; 256] = kind.block_of_row(panel_block, row);
                prop_assert_eq!(&block[..block_bytes], &bytes[i * block_bytes..][..block_bytes]);
            }
        }
    }

    #[test]
    fn quantisers_take_any_numbers((i, x) in (any_kind(), any_of(any_activation(), SUPER_BLOCK))) {
        let Some(quantize) = i.quantizer() else { return Ok(()) };
        let mut bytes = vec![0; i.row_bytes(x.len())];
        quantize(&x, &mut bytes);
        let mut back = vec![0.0; x.len()];
        dequantize_row(i, &bytes, &mut back);
        // With 256 steps from -largest to largest, no value is off by more than one step. The scale
        // is rounded to an F16 besides.
        if i == WeightType::Q8_0 {
            for (x, back) in x.as_chunks::<BLOCK>().0.iter().zip(back.as_chunks::<BLOCK>().0) {
                let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                if (1e-2..=60_000.0).contains(&largest) && x.iter().all(|x| x.is_finite()) {
                    for (x, back) in x.iter().zip(back) {
                        prop_assert!((x - back).abs() <= largest / 127.0, "{x} became {back}");
                    }
                }
            }
        }
    }
}
