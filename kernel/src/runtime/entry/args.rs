//! The words of a command line.
//!
//! Words stand between spaces. Between double quotes a space is part of the word, and `\"` and
//! `\\` are the quote and the backslash, as in a shell's double quotes; any other backslash
//! stands for itself, and so does every other byte. A line is by convention UTF-8, and its words are
//! too then. A byte that is not stays in its word, so that whoever reads the word can name it.
#![forbid(unsafe_code)]

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
pub fn split(line: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>, UnterminatedQuote> {
    let mut words = Vec::new();
    // `None` between words: a word may be empty, as in `prompt=""` or `""`.
    let mut word: Option<Vec<u8>> = None;
    let mut quote: Option<usize> = None;
    let mut bytes = line.as_ref().iter().copied().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                quote = if quote.is_some() { None } else { Some(at) };
                word.get_or_insert_default();
            }
            b'\\' if quote.is_some() => {
                let escaped = bytes.next_if(|&(_, byte)| byte == b'"' || byte == b'\\');
                word.get_or_insert_default().push(escaped.map_or(b'\\', |(_, byte)| byte));
            }
            b' ' | b'\t' | b'\n' if quote.is_none() => words.extend(word.take()),
            byte => word.get_or_insert_default().push(byte),
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
            let expected: Vec<&[u8]> = expected.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn an_open_quote_is_found_where_it_opens() {
        assert_eq!(split("a \"b"), Err(UnterminatedQuote { at: 2 }));
        assert_eq!(split("\"a\" \""), Err(UnterminatedQuote { at: 4 }));
        assert_eq!(split(r#"x="a\""#), Err(UnterminatedQuote { at: 2 }));
        assert_eq!(split(r#"x="a\\""#).unwrap(), [br"x=a\"]);
    }

    #[test]
    fn a_byte_that_is_no_utf8_spoils_no_other_word() {
        let words = split(b"seed=1 prompt=\"caf\xE9 cr\xE8me\" \xFF").unwrap();
        assert_eq!(words, [&b"seed=1"[..], b"prompt=caf\xE9 cr\xE8me", b"\xFF"]);
    }
}
