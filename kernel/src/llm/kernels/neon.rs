//! Kernels for Advanced SIMD as every Armv8-A core has it.
//!
//! They give the bits of [`super::scalar`]: the four lanes of a vector are its [`LANES`], and
//! products and sums are rounded separately (no fused multiply-add).

use core::arch::aarch64::*;
use core::arch::asm;

use super::{Activations, LANES, scalar};
use crate::llm::quantize::{
    BlockQ8_0, BlockQ8K, F16Bytes, F32Bytes, WeightType, f16_to_f32, scale,
};

/// The dot product of a row of weights with activations: see [`super::dot`].
pub fn dot(kind: WeightType, row: &[u8], x: &Activations<'_>) -> f32 {
    match (kind, *x) {
        (WeightType::F32, Activations::F32(x)) => dot_f32(row.as_chunks().0, x),
        (WeightType::F16, Activations::F16(x)) => dot_f16(row.as_chunks().0, x),
        (WeightType::Q4_0, Activations::Q8_0(x)) => dot_q4_0(row.as_chunks().0, x),
        (WeightType::Q8_0, Activations::Q8_0(x)) => dot_q8_0(row.as_chunks().0, x),
        (WeightType::Q6_K, Activations::Q8K(x)) => dot_q6_k(row.as_chunks().0, x),
        _ => scalar::dot(kind, row, x),
    }
}

/// For each function of [`on_neon`] one that is safe to call.
macro_rules! everywhere {
    ($(fn $name:ident($($arg:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {$(
        pub fn $name($($arg: $kind),*) $(-> $result)? {
            // SAFETY: this module is only built where `target_feature = "neon"` holds for the
            // whole build, so that the instructions are there.
            unsafe { on_neon::$name($($arg),*) }
        }
    )*};
}

everywhere! {
    fn dot_f32(weights: &[F32Bytes], x: &[f32]) -> f32;
    fn dot_f16(weights: &[F16Bytes], x: &[f32]) -> f32;
    fn dot_f16_cache(weights: &[u16], x: &[f32]) -> f32;
    fn add_scaled_f16(out: &mut [f32], factor: f32, values: &[u16]);
    fn dot_q4_0(weights: &[[u8; 18]], x: &[BlockQ8_0]) -> f32;
    fn dot_q8_0(weights: &[[u8; 34]], x: &[BlockQ8_0]) -> f32;
    fn dot_q6_k(weights: &[[u8; 210]], x: &[BlockQ8K]) -> f32;
}

/// The kernels.
mod on_neon {
    use super::*;

    /// The sum of the lanes, pairwise.
    #[target_feature(enable = "neon")]
    fn sum_lanes(lanes: float32x4_t) -> f32 {
        let pairs = vpaddq_f32(lanes, lanes);
        vpadds_f32(vget_low_f32(pairs))
    }

    // The bare target forbids the compiler unaligned loads and stores: it would take those of a
    // vector apart, byte by byte. The processor knows no such rule for ordinary memory.

    /// The 16 bytes at `start`.
    ///
    /// # Safety
    /// They are valid for reads.
    #[target_feature(enable = "neon")]
    unsafe fn load(start: *const u8) -> uint8x16_t {
        let vector;
        // SAFETY: upheld by the caller.
        unsafe {
            asm!("ldr {:q}, [{}]", out(vreg) vector, in(reg) start,
                options(pure, readonly, nostack, preserves_flags));
        }
        vector
    }

    /// The 16 bytes of `bytes` from `at`.
    #[target_feature(enable = "neon")]
    fn load_u8<const N: usize>(bytes: &[u8; N], at: usize) -> uint8x16_t {
        let sixteen: &[u8; 16] = bytes[at..].first_chunk().expect("16 bytes from there");
        // SAFETY: the reference is valid for reads of 16 bytes.
        unsafe { load(sixteen.as_ptr()) }
    }

    /// The 16 bytes of `bytes` from `at`.
    #[target_feature(enable = "neon")]
    fn load_s8<const N: usize>(bytes: &[i8; N], at: usize) -> int8x16_t {
        let sixteen: &[i8; 16] = bytes[at..].first_chunk().expect("16 bytes from there");
        // SAFETY: the reference is valid for reads of 16 bytes.
        vreinterpretq_s8_u8(unsafe { load(sixteen.as_ptr().cast()) })
    }

    /// Four numbers; T is f32 or its bytes, which have the order of these cores: little endian.
    #[target_feature(enable = "neon")]
    fn load_f32<T>(numbers: &[T; LANES]) -> float32x4_t {
        const { assert!(size_of::<T>() == 4) };
        // SAFETY: the reference is valid for reads of 16 bytes.
        vreinterpretq_f32_u8(unsafe { load(numbers.as_ptr().cast()) })
    }

    #[target_feature(enable = "neon")]
    fn store_f32(to: &mut [f32; LANES], numbers: float32x4_t) {
        // SAFETY: the reference is valid for writes of 16 bytes.
        unsafe {
            asm!("str {:q}, [{}]", in(vreg) numbers, in(reg) to.as_mut_ptr(),
                options(nostack, preserves_flags));
        }
    }

    /// Eight numbers in F16 as two vectors; T is u16 or its bytes.
    #[target_feature(enable = "neon")]
    fn load_f16<T>(numbers: &[T; 2 * LANES]) -> [float32x4_t; 2] {
        const { assert!(size_of::<T>() == 2) };
        // SAFETY: the reference is valid for reads of 16 bytes.
        let numbers = vreinterpretq_f16_u8(unsafe { load(numbers.as_ptr().cast()) });
        [vcvt_f32_f16(vget_low_f16(numbers)), vcvt_high_f32_f16(numbers)]
    }

    #[target_feature(enable = "neon")]
    fn f16s_to_f32(bits: [u16; LANES]) -> float32x4_t {
        let bits = bits.into_iter().rev().fold(0, |all, bits| all << 16 | u64::from(bits));
        vcvt_f32_f16(vreinterpret_f16_u16(vcreate_u16(bits)))
    }

    /// Products of the numbers, added up lane by lane; `load` makes two vectors of weights at once
    /// and `value` a number of one.
    #[target_feature(enable = "neon")]
    fn dot<T>(
        weights: &[T],
        x: &[f32],
        load: impl Fn(&[T; 2 * LANES]) -> [float32x4_t; 2],
        value: impl Fn(&T) -> f32,
    ) -> f32 {
        let add =
            |lanes, weights, x: &[f32; LANES]| vaddq_f32(lanes, vmulq_f32(weights, load_f32(x)));
        let mut lanes = vdupq_n_f32(0.0);
        let (eights, weights_rest) = weights.as_chunks::<{ 2 * LANES }>();
        let (fours, x_rest) = x.as_chunks::<LANES>();
        let (pairs, four) = fours.as_chunks::<2>();
        for (weights, [x0, x1]) in eights.iter().zip(pairs) {
            let [weights0, weights1] = load(weights);
            lanes = add(add(lanes, weights0, x0), weights1, x1);
        }
        let (weights_four, weights_rest) = weights_rest.as_chunks::<LANES>();
        for (weights, x) in weights_four.iter().zip(four) {
            let weights: [f32; LANES] = core::array::from_fn(|i| value(&weights[i]));
            lanes = add(lanes, load_f32(&weights), x);
        }
        let rest = weights_rest.iter().zip(x_rest);
        rest.fold(sum_lanes(lanes), |sum, (weight, x)| sum + value(weight) * x)
    }

    #[target_feature(enable = "neon")]
    pub fn dot_f32(weights: &[F32Bytes], x: &[f32]) -> f32 {
        let load = |weights: &[F32Bytes; 2 * LANES]| {
            let (fours, _) = weights.as_chunks::<LANES>();
            [load_f32(&fours[0]), load_f32(&fours[1])]
        };
        dot(weights, x, load, |&bytes| f32::from_le_bytes(bytes))
    }

    #[target_feature(enable = "neon")]
    pub fn dot_f16(weights: &[F16Bytes], x: &[f32]) -> f32 {
        let value = |&bytes: &F16Bytes| f16_to_f32(u16::from_le_bytes(bytes));
        dot(weights, x, |numbers| load_f16(numbers), value)
    }

    #[target_feature(enable = "neon")]
    pub fn dot_f16_cache(weights: &[u16], x: &[f32]) -> f32 {
        dot(weights, x, |numbers| load_f16(numbers), |&bits| f16_to_f32(bits))
    }

    #[target_feature(enable = "neon")]
    pub fn add_scaled_f16(out: &mut [f32], factor: f32, values: &[u16]) {
        let (out, out_rest) = out.as_chunks_mut::<{ 2 * LANES }>();
        let (values, values_rest) = values.as_chunks::<{ 2 * LANES }>();
        for (out, values) in out.iter_mut().zip(values) {
            let values = load_f16(values);
            for (out, value) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(values) {
                let sum = vaddq_f32(load_f32(out), vmulq_n_f32(value, factor));
                store_f32(out, sum);
            }
        }
        scalar::add_scaled_f16(out_rest, factor, values_rest);
    }

    /// Adds the four blocks' sums, each first within itself, and scales them into the lanes.
    #[target_feature(enable = "neon")]
    fn add_blocks(
        lanes: float32x4_t,
        sums: [int32x4_t; LANES],
        weight_scales: [u16; LANES],
        x_scales: [f32; LANES],
    ) -> float32x4_t {
        let sums = vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
        let scales = vmulq_f32(f16s_to_f32(weight_scales), load_f32(&x_scales));
        vaddq_f32(lanes, vmulq_f32(vcvtq_f32_s32(sums), scales))
    }

    /// Runs over the blocks, four at a time: one for each lane.
    #[target_feature(enable = "neon")]
    fn dot_blocks<const N: usize>(
        weights: &[[u8; N]],
        x: &[BlockQ8_0],
        block_sums: impl Fn(&[u8; N], &BlockQ8_0) -> int32x4_t,
    ) -> f32 {
        let mut lanes = vdupq_n_f32(0.0);
        let (weights, weights_rest) = weights.as_chunks::<LANES>();
        let (x, x_rest) = x.as_chunks::<LANES>();
        for (weights, x) in weights.iter().zip(x) {
            let sums = core::array::from_fn(|i| block_sums(&weights[i], &x[i]));
            let scale = |i: usize| u16::from_le_bytes([weights[i][0], weights[i][1]]);
            let x_scales = core::array::from_fn(|i| x[i].d);
            lanes = add_blocks(lanes, sums, core::array::from_fn(scale), x_scales);
        }
        if !weights_rest.is_empty() {
            // Lanes without a block get zeros, which change nothing.
            let mut sums = [vdupq_n_s32(0); LANES];
            let mut scales = ([0; LANES], [0.0; LANES]);
            for (i, (block, x)) in weights_rest.iter().zip(x_rest).enumerate() {
                sums[i] = block_sums(block, x);
                scales.0[i] = u16::from_le_bytes([block[0], block[1]]);
                scales.1[i] = x.d;
            }
            lanes = add_blocks(lanes, sums, scales.0, scales.1);
        }
        sum_lanes(lanes)
    }

    #[target_feature(enable = "neon")]
    pub fn dot_q4_0(weights: &[[u8; 18]], x: &[BlockQ8_0]) -> f32 {
        dot_blocks(weights, x, |block, x| {
            let pairs = load_u8(block, 2);
            let eight = vdupq_n_s8(8);
            let low = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15))), eight);
            let high = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8::<4>(pairs)), eight);
            let (x_low, x_high) = (load_s8(&x.qs, 0), load_s8(&x.qs, 16));
            // Two products of at most 8 * 128 fit in 16 bits.
            let a = vmull_s8(vget_low_s8(low), vget_low_s8(x_low));
            let a = vmlal_s8(a, vget_low_s8(high), vget_low_s8(x_high));
            let b = vmull_high_s8(low, x_low);
            let b = vmlal_high_s8(b, high, x_high);
            vpadalq_s16(vpaddlq_s16(a), b)
        })
    }

    #[target_feature(enable = "neon")]
    pub fn dot_q8_0(weights: &[[u8; 34]], x: &[BlockQ8_0]) -> f32 {
        dot_blocks(weights, x, |block, x| {
            let mut sums = vdupq_n_s32(0);
            for at in [0, 16] {
                let weights = vreinterpretq_s8_u8(load_u8(block, 2 + at));
                let x = load_s8(&x.qs, at);
                // A file may hold the weight -128, so two products may not fit in 16 bits.
                sums = vpadalq_s16(sums, vmull_s8(vget_low_s8(weights), vget_low_s8(x)));
                sums = vpadalq_s16(sums, vmull_high_s8(weights, x));
            }
            sums
        })
    }

    #[target_feature(enable = "neon")]
    pub fn dot_q6_k(weights: &[[u8; 210]], x: &[BlockQ8K]) -> f32 {
        let mut total = 0.0;
        for (block, x) in weights.iter().zip(x) {
            let (mask_low, mask_high) = (vdupq_n_u8(15), vdupq_n_u8(3));
            let mut sums = vdupq_n_s32(0);
            // The order of the weights: see `k_quants::q6_k`.
            for half in 0..2 {
                for part in 0..2 {
                    let low = load_u8(block, half * 64 + part * 16);
                    let low2 = load_u8(block, half * 64 + 32 + part * 16);
                    let high = load_u8(block, 128 + half * 32 + part * 16);
                    let stripes = [
                        (vandq_u8(low, mask_low), vandq_u8(high, mask_high)),
                        (vandq_u8(low2, mask_low), vandq_u8(vshrq_n_u8::<2>(high), mask_high)),
                        (vshrq_n_u8::<4>(low), vandq_u8(vshrq_n_u8::<4>(high), mask_high)),
                        (vshrq_n_u8::<4>(low2), vshrq_n_u8::<6>(high)),
                    ];
                    for (stripe, (low, high)) in stripes.into_iter().enumerate() {
                        let group = half * 8 + stripe * 2 + part;
                        let weights = vorrq_u8(low, vshlq_n_u8::<4>(high));
                        let weights = vreinterpretq_s8_u8(weights);
                        let x = load_s8(&x.qs, group * 16);
                        // Two products of at most 63 * 127 fit in 16 bits.
                        let products = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
                        let products = vmlal_high_s8(products, weights, x);
                        let group_scale = i32::from(block[192 + group] as i8);
                        sums = vmlaq_n_s32(sums, vpaddlq_s16(products), group_scale);
                    }
                }
            }
            // The weights above have 32 added: take 32 times the activations off again.
            let scales = block[192..208].iter().zip(&x.sums);
            let offset: i32 = scales.map(|(&s, &sum)| i32::from(s as i8) * i32::from(sum)).sum();
            let sum = vaddvq_s32(sums) - 32 * offset;
            total += sum as f32 * (scale([block[208], block[209]]) * x.d);
        }
        total
    }
}
