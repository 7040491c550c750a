//! Request line and headers: limits, syntax and the framing of the body.
//!
//! A [`Scanner`] looks for the end of the head while its bytes arrive. It refuses what no head may
//! contain, and looks at each byte once. `httparse` reads the whole head then ([`parse`]).

#![forbid(unsafe_code)]

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use super::headers::Headers;
use super::limits::{Limits, MAX_HEADERS};
use super::lines::{Line, Step, is_blank};
use super::method::Method;
use super::refusal::Refusal;
use super::target::{self, Query, Target};

/// Bytes of a request line beside its target: a method, a version, and room.
const REQUEST_LINE_REST: usize = 64;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path of the target, percent-decoded, without control characters.
    pub path: String,
    /// The query of the target.
    pub query: Query,
    /// The headers. `Host` is the authority of a target in absolute-form.
    pub headers: Headers,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

/// How the end of a body is found (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The body has so many bytes.
    Length(usize),
    /// The body comes in chunks.
    Chunked,
}

/// A head: a request whose body is still to come, and what concerns its connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The request, with an empty body.
    pub request: Request,
    /// How the end of the body is found.
    pub framing: Framing,
    /// Whether the client speaks HTTP/1.0 rather than HTTP/1.1.
    pub is_http_1_0: bool,
    /// Whether the client lets the connection stay open.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// A scanner for the end of a head, or of trailers.
#[derive(Debug, Default)]
pub struct Scanner {
    line: Line,
    /// Bytes scanned.
    at: usize,
    /// Start of the request line: an empty line may stand before it.
    start: usize,
    /// Bytes of the present line.
    line_bytes: usize,
    /// Lines that have ended.
    lines: usize,
}

impl Scanner {
    /// Whether a byte of a request line has arrived.
    pub fn has_started(&self) -> bool {
        self.lines > 0 || self.line_bytes > 0
    }

    /// Scans on in `input`, which starts where it started before; returns the place of the head.
    pub fn scan(&mut self, input: &[u8], limits: &Limits) -> Result<Option<Range<usize>>, Refusal> {
        for &byte in &input[self.at..] {
            self.at += 1;
            if self.at > limits.head_bytes {
                return Err(Refusal::HeadTooLarge);
            }
            let is_first = self.lines == 0;
            match self.line.push(byte)? {
                Step::Text(byte) if self.line_bytes == 0 && is_blank(byte) => {
                    return Err(if is_first { Refusal::RequestLine } else { Refusal::FoldedLine });
                }
                // No text of a request line is anything else. What speaks TLS shows here at once.
                Step::Text(byte) if is_first && !matches!(byte, b' '..=b'~') => {
                    return Err(Refusal::RequestLine);
                }
                Step::Text(_) => {
                    self.line_bytes += 1;
                    if is_first && self.line_bytes > limits.target_bytes + REQUEST_LINE_REST {
                        return Err(Refusal::TargetTooLong);
                    }
                }
                Step::Cr => {}
                Step::End => match (mem::take(&mut self.line_bytes), is_first) {
                    // RFC 9112 (2.2): a server should ignore an empty line before a request.
                    (0, true) if self.start == 0 => self.start = self.at,
                    (0, true) => return Err(Refusal::RequestLine),
                    (0, false) => return Ok(Some(self.start..self.at)),
                    _ if self.lines > MAX_HEADERS => return Err(Refusal::TooManyHeaders),
                    _ => self.lines += 1,
                },
            }
        }
        Ok(None)
    }
}

/// Reads a whole head, which a [`Scanner`] found.
pub fn parse(head: &[u8], limits: &Limits) -> Result<Head, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head).map_err(|error| refusal(error, head))? {
        httparse::Status::Complete(n) if n == head.len() => {}
        _ => return Err(Refusal::Header),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::RequestLine);
    };
    if target.len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    let method = Method::new(method);
    let target = target::parse(&method, target)?;
    let mut headers = Headers::default();
    for header in &*parsed.headers {
        headers.push(header.name, header.value);
    }
    let is_http_1_0 = minor == 0;
    check_host(&headers, is_http_1_0)?;
    if let Some(authority) = target.authority {
        headers.replace("Host", authority);
    }
    let framing = framing(&headers, &method, is_http_1_0, limits)?;
    let has = |name: &str, token: &str| {
        headers.list(name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    };
    // RFC 9110 (10.1.1): a server ignores the expectations of HTTP/1.0.
    let expects_continue = !is_http_1_0 && expects_continue(&headers)?;
    let keep_alive =
        !has("Connection", "close") && (!is_http_1_0 || has("Connection", "keep-alive"));
    let Target { path, query, .. } = target;
    let request = Request { method, path, query, headers, body: Vec::new() };
    Ok(Head { request, framing, is_http_1_0, keep_alive, expects_continue })
}

/// The refusal for what `httparse` found wrong.
fn refusal(error: httparse::Error, head: &[u8]) -> Refusal {
    use httparse::Error;
    match error {
        Error::Version if has_other_version(head) => Refusal::Version,
        Error::Version | Error::Token | Error::NewLine | Error::Status => Refusal::RequestLine,
        Error::HeaderName | Error::HeaderValue => Refusal::Header,
        Error::TooManyHeaders => Refusal::TooManyHeaders,
    }
}

/// Whether the request line is well-formed up to its version, such as HTTP/2's preface.
fn has_other_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let version = words.nth(2).and_then(|version| version.strip_prefix(b"HTTP/"));
    let is_version = match version {
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    };
    is_version && words.next().is_none()
}

/// Checks that there is one host (RFC 9112, 3.2); HTTP/1.0 may have none.
fn check_host(headers: &Headers, is_http_1_0: bool) -> Result<(), Refusal> {
    let mut hosts = headers.all("Host");
    match (hosts.next(), hosts.next()) {
        (None, _) if is_http_1_0 => Ok(()),
        (None, _) => Err(Refusal::HostMissing),
        (Some(host), None) if target::is_host(host) => Ok(()),
        _ => Err(Refusal::Host),
    }
}

/// Whether the client waits for `100 Continue`, the only expectation there is.
fn expects_continue(headers: &Headers) -> Result<bool, Refusal> {
    let is_continue = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    match headers.all("Expect").all(is_continue) {
        true => Ok(headers.all("Expect").next().is_some()),
        false => Err(Refusal::Expectation),
    }
}

/// Finds out how the end of the body is found (RFC 9112, 6.3).
fn framing(
    headers: &Headers,
    method: &Method,
    is_http_1_0: bool,
    limits: &Limits,
) -> Result<Framing, Refusal> {
    let mut lengths = headers.all("Content-Length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Refusal::ContentLength);
    }
    let is_coded = headers.all("Transfer-Encoding").next().is_some();
    match length {
        Some(_) if is_coded => Err(Refusal::LengthAndCoding),
        Some(length) => match content_length(length)? {
            length if length > limits.body_bytes => Err(Refusal::BodyTooLarge),
            length => Ok(Framing::Length(length)),
        },
        None if is_coded => {
            check_codings(headers, is_http_1_0)?;
            Ok(Framing::Chunked)
        }
        None if method.needs_body() => Err(Refusal::LengthRequired),
        None => Ok(Framing::Length(0)),
    }
}

/// Reads a length; one that is too large for the machine becomes its largest number.
fn content_length(value: &[u8]) -> Result<usize, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::ContentLength);
    }
    let digits = value.iter().map(|digit| usize::from(digit - b'0'));
    Ok(digits.fold(0_usize, |length, digit| length.saturating_mul(10).saturating_add(digit)))
}

/// Checks that the only transfer coding is `chunked`.
fn check_codings(headers: &Headers, is_http_1_0: bool) -> Result<(), Refusal> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings: Vec<&[u8]> = headers.list("Transfer-Encoding").collect();
    let before_last = codings.split_last().map_or(&[][..], |(_, before)| before);
    if is_http_1_0
        || codings.iter().any(|coding| coding.is_empty())
        || before_last.iter().any(|coding| is_chunked(coding))
    {
        return Err(Refusal::TransferEncoding);
    }
    match codings.iter().all(|coding| is_chunked(coding)) {
        true => Ok(()),
        false => Err(Refusal::TransferCoding),
    }
}
