//! A short text in place, for where nothing may be allocated.
#![forbid(unsafe_code)]

use core::fmt;

/// At most `N` bytes of text. What is too much is cut off, at the border of a character.
#[derive(Clone, Copy, Debug)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// No text.
    pub const fn new() -> Self {
        Text { bytes: [0; N], len: 0 }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Only whole characters are ever put in.
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    /// Fails once something was cut off, so that nothing follows the cut.
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let fits = s.floor_char_boundary(N - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&s.as_bytes()[..fits]);
        self.len += fits;
        if fits == s.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn what_fits_is_kept_and_the_rest_cut_off_between_characters() {
        let mut text = Text::<7>::new();
        assert_eq!(text.as_str(), "");
        assert_eq!(write!(text, "{}{}", "ab", 3), Ok(()));
        assert_eq!(text.as_str(), "ab3");
        // Two characters of two bytes would fill it, the third byte of the next has no room.
        assert_eq!(write!(text, "ä€{}", "z"), Err(fmt::Error));
        assert_eq!(text.as_str(), "ab3ä");
        assert_eq!(Text::<0>::new().write_str("x"), Err(fmt::Error));
        let mut full = Text::<3>::new();
        assert_eq!(full.write_str("xyz"), Ok(()));
        assert_eq!(full.as_str(), "xyz");
    }
}
