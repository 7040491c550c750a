//! Requests whose bodies are made to exhaust the server: they are refused, and others are served.

use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use host_io::http::{self, Server};
use serde_json::{Map, Value, json};

use super::good_client::{Undisturbed, beside};
use super::serve::{completion, server, with_clients};
use crate::check::{Check, Group, Passed, check};
use crate::lab::Lab;

/// Levels of what is nested.
const DEEP: usize = 10_000;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    vec![check("attack-bodies", bodies).only_in(&[Group::Torture])]
}

/// A request, and its answer.
#[derive(Clone)]
struct Hostile {
    name: &'static str,
    body: Vec<u8>,
    status: u16,
    /// Words of the answer.
    words: &'static str,
}

fn bodies(lab: &Lab) -> Result<Passed> {
    let boot = server("attack-bodies").limit_s(600);
    let (_, seen) = with_clients(lab, &boot, |server| {
        // One after the other: QEMU's network loses requests in parts that come at once.
        let all = [texts(), grammars(), schemas()].concat();
        let answered = || all.iter().try_for_each(|one| one.is_answered(server));
        // The first grammar leaves an index of the model's tokens behind.
        answered()?;
        beside(server, "tiny", || {
            answered()?;
            cut_in_two(server)?;
            Ok(all.len())
        })
    })?;
    let Undisturbed { result, streams, memory } = seen;
    Ok(Passed::with(format!("{result} bodies, {streams} streams, {memory} bytes in use")))
}

impl Hostile {
    fn is_answered(&self, server: Server) -> Result<()> {
        let Hostile { name, body, status, words } = self;
        let answer = post(server, &[body]).context(*name)?;
        ensure!(
            answer.status == *status && answer.body.contains(words),
            "{name}: expected {status} with {words:?}, seen {answer:?}"
        );
        Ok(())
    }
}

/// Sends a body in chunks, and reads the response.
fn post(server: Server, chunks: &[&[u8]]) -> Result<http::Response> {
    let mut stream = server.connect()?;
    let head = "POST /completion HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut request = head.as_bytes().to_vec();
    for chunk in chunks {
        request.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        request.extend_from_slice(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    // The server may refuse the request before the body's end.
    let _ = stream.write_all(&request);
    http::read(stream)
}

/// A character that is cut in two by chunks is whole in the prompt.
fn cut_in_two(server: Server) -> Result<()> {
    let body = completion("h\u{e9}\u{1f600}", 8).to_string();
    let whole = server.post("/completion", &serde_json::from_str(&body)?)?.json()?;
    let bytes = body.as_bytes();
    for place in (0..bytes.len()).filter(|&place| !body.is_char_boundary(place)) {
        let (start, end) = bytes.split_at(place);
        let cut = post(server, &[start, end])?.json()?;
        ensure!(cut["content"] == whole["content"], "cut at byte {place}: {cut}\nwhole: {whole}");
    }
    Ok(())
}

/// `opening`, `DEEP` times, then `inner`, then as many times `closing`.
fn nested(opening: &str, inner: &str, closing: &str) -> String {
    opening.repeat(DEEP) + inner + &closing.repeat(DEEP)
}

/// `part(i)` for each number below `n`, joined.
fn joined(n: usize, part: impl Fn(usize) -> String) -> String {
    (0..n).map(part).collect()
}

/// A completion of `n` tokens with one more field.
fn with(n: usize, key: &str, value: Value) -> Vec<u8> {
    let mut body = completion("A", n);
    body[key] = value;
    body.to_string().into_bytes()
}

/// Bodies that are no JSON, or JSON that nobody would send.
fn texts() -> Vec<Hostile> {
    let deep = format!("{{\"prompt\": {}}}", nested("[", "", "]"));
    let long = format!("{{\"prompt\": [{}]}}", "9".repeat(100_000));
    let many = format!("{{{}\"prompt\": 0}}", joined(100_000, |i| format!("\"k{i}\": 0, ")));
    let all: [(_, Vec<u8>, _); 11] = [
        ("arrays", nested("[", "", "]").into(), "expected an object"),
        ("objects", nested("{\"a\":", "1", "}").into(), "`prompt`"),
        ("a prompt of arrays", deep.into(), "recursion limit exceeded"),
        ("half a character", b"{\"prompt\": \"\xc3\"}".into(), "invalid unicode"),
        ("an overlong character", b"{\"prompt\": \"\xc0\xaf\"}".into(), "invalid unicode"),
        ("a surrogate", b"{\"prompt\": \"\xed\xa0\x80\"}".into(), "invalid unicode"),
        ("half a surrogate pair", b"{\"prompt\": \"\\ud83d\"}".into(), "hex escape"),
        ("an open text", b"{\"prompt\": \"a".into(), "EOF while parsing"),
        ("a huge number", b"{\"prompt\": \"a\", \"n_predict\": 1e999}".into(), "out of range"),
        ("a long number", long.into(), "out of range"),
        ("many keys", many.into(), "more than 1024 fields"),
    ];
    all.map(|(name, body, words)| Hostile { name, body, status: 400, words }).into()
}

/// Grammars that are large, endless or ambiguous.
fn grammars() -> Vec<Hostile> {
    let chain = joined(20_000, |i| format!("r{i} ::= r{} r{}\n", i + 1, i + 1));
    let all: [(_, String, _, _); 12] = [
        ("groups", format!("root ::= {}", nested("(", "\"a\"", ")")), 400, "more than 100 groups"),
        ("left recursion", "root ::= root \"a\" | \"a\"".into(), 400, "left recursion"),
        ("hidden", "root ::= a root\na ::= \"\" | b\nb ::= a".into(), 400, "left recursion"),
        ("powers", "root ::= (((\"a\"{999}){999}){999}){999}".into(), 400, "2000 repetitions"),
        ("a repetition", "root ::= \"a\"{1000000000}".into(), 400, "2000 repetitions"),
        ("a chain", format!("root ::= r0\n{chain}r20000 ::= \"a\""), 200, "aaaa"),
        ("alternatives", format!("root ::= {}", "[a-z]* | ".repeat(200_000)), 400, "too large"),
        ("a literal", format!("root ::= \"{}\"", "a".repeat(1 << 20)), 400, "too large"),
        ("classes", format!("root ::= {}", "[^a-z] ".repeat(200_000)), 400, "too large"),
        // Many ways to read an answer are one where they end alike.
        ("optional items", format!("root ::= ({})*", "\"a\"? ".repeat(500)), 200, "aaaa"),
        ("two ways", "root ::= a*\na ::= b | c\nb ::= [a-z] a?\nc ::= [a-z] a?".into(), 200, ""),
        (
            "a tree",
            "root ::= s\ns ::= [^!] | [^!] s | [^!] s s | [^!] s s s".into(),
            400,
            "too many ways",
        ),
    ];
    let hostile = |(name, grammar, status, words)| {
        let body = with(40, "grammar", Value::String(grammar));
        Hostile { name, body, status, words }
    };
    all.map(hostile).into()
}

/// Schemas that are large, or whose values are.
fn schemas() -> Vec<Hostile> {
    let members = |n: usize, name: &str, value: &dyn Fn(usize) -> Value| -> Value {
        (0..n).map(|i| (format!("{name}{i}"), value(i))).collect::<Map<_, _>>().into()
    };
    let cycle = members(2, "d", &|i| json!({ "$ref": format!("#/$defs/d{}", 1 - i) }));
    let lists = members(40, "d", &|i| {
        let item = json!({ "$ref": format!("#/$defs/d{}", (i + 1).min(39)) });
        json!({ "type": "array", "prefixItems": [item, item], "minItems": 2 })
    });
    let start = |defs: Value| json!({ "$ref": "#/$defs/d0", "$defs": defs });
    let optional = members(5000, "p", &|_| json!({ "type": "integer" }));
    let values: Vec<usize> = (0..200_000).collect();
    let choices = vec![json!({ "type": "string" }); 50_000];
    let pattern = |text: &str| json!({ "type": "string", "pattern": text });
    let all = [
        ("a cycle", start(cycle), 400, "left recursion"),
        ("lists of lists", start(lists), 400, "too many levels"),
        ("a long list", json!({ "type": "array", "minItems": 1e9 as u64 }), 400, "repetitions"),
        ("a long text", json!({ "type": "string", "minLength": 1e9 as u64 }), 400, "repetitions"),
        ("a deep pattern", pattern(&nested("(", "a", ")")), 400, "too many groups"),
        ("powers", pattern("^((a{999}){999}){999}$"), 200, "aaaa"),
        ("many values", json!({ "enum": values }), 400, "more than 4096"),
        (
            "many members",
            json!({ "type": "object", "properties": optional }),
            400,
            "more than 1024",
        ),
        ("many choices", json!({ "anyOf": choices }), 400, "more than 4096"),
    ];
    let hostile = |(name, schema, status, words)| {
        let body = with(40, "json_schema", schema);
        Hostile { name, body, status, words }
    };
    all.map(hostile).into()
}
