//! The portable kernels as a kernel set, for machines without vector kernels.

#![forbid(unsafe_code)]

use alloc::vec::Vec;

use super::operands::{ActivationPanels, Activations, OnPanelSums, RowSums};
use super::scalar::Dot;
use crate::cpu::Features;
use crate::llm::quantize::{ActivationType, PANEL_ROWS, Row, WeightType, interleave_units};

pub use super::scalar::{Vector, dot};
pub use crate::llm::quantize::interleave_tokens;

/// The portable kernels are one set.
#[derive(Clone, Copy, Debug)]
pub struct KernelSet;

impl KernelSet {
    /// The portable kernels take rows in the file's layout.
    pub const WANTS_PANELS: bool = false;

    /// The only set.
    pub fn all(_: Features) -> impl Iterator<Item = KernelSet> {
        core::iter::once(KernelSet)
    }

    /// The only set.
    pub fn best(_: Features) -> KernelSet {
        KernelSet
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        "scalar"
    }
}

/// GEMV: row panels times one token's activations. `sums` is `[n_panels]`.
pub fn gemv(
    _: KernelSet,
    kind: WeightType,
    panels: &[u8],
    x: &Activations<'_>,
    sums: &mut [RowSums],
) {
    let panel_bytes = PANEL_ROWS * kind.row_bytes(x.len());
    for (panel, sums) in panels.chunks_exact(panel_bytes).zip(sums) {
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = kind.visit(Dot { row: Row::of_panel(kind, panel, row), x });
        }
    }
}

/// Tokens are taken without activation panels.
pub fn n_in_panels(_: KernelSet, _: ActivationType, _: usize) -> usize {
    0
}

/// Tokens are taken one by one.
pub fn multiplies_together(_: KernelSet, _: ActivationType, _: usize) -> bool {
    false
}

/// GEMV for several tokens: never called, see [`multiplies_together`].
pub fn gemv_together(
    _: KernelSet,
    _: WeightType,
    _: usize,
    _: &[u8],
    _: &Activations<'_>,
    _: &mut [RowSums],
    _: OnPanelSums<'_>,
) {
    unreachable!("tokens are taken one by one")
}

/// GEMM: never called, see [`n_in_panels`].
pub fn gemm(
    _: KernelSet,
    _: WeightType,
    _: usize,
    _: &[u8],
    _: &ActivationPanels<'_>,
    _: &mut [RowSums],
    _: OnPanelSums<'_>,
) {
    unreachable!("tokens are taken one by one")
}

/// Copies the sums of a panel.
pub fn copy_sums(sums: &RowSums, out: &mut RowSums) {
    *out = *sums;
}

/// Packs eight rows into a row panel.
pub fn pack_panel(kind: WeightType, rows: &mut [u8], copy: &mut Vec<u8>) {
    kind.pack_panel(rows, copy, interleave_units::<4>);
}
