//! Checks of the kernels on the machine they run on: against the portable ones, bit for bit, and
//! against plain sums in double precision.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{Activations, active, dot, scalar};
use crate::llm::quantize::{
    ActivationType, BLOCK, BlockQ8_0, BlockQ8K, SUPER_BLOCK, WeightType, dequantize_row,
    f16_to_f32, f32_to_f16, quantize_q8_0, quantize_q8_k, round_to_f16,
};
use crate::llm::sampling::SplitMix64;

/// A check: `Ok` says what was compared, `Err` what differs.
pub type Check = fn() -> Result<String, String>;

/// All checks with their names.
pub const CHECKS: [(&str, Check); 7] = [
    ("kernel f32", || check_dot(WeightType::F32)),
    ("kernel f16", || check_dot(WeightType::F16)),
    ("kernel q4_0", || check_dot(WeightType::Q4_0)),
    ("kernel q8_0", || check_dot(WeightType::Q8_0)),
    ("kernel q6_k", || check_dot(WeightType::Q6_K)),
    ("kernel f16 cache", check_f16_cache),
    ("kernel add scaled", check_add_scaled),
];

/// Numbers of blocks in the rows that are checked.
const LENGTHS: [usize; 7] = [1, 2, 3, 5, 7, 13, 61];
/// How far a sum may be from the one in double precision, relative to the sum of the magnitudes.
const TOLERANCE: f64 = 1e-5;

/// Seeded test data.
pub(crate) struct Noise(SplitMix64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Noise(SplitMix64::new(seed))
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        (2.0 * self.0.next_unit() - 1.0) as f32
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub fn byte(&mut self) -> u8 {
        self.0.next_u64() as u8
    }
}

/// A row of `blocks` blocks of weights: every pattern of bits, but scales of up to `amplitude`.
pub(crate) fn random_row(
    kind: WeightType,
    blocks: usize,
    amplitude: f32,
    noise: &mut Noise,
) -> Vec<u8> {
    let block_bytes = kind.tensor_type().block_bytes as usize;
    let mut bytes: Vec<u8> = (0..blocks * block_bytes).map(|_| noise.byte()).collect();
    for block in bytes.chunks_mut(block_bytes) {
        let scale = amplitude * noise.float();
        match kind {
            WeightType::F32 => block.copy_from_slice(&scale.to_le_bytes()),
            WeightType::Q6_K => block[208..].copy_from_slice(&f32_to_f16(scale).to_le_bytes()),
            _ => block[..2].copy_from_slice(&f32_to_f16(scale).to_le_bytes()),
        }
    }
    bytes
}

/// Activations in the format for `kind`, and the values that they stand for.
fn random_activations(kind: WeightType, n: usize, noise: &mut Noise) -> (Owned, Vec<f32>) {
    let x = noise.floats(n);
    match kind.activations() {
        ActivationType::F32 => (Owned::F32(x.clone()), x),
        ActivationType::F16 => {
            let x: Vec<f32> = x.into_iter().map(round_to_f16).collect();
            (Owned::F16(x.clone()), x)
        }
        ActivationType::Q8_0 => {
            let mut blocks = vec![BlockQ8_0 { d: 0.0, qs: [0; BLOCK] }; n / BLOCK];
            quantize_q8_0(&x, &mut blocks);
            let values = blocks.iter().flat_map(|b| b.qs.map(|q| b.d * f32::from(q))).collect();
            (Owned::Q8_0(blocks), values)
        }
        ActivationType::Q8_K => {
            let empty = BlockQ8K { d: 0.0, qs: [0; SUPER_BLOCK], sums: [0; SUPER_BLOCK / 16] };
            let mut blocks = vec![empty; n / SUPER_BLOCK];
            quantize_q8_k(&x, &mut blocks);
            let values = blocks.iter().flat_map(|b| b.qs.map(|q| b.d * f32::from(q))).collect();
            (Owned::Q8K(blocks), values)
        }
    }
}

enum Owned {
    F32(Vec<f32>),
    F16(Vec<f32>),
    Q8_0(Vec<BlockQ8_0>),
    Q8K(Vec<BlockQ8K>),
}

impl Owned {
    fn borrow(&self) -> Activations<'_> {
        match self {
            Owned::F32(x) => Activations::F32(x),
            Owned::F16(x) => Activations::F16(x),
            Owned::Q8_0(x) => Activations::Q8_0(x),
            Owned::Q8K(x) => Activations::Q8K(x),
        }
    }
}

fn scalar_dot(row: &[u8], kind: WeightType, x: &Owned) -> f32 {
    match (kind, x) {
        (WeightType::Q4_0, Owned::Q8_0(x)) => scalar::dot_q4_0(row.as_chunks().0, x),
        (_, Owned::Q8_0(x)) => scalar::dot_q8_0(row.as_chunks().0, x),
        (_, Owned::Q8K(x)) => scalar::dot_q6_k(row.as_chunks().0, x),
        (_, Owned::F16(x)) => scalar::dot_f16(row.as_chunks().0, x),
        (_, Owned::F32(x)) => scalar::dot_f32(row.as_chunks().0, x),
    }
}

/// Compares a sum with the portable kernel's, and with that of the products in double precision.
fn compare(
    length: usize,
    actual: f32,
    portable: f32,
    products: impl Iterator<Item = f64>,
) -> Result<f64, String> {
    if actual.to_bits() != portable.to_bits() {
        return Err(format!("length {length}: {actual:e}, the portable kernel gives {portable:e}"));
    }
    let (sum, magnitude) =
        products.fold((0.0, 0.0), |(sum, magnitude), p| (sum + p, magnitude + p.abs()));
    let error = (f64::from(actual) - sum).abs() / magnitude.max(f64::MIN_POSITIVE);
    // Not a number is an error too.
    if error <= TOLERANCE {
        Ok(error)
    } else {
        Err(format!("length {length}: {actual:e}, a sum in double precision gives {sum:e}"))
    }
}

fn summary(largest: f64) -> String {
    format!(
        "{} gives the portable kernel's bits, and is within {largest:.1e} of double precision",
        super::name()
    )
}

fn check_dot(kind: WeightType) -> Result<String, String> {
    let mut noise = Noise::new(17);
    let mut largest = 0.0_f64;
    for blocks in LENGTHS {
        let n = blocks * kind.tensor_type().block_weights as usize;
        let row = random_row(kind, blocks, 1.0, &mut noise);
        let (x, values) = random_activations(kind, n, &mut noise);
        let mut weights = vec![0.0; n];
        dequantize_row(kind, &row, &mut weights);
        let products = weights.iter().zip(&values).map(|(&w, &x)| f64::from(w) * f64::from(x));
        let actual = dot(kind, &row, &x.borrow());
        largest = largest.max(compare(n, actual, scalar_dot(&row, kind, &x), products)?);
    }
    Ok(summary(largest))
}

fn check_f16_cache() -> Result<String, String> {
    let mut noise = Noise::new(19);
    let mut largest = 0.0_f64;
    for n in LENGTHS {
        let bits: Vec<u16> = noise.floats(n).into_iter().map(f32_to_f16).collect();
        let x = noise.floats(n);
        let products = bits.iter().zip(&x).map(|(&b, &x)| f64::from(f16_to_f32(b)) * f64::from(x));
        let actual = super::dot_f16(&bits, &x);
        largest = largest.max(compare(n, actual, scalar::dot_f16_cache(&bits, &x), products)?);
    }
    Ok(summary(largest))
}

fn check_add_scaled() -> Result<String, String> {
    let mut noise = Noise::new(23);
    let mut largest = 0.0_f64;
    for n in LENGTHS {
        let bits: Vec<u16> = noise.floats(n).into_iter().map(f32_to_f16).collect();
        let (before, factor) = (noise.floats(n), noise.float());
        let (mut out, mut portable) = (before.clone(), before.clone());
        active::add_scaled_f16(&mut out, factor, &bits);
        scalar::add_scaled_f16(&mut portable, factor, &bits);
        for i in 0..n {
            let added = f64::from(factor) * f64::from(f16_to_f32(bits[i]));
            let terms = [f64::from(before[i]), added].into_iter();
            largest = largest.max(compare(n, out[i], portable[i], terms)?);
        }
    }
    Ok(summary(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_passes_its_check() {
        for (name, check) in CHECKS {
            check().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn a_wrong_sum_is_found() {
        let terms = || [1.5, -0.25].into_iter();
        assert!(compare(2, 1.25, 1.25, terms()).is_ok());
        assert!(compare(2, 1.25, 1.250_000_1, terms()).is_err());
        assert!(compare(2, 1.2501, 1.2501, terms()).is_err());
        assert!(compare(2, f32::NAN, f32::NAN, terms()).is_err());
    }
}
