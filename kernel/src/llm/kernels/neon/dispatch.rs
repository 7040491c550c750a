//! Dispatch: chooses a panel kernel by instructions and weight type.
//!
//! [`gemv`] multiplies panels with one token's activations, as in generation. [`gemm`] multiplies
//! them with several tokens' activations, as in prefill. `quantize/packed.rs` describes a panel.

use core::arch::aarch64::uint8x16_t;

use super::isa::{DotProd, I8mm, Neon};
use super::unpack::{self, PanelBlock, Q8Block, UnpackKQuant, UnpackSimple};
use super::vectors::as_vectors;
use crate::cpu::Features;
use crate::llm::kernels::operands::{
    ActivationPanels, Activations, FORMATS_AGREE, OnPanelSums, RowSums,
};
use crate::llm::quantize::{ActivationType, BLOCK, PANEL_TOKENS, SUPER_BLOCK, WeightType};

/// The instructions in use.
#[derive(Clone, Copy, Debug)]
pub enum KernelSet {
    /// Advanced SIMD as every Armv8-A core has it.
    Neon,
    /// With `sdot`.
    DotProd(DotProd),
    /// With `sdot` and `smmla`.
    I8mm(I8mm),
}

impl KernelSet {
    /// Whether weights are to be packed into row panels.
    pub const WANTS_PANELS: bool = true;

    /// The best set that a processor with these features has.
    pub fn best(features: Features) -> KernelSet {
        KernelSet::all(features).last().unwrap_or(KernelSet::Neon)
    }

    /// All sets that a processor with these features has, the best one last.
    pub fn all(features: Features) -> impl Iterator<Item = KernelSet> {
        let dotprod = DotProd::of(features).map(KernelSet::DotProd);
        let i8mm = I8mm::of(features).map(KernelSet::I8mm);
        [Some(KernelSet::Neon), dotprod, i8mm].into_iter().flatten()
    }

    /// The set's name.
    pub fn name(self) -> &'static str {
        match self {
            KernelSet::Neon => "neon",
            KernelSet::DotProd(_) => "dotprod",
            KernelSet::I8mm(_) => "i8mm",
        }
    }
}

/// See [`n_in_panels`](crate::llm::kernels::n_in_panels).
pub fn n_in_panels(set: KernelSet, format: ActivationType, n: usize) -> usize {
    let rest = n % PANEL_TOKENS;
    match (format, set) {
        // The missing tokens of a panel cost as much as others. GEMV unpacks weights for each
        // token.
        (ActivationType::Q8_K, _) if n == 2 || rest == 1 => n - rest,
        (ActivationType::Q8_K, _) => n,
        // Without an instruction for four tokens, `gemv_together` takes fewer instructions.
        (_, KernelSet::Neon) => 0,
        _ if n >= 2 * PANEL_TOKENS => n - rest,
        _ => 0,
    }
}

/// Whether [`gemv_together`] multiplies `n` tokens in less time than [`gemv`] each of them.
///
/// It unpacks a block once for all tokens. A block of K-quants takes too many registers for that.
pub fn multiplies_together(set: KernelSet, format: ActivationType, n: usize) -> bool {
    let least = match set {
        KernelSet::Neon => 2,
        // GEMV loads activations once for two panels.
        KernelSet::DotProd(_) | KernelSet::I8mm(_) => 3,
    };
    format != ActivationType::Q8_K && n >= least
}

/// Runs an expression with the [`unpack`] type of a weight type: one of a list, or another one.
macro_rules! for_type {
    (
        $kind:expr, [$($weights:ident => $of:ident),*],
        $unpack:ident => $call:expr, $other:pat => $otherwise:expr
    ) => {
        match $kind {
            $(WeightType::$weights => {
                type $unpack = unpack::$of;
                $call
            })*
            $other => $otherwise,
        }
    };
}

/// Runs an expression with the [`unpack`] type of a weight type without super-blocks.
macro_rules! for_simple {
    ($kind:expr, $unpack:ident => $call:expr, $other:pat => $otherwise:expr) => {
        for_type!(
            $kind,
            [Q4_0 => Q4_0, Q4_1 => Q4_1, Q5_0 => Q5_0, Q5_1 => Q5_1, Q8_0 => Q8_0, IQ4_NL => Iq4Nl],
            $unpack => $call,
            $other => $otherwise
        )
    };
}

/// Runs an expression with the [`unpack`] type of a K-quant.
macro_rules! for_k_quant {
    ($kind:expr, $unpack:ident => $call:expr) => {
        for_type!(
            $kind,
            [Q2_K => Q2K, Q3_K => Q3K, Q4_K => Q4K, Q5_K => Q5K, Q6_K => Q6K],
            $unpack => $call,
            kind => unreachable!("{kind:?} has no panels")
        )
    };
}

/// GEMV: row panels times one token's activations.
///
/// `sums` is `[n_panels]`.
///
/// # Panics
/// The type has no panels, or the activations have another format than the type takes.
pub fn gemv(
    set: KernelSet,
    kind: WeightType,
    panels: &[u8],
    x: &Activations<'_>,
    sums: &mut [RowSums],
) {
    let panels = as_vectors(panels);
    for_simple!(
        kind,
        F => gemv_simple::<F>(set, panels, x, sums),
        kind => for_k_quant!(kind, F => gemv_k_quant::<F>(set, panels, x, sums))
    );
}

/// GEMV for several tokens: row panels of `columns` columns times their activations.
///
/// `sums` is scratch space for the sums of a panel: `[n_tokens]`. `on_sums` gets the sums of each
/// panel.
///
/// # Panics
/// As [`gemv`], or [`multiplies_together`] says no.
pub fn gemv_together(
    set: KernelSet,
    kind: WeightType,
    columns: usize,
    panels: &[u8],
    x: &Activations<'_>,
    sums: &mut [RowSums],
    on_sums: OnPanelSums<'_>,
) {
    let panels = as_vectors(panels);
    for_simple!(
        kind,
        F => together_simple::<F>(set, columns, panels, x, sums, on_sums),
        kind => unreachable!("{kind:?}: see `multiplies_together`")
    );
}

/// GEMM: row panels of `columns` columns times several tokens' activations.
///
/// `sums` is scratch space for the sums of a panel: `[n_tokens]`, rounded up to whole activation
/// panels. `on_sums` gets the sums of each panel.
///
/// # Panics
/// As [`gemv`].
pub fn gemm(
    set: KernelSet,
    kind: WeightType,
    columns: usize,
    panels: &[u8],
    x: &ActivationPanels<'_>,
    sums: &mut [RowSums],
    on_sums: OnPanelSums<'_>,
) {
    let panels = as_vectors(panels);
    for_simple!(
        kind,
        F => gemm_simple::<F>(set, columns, panels, x, sums, on_sums),
        kind => for_k_quant!(kind, F => gemm_k_quant::<F>(set, columns, panels, x, sums, on_sums))
    );
}

/// Calls a GEMV kernel with the instructions of a set.
macro_rules! for_one_token {
    ($set:expr, $largest:expr, $isa:ident => $call:expr) => {
        // SAFETY: this module is only built where the whole build has NEON.
        unsafe {
            match $set {
                KernelSet::Neon => {
                    let $isa = Neon { largest: $largest };
                    $call
                }
                KernelSet::DotProd($isa) | KernelSet::I8mm(I8mm { dotprod: $isa, .. }) => $call,
            }
        }
    };
}

fn gemv_simple<F: UnpackSimple>(
    set: KernelSet,
    panels: &[uint8x16_t],
    x: &Activations<'_>,
    sums: &mut [RowSums],
) {
    let (blocks, x) = (F::Block::of(panels), F::Activations::of(x));
    if F::HAS_NIBBLES && matches!(set, KernelSet::Neon) {
        // SAFETY: this module is only built where the whole build has NEON.
        return unsafe { super::gemv::nibble_panels::<F>(blocks, x, sums) };
    }
    for_one_token!(set, F::LARGEST, isa => super::gemv::simple_panels::<_, F>(isa, blocks, x, sums));
}

fn together_simple<F: UnpackSimple>(
    set: KernelSet,
    columns: usize,
    panels: &[uint8x16_t],
    x: &Activations<'_>,
    sums: &mut [RowSums],
    on_sums: OnPanelSums<'_>,
) {
    let panels = F::Block::of(panels).chunks_exact(columns / BLOCK);
    let x = F::Activations::of(x);
    for_one_token!(set, F::LARGEST, isa => {
        super::gemv::several_tokens::<_, F>(isa, panels, x, sums, on_sums)
    });
}

fn gemm_simple<F: UnpackSimple>(
    set: KernelSet,
    columns: usize,
    panels: &[uint8x16_t],
    x: &ActivationPanels<'_>,
    sums: &mut [RowSums],
    on_sums: OnPanelSums<'_>,
) {
    let panels = F::Block::of(panels).chunks_exact(columns / BLOCK);
    let x = F::Activations::panels(x);
    // SAFETY: this module is only built where the whole build has NEON.
    unsafe {
        match set {
            KernelSet::Neon => unreachable!("GEMV takes all tokens: see `n_in_panels`"),
            KernelSet::DotProd(isa) => {
                super::gemm::gemm_simple::<_, F>(isa, panels, x, sums, on_sums)
            }
            KernelSet::I8mm(isa) => super::gemm::gemm_simple::<_, F>(isa, panels, x, sums, on_sums),
        }
    }
}

fn gemv_k_quant<F: UnpackKQuant>(
    set: KernelSet,
    panels: &[uint8x16_t],
    x: &Activations<'_>,
    sums: &mut [RowSums],
) {
    let Activations::Q8K(x) = *x else { unreachable!("{FORMATS_AGREE}") };
    let blocks = F::Block::of(panels);
    for_one_token!(set, F::LARGEST, isa => super::gemv::gemv_k_quant::<_, F>(isa, blocks, x, sums));
}

fn gemm_k_quant<F: UnpackKQuant>(
    set: KernelSet,
    columns: usize,
    panels: &[uint8x16_t],
    x: &ActivationPanels<'_>,
    sums: &mut [RowSums],
    on_sums: OnPanelSums<'_>,
) {
    let panels = F::Block::of(panels).chunks_exact(columns / SUPER_BLOCK);
    let ActivationPanels::Q8K(x) = *x else { unreachable!("{FORMATS_AGREE}") };
    // SAFETY: this module is only built where the whole build has NEON.
    unsafe {
        match set {
            KernelSet::Neon => {
                let isa = Neon { largest: F::LARGEST };
                super::gemm::gemm_k_quant::<_, F>(isa, panels, x, sums, on_sums)
            }
            KernelSet::DotProd(isa) => {
                super::gemm::gemm_k_quant::<_, F>(isa, panels, x, sums, on_sums)
            }
            KernelSet::I8mm(isa) => {
                super::gemm::gemm_k_quant::<_, F>(isa, panels, x, sums, on_sums)
            }
        }
    }
}
