//! Byte-level BPE with a vocabulary made by hand.

use super::super::pre::PreTokenizer;
use super::super::split::split;
use super::*;

/// All bytes, then what these merges make of them, then control tokens.
fn keys(merges: &[&str]) -> Builder {
    let mut tokens: Vec<String> = bytes().collect();
    for merge in merges {
        if let Some((left, right)) = merge.split_once(' ') {
            let joined = format!("{left}{right}");
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
        }
    }
    let mut kinds = std::vec![1; tokens.len()];
    tokens.extend(["<|endoftext|>", "<|user|>"].map(String::from));
    kinds.extend([3, 3]);
    Builder::new()
        .string("tokenizer.ggml.model", "gpt2")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .strings("tokenizer.ggml.merges", merges)
}

/// How the vocabulary writes the bytes, in GPT-2's order.
fn bytes() -> impl Iterator<Item = String> {
    let visible = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    visible.chain('\u{100}'..='\u{143}').map(String::from)
}

const MERGES: &[&str] = &["l l", "h e", "Ġ w", "e l", "ll o", "he llo", "Ġw o", "a a", "aa aa"];

fn gpt2(merges: &[&str]) -> Tokenizer {
    read(&keys(merges).string("tokenizer.ggml.pre", "gpt-2")).unwrap()
}

#[test]
fn merges_come_in_the_order_of_the_list() {
    let t = gpt2(MERGES);
    // "ll" comes before "el", "he" too.
    assert_eq!(pieces(&t, "hello wo", false), ["hello", "Ġwo"]);
    assert_eq!(pieces(&t, "elo", false), ["el", "o"]);
    // Of equal ones the leftmost first.
    assert_eq!(pieces(&t, "aaaaaaa", false), ["aaaa", "aa", "a"]);
    assert_eq!(pieces(&t, "é", false), ["Ã", "©"]);
}

#[test]
fn words_are_not_joined() {
    let t = gpt2(&["b Ġ", "Ġ a", "a b"]);
    assert_eq!(pieces(&t, "ab ab", false), ["ab", "Ġa", "b"]);
}

#[test]
fn some_pre_tokenizers_take_whole_words_that_are_tokens() {
    // No way leads to "abc": "bc" is joined first.
    let merges = ["b c", "a b", "ab c"];
    assert_eq!(pieces(&gpt2(&merges), "abc", false), ["a", "bc"]);
    let llama3 = read(&keys(&merges).string("tokenizer.ggml.pre", "llama-bpe")).unwrap();
    assert_eq!(pieces(&llama3, "abc abc", false), ["abc", "Ġ", "a", "bc"]);
}

#[test]
fn merges_may_go_through_texts_that_are_no_tokens() {
    // "ab" is no token, "abc" is one. "abd" is no token, so its characters are looked up. "x" is
    // lost.
    let strings = ["a", "b", "c", "d", "abc"];
    let keys = Builder::new()
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", &strings);
    let t = read(&keys.strings("tokenizer.ggml.merges", &["a b", "ab c", "ab d"])).unwrap();
    assert_eq!(pieces(&t, "abcabdx", false), ["abc", "a", "b", "d"]);
}

#[test]
fn malformed_merges_are_passed_over() {
    // Without a space, with the space as the left text, with no right text, twice.
    let odd = ["ab", "", " a", "b ", "a b", "b c", "a b"];
    assert_eq!(pieces(&gpt2(&odd), "abc", false), ["ab", "c"]);
}

#[test]
fn text_survives_the_round_trip() {
    let t = gpt2(MERGES);
    for text in ["hello world", "  a ", "naïve café 🙂 日本語\n\t\u{1}\0", "<|user|>", "Ġ\u{ad}"]
    {
        assert_eq!(decode(&t, &t.encode(text, false, false)).concat(), text);
    }
    // Bytes that are no UTF-8 become U+FFFD.
    assert_eq!(
        decode(&t, &t.encode(b"a\xff\xe2\x82", false, false)).concat(),
        "a\u{fffd}\u{fffd}\u{fffd}"
    );
}

#[test]
fn characters_are_held_back_until_they_are_whole() {
    let t = gpt2(MERGES);
    let smile = t.encode("🙂", false, false);
    assert_eq!(smile.len(), 4);
    assert_eq!(decode(&t, &smile), ["", "", "", "🙂", ""]);
    assert_eq!(decode(&t, &smile[..3]), ["", "", "", "\u{fffd}"]);
    assert_eq!(decode(&t, &[smile[0], smile[0]]), ["", "\u{fffd}", "\u{fffd}"]);
}

#[test]
fn texts_begin_as_the_pre_tokenizer_or_the_file_wants_it() {
    let of = |pre: &str| keys(MERGES).string("tokenizer.ggml.pre", pre);
    let encode = |keys: Builder| read(&keys).unwrap().encode("", true, false);
    assert_eq!(encode(of("gpt-2")), [0; 0]);
    // Without a key it is token 11, whatever that is.
    assert_eq!(encode(of("llama-bpe")), [11]);
    assert_eq!(encode(of("tekken").u32("tokenizer.ggml.bos_token_id", 7)), [7]);
    assert_eq!(encode(of("llama-bpe").bool("tokenizer.ggml.add_bos_token", false)), [0; 0]);
    assert_eq!(encode(of("qwen2").bool("tokenizer.ggml.add_bos_token", true)), [11]);
    assert_eq!(encode(of("qwen2").bool("tokenizer.ggml.add_eos_token", true)), [11]);
    // Some models have no begin token without a key.
    assert_eq!(encode(of("glm4").bool("tokenizer.ggml.add_bos_token", true)), [0; 0]);
    // A number that is no token is not taken.
    assert_eq!(encode(of("tekken").u32("tokenizer.ggml.bos_token_id", 1 << 20)), [11]);
}

#[test]
fn malformed_vocabularies_are_refused() {
    let bare = || {
        Builder::new()
            .string("tokenizer.ggml.model", "gpt2")
            .strings("tokenizer.ggml.tokens", &["a", "b", "ab"])
    };
    let merged = || bare().strings("tokenizer.ggml.merges", &["a b"]);
    for (builder, words) in [
        (bare(), "`tokenizer.ggml.merges` is missing"),
        (bare().f32s("tokenizer.ggml.merges", &[1.0]), "must be an array of strings"),
        (merged().f32s("tokenizer.ggml.scores", &[1.0]), "one element for each token"),
        (merged().i32s("tokenizer.ggml.token_type", &[6; 3]), "token 0 is a byte but is not"),
        (merged().u32("tokenizer.ggml.pre", 1), "must be UTF-8 text"),
        (merged().bool("tokenizer.ggml.bos_token_id", true), "must be a whole number"),
    ] {
        let Err(Error::ParseError { what, .. }) = read(&builder) else {
            panic!("accepted, but should say {words:?}");
        };
        assert!(what.contains(words), "{what:?} does not say {words:?}");
    }
    // Without a name, or with an empty one, the default is used; unknown ones are refused by name.
    for keys in [merged(), merged().string("tokenizer.ggml.pre", "")] {
        assert_eq!(read(&keys).unwrap().encode("ab", false, false), [2]);
    }
    let Err(Error::Unsupported { what }) = read(&merged().string("tokenizer.ggml.pre", "gpt-9"))
    else {
        panic!("an unknown pre-tokenizer was accepted");
    };
    assert_eq!(what, "the pre-tokenizer `gpt-9`");
}

#[test]
fn rules_cut_where_their_expressions_do() {
    let words = |pre: &str, text: &str| {
        let mut words = Vec::new();
        let stages = PreTokenizer::named(pre).unwrap().stages;
        split(stages, text, &mut |word| words.push(String::from(word)));
        assert_eq!(words.concat(), text);
        words
    };
    assert_eq!(words("gpt-2", "I'll  go\n "), ["I", "'ll", " ", " go", "\n "]);
    assert_eq!(words("gpt-2", "I'LL 1234!?"), ["I", "'", "LL", " 1234", "!?"]);
    assert_eq!(
        words("llama-bpe", "I'LL 1234!?\n\n x"),
        ["I", "'LL", " ", "123", "4", "!?\n\n", " x"]
    );
    assert_eq!(words("qwen2", "\t\tx  \n  y 12"), ["\t", "\tx", "  \n", " ", " y", " ", "1", "2"]);
    assert_eq!(
        words("tekken", "camelCase XMLHttp ÉA's"),
        ["camel", "Case", " XMLHttp", " É", "A", "'s"]
    );
    assert_eq!(words("gpt-4o", "camelCase's"), ["camel", "Case's"]);
    assert_eq!(words("smollm", "a12"), ["a", "1", "2"]);
    assert_eq!(words("falcon", "a+b 1234"), ["a", "+", "b", " ", "123", "4"]);
    assert_eq!(words("deepseek-llm", "a b。漢字12  "), ["a", " b", "。", "漢字", "12", "  "]);
    assert_eq!(
        words("deepseek-v3", "x.txt e\u{301} 漢字"),
        ["x", ".txt", " e\u{301}", " ", "漢字"]
    );
    assert_eq!(words("bloom", "a, b.c"), ["a", ",", " b", ".", "c"]);
}
