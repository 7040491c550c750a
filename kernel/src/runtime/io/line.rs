//! How text becomes bytes on the serial line.
#![forbid(unsafe_code)]

use crate::report::RECORD_SEPARATOR;

/// Where on its line the cursor stands, and the two rules that depend on it: a newline is sent as
/// carriage return and newline, and the byte that starts an event always starts a line.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    at_start: bool,
}

impl Line {
    /// The cursor at the start of a line.
    pub const START: Line = Line { at_start: true };
    /// The cursor anywhere.
    pub const UNKNOWN: Line = Line { at_start: false };

    /// The cursor is known to be at the start of a line.
    pub fn is_at_start(&self) -> bool {
        self.at_start
    }

    /// Sends `text` through `send`.
    pub fn write(&mut self, text: &[u8], mut send: impl FnMut(u8)) {
        for &byte in text {
            if byte == b'\n' || (byte == RECORD_SEPARATOR as u8 && !self.at_start) {
                send(b'\r');
                send(b'\n');
            }
            if byte != b'\n' {
                send(byte);
            }
            self.at_start = byte == b'\n';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn sent(pieces: &[&str]) -> Vec<u8> {
        let mut line = Line::START;
        let mut sent = Vec::new();
        for piece in pieces {
            line.write(piece.as_bytes(), |byte| sent.push(byte));
        }
        sent
    }

    #[test]
    fn newlines_get_a_carriage_return() {
        assert_eq!(sent(&["a\nb", "\n\n"]), b"a\r\nb\r\n\r\n");
        assert_eq!(sent(&["\r[# ]\r[##]"]), b"\r[# ]\r[##]");
    }

    #[test]
    fn the_start_of_a_line_is_known() {
        let mut line = Line::START;
        for (text, is_at_start) in [("Once", false), ("\r", false), ("\n", true), ("", true)] {
            line.write(text.as_bytes(), |_| ());
            assert_eq!(line.is_at_start(), is_at_start, "{text:?}");
        }
        assert!(!Line::UNKNOWN.is_at_start());
    }

    #[test]
    fn an_event_starts_a_line() {
        assert_eq!(sent(&["\x1e{}\n", "\x1e{}\n"]), b"\x1e{}\r\n\x1e{}\r\n");
        assert_eq!(sent(&["Once", "\x1e{}\n"]), b"Once\r\n\x1e{}\r\n");
        // After a carriage return alone the line still holds what was there.
        assert_eq!(sent(&["50 %\r", "\x1e{}\n"]), b"50 %\r\r\n\x1e{}\r\n");
    }
}
