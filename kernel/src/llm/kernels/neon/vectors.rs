//! Loads, stores and conversions of vectors.

use core::arch::aarch64::*;
use core::arch::asm;

use crate::llm::arena::Plain;
use crate::llm::kernels::lanes::LANES;
use crate::llm::quantize::F16Bytes;

/// The sum of the lanes, pairwise.
#[target_feature(enable = "neon")]
pub fn sum_lanes(lanes: float32x4_t) -> f32 {
    let pairs = vpaddq_f32(lanes, lanes);
    vpadds_f32(vget_low_f32(pairs))
}

// The bare target forbids the compiler unaligned loads and stores, so it would access vectors byte
// by byte. The processor allows unaligned accesses to ordinary memory.

/// The 16 bytes at `start`.
///
/// # Safety
/// The 16 bytes are valid for reads.
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
pub fn load_u8<const N: usize>(bytes: &[u8; N], at: usize) -> uint8x16_t {
    let sixteen: &[u8; 16] = bytes[at..].first_chunk().expect("16 bytes from there");
    // SAFETY: the reference is valid for reads of 16 bytes.
    unsafe { load(sixteen.as_ptr()) }
}

/// The 16 bytes of `bytes` from `AT`, which is part of the instruction.
#[target_feature(enable = "neon")]
pub fn load_at<const AT: usize, const N: usize>(bytes: &[u8; N]) -> uint8x16_t {
    const { assert!(AT + 16 <= N && AT < 256) };
    let vector;
    // SAFETY: the reference is valid for reads of N bytes.
    unsafe {
        asm!("ldur {:q}, [{}, #{}]", out(vreg) vector, in(reg) bytes.as_ptr(), const AT,
            options(pure, readonly, nostack, preserves_flags));
    }
    vector
}

/// The 16 bytes of `bytes` from `at`.
#[target_feature(enable = "neon")]
pub fn load_s8<const N: usize>(bytes: &[i8; N], at: usize) -> int8x16_t {
    let sixteen: &[i8; 16] = bytes[at..].first_chunk().expect("16 bytes from there");
    // SAFETY: the reference is valid for reads of 16 bytes.
    vreinterpretq_s8_u8(unsafe { load(sixteen.as_ptr().cast()) })
}

/// Bytes as vectors.
///
/// # Panics
/// They are not whole vectors, or do not start at a multiple of 16.
pub fn as_vectors(bytes: &[u8]) -> &[uint8x16_t] {
    // SAFETY: each 16 bytes are a vector.
    let (before, vectors, after) = unsafe { bytes.align_to() };
    assert!(before.is_empty() && after.is_empty(), "bytes that are no vectors");
    vectors
}

/// A value as vectors.
pub fn vectors_of<T: Plain, const N: usize>(value: &T) -> &[int8x16_t; N] {
    const { assert!(align_of::<T>() == 16 && size_of::<T>() == 16 * N) };
    // SAFETY: size and alignment equal those of the vectors, and each byte of a `Plain` value is
    // initialised.
    unsafe { &*(&raw const *value).cast() }
}

/// Loads four numbers. T is `f32` or its bytes, little endian as these cores are.
#[target_feature(enable = "neon")]
pub fn load_f32<T>(numbers: &[T; LANES]) -> float32x4_t {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: the reference is valid for reads of 16 bytes.
    vreinterpretq_f32_u8(unsafe { load(numbers.as_ptr().cast()) })
}

/// Stores four numbers.
#[target_feature(enable = "neon")]
pub fn store_f32(to: &mut [f32; LANES], numbers: float32x4_t) {
    // SAFETY: the reference is valid for writes of 16 bytes.
    unsafe {
        asm!("str {:q}, [{}]", in(vreg) numbers, in(reg) to.as_mut_ptr(),
            options(nostack, preserves_flags));
    }
}

/// Loads an array as N vectors. N is even, and the vectors are the whole array.
#[inline]
#[target_feature(enable = "neon")]
pub fn load_vectors<T, const M: usize, const N: usize>(array: &[T; M]) -> [uint8x16_t; N] {
    const { assert!(size_of::<[T; M]>() == 16 * N && N.is_multiple_of(2)) };
    let mut vectors = [vdupq_n_u8(0); N];
    for (i, [low, high]) in vectors.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        // SAFETY: the reference is valid for reads of 16 N bytes, and these are 32 of them.
        unsafe {
            asm!("ldp {:q}, {:q}, [{}]", out(vreg) *low, out(vreg) *high,
                in(reg) array.as_ptr().cast::<u8>().add(32 * i),
                options(pure, readonly, nostack, preserves_flags));
        }
    }
    vectors
}

/// Stores N vectors as an array. N is even, and the vectors are the whole array.
#[inline]
#[target_feature(enable = "neon")]
pub fn store_vectors<T: Copy, const M: usize, const N: usize>(
    array: &mut [T; M],
    vectors: [uint8x16_t; N],
) {
    const { assert!(size_of::<[T; M]>() == 16 * N && N.is_multiple_of(2)) };
    for (i, [low, high]) in vectors.as_chunks::<2>().0.iter().enumerate() {
        // SAFETY: the reference is valid for writes of 16 N bytes, and these are 32 of them.
        unsafe {
            asm!("stp {:q}, {:q}, [{}]", in(vreg) *low, in(vreg) *high,
                in(reg) array.as_mut_ptr().cast::<u8>().add(32 * i),
                options(nostack, preserves_flags));
        }
    }
}

/// Eight numbers in F16 as two vectors.
#[target_feature(enable = "neon")]
pub fn load_f16(numbers: &[F16Bytes; 2 * LANES]) -> [float32x4_t; 2] {
    // SAFETY: the reference is valid for reads of 16 bytes.
    let numbers = vreinterpretq_f16_u8(unsafe { load(numbers.as_ptr().cast()) });
    [vcvt_f32_f16(vget_low_f16(numbers)), vcvt_high_f32_f16(numbers)]
}

/// Eight numbers in BF16 as two vectors.
#[target_feature(enable = "neon")]
pub fn load_bf16(numbers: &[F16Bytes; 2 * LANES]) -> [float32x4_t; 2] {
    // SAFETY: the reference is valid for reads of 16 bytes.
    let numbers = vreinterpretq_u16_u8(unsafe { load(numbers.as_ptr().cast()) });
    let upper_halves = |halves| vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(halves)));
    [upper_halves(vget_low_u16(numbers)), upper_halves(vget_high_u16(numbers))]
}
