//! Lanes: four numbers at once, for element-wise ops and attention.
//!
//! An op over [`Lanes`] is written once for every vector unit. Each method takes one or two
//! instructions on all vector units, and rounds as IEEE 754 says. So all give the same bits, except
//! for the bits of a NaN.

use core::ops::{Add, Div, Mul, Sub};

use crate::llm::quantize::{BLOCK, F16Bytes, F32Bytes, f16_to_f32, f32_to_f16, round_to_f16};

/// Lanes of a vector.
pub const LANES: usize = 4;

/// Vectors of a block of 32 numbers.
pub const BLOCK_VECTORS: usize = BLOCK / LANES;

/// 1.5 * 2^23: adding it rounds a number below 2^22 to an integer, halves to even.
///
/// The last bit of the sum stands for 1.
pub const ROUND: f32 = 12_582_912.0;

/// Up to N numbers, padded with `fill`.
pub fn padded<T: Copy, const N: usize>(numbers: &[T], fill: T) -> [T; N] {
    let mut all = [fill; N];
    all[..numbers.len()].copy_from_slice(numbers);
    all
}

/// A number that lanes are loaded from.
pub trait Number: Copy {
    /// Zero.
    const ZERO: Self;

    /// Its value.
    fn value(self) -> f32;
}

impl Number for f32 {
    const ZERO: Self = 0.0;

    fn value(self) -> f32 {
        self
    }
}

impl Number for F32Bytes {
    const ZERO: Self = [0; 4];

    fn value(self) -> f32 {
        f32::from_le_bytes(self)
    }
}

/// Four numbers. Each method works on each of them.
pub trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// Sums in double precision, one for each lane.
    type Sums: Copy;

    /// Whether the queries of attention share the loads of keys and values.
    const SHARES_LOADS: bool;

    /// The same number in all lanes.
    fn splat(x: f32) -> Self;

    /// Loads four neighbours.
    fn load<T: Number>(numbers: &[T; LANES]) -> Self;

    /// Stores four neighbours.
    fn store(self, to: &mut [f32; LANES]);

    /// The product with `factor`, plus `addend`, rounded once.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// The nearest number from `least` to `most`. NaN stays NaN.
    fn clamp(self, least: f32, most: f32) -> Self;

    /// The larger number. If one is NaN, the other.
    fn max(self, other: Self) -> Self;

    /// The magnitude.
    fn abs(self) -> Self;

    /// The magnitude, with the sign of `other`.
    fn with_sign_of(self, other: Self) -> Self;

    /// `then` if it is less than `limit`, else `otherwise`.
    fn if_less(self, limit: f32, then: Self, otherwise: Self) -> Self;

    /// The nearest F16, halves to even.
    fn round_to_f16(self) -> Self;

    /// Times 2^n, rounded once.
    ///
    /// For magnitudes from 1/2 to 2, and integers n from -150 to 128.
    fn times_power_of_2(self, n: Self) -> Self;

    /// The largest of the four.
    fn largest(self) -> f32;

    /// No sums yet.
    fn no_sums() -> Self::Sums;

    /// Adds each lane to its sum.
    fn add_to(self, sums: Self::Sums) -> Self::Sums;

    /// The sum of the sums, pairwise.
    fn total(sums: Self::Sums) -> f64;

    /// Splits eight neighbours into the four at even places and the four at odd places.
    fn unzip(eight: [Self; 2]) -> [Self; 2];

    /// The inverse of [`Lanes::unzip`].
    fn zip(even_odd: [Self; 2]) -> [Self; 2];

    /// Loads a block.
    fn load_block<T: Number>(numbers: &[T; BLOCK]) -> [Self; BLOCK_VECTORS];

    /// Loads a block in F16.
    fn load_f16_block(bytes: &[u8; 2 * BLOCK]) -> [Self; BLOCK_VECTORS];

    /// Loads a block of signed bytes.
    fn load_byte_block(bytes: &[u8; BLOCK]) -> [Self; BLOCK_VECTORS];

    /// Stores a block.
    fn store_block(block: [Self; BLOCK_VECTORS], to: &mut [f32; BLOCK]);

    /// Stores a block in F16, rounded to nearest, halves to even.
    fn store_f16_block(block: [Self; BLOCK_VECTORS], to: &mut [F16Bytes; BLOCK]);

    /// Stores the lowest byte of each number's bits.
    ///
    /// Returns the sums of the first half of these bytes, and of the second half.
    fn store_low_bytes(block: [Self; BLOCK_VECTORS], to: &mut [i8; BLOCK]) -> [i16; 2];

    /// The nearest integer, halves away from zero, as the bits of an `i32`.
    fn bits_of_whole(self) -> Self;

    /// The sum of the lanes of each of the four, pairwise.
    fn sum_each(four: [Self; LANES]) -> Self;
}

/// The portable lanes: the reference for all others.
#[derive(Clone, Copy)]
pub struct Portable([f32; LANES]);

impl Portable {
    #[inline]
    fn with(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(core::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Add for Portable {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }
}

impl Sub for Portable {
    type Output = Self;

    #[inline]
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }
}

impl Mul for Portable {
    type Output = Self;

    #[inline]
    fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }
}

impl Div for Portable {
    type Output = Self;

    #[inline]
    fn div(self, other: Self) -> Self {
        self.with(other, |a, b| a / b)
    }
}

impl Lanes for Portable {
    type Sums = [f64; LANES];

    /// As the reference, it goes the plain way.
    const SHARES_LOADS: bool = false;

    #[inline]
    fn splat(x: f32) -> Self {
        Portable([x; LANES])
    }

    #[inline]
    fn load<T: Number>(numbers: &[T; LANES]) -> Self {
        Portable(numbers.map(T::value))
    }

    #[inline]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }

    #[inline]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Portable(core::array::from_fn(|i| libm::fmaf(self.0[i], factor.0[i], addend.0[i])))
    }

    #[inline]
    fn clamp(self, least: f32, most: f32) -> Self {
        Portable(self.0.map(|x| x.clamp(least, most)))
    }

    #[inline]
    fn max(self, other: Self) -> Self {
        self.with(other, f32::max)
    }

    #[inline]
    fn abs(self) -> Self {
        Portable(self.0.map(f32::abs))
    }

    #[inline]
    fn with_sign_of(self, other: Self) -> Self {
        self.with(other, f32::copysign)
    }

    #[inline]
    fn if_less(self, limit: f32, then: Self, otherwise: Self) -> Self {
        Portable(core::array::from_fn(
            |i| {
                if self.0[i] < limit { then.0[i] } else { otherwise.0[i] }
            },
        ))
    }

    #[inline]
    fn round_to_f16(self) -> Self {
        Portable(self.0.map(round_to_f16))
    }

    #[inline]
    fn times_power_of_2(self, n: Self) -> Self {
        // Half of the power goes into the exponent, which has room for it. The multiplication by
        // the other half rounds, overflows or underflows.
        self.with(n, |x, n| {
            let n = n as i32;
            let half = n >> 1;
            let scaled = f32::from_bits(x.to_bits().wrapping_add((half << 23) as u32));
            scaled * f32::from_bits(((n - half + 127) << 23) as u32)
        })
    }

    #[inline]
    fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        a.max(b).max(c.max(d))
    }

    #[inline]
    fn no_sums() -> Self::Sums {
        [0.0; LANES]
    }

    #[inline]
    fn add_to(self, sums: Self::Sums) -> Self::Sums {
        core::array::from_fn(|i| sums[i] + f64::from(self.0[i]))
    }

    #[inline]
    fn total(sums: Self::Sums) -> f64 {
        (sums[0] + sums[1]) + (sums[2] + sums[3])
    }

    #[inline]
    fn unzip([Portable(a), Portable(b)]: [Self; 2]) -> [Self; 2] {
        [Portable([a[0], a[2], b[0], b[2]]), Portable([a[1], a[3], b[1], b[3]])]
    }

    #[inline]
    fn zip([Portable(a), Portable(b)]: [Self; 2]) -> [Self; 2] {
        [Portable([a[0], b[0], a[1], b[1]]), Portable([a[2], b[2], a[3], b[3]])]
    }

    #[inline]
    fn load_block<T: Number>(numbers: &[T; BLOCK]) -> [Self; BLOCK_VECTORS] {
        block_of(|i| numbers[i].value())
    }

    #[inline]
    fn load_f16_block(bytes: &[u8; 2 * BLOCK]) -> [Self; BLOCK_VECTORS] {
        block_of(|i| f16_to_f32(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])))
    }

    #[inline]
    fn load_byte_block(bytes: &[u8; BLOCK]) -> [Self; BLOCK_VECTORS] {
        block_of(|i| f32::from(bytes[i] as i8))
    }

    #[inline]
    fn store_block(block: [Self; BLOCK_VECTORS], to: &mut [f32; BLOCK]) {
        for (four, to) in block.into_iter().zip(to.as_chunks_mut().0) {
            four.store(to);
        }
    }

    #[inline]
    fn store_f16_block(block: [Self; BLOCK_VECTORS], to: &mut [F16Bytes; BLOCK]) {
        for (x, to) in block.iter().flat_map(|four| four.0).zip(to) {
            *to = f32_to_f16(x).to_le_bytes();
        }
    }

    #[inline]
    fn store_low_bytes(block: [Self; BLOCK_VECTORS], to: &mut [i8; BLOCK]) -> [i16; 2] {
        for (x, to) in block.iter().flat_map(|four| four.0).zip(&mut *to) {
            *to = x.to_bits() as i8;
        }
        let (first, second) = to.split_at(BLOCK / 2);
        [first, second].map(|half| half.iter().map(|&byte| i16::from(byte)).sum())
    }

    #[inline]
    fn bits_of_whole(self) -> Self {
        Portable(self.0.map(|x| f32::from_bits((libm::roundf(x) as i32).cast_unsigned())))
    }

    #[inline]
    fn sum_each(four: [Self; LANES]) -> Self {
        Portable(four.map(|Portable([a, b, c, d])| (a + b) + (c + d)))
    }
}

/// The block with `number(i)` at place i.
#[inline]
fn block_of(number: impl Fn(usize) -> f32) -> [Portable; BLOCK_VECTORS] {
    core::array::from_fn(|four| Portable(core::array::from_fn(|i| number(four * LANES + i))))
}
