//! Responses: whole and streamed, and clients that take them slowly.

use super::*;

const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";

fn streamed() -> Response {
    Response::new(200).header("Content-Type", sse::CONTENT_TYPE)
}

#[test]
fn a_stream_comes_in_chunks() {
    let mut client = Client::with_request(GET);
    client.connection.begin(streamed());
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.received(), format!("{STREAM}Transfer-Encoding: chunked\r\n\r\n"));
    client.connection.write(b"data: 0123456789\n\n").unwrap();
    client.connection.write(b"").unwrap();
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.received(), "12\r\ndata: 0123456789\n\n\r\n");
    client.connection.write(sse::COMMENT.as_bytes()).unwrap();
    client.connection.end();
    assert_eq!(client.connection.write(b"x"), Err(WriteError::Gone));
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.received(), "3\r\n:\n\n\r\n0\r\n\r\n");
    assert!(client.connection.is_idle() && !client.is_shut());
    assert!(matches!(client.send(GET), Poll::Request(_)));
}

#[test]
fn http_1_0_reads_a_stream_until_its_end() {
    let mut client = Client::with_request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client.connection.begin(streamed());
    client.connection.write(b"data: a\n\n").unwrap();
    client.connection.end();
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.received(), format!("{STREAM}Connection: close\r\n\r\ndata: a\n\n"));
    assert!(client.is_shut());
}

#[test]
fn some_responses_have_no_body() {
    let head = "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut client = Client::with_request(head);
    client.respond(ok("hello"));
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(client.received(), expected);
    assert!(matches!(client.send(head), Poll::Request(_)));
    client.connection.begin(streamed());
    client.connection.write(b"data: a\n\n").unwrap();
    client.connection.end();
    client.settle();
    assert_eq!(client.received(), format!("{STREAM}Transfer-Encoding: chunked\r\n\r\n"));
    // A refusal has none either, although its request was not understood.
    assert!(matches!(client.send("\r\nHEAD / HTTP/1.1\r\n\r\n"), Poll::Refused(_)));
    client.respond(Response::new(400).with_body("text/plain", b"no"));
    assert!(client.received().ends_with("Content-Length: 2\r\nConnection: close\r\n\r\n"));

    let mut client = Client::with_request(GET);
    client.respond(Response::new(204).with_body("text/plain", b"x"));
    assert_eq!(client.received(), "HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\n\r\n");
    assert!(matches!(client.send(GET), Poll::Request(_)));
    client.connection.begin(Response::new(304));
    client.connection.write(b"x").unwrap();
    client.connection.end();
    client.settle();
    assert_eq!(client.received(), "HTTP/1.1 304 Not Modified\r\n\r\n");
}

#[test]
fn the_room_for_a_stream_is_bounded() {
    let mut client = Client::with_request(GET);
    client.take_only(0);
    client.connection.begin(Response::new(200));
    let part = [b'x'; 50];
    let mut room = client.connection.room();
    let mut taken = 0;
    while room >= part.len() {
        let left = client.connection.write(&part).unwrap();
        assert_eq!(left, client.connection.room());
        // A chunk has its size and two line ends beside the data.
        assert_eq!(room.saturating_sub(56), left);
        room = left;
        taken += 1;
    }
    assert_eq!(taken, 4, "of 300 bytes, some are the head's");
    let pending = client.connection.pending_bytes();
    assert!(pending <= LIMITS.output_bytes);
    assert_eq!(client.connection.write(&part), Err(WriteError::Full));
    assert_eq!(client.connection.pending_bytes(), pending, "nothing of it was taken");
    assert!(client.connection.wants_write());

    // Room comes back byte by byte.
    for _ in 0..pending - 1 {
        client.take_only(1);
        assert_eq!(client.poll(), Poll::Pending);
        let room = client.connection.room();
        let result = client.connection.write(&part);
        assert_eq!(result.is_ok(), room >= part.len(), "{room}");
        if result.is_ok() {
            taken += 1;
        }
        assert!(client.connection.pending_bytes() <= LIMITS.output_bytes);
    }
    client.wire.0.borrow_mut().takes = None;
    assert_eq!(client.poll(), Poll::Pending);
    assert!(!client.connection.wants_write());
    // What is larger than all room is taken alone.
    client.take_only(0);
    client.connection.write(&[b'y'; 1000]).unwrap();
    assert_eq!(client.connection.room(), 0);
    assert_eq!(client.connection.write(b"z"), Err(WriteError::Full));
    client.wire.0.borrow_mut().takes = None;
    client.connection.end();
    assert_eq!(client.poll(), Poll::Pending);

    let received = client.received();
    let mut body = Vec::new();
    let (_, chunks) = received.split_once("\r\n\r\n").unwrap();
    let framing = head::Framing::Chunked;
    let mut decoder = body::Decoder::new(framing, &Limits::DEFAULT);
    assert_eq!(decoder.push(chunks.as_bytes(), &mut body), Ok(chunks.len()));
    assert!(decoder.is_done());
    assert_eq!(body, [[b'x'; 50].repeat(taken), vec![b'y'; 1000]].concat());
    assert_eq!(client.connection.buffered_bytes(), 0);
}

#[test]
fn a_client_that_is_always_behind_takes_no_more_memory() {
    let mut client = Client::with_request(GET);
    client.take_only(1);
    client.connection.begin(Response::new(200));
    for _ in 0..1000 {
        client.connection.write(&[b'x'; 50]).unwrap();
        // A chunk has 56 bytes; some always wait.
        client.take_only(56);
        assert_eq!(client.poll(), Poll::Pending);
        assert!(client.connection.wants_write());
        let buffered = client.connection.buffered_bytes();
        assert!(buffered <= 4 * LIMITS.output_bytes, "{buffered}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_dropped() {
    let mut client = Client::with_request(GET);
    client.take_only(10);
    client.connection.begin(Response::new(200));
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.timeout(), Some(LIMITS.stall_us));
    assert_eq!(client.wait(LIMITS.stall_us - 1), Poll::Pending);
    // A byte is enough.
    client.take_only(1);
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.timeout(), Some(LIMITS.stall_us));
    // More output is no progress.
    assert_eq!(client.wait(1), Poll::Pending);
    client.connection.write(b"x").unwrap();
    assert_eq!(client.wait(LIMITS.stall_us - 2), Poll::Pending);
    assert!(!client.connection.is_gone());
    assert_eq!(client.wait(1), Poll::Closed);
    assert!(client.connection.is_gone());
    assert_eq!(client.connection.write(b"x"), Err(WriteError::Gone));
    assert_eq!((client.timeout(), client.connection.wants_write()), (None, false));
}

#[test]
fn a_response_has_its_time_however_slowly_a_client_takes_it() {
    let mut client = Client::with_request(GET);
    client.take_only(0);
    assert_eq!(client.respond(ok("0123456789")), Poll::Pending);
    for _ in 0..LIMITS.send_us / SECOND_US - 1 {
        client.take_only(1);
        assert_eq!(client.wait(SECOND_US), Poll::Pending);
    }
    assert_eq!(client.timeout(), Some(SECOND_US));
    client.take_only(1);
    assert_eq!(client.wait(SECOND_US), Poll::Closed);
}

#[test]
fn a_large_body_goes_out_in_parts_and_is_not_copied() {
    static BODY: [u8; 100_000] = [b'z'; 100_000];
    let mut client = Client::with_request(GET);
    client.take_only(0);
    client.respond(Response::new(200).with_body("text/plain", &BODY));
    let mut received = 0;
    while client.connection.wants_write() {
        client.take_only(777);
        assert_eq!(client.poll(), Poll::Pending);
        received += client.received().len();
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n";
    assert_eq!(received, head.len() + BODY.len());
    assert!(client.connection.is_idle());
}
