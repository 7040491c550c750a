//! Kernels for Advanced SIMD as every Armv8-A core has it.
//!
//! - [`dispatch`] chooses a kernel by instructions and type of weights.
//! - [`gemv`] and [`gemm`] hold the micro-kernels for row panels: one token, and several tokens.
//! - [`unpack`] unpacks the weights of a panel. [`isa`] wraps `smull`, `sdot` and `smmla`.
//! - [`vec_dot`] multiplies single rows. [`repack`] packs rows into panels.
//!
//! All kernels give the bits of `scalar`. Integer sums are exact. In panels, each row's float sum
//! has a lane of its own, to which blocks are added in order. In single rows of floats, a sum runs
//! in the [`LANES`](super::lanes::LANES) of a vector.

mod dispatch;
mod gemm;
mod gemv;
mod isa;
mod lanes;
mod repack;
mod sums;
mod unpack;
mod vec_dot;
mod vectors;

pub use dispatch::{KernelSet, gemm, gemv, gemv_together, multiplies_together, n_in_panels};
pub use lanes::Neon as Vector;
pub use repack::{interleave_tokens, pack_panel};
pub use sums::copy_sums;
pub use vec_dot::dot;
