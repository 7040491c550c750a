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

    /// Size of one value in bytes; of strings the least, their length; `None` for arrays.
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

const fn kind(id: u32, name: &'static str, block_weights: u64, block_bytes: u64) -> TensorType {
    TensorType { id, name, block_weights, block_bytes }
}

impl TensorType {
    /// 32-bit floating point.
    pub const F32: TensorType = kind(0, "F32", 1, 4);
    /// 16-bit floating point.
    pub const F16: TensorType = kind(1, "F16", 1, 2);
    /// 4-bit weights with one scale for 32.
    pub const Q4_0: TensorType = kind(2, "Q4_0", 32, 18);
    /// 8-bit weights with one scale for 32.
    pub const Q8_0: TensorType = kind(8, "Q8_0", 32, 34);
    /// 6-bit weights with one scale for 16 and one for 256.
    pub const Q6_K: TensorType = kind(14, "Q6_K", 256, 210);

    /// Every type that ggml has. The numbers that are missing are of types it has removed.
    pub const ALL: [TensorType; 35] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::Q4_0,
        kind(3, "Q4_1", 32, 20),
        kind(6, "Q5_0", 32, 22),
        kind(7, "Q5_1", 32, 24),
        TensorType::Q8_0,
        kind(9, "Q8_1", 32, 36),
        kind(10, "Q2_K", 256, 84),
        kind(11, "Q3_K", 256, 110),
        kind(12, "Q4_K", 256, 144),
        kind(13, "Q5_K", 256, 176),
        TensorType::Q6_K,
        kind(15, "Q8_K", 256, 292),
        kind(16, "IQ2_XXS", 256, 66),
        kind(17, "IQ2_XS", 256, 74),
        kind(18, "IQ3_XXS", 256, 98),
        kind(19, "IQ1_S", 256, 50),
        kind(20, "IQ4_NL", 32, 18),
        kind(21, "IQ3_S", 256, 110),
        kind(22, "IQ2_S", 256, 82),
        kind(23, "IQ4_XS", 256, 136),
        kind(24, "I8", 1, 1),
        kind(25, "I16", 1, 2),
        kind(26, "I32", 1, 4),
        kind(27, "I64", 1, 8),
        kind(28, "F64", 1, 8),
        kind(29, "IQ1_M", 256, 56),
        kind(30, "BF16", 1, 2),
        kind(34, "TQ1_0", 256, 54),
        kind(35, "TQ2_0", 256, 66),
        kind(39, "MXFP4", 32, 17),
        kind(40, "NVFP4", 64, 36),
        kind(41, "Q1_0", 128, 18),
        kind(42, "Q2_0", 64, 18),
    ];

    /// The type of this number.
    pub fn from_id(id: u32) -> Option<Self> {
        TensorType::ALL.iter().find(|kind| kind.id == id).copied()
    }

    /// Whether ggml once had a type of this number and removed it.
    pub fn is_removed(id: u32) -> bool {
        matches!(id, 4 | 5 | 31..=33 | 36..=38)
    }

    /// Size in bytes of `weights` weights; `None` if they are no whole number of blocks or the
    /// size overflows.
    pub fn size_of(self, weights: u64) -> Option<u64> {
        if !weights.is_multiple_of(self.block_weights) {
            return None;
        }
        (weights / self.block_weights).checked_mul(self.block_bytes)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
