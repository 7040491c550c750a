//! RoPE: rotary position embedding (Su et al. 2021).
//!
//! Longer contexts scale it: linearly, by factors for each frequency (Llama 3, LongRoPE), or by
//! YaRN (Peng et al. 2023). The numbers follow ggml's `ggml_rope_cache_init`.

use alloc::format;
use alloc::vec::Vec;

use super::header::{Header, Shape};
use super::tensors::{Tensors, Vector};
use crate::llm::Error;
use crate::llm::arena::ModelBytes;
use crate::llm::kernels::{rotate_halves, rotate_neighbours};

/// Which numbers of a head make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Two neighbours.
    Neighbours,
    /// One of the first half and its counterpart in the second (GPT-NeoX's order).
    Halves,
}

/// How the heads of a layer are rotated.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pairs: Pairs,
    /// Width of the part of a head that is rotated.
    n_rot: usize,
    /// Base of the frequencies.
    base: f32,
    /// The factor of positions: below 1 where a context is scaled.
    scale: f32,
    /// The divisors of the frequencies, one for each pair.
    factors: Factors,
    yarn: Option<Yarn>,
    /// The factor of cosines and sines.
    magnitude: f32,
}

#[derive(Clone, Debug, PartialEq)]
enum Factors {
    None,
    One(Bound),
    /// LongRoPE: other factors for a context longer than the original one.
    ByContext {
        short: Option<Bound>,
        long: Option<Bound>,
        n_ctx_original: usize,
    },
}

/// A tensor whose values [`Rope::bind`] reads: empty before, then `[n_rot / 2]`.
#[derive(Clone, Debug, PartialEq)]
struct Bound {
    tensor: Vector,
    values: Vec<f32>,
}

impl Bound {
    fn new(tensor: Vector) -> Self {
        Bound { tensor, values: Vec::new() }
    }

    fn bind(&mut self, sources: &[ModelBytes]) {
        let values = self.tensor.values(sources).iter().map(|&bytes| f32::from_le_bytes(bytes));
        self.values = values.collect();
    }
}

/// The pairs between which YaRN blends from unscaled to scaled frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Yarn {
    low: f32,
    high: f32,
}

impl Yarn {
    /// Rotations over the original context at which the blend starts and ends.
    ///
    /// The paper's β and α, which are the same for all models.
    const FAST: f32 = 32.0;
    const SLOW: f32 = 1.0;

    fn new(n_rot: usize, n_ctx_original: usize, base: f32) -> Self {
        let n_rot = n_rot as f32;
        let pair = |rotations: f32| {
            let ratio = n_ctx_original as f32 / (rotations * 2.0 * core::f32::consts::PI);
            n_rot * libm::logf(ratio) / (2.0 * libm::logf(base))
        };
        Yarn {
            low: libm::floorf(pair(Self::FAST)).max(0.0),
            high: libm::ceilf(pair(Self::SLOW)).min(n_rot - 1.0),
        }
    }

    /// The share of the unscaled frequency at a pair.
    fn share(&self, pair: usize) -> f32 {
        let y = (pair as f32 - self.low) / (self.high - self.low).max(0.001);
        1.0 - y.clamp(0.0, 1.0)
    }
}

impl Rope {
    /// The rotation that header and tensors of a model ask for.
    ///
    /// # Errors
    /// [`Error::ParseError`] if a number is invalid, [`Error::Unsupported`] if the scaling is
    /// unknown.
    pub fn read(
        header: &Header<'_, '_>,
        shape: &Shape,
        tensors: &mut Tensors<'_, '_>,
        pairs: Pairs,
    ) -> Result<Self, Error> {
        let head_size = shape.head_size;
        let n_rot = header.optional("rope.dimension_count")?.unwrap_or(head_size);
        if n_rot > head_size || !n_rot.is_multiple_of(2) {
            let why = format!("is {n_rot}, not an even number up to {head_size}");
            return Err(header.invalid("rope.dimension_count", &why));
        }
        let base = header.positive("rope.freq_base")?.unwrap_or(10_000.0);
        let n_ctx_original = header.optional("rope.scaling.original_context_length")?;
        let n_ctx_original = n_ctx_original.unwrap_or(shape.n_ctx_train);

        let kind = header.string("rope.scaling.type")?.unwrap_or("linear");
        if !["none", "linear", "longrope", "yarn"].contains(&kind) {
            return Err(Error::Unsupported { what: format!("the RoPE scaling `{kind:.80}`") });
        }
        let mut factor = header.non_negative("rope.scaling.factor")?;
        if factor.is_none() {
            factor = header.non_negative("rope.scale_linear")?;
        }
        // As in llama.cpp, a factor of 0 means no scaling.
        let factor = factor.filter(|&factor| kind != "none" && factor != 0.0).unwrap_or(1.0);

        let mut factors = |name: &str| {
            let tensor = tensors.optional_vector(name, n_rot / 2)?;
            Ok::<_, Error>(tensor.map(Bound::new))
        };
        let factors = match factors("rope_freqs.weight")? {
            Some(factors) => Factors::One(factors),
            None => {
                let long = factors("rope_factors_long.weight")?;
                let short = factors("rope_factors_short.weight")?;
                match (&short, &long) {
                    (None, None) => Factors::None,
                    _ => Factors::ByContext { short, long, n_ctx_original },
                }
            }
        };
        let mut magnitude = header.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let mut yarn = None;
        if kind == "yarn" {
            yarn = Some(Yarn::new(n_rot, n_ctx_original, base));
            if factor > 1.0 {
                magnitude *= 1.0 + 0.1 * libm::logf(factor);
            }
        }
        Ok(Rope { pairs, n_rot, base, scale: 1.0 / factor, factors, yarn, magnitude })
    }

    /// Reads the factors of the frequencies, if the model has any.
    pub fn bind(&mut self, sources: &[ModelBytes]) {
        match &mut self.factors {
            Factors::None => {}
            Factors::One(factors) => factors.bind(sources),
            Factors::ByContext { short, long, .. } => {
                short.iter_mut().chain(long).for_each(|factors| factors.bind(sources));
            }
        }
    }

    /// The same rotation with another base and no scaling, for sliding-window layers.
    pub fn local(&self, base: f32) -> Self {
        Rope {
            base,
            scale: 1.0,
            factors: Factors::None,
            yarn: None,
            magnitude: 1.0,
            ..self.clone()
        }
    }

    /// Width of the part of a head that is rotated.
    pub fn n_rot(&self) -> usize {
        self.n_rot
    }

    /// Writes the cosines of all angles at a position, then the sines: `[n_rot]`.
    ///
    /// `n_ctx` is the length of the context.
    pub fn angles(&self, position: usize, n_ctx: usize, out: &mut [f32]) {
        self.write_angles(position as f32, self.magnitude, n_ctx, out);
    }

    /// As [`Rope::angles`], for keys that a context shift moves back by `positions`.
    pub fn angles_back(&self, positions: usize, n_ctx: usize, out: &mut [f32]) {
        self.write_angles(-(positions as f32), 1.0, n_ctx, out);
    }

    fn write_angles(&self, mut theta: f32, magnitude: f32, n_ctx: usize, out: &mut [f32]) {
        let factors = match &self.factors {
            Factors::None => None,
            Factors::One(factors) => Some(factors),
            Factors::ByContext { long, n_ctx_original, .. } if n_ctx > *n_ctx_original => {
                long.as_ref()
            }
            Factors::ByContext { short, .. } => short.as_ref(),
        };
        // As ggml does: the angle falls by repeated multiplication, rounding included.
        let step = libm::powf(self.base, -2.0 / self.n_rot as f32);
        let (cos, sin) = out.split_at_mut(self.n_rot / 2);
        for (i, (cos, sin)) in cos.iter_mut().zip(sin).enumerate() {
            let plain = theta / factors.map_or(1.0, |factors| factors.values[i]);
            let mut angle = self.scale * plain;
            if let Some(yarn) = self.yarn {
                let share = yarn.share(i);
                angle = angle * (1.0 - share) + plain * share;
            }
            (*cos, *sin) = (libm::cosf(angle) * magnitude, libm::sinf(angle) * magnitude);
            theta *= step;
        }
    }

    /// Rotates a head by `angles`.
    pub fn rotate(&self, head: &mut [f32], angles: &[f32]) {
        match self.pairs {
            Pairs::Neighbours => rotate_neighbours(head, angles),
            Pairs::Halves => rotate_halves(head, angles),
        }
    }
}
