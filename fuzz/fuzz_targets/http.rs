//! Serves a client that sends any bytes, in chunks of any size.
#![no_main]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use fuzz::limits::Limits;
use kernel::app::server::http::body::Decoder;
use kernel::app::server::http::head::Framing;
use kernel::app::server::http::{
    Connection, Limits as HttpLimits, Method, Poll, Refusal, Request, Response, Stream,
    StreamError, WriteError,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Lengths of the chunks, taken in turn.
    chunks: [u8; 3],
    /// Bit by bit, whether a response is streamed.
    streams: u8,
    /// Bytes that the client takes at once.
    takes: u8,
    bytes: &'a [u8],
}

/// A head of a few hundred bytes has a hundred headers.
const LIMITS: Limits = Limits { memory: (64, 128 << 10), ns_per_byte: 20_000 };

/// Limits that inputs of the fuzzer reach.
const HTTP_LIMITS: HttpLimits = HttpLimits {
    head_bytes: 1000,
    target_bytes: 100,
    body_bytes: 400,
    output_bytes: 200,
    ..HttpLimits::DEFAULT
};

/// Both directions of a stream.
#[derive(Default)]
struct Pipe {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
    takes: usize,
    is_done: bool,
    is_shut: bool,
}

#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Pipe>>);

impl Stream for Wire {
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let pipe = &mut *self.0.borrow_mut();
        let n = pipe.incoming.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(pipe.incoming.drain(..n)) {
            *place = byte;
        }
        if n == 0 && !pipe.is_done { Err(StreamError::WouldBlock) } else { Ok(n) }
    }

    fn send(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        let pipe = &mut *self.0.borrow_mut();
        assert!(!pipe.is_shut, "bytes behind the end");
        let n = data.len().min(mem::take(&mut pipe.takes));
        pipe.outgoing.extend_from_slice(&data[..n]);
        if n == 0 { Err(StreamError::WouldBlock) } else { Ok(n) }
    }

    fn shutdown(&mut self) {
        assert!(!mem::replace(&mut self.0.borrow_mut().is_shut, true), "a second end");
    }
}

fuzz_target!(|input: Input| {
    LIMITS.hold(input.bytes.len(), || {
        assert_eq!(first(chunks(&input)), first([input.bytes].into_iter()), "chunks matter");
        serve(&input);
    });
});

fn chunks<'a>(input: &Input<'a>) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = input.bytes;
    let mut lengths = input.chunks.into_iter().cycle();
    std::iter::from_fn(move || {
        let n = lengths.next().map_or(1, usize::from).clamp(1, rest.len().max(1));
        let (chunk, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(chunk)
    })
}

fn response(refusal: Option<Refusal>) -> Response {
    let (status, body) = refusal.map_or((200, "ok"), |it| (it.status(), it.message()));
    Response::new(status).with_body("text/plain", body.as_bytes())
}

/// The first request or refusal, and all that the client receives.
///
/// The response comes behind all chunks, so that it does not matter when they arrive.
fn first<'a>(
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Option<Result<Request, Refusal>>, Vec<u8>) {
    let wire = Wire::default();
    let mut connection = Connection::new(wire.clone(), HTTP_LIMITS, 0);
    let mut first = None;
    for chunk in chunks {
        wire.0.borrow_mut().incoming.extend(chunk);
        loop {
            wire.0.borrow_mut().takes = usize::MAX;
            let event = match connection.poll(0) {
                Poll::Head => continue,
                Poll::Request(request) => Ok(request),
                Poll::Refused(refusal) => Err(refusal),
                Poll::Pending
                    if !connection.wants_read() || wire.0.borrow().incoming.is_empty() =>
                {
                    break;
                }
                Poll::Pending => continue,
                Poll::Closed => panic!("the client is there"),
            };
            assert!(first.replace(event).is_none(), "a second request before the response");
        }
    }
    if let Some(first) = &first {
        connection.respond(response(first.as_ref().err().copied()));
        while connection.wants_write() {
            wire.0.borrow_mut().takes = usize::MAX;
            assert_eq!(connection.poll(0), Poll::Pending);
        }
        assert!(connection.is_idle() || wire.0.borrow().is_shut);
    }
    let received = mem::take(&mut wire.0.borrow_mut().outgoing);
    (first, received)
}

/// Serves all requests, and checks that the client can read the responses.
fn serve(input: &Input) {
    let wire = Wire::default();
    let mut connection = Connection::new(wire.clone(), HTTP_LIMITS, 0);
    // For each response, whether its request was `HEAD`; `None` for a refusal.
    let mut responses: Vec<Option<bool>> = Vec::new();
    let mut chunks = chunks(input);
    loop {
        assert!(connection.buffered_bytes() <= 20_000);
        match connection.poll(0) {
            Poll::Closed => break,
            Poll::Head => check(connection.head().expect("a head")),
            Poll::Pending if connection.wants_write() => {
                wire.0.borrow_mut().takes = usize::from(input.takes).max(1);
            }
            Poll::Pending => match chunks.next() {
                Some(chunk) => wire.0.borrow_mut().incoming.extend(chunk),
                None => {
                    let was_done = mem::replace(&mut wire.0.borrow_mut().is_done, true);
                    let is_read = wire.0.borrow().incoming.is_empty();
                    assert!(!was_done || !is_read, "an open connection without a client");
                }
            },
            Poll::Request(request) => {
                check(&request);
                assert_ne!(responses.last(), Some(&None), "a request behind a refusal");
                responses.push(Some(request.method == Method::Head));
                if input.streams >> (responses.len() % 8) & 1 == 1 {
                    stream(&mut connection, &wire);
                } else {
                    connection.respond(response(None));
                }
            }
            Poll::Refused(refusal) => {
                assert_ne!(responses.last(), Some(&None), "a refusal behind a refusal");
                responses.push(None);
                connection.respond(response(Some(refusal)));
            }
        }
    }
    assert!(wire.0.borrow().is_shut);
    check_responses(&wire.0.borrow().outgoing, &responses);
}

const PARTS: [&[u8]; 4] = [b"data: a\n\n", b"", &[b'x'; 300], b":\n\n"];

fn stream(connection: &mut Connection<Wire>, wire: &Wire) {
    connection.begin(Response::new(200));
    for part in PARTS {
        while connection.write(part) == Err(WriteError::Full) {
            wire.0.borrow_mut().takes = 100;
            assert_eq!(connection.poll(0), Poll::Pending);
        }
        assert!(connection.pending_bytes() <= 400, "{}", connection.pending_bytes());
    }
    connection.end();
}

/// What holds for any request.
fn check(request: &Request) {
    let Request { method, path, query, headers, body } = request;
    assert!(method.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{method:?}");
    assert!(path.starts_with('/') || path == "*", "{path:?}");
    assert!(!path.contains(char::is_control), "{path:?}");
    assert!(query.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{query:?}");
    for (name, _) in query.pairs().take(3) {
        assert!(query.get(&name).is_some(), "{name:?}");
    }
    for (name, value) in headers.iter() {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
    }
    for name in ["Host", "Content-Length"] {
        assert!(headers.all(name).count() <= 1, "{name}");
    }
    assert!(body.len() <= HTTP_LIMITS.body_bytes);
}

/// Reads the responses as a client does: nothing is left over, and nothing is missing.
fn check_responses(received: &[u8], responses: &[Option<bool>]) {
    let mut rest = received;
    for (i, response) in responses.iter().enumerate() {
        rest = rest.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(rest);
        let end = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        let head = str::from_utf8(&rest[..end]).expect("text");
        rest = &rest[end + 4..];
        let is_last = i + 1 == responses.len();
        let closes = head.contains("\r\nConnection: close");
        assert!(is_last || !closes, "a response behind the last one");
        let refused = response.is_none();
        assert_eq!(head.starts_with("HTTP/1.1 200 OK\r\n"), !refused, "{head}");
        assert!(!refused || closes, "{head}");
        let length = head.split("\r\nContent-Length: ").nth(1).map(|text| {
            let end = text.find('\r').unwrap_or(text.len());
            text[..end].parse::<usize>().expect("a length")
        });
        let is_chunked = head.contains("\r\nTransfer-Encoding: chunked");
        assert!(length.is_none() || !is_chunked, "{head}");
        match (response, length) {
            (Some(true), _) => {}
            // Whether a refused request was `HEAD` is the client's to know.
            (None, Some(_)) if rest.is_empty() => {}
            (_, Some(length)) => rest = rest.split_at_checked(length).expect("a body").1,
            (_, None) => {
                let mut body = Vec::new();
                if is_chunked {
                    let mut decoder = Decoder::new(Framing::Chunked, &HttpLimits::DEFAULT);
                    let used = decoder.push(rest, &mut body).expect("chunks");
                    assert!(decoder.is_done());
                    rest = &rest[used..];
                } else {
                    assert!(closes, "{head}");
                    body.extend_from_slice(mem::take(&mut rest));
                }
                assert_eq!(body, PARTS.concat());
            }
        }
    }
    assert!(rest.is_empty(), "{} bytes behind the last response", rest.len());
}
