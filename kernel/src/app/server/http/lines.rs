//! The line discipline that heads, chunks and trailers share.

#![forbid(unsafe_code)]

use super::refusal::Refusal;

/// The reader of lines: a line ends with CR LF and has no other control character but tabs.
///
/// RFC 9112 (2.2) lets a server accept a bare LF. This server does not: a proxy that sees another
/// line end than the server can be made to see another request.
#[derive(Debug, Default)]
pub struct Line {
    after_cr: bool,
}

/// What a byte means to its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A byte of the line's text.
    Text(u8),
    /// The CR of a line's end.
    Cr,
    /// The LF of a line's end.
    End,
}

impl Line {
    /// Takes the next byte.
    pub fn push(&mut self, byte: u8) -> Result<Step, Refusal> {
        match (self.after_cr, byte) {
            (false, b'\t' | b' '..=b'~' | 0x80..) => Ok(Step::Text(byte)),
            (false, b'\r') => {
                self.after_cr = true;
                Ok(Step::Cr)
            }
            (true, b'\n') => {
                self.after_cr = false;
                Ok(Step::End)
            }
            _ => Err(Refusal::ControlCharacter),
        }
    }
}

/// Whether a byte is a blank that HTTP allows within a line.
pub fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_cr_lf_alone() {
        let read = |bytes: &[u8]| {
            let mut line = Line::default();
            bytes.iter().map(|&byte| line.push(byte)).collect::<Result<std::vec::Vec<_>, _>>()
        };
        let steps = [Step::Text(b'a'), Step::Text(b'\t'), Step::Text(0xff), Step::Cr, Step::End];
        assert_eq!(read(b"a\t\xff\r\n").as_deref(), Ok(&steps[..]));
        for bytes in [&b"a\n"[..], b"\n", b"\ra", b"\r\r", b"\r\r\n", b"\0", b"a\x7f", b"\x0b"] {
            assert_eq!(read(bytes), Err(Refusal::ControlCharacter), "{bytes:?}");
        }
    }
}
