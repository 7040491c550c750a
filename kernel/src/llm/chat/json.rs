//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, or without blanks.
//!
//! The text is read byte by byte, without recursion and without a tree. Keys keep their order, and
//! numbers stay as they are written.

use alloc::string::String;
use alloc::vec::Vec;

/// The most arrays and objects within each other, as in `serde_json`.
const MAX_DEPTH: usize = 127;
/// The most bytes of an indented text. The blanks of deep lines can be many times the rest.
const MAX_INDENTED: usize = 1 << 20;

/// The blanks of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// None.
    Compact,
    /// One line, with a blank behind each comma and each colon: Python's default.
    Line,
    /// A line for each element, with so many blanks for each level: Python's `indent`.
    Indented(usize),
}

/// A reader of one JSON value that comes byte by byte.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// The closing brackets of the open arrays and objects.
    open: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a value; after `[`, the array may end instead.
    Value {
        may_end: bool,
    },
    /// Before a key; after `{`, the object may end instead.
    Key {
        may_end: bool,
    },
    /// Behind a key.
    Colon,
    /// Behind a value of an array or an object.
    Next,
    Text {
        is_key: bool,
        escape: Escape,
    },
    /// Within `true`, `false` or `null`: the bytes to come.
    Word(&'static [u8]),
    Number(Number),
    /// The value is complete.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    /// Hexadecimal digits to come.
    Digits(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    fn next(self, byte: u8) -> Option<Number> {
        use Number::{E, Exponent, Fraction, Minus, Point, Sign, Whole, Zero};
        Some(match (self, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Whole, b'0'..=b'9') => Whole,
            (Zero | Whole, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Whole | Fraction, b'e' | b'E') => E,
            (E, b'+' | b'-') => Sign,
            (E | Sign | Exponent, b'0'..=b'9') => Exponent,
            _ => return None,
        })
    }

    fn is_whole(self) -> bool {
        matches!(self, Number::Zero | Number::Whole | Number::Fraction | Number::Exponent)
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner { open: Vec::new(), state: State::Value { may_end: false } }
    }
}

impl Scanner {
    /// Takes the next byte; `None` if no JSON text continues with it.
    pub fn push(&mut self, byte: u8) -> Option<()> {
        if let State::Number(number) = self.state {
            match number.next(byte) {
                Some(next) => {
                    self.state = State::Number(next);
                    return Some(());
                }
                None if number.is_whole() => self.end_value(),
                None => return None,
            }
        }
        let is_blank = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.state = match (self.state, byte) {
            (State::Text { is_key, escape }, _) => return self.push_in_text(is_key, escape, byte),
            (State::Word([expected, rest @ ..]), _) if *expected == byte => State::Word(rest),
            (State::Word(_), _) => return None,
            (state, _) if is_blank => state,
            (State::Value { .. }, b'{' | b'[') => {
                if self.open.len() == MAX_DEPTH {
                    return None;
                }
                self.open.push(if byte == b'{' { b'}' } else { b']' });
                match byte {
                    b'{' => State::Key { may_end: true },
                    _ => State::Value { may_end: true },
                }
            }
            (State::Value { .. }, b'"') => State::Text { is_key: false, escape: Escape::None },
            (State::Value { .. }, b't') => State::Word(b"rue"),
            (State::Value { .. }, b'f') => State::Word(b"alse"),
            (State::Value { .. }, b'n') => State::Word(b"ull"),
            (State::Value { .. }, b'-') => State::Number(Number::Minus),
            (State::Value { .. }, b'0') => State::Number(Number::Zero),
            (State::Value { .. }, b'1'..=b'9') => State::Number(Number::Whole),
            (State::Key { .. }, b'"') => State::Text { is_key: true, escape: Escape::None },
            (State::Colon, b':') => State::Value { may_end: false },
            (State::Next, b',') => match self.open.last() {
                Some(b'}') => State::Key { may_end: false },
                _ => State::Value { may_end: false },
            },
            (
                State::Next | State::Value { may_end: true } | State::Key { may_end: true },
                b'}' | b']',
            ) if self.open.last() == Some(&byte) => {
                self.open.pop();
                self.end_value();
                self.state
            }
            _ => return None,
        };
        if self.state == State::Word(b"") {
            self.end_value();
        }
        Some(())
    }

    fn push_in_text(&mut self, is_key: bool, escape: Escape, byte: u8) -> Option<()> {
        let escape = match (escape, byte) {
            (Escape::None, b'"') => {
                match is_key {
                    true => self.state = State::Colon,
                    false => self.end_value(),
                }
                return Some(());
            }
            (Escape::None, b'\\') => Escape::Backslash,
            (Escape::None, 0..=0x1f) => return None,
            (Escape::None, _) => Escape::None,
            (Escape::Backslash, b'u') => Escape::Digits(4),
            (Escape::Backslash, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                Escape::None
            }
            (Escape::Digits(n), _) if byte.is_ascii_hexdigit() => match n.saturating_sub(1) {
                0 => Escape::None,
                n => Escape::Digits(n),
            },
            _ => return None,
        };
        self.state = State::Text { is_key, escape };
        Some(())
    }

    fn end_value(&mut self) {
        self.state = if self.open.is_empty() { State::End } else { State::Next };
    }

    /// Whether the value is complete. A number is so as soon as it may end.
    pub fn is_complete(&self) -> bool {
        match self.state {
            State::End => true,
            State::Number(number) => self.open.is_empty() && number.is_whole(),
            _ => false,
        }
    }

    fn is_in_text(&self) -> bool {
        matches!(self.state, State::Text { .. })
    }
}

/// Appends a JSON text with the escapes of Python, or returns `None` if it is malformed.
///
/// A lone surrogate counts as malformed, and so does a text that is too long with its indents.
pub fn reformat(text: &str, style: Style, out: &mut String) -> Option<()> {
    let (comma, colon, indent) = match style {
        Style::Compact => (",", ":", None),
        Style::Line => (", ", ": ", None),
        Style::Indented(indent) => (",", ": ", Some(indent)),
    };
    let mut scanner = Scanner::default();
    // The place of an open text, and whether an array or an object was just opened.
    let mut start = 0;
    let mut is_empty = false;
    let most = out.len().saturating_add(MAX_INDENTED);
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(core::iter::repeat_n(' ', indent.saturating_mul(depth)));
        }
    };
    for (i, byte) in text.bytes().enumerate() {
        let was_in_text = scanner.is_in_text();
        scanner.push(byte)?;
        if was_in_text {
            if !scanner.is_in_text() {
                push_text(&unescape(text.get(start..i)?)?, out);
            }
            continue;
        }
        if indent.is_some() && out.len() > most {
            return None;
        }
        let depth = scanner.open.len();
        let closes = matches!(byte, b'}' | b']');
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            b'}' | b']' if !is_empty => line(depth, out),
            b'{' | b'[' if is_empty => line(depth.saturating_sub(1), out),
            _ if is_empty && !closes => line(depth, out),
            _ => {}
        }
        is_empty = matches!(byte, b'{' | b'[');
        match byte {
            b'"' => start = i.saturating_add(1),
            b':' => out.push_str(colon),
            b',' => {
                out.push_str(comma);
                line(depth, out);
            }
            // Outside of texts, JSON is ASCII.
            byte => out.push(char::from(byte)),
        }
    }
    scanner.is_complete().then_some(())
}

/// The fields of an object: each key with the text of its value.
///
/// `None` if the text is malformed, or no object.
pub fn fields(text: &str) -> Option<Vec<(String, &str)>> {
    let mut scanner = Scanner::default();
    let mut fields = Vec::new();
    let mut key = None;
    let mut start = 0;
    for (i, byte) in text.bytes().enumerate() {
        let before = scanner.state;
        scanner.push(byte)?;
        if scanner.open.len() != 1 && !(scanner.open.is_empty() && byte == b'}') {
            continue;
        }
        let next = i.saturating_add(1);
        match (before, scanner.state) {
            (State::Key { .. }, State::Text { .. }) => start = next,
            (State::Text { is_key: true, .. }, State::Colon) => {
                key = Some(unescape(text.get(start..i)?)?);
            }
            (State::Colon, State::Value { .. }) => start = next,
            // A comma or a bracket behind the value.
            (_, State::Key { may_end: false } | State::End) => {
                if let Some(key) = key.take() {
                    fields.push((key, text.get(start..i)?.trim()));
                }
            }
            _ => {}
        }
    }
    (scanner.is_complete() && text.trim_start().starts_with('{')).then_some(fields)
}

/// The text of a JSON string; `None` if the value is no string.
pub fn string(text: &str) -> Option<String> {
    let mut scanner = Scanner::default();
    text.bytes().try_for_each(|byte| scanner.push(byte))?;
    let inner = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    scanner.is_complete().then(|| unescape(inner))?
}

/// Resolves the escapes of a text that [`Scanner`] accepted.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    let unit = |chars: &mut core::str::Chars<'_>| {
        let digits = chars.as_str().get(..4)?;
        chars.nth(3)?;
        u16::from_str_radix(digits, 16).ok()
    };
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = unit(&mut chars)?;
                let mut units = Vec::from([first]);
                if (0xd800..0xdc00).contains(&first) {
                    (chars.next() == Some('\\') && chars.next() == Some('u')).then_some(())?;
                    units.push(unit(&mut chars)?);
                }
                char::decode_utf16(units).next()?.ok()?
            }
            other => other,
        });
    }
    Some(out)
}

/// Appends a text in quotes, with the escapes that Python writes.
pub fn push_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        let escape = match c {
            '"' | '\\' => c,
            '\u{8}' => 'b',
            '\u{c}' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\0'..='\u{1f}' => {
                let digit = |n: u32| char::from_digit(n & 15, 16).unwrap_or('0');
                out.push_str("\\u00");
                out.extend([digit(u32::from(c) >> 4), digit(u32::from(c))]);
                continue;
            }
            _ => {
                out.push(c);
                continue;
            }
        };
        out.extend(['\\', escape]);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

    use super::*;

    fn reformatted(text: &str, style: Style) -> Option<String> {
        let mut out = String::new();
        reformat(text, style, &mut out).map(|()| out)
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        // What `json.dumps(json.loads(text), ensure_ascii=False)` gives, numbers aside.
        for (text, expected) in [
            (
                r#"{"b":1,"a":[ 1,2 ,{}],"c":{"d":null}}"#,
                r#"{"b": 1, "a": [1, 2, {}], "c": {"d": null}}"#,
            ),
            (" [true,false , null]\n", "[true, false, null]"),
            (r#""\u00e9\ud83d\ude42\/\u007f<>&'é""#, "\"é🙂/\u{7f}<>&'é\""),
            (r#"["\"\\\b\f\n\r\t\u0000\u001f"]"#, r#"["\"\\\b\f\n\r\t\u0000\u001f"]"#),
            ("[-0,1.50,1e5,2E+3,0.1e-2]", "[-0, 1.50, 1e5, 2E+3, 0.1e-2]"),
            ("12", "12"),
            (r#"{"":"","a b":"{,:}"}"#, r#"{"": "", "a b": "{,:}"}"#),
            ("[[],[[]],{}]", "[[], [[]], {}]"),
        ] {
            assert_eq!(reformatted(text, Style::Line).as_deref(), Some(expected), "{text}");
        }
        let text = r#"{"a":[1,{"b":[]},{}],"c":"d", "e":[["f"],{"g":{"h":1}}]}"#;
        let expected = "{\n    \"a\": [\n        1,\n        {\n            \"b\": []\n        },\n        {}\n    ],\n    \"c\": \"d\",\n    \"e\": [\n        [\n            \"f\"\n        ],\n        {\n            \"g\": {\n                \"h\": 1\n            }\n        }\n    ]\n}";
        assert_eq!(reformatted(text, Style::Indented(4)).as_deref(), Some(expected));
        let text = " { \"a b\" : [ 1 ,\t\"\\u0022, \\\\\" , { } ] ,\n\"\":null }";
        let expected = r#"{"a b":[1,"\", \\",{}],"":null}"#;
        assert_eq!(reformatted(text, Style::Compact).as_deref(), Some(expected));
    }

    #[test]
    fn malformed_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[1",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "[1}",
            "{]",
            "1 2",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "tru",
            "truex",
            "nul",
            "\"a",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "\"\\ud800\"",
            "\"\\ud800\\n\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "NaN",
            "[1 2]",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
        ] {
            assert_eq!(reformatted(text, Style::Line), None, "{text}");
            assert!(fields(text).is_none(), "{text}");
        }
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(reformatted(&deep(127), Style::Line).is_some());
        assert!(reformatted(&deep(128), Style::Line).is_none());
        // Each of these numbers has a line with 480 blanks.
        let wide = |n| format!("{}{}1{}", "[".repeat(120), "1,".repeat(n), "]".repeat(120));
        assert!(
            reformatted(&wide(2000), Style::Indented(4)).is_some_and(|text| text.len() > 960_000)
        );
        assert!(reformatted(&wide(3000), Style::Indented(4)).is_none());
        assert!(reformatted(&wide(3000), Style::Line).is_some());
    }

    #[test]
    fn scanner_and_serde_agree() {
        // All texts of up to six of these pieces.
        let pieces = ["{", "}", "[", "]", ",", ":", "\"a\"", "1", "-0.5e1", " ", "null"];
        let mut n_valid = 0;
        let mut stack = vec![String::new()];
        while let Some(text) = stack.pop() {
            let ours = reformatted(&text, Style::Line);
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            n_valid += usize::from(ours.is_some());
            assert_eq!(ours.is_some(), theirs.is_ok(), "{text}");
            if text.len() < 6 {
                stack.extend(pieces.iter().map(|piece| format!("{text}{piece}")));
            }
        }
        assert!(n_valid > 100, "{n_valid}");
    }

    #[test]
    fn fields_are_those_of_the_object_alone() {
        let text = r#" {"a" : {"b":[1,{"c":2}]}, "\u0062":"x,}" ,"n":-1.5} "#;
        let expected = vec![
            ("a".into(), r#"{"b":[1,{"c":2}]}"#),
            ("b".into(), r#""x,}""#),
            ("n".into(), "-1.5"),
        ];
        assert_eq!(fields(text), Some(expected));
        assert_eq!(fields("{}"), Some(vec![]));
        assert_eq!(fields("[1]"), None);
        assert_eq!(fields("\"{\""), None);
        assert_eq!(string(" \"a\\nb\" ").as_deref(), Some("a\nb"));
        assert_eq!(string("1"), None);
        assert_eq!(string("\"a\" \"b\""), None);
    }
}
