//! Vocabularies and texts made so that encoding takes long: the steps are counted.

use super::super::step_count;
use super::*;

/// Bytes of the vocabularies and of the texts.
const LEN: usize = 1 << 17;

/// Steps that each byte of a text may take.
///
/// A few for each kind of look-up, times a logarithm for sorted queues, or times the bytes hashed
/// at a time.
const MOST: usize = 128;

/// The tokens of the text, which must not take too many steps.
#[track_caller]
fn encode(tokenizer: &Tokenizer, text: &[u8]) -> Vec<u32> {
    let (tokens, steps) = step_count::of(|| tokenizer.encode(text, false, true));
    assert!(steps > text.len(), "{steps} steps are too few to be all");
    assert!(steps <= MOST * text.len(), "{} steps for each byte", steps / text.len());
    tokens
}

/// A tokenizer of either kind with these special tokens and all bytes.
fn with_specials(model: &str, specials: &[Vec<u8>]) -> Tokenizer {
    let bytes = (0..=255).map(|byte: u8| match model {
        "llama" => format!("<0x{byte:02X}>"),
        _ => char::from(byte).into(),
    });
    let mut texts: Vec<Vec<u8>> = bytes.map(String::into_bytes).collect();
    let mut kinds = std::vec![if model == "llama" { 6 } else { 1 }; texts.len()];
    kinds.extend((0..specials.len()).map(|i| 3 + (i % 2) as i32));
    texts.extend_from_slice(specials);
    let keys = Builder::new()
        .string("tokenizer.ggml.model", model)
        .string("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", &texts)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .strings::<&str>("tokenizer.ggml.merges", &[]);
    read(&keys).unwrap()
}

fn cycle(unit: &[u8], len: usize) -> Vec<u8> {
    unit.iter().copied().cycle().take(len).collect()
}

#[test]
fn special_tokens_take_linear_time_whatever_they_are() {
    let many = |of: &dyn Fn(usize) -> Vec<u8>| -> Vec<Vec<u8>> {
        let mut left = LEN;
        let texts = (2..).map(of).take_while(|text| {
            let fits = text.len() <= left;
            left = left.saturating_sub(text.len());
            fits
        });
        texts.collect()
    };
    let long = |end: u8| [cycle(b"a", LEN - 1), [end].to_vec()].concat();
    let a = |n| cycle(b"a", n);
    for specials in [
        // Long ones, with all but their ends or starts in common, which the text never has.
        Vec::from([long(b'x'), long(b'y'), long(b'z')]),
        Vec::from([[b"x", &a(LEN)[..]].concat(), [b"y", &a(LEN)[..]].concat()]),
        // A token of each length, as many as possible.
        many(&|n| a(n)),
        many(&|n| [&a(n)[..], b"x"].concat()),
        many(&|n| [b"x", &a(n)[..]].concat()),
        many(&|n| cycle(b"ab", n)),
        // The longer tokens take the room of tokens that start before them.
        [many(&|n| [b"b", &a(n)[..]].concat()), Vec::from([a(1 << 10)])].concat(),
    ] {
        for model in ["llama", "gpt2"] {
            let tokenizer = with_specials(model, &specials);
            for text in [
                a(LEN),
                cycle(b"ab", LEN),
                cycle(b"aaab", LEN),
                cycle(&[b"b", &a(1 << 10)[..]].concat(), LEN),
                [&a(LEN - 1)[..], b"x"].concat(),
                [b"x", &a(LEN - 1)[..]].concat(),
            ] {
                let tokens = encode(&tokenizer, &text);
                let decoded: usize =
                    tokens.iter().map(|&token| tokenizer.vocab.text(token).len()).sum();
                assert!(decoded >= text.len(), "{decoded} bytes of {}", text.len());
            }
        }
    }
}

#[test]
fn words_take_linear_time_whatever_joins() {
    // All lengths of one letter, joined from the left; doubled; and so that all wait for a rare
    // one.
    let a = |n| "a".repeat(n);
    let chain: Vec<String> = (1..400).map(|n| format!("{} a", a(n))).collect();
    let doubled: Vec<String> = (0..16).map(|n| format!("{0} {0}", a(1 << n))).collect();
    let backwards: Vec<String> = (1..400).rev().map(|n| format!("{} a", a(n))).collect();
    for merges in [chain, doubled, backwards] {
        let texts: Vec<String> = ["a".into(), "b".into()]
            .into_iter()
            .chain(merges.iter().map(|m| m.replace(' ', "")))
            .collect();
        let keys = Builder::new()
            .string("tokenizer.ggml.model", "gpt2")
            .string("tokenizer.ggml.pre", "gpt-2")
            .strings("tokenizer.ggml.tokens", &texts)
            .strings("tokenizer.ggml.merges", &merges);
        let tokenizer = read(&keys).unwrap();
        for text in
            [cycle(b"a", LEN), cycle(b"aaaaaaab", LEN), [&cycle(b"a", LEN - 1)[..], b"b"].concat()]
        {
            encode(&tokenizer, &text);
        }
    }
}

#[test]
fn pieces_take_linear_time_whatever_joins() {
    // A letter is joined from the left to any length, beside a letter that was doubled before. Each
    // join looks up both together, in a vocabulary with a token of that length.
    let (long, chain) = (1_usize << 16, 3001);
    let doubled = (0..=long.ilog2()).map(|n| "b".repeat(1 << n));
    let lengths = (1..chain).map(|n| "a".repeat(n));
    let texts: Vec<String> = doubled.chain(lengths).chain(["c".repeat(2 * long)]).collect();
    let scores: Vec<f32> = (0..texts.len()).map(|i| -(i as f32)).collect();
    let keys = Builder::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &texts)
        .f32s("tokenizer.ggml.scores", &scores)
        .bool("tokenizer.ggml.add_space_prefix", false);
    let tokenizer = read(&keys).unwrap();
    let (b, a) = ("b".repeat(long), "a".repeat(chain - 1));
    let tokens = encode(&tokenizer, [&b[..], &a, &b, &a].concat().as_bytes());
    let texts = |&token: &u32| tokenizer.vocab.text(token).len();
    assert_eq!(tokens.iter().map(texts).collect::<Vec<_>>(), [long, chain - 1, long, chain - 1]);
    encode(&tokenizer, &cycle(b"a", LEN));
    encode(&tokenizer, &cycle(b"aaab", LEN));
    encode(&tokenizer, &cycle(b"c", LEN));
}

#[test]
fn cutting_into_words_takes_linear_time() {
    let keys = super::llama_cpp::keys("bpe");
    let units = [
        " ", "\n", "a", "A", "É", "ÉA", "7", ".", "'", "'l", "\u{a0}", "漢", "\u{301}", "a ",
        " \n", "\t ", "\r\n\t", "Aa",
    ];
    for pre in super::super::pre::PreTokenizer::names() {
        let tokenizer = read(&keys.clone().string("tokenizer.ggml.pre", pre)).unwrap();
        for unit in units {
            let text = cycle(unit.as_bytes(), 1 << 12);
            encode(&tokenizer, &text);
            encode(&tokenizer, &[&text[..], b"x"].concat());
            encode(&tokenizer, &[b"\xc3\x89", &text[..]].concat());
        }
    }
}
