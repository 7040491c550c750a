//! The words of a command line.
//!
//! Words stand between spaces. Between double quotes a space is part of the word, and `\"` and
//! `\\` are the quote and the backslash, as in a shell's double quotes; any other backslash
//! stands for itself, and so does every other character.
#![forbid(unsafe_code)]

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A double quote that no other one closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnterminatedQuote {
    /// Its place in the line, in bytes.
    pub at: usize,
}

impl fmt::Display for UnterminatedQuote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the boot arguments hold a double quote at byte {} that is not closed", self.at)
    }
}

impl core::error::Error for UnterminatedQuote {}

/// Splits `line` into its words, the quotes removed.
///
/// # Errors
/// A quote is not closed.
pub fn split(line: &str) -> Result<Vec<String>, UnterminatedQuote> {
    let mut words = Vec::new();
    // `None` between words: a word may be empty, as in `prompt=""` or `""`.
    let mut word: Option<String> = None;
    let mut quote: Option<usize> = None;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                quote = if quote.is_some() { None } else { Some(at) };
                word.get_or_insert_default();
            }
            '\\' if quote.is_some() => {
                let escaped = chars.next_if(|&(_, c)| c == '"' || c == '\\');
                word.get_or_insert_default().push(escaped.map_or('\\', |(_, c)| c));
            }
            ' ' | '\t' | '\n' if quote.is_none() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if let Some(at) = quote {
        return Err(UnterminatedQuote { at });
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        for (line, expected) in [
            ("", &[][..]),
            ("   ", &[]),
            ("a", &["a"]),
            (" a  b ", &["a", "b"]),
            ("mode=chat threads=4", &["mode=chat", "threads=4"]),
            (
                r#"prompt="The capital of \"France\"" seed=7"#,
                &[r#"prompt=The capital of "France""#, "seed=7"],
            ),
            (r#"prompt="" x"#, &["prompt=", "x"]),
            (r#""""#, &[""]),
            (r#"a"b c"d"#, &["ab cd"]),
            (r#""\\""#, &[r"\"]),
            (r#""C:\new""#, &[r"C:\new"]),
            (r"a\b", &[r"a\b"]),
            ("prompt=\"Grüße 🙂\"", &["prompt=Grüße 🙂"]),
            ("\"a\nb\" c\nd", &["a\nb", "c", "d"]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn an_open_quote_is_found_where_it_opens() {
        assert_eq!(split("a \"b"), Err(UnterminatedQuote { at: 2 }));
        assert_eq!(split("\"a\" \""), Err(UnterminatedQuote { at: 4 }));
        assert_eq!(split(r#"x="a\""#), Err(UnterminatedQuote { at: 2 }));
        assert_eq!(split(r#"x="a\\""#).unwrap(), [r"x=a\"]);
    }
}
