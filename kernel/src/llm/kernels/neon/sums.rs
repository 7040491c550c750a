//! The sums of a panel's eight rows: loads, stores, and scaling of integer sums.

use core::arch::aarch64::*;

use super::isa::IntSums;
use super::unpack::{Totals, UnpackKQuant};
use super::vectors::{load_vectors, store_vectors};
use crate::llm::kernels::operands::RowSums;

/// Stores the sums of eight rows.
#[target_feature(enable = "neon")]
pub fn store_totals(totals: Totals, sums: &mut RowSums) {
    store_vectors(sums, totals.map(|totals| vreinterpretq_u8_f32(totals)));
}

/// Loads the sums of eight rows.
#[target_feature(enable = "neon")]
pub fn load_totals(sums: &RowSums) -> Totals {
    load_vectors(sums).map(|sums| vreinterpretq_f32_u8(sums))
}

/// Copies the sums of a panel by vectors, where the compiler would call `memcpy`.
pub fn copy_sums(sums: &RowSums, out: &mut RowSums) {
    // SAFETY: this module is only built where the whole build has NEON.
    unsafe { store_totals(load_totals(sums), out) }
}

/// Widens the numbers of eight rows to 32 bits.
#[target_feature(enable = "neon")]
pub fn widen(numbers: int8x8_t) -> IntSums {
    let numbers = vmovl_s8(numbers);
    [vmovl_s16(vget_low_s16(numbers)), vmovl_high_s16(numbers)]
}

/// Adds the dot products of a block of 256 weights, from integer sums, to `total`.
///
/// `x_d` is the scale of the activations. As `Scales::product` of the portable kernels.
#[target_feature(enable = "neon")]
pub fn add_k_block<F: UnpackKQuant>(
    total: &mut Totals,
    [d, d_min]: &[Totals; 2],
    x_d: f32,
    sums: IntSums,
    min_sums: IntSums,
) {
    for half in 0..2 {
        let mut product = vmulq_f32(vcvtq_f32_s32(sums[half]), vmulq_n_f32(d[half], x_d));
        if F::HAS_MINS {
            let min = vmulq_f32(vcvtq_f32_s32(min_sums[half]), vmulq_n_f32(d_min[half], x_d));
            // An infinite scale times 0 would be no number.
            let none = vreinterpretq_s32_u32(vceqzq_f32(d_min[half]));
            let min = vbicq_s32(vreinterpretq_s32_f32(min), none);
            product = vsubq_f32(product, vreinterpretq_f32_s32(min));
        }
        total[half] = vaddq_f32(total[half], product);
    }
}
