//! SentencePiece with a vocabulary made by hand; the other tests lie beside this.

mod bpe;
mod hostile;
mod llama_cpp;
mod random;
mod scale;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::llm::gguf::write::Builder;

/// A vocabulary of special tokens, all bytes, and pieces with falling scores.
fn vocabulary() -> Vec<(String, i32)> {
    let mut tokens: Vec<(String, i32)> = Vec::new();
    tokens.extend([("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(text, kind)| (text.into(), kind)));
    tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    let pieces = [
        "ab", "bc", "▁a", "cd", "abcd", "▁ab", "aa", "aaaa", "é", "▁", "a", "b", "c", "d", "<",
        "s", ">",
    ];
    tokens.extend(pieces.map(|text| (text.into(), 1)));
    tokens.push(("<|user|>".into(), 4));
    tokens.push(("<|im_end|>".into(), 3));
    tokens.push(("unused".into(), 5));
    tokens
}

fn builder_of(tokens: &[(String, i32)]) -> Builder {
    let texts: Vec<&str> = tokens.iter().map(|(text, _)| text.as_str()).collect();
    let scores: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32)).collect();
    let kinds: Vec<i32> = tokens.iter().map(|&(_, kind)| kind).collect();
    Builder::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &texts)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &kinds)
}

pub fn builder() -> Builder {
    builder_of(&vocabulary())
}

pub fn read(builder: &Builder) -> Result<Tokenizer, Error> {
    Tokenizer::from_gguf(&Gguf::parse(&builder.build()).unwrap())
}

fn tokenizer() -> Tokenizer {
    read(&builder()).unwrap()
}

/// The texts of the tokens of `text`, without what begins it.
fn pieces(tokenizer: &Tokenizer, text: &str, parse_special: bool) -> Vec<String> {
    let tokens = tokenizer.encode(text, false, parse_special);
    let text = |&token| String::from_utf8(tokenizer.vocab.text(token).to_vec()).unwrap();
    tokens.iter().map(text).collect()
}

fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
    let mut decoder = Decoder::try_new(tokenizer.max_token_bytes()).unwrap();
    let mut parts: Vec<String> = Vec::new();
    for &token in tokens {
        let mut part = String::new();
        decoder.push(tokenizer, token, &mut part);
        parts.push(part);
    }
    let mut part = String::new();
    decoder.finish(&mut part);
    parts.push(part);
    parts
}

#[test]
fn the_pair_of_the_highest_score_is_merged_first() {
    let t = tokenizer();
    // "ab" scores higher than "bc", and "▁a" comes too late.
    assert_eq!(pieces(&t, "abc", false), ["▁ab", "c"]);
    // After "ab" and "cd", the two make "abcd", which scores higher than "▁ab".
    assert_eq!(pieces(&t, "abcd", false), ["▁", "abcd"]);
    assert_eq!(pieces(&t, "a", false), ["▁a"]);
    assert_eq!(pieces(&t, "bcd", false), ["▁", "bc", "d"]);
}

#[test]
fn of_equal_scores_the_leftmost_pair_is_merged_first() {
    let t = tokenizer();
    // "▁a" takes the first, then pairs from the left; one is left over.
    assert_eq!(pieces(&t, "aaaa", false), ["▁a", "aa", "a"]);
    assert_eq!(pieces(&t, "aaaaa", false), ["▁a", "aaaa"]);
}

#[test]
fn spaces_are_kept() {
    let t = tokenizer();
    assert_eq!(pieces(&t, " a  b ", false), ["▁", "▁a", "▁", "▁", "b", "▁"]);
    assert_eq!(pieces(&t, "", false), Vec::<String>::new());
    let bare = read(&builder().bool("tokenizer.ggml.add_space_prefix", false)).unwrap();
    assert_eq!(pieces(&bare, "abc", false), ["ab", "c"]);
}

#[test]
fn characters_without_a_token_become_their_bytes() {
    let t = tokenizer();
    assert_eq!(pieces(&t, "é", false), ["▁", "é"]);
    assert_eq!(pieces(&t, "ö", false), ["▁", "<0xC3>", "<0xB6>"]);
    assert_eq!(pieces(&t, "🙂", false), ["▁", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>"]);
    // Without byte tokens, each byte is unknown.
    let words: Vec<_> = vocabulary().into_iter().filter(|&(_, kind)| kind != 6).collect();
    let wordy = read(&builder_of(&words)).unwrap();
    assert_eq!(pieces(&wordy, "aö", false), ["▁a", "<unk>", "<unk>"]);
}

#[test]
fn special_tokens_are_found_only_where_asked() {
    let t = tokenizer();
    assert_eq!(pieces(&t, "a<s>a", false), ["▁a", "<", "s", ">", "a"]);
    // After a special token, a text starts anew.
    assert_eq!(pieces(&t, "a<s>a", true), ["▁a", "<s>", "▁a"]);
    assert_eq!(pieces(&t, "<s></s>", true), ["<s>", "</s>"]);
    // User-defined tokens are found in any text.
    assert_eq!(pieces(&t, "a<|user|>a", false), ["▁a", "<|user|>", "▁a"]);
}

#[test]
fn texts_begin_and_end_as_the_model_wants_it() {
    assert_eq!(tokenizer().encode("", true, false), [1]);
    let other = builder()
        .u32("tokenizer.ggml.bos_token_id", 2)
        .u32("tokenizer.ggml.eos_token_id", 1)
        .bool("tokenizer.ggml.add_eos_token", true);
    assert_eq!(read(&other).unwrap().encode("", true, false), [2, 1]);
    assert!(read(&other).unwrap().encode("", false, false).is_empty());
    let bare = builder().bool("tokenizer.ggml.add_bos_token", false);
    assert!(read(&bare).unwrap().encode("", true, false).is_empty());
}

#[test]
fn ends_are_found_by_key_and_by_text() {
    let t = tokenizer();
    let im_end = t.vocab.find(b"<|im_end|>").unwrap();
    assert!(t.is_end(2) && t.is_end(im_end) && !t.is_end(1) && !t.is_end(999));
    let other = read(&builder().u32("tokenizer.ggml.eot_token_id", 7)).unwrap();
    assert!(other.is_end(7) && other.is_end(2));
    // A number that is no token is not taken.
    let odd = read(&builder().u32("tokenizer.ggml.eos_token_id", 100_000)).unwrap();
    assert!(odd.is_end(2));
}

#[test]
fn text_survives_the_round_trip() {
    let t = tokenizer();
    for text in ["abcd dcba", "  a ", "naïve café 🙂 日本語\n\t\u{1}", "<s>", "▁"] {
        let parts = decode(&t, &t.encode(text, true, false));
        // U+2581 is how the vocabulary writes a space.
        assert_eq!(parts.concat(), format!(" {}", text.replace('▁', " ")));
    }
}

#[test]
fn characters_are_held_back_until_they_are_whole() {
    let t = tokenizer();
    let smile = [0xf0, 0x9f, 0x99, 0x82].map(|byte| 3 + byte);
    assert_eq!(decode(&t, &smile), ["", "", "", "🙂", ""]);
    // Not whole at the end.
    assert_eq!(decode(&t, &smile[..2]), ["", "", "\u{fffd}"]);
    // Another byte than expected: the character is lost, the byte is not.
    assert_eq!(decode(&t, &[smile[0], 3 + 0x41]), ["", "\u{fffd}A", ""]);
    assert_eq!(decode(&t, &[3 + 0xff, 3 + 0x41]), ["\u{fffd}", "A", ""]);
}

#[test]
fn control_tokens_have_no_text() {
    let t = tokenizer();
    let user = t.vocab.find(b"<|user|>").unwrap();
    let unused = t.vocab.find(b"unused").unwrap();
    assert_eq!(decode(&t, &[1, 0, user, unused, 2, 1_000_000]).concat(), "<|user|>");
}

#[test]
fn a_long_text_takes_no_quadratic_time() {
    // A hundred thousand characters of one kind: with n^2 steps this would take minutes.
    let t = tokenizer();
    let text = "a".repeat(100_003);
    let tokens = t.encode(&text, false, false);
    assert_eq!(decode(&t, &tokens).concat().len(), 1 + text.len());
}

#[test]
fn malformed_vocabularies_are_refused() {
    let texts = ["<unk>", "<s>", "</s>"];
    let empty = || Builder::new().string("tokenizer.ggml.model", "llama");
    let some = || empty().strings("tokenizer.ggml.tokens", &texts);
    for (builder, words) in [
        (Builder::new(), "`tokenizer.ggml.model` is missing"),
        (empty(), "`tokenizer.ggml.tokens` is missing"),
        (empty().strings::<&str>("tokenizer.ggml.tokens", &[]), "must have between 1"),
        (empty().f32s("tokenizer.ggml.tokens", &[1.0]), "must be an array of strings"),
        (some().f32s("tokenizer.ggml.scores", &[1.0; 2]), "one element for each token"),
        (some().strings("tokenizer.ggml.scores", &["1"; 3]), "must be an array of f32 or i32"),
        (some().f32s("tokenizer.ggml.scores", &[1.0, f32::NAN, 1.0]), "no number for token 1"),
        (some().i32s("tokenizer.ggml.token_type", &[1; 2]), "one element for each token"),
        (some().f32s("tokenizer.ggml.token_type", &[1.0; 3]), "must be an array of i32"),
        (some().i32s("tokenizer.ggml.token_type", &[6, 1, 1]), "token 0 is a byte but is not"),
    ] {
        let Err(Error::ParseError { what, .. }) = read(&builder) else {
            panic!("accepted, but should say {words:?}");
        };
        assert!(what.contains(words), "{what:?} does not say {words:?}");
    }
    let twins = empty().strings("tokenizer.ggml.tokens", &["a", "b", "a"]);
    let bytes = twins.build();
    let Err(Error::ParseError { what, at }) = Tokenizer::from_gguf(&Gguf::parse(&bytes).unwrap())
    else {
        panic!("twins were accepted");
    };
    assert_eq!(what, "tokens 0 and 2 have the same text");
    // The place of the second text: its length, then "a".
    assert_eq!(bytes[at as usize..at as usize + 9], [1, 0, 0, 0, 0, 0, 0, 0, b'a']);
    for (model, kind) in
        [("bert", "WordPiece"), ("t5", "Unigram"), ("rwkv", "RWKV"), ("new\n", "new\\n")]
    {
        let other = Builder::new().string("tokenizer.ggml.model", model);
        assert!(matches!(read(&other), Err(Error::Unsupported { what }) if what.contains(kind)));
    }
}

#[test]
fn a_text_that_brings_its_beginning_along_has_it_twice() {
    let t = tokenizer();
    let twice = |text: &str, special| t.begins_twice(&t.encode(text, true, special));
    assert!(twice("<s>a", true) && twice("<s>", true) && twice("<s><s>", true));
    assert!(!twice("<s>a", false) && !twice("a<s>", true) && !twice("", true));
    let none = read(&builder().bool("tokenizer.ggml.add_bos_token", false)).unwrap();
    assert!(!none.begins_twice(&none.encode("<s><s>", true, true)));
}

/// As llama.cpp's `llama_vocab::impl::load` reads them: by the bits of the numbers.
///
/// A token of an unknown kind is no special token and has no text.
#[test]
fn odd_types_and_scores_are_taken_as_by_llama_cpp() {
    let kinds = |of_cd: i32| {
        let mut tokens = vocabulary();
        tokens.iter_mut().find(|(text, _)| text == "cd").unwrap().1 = of_cd;
        builder_of(&tokens)
    };
    let normal = tokenizer();
    let cd = normal.encode("cd", false, false);
    for kind in [0, 7, -1, i32::MIN] {
        let odd = read(&kinds(kind)).unwrap();
        for special in [false, true] {
            assert_eq!(
                odd.encode("abcd cd", true, special),
                normal.encode("abcd cd", true, special)
            );
        }
        assert_eq!(odd.decode(&cd).unwrap().trim(), "", "{kind}");
    }
    assert_eq!(normal.decode(&cd).unwrap().trim(), "cd");

    // Numbers without a sign, more of them than tokens, and scores that are whole.
    let tokens = vocabulary();
    let texts: Vec<&str> = tokens.iter().map(|(text, _)| text.as_str()).collect();
    let mut kinds: Vec<u8> = [9_u32, 4].iter().flat_map(|word| word.to_le_bytes()).collect();
    kinds.extend((tokens.len() as u64 + 1).to_le_bytes());
    let words = tokens.iter().map(|&(_, kind)| kind as u32).chain([99]);
    kinds.extend(words.flat_map(|word| word.to_le_bytes()));
    let scores: Vec<i32> = (0..=tokens.len()).map(|i| -(i as i32)).collect();
    let odd = Builder::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &texts)
        .i32s("tokenizer.ggml.scores", &scores)
        .raw("tokenizer.ggml.token_type", kinds);
    let odd = read(&odd).unwrap();
    let text = "abcd <|user|> aaaa é <|im_end|>unused";
    for special in [false, true] {
        let tokens = normal.encode(text, true, special);
        assert_eq!(odd.encode(text, true, special), tokens);
        assert_eq!(odd.decode(&tokens), normal.decode(&tokens));
    }
}

#[test]
fn byte_names_are_read_strictly() {
    assert_eq!(vocab::byte_of(b"<0x7F>"), Some(0x7f));
    assert_eq!(vocab::byte_of(b"<0xaf>"), Some(0xaf));
    for name in ["<0x7>", "<0x7F", "<0x7G>", "<0x+1>", "0x7F", "<0x7F> "] {
        assert_eq!(vocab::byte_of(name.as_bytes()), None, "{name}");
    }
}

#[test]
fn tokens_without_a_text_are_no_twins() {
    let t = read(
        &Builder::new()
            .string("tokenizer.ggml.model", "llama")
            .strings("tokenizer.ggml.tokens", &["", "", "▁", "a"]),
    );
    assert_eq!(t.unwrap().encode("a", false, false), [2, 3]);
}
