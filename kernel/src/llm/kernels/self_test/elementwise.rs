//! Checks of element-wise ops and conversions against portable lanes.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use super::{LENGTHS, Outcome, both_lanes};
use crate::llm::kernels::fixtures::Noise;
use crate::llm::kernels::{active, elementwise, name, quantizers, scalar};
use crate::llm::quantize::{
    BLOCK, BlockQ8_0, BlockQ8_1, BlockQ8K, F32Bytes, Interleave, SUPER_BLOCK,
};

/// Writes numbers in another format.
type Write<B> = fn(&[f32], &mut [B]);

/// The check of each op and each conversion.
pub fn checks() -> impl Iterator<Item = (String, Outcome)> {
    OPS.iter().map(|op| (format!("kernel {}", op.name), check(op))).chain(conversions())
}

/// An element-wise op on the lanes in use and on portable lanes.
///
/// An op changes the numbers of its first argument. The second argument has the same length.
pub struct Op {
    /// Name of the check.
    pub name: &'static str,
    active: fn(&mut [f32], &[f32]),
    portable: fn(&mut [f32], &[f32]),
}

/// An [`Op`] of a function in [`elementwise`], with its arguments.
macro_rules! op {
    ($name:literal, $function:ident, |$x:ident, $others:ident| $($argument:expr),*) => {
        Op {
            name: $name,
            active: |$x, $others| elementwise::$function::<active::Vector>($x, $($argument),*),
            portable: |$x, $others| elementwise::$function::<scalar::Vector>($x, $($argument),*),
        }
    };
}

pub const OPS: [Op; 13] = [
    op!("add", add, |x, others| others),
    op!("scale", scale, |x, others| others[0]),
    op!("rms norm", rms_norm, |x, others| &bytes(others), 1e-5),
    op!("layer norm", layer_norm, |x, others| &bytes(others), &bytes(others), 1e-5),
    op!("softmax", softmax, |x, _others|),
    op!("softcap", softcap, |x, _others| 30.0),
    op!("silu", silu, |x, _others|),
    op!("swiglu", swiglu, |x, others| others),
    op!("gelu", gelu, |x, _others|),
    op!("geglu", geglu, |x, others| others),
    op!("rotate neighbours", rotate_neighbours, |x, others| even(others)),
    op!("rotate halves", rotate_halves, |x, others| even(others)),
    op!("round f16", round_f16, |x, _others|),
];

fn bytes(numbers: &[f32]) -> Vec<F32Bytes> {
    numbers.iter().map(|x| x.to_le_bytes()).collect()
}

/// An even number of the numbers.
fn even(numbers: &[f32]) -> &[f32] {
    &numbers[..numbers.len() / 2 * 2]
}

fn check(op: &Op) -> Outcome {
    let mut noise = Noise::new(29);
    let mut cases = Vec::new();
    for n in LENGTHS {
        // Magnitudes as in attention and in activations, and far larger ones.
        for amplitude in [1e-3, 1.0, 10.0, 100.0, 1e30] {
            let x: Vec<f32> = noise.floats(n).iter().map(|x| x * amplitude).collect();
            cases.push((x, noise.floats(n)));
        }
    }
    // Every pattern of the leading bits of a number.
    let patterns = (0..=u32::MAX).step_by(1_000_003).map(f32::from_bits);
    let numbers: Vec<f32> = patterns.filter(|x| x.is_finite()).collect();
    cases.push((numbers.clone(), noise.floats(numbers.len())));
    for (x, others) in cases {
        let (mut actual, mut portable) = (x.clone(), x.clone());
        (op.active)(&mut actual, &others);
        (op.portable)(&mut portable, &others);
        for (i, (a, p)) in actual.iter().zip(&portable).enumerate() {
            // The bits of a NaN depend on the machine.
            if a.to_bits() != p.to_bits() && !(a.is_nan() && p.is_nan()) {
                let n = x.len();
                return Err(format!(
                    "number {i} of {n}, {:e}: {a:e}, portable lanes give {p:e}",
                    x[i]
                ));
            }
        }
    }
    Ok(format!("{} gives the bits of portable lanes", name()))
}

/// Checks a conversion to blocks of `block` numbers against portable lanes.
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
        // Numbers halfway between two levels. The largest is first or last, and of either sign.
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
    Ok(format!("{} gives the bits of portable lanes", name()))
}

/// The check of each conversion to another format.
pub fn conversions() -> impl Iterator<Item = (String, Outcome)> {
    let f16 = || check_format(1, [0; 2], both_lanes!(elementwise::store_f16));
    let q8_0 = || check_format(BLOCK, BlockQ8_0::ZERO, both_lanes!(quantizers::quantize_q8_0));
    let q8_1 = || check_format(BLOCK, BlockQ8_1::ZERO, both_lanes!(quantizers::quantize_q8_1));
    let q8_k = || check_format(SUPER_BLOCK, BlockQ8K::ZERO, both_lanes!(quantizers::quantize_q8_k));
    let checks = [("f16", f16 as fn() -> Outcome), ("q8_0", q8_0), ("q8_1", q8_1), ("q8_k", q8_k)];
    checks.into_iter().map(|(name, check)| (format!("kernel to {name}"), check()))
}
