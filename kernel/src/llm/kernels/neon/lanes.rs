//! The lanes of a vector of Advanced SIMD.

use core::arch::aarch64::*;
use core::ops::{Add, Div, Mul, Sub};

use super::vectors::{load_f32, load_vectors, store_f32, store_vectors};
use crate::llm::kernels::lanes::{BLOCK_VECTORS, LANES, Lanes, Number};
use crate::llm::quantize::{BLOCK, F16Bytes};

/// Four numbers in a vector.
#[derive(Clone, Copy)]
pub struct Neon(float32x4_t);

/// The value of an expression of instructions of the vector unit.
macro_rules! on_neon {
    ($expression:expr) => {
        // SAFETY: this module is only built where `target_feature = "neon"` holds for the whole
        // build, so that the instructions are there.
        unsafe { $expression }
    };
}

impl Add for Neon {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Neon(on_neon!(vaddq_f32(self.0, other.0)))
    }
}

impl Sub for Neon {
    type Output = Self;

    #[inline]
    fn sub(self, other: Self) -> Self {
        Neon(on_neon!(vsubq_f32(self.0, other.0)))
    }
}

impl Mul for Neon {
    type Output = Self;

    #[inline]
    fn mul(self, other: Self) -> Self {
        Neon(on_neon!(vmulq_f32(self.0, other.0)))
    }
}

impl Div for Neon {
    type Output = Self;

    #[inline]
    fn div(self, other: Self) -> Self {
        Neon(on_neon!(vdivq_f32(self.0, other.0)))
    }
}

impl Lanes for Neon {
    type Sums = [float64x2_t; 2];

    const SHARES_LOADS: bool = true;

    #[inline]
    fn splat(x: f32) -> Self {
        Neon(on_neon!(vdupq_n_f32(x)))
    }

    #[inline]
    fn load<T: Number>(numbers: &[T; LANES]) -> Self {
        Neon(on_neon!(load_f32(numbers)))
    }

    #[inline]
    fn store(self, to: &mut [f32; LANES]) {
        on_neon!(store_f32(to, self.0));
    }

    #[inline]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Neon(on_neon!(vfmaq_f32(addend.0, self.0, factor.0)))
    }

    #[inline]
    fn clamp(self, least: f32, most: f32) -> Self {
        Neon(on_neon!(vminq_f32(vmaxq_f32(self.0, vdupq_n_f32(least)), vdupq_n_f32(most))))
    }

    #[inline]
    fn max(self, other: Self) -> Self {
        Neon(on_neon!(vmaxnmq_f32(self.0, other.0)))
    }

    #[inline]
    fn abs(self) -> Self {
        Neon(on_neon!(vabsq_f32(self.0)))
    }

    #[inline]
    fn with_sign_of(self, other: Self) -> Self {
        Neon(on_neon!(vbslq_f32(vdupq_n_u32(1 << 31), other.0, self.0)))
    }

    #[inline]
    fn if_less(self, limit: f32, then: Self, otherwise: Self) -> Self {
        Neon(on_neon!(vbslq_f32(vcltq_f32(self.0, vdupq_n_f32(limit)), then.0, otherwise.0)))
    }

    #[inline]
    fn round_to_f16(self) -> Self {
        Neon(on_neon!(vcvt_f32_f16(vcvt_f16_f32(self.0))))
    }

    #[inline]
    fn times_power_of_2(self, n: Self) -> Self {
        Neon(on_neon!({
            let n = vcvtq_s32_f32(n.0);
            let half = vshrq_n_s32::<1>(n);
            let bits = vaddq_s32(vreinterpretq_s32_f32(self.0), vshlq_n_s32::<23>(half));
            let rest = vaddq_s32(vsubq_s32(n, half), vdupq_n_s32(127));
            let power = vreinterpretq_f32_s32(vshlq_n_s32::<23>(rest));
            vmulq_f32(vreinterpretq_f32_s32(bits), power)
        }))
    }

    #[inline]
    fn largest(self) -> f32 {
        on_neon!(vmaxnmvq_f32(self.0))
    }

    #[inline]
    fn no_sums() -> Self::Sums {
        [on_neon!(vdupq_n_f64(0.0)); 2]
    }

    #[inline]
    fn add_to(self, [low, high]: Self::Sums) -> Self::Sums {
        on_neon!([
            vaddq_f64(low, vcvt_f64_f32(vget_low_f32(self.0))),
            vaddq_f64(high, vcvt_high_f64_f32(self.0)),
        ])
    }

    #[inline]
    fn total([low, high]: Self::Sums) -> f64 {
        on_neon!(vaddvq_f64(low) + vaddvq_f64(high))
    }

    #[inline]
    fn unzip([a, b]: [Self; 2]) -> [Self; 2] {
        on_neon!([Neon(vuzp1q_f32(a.0, b.0)), Neon(vuzp2q_f32(a.0, b.0))])
    }

    #[inline]
    fn zip([a, b]: [Self; 2]) -> [Self; 2] {
        on_neon!([Neon(vzip1q_f32(a.0, b.0)), Neon(vzip2q_f32(a.0, b.0))])
    }

    #[inline]
    fn load_block<T: Number>(numbers: &[T; BLOCK]) -> [Self; BLOCK_VECTORS] {
        let (first, second) = numbers.split_first_chunk::<{ BLOCK / 2 }>().expect("two halves");
        let second = second.first_chunk::<{ BLOCK / 2 }>().expect("two halves");
        let [a, b, c, d] = on_neon!(load_vectors(first));
        let [e, f, g, h] = on_neon!(load_vectors(second));
        [a, b, c, d, e, f, g, h].map(|four| Neon(on_neon!(vreinterpretq_f32_u8(four))))
    }

    #[inline]
    fn load_f16_block(bytes: &[u8; 2 * BLOCK]) -> [Self; BLOCK_VECTORS] {
        let [a, b, c, d] = on_neon!(load_vectors(bytes)).map(|eight| {
            on_neon!({
                let eight = vreinterpretq_f16_u8(eight);
                [Neon(vcvt_f32_f16(vget_low_f16(eight))), Neon(vcvt_high_f32_f16(eight))]
            })
        });
        [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
    }

    #[inline]
    fn load_byte_block(bytes: &[u8; BLOCK]) -> [Self; BLOCK_VECTORS] {
        on_neon!({
            let [low, high] = load_vectors(bytes).map(|half| vreinterpretq_s8_u8(half));
            let words = [
                vmovl_s8(vget_low_s8(low)),
                vmovl_high_s8(low),
                vmovl_s8(vget_low_s8(high)),
                vmovl_high_s8(high),
            ];
            let [a, b, c, d] = words.map(|eight| {
                [vmovl_s16(vget_low_s16(eight)), vmovl_high_s16(eight)]
                    .map(|four| Neon(vcvtq_f32_s32(four)))
            });
            [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
        })
    }

    #[inline]
    fn store_block(block: [Self; BLOCK_VECTORS], to: &mut [f32; BLOCK]) {
        let [a, b, c, d, e, f, g, h] = block.map(|four| on_neon!(vreinterpretq_u8_f32(four.0)));
        let (first, second) = to.split_first_chunk_mut::<{ BLOCK / 2 }>().expect("two halves");
        let second = second.first_chunk_mut::<{ BLOCK / 2 }>().expect("two halves");
        on_neon!(store_vectors(first, [a, b, c, d]));
        on_neon!(store_vectors(second, [e, f, g, h]));
    }

    #[inline]
    fn store_f16_block(block: [Self; BLOCK_VECTORS], to: &mut [F16Bytes; BLOCK]) {
        let (pairs, _) = block.as_chunks::<2>();
        let vectors: [uint8x16_t; 4] = core::array::from_fn(|i| {
            let [low, high] = pairs[i];
            on_neon!(vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(low.0), high.0)))
        });
        on_neon!(store_vectors(to, vectors));
    }

    #[inline]
    fn store_low_bytes(block: [Self; BLOCK_VECTORS], to: &mut [i8; BLOCK]) -> [i16; 2] {
        on_neon!({
            let [a, b, c, d, e, f, g, h] = block.map(|four| vreinterpretq_s16_f32(four.0));
            let narrow = |a, b, c, d| {
                let low = vreinterpretq_s8_s16(vuzp1q_s16(a, b));
                vuzp1q_s8(low, vreinterpretq_s8_s16(vuzp1q_s16(c, d)))
            };
            let (low, high) = (narrow(a, b, c, d), narrow(e, f, g, h));
            store_vectors(to, [low, high].map(|half| vreinterpretq_u8_s8(half)));
            [vaddlvq_s8(low), vaddlvq_s8(high)]
        })
    }

    #[inline]
    fn bits_of_whole(self) -> Self {
        Neon(on_neon!(vreinterpretq_f32_s32(vcvtaq_s32_f32(self.0))))
    }

    #[inline]
    fn sum_each([a, b, c, d]: [Self; LANES]) -> Self {
        Neon(on_neon!(vpaddq_f32(vpaddq_f32(a.0, b.0), vpaddq_f32(c.0, d.0))))
    }
}
