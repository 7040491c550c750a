//! Faults of the container. Cases from llama.cpp's `tests/test-gguf.cpp` have the names used there.

use kernel::llm::gguf::{ALIGNMENT_KEY, TensorType, ValueType};

use super::file::{At, Entry, File, array, scalar, string, strings};
use super::{Fault, NotAModel, Parse, Sound, fault, model, try_all};

/// A key of the model, and a key that no model has.
const KEY: &str = "llama.block_count";
const NEW: &str = "new";
/// Tensors of the model: the first, the second, the last, and one in between.
const FIRST: &str = "output_norm.weight";
const SECOND: &str = "rope_freqs.weight";
const LAST: &str = "blk.1.ffn_up.weight";
const MATRIX: &str = "token_embd.weight";

/// A name of 64 bytes.
const LONG: &str = "a name that no tensor of ggml's may have because of 64 bytes....";

/// Neither a length nor a place.
const WILD: u64 = u64::MAX;

fn entry<'f>(f: &'f mut File, key: &str) -> &'f mut Entry {
    f.entries.iter_mut().find(|entry| entry.key == key.as_bytes()).unwrap()
}

/// Adds an array whose length field is `len`.
fn claim(f: &mut File, kind: ValueType, len: u64) {
    f.set(NEW, array(kind, len, &[0; 8]));
}

/// Gives a tensor a shape that the file has no data for.
fn stretch(f: &mut File, name: &str, kind: TensorType, dims: &[u64]) {
    let tensor = f.tensor(name);
    (tensor.kind, tensor.dims) = (kind.id, dims.to_vec());
}

const HEADER: &[Fault] = &[
    fault("HEADER_BAD_MAGIC", |f| f.magic = *b"FUGG", Parse("no GGUF file", At::Byte(0))),
    fault(
        "an unknown file",
        |f| f.magic = *b"\xCA\xFE\x03\x04",
        Parse("[ca, fe, 03, 04]", At::Byte(0)),
    ),
    fault("a ZIP file", |f| f.magic = *b"PK\x03\x04", NotAModel("the file is a ZIP archive")),
    fault("a GGML file", |f| f.magic = *b"tjgg", NotAModel("the file is a GGML file (ggjt)")),
    fault("HEADER_BAD_VERSION_0", |f| f.version = 0, Parse("GGUF version 0;", At::Byte(4))),
    fault("HEADER_BAD_VERSION_1", |f| f.version = 1, Parse("GGUF version 1;", At::Byte(4))),
    fault("HEADER_BAD_VERSION_FUTURE", |f| f.version = 4, Parse("GGUF version 4;", At::Byte(4))),
    fault(
        "a big-endian file",
        |f| f.version = 3_u32.swap_bytes(),
        Parse("big-endian file (version 3)", At::Byte(4)),
    ),
    fault(
        "HEADER_BAD_N_TENSORS",
        |f| f.n_tensors = Some(WILD),
        Parse("the number of tensors is 18446744073709551615", At::Byte(8)),
    ),
    fault(
        "tensors whose descriptions wrap",
        |f| f.n_tensors = Some(WILD / 24 + 1),
        Parse("the number of tensors is 768614336404564651", At::Byte(8)),
    ),
    fault(
        "HEADER_BAD_N_KV",
        |f| f.n_entries = Some(WILD),
        Parse("the number of keys is 18446744073709551615", At::Byte(16)),
    ),
    fault(
        "keys whose entries wrap",
        |f| f.n_entries = Some(WILD / 14 + 1),
        Parse("the number of keys is 1317624576693539402", At::Byte(16)),
    ),
    fault(
        "HEADER_EMPTY",
        |f| {
            f.entries.clear();
            f.tensors.clear();
        },
        Parse("the key `general.architecture` is missing", At::Byte(24)),
    ),
];

const KEYS: &[Fault] = &[
    fault(
        "KV_BAD_KEY_SIZE",
        |f| entry(f, KEY).key_len = Some(WILD),
        Parse("a key is 18446744073709551615 bytes long", At::Key(KEY)),
    ),
    fault(
        "a key longer than the file",
        |f| f.entries[0].key_len = Some(1 << 30),
        Parse("the file ends inside a key: 1073741824 bytes needed", At::Byte(32)),
    ),
    fault("KV_EMPTY_KEY", |f| f.set("", string(b"")), Parse("a key is empty", At::Key(""))),
    fault(
        "a key that is no UTF-8",
        |f| f.entries[0].key[3] = 0xff,
        Parse("a key is no UTF-8", At::Byte(24)),
    ),
    fault(
        "KV_BAD_TYPE",
        |f| f.value(KEY)[0] = 13,
        Parse("the type of `llama.block_count` is 13", At::Value(KEY, 0)),
    ),
    fault(
        "a type of no sign",
        |f| f.value(KEY)[3] = 0x80,
        Parse("the type of `llama.block_count` is 2147483652", At::Value(KEY, 0)),
    ),
    fault(
        "KV_BAD_VALUE_SIZE",
        |f| f.set(NEW, scalar(ValueType::String, &WILD.to_le_bytes())),
        Parse("a value is 18446744073709551615 bytes long", At::Value(NEW, 4)),
    ),
    fault(
        "a text longer than the file",
        |f| f.set(NEW, scalar(ValueType::String, &(1_u64 << 29).to_le_bytes())),
        Parse("the file ends inside a value: 536870912 bytes needed", At::Value(NEW, 12)),
    ),
    fault(
        "an array of arrays",
        |f| claim(f, ValueType::Array, 0),
        Parse("`new` is an array of type 9, which cannot be in one", At::Value(NEW, 4)),
    ),
    fault(
        "an array of an unknown type",
        |f| f.value("tokenizer.ggml.scores")[4] = 13,
        Parse("is an array of type 13", At::Value("tokenizer.ggml.scores", 4)),
    ),
    fault(
        "an array of 2^63 texts",
        |f| claim(f, ValueType::String, 1 << 63),
        Parse("an array's length is 9223372036854775808", At::Value(NEW, 8)),
    ),
    fault(
        "an array of bytes longer than the file",
        |f| claim(f, ValueType::U8, 1 << 40),
        Parse("an array's length is 1099511627776", At::Value(NEW, 8)),
    ),
    fault(
        "an array whose bytes wrap",
        |f| claim(f, ValueType::F64, (1 << 61) + 1),
        Parse("an array's length is 2305843009213693953", At::Value(NEW, 8)),
    ),
    fault(
        "a text in an array longer than the file",
        |f| f.set(NEW, array(ValueType::String, 1, &(1_u64 << 40).to_le_bytes())),
        Parse("a string in an array is 1099511627776 bytes long", At::Value(NEW, 16)),
    ),
    fault(
        "KV_DUPLICATE_KEY",
        |f| f.entries.push(f.entries[2].clone()),
        Parse("the key `llama.context_length` appears twice", At::Key("llama.context_length")),
    ),
    fault(
        "KV_BAD_ALIGN",
        |f| f.set_u32(ALIGNMENT_KEY, 13),
        Parse("must be a power of two (u32) but is 13", At::Value(ALIGNMENT_KEY, 0)),
    ),
    fault(
        "an alignment of 0",
        |f| f.set_u32(ALIGNMENT_KEY, 0),
        Parse("must be a power of two (u32) but is 0", At::Value(ALIGNMENT_KEY, 0)),
    ),
    fault(
        "KV_WRONG_TYPE_ALIGN",
        |f| f.set(ALIGNMENT_KEY, scalar(ValueType::I32, &32_u32.to_le_bytes())),
        Parse("must be a power of two (u32) but is 32", At::Value(ALIGNMENT_KEY, 0)),
    ),
    fault(
        "an alignment of 2^31",
        |f| f.set_u32(ALIGNMENT_KEY, 1 << 31),
        Parse(
            "the file ends inside the data of `output_norm.weight`: 256 bytes from byte 2147483648",
            At::Tensor(FIRST),
        ),
    ),
];

const TENSORS: &[Fault] = &[
    fault(
        "TENSORS_BAD_NAME_SIZE",
        |f| f.tensors.last_mut().unwrap().name = LONG.into(),
        Parse("a tensor's name is 64 bytes long, the limit is 63", At::Tensor(LONG)),
    ),
    fault(
        "a name longer than any",
        |f| f.tensor(MATRIX).name_len = Some(WILD),
        Parse("a tensor's name is 18446744073709551615 bytes long", At::Tensor(MATRIX)),
    ),
    fault(
        "TENSORS_BAD_N_DIMS",
        |f| f.tensor(FIRST).n_dims = Some(5),
        Parse("`output_norm.weight` has 5 dimensions, the limit is 4", At::Dims(FIRST)),
    ),
    fault(
        "2^32 - 1 dimensions",
        |f| f.tensor(FIRST).n_dims = Some(u32::MAX),
        Parse("`output_norm.weight` has 4294967295 dimensions", At::Dims(FIRST)),
    ),
    fault(
        "TENSORS_BAD_SHAPE",
        |f| f.tensor(FIRST).dims[0] = WILD,
        Parse("`output_norm.weight` has too many weights to count", At::Dim(FIRST, 0)),
    ),
    fault(
        "TENSORS_ZERO_DIM",
        |f| f.tensor(MATRIX).dims[1] = 0,
        Parse("`token_embd.weight` has a dimension of 0", At::Dim(MATRIX, 1)),
    ),
    fault(
        "TENSORS_NE_TOO_BIG",
        |f| stretch(f, MATRIX, TensorType::F32, &[4 * i32::MAX as u64; 2]),
        Parse("`token_embd.weight` has too many weights to count", At::Dim(MATRIX, 1)),
    ),
    fault(
        "TENSORS_NBYTES_TOO_BIG",
        |f| stretch(f, MATRIX, TensorType::I64, &[1 << 31; 2]),
        Parse("the size of `token_embd.weight` in bytes overflows", At::Dims(MATRIX)),
    ),
    fault(
        "TENSORS_NBYTES_PAD_WRAP",
        |f| stretch(f, LAST, TensorType::F32, &[4, (1 << 30) - 1, (1 << 30) + 1]),
        Parse("the file ends inside the data of `blk.1.ffn_up.weight`", At::Tensor(LAST)),
    ),
    fault(
        "TENSORS_BAD_TYPE",
        |f| f.tensor(MATRIX).kind = 43,
        Parse("`token_embd.weight` is of type 43, which does not exist", At::Type(MATRIX)),
    ),
    fault(
        "a type that ggml has removed",
        |f| f.tensor(MATRIX).kind = 4,
        Parse("`token_embd.weight` is of type 4, which was removed", At::Type(MATRIX)),
    ),
    fault(
        "rows of no whole number of blocks",
        |f| stretch(f, MATRIX, TensorType::Q6_K, &[128, 22]),
        Parse("a row of `token_embd.weight` has 128 weights, no whole number", At::Dims(MATRIX)),
    ),
    fault(
        "TENSORS_BAD_OFFSET",
        |f| f.tensor(SECOND).offset = Some(WILD),
        Parse("the data of `rope_freqs.weight` is at 18446744073709551615", At::Tensor(SECOND)),
    ),
    fault(
        "tensors that overlap",
        |f| f.tensor(SECOND).offset = Some(224),
        Parse("the data of `rope_freqs.weight` is at 224, expected at 256", At::Tensor(SECOND)),
    ),
    fault(
        "a tensor that is not aligned",
        |f| f.tensor(SECOND).offset = Some(257),
        Parse("the data of `rope_freqs.weight` is at 257, expected at 256", At::Tensor(SECOND)),
    ),
    fault(
        "a gap between tensors",
        |f| f.tensor(SECOND).offset = Some(288),
        Parse("the data of `rope_freqs.weight` is at 288, expected at 256", At::Tensor(SECOND)),
    ),
    fault(
        "TENSORS_DUPLICATE_NAME",
        |f| f.tensors.push(f.tensors[0].clone()),
        Parse("the tensor `output_norm.weight` appears twice", At::Tensor(FIRST)),
    ),
    fault(
        "TENSORS_INCONSISTENT_ALIGN",
        |f| f.set_u32(ALIGNMENT_KEY, 128),
        Parse("is at 288, expected at 384", At::Tensor(MATRIX)),
    ),
    fault(
        "a tensor longer than the file",
        |f| stretch(f, LAST, TensorType::Q4_0, &[64, 1 << 50]),
        Parse("the file ends inside the data of `blk.1.ffn_up.weight`", At::Tensor(LAST)),
    ),
    fault(
        "DATA_NOT_ENOUGH_DATA",
        |f| f.tensor(LAST).data.truncate(3455),
        Parse("the file ends inside the data of `blk.1.ffn_up.weight`", At::Tensor(LAST)),
    ),
    fault(
        "DATA_MEM_SIZE_OVERFLOW",
        |f| {
            for name in [FIRST, SECOND] {
                stretch(f, name, TensorType::I8, &[0x7fff_ffff_ffff_ffc0]);
            }
        },
        Parse("the file ends inside the data of `output_norm.weight`", At::Tensor(FIRST)),
    ),
    fault(
        "a tensor whose end wraps",
        |f| stretch(f, FIRST, TensorType::F16, &[i64::MAX as u64 - 1]),
        Parse("the file ends inside the data of `output_norm.weight`", At::Tensor(FIRST)),
    ),
];

/// Files that look odd and are sound.
const SOUND: &[Fault] = &[
    fault("version 2", |f| f.version = 2, Sound),
    fault("KV_SUCCESS: keys that nobody reads", |f| f.set(NEW, strings(&["", "a", "ab"])), Sound),
    fault("an empty array", |f| f.set(NEW, strings::<&str>(&[])), Sound),
    fault("a text that is no UTF-8", |f| f.set(NEW, string(b"\xff\x1e\0")), Sound),
    fault("DATA_CUSTOM_ALIGN", |f| align(f, 1), Sound),
    fault("an alignment of 4096", |f| align(f, 4096), Sound),
    fault("bytes after the last tensor", |f| f.tensor(LAST).data.extend([7; 97]), Sound),
];

fn align(f: &mut File, alignment: u32) {
    f.alignment = alignment as usize;
    f.set_u32(ALIGNMENT_KEY, alignment);
}

#[test]
fn faults_of_the_container_are_named() {
    for faults in [HEADER, KEYS, TENSORS, SOUND] {
        try_all(&model("llama"), faults);
    }
}
