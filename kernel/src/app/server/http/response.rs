//! Responses: status line and headers.

#![forbid(unsafe_code)]

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// The response to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A response: status, headers and body.
///
/// There is no `Date`: RFC 9110 (6.6.1) forbids the header to a server without a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    headers: Vec<(&'static str, String)>,
    body: Cow<'static, [u8]>,
}

/// How a client finds the end of a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The status code allows no body.
    NoBody,
    /// By `Content-Length`.
    Length(usize),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What the header `Connection` tells the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Nothing: the connection stays open, as HTTP/1.1 means it.
    Nothing,
    /// The connection stays open; for HTTP/1.0.
    KeepAlive,
    /// The connection closes.
    Close,
}

impl Response {
    /// A response without headers and body.
    pub fn new(status: u16) -> Self {
        Response { status, headers: Vec::new(), body: Cow::Borrowed(&[]) }
    }

    /// Adds a header. A control character in the value becomes a blank.
    ///
    /// So no value can end its line, whoever wrote it. The connection writes the headers that
    /// concern connection and framing; they are ignored here.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        debug_assert!(!name.is_empty() && name.bytes().all(is_token), "{name:?}");
        const OWN: [&str; 3] = ["Connection", "Content-Length", "Transfer-Encoding"];
        if !OWN.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            let is_control = |c: char| c.is_control() && c != '\t';
            let value = value.chars().map(|c| if is_control(c) { ' ' } else { c }).collect();
            self.headers.push((name, value));
        }
        self
    }

    /// Sets the body, whose media type is among the headers. The body is not copied.
    pub fn with_bytes(mut self, body: &'static [u8]) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body and its media type. The body is not copied.
    pub fn with_body(
        mut self,
        content_type: &'static str,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        self.body = body.into();
        self.header("Content-Type", content_type)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the status code allows a body (RFC 9110, 6.4.1).
    pub(super) fn may_have_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 304)
    }

    /// Appends status line and headers, and returns the body.
    pub(super) fn write_head(
        self,
        out: &mut Vec<u8>,
        framing: Framing,
        announce: Announce,
    ) -> Cow<'static, [u8]> {
        let mut head = String::new();
        // A String takes all text.
        let _ = write!(head, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = match framing {
            Framing::NoBody | Framing::UntilClose => Ok(()),
            Framing::Length(length) => write!(head, "Content-Length: {length}\r\n"),
            Framing::Chunked => write!(head, "Transfer-Encoding: chunked\r\n"),
        };
        head.push_str(match announce {
            Announce::Nothing => "\r\n",
            Announce::KeepAlive => "Connection: keep-alive\r\n\r\n",
            Announce::Close => "Connection: close\r\n\r\n",
        });
        out.extend_from_slice(head.as_bytes());
        self.body
    }
}

/// Appends data as one chunk. Empty data are no chunk: that would be the last one.
pub(super) fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut size = String::new();
    let _ = write!(size, "{:x}\r\n", data.len());
    for part in [size.as_bytes(), data, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The chunk that ends a body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Bytes of a chunk beside its data, at most: sixteen digits and two line ends.
pub(super) const CHUNK_OVERHEAD: usize = 20;

/// The reason phrase of a status code (RFC 9110, 15); empty for others.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: Response, framing: Framing, announce: Announce) -> String {
        let mut out = Vec::new();
        response.write_head(&mut out, framing, announce);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_has_status_headers_framing_and_connection() {
        let response = Response::new(503).header("Retry-After", "1").with_body("text/plain", b"x");
        assert_eq!(
            text(response.clone(), Framing::Length(1), Announce::Close),
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\
             Content-Length: 1\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(
            text(Response::new(299), Framing::Chunked, Announce::KeepAlive),
            "HTTP/1.1 299 \r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
        );
        for framing in [Framing::NoBody, Framing::UntilClose] {
            let head = text(Response::new(200), framing, Announce::Nothing);
            assert_eq!(head, "HTTP/1.1 200 OK\r\n\r\n");
        }
        assert_eq!(response.body(), b"x");
    }

    #[test]
    fn no_value_ends_its_line() {
        let response = Response::new(200)
            .header("Access-Control-Allow-Origin", "a\r\nSet-Cookie: b\0\u{85}\tc\u{7f}")
            .header("connection", "close")
            .header("CONTENT-LENGTH", "7")
            .header("Transfer-Encoding", "chunked");
        assert_eq!(
            text(response, Framing::NoBody, Announce::Nothing),
            "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: a  Set-Cookie: b  \tc \r\n\r\n"
        );
    }

    #[test]
    fn chunks_have_their_size_in_hexadecimal() {
        let mut out = Vec::new();
        push_chunk(&mut out, &[b'x'; 26]);
        push_chunk(&mut out, b"");
        out.extend_from_slice(LAST_CHUNK);
        assert_eq!(out, b"1a\r\nxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n");
    }
}
