//! The serial line: bytes in, text for people and events out.
//!
//! An event is a line that starts with the byte 0x1E (RFC 7464); every other byte is text. Nothing
//! that comes over the line can make this panic or hold memory without end: text is handed on at
//! once, and an event longer than [`MAX_EVENT_BYTES`] is dropped and named.

#![forbid(unsafe_code)]

use kernel::report::{Event, RECORD_SEPARATOR};

/// Longest event that is read. A result with 100,000 tokens takes about a tenth of it.
pub const MAX_EVENT_BYTES: usize = 16 << 20;

/// How much of a line that could not be read is shown, in characters.
const EXCERPT_CHARS: usize = 120;

const SEPARATOR: u8 = RECORD_SEPARATOR as u8;

/// What came over the line.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text for people; bytes that are no UTF-8 are replaced by U+FFFD, a separator that does not
    /// start a line by U+241E, and the line ends of a serial line (CR LF) by newlines.
    Text(String),
    /// An event.
    Event(Box<Event>),
    /// A line that starts as an event does but holds none.
    Garbled {
        /// The start of the line.
        line: String,
        /// What is wrong with it.
        error: String,
    },
}

/// Where in a line the decoder stands.
#[derive(Debug, Default)]
enum Line {
    /// Before its first byte.
    #[default]
    Start,
    /// In text.
    Text,
    /// In an event; holds what came of it.
    Event(Vec<u8>),
    /// In an event that is too long.
    Dropped,
}

/// Takes the bytes of the line in chunks of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Line,
    /// The start of a character whose other bytes have not come yet, or a carriage return that may
    /// belong to a newline.
    partial: Vec<u8>,
}

impl Decoder {
    /// Takes the next bytes and hands what they complete to `sink`.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Piece)) {
        while let Some(&first) = bytes.first() {
            if matches!(self.line, Line::Start) && first == SEPARATOR {
                self.line = Line::Event(Vec::new());
            }
            let end = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| at + 1);
            let (head, rest) = bytes.split_at(end);
            bytes = rest;
            let complete = head.ends_with(b"\n");

            match &mut self.line {
                Line::Start | Line::Text => {
                    self.text(head, sink);
                    self.line = Line::Text;
                }
                Line::Event(event) if event.len() + head.len() > MAX_EVENT_BYTES => {
                    sink(garbled(event, format!("longer than {MAX_EVENT_BYTES} bytes")));
                    self.line = Line::Dropped;
                }
                Line::Event(event) => {
                    event.extend_from_slice(head);
                    if complete {
                        sink(parse(event));
                    }
                }
                Line::Dropped => {}
            }
            if complete {
                self.line = Line::Start;
            }
        }
    }

    /// Hands on what is left when the line goes dead.
    pub fn finish(&mut self, sink: &mut impl FnMut(Piece)) {
        if !self.partial.is_empty() {
            sink(Piece::Text(String::from_utf8_lossy(&self.partial).into_owned()));
            self.partial.clear();
        }
        if let Line::Event(event) = &self.line {
            sink(garbled(event, "cut off before its end".into()));
        }
        self.line = Line::Start;
    }

    fn text(&mut self, bytes: &[u8], sink: &mut impl FnMut(Piece)) {
        self.partial.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.partial.len());
        let mut held = 0;
        for chunk in self.partial.utf8_chunks() {
            text.extend(chunk.valid().chars().map(|c| match c {
                RECORD_SEPARATOR => '\u{241e}',
                c => c,
            }));
            held = chunk.invalid().len();
            if held > 0 {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        // Bytes at the very end that could still become something else wait for the next ones.
        let waiting = &self.partial[self.partial.len() - held..];
        let may_go_on = matches!(std::str::from_utf8(waiting), Err(e) if e.error_len().is_none());
        if may_go_on {
            text.pop();
            self.partial.drain(..self.partial.len() - held);
        } else {
            self.partial.clear();
            if text.ends_with('\r') {
                text.pop();
                self.partial.push(b'\r');
            }
        }
        let text = text.replace("\r\n", "\n");
        if !text.is_empty() {
            sink(Piece::Text(text));
        }
    }
}

fn parse(line: &[u8]) -> Piece {
    // Bytes replaced within a string would make another event of it, and nobody would know.
    let text = match str::from_utf8(line) {
        Ok(text) => text,
        Err(e) => return garbled(line, e.to_string()),
    };
    match Event::from_line(text) {
        Some(Ok(event)) => Piece::Event(Box::new(event)),
        Some(Err(e)) => garbled(line, e.to_string()),
        None => garbled(line, "no event".into()),
    }
}

fn garbled(line: &[u8], error: String) -> Piece {
    let start = &line[..line.len().min(4 * EXCERPT_CHARS)];
    let text = String::from_utf8_lossy(start);
    let line = text.trim_start_matches(RECORD_SEPARATOR).trim_end();
    Piece::Garbled { line: line.chars().take(EXCERPT_CHARS).collect(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::report::Exit;

    /// What comes out for these chunks, with neighbouring texts joined.
    fn decode(chunks: &[&[u8]]) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut sink = |piece| match (pieces.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
            (_, piece) => pieces.push(piece),
        };
        let mut decoder = Decoder::default();
        for chunk in chunks {
            decoder.push(chunk, &mut sink);
        }
        decoder.finish(&mut sink);
        pieces
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    fn exit(status: i32) -> Piece {
        Piece::Event(Box::new(Event::Exit(Exit { status })))
    }

    #[test]
    fn chunks_of_any_size_give_the_same() {
        let log =
            "Grüße 🙂\r10 %\r100 %\n\x1e{\"event\":\"exit\",\"status\":3}\r\nafter\n".as_bytes();
        let whole = decode(&[log]);
        assert_eq!(whole, [text("Grüße 🙂\r10 %\r100 %\n"), exit(3), text("after\n")]);
        for size in 1..log.len() {
            assert_eq!(decode(&log.chunks(size).collect::<Vec<_>>()), whole, "chunks of {size}");
        }
    }

    #[test]
    fn text_without_a_newline_is_handed_on_at_once() {
        let mut seen = Vec::new();
        Decoder::default().push(b"> ", &mut |piece| seen.push(piece));
        assert_eq!(seen, [text("> ")]);
    }

    #[test]
    fn an_event_stands_at_the_start_of_a_line() {
        let log =
            b"says \x1e{\"event\":\"exit\",\"status\":0}\n\x1e{\"event\":\"exit\",\"status\":1}\n";
        assert_eq!(
            decode(&[log]),
            [text("says \u{241e}{\"event\":\"exit\",\"status\":0}\n"), exit(1)]
        );
        assert_eq!(
            decode(&[b"says ", b"\x1e{\"event\":\"exit\",\"status\":0}\n"]),
            [text("says \u{241e}{\"event\":\"exit\",\"status\":0}\n")],
            "the start of a chunk is not that of a line"
        );
        assert_eq!(
            decode(&[b"\r\x1e{\"event\":\"exit\",\"status\":0}\n"]),
            [text("\r\u{241e}{\"event\":\"exit\",\"status\":0}\n")],
            "a carriage return starts no line"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(decode(&[b"a\xffb\xc3\n"]), [text("a\u{fffd}b\u{fffd}\n")]);
        assert_eq!(decode(&[b"a\xf0\x9f", b"\x99\x82\n"]), [text("a🙂\n")]);
        assert_eq!(decode(&[b"a\xf0\x9f", b"b"]), [text("a\u{fffd}b")]);
        assert_eq!(decode(&[b"a\xf0\x9f"]), [text("a\u{fffd}")], "the line went dead");
    }

    #[test]
    fn an_event_that_cannot_be_read_is_named() {
        let garbled = |log: &[u8]| match decode(&[log]).as_slice() {
            [Piece::Garbled { line, error }] => (line.clone(), error.clone()),
            other => panic!("{other:?}"),
        };
        let (line, error) = garbled(b"\x1e{\"event\":\"ex");
        assert_eq!((line.as_str(), error.as_str()), ("{\"event\":\"ex", "cut off before its end"));
        let (line, error) = garbled(b"\x1e{\"event\":\"dance\"}\n");
        assert_eq!(line, "{\"event\":\"dance\"}");
        assert!(error.contains("dance"), "{error}");
        let (_, error) = garbled(b"\x1e{\"event\":\"exit\",\"status\":0x}\n");
        assert!(error.contains("column"), "{error}");
        let (line, error) = garbled(b"\x1e{\"event\":\"error\",\"message\":\"Gr\xfc\"}\n");
        assert!(line.contains("Gr\u{fffd}"), "{line}");
        assert!(error.contains("utf-8"), "{error}");
    }

    #[test]
    fn an_event_without_end_is_dropped_and_the_next_one_read() {
        let long = vec![b'x'; MAX_EVENT_BYTES / 2 + 7];
        let pieces =
            decode(&[b"\x1e", &long, &long, &long, b"\n\x1e{\"event\":\"exit\",\"status\":5}\n"]);
        assert_eq!(pieces.len(), 2, "{pieces:?}");
        assert!(matches!(&pieces[0], Piece::Garbled { error, .. } if error.contains("longer")));
        assert_eq!(pieces[1], exit(5));
    }
}
