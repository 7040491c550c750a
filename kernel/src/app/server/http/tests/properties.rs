//! Properties of requests of any bytes, in any split.

use proptest::collection::vec as any_of;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Cases for each property: a second's worth.
const CASES: u32 = 512;

/// Parts of requests, well-formed and not, in an order that often makes a request.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = select(vec![
        &b"GET / HTTP/1.1\r\n"[..],
        b"POST /a?b HTTP/1.1\r\n",
        b"POST /a HTTP/1.0\r\n",
        b"\r\nPUT http://h/%20 HTTP/1.1\r\n",
        b"HEAD / HTTP/2.0\r\n",
    ]);
    let header = select(vec![
        &b"Host: h\r\n"[..],
        b"Content-Length: 3\r\n",
        b"Content-Length: 300\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"X: \xff\r\n",
        b"X: y\r\n z\r\n",
        b"X : y\n",
    ]);
    let body = select(vec![
        &b"abc"[..],
        b"3\r\nabc\r\n",
        b"1;x=y\r\n\r\r\n",
        b"0\r\n\r\n",
        b"0\r\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\r\n",
        b"\0",
    ]);
    let parts = (line, any_of(header, 0..4), any_of(body, 0..4), any::<bool>());
    let damage = any_of((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (parts, damage).prop_map(|((line, headers, bodies, has_host), damage)| {
        let host = if has_host { &b"Host: h\r\n"[..] } else { b"" };
        let parts = [line, host].into_iter().chain(headers).chain([&b"\r\n"[..]]).chain(bodies);
        let mut bytes: Vec<u8> = parts.flatten().copied().collect();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same(
        bytes in request(),
        lengths in any_of(1_usize..40, 1..20),
    ) {
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for n in lengths.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at(n.min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        prop_assert_eq!(outcome(&pieces), outcome(&[&bytes]));
    }

    #[test]
    fn a_body_comes_back_from_any_chunks(
        chunks in any_of(any_of(any::<u8>(), 1..30), 0..6),
        extension in "[ \t]{0,2};[a-z=\"]{0,5}|",
    ) {
        let mut bytes = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            bytes.extend(format!("{:X}{extension}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\nA: b\r\n\r\n");
        let request = outcome(&[&bytes]).0.unwrap().unwrap();
        prop_assert_eq!(request.body, chunks.concat());
    }

    #[test]
    fn a_streamed_body_comes_back(
        parts in any_of(any_of(any::<u8>(), 0..50), 0..6),
        takes in 1_usize..30,
    ) {
        let mut client = Client::with_request(GET);
        client.connection.begin(Response::new(200));
        for part in &parts {
            while client.connection.write(part) == Err(WriteError::Full) {
                client.take_only(takes);
                client.poll();
            }
        }
        client.connection.end();
        while client.connection.wants_write() {
            client.take_only(takes);
            client.poll();
        }
        let received = mem::take(&mut client.wire.0.borrow_mut().outgoing);
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunks = received.strip_prefix(head).unwrap();
        let (mut body, mut decoder) =
            (Vec::new(), body::Decoder::new(head::Framing::Chunked, &Limits::DEFAULT));
        prop_assert_eq!(decoder.push(chunks, &mut body), Ok(chunks.len()));
        prop_assert!(decoder.is_done());
        prop_assert_eq!(body, parts.concat());
    }
}
