use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::activations::{round_half_away, round_half_even};
use super::*;
use crate::llm::gguf::Gguf;
use crate::llm::kernels::fixtures::ActivationBuffers;
use crate::llm::kernels::{dot, quantize_q8_0, quantize_q8_1, quantize_q8_k};

#[test]
fn every_f16_survives_and_f32_rounds_to_the_nearest() {
    for bits in 0..=u16::MAX {
        let value = f16_to_f32(bits);
        let expected = half::f16::from_bits(bits).to_f32_const();
        assert!(value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()));
        if !value.is_nan() {
            assert_eq!(f32_to_f16(value), bits);
        }
    }
    // Every exponent with fractions at, below and above a half of the last place.
    for high in 0..=0xffff_u32 {
        for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let x = f32::from_bits(high << 16 | low);
            if !x.is_nan() {
                assert_eq!(f32_to_f16(x), half::f16::from_f32_const(x).to_bits(), "{x:e}");
            }
        }
    }
    assert!(f16_to_f32(f32_to_f16(f32::NAN)).is_nan());
}

#[test]
fn rounding_is_that_of_c() {
    for (x, away, even) in [
        (0.0, 0, 0),
        (0.5, 1, 0),
        (1.5, 2, 2),
        (2.5, 3, 2),
        (-0.5, -1, 0),
        (-1.5, -2, -2),
        (-2.5, -3, -2),
        (0.499_999_97, 0, 0),
        (126.5, 127, 126),
        (-126.5, -127, -126),
        (127.499, 127, 127),
        (-127.0, -127, -127),
    ] {
        assert_eq!((round_half_away(x), round_half_even(x)), (away, even), "{x}");
    }
}

/// The activations 0.25 * (i - 16) except for one of 127/8 and one of half a step.
#[test]
fn q8_0_is_quantised_as_ggml_does() {
    let mut x: Vec<f32> = (0..32).map(|i| 0.25 * (i as f32 - 16.0)).collect();
    x[31] = 15.875;
    x[16] = 0.0625;
    x[17] = -0.0625;
    let mut out = [BlockQ8_0 { qs: [9; 32], d: 9.0, minus_8_sums: 9 }; 2];
    quantize_q8_0(&[&x[..], &[0.0; 32]].concat(), &mut out);
    // d = 15.875 / 127 = 1/8, so 0.25 becomes 2 and half a step rounds away from zero.
    assert_eq!(out[0].d, 0.125);
    let mut expected: [i8; 32] = core::array::from_fn(|i| 2 * (i as i8 - 16));
    (expected[31], expected[16], expected[17]) = (127, 1, -1);
    assert_eq!(out[0].qs, expected);
    assert_eq!(out[0].minus_8_sums, -8 * expected.map(i32::from).iter().sum::<i32>());
    assert_eq!(out[1], BlockQ8_0::ZERO);
}

#[test]
fn the_scale_of_q8_0_is_rounded_but_the_activations_are_not() {
    let mut out = [BlockQ8_0::ZERO];
    let mut x = [0.0; 32];
    x[..2].copy_from_slice(&[1.0, -0.3]);
    quantize_q8_0(&x, &mut out);
    assert_eq!(out[0].d, half::f16::from_f32(1.0 / 127.0).to_f32());
    assert_ne!(out[0].d, 1.0 / 127.0);
    assert_eq!(out[0].qs[..3], [127, -38, 0]);
}

#[test]
fn q8_k_is_quantised_as_ggml_does() {
    // The largest magnitude becomes -127, whatever its sign; the first of two counts.
    for sign in [1.0, -1.0] {
        let mut x = vec![0.0; 256];
        (x[3], x[5], x[7], x[250]) = (sign * 63.5, sign * -63.5, sign * 0.25, sign * 0.75);
        let mut out = [BlockQ8K { qs: [9; 256], minus_32_sums: [9; 16], sums: [9; 16], d: 0.0 }];
        quantize_q8_k(&x, &mut out);
        assert_eq!(out[0].d, -0.5 * sign);
        // Halves round to the even number: -0.5 to 0, -1.5 to -2.
        assert_eq!((out[0].qs[3], out[0].qs[5], out[0].qs[7], out[0].qs[250]), (-127, 127, 0, -2));
        assert_eq!((out[0].sums[0], out[0].sums[1], out[0].sums[15]), (0, 0, -2));
        assert_eq!((out[0].minus_32_sums[0], out[0].minus_32_sums[15]), (0, 64));
    }
    let mut out = [BlockQ8K { qs: [9; 256], minus_32_sums: [9; 16], sums: [9; 16], d: 1.0 }];
    quantize_q8_k(&[0.0; 256], &mut out);
    assert_eq!(out[0], BlockQ8K::ZERO);
}

#[test]
fn odd_activations_are_no_panic() {
    for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE / 4.0, f32::MAX] {
        let mut x = vec![x; 256];
        x[13] = 1e-40;
        quantize_q8_0(&x, &mut [BlockQ8_0::ZERO; 8]);
        quantize_q8_k(&x, &mut [BlockQ8K::ZERO]);
    }
}

#[test]
fn rows_of_plain_numbers_dequantise() {
    let mut out = [0.0; 3];
    let bytes: Vec<u8> = [1.5_f32, -2.0, 0.1].iter().flat_map(|x| x.to_le_bytes()).collect();
    dequantize_row(WeightType::F32, &bytes, &mut out);
    assert_eq!(out, [1.5, -2.0, 0.1]);
    dequantize_row(WeightType::F16, &[0x00, 0x3e, 0x00, 0xc0, 0x66, 0x2e], &mut out);
    assert_eq!(out, [1.5, -2.0, half::f16::from_f32(0.1).to_f32()]);
}

#[test]
fn a_block_of_q4_0_dequantises() {
    // Scale 0.5; byte i holds weight i below and weight i + 16 above.
    let mut block = vec![0x00, 0x38];
    block.extend((0..16).map(|i| i | (15 - i) << 4));
    let mut out = [0.0; 32];
    dequantize_row(WeightType::Q4_0, &block, &mut out);
    for i in 0..16 {
        assert_eq!(out[i], 0.5 * (i as f32 - 8.0));
        assert_eq!(out[i + 16], 0.5 * (7.0 - i as f32));
    }
}

#[test]
fn a_block_of_q8_0_dequantises() {
    let mut block = vec![0x00, 0xc0];
    block.extend((0..32).map(|i| (i * 8 - 128) as u8));
    let mut out = [0.0; 32];
    dequantize_row(WeightType::Q8_0, &block, &mut out);
    assert!((0..32).all(|i| out[i] == -2.0 * (i as f32 * 8.0 - 128.0)));
}

/// `test_models/tensor_types.py` made it.
const VECTORS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../test_models/tensor_types/vectors.gguf"
));

/// The data of a tensor of the vectors.
fn vector(name: &str) -> Option<&'static [u8]> {
    let gguf = Gguf::parse(VECTORS).unwrap();
    gguf.tensor(name).map(|tensor| gguf.data(tensor).unwrap())
}

fn numbers(name: &str) -> Vec<f32> {
    let bytes = vector(name).unwrap_or_else(|| panic!("no {name}"));
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn every_type_dequantises_as_ggml_does() {
    for &kind in WeightType::ALL {
        let name = kind.tensor_type().name;
        let expected = numbers(&format!("{name}.values"));
        let mut out = vec![0.0; expected.len()];
        dequantize_row(kind, vector(&format!("{name}.blocks")).unwrap(), &mut out);
        for (i, (actual, expected)) in out.iter().zip(&expected).enumerate() {
            let same = actual.to_bits() == expected.to_bits();
            assert!(
                same || actual.is_nan() && expected.is_nan(),
                "{name} {i}: {actual} {expected}"
            );
        }
    }
}

/// ggml's portable kernels add up in other orders, so that the last bits differ.
#[test]
fn dot_products_are_those_of_ggml() {
    let x = numbers("x");
    let mut compared = 0;
    for &kind in WeightType::ALL {
        let name = kind.tensor_type().name;
        if vector(&format!("{name}.dots")).is_none() {
            assert_eq!(kind.tensor_type().block_weights, 1);
            continue;
        }
        let blocks = vector(&format!("{name}.blocks")).unwrap();
        let mut weights = vec![0.0; x.len()];
        dequantize_row(kind, blocks, &mut weights);
        let dots = numbers(&format!("{name}.dots"));
        for (expected, n) in dots.into_iter().zip((256..).step_by(256)) {
            let activations = ActivationBuffers::new(kind, &x[..n], 1);
            let actual = dot(kind, &blocks[..kind.row_bytes(n)], &activations.batch().x);
            let products: Vec<f64> =
                weights.iter().zip(&x[..n]).map(|(&w, &x)| f64::from(w) * f64::from(x)).collect();
            let magnitude: f64 = products.iter().map(|p| p.abs()).sum();
            assert!(f64::from((actual - expected).abs()) < 1e-6 * magnitude, "{name} {n}");
            // The error from rounding activations. ggml's own limit is 0.02.
            let exact: f64 = products.iter().sum();
            assert!((f64::from(actual) - exact).abs() < 0.005 * magnitude, "{name} {n}");
            compared += 1;
        }
    }
    assert_eq!(compared, 22 * 7);
}

#[test]
fn bf16_rounds_to_the_nearest() {
    for bits in 0..=u16::MAX {
        let value = bf16_to_f32(bits);
        let expected = half::bf16::from_bits(bits).to_f32_const();
        assert!(value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()));
        if !value.is_nan() {
            assert_eq!(f32_to_bf16(value), bits);
        }
    }
    for high in 0..=0xffff_u32 {
        for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let x = f32::from_bits(high << 16 | low);
            if !x.is_nan() {
                assert_eq!(f32_to_bf16(x), half::bf16::from_f32_const(x).to_bits(), "{x:e}");
            }
        }
    }
    // The payload is all in the lower half.
    assert!(round_to_bf16(f32::from_bits(0x7f80_0001)).is_nan());
}

#[test]
fn q8_1_has_the_sum_besides() {
    let mut x = [0.0; 64];
    x[..3].copy_from_slice(&[1.6, -0.3, 0.7]);
    let mut out = [BlockQ8_1 { d: 9.0, sum: 9.0, qs: [9; 32] }; 2];
    quantize_q8_1(&x, &mut out);
    assert_eq!(out[0].qs[..4], [127, -24, 56, 0]);
    assert_eq!(out[0].d, round_to_f16(1.6 / 127.0));
    // From the scale before it was rounded.
    assert_eq!(out[0].sum, round_to_f16(159.0 * (1.6_f32 / 127.0)));
    assert_ne!(out[0].sum, round_to_f16(159.0 * out[0].d));
    assert_eq!(out[1], BlockQ8_1 { d: 0.0, sum: 0.0, qs: [0; 32] });
}

#[test]
fn quantisers_give_the_bytes_of_ggml() {
    let source = numbers("source");
    let mut compared = 0;
    for &kind in WeightType::ALL {
        let name = kind.tensor_type().name;
        let (Some(quantize), Some(expected)) =
            (kind.quantizer(), vector(&format!("{name}.quantized")))
        else {
            continue;
        };
        let mut out = vec![0; kind.row_bytes(source.len())];
        quantize(&source, &mut out);
        let block = kind.tensor_type().block_bytes as usize;
        for (i, (actual, expected)) in out.chunks(block).zip(expected.chunks(block)).enumerate() {
            assert_eq!(actual, expected, "{name}, block {i}");
        }
        compared += 1;
    }
    assert_eq!(compared, 10);
}

#[test]
fn weights_that_no_scale_can_hold_become_zeros() {
    let x: Vec<f32> = (0..512).map(|i| 1e-40 * ((i * 37 % 101) as f32 - 50.0)).collect();
    for &kind in WeightType::ALL {
        let Some(quantize) = kind.quantizer() else { continue };
        let mut bytes = vec![9; kind.row_bytes(x.len())];
        quantize(&x, &mut bytes);
        let mut out = vec![1.0; x.len()];
        dequantize_row(kind, &bytes, &mut out);
        assert!(out.iter().all(|x| x.abs() < 1e-38), "{kind:?}");
        // NaN causes no panic either.
        quantize(&[f32::NAN; 256], &mut bytes);
        quantize(&[f32::INFINITY; 256], &mut bytes);
        quantize(&[-f32::MAX; 256], &mut bytes);
    }
}
