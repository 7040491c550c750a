//! Requests that are accepted.

use super::*;

/// Method, path, query and body.
fn summary(request: &Request) -> String {
    let Request { method, path, query, body, .. } = request;
    let body = String::from_utf8_lossy(body);
    format!("{} {path} {} {body}", method.as_str(), query.as_str())
}

#[test]
fn each_split_in_two_gives_the_same() {
    for (bytes, expected) in [
        (GET, "GET /a  "),
        ("\r\nGET / HTTP/1.1\r\nhOsT:h:80\r\n\r\n", "GET /  "),
        ("GET / HTTP/1.0\r\n\r\n", "GET /  "),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET /  "),
        ("HEAD /%41?b=%20c&d HTTP/1.1\r\nHost: h\r\n\r\n", "HEAD /A b=%20c&d "),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS *  "),
        ("PROPFIND /x HTTP/1.1\r\nHost: h\r\n\r\n", "PROPFIND /x  "),
        ("GET http://other/x?y HTTP/1.1\r\nHost: h\r\n\r\n", "GET /x y "),
        ("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "POST /p  hello"),
        (
            "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: \t005 \r\n\r\nhe\r\n\0",
            "POST /p  he\r\n\0",
        ),
        ("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "POST /p  "),
        ("DELETE /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", "DELETE /p  x"),
        ("POST /p HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", "POST /p  hi"),
        (
            "POST /p HTTP/1.1\r\nHost: h\r\ntransfer-encoding: Chunked\r\n\r\n\
             2\r\nhe\r\n3;a=\"b\"\r\nllo\r\n0\r\nX: y\r\n\r\n",
            "POST /p  hello",
        ),
        (
            "PUT /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\
             Expect: 100-Continue\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            "PUT /p  x",
        ),
    ] {
        let (outcome, sent) = outcome_of_any_split(bytes.as_bytes());
        assert_eq!(summary(&outcome.unwrap().unwrap()), expected, "{bytes:?}");
        let is_kept = !sent.contains("Connection: close");
        assert_eq!(is_kept, bytes.contains("HTTP/1.1"), "{sent}");
        // Without its last byte no request is complete.
        let (outcome, sent) = outcome_of_any_split(&bytes.as_bytes()[..bytes.len() - 1]);
        assert_eq!(outcome, None, "{bytes:?}");
        assert_eq!(sent.is_empty(), !bytes.contains("Expect"), "{sent}");
    }
}

#[test]
fn the_authority_of_a_target_is_the_host() {
    let (outcome, _) = outcome(&[b"GET http://a:1/ HTTP/1.1\r\nhost: b\r\nX-Api-Key:  k \r\n\r\n"]);
    let headers = outcome.unwrap().unwrap().headers;
    let all: Vec<_> = headers.iter().collect();
    assert_eq!(all, [("X-Api-Key", &b"k"[..]), ("Host", b"a:1")]);
}

#[test]
fn requests_follow_each_other() {
    let mut client = Client::new();
    for i in 0..5 {
        let body = "x".repeat(i);
        let event = client
            .send(format!("POST /{i} HTTP/1.1\r\nHost: h\r\nContent-Length: {i}\r\n\r\n{body}"));
        let Poll::Request(request) = event else { panic!("{event:?}") };
        assert_eq!(summary(&request), format!("POST /{i}  {body}"));
        assert_eq!(client.connection.next_deadline_us(), None, "answers may take any time");
        assert_eq!(client.respond(ok("y")), Poll::Pending);
        assert_eq!(
            client.received(),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\ny"
        );
        assert!(client.connection.is_idle());
        assert_eq!(client.timeout(), Some(LIMITS.idle_us));
        assert_eq!(client.connection.buffered_bytes(), 0, "an idle connection needs no buffer");
    }
}

#[test]
fn a_line_end_behind_a_body_is_skipped() {
    let mut client = Client::new();
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
    for behind in ["\r\n", "\r", ""] {
        assert!(matches!(client.send(format!("{post}{behind}")), Poll::Request(_)));
        assert_eq!(client.respond(ok("")), Poll::Pending);
        assert!(!client.received().contains("close"), "{behind:?}");
        assert!(client.connection.is_idle());
        if behind == "\r" {
            assert_eq!(client.send("\n"), Poll::Pending);
        }
    }
    // The blank line is no start of a request, so the idle timeout goes on.
    let before = client.timeout();
    assert_eq!(client.send("\r\n"), Poll::Pending);
    assert_eq!(client.timeout(), before);
}

#[test]
fn a_body_may_be_awaited_or_refused() {
    let head = "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let mut client = Client::new();
    client.wire.0.borrow_mut().incoming.extend(head.bytes());
    assert_eq!(client.poll(), Poll::Head);
    assert_eq!(client.connection.head().unwrap().path, "/p");
    assert_eq!(client.received(), "", "the caller may refuse it yet");
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.received(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.received(), "", "once is enough");
    let event = client.send("abc");
    assert!(matches!(&event, Poll::Request(request) if request.body == b"abc"), "{event:?}");
    assert_eq!(client.connection.head(), None);

    let mut client = Client::new();
    client.wire.0.borrow_mut().incoming.extend(head.bytes());
    assert_eq!(client.poll(), Poll::Head);
    assert_eq!(client.respond(Response::new(401)), Poll::Pending);
    assert_eq!(
        client.received(),
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    // The client sends its body all the same, and does not see a reset.
    assert_eq!(client.send("abc"), Poll::Pending);
    assert!(client.wire.0.borrow().incoming.is_empty(), "what lingers is read");
    assert_eq!(client.end(), Poll::Closed);
}

#[test]
fn an_empty_body_and_a_client_of_http_1_0_are_not_awaited() {
    for rest in ["1.1\r\nHost: h\r\nContent-Length: 0", "1.0\r\nContent-Length: 1"] {
        let mut client = Client::new();
        client.send(format!("POST / HTTP/{rest}\r\nExpect: 100-continue\r\n\r\n"));
        assert_eq!(client.received(), "", "{rest:?}");
    }
    // Nor is another expectation of HTTP/1.0 refused.
    let mut client = Client::new();
    assert!(matches!(client.send("GET / HTTP/1.0\r\nExpect: x\r\n\r\n"), Poll::Request(_)));
}

#[test]
fn connections_close_or_stay_as_the_client_says() {
    for (rest, expected) in [
        ("1.1\r\nHost: h", ""),
        ("1.1\r\nHost: h\r\nConnection: keep-alive", ""),
        ("1.1\r\nHost: h\r\nConnection: close", "Connection: close\r\n"),
        ("1.1\r\nHost: h\r\nconnection: Upgrade, CLOSE", "Connection: close\r\n"),
        ("1.1\r\nHost: h\r\nConnection: x\r\nConnection: close", "Connection: close\r\n"),
        ("1.0", "Connection: close\r\n"),
        ("1.0\r\nConnection: Keep-Alive", "Connection: keep-alive\r\n"),
        ("1.0\r\nConnection: keep-alive, close", "Connection: close\r\n"),
    ] {
        let mut client = Client::with_request(&format!("GET / HTTP/{rest}\r\n\r\n"));
        assert_eq!(client.respond(Response::new(200)), Poll::Pending);
        let received = client.received();
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
        assert_eq!(received, format!("{head}{expected}\r\n"), "{rest:?}");
        assert_eq!(client.is_shut(), expected.contains("close"), "{rest:?}");
        assert_eq!(client.connection.is_idle(), !client.is_shut());
    }
}
