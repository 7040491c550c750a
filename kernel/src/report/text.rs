//! Text of models and users on the serial line.

use alloc::borrow::Cow;
use core::fmt::{self, Write};

/// Text of a model or a prompt, made harmless for the serial line.
///
/// Control characters other than newline and tab become Rust's escapes. So the text can neither
/// start an event nor drive the terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(alloc::format!("{}", Printable(text)))
}

fn is_harmless(c: char) -> bool {
    !c.is_control() || c == '\n' || c == '\t'
}

/// A value that displays harmless text, as [`printable`], without allocating.
pub struct Printable<T>(pub T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(HarmlessText(f), "{}", self.0)
    }
}

/// Escapes the control characters of the text that is written.
struct HarmlessText<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for HarmlessText<'_, '_> {
    fn write_str(&mut self, mut s: &str) -> fmt::Result {
        while let Some(at) = s.find(|c| !is_harmless(c)) {
            let (harmless, rest) = s.split_at(at);
            let mut rest = rest.chars();
            self.0.write_str(harmless)?;
            if let Some(c) = rest.next() {
                write!(self.0, "{}", c.escape_default())?;
            }
            s = rest.as_str();
        }
        self.0.write_str(s)
    }
}
