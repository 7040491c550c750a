//! The serial line: bytes in, text for people and events out.
//!
//! An event is a line that starts with the byte 0x1E (RFC 7464); every other byte is text. No input
//! makes the decoder panic or hold memory without limit. Text is passed on at once, and an event
//! longer than [`MAX_EVENT_BYTES`] is dropped and named.

#![forbid(unsafe_code)]

use kernel::report::{Event, RECORD_SEPARATOR};

/// Length of the longest event in bytes. A result with 100,000 tokens takes about a tenth.
pub const MAX_EVENT_BYTES: usize = 16 << 20;

/// Shown length of a line that could not be read, in characters.
const EXCERPT_CHARS: usize = 120;

const SEPARATOR: u8 = RECORD_SEPARATOR as u8;

/// A unit of the decoded line.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Text for people. U+FFFD replaces bytes that are not UTF-8, and U+241E a separator inside a
    /// line. Newlines replace the line ends of a serial line (CR LF).
    Text(String),
    /// An event.
    Event(Box<Event>),
    /// A line that starts like an event, and is none.
    Garbled {
        /// The start of the line.
        line: String,
        /// The error.
        error: String,
    },
}

/// Place of the decoder in a line.
#[derive(Debug, Default)]
enum Line {
    /// Before the first byte.
    #[default]
    Start,
    /// In text.
    Text,
    /// In an event, with its bytes so far.
    Event(Vec<u8>),
    /// In an event that is too long.
    Dropped,
}

/// Decoder of the line, in chunks of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Line,
    /// The start of an incomplete character, or a carriage return that may belong to a newline.
    partial: Vec<u8>,
}

impl Decoder {
    /// Decodes the next bytes into `sink`.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Item)) {
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

    /// Flushes the rest when the line is dead.
    pub fn finish(&mut self, sink: &mut impl FnMut(Item)) {
        if !self.partial.is_empty() {
            sink(Item::Text(String::from_utf8_lossy(&self.partial).into_owned()));
            self.partial.clear();
        }
        if let Line::Event(event) = &self.line {
            sink(garbled(event, "cut off before its end".into()));
        }
        self.line = Line::Start;
    }

    fn text(&mut self, bytes: &[u8], sink: &mut impl FnMut(Item)) {
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
        // Incomplete bytes at the end wait for the next chunk.
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
            sink(Item::Text(text));
        }
    }
}

fn parse(line: &[u8]) -> Item {
    // A replaced byte within a string would silently change the event.
    let text = match str::from_utf8(line) {
        Ok(text) => text,
        Err(e) => return garbled(line, e.to_string()),
    };
    match Event::from_line(text) {
        Some(Ok(event)) => Item::Event(Box::new(event)),
        Some(Err(e)) => garbled(line, e.to_string()),
        None => garbled(line, "no event".into()),
    }
}

fn garbled(line: &[u8], error: String) -> Item {
    let start = &line[..line.len().min(4 * EXCERPT_CHARS)];
    let text = String::from_utf8_lossy(start);
    let line = text.trim_start_matches(RECORD_SEPARATOR).trim_end();
    Item::Garbled { line: line.chars().take(EXCERPT_CHARS).collect(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::report::Exit;

    /// The decoder's output for these chunks, with neighbouring texts joined.
    fn decode(chunks: &[&[u8]]) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        let mut sink = |item| match (items.last_mut(), item) {
            (Some(Item::Text(before)), Item::Text(text)) => before.push_str(&text),
            (_, item) => items.push(item),
        };
        let mut decoder = Decoder::default();
        for chunk in chunks {
            decoder.push(chunk, &mut sink);
        }
        decoder.finish(&mut sink);
        items
    }

    fn text(text: &str) -> Item {
        Item::Text(text.into())
    }

    fn exit(status: i32) -> Item {
        Item::Event(Box::new(Event::Exit(Exit { status })))
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
        Decoder::default().push(b"> ", &mut |item| seen.push(item));
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
            [Item::Garbled { line, error }] => (line.clone(), error.clone()),
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
        let items =
            decode(&[b"\x1e", &long, &long, &long, b"\n\x1e{\"event\":\"exit\",\"status\":5}\n"]);
        assert_eq!(items.len(), 2, "{items:?}");
        assert!(matches!(&items[0], Item::Garbled { error, .. } if error.contains("longer")));
        assert_eq!(items[1], exit(5));
    }
}
