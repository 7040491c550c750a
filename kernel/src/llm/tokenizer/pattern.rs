//! A small matcher for the patterns with which byte-level tokenizers cut a text into words: the
//! part of regular expressions that they use, leftmost alternative first, greedy, with backtracking
//! over one class at a time, so that a text takes linear time.

/// Whether a character belongs to a class.
pub type Class = fn(char) -> bool;

/// A step of an alternative.
#[derive(Debug)]
pub enum Step {
    /// Between `.1` and `.2` characters of a class, as many as possible.
    Some(Class, usize, usize),
    /// This text.
    Text(&'static str),
    /// This text, whose ASCII letters may be of either case.
    AnyCase(&'static str),
    /// One of these alternatives.
    OneOf(Alternatives),
    /// One of these alternatives, or nothing.
    Maybe(Alternatives),
    /// The text ends, or its next character does not belong to a class.
    NotBefore(Class),
}

/// Sequences of steps of which the first that matches counts.
pub type Alternatives = &'static [&'static [Step]];

/// Bytes at the start of `text` that `steps` match.
fn match_steps(steps: &[Step], text: &str) -> Option<usize> {
    let Some((step, rest)) = steps.split_first() else { return Some(0) };
    match *step {
        Step::Some(class, min, max) => {
            let (mut count, mut end) = (0, 0);
            for c in text.chars().take_while(|&c| class(c)).take(max) {
                (count, end) = (count + 1, end + c.len_utf8());
            }
            loop {
                if count < min {
                    return None;
                }
                if let Some(len) = match_steps(rest, &text[end..]) {
                    return Some(end + len);
                }
                let last = text[..end].chars().next_back()?;
                (count, end) = (count - 1, end - last.len_utf8());
            }
        }
        Step::Text(word) => {
            let tail = text.strip_prefix(word)?;
            match_steps(rest, tail).map(|len| word.len() + len)
        }
        Step::AnyCase(word) => {
            let head = text.as_bytes().get(..word.len())?;
            // What equals ASCII is ASCII, so the text can be cut there.
            let tail = head.eq_ignore_ascii_case(word.as_bytes()).then(|| &text[word.len()..])?;
            match_steps(rest, tail).map(|len| word.len() + len)
        }
        Step::OneOf(alternatives) => match_one_of(alternatives, rest, text),
        Step::Maybe(alternatives) => {
            match_one_of(alternatives, rest, text).or_else(|| match_steps(rest, text))
        }
        Step::NotBefore(class) => match text.chars().next() {
            Some(c) if class(c) => None,
            _ => match_steps(rest, text),
        },
    }
}

/// Bytes that the first of the alternatives matches with which `rest` matches too, that included.
fn match_one_of(alternatives: Alternatives, rest: &[Step], text: &str) -> Option<usize> {
    alternatives.iter().find_map(|steps| {
        let len = match_steps(steps, text)?;
        match_steps(rest, &text[len..]).map(|more| len + more)
    })
}

/// Cuts `text` into what the alternatives match and what lies between. Calls `word` for each part.
pub fn split<'t>(alternatives: Alternatives, text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let found = alternatives.iter().find_map(|steps| match_steps(steps, rest));
        match found {
            Some(len) if len > 0 => {
                if start < at {
                    word(&text[start..at]);
                }
                word(&rest[..len]);
                at += len;
                start = at;
            }
            _ => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    if start < at {
        word(&text[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::Step::{AnyCase, Maybe, NotBefore, Some as Take, Text};
    use super::*;
    use alloc::vec::Vec;

    fn words(alternatives: Alternatives, text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        split(alternatives, text, &mut |word| words.push(word));
        words
    }

    fn letter(c: char) -> bool {
        c.is_alphabetic()
    }

    fn space(c: char) -> bool {
        c.is_whitespace()
    }

    #[test]
    fn what_matches_is_cut_from_what_does_not() {
        const WORDS: Alternatives = &[&[Take(letter, 1, usize::MAX)]];
        assert_eq!(words(WORDS, "é. ab12"), ["é", ". ", "ab", "12"]);
        assert_eq!(words(WORDS, ""), [""; 0]);
        const PAIRS: Alternatives = &[&[Take(letter, 2, 2)]];
        assert_eq!(words(PAIRS, "abcde"), ["ab", "cd", "e"]);
    }

    #[test]
    fn the_first_alternative_that_matches_counts() {
        const SHORT: Alternatives = &[&[Text("a")], &[Text("ab")]];
        assert_eq!(words(SHORT, "ab"), ["a", "b"]);
        const CASES: Alternatives = &[&[AnyCase("'Ll")], &[Take(letter, 1, usize::MAX)]];
        assert_eq!(words(CASES, "we'lLx'é"), ["we", "'lL", "x", "'", "é"]);
    }

    #[test]
    fn a_step_gives_back_what_the_next_one_needs() {
        const BEFORE: Alternatives = &[&[Take(space, 1, usize::MAX), NotBefore(letter)]];
        assert_eq!(words(BEFORE, "   a  "), ["  ", " a", "  "]);
        const ENDING: Alternatives = &[&[Take(letter, 1, usize::MAX), Maybe(&[&[Text("'s")]])]];
        assert_eq!(words(ENDING, "it's 's"), ["it's", " '", "s"]);
    }
}
