//! Framing of server-sent events (WHATWG HTML, 9.2).

#![forbid(unsafe_code)]

use alloc::string::String;

/// Media type of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// A comment without text, which keeps a quiet connection open.
pub const COMMENT: &str = ":\n\n";

/// Appends an event with this data.
///
/// Each line of the data gets a field of its own; the client joins them by LF.
pub fn push_event(out: &mut String, data: &str) {
    let mut rest = data;
    loop {
        let (line, tail) = match rest.find(['\r', '\n']) {
            None => (rest, None),
            Some(end) => {
                let tail = &rest[end..];
                let tail = tail.strip_prefix("\r\n").unwrap_or(&tail[1..]);
                (&rest[..end], Some(tail))
            }
        };
        for part in ["data: ", line, "\n"] {
            out.push_str(part);
        }
        match tail {
            Some(tail) => rest = tail,
            None => break,
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_field() {
        for (data, expected) in [
            ("", "data: \n\n"),
            ("{\"a\":1}", "data: {\"a\":1}\n\n"),
            ("a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n\n"),
            ("a\n\nevent: x", "data: a\ndata: \ndata: event: x\n\n"),
            ("é\n", "data: é\ndata: \n\n"),
        ] {
            let mut out = String::new();
            push_event(&mut out, data);
            assert_eq!(out, expected, "{data:?}");
        }
    }
}
