//! What all types with blocks of 256 weights have in common.

use super::SUPER_BLOCK;

/// Weights that share a scale.
pub const GROUP: usize = 16;
/// Groups in a block.
pub const GROUPS: usize = SUPER_BLOCK / GROUP;

/// The scales of a block: the weights of group g are
/// `(d * scales[g]) * weight - d_min * mins[g]`.
#[derive(Clone, Copy, Debug)]
pub struct Scales {
    /// The scale of the scales.
    pub d: f32,
    /// The scale of the minimums; 0 for the types that have none.
    pub d_min: f32,
    /// A scale for each group.
    pub scales: [i8; GROUPS],
    /// What is taken off the weights of each group.
    pub mins: [u8; GROUPS],
}

impl Scales {
    /// Scales of a type that has no minimums.
    pub fn without_mins(d: f32, scales: [i8; GROUPS]) -> Scales {
        Scales { d, d_min: 0.0, scales, mins: [0; GROUPS] }
    }

    /// The dot product of a block with activations of scale `x_d`, from integer sums.
    ///
    /// `sum` is that of the scaled products, and `min_sum` what the minimums subtract.
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
