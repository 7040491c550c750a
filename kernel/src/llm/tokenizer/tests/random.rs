//! Random texts and damaged files: no panics, and encoded texts can be decoded.

use super::super::pre::PreTokenizer;
use super::llama_cpp::keys;
use super::*;

/// A generator of random numbers (xorshift) with a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    fn char(&mut self) -> char {
        let code = match self.below(8) {
            0..4 => self.below(0x80),
            4 => self.below(0x800),
            5 => 0x2000 + self.below(0x1000),
            6 => self.below(0x1_0000),
            _ => self.below(0x11_0000),
        };
        char::from_u32(code as u32).unwrap_or(' ')
    }

    /// Up to 60 characters, some of which come again and again.
    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.below(23) {
            let c = self.char();
            text.extend((0..1 + self.below(5) / 3 * self.below(11)).map(|_| c));
        }
        text
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(41)).map(|_| self.below(256) as u8).collect()
    }
}

fn bytes_of(t: &Tokenizer, tokens: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokens.iter().for_each(|&token| t.push_bytes(token, &mut bytes));
    bytes
}

#[test]
fn byte_level_text_comes_back_whole() {
    let keys = keys("bpe");
    let mut random = Random(11);
    for pre in PreTokenizer::names() {
        let t = read(&keys.clone().string("tokenizer.ggml.pre", pre)).unwrap();
        for _ in 0..211 {
            let text = random.text();
            let tokens = t.encode(&text, false, false);
            assert_eq!(bytes_of(&t, &tokens), text.as_bytes(), "{pre}: {text:?}");
            let bytes = random.bytes();
            let back = bytes_of(&t, &t.encode(&bytes, false, false));
            let back = core::str::from_utf8(&back).unwrap();
            // Bytes that are not UTF-8 are replaced. Text is not.
            if let Ok(text) = core::str::from_utf8(&bytes) {
                assert_eq!(back, text, "{pre}");
            }
            assert_eq!(t.encode(back, false, false), t.encode(&bytes, false, false), "{pre}");
        }
    }
}

#[test]
fn sentencepiece_brings_all_bytes_back() {
    let t = read(&keys("spm").bool("tokenizer.ggml.add_space_prefix", false)).unwrap();
    let mut random = Random(12);
    for _ in 0..1009 {
        let bytes = [random.bytes(), random.text().into_bytes(), random.bytes()].concat();
        let back = bytes_of(&t, &t.encode(&bytes, false, false));
        let spaced = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\u{2581}', " ");
        assert_eq!(spaced(&back), spaced(&bytes));
    }
}

#[test]
fn damaged_files_do_not_panic() {
    let mut random = Random(13);
    let (mut read_again, mut refused) = (0, 0);
    for name in ["bpe", "odd", "spm"] {
        let whole = keys(name).string("tokenizer.ggml.pre", "qwen2").build();
        for _ in 0..503 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(7) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = random.below(256) as u8,
                    2 => bytes.truncate(at.max(1)),
                    _ => {
                        let other = random.below(bytes.len());
                        bytes.swap(at, other);
                    }
                }
            }
            let Ok(t) = Gguf::parse(&bytes).and_then(|gguf| Tokenizer::from_gguf(&gguf)) else {
                refused += 1;
                continue;
            };
            read_again += 1;
            let tokens = t.encode(random.text(), true, true);
            decode(&t, &tokens);
        }
    }
    assert!(read_again > 50 && refused > 50, "{read_again} read, {refused} refused");
}
