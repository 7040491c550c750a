//! Super-blocks: the common part of all types with blocks of 256 weights.

use super::SUPER_BLOCK;

/// Weights that share a scale.
pub const GROUP: usize = 16;
/// Groups in a block.
pub const GROUPS: usize = SUPER_BLOCK / GROUP;

/// The scales of a super-block.
///
/// Weights of group g are `(d * scales[g]) * weight - d_min * mins[g]`.
#[derive(Clone, Copy, Debug)]
pub struct Scales {
    /// The scale of the scales.
    pub d: f32,
    /// The scale of the minimums; 0 for types without minimums.
    pub d_min: f32,
    /// A scale for each group.
    pub scales: [i8; GROUPS],
    /// The minimum of each group, which is subtracted from its weights.
    pub mins: [u8; GROUPS],
}

impl Scales {
    /// Scales of a type without minimums.
    pub fn without_mins(d: f32, scales: [i8; GROUPS]) -> Scales {
        Scales { d, d_min: 0.0, scales, mins: [0; GROUPS] }
    }

    /// The dot product of a block with activations of scale `x_d`, from integer sums.
    ///
    /// `sum` is the sum of the products, scaled by group. `min_sum` gives the sum that the minimums
    /// subtract.
    pub fn product(&self, x_d: f32, sum: i32, min_sum: impl FnOnce() -> i32) -> f32 {
        let product = sum as f32 * (self.d * x_d);
        // Most types have no minimums, and an infinite scale times 0 would be NaN.
        if self.d_min == 0.0 { product } else { product - min_sum() as f32 * (self.d_min * x_d) }
    }
}

/// A block of 256 weights.
#[derive(Clone, Copy, Debug)]
pub struct SuperBlock {
    /// The weights as whole numbers.
    pub weights: [i8; SUPER_BLOCK],
    /// Their scales.
    pub scales: Scales,
}

impl SuperBlock {
    /// Writes the weights' values to `out`.
    pub fn dequantize(&self, out: &mut [f32; SUPER_BLOCK]) {
        let Scales { d, d_min, scales, mins } = &self.scales;
        let groups = self.weights.as_chunks::<GROUP>().0.iter().zip(out.as_chunks_mut::<GROUP>().0);
        for ((weights, out), (&scale, &min)) in groups.zip(scales.iter().zip(mins)) {
            let d = d * f32::from(scale);
            let min = d_min * f32::from(min);
            for (out, &q) in out.iter_mut().zip(weights) {
                *out = d * f32::from(q) - min;
            }
        }
    }
}
