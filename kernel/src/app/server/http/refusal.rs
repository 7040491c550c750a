//! Reasons to refuse a request, with their status codes.

#![forbid(unsafe_code)]

use super::limits::MAX_HEADERS;

/// Reason to refuse a request.
///
/// The connection closes behind the answer to a refused request, because its end is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A line has a control character, or a CR or LF of its own.
    ControlCharacter,
    /// The request line is not `METHOD TARGET VERSION`.
    RequestLine,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The target has no form that the method allows, or is not well-formed.
    Target,
    /// The head is longer than the limit.
    HeadTooLarge,
    /// There are more than [`MAX_HEADERS`] headers.
    TooManyHeaders,
    /// A header is not `NAME: VALUE`.
    Header,
    /// A header goes on in a further line (obsolete line folding).
    FoldedLine,
    /// A request of HTTP/1.1 has no `Host`.
    HostMissing,
    /// There is a second `Host`, or its value is no host.
    Host,
    /// There is a second `Content-Length`, or its value is no number.
    ContentLength,
    /// There are both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// `Transfer-Encoding` is empty, in a request of HTTP/1.0, or does not end with its only
    /// `chunked`.
    TransferEncoding,
    /// `Transfer-Encoding` names a coding other than `chunked`.
    TransferCoding,
    /// The method needs a body, and the length of the body is missing.
    LengthRequired,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The size of a chunk is no hexadecimal number, or a chunk has another size.
    Chunk,
    /// Chunk extensions and trailers are longer than the limit of a head.
    TrailersTooLarge,
    /// `Expect` has another value than `100-continue`.
    Expectation,
    /// The head took too long.
    HeadTimeout,
    /// The body took too long.
    BodyTimeout,
    /// The client stopped in the middle of the request.
    Incomplete,
    /// No memory is left for the body.
    OutOfMemory,
}

impl Refusal {
    /// The status code of the answer.
    pub fn status(self) -> u16 {
        match self {
            Refusal::ControlCharacter
            | Refusal::RequestLine
            | Refusal::Target
            | Refusal::Header
            | Refusal::FoldedLine
            | Refusal::HostMissing
            | Refusal::Host
            | Refusal::ContentLength
            | Refusal::LengthAndCoding
            | Refusal::TransferEncoding
            | Refusal::Chunk
            | Refusal::Incomplete => 400,
            Refusal::HeadTimeout | Refusal::BodyTimeout => 408,
            Refusal::LengthRequired => 411,
            Refusal::BodyTooLarge => 413,
            Refusal::TargetTooLong => 414,
            Refusal::Expectation => 417,
            Refusal::HeadTooLarge | Refusal::TooManyHeaders | Refusal::TrailersTooLarge => 431,
            Refusal::TransferCoding => 501,
            Refusal::OutOfMemory => 503,
            Refusal::Version => 505,
        }
    }

    /// A sentence for the client; ASCII without quotes and backslashes.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::ControlCharacter => {
                "a line has a control character or does not end with CR LF"
            }
            Refusal::RequestLine => "the request line is malformed",
            Refusal::Version => "the version is not supported; use HTTP/1.1",
            Refusal::TargetTooLong => "the request target is too long",
            Refusal::Target => "the request target is malformed",
            Refusal::HeadTooLarge => "the head of the request is too large",
            Refusal::TooManyHeaders => {
                const {
                    assert!(MAX_HEADERS == 100);
                    "the request has more than 100 headers"
                }
            }
            Refusal::Header => "a header is malformed",
            Refusal::FoldedLine => "a header is folded over several lines",
            Refusal::HostMissing => "the header Host is missing",
            Refusal::Host => "the header Host is malformed or there are two",
            Refusal::ContentLength => "the header Content-Length is malformed or there are two",
            Refusal::LengthAndCoding => "the request has Content-Length and Transfer-Encoding",
            Refusal::TransferEncoding => "the header Transfer-Encoding is malformed",
            Refusal::TransferCoding => "the only transfer coding supported is chunked",
            Refusal::LengthRequired => "the header Content-Length is missing",
            Refusal::BodyTooLarge => "the body is too large",
            Refusal::Chunk => "a chunk of the body is malformed",
            Refusal::TrailersTooLarge => "chunk extensions and trailers are too large",
            Refusal::Expectation => "the only expectation supported is 100-continue",
            Refusal::HeadTimeout => "the head of the request took too long",
            Refusal::BodyTimeout => "the body took too long",
            Refusal::Incomplete => "the request ended early",
            Refusal::OutOfMemory => "no memory is left for the body",
        }
    }
}
