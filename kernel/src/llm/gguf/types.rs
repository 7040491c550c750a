//! The types of metadata values and of tensors, by their numbers in the file.

use core::fmt;

/// Type of a metadata value, with its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the variants are the format's types")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// The type of this number.
    pub fn from_id(id: u32) -> Option<Self> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
            .get(usize::try_from(id).ok()?)
            .copied()
    }

    /// Size of one value in bytes; `None` for arrays.
    ///
    /// For strings the least size: the length.
    pub fn size(self) -> Option<u64> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 | String => Some(8),
            Array => None,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ValueType::*;
        f.write_str(match self {
            U8 => "u8",
            I8 => "i8",
            U16 => "u16",
            I16 => "i16",
            U32 => "u32",
            I32 => "i32",
            F32 => "f32",
            Bool => "bool",
            String => "strings",
            Array => "arrays",
            U64 => "u64",
            I64 => "i64",
            F64 => "f64",
        })
    }
}

/// Type of a tensor's weights: they come in blocks of a fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Its number in the file (`ggml_type`).
    pub id: u32,
    /// Its name ("Q4_0").
    pub name: &'static str,
    /// Weights in a block.
    pub block_weights: u64,
    /// Bytes in a block.
    pub block_bytes: u64,
}

/// Makes a constant of each type, and the list of them.
macro_rules! tensor_types {
    ($($name:ident = $id:literal: $weights:literal in $bytes:literal,)*) => {
        impl TensorType {
            $(
                #[doc = concat!("`", stringify!($name), "`: weights in a block, bytes of it: ",
                    stringify!($weights), ", ", stringify!($bytes), ".")]
                pub const $name: TensorType = TensorType {
                    id: $id,
                    name: stringify!($name),
                    block_weights: $weights,
                    block_bytes: $bytes,
                };
            )*

            /// Every type that ggml has. The numbers that are missing are of types it has removed.
            pub const ALL: &[TensorType] = &[$(TensorType::$name),*];
        }
    };
}

tensor_types! {
    F32 = 0: 1 in 4,
    F16 = 1: 1 in 2,
    Q4_0 = 2: 32 in 18,
    Q4_1 = 3: 32 in 20,
    Q5_0 = 6: 32 in 22,
    Q5_1 = 7: 32 in 24,
    Q8_0 = 8: 32 in 34,
    Q8_1 = 9: 32 in 36,
    Q2_K = 10: 256 in 84,
    Q3_K = 11: 256 in 110,
    Q4_K = 12: 256 in 144,
    Q5_K = 13: 256 in 176,
    Q6_K = 14: 256 in 210,
    Q8_K = 15: 256 in 292,
    IQ2_XXS = 16: 256 in 66,
    IQ2_XS = 17: 256 in 74,
    IQ3_XXS = 18: 256 in 98,
    IQ1_S = 19: 256 in 50,
    IQ4_NL = 20: 32 in 18,
    IQ3_S = 21: 256 in 110,
    IQ2_S = 22: 256 in 82,
    IQ4_XS = 23: 256 in 136,
    I8 = 24: 1 in 1,
    I16 = 25: 1 in 2,
    I32 = 26: 1 in 4,
    I64 = 27: 1 in 8,
    F64 = 28: 1 in 8,
    IQ1_M = 29: 256 in 56,
    BF16 = 30: 1 in 2,
    TQ1_0 = 34: 256 in 54,
    TQ2_0 = 35: 256 in 66,
    MXFP4 = 39: 32 in 17,
    NVFP4 = 40: 64 in 36,
    Q1_0 = 41: 128 in 18,
    Q2_0 = 42: 64 in 18,
}

impl TensorType {
    /// The type of this number.
    pub fn from_id(id: u32) -> Option<Self> {
        TensorType::ALL.iter().find(|kind| kind.id == id).copied()
    }

    /// Whether ggml once had a type of this number and removed it.
    pub fn is_removed(id: u32) -> bool {
        matches!(id, 4 | 5 | 31..=33 | 36..=38)
    }

    /// Size in bytes of `weights` weights.
    ///
    /// `None` if `weights` is no whole number of blocks, or the size overflows.
    pub fn size_of(self, weights: u64) -> Option<u64> {
        if !weights.is_multiple_of(self.block_weights) {
            return None;
        }
        weights.checked_div(self.block_weights)?.checked_mul(self.block_bytes)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
