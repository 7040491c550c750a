//! The operands of the kernels: rows of weights, and activations of tokens.

#![forbid(unsafe_code)]

use core::ops::Range;

use crate::llm::quantize::{
    ActivationType, BLOCK, BlockQ8_0, BlockQ8_0x4, BlockQ8_1, BlockQ8_1x4, BlockQ8K, BlockQ8Kx4,
    PANEL_ROWS, SUPER_BLOCK, WeightType,
};

/// Tokens that are multiplied with the same weights at once, at most.
pub const BATCH: usize = 32;

/// The dot products of a row panel with one token's activations.
pub type RowSums = [f32; PANEL_ROWS];

/// Gets the number of a row panel, and the sums of each token.
pub type OnPanelSums<'a> = &'a mut dyn FnMut(usize, &[RowSums]);

/// Why a kernel never meets activations in another format than its weights take.
pub const FORMATS_AGREE: &str = "the caller has compared the formats";

/// Neighbouring rows of a weight matrix.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The format of the weights.
    pub kind: WeightType,
    /// Weights of a row.
    pub columns: usize,
    /// The rows, one after the other, or packed.
    pub bytes: &'a [u8],
    /// Whether each eight of the rows are packed into a panel; a remainder never is.
    pub packed: bool,
}

impl<'a> Rows<'a> {
    /// The panels, and the rows in the file's layout.
    pub fn split(&self) -> (&'a [u8], &'a [u8]) {
        let panel_bytes = PANEL_ROWS * self.row_bytes();
        let packed = if self.packed { self.bytes.len() / panel_bytes * panel_bytes } else { 0 };
        self.bytes.split_at(packed)
    }

    /// Size of a row in bytes.
    pub fn row_bytes(&self) -> usize {
        self.kind.row_bytes(self.columns)
    }
}

/// The activations of several tokens: `[n, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Tokens: 1 to [`BATCH`].
    pub n: usize,
    /// The activations, one token after the other.
    pub x: Activations<'a>,
    /// The activations of the first tokens in panels of four tokens, for GEMM.
    pub panels: ActivationPanels<'a>,
}

/// Activation panels, four tokens interleaved.
///
/// `[n_tokens / 4, n_blocks]`, rounded up, for the tokens of [`n_in_panels`](super::n_in_panels).
#[derive(Clone, Copy, Debug)]
pub enum ActivationPanels<'a> {
    /// No panels: there are few tokens, or the weights are not packed.
    None,
    /// Panels of [`Activations::Q8_0`].
    Q8_0(&'a [BlockQ8_0x4]),
    /// Panels of [`Activations::Q8_1`].
    Q8_1(&'a [BlockQ8_1x4]),
    /// Panels of [`Activations::Q8K`].
    Q8K(&'a [BlockQ8Kx4]),
}

impl<'a> Batch<'a> {
    /// The activations of one token.
    pub fn one(x: Activations<'a>) -> Self {
        Batch { n: 1, x, panels: ActivationPanels::None }
    }

    /// The activations of token `token`.
    pub fn token(&self, token: usize) -> Activations<'a> {
        let len = self.x.len() / self.n;
        self.x.part(token * len..(token + 1) * len)
    }
}

/// Activations in the format that a type of weights is multiplied with.
#[derive(Clone, Copy, Debug)]
pub enum Activations<'a> {
    /// F32, for weights in F32.
    F32(&'a [f32]),
    /// Rounded to F16, for weights in F16.
    F16(&'a [f32]),
    /// Rounded to BF16, for weights in BF16.
    BF16(&'a [f32]),
    /// For weights in blocks of 32 without an offset.
    Q8_0(&'a [BlockQ8_0]),
    /// For weights in blocks of 32 with an offset.
    Q8_1(&'a [BlockQ8_1]),
    /// For weights in blocks of 256.
    Q8K(&'a [BlockQ8K]),
}

impl<'a> Activations<'a> {
    /// The activations in `range`, which must be whole blocks.
    pub fn part(&self, range: Range<usize>) -> Activations<'a> {
        let blocks = |n: usize| {
            debug_assert!(range.start.is_multiple_of(n) && range.end.is_multiple_of(n));
            range.start / n..range.end / n
        };
        match *self {
            Activations::F32(x) => Activations::F32(&x[range]),
            Activations::F16(x) => Activations::F16(&x[range]),
            Activations::BF16(x) => Activations::BF16(&x[range]),
            Activations::Q8_0(x) => Activations::Q8_0(&x[blocks(BLOCK)]),
            Activations::Q8_1(x) => Activations::Q8_1(&x[blocks(BLOCK)]),
            Activations::Q8K(x) => Activations::Q8K(&x[blocks(SUPER_BLOCK)]),
        }
    }

    /// Number of activations.
    pub fn len(&self) -> usize {
        match self {
            Activations::F32(x) | Activations::F16(x) | Activations::BF16(x) => x.len(),
            Activations::Q8_0(x) => x.len() * BLOCK,
            Activations::Q8_1(x) => x.len() * BLOCK,
            Activations::Q8K(x) => x.len() * SUPER_BLOCK,
        }
    }

    /// Whether there are no activations.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The format of the activations.
    pub fn kind(&self) -> ActivationType {
        match self {
            Activations::F32(_) => ActivationType::F32,
            Activations::F16(_) => ActivationType::F16,
            Activations::BF16(_) => ActivationType::BF16,
            Activations::Q8_0(_) => ActivationType::Q8_0,
            Activations::Q8_1(_) => ActivationType::Q8_1,
            Activations::Q8K(_) => ActivationType::Q8_K,
        }
    }
}

/// Where dot products go: `[n_tokens, n_rows]`.
pub trait OutputRows {
    /// The row of each token: `[n_rows]`.
    fn of_tokens(&mut self) -> impl Iterator<Item = &mut [f32]>;
}
