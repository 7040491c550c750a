//! Requests that are refused: malformed, ambiguous, too large.

use super::*;

#[test]
fn request_lines_that_are_none_are_refused() {
    for (line, expected) in [
        ("GET /", Refusal::RequestLine),
        ("GET / ", Refusal::RequestLine),
        ("GET  / HTTP/1.1", Refusal::RequestLine),
        ("GET /  HTTP/1.1", Refusal::RequestLine),
        ("GET /a b HTTP/1.1", Refusal::RequestLine),
        ("GET /a b HTTP/2.0", Refusal::RequestLine),
        ("GET / HTTP/1.1 ", Refusal::RequestLine),
        ("GET / HTTP/1.1 x", Refusal::RequestLine),
        ("GET / HTTP/2.0 x", Refusal::RequestLine),
        (" GET / HTTP/1.1", Refusal::RequestLine),
        ("\tGET / HTTP/1.1", Refusal::RequestLine),
        ("GET\t/\tHTTP/1.1", Refusal::RequestLine),
        ("G(T / HTTP/1.1", Refusal::RequestLine),
        ("GET: / HTTP/1.1", Refusal::RequestLine),
        ("GET /caf\u{e9} HTTP/1.1", Refusal::RequestLine),
        ("GET / http/1.1", Refusal::RequestLine),
        ("GET / HTTP/1", Refusal::RequestLine),
        ("GET / HTTP/11", Refusal::RequestLine),
        ("GET / HTTP/1.x", Refusal::RequestLine),
        ("GET / HTTPS/1.1", Refusal::RequestLine),
        ("GET / HTTP/1.10", Refusal::RequestLine),
        ("\r\n\r\nGET / HTTP/1.1", Refusal::RequestLine),
        ("GET / HTTP/0.9", Refusal::Version),
        ("GET / HTTP/1.2", Refusal::Version),
        ("GET / HTTP/2.0", Refusal::Version),
        ("\r\nGET / HTTP/2.0", Refusal::Version),
        ("GET a HTTP/1.1", Refusal::Target),
        ("GET * HTTP/1.1", Refusal::Target),
        ("CONNECT h:443 HTTP/1.1", Refusal::Target),
        ("GET /%2 HTTP/1.1", Refusal::Target),
        ("GET /%00 HTTP/1.1", Refusal::Target),
        ("GET /#x HTTP/1.1", Refusal::Target),
        ("GET http://a@b/ HTTP/1.1", Refusal::Target),
        ("GET \0 HTTP/1.1", Refusal::ControlCharacter),
        ("GET / HTTP/1.1\rX: y", Refusal::ControlCharacter),
        ("GET / HTTP/1.1\nX: y", Refusal::ControlCharacter),
    ] {
        let head = format!("{line}\r\nHost: h\r\n\r\n");
        assert_eq!(refused(&head), Some(expected), "{line:?}");
    }
}

#[test]
fn what_speaks_another_protocol_is_refused_at_once() {
    // HTTP/2 with prior knowledge (RFC 9113, 3.4).
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some(Refusal::Version));
    // The start of a TLS handshake: no line end will ever come.
    assert_eq!(refused(b"\x16\x03\x01"), Some(Refusal::ControlCharacter));
    assert_eq!(refused(b"\xff\xfe"), Some(Refusal::RequestLine));
    assert_eq!(refused(b"\n"), Some(Refusal::ControlCharacter));
}

#[test]
fn headers_that_are_none_are_refused() {
    for (headers, expected) in [
        ("X", Refusal::Header),
        (": x", Refusal::Header),
        ("X : y", Refusal::Header),
        ("X\t: y", Refusal::Header),
        ("X y: z", Refusal::Header),
        ("X(: y", Refusal::Header),
        ("caf\u{e9}: y", Refusal::Header),
        (" X: y", Refusal::FoldedLine),
        ("X: y\r\n z", Refusal::FoldedLine),
        ("X: y\r\n\tz", Refusal::FoldedLine),
        ("X: y\r\n \r\nZ: z", Refusal::FoldedLine),
        ("X: y\nZ: z", Refusal::ControlCharacter),
        ("X: y\rZ: z", Refusal::ControlCharacter),
        ("X: y\r\r\nZ: z", Refusal::ControlCharacter),
        ("X: y\0", Refusal::ControlCharacter),
        ("X: \x0by", Refusal::ControlCharacter),
        ("X\0: y", Refusal::ControlCharacter),
        ("X: y\x7f", Refusal::ControlCharacter),
        ("Host: i", Refusal::Host),
        ("hOST: h", Refusal::Host),
        ("Expect: 200-ok", Refusal::Expectation),
        ("Expect: 100-continue\r\nExpect: x", Refusal::Expectation),
        ("Expect:", Refusal::Expectation),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n");
        assert_eq!(refused(&head), Some(expected), "{headers:?}");
    }
    for (host, expected) in [
        ("", Refusal::HostMissing),
        ("X: y\r\n", Refusal::HostMissing),
        ("Host: a b\r\n", Refusal::Host),
        ("Host: a, b\r\n", Refusal::Host),
        ("Host: a/b\r\n", Refusal::Host),
        ("Host: a@b\r\n", Refusal::Host),
    ] {
        assert_eq!(refused(format!("GET / HTTP/1.1\r\n{host}\r\n")), Some(expected), "{host:?}");
    }
    assert_eq!(refused("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), Some(Refusal::Host));
}

/// Heads whose body two parsers could take for different bytes.
#[test]
fn requests_that_could_be_smuggled_are_refused() {
    use Refusal::{ContentLength, LengthAndCoding, TransferCoding, TransferEncoding};
    for (headers, expected) in [
        ("Content-Length: 5\r\nContent-Length: 5", ContentLength),
        ("Content-Length: 5\r\ncontent-length: 6", ContentLength),
        ("Content-Length: 5, 5", ContentLength),
        ("Content-Length: 5,6", ContentLength),
        ("Content-Length: +5", ContentLength),
        ("Content-Length: -5", ContentLength),
        ("Content-Length: 5 5", ContentLength),
        ("Content-Length: 0x5", ContentLength),
        ("Content-Length: 5.0", ContentLength),
        ("Content-Length: 5e0", ContentLength),
        ("Content-Length: \u{665}", ContentLength),
        ("Content-Length:", ContentLength),
        ("Content-Length: \"5\"", ContentLength),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", LengthAndCoding),
        ("Transfer-Encoding: identity\r\nContent-Length: 5", LengthAndCoding),
        ("Transfer-Encoding:\r\nContent-Length: 5", LengthAndCoding),
        ("Transfer-Encoding:", TransferEncoding),
        ("Transfer-Encoding: ,chunked", TransferEncoding),
        ("Transfer-Encoding: chunked,", TransferEncoding),
        ("Transfer-Encoding: chunked, chunked", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", TransferEncoding),
        ("Transfer-Encoding: chunked, identity", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", TransferEncoding),
        ("Transfer-Encoding: identity", TransferCoding),
        ("Transfer-Encoding: gzip, chunked", TransferCoding),
        ("Transfer-Encoding: gzip", TransferCoding),
        ("Transfer-Encoding: xchunked", TransferCoding),
        ("Transfer-Encoding: chunkedx", TransferCoding),
        ("Transfer-Encoding: chunked;q=1", TransferCoding),
        ("Transfer-Encoding: \"chunked\"", TransferCoding),
        ("Transfer-Encoding: chunk ed", TransferCoding),
        ("Transfer-Encoding : chunked", Refusal::Header),
        ("Transfer-Encoding\t: chunked", Refusal::Header),
        ("X: y\r\n Transfer-Encoding: chunked", Refusal::FoldedLine),
        ("Transfer-Encoding:\r\n chunked", Refusal::FoldedLine),
        ("X: y\nTransfer-Encoding: chunked", Refusal::ControlCharacter),
        ("X: y\rTransfer-Encoding: chunked", Refusal::ControlCharacter),
        ("Transfer-Encoding: \x0bchunked", Refusal::ControlCharacter),
        ("Transfer-Encoding: chunked\0", Refusal::ControlCharacter),
        ("X-Other: y", Refusal::LengthRequired),
        ("Transfer_Encoding: chunked", Refusal::LengthRequired),
        ("Content_Length: 5", Refusal::LengthRequired),
    ] {
        let head =
            format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n5\r\nabcde\r\n0\r\n\r\n");
        assert_eq!(refused(&head), Some(expected), "{headers:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(refused(old), Some(TransferEncoding), "HTTP/1.0 knows no codings");
    assert_eq!(refused("POST / HTTP/1.0\r\n\r\n"), Some(Refusal::LengthRequired));
}

/// Bodies that end earlier for one parser than for another.
#[test]
fn chunks_that_could_be_smuggled_are_refused() {
    for (body, expected) in [
        ("5\nabcde\r\n0\r\n\r\n", Refusal::ControlCharacter),
        ("5\r\nabcde\n0\r\n\r\n", Refusal::ControlCharacter),
        ("5;\nx\r\nabcde\r\n0\r\n\r\n", Refusal::ControlCharacter),
        ("5\rx\nabcde\r\n0\r\n\r\n", Refusal::ControlCharacter),
        ("0\r\nX: y\n\r\n", Refusal::ControlCharacter),
        ("5\r\nabcdef\r\n0\r\n\r\n", Refusal::Chunk),
        ("5\r\nabcde0\r\n\r\n", Refusal::Chunk),
        ("5 \r\nabcde\r\n0\r\n\r\n", Refusal::Chunk),
        ("0x5\r\nabcde\r\n0\r\n\r\n", Refusal::Chunk),
        ("+5\r\nabcde\r\n0\r\n\r\n", Refusal::Chunk),
        ("-5\r\nabcde\r\n0\r\n\r\n", Refusal::Chunk),
        ("\r\n5\r\nabcde\r\n0\r\n\r\n", Refusal::Chunk),
        ("10000000000000005\r\nabcde\r\n0\r\n\r\n", Refusal::Chunk),
        ("5,5\r\nabcde\r\n0\r\n\r\n", Refusal::Chunk),
        ("fffffffffffffffb\r\nabcde\r\n0\r\n\r\n", Refusal::BodyTooLarge),
        ("0\r\nX: y\r\n z\r\n\r\n", Refusal::FoldedLine),
    ] {
        let bytes =
            format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_eq!(refused(&bytes), Some(expected), "{body:?}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let head = |rest: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{rest}\r\n\r\n");
    let accepted = |bytes: String| outcome_of_any_split(bytes.as_bytes()).0.unwrap().is_ok();
    // A target: 40 bytes.
    let get = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(n - 1));
    assert!(accepted(get(40)));
    assert_eq!(refused(get(41)), Some(Refusal::TargetTooLong));
    assert_eq!(refused("a".repeat(200)), Some(Refusal::TargetTooLong), "before its line ends");
    // A head: 600 bytes.
    let fixed = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n".len();
    let get =
        |n: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "y".repeat(n - fixed));
    assert!(accepted(get(600)));
    assert_eq!(refused(get(601)), Some(Refusal::HeadTooLarge));
    // A body: 200 bytes, which the head tells.
    let body = "x".repeat(200);
    assert!(accepted(head("Content-Length: 200") + &body));
    assert_eq!(refused(head("Content-Length: 201")), Some(Refusal::BodyTooLarge));
    for length in ["99999999999999999999999", "18446744073709551616", "18446744073709551621"] {
        let refused = refused(head(&format!("Content-Length: {length}")));
        assert_eq!(refused, Some(Refusal::BodyTooLarge), "{length}");
    }
    let chunked = head("Transfer-Encoding: chunked");
    assert!(accepted(format!("{chunked}c8\r\n{body}\r\n0\r\n\r\n")));
    assert_eq!(refused(format!("{chunked}c9\r\n")), Some(Refusal::BodyTooLarge));
    assert_eq!(refused(format!("{chunked}c8\r\n{body}\r\n1\r\n")), Some(Refusal::BodyTooLarge));
    let extension = "y".repeat(600);
    let refusal = refused(format!("{chunked}1;{extension}\r\nx\r\n0\r\n\r\n"));
    assert_eq!(refusal, Some(Refusal::TrailersTooLarge));
}

#[test]
fn a_hundred_headers_are_enough() {
    let limits = Limits { head_bytes: 2000, ..LIMITS };
    for (n, is_accepted) in [(100, true), (101, false)] {
        let mut client = Client::with(limits);
        let more = "a: b\r\n".repeat(n - 1);
        match client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{more}\r\n")) {
            Poll::Request(request) => {
                assert!(is_accepted);
                assert_eq!(request.headers.iter().count(), n);
            }
            event => {
                assert_eq!(event, Poll::Refused(Refusal::TooManyHeaders));
                assert!(!is_accepted);
            }
        }
    }
    let mut client = Client::with(limits);
    assert_eq!(client.send(format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(100))), Poll::Pending);
    assert_eq!(client.send("a: b\r"), Poll::Pending);
    assert_eq!(client.send("\n"), Poll::Refused(Refusal::TooManyHeaders), "before the head ends");
}

#[test]
fn a_promised_body_takes_no_memory() {
    let mut client = Client::with(Limits { body_bytes: usize::MAX, ..LIMITS });
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", usize::MAX);
    assert_eq!(client.send(head), Poll::Pending);
    assert_eq!(client.send("x".repeat(1000)), Poll::Pending);
    let buffered = client.connection.buffered_bytes();
    assert!((1000..20_000).contains(&buffered), "{buffered}");
}

#[test]
fn each_refusal_has_its_status_and_a_harmless_sentence() {
    for (refusal, status) in [
        (Refusal::ControlCharacter, 400),
        (Refusal::RequestLine, 400),
        (Refusal::Version, 505),
        (Refusal::TargetTooLong, 414),
        (Refusal::Target, 400),
        (Refusal::HeadTooLarge, 431),
        (Refusal::TooManyHeaders, 431),
        (Refusal::Header, 400),
        (Refusal::FoldedLine, 400),
        (Refusal::HostMissing, 400),
        (Refusal::Host, 400),
        (Refusal::ContentLength, 400),
        (Refusal::LengthAndCoding, 400),
        (Refusal::TransferEncoding, 400),
        (Refusal::TransferCoding, 501),
        (Refusal::LengthRequired, 411),
        (Refusal::BodyTooLarge, 413),
        (Refusal::Chunk, 400),
        (Refusal::TrailersTooLarge, 431),
        (Refusal::Expectation, 417),
        (Refusal::HeadTimeout, 408),
        (Refusal::BodyTimeout, 408),
        (Refusal::Incomplete, 400),
        (Refusal::OutOfMemory, 503),
    ] {
        assert_eq!(refusal.status(), status, "{refusal:?}");
        let message = refusal.message();
        let is_plain = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
        assert!(!message.is_empty() && message.chars().all(is_plain), "{message}");
    }
}
