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

    /// Goes to the start of a line, unless the cursor is there.
    pub fn begin(&mut self, send: impl FnMut(u8)) {
        if !self.at_start {
            self.write(b"\n", send);
        }
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
    fn a_line_is_begun_where_none_is() {
        let mut line = Line::START;
        let mut sent = Vec::new();
        line.begin(|byte| sent.push(byte));
        line.write(b"Once", |byte| sent.push(byte));
        line.begin(|byte| sent.push(byte));
        line.begin(|byte| sent.push(byte));
        assert_eq!(sent, b"Once\r\n");
    }

    #[test]
    fn an_event_starts_a_line() {
        assert_eq!(sent(&["\x1e{}\n", "\x1e{}\n"]), b"\x1e{}\r\n\x1e{}\r\n");
        assert_eq!(sent(&["Once", "\x1e{}\n"]), b"Once\r\n\x1e{}\r\n");
        // After a carriage return alone the line still holds what was there.
        assert_eq!(sent(&["50 %\r", "\x1e{}\n"]), b"50 %\r\r\n\x1e{}\r\n");
    }
}
