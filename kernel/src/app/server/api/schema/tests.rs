//! JSON schemas: the texts that their grammars allow, and what is refused.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};

use serde_json::{Value, json};

use super::*;
use crate::llm::grammar::{Constraint, Grammar, Halt, TokenIndex, Trigger};
use crate::llm::sampling::{Candidate, Sampler, SamplingConfig, SplitMix64};
use crate::llm::tokenizer::Tokenizer;

use crate::app::server::api::testing;

fn raw(schema: &Value) -> Box<RawValue> {
    RawValue::from_string(schema.to_string()).unwrap()
}

/// The grammar of a schema, read back.
fn parsed(schema: &Value, tokenizer: &Tokenizer) -> Arc<Grammar> {
    let text = grammar("s", &raw(schema)).unwrap_or_else(|error| panic!("{schema}: {error:?}"));
    let grammar = Grammar::parse(&text, tokenizer);
    Arc::new(grammar.unwrap_or_else(|error| panic!("{schema}: {error}\n{text}")))
}

fn refusal(schema: &str) -> String {
    grammar("s", &RawValue::from_string(schema.into()).unwrap()).unwrap_err().message
}

#[track_caller]
fn check(schema: &Value, allowed: &[&str], refused: &[&str]) {
    let tokenizer = testing::tokenizer();
    let grammar = parsed(schema, &tokenizer);
    let reads = |text: &str| grammar.reads(text.as_bytes()).unwrap();
    for text in allowed {
        assert!(reads(text), "{schema} allows {text}");
    }
    for text in refused {
        assert!(!reads(text), "{schema} refuses {text}");
    }
}

#[test]
fn each_type_has_its_texts() {
    check(&json!({ "type": "null" }), &["null"], &["", "nul", "NULL", "0"]);
    check(&json!({ "type": "boolean" }), &["true", "false"], &["1", "truefalse"]);
    check(&json!({ "type": "integer" }), &["0", "-12", "1234567890123456"], &["01", "1.0", "+1"]);
    let numbers = ["0", "-1.5", "1e9", "2.25E-10"];
    check(&json!({ "type": "number" }), &numbers, &["1.", ".5", "1e", "--1"]);
    let texts = [r#""""#, r#""é \" \\ \n \u00e9""#];
    check(&json!({ "type": "string" }), &texts, &["\"", "\"a\nb\"", r#""\x""#, "a"]);
    check(&json!({ "type": "array" }), &["[]", "[1, \"a\",[null]]"], &["[1,]", "[", "{}"]);
    let objects = ["{}", r#"{"a":1,"a":{"b": []}}"#];
    check(&json!({ "type": "object" }), &objects, &["[]", r#"{"a"}"#, r#"{a:1}"#]);
    check(&json!({}), &["{}"], &["1"]);
    check(&json!({ "description": "anything" }), &["{}", "1", "[true]", "\"a\""], &["x"]);
    check(&json!({ "type": ["null", "integer"] }), &["null", "7"], &["true", "7.5"]);
}

#[test]
fn objects_have_their_properties_in_order() {
    let schema = json!({
        "type": "object",
        "properties": { "b": { "type": "null" }, "a": { "type": "null" }, "c": { "type": "null" } },
        "required": ["a"],
    });
    let allowed = [
        r#"{"a":null}"#,
        r#"{ "a": null, "b": null }"#,
        r#"{"a":null,"c":null}"#,
        r#"{"a":null,"b":null,"c":null}"#,
    ];
    let refused = [
        "{}",
        r#"{"b":null,"a":null}"#,
        r#"{"a":null,"c":null,"b":null}"#,
        r#"{"a":null,"d":null}"#,
        r#"{"a":null,}"#,
        r#"{"a":null,"b":null,"b":null}"#,
    ];
    // `json!` sorts the names: b comes behind a.
    check(&schema, &allowed, &refused);
    let optional = json!({ "properties": { "x": { "type": "null" }, "y": { "type": "null" } } });
    let allowed = ["{}", r#"{"x":null}"#, r#"{"y":null}"#, r#"{"x":null,"y":null}"#];
    check(&optional, &allowed, &[r#"{"y":null,"x":null}"#, r#"{,"x":null}"#]);
}

#[test]
fn other_properties_have_other_names() {
    let nothing = json!({ "type": "null" });
    let schema = json!({
        "type": "object", "properties": { "and": nothing, "also": nothing, "é\"": nothing },
        "additionalProperties": { "type": "integer" },
    });
    let allowed = [
        r#"{"also":null,"and":null,"é\"":null,"b":1,"an":2,"ands":3,"":4,"al":5}"#,
        r#"{"x":1,"y":2}"#,
        r#"{"é":1}"#,
    ];
    let refused = [r#"{"and":1}"#, r#"{"also":7}"#, r#"{"x":null}"#, r#"{"é\"":1}"#, r#"{"\":1}"#];
    check(&schema, &allowed, &refused);
    let closed = json!({ "type": "object", "additionalProperties": false });
    check(&closed, &["{}"], &[r#"{"a":1}"#]);
    let any = json!({ "type": "object", "additionalProperties": { "type": "null" } });
    check(&any, &["{}", r#"{"a":null,"b":null}"#], &[r#"{"a":1}"#]);
}

#[test]
fn lists_have_their_lengths() {
    let items = |least: usize, most: usize| json!({ "type": "array", "items": { "type": "null" }, "minItems": least, "maxItems": most });
    let lists = ["[]", "[null]", "[null,null]", "[null,null,null]"];
    for least in 0..=2 {
        for most in least..=3 {
            let is_allowed = |n: usize| (least..=most).contains(&n);
            let (mut allowed, mut refused) = (vec![], vec![]);
            for (n, list) in lists.into_iter().enumerate() {
                if is_allowed(n) { allowed.push(list) } else { refused.push(list) }
            }
            check(&items(least, most), &allowed, &refused);
        }
    }
    let tuple = json!({ "prefixItems": [{ "type": "null" }, { "type": "boolean" }] });
    check(&tuple, &["[null,true]"], &["[null]", "[true,null]", "[null,true,null]"]);
    let text = json!({ "type": "string", "minLength": 2, "maxLength": 3 });
    check(&text, &[r#""ab""#, r#""é\n€""#], &[r#""a""#, r#""abcd""#]);
}

#[test]
fn integers_keep_to_their_bounds() {
    let tokenizer = testing::tokenizer();
    let bounds = [(0, 0), (3, 7), (0, 99), (8, 12), (37, 1402), (-5, 5), (-120, -7), (-3, 250)];
    for (low, high) in bounds {
        let both = json!({ "type": "integer", "minimum": low, "maximum": high });
        let grammar = parsed(&both, &tokenizer);
        for n in -1500..=1500 {
            let is_read = grammar.reads(format!("{n}").as_bytes()).unwrap();
            assert_eq!(is_read, (low..=high).contains(&n), "{n} from {low} to {high}");
        }
        for zeros in ["00", "01", "007", "-01"] {
            assert!(!grammar.reads(zeros.as_bytes()).unwrap(), "{zeros} from {low} to {high}");
        }
    }
    let above = json!({ "type": "integer", "exclusiveMinimum": 9 });
    check(&above, &["10", "9999999999999999"], &["9", "-1", "0"]);
    let below = json!({ "type": "integer", "exclusiveMaximum": -9.5 });
    check(&below, &["-10", "-999999999999999"], &["-9", "0", "1"]);
    let rounded = json!({ "type": "integer", "minimum": 0.5, "maximum": 2.5 });
    check(&rounded, &["1", "2"], &["0", "3"]);
}

#[test]
fn values_are_chosen_and_combined() {
    let values = json!({ "enum": ["a b", 1.5, null, { "k": [true, "\u{e9} x"] }] });
    check(&values, &[r#""a b""#, "1.5", "null", r#"{"k":[true,"é x"]}"#], &["a b", "1", "{}"]);
    check(&json!({ "const": null }), &["null"], &["{}"]);
    // A lone surrogate is in no text of Rust, so `json!` has none.
    let lone = RawValue::from_string(r#"{"const":["\ud800"]}"#.into()).unwrap();
    let tokenizer = testing::tokenizer();
    let lone = Arc::new(Grammar::parse(&grammar("s", &lone).unwrap(), &tokenizer).unwrap());
    assert!(lone.reads(br#"["\ud800"]"#).unwrap() && !lone.reads(b"[]").unwrap());
    let any = json!({ "anyOf": [{ "type": "null" }, { "const": "x" }] });
    check(&any, &["null", "\"x\""], &["x", "true"]);
    let one = json!({ "oneOf": [{ "type": "boolean" }, { "type": "integer", "maximum": 3, "minimum": 2 }] });
    check(&one, &["true", "2", "3"], &["4"]);
    let all = json!({
        "$defs": { "b": { "properties": { "b": { "const": 2 } } } },
        "allOf": [{ "properties": { "a": { "const": 1 } } }, { "$ref": "#/$defs/b" }],
    });
    check(&all, &[r#"{"a":1,"b":2}"#], &["{}", r#"{"a":1}"#]);
    let common = json!({ "allOf": [{ "enum": [1, 2, 3] }, { "enum": [3, 2] }] });
    check(&common, &["2", "3"], &["1"]);
}

#[test]
fn references_may_be_recursive() {
    let tree = json!({
        "$defs": { "node": {
            "type": "object", "required": ["next"],
            "properties": { "next": { "anyOf": [{ "$ref": "#/$defs/node" }, { "type": "null" }] } },
        } },
        "$ref": "#/$defs/node",
    });
    check(&tree, &[r#"{"next":{"next":null}}"#], &["null", r#"{"next":{}}"#]);
    let root = json!({ "type": "array", "items": { "$ref": "#" } });
    check(&root, &["[]", "[[],[[]]]"], &["[1]", "[null]"]);
    let strange = json!({ "a~/b": [{ "const": 1 }], "$ref": "#/a~0~1b/0" });
    check(&strange, &["1"], &["2"]);
    let error = |to: &str| refusal(&json!({ "$ref": to }).to_string());
    assert!(error("#/$defs/x").contains("which is not there"));
    assert!(error("https://example.com/x").contains("only references within the schema"));
    // A rule that is itself alone is left recursion.
    let itself = grammar("s", &raw(&json!({ "$ref": "#" }))).unwrap();
    assert!(Grammar::parse(&itself, &testing::tokenizer()).is_err());
}

#[test]
fn texts_match_their_formats_and_patterns() {
    let format = |name: &str| json!({ "type": "string", "format": name });
    check(&format("date"), &[r#""2026-11-30""#], &[r#""2026-13-01""#, r#""2026-1-1""#]);
    check(&format("time"), &[r#""23:59:59Z""#, r#""01:02:03.456+01:00""#], &[r#""24:00:00Z""#]);
    check(&format("date-time"), &[r#""2026-11-30T01:02:03Z""#], &[r#""2026-11-30""#]);
    let uuid = r#""123e4567-e89b-12d3-a456-426614174000""#;
    check(&format("uuid"), &[uuid], &[r#""123e4567""#]);
    check(&format("email"), &[r#""anything""#], &[]);

    let pattern = |text: &str| json!({ "type": "string", "pattern": text });
    check(&pattern("^[A-Z]{2}-\\d+$"), &[r#""AB-1""#, r#""XY-99""#], &[r#""A-1""#, r#""AB-""#]);
    check(&pattern("^(ab|c)*d?$"), &[r#""""#, r#""abcd""#, r#""cc""#], &[r#""a""#, r#""dd""#]);
    check(&pattern("b+"), &[r#""abc""#, r#""b""#], &[r#""ac""#]);
    check(&pattern("^a"), &[r#""abc""#], &[r#""ba""#]);
    check(&pattern("a$"), &[r#""bca""#], &[r#""ab""#]);
    check(&pattern("^a\\$$"), &[r#""a$""#], &[r#""a""#]);
    check(&pattern("^[^a-y\\s]{1,2}?$"), &[r#""z""#, r#""é1""#], &[r#""a""#, r#"" ""#, r#""zzz""#]);
    check(&pattern("^[\\]\\-x]$"), &[r#""]""#, r#""-""#, r#""x""#], &[r#""\\""#]);
    // What JSON escapes is escaped.
    check(&pattern("^.$"), &[r#""\"""#, r#""\\""#, r#""\t""#, r#""a""#], &[r#"""""#, r#""\n""#]);
    check(&pattern("^\"\\n\\\\$"), &[r#""\"\n\\""#], &[]);
    check(&pattern("^(?:é|\\u00e8)$"), &[r#""é""#, r#""è""#], &[]);
    for (pattern, says) in [
        ("^a(?=b)$", "(at character 5)"),
        ("^(a$", "a group has no end"),
        ("^a)$", "closes no group"),
        ("^[a$", "a class has no end"),
        ("^*$", "nothing to repeat"),
        ("^a{2,1}$", "below the lower one"),
        ("a^b", "at the ends only"),
        ("^\\p{L}$", "this escape is not supported"),
        ("^[b-a]$", "ends before its start"),
    ] {
        let schema = json!({ "type": "object", "properties": { "p": { "pattern": pattern } } });
        let message = refusal(&schema.to_string());
        assert!(message.contains(says), "{pattern}: {message}");
        assert!(message.starts_with("`s.properties.p.pattern`: "), "{message}");
    }
}

#[test]
fn malformed_schemas_are_refused_with_the_place() {
    for (schema, says) in [
        ("[]", "`s`: "),
        (r#"{"type":"foo"}"#, "`s.type`: there is no type `foo`"),
        (r#"{"type":7}"#, "`s.type`: "),
        (r#"{"properties":{"a":{"items":{"type":"x"}}}}"#, "`s.properties.a.items.type`: "),
        (r#"{"properties":[]}"#, "`s.properties`: "),
        (r#"{"anyOf":[]}"#, "`s`: `anyOf`: an empty list"),
        (r#"{"anyOf":[{"type":"null"},{"enum":[]}]}"#, "`s.anyOf[1].enum`: an empty list"),
        (r#"{"type":"integer","minimum":5,"maximum":4}"#, "`s.minimum`: no integer"),
        (r#"{"type":"string","minLength":5,"maxLength":4}"#, "`s.maxLength`: below"),
        (r#"{"type":"string","minLength":-1}"#, "`s.minLength`: "),
        (r#"{"properties":{"a":false}}"#, "`s.properties.a`: "),
    ] {
        let message = refusal(schema);
        assert!(message.contains(says), "{schema}: {message}");
    }
}

#[test]
fn schemas_that_explode_are_refused() {
    let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(100), "}".repeat(100));
    assert!(refusal(&deep).contains("too many levels"));
    // Each level visits the next one ten times.
    let kinds = format!("[{}]", ["\"array\""; 10].join(","));
    let mut many = String::from("{}");
    for _ in 0..20 {
        many = format!(r#"{{"type":{kinds},"items":{many}}}"#);
    }
    assert!(refusal(&many).contains("too large"));
    let names: Vec<String> =
        (0..900).map(|i| format!(r#""{i}{}":{{}}"#, "x".repeat(500))).collect();
    let long = format!(r#"{{"properties":{{{}}},"additionalProperties":true}}"#, names.join(","));
    assert!(refusal(&long).contains("too large"));
    // References to each other are followed once.
    let defs: Vec<String> =
        (0..200).map(|i| format!(r##""d{i}":{{"$ref":"#/$defs/d{}"}}"##, (i + 1) % 200)).collect();
    let circle = format!(r##"{{"$defs":{{{}}},"$ref":"#/$defs/d0"}}"##, defs.join(","));
    assert!(refusal(&circle).contains("too many levels"));
}

/// A random schema of keywords that hold every answer to them.
fn random_schema(random: &mut SplitMix64, depth: usize) -> Value {
    let mut below = |n: u64| random.next_u64() % n;
    let kind = below(if depth == 0 { 8 } else { 12 });
    match kind {
        0 => json!({ "type": "boolean" }),
        1 => json!({ "type": ["null", "integer"] }),
        2 => {
            let low = below(2000) as i64 - 1000;
            json!({ "type": "integer", "minimum": low, "maximum": low + below(500) as i64 })
        }
        3 => json!({ "type": "number" }),
        4 => json!({ "type": "string", "minLength": below(3), "maxLength": 3 + below(5) }),
        5 => json!({ "enum": ["red", 7, null, { "a": [below(9)] }] }),
        6 => {
            let format = ["date", "time", "uuid"][below(3) as usize];
            json!({ "type": "string", "format": format })
        }
        7 => {
            let patterns = ["^[a-c]{1,3}x$", "^(yes|no)$", "\\d", "^.{2}$"];
            json!({ "type": "string", "pattern": patterns[below(4) as usize] })
        }
        8 => {
            json!({ "anyOf": [random_schema(random, depth - 1), random_schema(random, depth - 1)] })
        }
        9 => {
            let (least, most) = (below(2), 2 + below(2));
            let items = random_schema(random, depth - 1);
            json!({ "type": "array", "items": items, "minItems": least, "maxItems": most })
        }
        _ => {
            let names = ["a", "name", "é", "x y", "\"q\""];
            let n = 1 + below(4) as usize;
            let required: Vec<&str> =
                names[..n].iter().copied().filter(|_| below(2) == 0).collect();
            let is_open = below(3) == 0;
            let properties: serde_json::Map<String, Value> = names[..n]
                .iter()
                .map(|name| (name.to_string(), random_schema(random, depth - 1)))
                .collect();
            let mut schema =
                json!({ "type": "object", "properties": properties, "required": required });
            if is_open {
                schema["additionalProperties"] = json!({ "type": "integer" });
            }
            schema
        }
    }
}

/// A random answer that the grammar allows, from a model of noise; `None` if it does not end.
fn random_answer(
    schema: &Value,
    tokenizer: &Tokenizer,
    index: &Arc<TokenIndex>,
    random: &mut SplitMix64,
) -> Option<String> {
    let grammar = parsed(schema, tokenizer);
    let mut constraint = Constraint::try_new(grammar, Trigger::Start, index.clone()).unwrap();
    let mut sampler = Sampler::new(SamplingConfig::greedy());
    let mut scratch = vec![Candidate::default(); tokenizer.n_vocab()];
    let mut tokens = Vec::new();
    for _ in 0..400 {
        let mut logits: Vec<f32> =
            (0..tokenizer.n_vocab()).map(|_| random.next_unit() as f32).collect();
        // Answers come to an end, and most of them soon.
        for (token, bias) in [("\"", 3.0), ("}", 2.0), ("]", 2.0), (",", 0.5)] {
            let token = *tokenizer.encode(token, false, false).last().unwrap();
            logits[token as usize] += bias;
        }
        match constraint.sample(&mut sampler, &logits, &mut scratch) {
            Ok((token, _)) if tokenizer.is_end(token) => {
                return Some(tokenizer.decode(&tokens).unwrap());
            }
            Ok((token, _)) => tokens.push(token),
            Err(Halt::Complete) => panic!("the model has a token that ends answers"),
            Err(halt) => panic!("{schema}: {halt:?} behind {:?}", tokenizer.decode(&tokens)),
        }
    }
    None
}

#[test]
fn every_answer_to_a_random_schema_parses() {
    const N: usize = 60;
    let tokenizer = testing::tokenizer();
    let index = Arc::new(TokenIndex::try_new(&tokenizer).unwrap());
    let mut random = SplitMix64::new(20);
    let mut n_ended = 0;
    for _ in 0..N {
        let schema = random_schema(&mut random, 3);
        let answer = random_answer(&schema, &tokenizer, &index, &mut random);
        let Some(answer) = answer else { continue };
        let parsed = serde_json::from_str::<Value>(&answer);
        assert!(parsed.is_ok(), "{schema}\n{answer}\n{parsed:?}");
        n_ended += 1;
    }
    assert!(n_ended * 10 >= N * 8, "{n_ended} of {N} answers ended");
}
