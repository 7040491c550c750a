//! The text of a grammar, rule by rule.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::{Converter, Place};
use crate::app::server::api::error::ApiError;
use crate::app::server::api::request::object::Object;
use crate::app::server::api::to_json;

/// The most rules of a grammar.
const MAX_RULES: usize = 1 << 14;
/// The most bytes of a grammar's text.
const MAX_BYTES: usize = 1 << 20;

/// The rules that any schema may use: name, body, and the rules that the body uses.
const RULES: &[(&str, &str, &[&str])] = &[
    ("space", r#"| " " | "\n"{1,2} [ \t]{0,20}"#, &[]),
    ("null", r#""null""#, &[]),
    ("boolean", r#""true" | "false""#, &[]),
    ("digits", "[0-9]{1,16}", &[]),
    ("natural", r#""0" | [1-9] [0-9]{0,15}"#, &[]),
    ("integer", r#""-"? natural"#, &["natural"]),
    ("number", r#"integer ("." digits)? ([eE] [-+]? natural)?"#, &["integer", "digits"]),
    ("char", r#"[^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4})"#, &[]),
    ("string", r#""\"" char* "\"""#, &["char"]),
    ("member", r#"string ":" space value"#, &["string", "space", "value"]),
    ("object", r#""{" space (member ("," space member)*)? space "}""#, &["space", "member"]),
    ("array", r#""[" space (value ("," space value)*)? space "]""#, &["space", "value"]),
    (
        "value",
        "object | array | string | number | boolean | null",
        &["object", "array", "string", "number", "boolean", "null"],
    ),
    ("uuid", r#""\"" [0-9a-fA-F]{8} ("-" [0-9a-fA-F]{4}){3} "-" [0-9a-fA-F]{12} "\"""#, &[]),
    (
        "date",
        r#"[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])"#,
        &[],
    ),
    (
        "time",
        r#"hour ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{3})? ("Z" | [-+] hour ":" [0-5] [0-9])"#,
        &["hour"],
    ),
    ("hour", r#"[01] [0-9] | "2" [0-3]"#, &[]),
];

/// The text of a grammar, rule by rule.
#[derive(Debug, Default)]
pub struct GrammarText {
    /// Names and bodies.
    rules: Vec<(String, String)>,
    n_bytes: usize,
    n_names: usize,
    pub(super) n_schemas: usize,
}

impl GrammarText {
    /// A grammar without rules.
    pub fn new() -> Self {
        GrammarText::default()
    }

    /// Adds a rule, and returns its name: `hint` with a number.
    ///
    /// # Errors
    /// The grammar becomes too large.
    pub fn add(&mut self, hint: &str, body: String) -> Result<String, ApiError> {
        let name = self.name(hint);
        self.push(name.clone(), body)?;
        Ok(name)
    }

    /// A name that no other rule has.
    pub(super) fn name(&mut self, hint: &str) -> String {
        self.n_names = self.n_names.saturating_add(1);
        format!("{hint}-{}", self.n_names)
    }

    /// Adds the rule `root`.
    ///
    /// # Errors
    /// The grammar becomes too large.
    pub fn root(&mut self, body: String) -> Result<(), ApiError> {
        self.push("root".into(), body)
    }

    pub(super) fn push(&mut self, name: String, body: String) -> Result<(), ApiError> {
        self.n_bytes = self.n_bytes.saturating_add(name.len()).saturating_add(body.len());
        if self.rules.len() >= MAX_RULES || self.n_bytes > MAX_BYTES {
            return Err(ApiError::invalid("the JSON schema is too large for a grammar"));
        }
        self.rules.push((name, body));
        Ok(())
    }

    /// Adds the rules of any object, and returns the name of the first one.
    ///
    /// # Errors
    /// The grammar becomes too large.
    pub fn object(&mut self) -> Result<String, ApiError> {
        self.use_rule("object")
    }

    /// Adds one of [`RULES`], with those that it uses.
    pub(super) fn use_rule(&mut self, name: &'static str) -> Result<String, ApiError> {
        let mut wanted = Vec::from([name]);
        while let Some(name) = wanted.pop() {
            let of_name = |rule: &&(&str, &str, &'static [&'static str])| rule.0 == name;
            let is_there = self.rules.iter().any(|(other, _)| other == name);
            if let Some((_, body, uses)) = RULES.iter().find(of_name).filter(|_| !is_there) {
                self.push(name.into(), (*body).into())?;
                wanted.extend_from_slice(uses);
            }
        }
        Ok(name.into())
    }

    /// Adds the rules of a schema, and returns the name of the first one.
    ///
    /// `place` is the schema's place in the request, for errors.
    ///
    /// # Errors
    /// The schema is malformed, or too large.
    pub fn schema(&mut self, place: &str, schema: &RawValue) -> Result<String, ApiError> {
        self.use_rule("space")?;
        let object = Object::from_value(place, schema)?;
        // As in llama-server, a schema that says nothing is that of an object.
        if object.all().next().is_none() {
            return self.use_rule("object");
        }
        let place = Place { hint: "schema", path: place, schema, depth: 0 };
        Converter { text: self, root: schema, references: Vec::new() }.visit(&place)
    }

    /// Adds a rule for a key in quotation marks that is none of these names.
    ///
    /// There is a rule for each start of a name. It goes on with a character of a name, or with
    /// another one, which is not escaped.
    pub(super) fn other_key(&mut self, names: &[&str]) -> Result<String, ApiError> {
        self.use_rule("char")?;
        let mut names: Vec<Vec<String>> = names.iter().map(|name| characters(name)).collect();
        names.sort();
        names.dedup();
        let first = self.name("key");
        let mut starts = Vec::from([(0..names.len(), 0_usize, first.clone())]);
        while let Some((of_start, n, rule)) = starts.pop() {
            let mut parts = Vec::new();
            let mut excluded = String::new();
            let mut is_name = false;
            let mut at = of_start.start;
            while let Some(name) = names.get(at).filter(|_| at < of_start.end) {
                let Some(next) = name.get(n) else {
                    is_name = true;
                    at = at.saturating_add(1);
                    continue;
                };
                let same = |name: &&Vec<String>| name.get(n) == Some(next);
                let n_same = names[at..of_start.end].iter().take_while(same).count();
                let end = at.saturating_add(n_same);
                let child = self.name("key");
                parts.push(format!("{} {child}", quoted(next)));
                if !next.starts_with('\\') {
                    next.chars().for_each(|c| push_escaped(c, &mut excluded));
                }
                starts.push((at..end, n.saturating_add(1), child));
                at = end;
            }
            parts.push(match parts.is_empty() {
                true => "char char*".into(),
                false => format!(r#"[^{excluded}"\\\x7F\x00-\x1F] char*"#),
            });
            if !is_name {
                parts.push("\"\"".into());
            }
            self.push(rule, parts.join(" | "))?;
        }
        self.add("key", format!(r#""\"" {first} "\"""#))
    }

    /// The text.
    pub fn finish(self) -> String {
        let signs = self.rules.len().saturating_mul(" ::= \n".len());
        let mut text = String::with_capacity(self.n_bytes.saturating_add(signs));
        for (name, body) in &self.rules {
            for part in [name, " ::= ", body, "\n"] {
                text.push_str(part);
            }
        }
        text
    }
}

/// A text in quotation marks, as in GBNF.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    text.chars().for_each(|c| push_escaped(c, &mut out));
    out.push('"');
    out
}

/// Appends a character as it stands in quotation marks or brackets of GBNF.
pub(super) fn push_escaped(c: char, out: &mut String) {
    match c {
        '"' | '\\' | '[' | ']' | '-' => out.extend(['\\', c]),
        '^' | '\0'..' ' | '\x7f' => out.push_str(&format!("\\x{:02X}", u32::from(c))),
        c => out.push(c),
    }
}

/// The characters of a text in JSON: each as it stands there, escaped or not.
fn characters(text: &str) -> Vec<String> {
    let json = to_json(&text);
    let mut rest = json.trim_start_matches('"');
    let mut characters = Vec::new();
    while let Some(first) = rest.chars().next().filter(|_| rest.len() > 1) {
        let n = match first {
            '\\' if rest.starts_with("\\u") => 6,
            '\\' => 2,
            first => first.len_utf8(),
        };
        let (character, behind) = rest.split_at(n.min(rest.len()));
        characters.push(character.to_string());
        rest = behind;
    }
    characters
}
