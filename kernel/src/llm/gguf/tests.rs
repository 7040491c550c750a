use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::write::{Builder, put_string};
use super::*;

/// Bytes written one field at a time, for files that the builder would not write.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn header(n_tensors: u64, n_entries: u64) -> Raw {
        Raw(MAGIC.to_vec()).u32(3).u64(n_tensors).u64(n_entries)
    }

    fn u32(mut self, n: u32) -> Raw {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u64(mut self, n: u64) -> Raw {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn text(mut self, text: &str) -> Raw {
        put_string(&mut self.0, text.as_bytes());
        self
    }

    fn zeros(mut self, n: usize) -> Raw {
        self.0.resize(self.0.len() + n, 0);
        self
    }

    /// A tensor's description.
    fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Raw {
        let start = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(start, |raw, &dim| raw.u64(dim)).u32(kind).u64(offset)
    }
}

/// The message for a file that must be refused, with the place.
fn refusal(bytes: &[u8]) -> (String, u64) {
    match Gguf::parse(bytes) {
        Err(Error::ParseError { what, at }) => (what, at),
        other => panic!("expected a parse error, got {other:?}"),
    }
}

#[track_caller]
fn refused(raw: Raw, at: u64, words: &str) {
    let (what, place) = refusal(&raw.0);
    assert!(what.contains(words), "{what:?} does not say {words:?}");
    assert_eq!(place, at, "{what}");
}

fn sample() -> Builder {
    Builder::new()
        .u32("a.number", 7)
        .f32("a.float", 0.5)
        .bool("a.bool", true)
        .string("a.text", "Grüße")
        .strings("some.texts", &["one", "", "three"])
        .f32s("some.floats", &[1.0, -2.0])
        .i32s("some.ints", &[3, -4, 5])
        .tensor("q", &[64, 3], TensorType::Q4_0, (0..108).collect())
        .tensor_f32("norm", &[5], &[1.0, 2.0, 3.0, 4.0, 5.0])
}

#[test]
fn a_sound_file_reads_back() {
    for version in [2, 3] {
        let bytes = sample().version(version).build();
        let gguf = Gguf::parse(&bytes).unwrap();
        assert_eq!(gguf.version(), version);
        assert_eq!(gguf.unsigned("a.number"), Ok(Some(7)));
        assert_eq!(gguf.float("a.float"), Ok(Some(0.5)));
        assert_eq!(gguf.boolean("a.bool"), Ok(Some(true)));
        assert_eq!(gguf.string("a.text"), Ok(Some("Grüße")));
        assert_eq!(gguf.string("absent"), Ok(None));
        let texts = gguf.array("some.texts", ValueType::String).unwrap().unwrap();
        let read: Vec<_> = texts.strings().map(|(text, at)| (text, bytes[at as usize])).collect();
        assert_eq!(read, [(&b"one"[..], 3), (b"", 0), (b"three", 5)]);
        let floats = gguf.array("some.floats", ValueType::F32).unwrap().unwrap();
        assert_eq!(floats.f32s().collect::<Vec<_>>(), [1.0, -2.0]);
        let ints = gguf.array("some.ints", ValueType::I32).unwrap().unwrap();
        assert_eq!(ints.i32s().collect::<Vec<_>>(), [3, -4, 5]);
        assert_eq!(ints.numbers().collect::<Vec<_>>(), [3.0, -4.0, 5.0]);
        assert_eq!(floats.numbers().collect::<Vec<_>>(), [1.0, -2.0]);
        assert_eq!(texts.numbers().count(), 0);
        assert_eq!(ints.f32s().count(), 0);

        let q = gguf.tensor("q").unwrap();
        assert_eq!((q.dims, q.n_dims, q.kind), ([64, 3, 1, 1], 2, TensorType::Q4_0));
        assert_eq!(gguf.data(q).unwrap(), (0..108).collect::<Vec<u8>>());
        let norm = gguf.tensor("norm").unwrap();
        assert_eq!((norm.offset, norm.size, norm.elements()), (128, 20, 5));
        assert_eq!(gguf.data(norm).unwrap()[16..], 5_f32.to_le_bytes());
    }
}

#[test]
fn an_empty_file_and_one_with_alignment_1_are_sound() {
    Gguf::parse(&Raw::header(0, 0).0).unwrap();
    let bytes = sample().alignment(1).build();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.alignment(), 1);
    assert_eq!(gguf.tensor("norm").unwrap().offset, 108);
}

#[test]
fn a_header_can_be_judged_before_its_data_is_there() {
    let bytes = sample().build();
    let whole = Gguf::parse(&bytes).unwrap();
    let prefix = &bytes[..whole.data_offset() as usize];
    let gguf = Gguf::parse_header(prefix, bytes.len() as u64).unwrap();
    assert_eq!(gguf.tensors().len(), 2);
    assert!(gguf.data(&gguf.tensors()[0]).is_none());
    let (what, _) = refusal(prefix);
    assert!(what.contains("file ends inside the data of `q`"), "{what}");
    for cut in [0, 3, 23, 50, prefix.len() - 32] {
        let error = Gguf::parse_header(&bytes[..cut], 1 << 20).unwrap_err();
        let Error::HeaderCutShort { needed } = error else { panic!("{cut}: {error}") };
        assert!((cut + 1..=prefix.len()).contains(&(needed as usize)), "{cut}: {needed}");
    }
    // A fault of the file is one, however little of it is there.
    let error = Gguf::parse_header(b"\xCA\xFE\0\0", 1 << 20).unwrap_err();
    assert!(matches!(error, Error::ParseError { .. }), "{error}");
}

#[test]
fn a_value_of_another_type_is_an_error_at_its_place() {
    let bytes = sample().build();
    let gguf = Gguf::parse(&bytes).unwrap();
    let at = gguf.entry("a.text").unwrap().at;
    assert_eq!(bytes[at as usize], ValueType::String as u8);
    for error in [
        gguf.unsigned("a.text").unwrap_err(),
        gguf.float("a.text").unwrap_err(),
        gguf.boolean("a.text").unwrap_err(),
        gguf.array("a.text", ValueType::I32).unwrap_err(),
    ] {
        assert!(matches!(&error, Error::ParseError { at: place, what }
            if *place == at && what.contains("`a.text` must be")));
    }
    assert!(gguf.string("a.number").is_err());
    assert!(gguf.array("some.ints", ValueType::F32).is_err());
    let negative = Builder::new().raw("n", Raw::default().u32(5).u32(u32::MAX).0).build();
    assert!(Gguf::parse(&negative).unwrap().unsigned("n").is_err());
    let infinite = Builder::new().f32("x", f32::INFINITY).build();
    assert!(Gguf::parse(&infinite).unwrap().float("x").is_err());
}

#[test]
fn every_shorter_file_is_refused() {
    let bytes = sample().build();
    let data = Gguf::parse(&bytes).unwrap().data_offset() as usize;
    assert!(matches!(Gguf::parse(&[]), Err(Error::NotAModel { .. })));
    for len in (1..data).chain([data + 1, bytes.len() - 1]) {
        let (_, at) = refusal(&bytes[..len]);
        assert!(at <= len as u64, "byte {at} of a file of {len}");
    }
}

#[test]
fn no_single_wrong_byte_makes_the_reader_fail_otherwise() {
    let sound = sample().build();
    let data = Gguf::parse(&sound).unwrap().data_offset() as usize;
    for at in 0..data {
        for value in [0, 1, 0x7f, 0x80, 0xff, sound[at] ^ 1] {
            let mut bytes = sound.clone();
            bytes[at] = value;
            // A file is accepted or refused without a panic, and an accepted file can be used.
            if let Ok(gguf) = Gguf::parse(&bytes) {
                for tensor in gguf.tensors() {
                    assert_eq!(gguf.data(tensor).unwrap().len() as u64, tensor.size);
                }
                for entry in gguf.metadata() {
                    if let Value::Array(array) = &entry.value
                        && array.kind() == ValueType::String
                    {
                        assert_eq!(array.strings().count(), array.len());
                    }
                }
            }
        }
    }
}

// The names below come from llama.cpp's tests/test-gguf.cpp, where it has the case.

#[test]
fn header_bad_magic() {
    refused(Raw(b"FUGG".to_vec()).u32(3).u64(0).u64(0), 0, "no GGUF file");
    refused(Raw(b"GG".to_vec()), 0, "the file ends inside the magic number");
}

#[test]
fn header_bad_version() {
    for version in [0, 1, 4] {
        let words = format!("GGUF version {version};");
        refused(Raw(MAGIC.to_vec()).u32(version).u64(0).u64(0), 4, &words);
    }
    refused(Raw(MAGIC.to_vec()).u32(3_u32.swap_bytes()), 4, "big-endian file (version 3)");
}

#[test]
fn header_bad_n_tensors() {
    for count in [u64::MAX, 1 << 63, u64::MAX / 24 + 1, 3] {
        refused(Raw::header(count, 0).zeros(50), 8, "the number of tensors");
    }
}

#[test]
fn header_bad_n_kv() {
    for count in [u64::MAX, 1 << 63, u64::MAX / 14 + 1, 4] {
        refused(Raw::header(0, count).zeros(50), 16, "the number of keys");
    }
}

#[test]
fn kv_bad_key_size() {
    refused(Raw::header(0, 1).u64(u64::MAX).zeros(50), 24, "the limit is 1073741824");
    refused(Raw::header(0, 1).u64(99).zeros(50), 32, "the file ends inside a key");
}

#[test]
fn kv_bad_key() {
    refused(Raw::header(0, 1).text("").zeros(50), 24, "a key is empty");
    let mut bytes = Builder::new().u32("ab", 1).build();
    bytes[32] = 0xff;
    refused(Raw(bytes), 24, "a key is no UTF-8");
}

#[test]
fn kv_bad_type() {
    refused(Raw::header(0, 1).text("k").u32(13).zeros(50), 33, "type of `k` is 13");
    refused(Raw::header(0, 1).text("k").u32(u32::MAX).zeros(50), 33, "type of `k` is 4294967295");
    let array = Raw::header(0, 1).text("k").u32(9);
    refused(array.clone().u32(9).zeros(50), 37, "array of type 9, which cannot be in one");
    refused(array.u32(13).zeros(50), 37, "array of type 13");
}

#[test]
fn kv_bad_value_size() {
    let key = Raw::header(0, 1).text("k");
    refused(key.clone().u32(8).u64(u64::MAX).zeros(50), 37, "is 18446744073709551615 bytes long");
    refused(key.clone().u32(8).u64(51).zeros(50), 45, "the file ends inside a value");
    // An array of 2^63 strings in a file of a few bytes once made llama.cpp loop without end.
    for kind in [0, 4, 8, 12] {
        for len in [1 << 63, u64::MAX, 1 << 61, 51] {
            let array = key.clone().u32(9).u32(kind).u64(len);
            refused(array.zeros(50), 41, "an array's length is");
        }
    }
    let strings = key.u32(9).u32(8).u64(2).text("one").u64(1 << 40);
    refused(strings.zeros(50), 60, "a string in an array is 1099511627776 bytes long");
}

#[test]
fn kv_duplicate_key() {
    let bytes = Builder::new().u32("twin", 1).u32("other", 2).u32("twin", 1).build();
    refused(Raw(bytes), 24 + 20 + 21, "`twin` appears twice");
}

#[test]
fn kv_bad_align() {
    for (value, words) in [(0, "but is 0"), (13, "but is 13"), (0x4000_0001, "but is 1073741825")] {
        refused(Raw(Builder::new().u32(ALIGNMENT_KEY, value).build()), 49, words);
    }
    let wrong_type = Raw::header(0, 1).text(ALIGNMENT_KEY).u32(5).u32(32);
    refused(wrong_type, 49, "must be a power of two (u32)");
    let huge = Builder::new().u32(ALIGNMENT_KEY, 1 << 30).tensor_f32("t", &[1], &[1.0]).build();
    let (what, _) = refusal(&huge);
    assert!(what.contains("the file ends inside the data of `t`"), "{what}");
}

#[test]
fn tensors_bad_name() {
    let long = "t".repeat(64);
    refused(Raw::header(1, 0).tensor(&long, &[1], 0, 0).zeros(50), 24, "64 bytes long");
    let longest = "t".repeat(63);
    Gguf::parse(&Raw::header(1, 0).tensor(&longest, &[1], 0, 0).zeros(50).0).unwrap();
    let twins = Raw::header(2, 0).tensor("t", &[8], 0, 0).tensor("t", &[8], 0, 32);
    refused(twins.zeros(99), 24 + 33, "the tensor `t` appears twice");
}

#[test]
fn tensors_bad_n_dims() {
    for n in [5, u32::MAX] {
        let raw = Raw::header(1, 0).text("t").u32(n).zeros(99);
        refused(raw, 33, "dimensions, the limit is 4");
    }
}

#[test]
fn tensors_bad_shape() {
    let at = 24 + 9 + 4;
    for (dims, place, words) in [
        (&[u64::MAX][..], at, "too many weights"),
        (&[1 << 63], at, "too many weights"),
        (&[1 << 32, 1 << 32], at + 8, "too many weights"),
        (&[8 * (1 << 31), 8 * (1 << 31)], at + 8, "too many weights"),
        (&[1 << 20, 1 << 20, 1 << 20, 1 << 20], at + 24, "too many weights"),
        (&[0], at, "a dimension of 0"),
        (&[32, 0], at + 8, "a dimension of 0"),
        (&[1, 1, 1, 0], at + 24, "a dimension of 0"),
    ] {
        refused(Raw::header(1, 0).tensor("t", dims, 0, 0).zeros(99), place, words);
    }
}

#[test]
fn tensors_nbytes_too_big() {
    // 2^62 weights can be counted; their 2^65 bytes cannot.
    let dims = [1 << 31, 1 << 31];
    refused(Raw::header(1, 0).tensor("t", &dims, 27, 0).zeros(99), 33, "in bytes overflows");
}

#[test]
fn tensors_bad_type() {
    for id in [4, 5, 31, 32, 33, 36, 37, 38] {
        let raw = Raw::header(1, 0).tensor("t", &[256], id, 0).zeros(999);
        refused(raw, 45, &format!("is of type {id}, which was removed"));
    }
    for id in [43, 1000, u32::MAX] {
        let raw = Raw::header(1, 0).tensor("t", &[256], id, 0).zeros(999);
        refused(raw, 45, &format!("is of type {id}, which does not exist"));
    }
}

#[test]
fn tensors_bad_row() {
    for (kind, row) in [(TensorType::Q4_0, 31), (TensorType::Q8_0, 33), (TensorType::Q6_K, 128)] {
        // The whole tensor is a whole number of blocks, its rows are not.
        let raw = Raw::header(1, 0).tensor("t", &[row, kind.block_weights], kind.id, 0);
        refused(raw.zeros(99_999), 33, &format!("no whole number of {kind} blocks"));
    }
}

#[test]
fn tensors_bad_offset() {
    for offset in [1, 32, u64::MAX] {
        let raw = Raw::header(1, 0).tensor("t", &[8], 0, offset).zeros(99);
        refused(raw, 24, "expected at 0");
    }
    // 20 bytes are padded to 32.
    for offset in [0, 20, 64, u64::MAX] {
        let raw = Raw::header(2, 0).tensor("a", &[5], 0, 0).tensor("b", &[5], 0, offset);
        refused(raw.zeros(999), 24 + 33, "expected at 32");
    }
}

#[test]
fn tensors_inconsistent_align() {
    let packed = Raw::header(2, 0).tensor("a", &[5], 0, 0).tensor("b", &[5], 0, 20);
    refused(packed.zeros(999), 24 + 33, "the data of `b` is at 20, expected at 32");
}

#[test]
fn data_not_enough() {
    let bytes = Builder::new().tensor_f32("t", &[5], &[0.5; 5]).build();
    Gguf::parse(&bytes).unwrap();
    refused(Raw(bytes[..bytes.len() - 1].to_vec()), 24, "the file ends inside the data of `t`");
    let bare = Raw::header(1, 0).tensor("t", &[5], 0, 0);
    refused(bare, 24, "the file ends inside the data of `t`");
}

#[test]
fn data_size_overflow() {
    // The sizes of two tensors wrap to a small sum.
    let size = 0x7fff_ffff_ffff_ffc0;
    let raw = Raw::header(2, 0).tensor("a", &[size], 24, 0).tensor("b", &[size], 24, size);
    refused(raw.zeros(99), 24, "the file ends inside the data of `a`");
    let raw = Raw::header(1, 0).tensor("a", &[i64::MAX as u64 - 1], 24, 0).zeros(99);
    refused(raw, 24, "the file ends inside the data of `a`");
}

#[test]
fn types_have_the_sizes_of_ggml() {
    for &kind in TensorType::ALL {
        assert!(!TensorType::is_removed(kind.id));
        assert_eq!(TensorType::from_id(kind.id), Some(kind));
        assert_eq!(kind.size_of(3 * kind.block_weights), Some(3 * kind.block_bytes));
        if kind.block_weights > 1 {
            assert_eq!(kind.size_of(kind.block_weights + 1), None);
        }
        // A tensor of this type with no byte to spare.
        let data = vec![0; kind.block_bytes as usize];
        let bytes = Builder::new().tensor("t", &[kind.block_weights], kind, data).build();
        assert_eq!(Gguf::parse(&bytes).unwrap().tensors()[0].size, kind.block_bytes);
    }
    let ids: Vec<u32> = TensorType::ALL.iter().map(|kind| kind.id).collect();
    let in_use = (0..43).filter(|&id| !TensorType::is_removed(id));
    assert_eq!(ids, in_use.collect::<Vec<_>>());
}
