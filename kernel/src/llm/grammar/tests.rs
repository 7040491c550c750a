//! Grammars by themselves: what they allow, and what is refused.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use super::*;
use crate::llm::gguf::Gguf;
use crate::llm::sampling::{Candidate, Sampler, SamplingConfig, TokenMask};

fn tokenizer() -> Tokenizer {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../test_models/tiny.gguf");
    let model = std::fs::read(path).unwrap();
    Tokenizer::from_gguf(&Gguf::parse(&model).unwrap()).unwrap()
}

fn parse(text: &str) -> Grammar {
    Grammar::parse(text, &tokenizer()).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// Visits of stacks for one token.
const BUDGET: u64 = 1 << 18;

fn matcher(text: &str) -> Matcher {
    Matcher::try_new(Arc::new(parse(text)), BUDGET).unwrap()
}

/// Whether a text is one of the grammar; with the last element, whether it may go on.
fn reads(grammar: &str, text: &str) -> (bool, bool) {
    let mut matcher = matcher(grammar);
    let is_read = text.is_empty() || matcher.accept_bytes(text.as_bytes()).unwrap();
    (is_read && matcher.may_end(), is_read)
}

#[track_caller]
fn check(grammar: &str, whole: &[&str], starts: &[&str], refused: &[&str]) {
    for text in whole {
        assert_eq!(reads(grammar, text), (true, true), "{grammar}: {text:?}");
    }
    for text in starts {
        assert_eq!(reads(grammar, text), (false, true), "{grammar}: {text:?}");
    }
    for text in refused {
        assert_eq!(reads(grammar, text), (false, false), "{grammar}: {text:?}");
    }
}

#[test]
fn each_form_of_gbnf_is_read() {
    check(r#"root ::= "a" "bc""#, &["abc"], &["", "a", "ab"], &["b", "abcd", "ac"]);
    check(r#"root ::= "a" | "bc" | """#, &["", "a", "bc"], &["b"], &["ab", "c"]);
    check("root ::= [a-cx]", &["a", "b", "c", "x"], &[""], &["d", "aa", "-"]);
    check("root ::= [^a-c]", &["d", "é", "\n", "😀"], &[""], &["a", "b", "dd"]);
    check("root ::= [a-]+", &["a", "-", "a-a"], &[""], &["b"]);
    check(r"root ::= [\]\[\\\-^]", &["]", "[", "\\", "-", "^"], &[""], &["a"]);
    check("root ::= .", &["a", "\n", "é"], &[""], &["aa"]);
    check("root ::= [] [^] \"x\"", &["x"], &[""], &["a"]);
    check(r#"root ::= "\x41\u00e9\U0001F600\t\r\n\"\\""#, &["Aé😀\t\r\n\"\\"], &["Aé"], &["a"]);
    check("root ::= a\na ::= b\nb ::= \"x\"", &["x"], &[""], &["a"]);
    check("# one\n\n  root ::= \"a\" # two\n# three", &["a"], &[""], &["b"]);
    check("root ::= (\n \"a\" # here\n | \"b\"\n)\n", &["a", "b"], &[""], &["c"]);
    check("root ::= \"a\" |\n \"b\"\r\nx ::= \"c\"", &["a", "b"], &[""], &["c"]);
    check("root ::= \"a\"\nroot ::= \"b\"", &["b"], &[""], &["a"]);
}

#[test]
fn items_are_repeated() {
    check(r#"root ::= "ab"*"#, &["", "ab", "abab"], &["a", "aba"], &["b", "aa"]);
    check(r#"root ::= "ab"+"#, &["ab", "abab"], &["", "a"], &["b"]);
    check(r#"root ::= "ab"?"#, &["", "ab"], &["a"], &["abab", "aba"]);
    check(r#"root ::= "a"{3}"#, &["aaa"], &["", "a", "aa"], &["aaaa"]);
    check(r#"root ::= "a"{2,4}"#, &["aa", "aaa", "aaaa"], &["", "a"], &["aaaaa"]);
    check(r#"root ::= "a"{2,}"#, &["aa", "aaaaaaaaa"], &["", "a"], &["b"]);
    check(r#"root ::= "a"{ 1 , 2 } "b""#, &["ab", "aab"], &["", "aa"], &["b"]);
}

#[test]
fn a_grammar_may_be_ambiguous_or_empty_within() {
    check(r#"root ::= ("a" | "aa" | [ab])+ "!""#, &["a!", "aaab!"], &["aaaaaaa"], &["!"]);
    check(r#"root ::= (("a"*)* "b"?)* "."  "#, &[".", "aab.", "bb."], &["ab"], &["c"]);
    check("root ::= \"(\" root \")\" | \"x\"", &["x", "((x))"], &["((", "((x"], &[")", "x)"]);
    // The end of each `a` is open until it comes.
    let twice = "root ::= \"a\" root \"a\" | \"a\" root \"b\" | \"c\"";
    check(twice, &["aaaaaacabbabb", "c", "acb"], &["aaaaac"], &["b", "ca"]);
}

#[test]
fn malformed_grammars_are_refused_with_the_place() {
    let cases = [
        ("", (1, 1), "there is no rule `root`"),
        ("a ::= \"x\"", (1, 1), "there is no rule `root`"),
        ("root ::= a\n", (1, 10), "there is no rule `a`"),
        ("root ::= \"a\"\nb ::= (\"é\" c)\n", (2, 12), "there is no rule `c`"),
        ("root = \"a\"", (1, 6), "expected `::=`, found '='"),
        ("root ::= \"a", (1, 12), "within quotes or brackets"),
        ("root ::= [a", (1, 12), "within quotes or brackets"),
        ("root ::= [a-", (1, 13), "within quotes or brackets"),
        ("root ::= (\"a\"", (1, 14), "expected `)`, found the end"),
        ("root ::= \"a\")", (1, 13), "expected the end of the line, found ')'"),
        ("root ::= \"é\\q\"", (1, 12), "no such escape"),
        ("root ::= \"\\x4\"", (1, 11), "2 hexadecimal digits"),
        ("root ::= \"\\u00g0\"", (1, 11), "4 hexadecimal digits"),
        ("root ::= *", (1, 10), "nothing to repeat"),
        ("root ::= \"\"+", (1, 12), "nothing to repeat"),
        ("root ::= \"a\"{x}", (1, 14), "expected a number"),
        ("root ::= \"a\"{1;2}", (1, 15), "expected `,` or `}`"),
        ("root ::= \"a\"{3,2}", (1, 13), "below the lower one"),
        ("root ::= \"a\"{2001}", (1, 13), "more than 2000 repetitions"),
        ("root ::= \"a\"{99999999999999999999}", (1, 14), "too large"),
        ("root ::= (\"a\"{0,100}){100}", (1, 22), "more than 2000 repetitions"),
        ("root ::= <nothing-like-this>", (1, 10), "is not one token"),
        ("root ::= <[99999]>", (1, 10), "no such token"),
        ("root ::= root \"a\" | \"b\"", (1, 1), "left recursion"),
        ("root ::= a\na ::= b? c\nb ::= \"x\"\nc ::= root", (1, 1), "left recursion"),
    ];
    let tokenizer = tokenizer();
    for (text, (line, column), says) in cases {
        let error = Grammar::parse(text, &tokenizer).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.problem.contains(says), "{text}: {error}");
    }
}

#[test]
fn grammars_that_explode_are_refused() {
    let tokenizer = tokenizer();
    let long = format!("root ::= \"{}\"{{2000}}", "a".repeat(1000));
    assert!(Grammar::parse(&long, &tokenizer).unwrap_err().problem.contains("too large"));
    let groups = format!("root ::= {}\"a\"{}", "(".repeat(5000), ")".repeat(5000));
    assert!(Grammar::parse(&groups, &tokenizer).unwrap_err().problem.contains("groups"));
    let rules: String = (0..70_000).map(|i| format!("r{i} ::= \"a\"\n")).collect();
    assert!(Grammar::parse(&rules, &tokenizer).unwrap_err().problem.contains("rules"));
    // A chain of rules takes no stack of this machine.
    let chain: String = (0..20_000).map(|i| format!("r{i} ::= r{}\n", i + 1)).collect();
    let chain = format!("root ::= r0\n{chain}r20000 ::= \"x\"");
    check(&chain, &["x"], &[""], &["y"]);
}

#[test]
fn stacks_that_explode_are_an_error() {
    // The hidden recursion of `a` grows the stacks without end, before any character.
    let hidden = "root ::= a\na ::= b a \"y\" | \"x\"\nb ::= c\nc ::= \"\"";
    let error = Matcher::try_new(Arc::new(parse(hidden)), BUDGET).unwrap_err();
    assert_eq!(error, Overflow::TooManyWays);
    // Each character doubles the ways to go on.
    let doubles = "root ::= s\ns ::= \"a\" s \"b\" | \"a\" s \"c\" | \"a\" s \"d\" | \"!\"";
    let mut matcher = matcher(doubles);
    let result = (0..100).map(|_| matcher.accept_bytes(b"a")).find(|result| result != &Ok(true));
    assert_eq!(result, Some(Err(Overflow::TooManyWays)));
    assert!(matches!(Overflow::TooManyWays.error(), Error::InvalidConfig { .. }));
}

/// The tokens of a mask. A token beyond the vocabulary would be a fault.
fn tokens_of(mask: &TokenMask, n_vocab: usize) -> BTreeSet<u32> {
    (0..n_vocab as u32 + 64).filter(|token| mask.contains(*token)).collect()
}

#[test]
fn a_mask_has_the_tokens_that_are_allowed_one_by_one() {
    let tokenizer = tokenizer();
    let index = TokenIndex::try_new(&tokenizer).unwrap();
    let grammars = [
        (r#"root ::= "Once upon a time" .*"#, &["", "On", "Once ", "Once upon a time, "][..]),
        ("root ::= [a-f]{2,5} (\" \" [^aeiou]+)?", &["", "ab", "abc x"]),
        ("root ::= [é-ü]+ | [一-龥] \"x\"", &["", "é", "\u{4e00}"]),
        ("root ::= <[300]> [a-z] | !<[301]>{2} | \"t\" <[305]>", &["", "t"]),
    ];
    for (grammar, texts) in grammars {
        for text in texts {
            let mut matcher = matcher(grammar);
            assert!(text.is_empty() || matcher.accept_bytes(text.as_bytes()).unwrap());
            let mut mask = TokenMask::try_new(index.n_vocab(), "mask").unwrap();
            matcher.fill_mask(&index, &mut mask).unwrap();
            let found = tokens_of(&mask, index.n_vocab());
            let allows = |token: &u32| match tokenizer.is_end(*token) {
                true => matcher.may_end(),
                false => matcher.allows(*token, &index).unwrap(),
            };
            let expected: BTreeSet<u32> = (0..index.n_vocab() as u32).filter(allows).collect();
            assert_eq!(found, expected, "{grammar}: {text:?}");
            assert!(found.len() < index.n_vocab() && !found.is_empty());
        }
    }
}

#[test]
fn characters_may_be_cut_between_tokens() {
    let grammar = "root ::= [à-ü] \"€\"";
    let mut matcher = matcher(grammar);
    // 0xc3 begins the characters from À to ÿ.
    assert!(matcher.allows_bytes(&[0xc3]).unwrap());
    for bytes in [&[0xc4][..], &[0x80], &[0xe2], &[0xc3, 0x41], &[0xff], &[0]] {
        assert!(!matcher.allows_bytes(bytes).unwrap(), "{bytes:x?}");
    }
    assert!(matcher.accept_bytes(&[0xc3]).unwrap());
    assert!(!matcher.may_end());
    assert!(!matcher.allows_bytes(&[0x80]).unwrap(), "À is not in the set");
    assert!(!matcher.allows_bytes(b"a").unwrap());
    assert!(matcher.accept_bytes(&[0xa9, 0xe2, 0x82]).unwrap());
    assert!(!matcher.accept_bytes(&[0xad]).unwrap(), "another character");
    assert!(matcher.accept_bytes(&[0xac]).unwrap());
    assert!(matcher.may_end());
}

#[test]
fn any_character_is_valid_utf_8() {
    let mut matcher = matcher("root ::= .{3} | [^a]{2}");
    for bytes in [&[0x80][..], &[0xc0], &[0xc1, 0xbf], &[0xe0, 0x9f], &[0xed, 0xa0], &[0xf0, 0x8f]]
    {
        assert!(!matcher.allows_bytes(bytes).unwrap(), "{bytes:x?}");
    }
    for bytes in [&[0xf4, 0x90][..], &[0xf5], &[0xf8, 0x9f, 0x98, 0x80], &[0xff], &[0xc3, 0xc3]] {
        assert!(!matcher.allows_bytes(bytes).unwrap(), "{bytes:x?}");
    }
    for text in ["é", "\u{800}", "\u{d7ff}\u{e000}", "\u{10000}", "\u{10ffff}"] {
        for n in 1..=text.len() {
            assert!(matcher.allows_bytes(&text.as_bytes()[..n]).unwrap(), "{text:?}: {n}");
        }
    }
}

/// The answer of a sampler that wants `wanted` most, held to a grammar.
fn answer(grammar: &str, trigger: Trigger, wanted: &str) -> String {
    let tokenizer = tokenizer();
    let index = Arc::new(TokenIndex::try_new(&tokenizer).unwrap());
    let mut constraint = Constraint::try_new(Arc::new(parse(grammar)), trigger, index).unwrap();
    let mut sampler = Sampler::new(SamplingConfig::greedy());
    let mut scratch = vec![Candidate::default(); tokenizer.n_vocab()];
    let mut tokens = Vec::new();
    let wanted = tokenizer.encode(wanted, false, true);
    for i in 0..60 {
        let mut logits: Vec<f32> = (0..tokenizer.n_vocab()).map(|i| -(i as f32)).collect();
        let best = wanted.get(i).copied().unwrap_or(tokenizer.ends()[0]);
        logits[best as usize] = 1.0;
        let (token, drawn) = constraint.sample(&mut sampler, &logits, &mut scratch).unwrap();
        assert_eq!(drawn[0].token(), token);
        if tokenizer.is_end(token) {
            return tokenizer.decode(&tokens).unwrap();
        }
        tokens.push(token);
    }
    panic!("no end: {:?}", tokenizer.decode(&tokens));
}

#[test]
fn an_answer_is_one_of_the_grammar() {
    let yes_or_no = r#"root ::= " yes" | " no""#;
    assert_eq!(answer(yes_or_no, Trigger::Start, "no"), " no");
    assert_eq!(answer("root ::= [0-9]{2} \".\"", Trigger::Start, "The number is seven.").len(), 3);
}

#[test]
fn a_grammar_may_begin_at_a_trigger() {
    let call = r#"root ::= "<call>" [0-9]{3} "</call>""#;
    let trigger = || Trigger::Text("<call>".to_string());
    assert_eq!(answer(call, trigger(), "I do not call."), " I do not call.");
    let called = answer(call, trigger(), "So: <call> now, please");
    assert!(called.starts_with(" So: <call>") && called.ends_with("</call>"), "{called}");
    assert!(reads(call, called.trim_start_matches(" So: ")).0, "{called}");
    let at_start = || Trigger::StartingText("{\"name\"".to_string());
    let object = "root ::= \"{\\\"name\\\": \" [0-9] \"}\"";
    assert_eq!(answer(object, at_start(), "no {\"name\": x}"), " no {\"name\": x}");
}

#[test]
fn nothing_is_left_of_a_token_that_was_only_tried() {
    let tokenizer = tokenizer();
    let index = TokenIndex::try_new(&tokenizer).unwrap();
    let mut matcher = matcher("root ::= (\"a\" | \"an\" | [a-z]+ \" \")* \".\"");
    let mut mask = TokenMask::try_new(index.n_vocab(), "mask").unwrap();
    matcher.accept_bytes(b"an ").unwrap();
    let before = matcher.n_nodes();
    matcher.fill_mask(&index, &mut mask).unwrap();
    matcher.allows_bytes(b"another one ").unwrap();
    matcher.allows_bytes(b"").unwrap();
    assert_eq!(matcher.n_nodes(), before);
    for _ in 0..1000 {
        matcher.accept_bytes(b"an a ").unwrap();
    }
    assert_eq!(matcher.n_nodes(), before, "a list without end takes no memory");
}
