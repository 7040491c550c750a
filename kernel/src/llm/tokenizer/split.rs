//! Cuts a text into the words that byte-pair encoding works on: a small matcher for the few forms
//! that the regular expressions of pre-tokenisers are made of.
//!
//! Each stage cuts every piece that the stage before it left: at each place of the piece the rules
//! are tried in order, the first that fits takes a word, and what no rule takes between two words
//! is a word as well. No rule looks beyond its piece. Nothing is tried twice for long, so the time
//! grows with the length of the text.

use super::class::{line_end, not_lower, not_upper, space};

/// Whether a character belongs to a class.
pub type Class = fn(char) -> bool;

/// A step of the cutting.
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
        /// What may come first.
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

/// What comes before a run.
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

    /// Of so many characters.
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

    fn len(&self, text: &str) -> Option<usize> {
        let first = |lead: Class| text.chars().next().filter(|&c| lead(c)).map(char::len_utf8);
        match self.lead {
            Lead::None => self.len_from(text, 0),
            Lead::Must(lead) => self.len_from(text, first(lead)?),
            Lead::May(lead) => first(lead)
                .and_then(|start| self.len_from(text, start))
                .or_else(|| self.len_from(text, 0)),
        }
    }

    fn len_from(&self, text: &str, start: usize) -> Option<usize> {
        let mut end = start;
        let mut n = 0;
        for c in text[start..].chars().take(self.most).take_while(|&c| (self.of)(c)) {
            end += c.len_utf8();
            n += 1;
        }
        (n >= self.least).then(|| end + self.tail.map_or(0, |tail| run_len(&text[end..], tail)))
    }
}

/// Bytes of the characters of a class with which the text starts.
fn run_len(text: &str, of: Class) -> usize {
    text.find(|c| !of(c)).unwrap_or(text.len())
}

fn contraction_len(text: &str, any_case: bool) -> Option<usize> {
    let &[b'\'', ref letters @ ..] = text.as_bytes() else { return None };
    let fold = |byte: u8| if any_case { byte.to_ascii_lowercase() } else { byte };
    match (letters.first().copied().map(fold)?, letters.get(1).copied().map(fold)) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(3),
        _ => None,
    }
}

/// `U*L+|U+L*`
fn cased_len(text: &str) -> Option<usize> {
    let upper = run_len(text, not_lower);
    let lower = run_len(&text[upper..], not_upper);
    if lower > 0 {
        return Some(upper + lower);
    }
    // U* gives back until one that it took is an L; what follows it is none.
    let is_lower = |&(_, c): &(usize, char)| not_upper(c);
    match text[..upper].char_indices().rev().find(is_lower) {
        Some((at, c)) => Some(at + c.len_utf8()),
        None => (upper > 0).then_some(upper),
    }
}

impl Rule {
    /// Bytes of the word with which the text starts, if it has this form.
    fn len(&self, text: &str) -> Option<usize> {
        let some = |len: usize| (len > 0).then_some(len);
        match self {
            Rule::Contraction => contraction_len(text, false),
            Rule::AnyCaseContraction => contraction_len(text, true),
            Rule::Run(run) => run.len(text),
            Rule::CasedWord { lead, contraction } => {
                // What may come first is no letter, so a word without it starts elsewhere.
                let first = text.chars().next().filter(|&c| lead(c)).map_or(0, char::len_utf8);
                let end = first + cased_len(&text[first..])?;
                let more = contraction_len(&text[end..], true).filter(|_| *contraction);
                Some(end + more.unwrap_or(0))
            }
            Rule::LineEnds => {
                let spaces = &text[..run_len(text, space)];
                spaces.rfind(line_end).map(|last| last + 1)
            }
            Rule::SpacesBeforeLast => {
                let spaces = &text[..run_len(text, space)];
                if spaces.len() == text.len() {
                    return some(spaces.len());
                }
                some(spaces.char_indices().next_back()?.0)
            }
            Rule::Spaces => some(run_len(text, space)),
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
    let mut cut = |piece: &str| {
        if !piece.is_empty() {
            split(stages, piece, word);
        }
    };
    match stage {
        Stage::SpacesAtEnd => {
            let (start, spaces) = text.split_at(text.trim_end().len());
            cut(start);
            cut(spaces);
        }
        Stage::Rules(rules) => {
            let mut done = 0;
            let mut at = 0;
            while let Some(c) = text[at..].chars().next() {
                match rules.iter().find_map(|rule| rule.len(&text[at..])) {
                    Some(len) => {
                        cut(&text[done..at]);
                        cut(&text[at..at + len]);
                        at += len;
                        done = at;
                    }
                    None => at += c.len_utf8(),
                }
            }
            cut(&text[done..]);
        }
    }
}
