//! Cuts a text into words for byte-pair encoding.
//!
//! This is a small matcher for the few forms in the regular expressions of pre-tokenisers.
//!
//! Each stage cuts every part that the previous stage left. At each place of a part, the rules are
//! tried in order, and the first rule that fits takes a word. Text between two words that no rule
//! takes is a word as well. No rule looks beyond its part. No text is matched again and again, so
//! the time is linear in the text.

use super::class::{line_end, not_lower, not_upper, space};
use super::step_count::step;

/// Whether a character belongs to a class.
pub type Class = fn(char) -> bool;

/// A stage of the cutting.
#[derive(Clone, Copy)]
pub enum Stage {
    /// Alternatives, the first that fits first.
    Rules(&'static [Rule]),
    /// `\s+$`
    SpacesAtEnd,
}

/// A form of a word.
#[derive(Clone, Copy)]
pub enum Rule {
    /// `'s|'t|'re|'ve|'m|'ll|'d`
    Contraction,
    /// The same, also in capitals.
    AnyCaseContraction,
    /// Characters of one class.
    Run(Run),
    /// Capitals, then small letters, as in tekken: with U = `(?=\p{L})[^a-z]` and
    /// L = `(?=\p{L})[^A-Z]`, `(lead)?U*L+|(lead)?U+L*`, each with a contraction at its end if
    /// `contraction`.
    CasedWord {
        /// The class of an optional first character.
        lead: Class,
        /// `(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?`
        contraction: bool,
    },
    /// `\s*[\r\n]+`
    LineEnds,
    /// `\s+(?!\S)`: all spaces that end the piece; or all but the last one.
    SpacesBeforeLast,
    /// `\s+`
    Spaces,
}

/// `(lead)?of{least,most}(tail)*`
#[derive(Clone, Copy)]
pub struct Run {
    lead: Lead,
    of: Class,
    least: usize,
    most: usize,
    tail: Option<Class>,
}

/// The character before a run.
#[derive(Clone, Copy)]
enum Lead {
    None,
    May(Class),
    Must(Class),
}

impl Run {
    /// One or more characters of a class.
    pub const fn of(of: Class) -> Self {
        Run { lead: Lead::None, of, least: 1, most: usize::MAX, tail: None }
    }

    /// One character may come before it.
    pub const fn after(mut self, lead: Class) -> Self {
        self.lead = Lead::May(lead);
        self
    }

    /// One character must come before it.
    pub const fn only_after(mut self, lead: Class) -> Self {
        self.lead = Lead::Must(lead);
        self
    }

    /// Between `least` and `most` characters.
    pub const fn times(mut self, least: usize, most: usize) -> Self {
        self.least = least;
        self.most = most;
        self
    }

    /// Any number of these may follow.
    pub const fn then(mut self, tail: Class) -> Self {
        self.tail = Some(tail);
        self
    }

    /// As a rule.
    pub const fn rule(self) -> Rule {
        Rule::Run(self)
    }

    /// The text after the run that it starts with.
    fn rest<'t>(&self, text: &'t str) -> Option<&'t str> {
        let without = |lead: Class| text.strip_prefix(lead);
        match self.lead {
            Lead::None => self.rest_of_run(text),
            Lead::Must(lead) => self.rest_of_run(without(lead)?),
            Lead::May(lead) => without(lead)
                .and_then(|text| self.rest_of_run(text))
                .or_else(|| self.rest_of_run(text)),
        }
    }

    fn rest_of_run<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut rest = text.chars();
        let mut n = 0_usize;
        while n < self.most {
            let mut next = rest.clone();
            if !next.next().is_some_and(is(self.of)) {
                break;
            }
            rest = next;
            n = n.saturating_add(1);
        }
        let rest = rest.as_str();
        (n >= self.least).then(|| self.tail.map_or(rest, |tail| rest_after(rest, tail)))
    }
}

/// Whether a character belongs to a class, counted as a step.
fn is(of: Class) -> impl Fn(char) -> bool {
    move |c| {
        step(1);
        of(c)
    }
}

/// The text after its first characters of a class.
fn rest_after(text: &str, of: Class) -> &str {
    text.trim_start_matches(is(of))
}

/// The text before `rest`, which is its end.
fn before<'t>(text: &'t str, rest: &str) -> &'t str {
    &text[..text.len().saturating_sub(rest.len())]
}

/// The text after `start`, unless `start` is empty.
fn behind<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    text.get(start.len()..).filter(|_| !start.is_empty())
}

fn rest_after_contraction(text: &str, any_case: bool) -> Option<&str> {
    let &[b'\'', ref letters @ ..] = text.as_bytes() else { return None };
    let fold = |byte: u8| if any_case { byte.to_ascii_lowercase() } else { byte };
    match (letters.first().copied().map(fold)?, letters.get(1).copied().map(fold)) {
        (b's' | b't' | b'm' | b'd', _) => text.get(2..),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => text.get(3..),
        _ => None,
    }
}

/// `U*L+|U+L*`
fn rest_after_cased(text: &str) -> Option<&str> {
    let lower = rest_after(text, not_lower);
    let rest = rest_after(lower, not_upper);
    if rest.len() < lower.len() {
        return Some(rest);
    }
    // U* backtracks to the last character that is also an L. The character after it is no L.
    let upper = before(text, lower);
    let is_lower = is(not_upper);
    behind(text, upper.trim_end_matches(|c| !is_lower(c))).or_else(|| behind(text, upper))
}

impl Rule {
    /// The text after its first word, if the word has this form. No word is empty.
    fn rest<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Rule::Contraction => rest_after_contraction(text, false),
            Rule::AnyCaseContraction => rest_after_contraction(text, true),
            Rule::Run(run) => run.rest(text),
            Rule::CasedWord { lead, contraction } => {
                // The optional first character is no letter, so backtracking to a word without it
                // is not needed.
                let rest = rest_after_cased(text.strip_prefix(*lead).unwrap_or(text))?;
                let longer = rest_after_contraction(rest, true).filter(|_| *contraction);
                Some(longer.unwrap_or(rest))
            }
            Rule::LineEnds => {
                let spaces = before(text, rest_after(text, space));
                let is_end = is(line_end);
                behind(text, spaces.trim_end_matches(|c| !is_end(c)))
            }
            Rule::SpacesBeforeLast => {
                let rest = rest_after(text, space);
                let mut spaces = before(text, rest).chars();
                if !rest.is_empty() {
                    spaces.next_back();
                }
                behind(text, spaces.as_str())
            }
            Rule::Spaces => behind(text, before(text, rest_after(text, space))),
        }
    }
}

/// Calls `word` with each word of the text, in order. Together they are the text.
pub fn split(stages: &[Stage], text: &str, word: &mut dyn FnMut(&str)) {
    let Some((stage, stages)) = stages.split_first() else {
        if !text.is_empty() {
            word(text);
        }
        return;
    };
    let mut cut = |part: &str| {
        if !part.is_empty() {
            split(stages, part, word);
        }
    };
    match stage {
        Stage::SpacesAtEnd => {
            let (start, spaces) = text.split_at(text.trim_end().len());
            cut(start);
            cut(spaces);
        }
        Stage::Rules(rules) => {
            // The text that is not cut yet, and its end on which no rule was tried.
            let (mut uncut, mut text) = (text, text);
            while !text.is_empty() {
                match rules.iter().find_map(|rule| rule.rest(text)) {
                    Some(rest) => {
                        cut(before(uncut, text));
                        cut(before(text, rest));
                        (uncut, text) = (rest, rest);
                    }
                    None => {
                        let mut chars = text.chars();
                        chars.next();
                        text = chars.as_str();
                    }
                }
            }
            cut(uncut);
        }
    }
}
