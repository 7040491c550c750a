//! Checks of the kernels on the machine they run on: against the portable ones, bit for bit, and
//! against plain sums in double precision.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use super::{
    Activations, Batch, HeadRows, Output, Quads, Rows, activations, active, attention, interleave,
    make_stripe, multiply_with, quantize_q8_0, quantize_q8_1, quantize_q8_k, scalar, steps,
};
use crate::cpu::Features;
use crate::llm::arena::ModelBuffer;
use crate::llm::quantize::{
    ActivationType, BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, F32Bytes, Interleave, QUAD, SUPER_BLOCK,
    TILE_ROWS, WeightType, dequantize_row, f32_to_bf16, f32_to_f16, round_to_bf16, round_to_f16,
};
use crate::llm::sampling::SplitMix64;

/// What a check says: `Ok` what was compared, `Err` what differs.
pub type Outcome = Result<String, String>;

/// All checks: their names, and outcomes as they come.
pub fn checks() -> impl Iterator<Item = (String, Outcome)> {
    let of_types = WeightType::ALL.iter().map(|&kind| {
        (format!("kernel {}", kind.tensor_type().name.to_lowercase()), check_dot(kind))
    });
    let of_caches = OF_CACHES.iter().map(|of_cache| {
        let name = of_cache.kind.tensor_type().name.to_lowercase();
        (format!("kernel attention {name}"), check_attention(of_cache))
    });
    let of_steps = STEPS.iter().map(|step| (format!("kernel {}", step.name), check_step(step)));
    of_types.chain(of_caches).chain(of_steps).chain(of_formats())
}

/// Numbers of blocks in the rows that are checked.
const LENGTHS: [usize; 7] = [1, 2, 3, 5, 7, 13, 61];
/// Numbers of the rows of these lengths.
const ROWS: [usize; 7] = [11, 7, 5, 8, 16, 1, 17];
/// Numbers of the tokens that they are multiplied with.
const TOKENS: [usize; 7] = [1, 2, 3, 5, 1, 4, 7];
/// How far a sum may be from the one in double precision, relative to the sum of the magnitudes.
const TOLERANCE: f64 = 1e-5;
/// The same if the activations have their sum as an F16, of the scale before it was rounded.
const TOLERANCE_Q8_1: f64 = 1e-3;

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
    let bytes = (0..kind.row_bytes(blocks * kind.tensor_type().block_weights as usize))
        .map(|_| noise.byte())
        .collect();
    with_scales(kind, bytes, amplitude, noise)
}

/// The row of weights in `bytes`, with random scales of up to `amplitude`.
fn with_scales(kind: WeightType, mut bytes: Vec<u8>, amplitude: f32, noise: &mut Noise) -> Vec<u8> {
    for block in bytes.chunks_mut(kind.tensor_type().block_bytes as usize) {
        set_scales(kind, block, || amplitude * noise.float());
    }
    bytes
}

/// Sets the floating-point numbers of a block.
fn set_scales(kind: WeightType, block: &mut [u8], mut scale: impl FnMut() -> f32) {
    let places: &[usize] = match kind {
        WeightType::F32 => return block.copy_from_slice(&scale().to_le_bytes()),
        WeightType::BF16 => return block.copy_from_slice(&f32_to_bf16(scale()).to_le_bytes()),
        // A power of two: the exponent of half the number.
        WeightType::MXFP4 => return block[0] = (scale().to_bits() >> 23) as u8,
        WeightType::IQ1_M => {
            // Quarters of the number are the high bits of the last four words.
            let bits = f32_to_f16(scale());
            for (i, word) in block[48..].as_chunks_mut::<2>().0.iter_mut().enumerate() {
                word[1] = word[1] & 15 | (bits >> (4 * i) << 4) as u8;
            }
            return;
        }
        WeightType::Q2_K => &[80, 82],
        WeightType::Q3_K => &[108],
        WeightType::Q6_K => &[208],
        WeightType::TQ1_0 => &[52],
        WeightType::TQ2_0 => &[64],
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => &[0, 2],
        _ => &[0],
    };
    for &place in places {
        block[place..place + 2].copy_from_slice(&f32_to_f16(scale()).to_le_bytes());
    }
}

/// Activations of some tokens in the format of some weights.
pub(crate) struct Owned {
    n: usize,
    kind: ActivationType,
    numbers: Vec<f32>,
    q8_0: Side<BlockQ8_0>,
    q8_1: Side<BlockQ8_1>,
    q8_k: Side<BlockQ8K>,
}

/// Blocks one token after the other, and side by side.
struct Side<B: Interleave> {
    blocks: Vec<B>,
    quads: Vec<B::Quad>,
}

impl<B: Interleave> Side<B> {
    fn empty() -> Self {
        Side { blocks: Vec::new(), quads: Vec::new() }
    }

    /// Those of `n` tokens, `quantize` giving them.
    fn new(n: usize, blocks: usize, quantize: impl FnOnce(&mut [B])) -> Self {
        let mut all = vec![B::ZERO; blocks];
        quantize(&mut all);
        let per_token = blocks / n;
        let mut quads = vec![B::ZEROS; n.div_ceil(QUAD) * per_token];
        interleave(&all, per_token, &mut quads);
        Side { blocks: all, quads }
    }
}

impl Owned {
    /// Activations of `n` tokens in the format for `kind`.
    pub fn new(kind: WeightType, x: &[f32], n: usize) -> Owned {
        let kind = kind.activations();
        let mut owned = Owned {
            n,
            kind,
            numbers: Vec::new(),
            q8_0: Side::empty(),
            q8_1: Side::empty(),
            q8_k: Side::empty(),
        };
        let (small, large) = (x.len() / BLOCK, x.len() / SUPER_BLOCK);
        match kind {
            ActivationType::F32 => owned.numbers = x.into(),
            ActivationType::F16 => owned.numbers = x.iter().map(|&x| round_to_f16(x)).collect(),
            ActivationType::BF16 => owned.numbers = x.iter().map(|&x| round_to_bf16(x)).collect(),
            ActivationType::Q8_0 => owned.q8_0 = Side::new(n, small, |out| quantize_q8_0(x, out)),
            ActivationType::Q8_1 => owned.q8_1 = Side::new(n, small, |out| quantize_q8_1(x, out)),
            ActivationType::Q8_K => owned.q8_k = Side::new(n, large, |out| quantize_q8_k(x, out)),
        }
        owned
    }

    /// As the kernels take them.
    pub fn batch(&self) -> Batch<'_> {
        let (x, quads) = match self.kind {
            ActivationType::F32 => (Activations::F32(&self.numbers), Quads::None),
            ActivationType::F16 => (Activations::F16(&self.numbers), Quads::None),
            ActivationType::BF16 => (Activations::BF16(&self.numbers), Quads::None),
            ActivationType::Q8_0 => {
                (Activations::Q8_0(&self.q8_0.blocks), Quads::Q8_0(&self.q8_0.quads))
            }
            ActivationType::Q8_1 => {
                (Activations::Q8_1(&self.q8_1.blocks), Quads::Q8_1(&self.q8_1.quads))
            }
            ActivationType::Q8_K => {
                (Activations::Q8K(&self.q8_k.blocks), Quads::Q8K(&self.q8_k.quads))
            }
        };
        Batch { n: self.n, x, quads }
    }

    /// The values that they stand for.
    pub fn values(&self) -> Vec<f32> {
        fn times<const N: usize>(qs: &[i8; N], d: f32) -> impl Iterator<Item = f32> {
            qs.iter().map(move |&q| d * f32::from(q))
        }
        match self.batch().x {
            Activations::F32(x) | Activations::F16(x) | Activations::BF16(x) => x.into(),
            Activations::Q8_0(x) => x.iter().flat_map(|block| times(&block.qs, block.d)).collect(),
            Activations::Q8_1(x) => x.iter().flat_map(|block| times(&block.qs, block.d)).collect(),
            Activations::Q8K(x) => x.iter().flat_map(|block| times(&block.qs, block.d)).collect(),
        }
    }
}

/// Compares a sum with the portable kernel's, and with that of the products in double precision.
fn compare(
    length: usize,
    actual: f32,
    portable: f32,
    tolerance: f64,
    products: impl Iterator<Item = f64>,
) -> Result<f64, String> {
    if actual.to_bits() != portable.to_bits() {
        return Err(format!("length {length}: {actual:e}, the portable kernel gives {portable:e}"));
    }
    let (sum, magnitude) =
        products.fold((0.0, 0.0), |(sum, magnitude), p| (sum + p, magnitude + p.abs()));
    let error = (f64::from(actual) - sum).abs() / magnitude.max(f64::MIN_POSITIVE);
    // Not a number is an error too.
    if error <= tolerance {
        Ok(error)
    } else {
        Err(format!("length {length}: {actual:e}, a sum in double precision gives {sum:e}"))
    }
}

fn summary(largest: f64) -> String {
    let names: Vec<&str> =
        active::Set::all(Features::of_this_core()).map(active::Set::name).collect();
    let names = names.join(", ");
    format!("portable bits by {names}; within {largest:.1e} of double precision")
}

/// The products of each token.
struct Sums(Vec<Vec<f32>>);

impl Output for Sums {
    fn of_tokens(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.0.iter_mut().map(|sums| &mut sums[..])
    }
}

fn check_dot(kind: WeightType) -> Outcome {
    let tolerance = match kind.activations() {
        ActivationType::Q8_1 => TOLERANCE_Q8_1,
        _ => TOLERANCE,
    };
    let mut noise = Noise::new(17);
    let block = kind.tensor_type().block_weights as usize;
    let mut cases = Vec::new();
    for ((blocks, rows), tokens) in LENGTHS.into_iter().zip(ROWS).zip(TOKENS) {
        let x = noise.floats(tokens * blocks * block);
        cases.push((random_row(kind, rows * blocks, 1.0, &mut noise), x, tokens));
    }
    // Sums as large as they get: all weights the least or the greatest, all activations as well.
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
        let x = Owned::new(kind, &x, tokens);
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

/// Multiplies rows of `columns` weights with some tokens by each set of kernels that the processor has,
/// as they are and as stripes. Gives the products of each token.
///
/// # Errors
/// One of them is not the `same` as the portable kernel's.
pub(crate) fn compare_sets(
    kind: WeightType,
    columns: usize,
    rows: &[u8],
    x: &Owned,
    same: impl Fn(f32, f32) -> bool,
) -> Result<Vec<Vec<f32>>, String> {
    let row_bytes = kind.row_bytes(columns);
    let tokens = x.n;
    let of_token = |token| {
        let x = x.batch().token(token);
        rows.chunks_exact(row_bytes).map(|row| scalar::dot(kind, row, &x)).collect()
    };
    let expected: Vec<Vec<f32>> = (0..tokens).map(of_token).collect();
    for (set, striped) in active::Set::all(Features::of_this_core())
        .flat_map(|set| [(set, false), (set, true)])
        .filter(|(_, striped)| !striped || kind.has_tiles())
    {
        let rows =
            if striped { striped_rows(kind, rows, row_bytes) } else { ModelBuffer::from(rows) };
        let rows = Rows { kind, columns, bytes: &rows, striped };
        // Four tokens at a time, and one after the other.
        for batch in [x.batch(), Batch { quads: Quads::None, ..x.batch() }] {
            let mut actual = Sums(expected.iter().map(|sums| vec![0.0; sums.len()]).collect());
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

/// The rows with each whole eight of them rearranged to a stripe.
fn striped_rows(kind: WeightType, rows: &[u8], row_bytes: usize) -> ModelBuffer {
    let mut rows = ModelBuffer::from(rows);
    let mut copy = Vec::new();
    for eight in rows.as_mut_slice().chunks_exact_mut(TILE_ROWS * row_bytes) {
        make_stripe(kind, eight, &mut copy);
    }
    rows
}

/// A product of attention.
type Attend = fn(HeadRows<'_>, &[f32], &mut [f32]);
/// What writes numbers in another format.
type Write<B> = fn(&[f32], &mut [B]);

/// The kernels of attention for a cache's type.
struct OfCache {
    kind: WeightType,
    scores: Option<[Attend; 2]>,
    add_values: [Attend; 2],
}

/// A function as it is in use, and in portable lanes.
macro_rules! both {
    ($module:ident::$function:ident) => {
        [$module::$function::<active::Vector>, $module::$function::<scalar::Vector>]
    };
}

const OF_CACHES: [OfCache; 3] = [
    OfCache {
        kind: WeightType::F32,
        scores: Some(both!(attention::scores_f32)),
        add_values: both!(attention::add_values_f32),
    },
    OfCache {
        kind: WeightType::F16,
        scores: Some(both!(attention::scores_f16)),
        add_values: both!(attention::add_values_f16),
    },
    // Its keys are multiplied as weights are.
    OfCache { kind: WeightType::Q8_0, scores: None, add_values: both!(attention::add_values_q8_0) },
];

fn check_attention(of_cache: &OfCache) -> Outcome {
    let kind = of_cache.kind;
    let block = kind.tensor_type().block_weights as usize;
    let mut noise = Noise::new(23);
    let mut largest = 0.0_f64;
    // Heads that are whole tiles, and others; the one in the middle of three.
    for (blocks, positions) in LENGTHS.into_iter().zip(ROWS) {
        let n = blocks * block;
        let rows = random_row(kind, 3 * blocks * positions, 1.0, &mut noise);
        let width = kind.row_bytes(n);
        let head = HeadRows { bytes: &rows[width..], stride: 3 * width, width };
        let mut numbers = vec![0.0; 3 * n * positions];
        dequantize_row(kind, &rows, &mut numbers);
        let number = |position: usize, i: usize| f64::from(numbers[(3 * position + 1) * n + i]);

        if let Some([active, portable]) = of_cache.scores {
            let query = noise.floats(n);
            let (mut actual, mut expected) = (vec![0.0; positions], vec![0.0; positions]);
            active(head, &query, &mut actual);
            portable(head, &query, &mut expected);
            for position in 0..positions {
                let products = (0..n).map(|i| number(position, i) * f64::from(query[i]));
                let (actual, expected) = (actual[position], expected[position]);
                largest = largest.max(compare(n, actual, expected, TOLERANCE, products)?);
            }
        }
        let (before, probabilities) = (noise.floats(n), noise.floats(positions));
        let [mut actual, mut expected] = [before.clone(), before.clone()];
        let [active, portable] = of_cache.add_values;
        active(head, &probabilities, &mut actual);
        portable(head, &probabilities, &mut expected);
        for i in 0..n {
            let products = probabilities.iter().enumerate();
            let products = products.map(|(position, &p)| number(position, i) * f64::from(p));
            let terms = products.chain([f64::from(before[i])]);
            largest = largest.max(compare(n, actual[i], expected[i], TOLERANCE, terms)?);
        }
    }
    Ok(summary(largest))
}

/// A step between the matrices, as it is in use and in portable lanes. It changes the first numbers
/// with the help of the others, which are as many.
struct Step {
    name: &'static str,
    active: fn(&mut [f32], &[f32]),
    portable: fn(&mut [f32], &[f32]),
}

/// A [`Step`]: its function in [`steps`], and what that takes of the numbers.
macro_rules! step {
    ($name:literal, $function:ident, |$x:ident, $others:ident| $($argument:expr),*) => {
        Step {
            name: $name,
            active: |$x, $others| steps::$function::<active::Vector>($x, $($argument),*),
            portable: |$x, $others| steps::$function::<scalar::Vector>($x, $($argument),*),
        }
    };
}

const STEPS: [Step; 13] = [
    step!("add", add, |x, others| others),
    step!("scale", scale, |x, others| others[0]),
    step!("rms norm", rms_norm, |x, others| &bytes(others), 1e-5),
    step!("layer norm", layer_norm, |x, others| &bytes(others), &bytes(others), 1e-5),
    step!("softmax", softmax, |x, _others|),
    step!("soft cap", soft_cap, |x, _others| 30.0),
    step!("silu", silu, |x, _others|),
    step!("swiglu", swiglu, |x, others| others),
    step!("gelu", gelu, |x, _others|),
    step!("geglu", geglu, |x, others| others),
    step!("rotate neighbours", rotate_neighbours, |x, others| even(others)),
    step!("rotate halves", rotate_halves, |x, others| even(others)),
    step!("round f16", round_f16, |x, _others|),
];

fn bytes(numbers: &[f32]) -> Vec<F32Bytes> {
    numbers.iter().map(|x| x.to_le_bytes()).collect()
}

/// An even number of them.
fn even(numbers: &[f32]) -> &[f32] {
    &numbers[..numbers.len() / 2 * 2]
}

fn check_step(step: &Step) -> Outcome {
    let mut noise = Noise::new(29);
    let mut cases = Vec::new();
    for n in LENGTHS {
        // What attention and activations look like, and what is far beyond.
        for amplitude in [1e-3, 1.0, 10.0, 100.0, 1e30] {
            let x: Vec<f32> = noise.floats(n).iter().map(|x| x * amplitude).collect();
            cases.push((x, noise.floats(n)));
        }
    }
    // Every pattern of a number's first bits.
    let patterns = (0..=u32::MAX).step_by(1_000_003).map(f32::from_bits);
    let numbers: Vec<f32> = patterns.filter(|x| x.is_finite()).collect();
    cases.push((numbers.clone(), noise.floats(numbers.len())));
    for (x, others) in cases {
        let (mut actual, mut portable) = (x.clone(), x.clone());
        (step.active)(&mut actual, &others);
        (step.portable)(&mut portable, &others);
        for (i, (a, p)) in actual.iter().zip(&portable).enumerate() {
            // The bits of what is not a number are the machine's.
            if a.to_bits() != p.to_bits() && !(a.is_nan() && p.is_nan()) {
                let n = x.len();
                return Err(format!(
                    "number {i} of {n}, {:e}: {a:e}, portable lanes give {p:e}",
                    x[i]
                ));
            }
        }
    }
    Ok(format!("{} gives the bits of portable lanes", super::name()))
}

/// What writes numbers in another format, in blocks of `block` numbers, as it is in use and in
/// portable lanes.
fn check_format<B: Copy + PartialEq + Debug>(
    block: usize,
    empty: B,
    [active, portable]: [Write<B>; 2],
) -> Outcome {
    let mut noise = Noise::new(31);
    let mut cases = Vec::new();
    for blocks in LENGTHS {
        let n = blocks * block;
        for amplitude in [0.0, 1e-41, 1e-3, 1.0, 1e4, 1e30] {
            cases.push(noise.floats(n).iter().map(|x| x * amplitude).collect::<Vec<f32>>());
        }
        // Halves between two steps, the largest one first or last and of either sign.
        for largest in [127.0, -127.0] {
            let halves = (0..n).map(|i| ((i * 37 % 253) as f32 - 126.0) / 2.0);
            let mut halves: Vec<f32> = halves.collect();
            (halves[0], halves[n - 1]) = (largest, -largest);
            cases.push(halves);
        }
    }
    for x in cases {
        let (mut actual, mut expected) =
            (vec![empty; x.len() / block], vec![empty; x.len() / block]);
        active(&x, &mut actual);
        portable(&x, &mut expected);
        for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
            if a != e {
                let n = x.len();
                return Err(format!("block {i} of {n} numbers: {a:?}, portable lanes give {e:?}"));
            }
        }
    }
    Ok(format!("{} gives the bits of portable lanes", super::name()))
}

/// The checks of formats.
fn of_formats() -> impl Iterator<Item = (String, Outcome)> {
    let f16 = || check_format(1, [0; 2], both!(steps::store_f16));
    let q8_0 = || check_format(BLOCK, BlockQ8_0::ZERO, both!(activations::quantize_q8_0));
    let q8_1 = || check_format(BLOCK, BlockQ8_1::ZERO, both!(activations::quantize_q8_1));
    let q8_k = || check_format(SUPER_BLOCK, BlockQ8K::ZERO, both!(activations::quantize_q8_k));
    let checks = [("f16", f16 as fn() -> Outcome), ("q8_0", q8_0), ("q8_1", q8_1), ("q8_k", q8_k)];
    checks.into_iter().map(|(name, check)| (format!("kernel to {name}"), check()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_passes_its_check() {
        for (name, outcome) in checks() {
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let expected = WeightType::ALL.len() + OF_CACHES.len() + STEPS.len() + of_formats().count();
        assert_eq!(checks().count(), expected);
    }

    #[test]
    fn a_wrong_sum_is_found() {
        let terms = || [1.5, -0.25].into_iter();
        assert!(compare(2, 1.25, 1.25, 1e-6, terms()).is_ok());
        assert!(compare(2, 1.25, 1.250_000_1, 1e-6, terms()).is_err());
        assert!(compare(2, 1.2501, 1.2501, 1e-6, terms()).is_err());
        assert!(compare(2, f32::NAN, f32::NAN, 1e-6, terms()).is_err());
    }
}
