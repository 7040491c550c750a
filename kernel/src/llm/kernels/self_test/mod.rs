//! Self test of the kernels on the machine they run on.
//!
//! Each kernel is compared with the portable one, bit for bit, and with sums in double precision.

#![forbid(unsafe_code)]

mod attention;
mod elementwise;
mod products;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

#[cfg(test)]
pub(crate) use products::compare_sets;

use super::active;
use crate::cpu::Features;

/// The outcome of a check: `Ok` with a summary, or `Err` with the difference.
pub type Outcome = Result<String, String>;

/// Runs all checks: gives the name and the outcome of each.
pub fn checks() -> impl Iterator<Item = (String, Outcome)> {
    products::checks().chain(attention::checks()).chain(elementwise::checks())
}

/// Blocks in a row, for each case.
const LENGTHS: [usize; 7] = [1, 2, 3, 5, 7, 13, 61];
/// Rows, for each case.
const ROWS: [usize; 7] = [11, 7, 5, 8, 16, 1, 17];
/// Largest error against double precision, relative to the sum of the magnitudes.
const TOLERANCE: f64 = 1e-5;

/// A function on the lanes in use, and on portable lanes.
macro_rules! both_lanes {
    ($module:ident::$function:ident) => {
        [$module::$function::<active::Vector>, $module::$function::<scalar::Vector>]
    };
}
use both_lanes;

/// Compares a sum with the portable kernel's, and with a sum in double precision.
///
/// Returns the relative error against the latter.
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
    // NaN is an error too.
    if error <= tolerance {
        Ok(error)
    } else {
        Err(format!("length {length}: {actual:e}, a sum in double precision gives {sum:e}"))
    }
}

/// The outcome of a check whose largest error is `largest`.
fn summary(largest: f64) -> String {
    let names: Vec<&str> =
        active::KernelSet::all(Features::of_this_core()).map(active::KernelSet::name).collect();
    let names = names.join(", ");
    format!("portable bits by {names}; within {largest:.1e} of double precision")
}

#[cfg(test)]
mod tests {
    use super::attention::OF_CACHES;
    use super::elementwise::{OPS, conversions};
    use super::*;
    use crate::llm::quantize::WeightType;

    #[test]
    fn every_kernel_passes_its_check() {
        for (name, outcome) in checks() {
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let expected = WeightType::ALL.len() + OF_CACHES.len() + OPS.len() + conversions().count();
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
