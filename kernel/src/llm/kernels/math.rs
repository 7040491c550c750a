//! The exponential and the hyperbolic tangent of four numbers.

#![forbid(unsafe_code)]

use super::lanes::{Lanes, ROUND};

/// Splits e^x = 2^n e^b: returns the integer n, and e^b - 1.
///
/// |b| = |x - n ln 2| is at most half of ln 2. For |x| up to 10^4.
#[inline(always)]
fn split_exponential<L: Lanes>(x: L) -> (L, L) {
    /// ln 2 in two parts.
    const LN_2: [f32; 2] = [core::f32::consts::LN_2, -1.904_654_2e-9];
    /// e^b = 1 + b + b² (c0 + c1 b + ... + c4 b⁴), the least relative error: 3.1e-9.
    const C: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_393, 0.008_368_745, 0.001_381_453_2];
    let n = x.mul_add(L::splat(core::f32::consts::LOG2_E), L::splat(ROUND)) - L::splat(ROUND);
    let b = n.mul_add(L::splat(-LN_2[0]), x);
    let b = n.mul_add(L::splat(-LN_2[1]), b);
    let [c0, c1, c2, c3, c4] = C.map(L::splat);
    let r = c4.mul_add(b, c3).mul_add(b, c2).mul_add(b, c1).mul_add(b, c0);
    (n, (b * b).mul_add(r, b))
}

/// e^x within 1.01 ulp, for all x.
///
/// Infinity where the result overflows, 0 where it underflows.
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    // From half the least number to twice the largest.
    let (n, rest) = split_exponential(x.clamp(-104.0, 89.0));
    (rest + L::splat(1.0)).times_power_of_2(n)
}

/// The hyperbolic tangent, within 3 ulp.
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    let twice = x.abs() * L::splat(2.0);
    // With t = e^2x - 1, tanh is t / (t + 2), or 1 - 2 / (t + 2). The second form is more exact for
    // large t. From 2x = 20 on, tanh is 1.
    let (n, rest) = split_exponential(twice.clamp(0.0, 20.0));
    let power = one.times_power_of_2(n);
    let t = power.mul_add(rest, power - one);
    const SMALL: f32 = 1.1;
    let quotient = twice.if_less(SMALL, t, L::splat(-2.0)) / (t + L::splat(2.0));
    twice.if_less(SMALL, quotient, one + quotient).with_sign_of(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::kernels::lanes::{LANES, Portable};

    fn each(f: impl Fn(Portable) -> Portable, x: [f32; LANES]) -> [f32; LANES] {
        let mut out = [f32::NAN; LANES];
        f(Portable::load(&x)).store(&mut out);
        out
    }

    /// The error in ulp: in distances between neighbours of `exact`.
    fn ulps(actual: f32, exact: f64) -> f64 {
        const LEAST: f64 = 1.401_298_464_324_817e-45;
        // Halfway from the largest F32 to the next number that would follow.
        const TOO_LARGE: f64 = 3.402_823_567_797_336_6e38;
        if exact.abs() >= TOO_LARGE || actual.is_infinite() {
            let both =
                exact.abs() >= TOO_LARGE && f64::from(actual) == exact.signum() * f64::INFINITY;
            return if both { 0.0 } else { f64::INFINITY };
        }
        let exponent = ((exact.abs() as f32).to_bits() >> 23).saturating_sub(1);
        (f64::from(actual) - exact).abs() / (LEAST * f64::from(exponent).exp2())
    }

    /// The largest error over all numbers of a stride, and where it is.
    fn worst(
        stride: usize,
        f: impl Fn(Portable) -> Portable,
        exact: impl Fn(f64) -> f64,
    ) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        let numbers: Vec<f32> =
            (0..=u32::MAX).step_by(stride).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
        for x in numbers.as_chunks().0 {
            for (&x, actual) in x.iter().zip(each(&f, *x)) {
                let error = ulps(actual, exact(f64::from(x)));
                if error > worst.0 || error.is_nan() {
                    worst = (error, x);
                }
            }
        }
        worst
    }

    #[test]
    fn the_exponential_is_within_1_01_ulp() {
        let (error, x) = worst(1009, exp, f64::exp);
        assert!(error > 0.5 && error < 1.01, "{error} at {x:e}");
    }

    #[test]
    fn the_exponential_of_special_numbers_is_the_one_of_the_standard() {
        let actual = each(exp, [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(actual, [1.0, 1.0, f32::INFINITY, 0.0]);
        assert_eq!(
            each(exp, [88.722_84, 1e30, -103.972_08, -1e30]),
            [f32::INFINITY, f32::INFINITY, f32::from_bits(1), 0.0]
        );
        assert!(each(exp, [f32::NAN, -f32::NAN, 1.0, 1.0])[..2].iter().all(|x| x.is_nan()));
    }

    #[test]
    fn the_tangent_is_within_three_ulp() {
        let (error, x) = worst(1009, tanh, f64::tanh);
        assert!(error > 0.5 && error < 3.0, "{error} at {x:e}");
        let actual = each(tanh, [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(actual.map(f32::to_bits), [0.0, -0.0, 1.0, -1.0].map(f32::to_bits));
        assert!(each(tanh, [f32::NAN; LANES]).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn an_error_is_counted_in_neighbours() {
        assert_eq!(ulps(1.0, 1.0), 0.0);
        assert_eq!(ulps(1.0 + f32::EPSILON, 1.0), 1.0);
        assert_eq!(ulps(f32::from_bits(3), 0.0), 3.0);
        assert_eq!(ulps(f32::INFINITY, 1e39), 0.0);
        assert_eq!(ulps(f32::MAX, 1e39), f64::INFINITY);
        assert_eq!(ulps(f32::INFINITY, 1.0), f64::INFINITY);
    }
}
