//! Regular expressions of `pattern`, as rules for texts in JSON.
//!
//! The forms: characters, `.`, classes, `\d \w \s` and their opposites, groups, `|`, and
//! repetitions. `^` and `$` stand at the ends only. A character that JSON escapes is escaped.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::iter::Peekable;
use core::str::Chars;

use super::{push_escaped, quoted, times};
use crate::app::server::api::to_json;

/// The most groups within each other.
const MAX_DEPTH: usize = 50;
/// The last character.
const LAST: u32 = 0x10_ffff;

/// A problem, and the place of its character.
type Problem = (usize, String);

/// Characters as ranges.
type Ranges = Vec<(u32, u32)>;

/// The body of a rule for texts, in quotation marks, that match a pattern.
///
/// As in JSON Schema, the pattern may match a part of the text, unless `^` and `$` are there.
///
/// # Errors
/// The pattern is malformed, or has no form in GBNF.
pub fn rule(pattern: &str) -> Result<String, Problem> {
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    let starts = inner.len() < pattern.len();
    let ends = inner.ends_with('$') && !is_escaped_at_end(inner);
    let inner = if ends { &inner[..inner.len().saturating_sub(1)] } else { inner };
    let mut parser = Parser { rest: inner.chars().peekable(), at: usize::from(starts), depth: 0 };
    let body = parser.alternatives()?;
    if parser.rest.peek().is_some() {
        return Err(parser.problem("a parenthesis closes no group"));
    }
    let any = |is_anchored: bool| if is_anchored { "" } else { "char* " };
    Ok(format!(r#""\"" {}({body}) {}"\"""#, any(starts), any(ends)))
}

/// Whether the last character of a pattern is escaped.
fn is_escaped_at_end(pattern: &str) -> bool {
    let before = pattern.chars().rev().skip(1);
    before.take_while(|c| *c == '\\').count() % 2 == 1
}

struct Parser<'p> {
    rest: Peekable<Chars<'p>>,
    /// The place of the next character.
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn problem(&self, problem: &str) -> Problem {
        (self.at, problem.to_owned())
    }

    fn next(&mut self) -> Option<char> {
        self.at = self.at.saturating_add(1);
        self.rest.next()
    }

    /// Takes a character if it is the next one.
    fn take(&mut self, c: char) -> bool {
        let is_next = self.rest.peek() == Some(&c);
        if is_next {
            self.next();
        }
        is_next
    }

    fn alternatives(&mut self) -> Result<String, Problem> {
        let mut all = self.sequence()?;
        while self.take('|') {
            all.push_str(" | ");
            all.push_str(&self.sequence()?);
        }
        Ok(all)
    }

    fn sequence(&mut self) -> Result<String, Problem> {
        let mut all = String::from("\"\"");
        while let Some(&c) = self.rest.peek() {
            if c == '|' || c == ')' {
                break;
            }
            let item = self.item()?;
            let item = self.repeated(item)?;
            all.push(' ');
            all.push_str(&item);
        }
        Ok(all)
    }

    /// A character, a class or a group.
    fn item(&mut self) -> Result<String, Problem> {
        let Some(c) = self.next() else { return Err(self.problem("the pattern ends early")) };
        match c {
            '(' => {
                if self.take('?') && !self.take(':') {
                    return Err(self.problem("groups that begin with `(?` are not supported"));
                }
                if self.depth == MAX_DEPTH {
                    return Err(self.problem("too many groups within each other"));
                }
                self.depth = self.depth.saturating_add(1);
                let body = self.alternatives()?;
                self.depth = self.depth.saturating_sub(1);
                match self.take(')') {
                    true => Ok(format!("({body})")),
                    false => Err(self.problem("a group has no end")),
                }
            }
            '[' => {
                let ranges = self.class()?;
                Ok(set(&ranges))
            }
            '.' => Ok(set(&opposite(&[(0x0a, 0x0a), (0x0d, 0x0d)]))),
            '\\' => {
                let ranges = self.escape()?;
                Ok(set(&ranges))
            }
            '*' | '+' | '?' | '{' => Err(self.problem("there is nothing to repeat")),
            '^' | '$' => Err(self.problem("`^` and `$` are supported at the ends only")),
            c => Ok(set(&[(c.into(), c.into())])),
        }
    }

    /// An item with the repetition behind it.
    fn repeated(&mut self, item: String) -> Result<String, Problem> {
        let (least, most) = match self.rest.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.next();
                let bounds = self.bounds()?;
                self.take('?');
                return Ok(times(&item, bounds.0, bounds.1));
            }
            _ => return Ok(item),
        };
        self.next();
        // A lazy repetition matches the same texts.
        self.take('?');
        if matches!(self.rest.peek(), Some('*' | '+' | '{')) {
            return Err(self.problem("there is nothing to repeat"));
        }
        Ok(times(&item, least, most))
    }

    fn bounds(&mut self) -> Result<(usize, Option<usize>), Problem> {
        let least = self.number();
        let most = if self.take(',') { self.number() } else { least };
        match (least, most, self.take('}')) {
            (None, None, _) | (_, _, false) => {
                Err(self.problem("expected a number of repetitions"))
            }
            (_, Some(most), _) if most < least.unwrap_or(0) => {
                Err(self.problem("the upper bound is below the lower one"))
            }
            (least, most, true) => Ok((least.unwrap_or(0), most)),
        }
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = None;
        while let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(10)) {
            self.next();
            let before: usize = number.unwrap_or(0);
            number = Some(before.saturating_mul(10).saturating_add(digit as usize));
        }
        number
    }

    /// The characters of a class, behind its `[`.
    fn class(&mut self) -> Result<Ranges, Problem> {
        let is_negated = self.take('^');
        let mut ranges = Ranges::new();
        let mut is_first = true;
        loop {
            let Some(c) = self.next() else { return Err(self.problem("a class has no end")) };
            if c == ']' && !is_first {
                break;
            }
            is_first = false;
            let mut of_class = match c {
                '\\' => self.escape()?,
                c => Ranges::from([(c.into(), c.into())]),
            };
            let mut after = self.rest.clone();
            let is_range = after.next() == Some('-') && after.next().is_some_and(|c| c != ']');
            if let (true, &[(first, last)]) = (is_range, &of_class[..])
                && first == last
            {
                self.next();
                let end = match self.next() {
                    Some('\\') => self.escape()?,
                    c => Ranges::from([(c.map_or(0, u32::from), c.map_or(0, u32::from))]),
                };
                let &[(end, _)] = &end[..] else {
                    return Err(self.problem("a range ends with a class"));
                };
                if end < first {
                    return Err(self.problem("a range ends before its start"));
                }
                of_class = Ranges::from([(first, end)]);
            }
            ranges.extend(of_class);
        }
        Ok(if is_negated { opposite(&ranges) } else { ranges })
    }

    /// The characters of an escape, behind its backslash.
    fn escape(&mut self) -> Result<Ranges, Problem> {
        const DIGITS: &[(u32, u32)] = &[(0x30, 0x39)];
        const WORDS: &[(u32, u32)] = &[(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)];
        const BLANKS: &[(u32, u32)] = &[(0x09, 0x0d), (0x20, 0x20), (0xa0, 0xa0)];
        let Some(c) = self.next() else { return Err(self.problem("the pattern ends early")) };
        let one = |c: u32| Ranges::from([(c, c)]);
        Ok(match c {
            'd' => DIGITS.to_vec(),
            'w' => WORDS.to_vec(),
            's' => BLANKS.to_vec(),
            'D' => opposite(DIGITS),
            'W' => opposite(WORDS),
            'S' => opposite(BLANKS),
            't' => one(0x09),
            'n' => one(0x0a),
            'v' => one(0x0b),
            'f' => one(0x0c),
            'r' => one(0x0d),
            'x' => one(self.hex(2)?),
            'u' => one(self.hex(4)?),
            c if !c.is_alphanumeric() => one(c.into()),
            _ => return Err(self.problem("this escape is not supported")),
        })
    }

    fn hex(&mut self, n: usize) -> Result<u32, Problem> {
        let mut value = 0;
        for _ in 0..n {
            let Some(digit) = self.next().and_then(|c| c.to_digit(16)) else {
                return Err(self.problem(&format!("expected {n} hexadecimal digits")));
            };
            value = value << 4 | digit;
        }
        Ok(value)
    }
}

/// All other characters.
fn opposite(ranges: &[(u32, u32)]) -> Ranges {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut others = Ranges::new();
    let mut next = 0;
    for (first, last) in sorted {
        if next < first {
            others.push((next, first.saturating_sub(1)));
        }
        next = next.max(last.saturating_add(1));
    }
    if next <= LAST {
        others.push((next, LAST));
    }
    others
}

/// A set of characters as a part of a rule: those that JSON escapes have alternatives of their own.
fn set(ranges: &[(u32, u32)]) -> String {
    // JSON writes these by themselves: all but control characters, quotation mark, backslash.
    const PLAIN: &[(u32, u32)] =
        &[(0x20, 0x21), (0x23, 0x5b), (0x5d, 0x7e), (0x80, 0xd7ff), (0xe000, LAST)];
    let mut plain = String::new();
    for &(first, last) in ranges {
        for &(from, to) in PLAIN {
            let (first, last) = (first.max(from), last.min(to));
            let ends = [char::from_u32(first), char::from_u32(last)];
            if let (true, [Some(first), Some(last)]) = (first <= last, ends) {
                push_escaped(first, &mut plain);
                if first < last {
                    plain.push('-');
                    push_escaped(last, &mut plain);
                }
            }
        }
    }
    let mut parts = Vec::new();
    if !plain.is_empty() {
        parts.push(format!("[{plain}]"));
    }
    for c in "\"\\\t\n\r\u{8}\u{c}".chars() {
        if ranges.iter().any(|&(first, last)| (first..=last).contains(&c.into())) {
            let json = to_json(&c);
            parts.push(quoted(&json[1..json.len().saturating_sub(1)]));
        }
    }
    match &parts[..] {
        // No text of JSON has such a character here, so nothing matches.
        [] => "[^\\x00-\\U0010FFFF]".to_string(),
        [one] => one.clone(),
        parts => format!("({})", parts.join(" | ")),
    }
}
