//! The kernels: matrix products (GEMV, GEMM), attention, and element-wise ops.
//!
//! - [`multiply`] chooses between GEMV (few tokens), GEMM (prefill) and single rows. [`operands`]
//!   describes its arguments.
//! - Each dot product has a portable reference (`scalar`) and, with the feature `simd`, one for the
//!   vector unit at hand (`neon`).
//! - Element-wise ops (`elementwise`), attention (`attention`) and the quantisation of activations
//!   (`quantizers`) are written once, over the `lanes` of a vector unit.
//!
//! All kernels give the same bits, so that a model's text does not depend on the machine. Integer
//! sums are exact, and the order of float sums is fixed. The numbers follow ggml's CPU backend
//! (`ops.cpp`, `vec.h`, `ggml-quants.c`).

mod attention;
mod elementwise;
pub(crate) mod fixtures;
mod lanes;
mod math;
#[cfg(all(feature = "simd", target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod operands;
#[cfg(not(all(feature = "simd", target_arch = "aarch64", target_feature = "neon")))]
mod portable;
mod quantizers;
mod scalar;
pub mod self_test;

#[cfg(all(feature = "simd", target_arch = "aarch64", target_feature = "neon"))]
use neon as active;
#[cfg(not(all(feature = "simd", target_arch = "aarch64", target_feature = "neon")))]
use portable as active;

pub use attention::{HeadRows, TOGETHER};
pub use operands::{ActivationPanels, Activations, BATCH, Batch, OutputRows, RowSums, Rows};

use alloc::vec::Vec;

use crate::cpu::Features;
use crate::llm::quantize::{
    self, ActivationType, BlockQ8_0, BlockQ8_1, BlockQ8K, F16Bytes, F32Bytes, Interleave,
    PANEL_ROWS, PANEL_TOKENS, WeightType,
};

/// Bytes of row panels that kernels read in turns, for different tokens: half of a small L1 cache.
const PANELS_IN_TURNS: usize = 16 << 10;

/// The kernels in use: the best that the processor has.
fn set() -> active::KernelSet {
    static SET: spin::Once<active::KernelSet> = spin::Once::new();
    *SET.call_once(|| active::KernelSet::best(Features::of_this_core()))
}

/// Which kernels are in use: "scalar", "neon", "dotprod" or "i8mm".
pub fn name() -> &'static str {
    set().name()
}

/// Whether weights of this type are to be packed into row panels.
pub fn wants_panels(kind: WeightType) -> bool {
    active::KernelSet::WANTS_PANELS && kind.has_panels()
}

/// Packs eight neighbouring rows into a row panel: see [`WeightType::pack_panel`].
///
/// `copy` is scratch space for a copy of the rows.
///
/// # Panics
/// `rows` are not eight rows of whole blocks.
pub fn pack_panel(kind: WeightType, rows: &mut [u8], copy: &mut Vec<u8>) {
    active::pack_panel(kind, rows, copy);
}

/// Packs activations into panels of four tokens: see [`quantize::interleave`].
pub fn interleave<B: Interleave>(tokens: &[B], n: usize, panels: &mut [B::Panel]) {
    quantize::interleave(tokens, n, panels, active::interleave_tokens);
}

/// How many of `n` tokens GEMM takes, in activation panels of this format.
///
/// They are the first ones. The others are few, and go to GEMV.
pub fn n_in_panels(format: ActivationType, n: usize) -> usize {
    active::n_in_panels(set(), format, n)
}

/// Matrix product: rows of weights times the activations of each token.
///
/// Row panels go to GEMM for the tokens of [`n_in_panels`], and to GEMV for the others. A panel
/// comes from memory once for all tokens. The remaining rows go to dot products of single rows.
///
/// # Panics
/// The activations are not in the format that the weights take ([`WeightType::activations`]), or
/// `x` or `out` have another shape.
pub fn multiply(rows: &Rows<'_>, x: &Batch<'_>, out: &mut impl OutputRows) {
    multiply_with(set(), rows, x, out);
}

fn multiply_with(
    set: active::KernelSet,
    rows: &Rows<'_>,
    x: &Batch<'_>,
    out: &mut impl OutputRows,
) {
    let kind = rows.kind;
    assert!(kind.activations() == x.x.kind(), "{kind:?} weights with {:?} activations", x.x.kind());
    assert!(x.n * rows.columns == x.x.len() && x.n <= BATCH, "{} activations", x.x.len());
    let n_out = out.of_tokens().count();
    assert!(x.n == n_out, "{} tokens with room for {n_out}", x.n);
    let row_bytes = rows.row_bytes();
    let (panels, rest) = rows.split();
    let n_packed = panels.len() / row_bytes;
    if n_packed == 0 {
        // A type without panels, or a matrix of a few rows.
    } else if x.n == 1 {
        for out in out.of_tokens() {
            active::gemv(set, kind, panels, &x.x, out[..n_packed].as_chunks_mut().0);
        }
    } else {
        multiply_panels(set, rows, panels, x, out);
    }
    for (token, out) in out.of_tokens().enumerate() {
        let x = x.token(token);
        let sums = &mut out[n_packed..];
        assert_eq!(rest.len(), sums.len() * row_bytes, "bytes of rows for {} places", sums.len());
        for (sum, row) in sums.iter_mut().zip(rest.chunks_exact(row_bytes)) {
            *sum = active::dot(kind, row, &x);
        }
    }
}

/// Multiplies row panels with the activations of several tokens.
fn multiply_panels(
    set: active::KernelSet,
    rows: &Rows<'_>,
    panels: &[u8],
    x: &Batch<'_>,
    out: &mut impl OutputRows,
) {
    let Rows { kind, columns, .. } = *rows;
    let n_gemm = match x.panels {
        ActivationPanels::None => 0,
        _ => active::n_in_panels(set, x.x.kind(), x.n),
    };
    let n_gemv = x.n - n_gemm;
    let together = active::multiplies_together(set, x.x.kind(), n_gemv);
    let n_readers = usize::from(n_gemm > 0) + if together { 1 } else { n_gemv };
    let panel_bytes = PANEL_ROWS * rows.row_bytes();
    let n_panels = match n_readers {
        1 => panels.len() / panel_bytes,
        _ => (PANELS_IN_TURNS / panel_bytes).max(1),
    };
    let mut sums = [[0.0; PANEL_ROWS]; BATCH];
    for (turn, panels) in panels.chunks(n_panels * panel_bytes).enumerate() {
        let first = turn * n_panels;
        let mut copy = |panel: usize, token: usize, sums: &[RowSums]| {
            for (sums, out) in sums.iter().zip(out.of_tokens().skip(token)) {
                active::copy_sums(sums, &mut out.as_chunks_mut().0[first + panel]);
            }
        };
        if n_gemm > 0 {
            let sums = &mut sums[..n_gemm.next_multiple_of(PANEL_TOKENS)];
            active::gemm(set, kind, columns, panels, &x.panels, sums, &mut |panel, sums| {
                copy(panel, 0, &sums[..n_gemm]);
            });
        }
        if together {
            let (sums, x) = (&mut sums[..n_gemv], x.x.part(n_gemm * columns..x.x.len()));
            active::gemv_together(set, kind, columns, panels, &x, sums, &mut |panel, sums| {
                copy(panel, n_gemm, sums);
            });
        } else {
            for (token, out) in out.of_tokens().enumerate().skip(n_gemm) {
                let sums = &mut out.as_chunks_mut().0[first..][..panels.len() / panel_bytes];
                active::gemv(set, kind, panels, &x.token(token), sums);
            }
        }
    }
}

/// The dot product of one row, in the file's layout, with one token's activations.
///
/// # Panics
/// The activations are not in the format that `kind` takes, or have another length.
pub fn dot(kind: WeightType, row: &[u8], x: &Activations<'_>) -> f32 {
    assert!(kind.activations() == x.kind(), "{kind:?} weights with {:?} activations", x.kind());
    assert!(row.len() == kind.row_bytes(x.len()), "{} bytes of a row", row.len());
    active::dot(kind, row, x)
}

/// Makes an op public as it runs on the vector unit in use.
macro_rules! on_active_lanes {
    ($(
        $(#[$doc:meta])*
        $module:ident::$op:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;
    )*) => {$(
        $(#[$doc])*
        pub fn $op($($argument: $kind),*) $(-> $result)? {
            $module::$op::<active::Vector>($($argument),*)
        }
    )*};
}

on_active_lanes! {
    /// Adds `x`, of the same length, to `out`.
    elementwise::add(out: &mut [f32], x: &[f32]);
    /// Adds a bias, as the file has it, to `out`.
    elementwise::add_bias(out: &mut [f32], bias: &[F32Bytes]);
    /// Multiplies `x` by a factor.
    elementwise::scale(x: &mut [f32], factor: f32);
    /// RMSNorm.
    elementwise::rms_norm(x: &mut [f32], weights: &[F32Bytes], epsilon: f32);
    /// LayerNorm.
    elementwise::layer_norm(
        x: &mut [f32], weights: &[F32Bytes], bias: &[F32Bytes], epsilon: f32);
    /// The largest number, which is never NaN; negative infinity if there is none.
    elementwise::largest(x: &[f32]) -> f32;
    /// Softmax.
    elementwise::softmax(scores: &mut [f32]);
    /// Logit softcapping.
    elementwise::softcap(x: &mut [f32], cap: f32);
    /// SiLU.
    elementwise::silu(x: &mut [f32]);
    /// SwiGLU, in `gate`.
    elementwise::swiglu(gate: &mut [f32], up: &[f32]);
    /// GELU.
    elementwise::gelu(x: &mut [f32]);
    /// GeGLU, in `gate`.
    elementwise::geglu(gate: &mut [f32], up: &[f32]);
    /// RoPE of neighbours.
    elementwise::rotate_neighbours(head: &mut [f32], angles: &[f32]);
    /// RoPE of halves.
    elementwise::rotate_halves(head: &mut [f32], angles: &[f32]);
    /// Hadamard transform of each `width` numbers.
    elementwise::hadamard(x: &mut [f32], width: usize);
    /// Rounds to F16 in place.
    elementwise::round_f16(x: &mut [f32]);
    /// Writes `x` in F16.
    elementwise::store_f16(x: &[f32], out: &mut [F16Bytes]);
    /// Quantises activations to Q8_0: a block for each 32.
    quantizers::quantize_q8_0(x: &[f32], out: &mut [BlockQ8_0]);
    /// Quantises activations to Q8_1: a block for each 32.
    quantizers::quantize_q8_1(x: &[f32], out: &mut [BlockQ8_1]);
    /// Quantises activations to Q8_K: a block for each 256.
    quantizers::quantize_q8_k(x: &[f32], out: &mut [BlockQ8K]);
    /// Attention scores of queries with keys in F32.
    attention::scores_f32(keys: HeadRows<'_>, queries: &[&[f32]], outs: &mut [&mut [f32]]);
    /// Attention scores with keys in F16; the queries are rounded to F16.
    attention::scores_f16(keys: HeadRows<'_>, queries: &[&[f32]], outs: &mut [&mut [f32]]);
    /// Attention's weighted sums of values in F32, with probabilities for each sum.
    attention::add_values_f32(
        values: HeadRows<'_>, probabilities: &[&[f32]], outs: &mut [&mut [f32]]);
    /// Attention's weighted sums of values in F16.
    attention::add_values_f16(
        values: HeadRows<'_>, probabilities: &[&[f32]], outs: &mut [&mut [f32]]);
    /// Attention's weighted sums of values in Q8_0.
    attention::add_values_q8_0(
        values: HeadRows<'_>, probabilities: &[&[f32]], outs: &mut [&mut [f32]]);
}
