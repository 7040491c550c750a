//! The reader of GBNF.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Element, Grammar, GrammarError};
use crate::llm::tokenizer::Tokenizer;

/// The most elements of a grammar, with the copies that repetitions make.
const MAX_ELEMENTS: usize = 1 << 17;
/// The most rules, with those that groups and repetitions make.
const MAX_RULES: usize = 1 << 16;
/// The most groups within each other.
const MAX_DEPTH: usize = 100;
/// The most repetitions of an item, as in llama.cpp. A larger upper bound is no bound.
const MAX_REPETITIONS: u64 = 2000;
/// The rule that an answer must match.
const ROOT: &str = "root";

/// Reads a grammar.
///
/// # Errors
/// The grammar is malformed or too large.
pub fn parse(text: &str, tokenizer: &Tokenizer) -> Result<Grammar, GrammarError> {
    let mut parser = Parser {
        text,
        at: 0,
        tokenizer,
        names: BTreeMap::new(),
        rules: Vec::new(),
        ranges: Vec::new(),
        n_elements: 0,
        depth: 0,
    };
    parser.skip_blanks(true);
    while parser.at < text.len() {
        parser.rule()?;
    }
    parser.finish()
}

struct Parser<'a> {
    text: &'a str,
    /// The place of the next byte.
    at: usize,
    tokenizer: &'a Tokenizer,
    /// The number of each named rule, and the place where its name stands first.
    names: BTreeMap<&'a str, (u32, usize)>,
    /// `None`: not defined yet.
    rules: Vec<Option<Vec<Element>>>,
    ranges: Vec<(u32, u32)>,
    /// Elements of all rules so far.
    n_elements: usize,
    /// Groups around the present place.
    depth: usize,
}

/// How often an item is repeated.
#[derive(Clone, Copy)]
struct Times {
    least: u64,
    /// `None`: any number.
    most: Option<u64>,
}

/// The last item of an alternative, which a repetition repeats.
#[derive(Clone, Copy)]
struct Item {
    /// The place of its first element in the rule.
    start: usize,
    /// The number of rules that it stands for.
    n_rules: u64,
}

impl<'a> Parser<'a> {
    fn error(&self, at: usize, problem: impl Into<String>) -> GrammarError {
        GrammarError::at(self.text, at, problem)
    }

    fn expected(&self, what: &str) -> GrammarError {
        let seen = match self.text[self.at..].chars().next() {
            Some(seen) => format!("{seen:?}"),
            None => "the end".into(),
        };
        self.error(self.at, format!("expected {what}, found {seen}"))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes a text if it stands here.
    fn take(&mut self, what: &str) -> bool {
        let is_there = self.text[self.at..].starts_with(what);
        self.at += if is_there { what.len() } else { 0 };
        is_there
    }

    /// Takes a text that must stand here.
    fn require(&mut self, what: &str) -> Result<(), GrammarError> {
        match self.take(what) {
            true => Ok(()),
            false => Err(self.expected(&format!("`{what}`"))),
        }
    }

    /// Takes the characters for which `is_one` holds.
    fn take_while(&mut self, is_one: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&is_one) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// Skips blanks and comments.
    fn skip_blanks(&mut self, with_lines: bool) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t') => self.at += 1,
                Some(b'\r' | b'\n') if with_lines => self.at += 1,
                Some(b'#') => drop(self.take_while(|byte| byte != b'\r' && byte != b'\n')),
                _ => return,
            }
        }
    }

    /// The number of a new rule.
    fn new_rule(&mut self) -> Result<u32, GrammarError> {
        if self.rules.len() >= MAX_RULES {
            return Err(self.error(self.at, format!("more than {MAX_RULES} rules")));
        }
        self.rules.push(None);
        Ok(self.rules.len() as u32 - 1)
    }

    /// The number of a named rule.
    fn name(&mut self) -> Result<u32, GrammarError> {
        let at = self.at;
        let name = self.take_while(is_word);
        if name.is_empty() {
            return Err(self.expected("a rule's name"));
        }
        if let Some((number, _)) = self.names.get(name) {
            return Ok(*number);
        }
        let number = self.new_rule()?;
        self.names.insert(name, (number, at));
        Ok(number)
    }

    /// Counts elements.
    fn count(&mut self, n: usize) -> Result<(), GrammarError> {
        self.n_elements += n;
        match self.n_elements > MAX_ELEMENTS {
            true => {
                let problem = format!("the grammar is too large: over {MAX_ELEMENTS} elements");
                Err(self.error(self.at, problem))
            }
            false => Ok(()),
        }
    }

    /// Reads a rule, up to the next one.
    fn rule(&mut self) -> Result<(), GrammarError> {
        let number = self.name()?;
        self.skip_blanks(false);
        self.require("::=")?;
        self.skip_blanks(true);
        self.alternatives(number)?;
        if self.at < self.text.len() && !self.take("\r\n") && !self.take("\n") && !self.take("\r") {
            return Err(self.expected("the end of the line"));
        }
        self.skip_blanks(true);
        Ok(())
    }

    /// Reads the alternatives of a rule.
    fn alternatives(&mut self, number: u32) -> Result<(), GrammarError> {
        let mut rule = Vec::new();
        self.sequence(&mut rule)?;
        while self.take("|") {
            self.count(1)?;
            rule.push(Element::Or);
            self.skip_blanks(true);
            self.sequence(&mut rule)?;
        }
        self.count(1)?;
        rule.push(Element::End);
        self.rules[number as usize] = Some(rule);
        Ok(())
    }

    /// Reads an alternative to the end of `rule`.
    fn sequence(&mut self, rule: &mut Vec<Element>) -> Result<(), GrammarError> {
        let mut item = Item { start: rule.len(), n_rules: 1 };
        while let Some(byte) = self.peek() {
            let at = self.at;
            if let Some(times) = self.times()? {
                self.repeat(rule, &mut item, times, at)?;
                continue;
            }
            let start = rule.len();
            let mut n_rules = 1;
            match byte {
                b'"' => self.literal(rule)?,
                b'[' => self.set(rule)?,
                b'<' | b'!' => self.token(rule)?,
                b'.' => {
                    self.at += 1;
                    rule.push(Element::Any);
                }
                b'(' => {
                    let before = self.rules.len();
                    let group = self.group()?;
                    n_rules = (self.rules.len() - before).max(1) as u64;
                    rule.push(Element::Rule(group));
                }
                byte if is_word(byte) => {
                    let number = self.name()?;
                    rule.push(Element::Rule(number));
                }
                _ => return Ok(()),
            }
            item = Item { start, n_rules };
            self.count(rule.len() - start)?;
            self.skip_blanks(self.depth > 0);
        }
        Ok(())
    }

    /// Reads a group, and returns the number of its rule.
    fn group(&mut self) -> Result<u32, GrammarError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(self.at, format!("more than {MAX_DEPTH} groups in each other")));
        }
        self.require("(")?;
        self.depth += 1;
        self.skip_blanks(true);
        let number = self.new_rule()?;
        self.alternatives(number)?;
        self.depth -= 1;
        self.require(")")?;
        Ok(number)
    }

    /// Reads a character, which may be escaped.
    fn character(&mut self) -> Result<u32, GrammarError> {
        let at = self.at;
        let Some(character) = self.text[at..].chars().next() else {
            return Err(self.error(at, "the text ends within quotes or brackets"));
        };
        self.at += character.len_utf8();
        if character != '\\' {
            return Ok(character.into());
        }
        let digits = match self.peek() {
            Some(b'x') => 2,
            Some(b'u') => 4,
            Some(b'U') => 8,
            Some(byte @ (b'\\' | b'"' | b'[' | b']' | b'-')) => {
                self.at += 1;
                return Ok(byte.into());
            }
            Some(b't') => return self.control(b'\t'),
            Some(b'r') => return self.control(b'\r'),
            Some(b'n') => return self.control(b'\n'),
            _ => return Err(self.error(at, "there is no such escape")),
        };
        self.at += 1;
        let hex = self.text.get(self.at..self.at + digits);
        let hex = hex.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(value) = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()) else {
            return Err(self.error(at, format!("expected {digits} hexadecimal digits")));
        };
        self.at += digits;
        Ok(value)
    }

    fn control(&mut self, byte: u8) -> Result<u32, GrammarError> {
        self.at += 1;
        Ok(byte.into())
    }

    /// Reads a text in quotes.
    fn literal(&mut self, rule: &mut Vec<Element>) -> Result<(), GrammarError> {
        self.at += 1;
        while !self.take("\"") {
            let character = self.character()?;
            rule.push(Element::Char(character));
        }
        Ok(())
    }

    /// Reads characters and ranges in brackets. Empty brackets are nothing at all.
    fn set(&mut self, rule: &mut Vec<Element>) -> Result<(), GrammarError> {
        let at = self.at;
        self.at += 1;
        let is_negated = self.take("^");
        let start = self.ranges.len();
        while !self.take("]") {
            let first = self.character()?;
            let is_range = self.peek() == Some(b'-')
                && self.text.as_bytes().get(self.at + 1).is_some_and(|&byte| byte != b']');
            let last = if is_range {
                self.at += 1;
                self.character()?
            } else {
                first
            };
            self.ranges.push((first, last));
            self.count(1)?;
        }
        let n = self.ranges.len() - start;
        let Ok(len) = u16::try_from(n) else {
            return Err(self.error(at, format!("a set of {n} ranges is too large")));
        };
        match (len, self.ranges.last()) {
            (0, _) => {}
            (1, Some(&(first, last))) if first == last && !is_negated => {
                self.ranges.pop();
                rule.push(Element::Char(first));
            }
            _ => rule.push(Element::Set { is_negated, len, start: start as u32 }),
        }
        Ok(())
    }

    /// Reads a token: `<[number]>` or `<name>`, or with `!` any other token.
    fn token(&mut self, rule: &mut Vec<Element>) -> Result<(), GrammarError> {
        let is_negated = self.take("!");
        let at = self.at;
        self.require("<")?;
        let token = if self.take("[") {
            let digits = self.take_while(|byte| byte.is_ascii_digit());
            let token = digits.parse().ok().filter(|&token: &u32| {
                usize::try_from(token).is_ok_and(|token| token < self.tokenizer.n_vocab())
            });
            let Some(token) = token else { return Err(self.error(at, "there is no such token")) };
            self.require("]>")?;
            token
        } else {
            self.take_while(|byte| byte != b'>');
            self.require(">")?;
            let name = &self.text[at..self.at];
            match self.tokenizer.encode(name, false, true)[..] {
                [token] => token,
                _ => return Err(self.error(at, format!("{name:?} is not one token"))),
            }
        };
        rule.push(if is_negated { Element::NotToken(token) } else { Element::Token(token) });
        Ok(())
    }

    /// Reads `*`, `+`, `?` or a number of repetitions in braces, if one stands here.
    fn times(&mut self) -> Result<Option<Times>, GrammarError> {
        let at = self.at;
        let (least, most) = match self.peek() {
            Some(b'*') => (0, None),
            Some(b'+') => (1, None),
            Some(b'?') => (0, Some(1)),
            Some(b'{') => return self.braces().map(Some),
            _ => return Ok(None),
        };
        self.at = at + 1;
        self.skip_blanks(self.depth > 0);
        Ok(Some(Times { least, most }))
    }

    fn braces(&mut self) -> Result<Times, GrammarError> {
        let at = self.at;
        let with_lines = self.depth > 0;
        self.at += 1;
        self.skip_blanks(with_lines);
        let least = self.number()?.ok_or_else(|| self.expected("a number"))?;
        self.skip_blanks(with_lines);
        let most = if self.take("}") {
            Some(least)
        } else {
            if !self.take(",") {
                return Err(self.expected("`,` or `}`"));
            }
            self.skip_blanks(with_lines);
            let most = self.number()?;
            self.skip_blanks(with_lines);
            self.require("}")?;
            most
        };
        self.skip_blanks(with_lines);
        if least > MAX_REPETITIONS {
            return Err(self.error(at, format!("more than {MAX_REPETITIONS} repetitions")));
        }
        if most.is_some_and(|most| most < least) {
            return Err(self.error(at, "the upper bound is below the lower one"));
        }
        Ok(Times { least, most: most.filter(|&most| most <= MAX_REPETITIONS) })
    }

    /// Reads a number, if one stands here.
    fn number(&mut self) -> Result<Option<u64>, GrammarError> {
        let at = self.at;
        match self.take_while(|byte| byte.is_ascii_digit()) {
            "" => Ok(None),
            digits => match digits.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(self.error(at, "the number is too large")),
            },
        }
    }

    /// Repeats the last item: the least times one behind the other, then rules for the rest.
    ///
    /// The rest of a bounded repetition is `R1 ::= item |`, `R2 ::= item R1 |` and so on. That of
    /// an unbounded one is `R ::= item R |`.
    fn repeat(
        &mut self,
        rule: &mut Vec<Element>,
        item: &mut Item,
        Times { least, most }: Times,
        at: usize,
    ) -> Result<(), GrammarError> {
        if item.start == rule.len() {
            return Err(self.error(at, "there is nothing to repeat"));
        }
        let n = most.filter(|&most| most > 0).unwrap_or(least).max(1);
        item.n_rules = item.n_rules.saturating_mul(n);
        if item.n_rules > MAX_REPETITIONS {
            let problem = format!("more than {MAX_REPETITIONS} repetitions, those within counted");
            return Err(self.error(at, problem));
        }
        let repeated = rule[item.start..].to_vec();
        if least == 0 {
            rule.truncate(item.start);
        }
        for _ in 1..least {
            self.count(repeated.len())?;
            rule.extend_from_slice(&repeated);
        }
        let n_optional = most.map_or(1, |most| most.saturating_sub(least));
        let mut next = None;
        for _ in 0..n_optional {
            let number = self.new_rule()?;
            self.count(repeated.len() + 3)?;
            let mut optional = repeated.clone();
            optional.extend(if most.is_none() { Some(number) } else { next }.map(Element::Rule));
            optional.extend([Element::Or, Element::End]);
            self.rules[number as usize] = Some(optional);
            next = Some(number);
        }
        rule.extend(next.map(Element::Rule));
        self.count(1)
    }

    /// The grammar of all rules.
    fn finish(self) -> Result<Grammar, GrammarError> {
        for (name, &(number, at)) in &self.names {
            if self.rules[number as usize].is_none() {
                return Err(self.error(at, format!("there is no rule `{name}`")));
            }
        }
        let Some(&(root, _)) = self.names.get(ROOT) else {
            return Err(self.error(0, format!("there is no rule `{ROOT}`")));
        };
        let mut elements = Vec::new();
        let mut rules = Vec::new();
        for rule in self.rules {
            rules.push(elements.len() as u32);
            elements.extend(rule.unwrap_or_default());
        }
        Ok(Grammar { elements, rules, ranges: self.ranges, root })
    }
}

/// Whether a byte may stand in the name of a rule.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}
