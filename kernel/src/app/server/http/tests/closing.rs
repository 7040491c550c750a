//! Ends of connections: by the client, by the server, by the clock.

use super::*;

const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n";

#[test]
fn a_request_before_the_answer_is_dropped_and_the_connection_closes() {
    let mut client = Client::new();
    let event = client.send([GET, GET].concat());
    assert!(matches!(event, Poll::Request(_)), "{event:?}");
    assert_eq!(client.respond(ok("a")), Poll::Pending);
    let received = client.received();
    assert_eq!(received.matches("HTTP/1.1").count(), 1, "{received}");
    assert!(received.contains("\r\nConnection: close\r\n") && received.ends_with("\r\n\r\na"));
    assert!(client.is_shut());
    // What follows is read and dropped, so that the client sees the answer and no reset.
    assert_eq!(client.send(GET.repeat(100)), Poll::Pending);
    assert!(client.wire.0.borrow().incoming.is_empty());
    assert_eq!(client.end(), Poll::Closed);
    assert_eq!(client.received(), "");

    // While a response is streamed, its head has been sent; the end closes all the same.
    let mut client = Client::with_request(GET);
    client.connection.begin(Response::new(200));
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.send("G"), Poll::Pending);
    client.connection.end();
    assert_eq!(client.poll(), Poll::Pending);
    assert!(client.received().ends_with("\r\n\r\n0\r\n\r\n"));
    assert!(client.is_shut());

    // Once an answer is complete, a request is in time, although the answer is not yet sent.
    let mut client = Client::with_request(GET);
    client.take_only(0);
    assert_eq!(client.respond(ok("a")), Poll::Pending);
    assert!(!client.connection.wants_read());
    assert_eq!(client.send(GET), Poll::Pending);
    client.wire.0.borrow_mut().takes = None;
    assert!(matches!(client.settle(), Poll::Request(_)));
}

#[test]
fn a_length_that_lies_harms_no_other_request() {
    // Too short: the surplus is a request too early.
    let mut client = Client::new();
    let event = client.send([POST, "bodyGET /evil HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
    assert!(matches!(&event, Poll::Request(request) if request.body == b"body"), "{event:?}");
    assert_eq!(client.respond(ok("a")), Poll::Pending);
    assert!(client.received().contains("\r\nConnection: close\r\n"));
    // Too short, and the surplus comes behind the answer: it is no request.
    let mut client = Client::new();
    assert!(matches!(client.send([POST, "body"].concat()), Poll::Request(_)));
    assert_eq!(client.respond(ok("a")), Poll::Pending);
    client.received();
    assert_eq!(client.send("}\r\n"), Poll::Pending);
    assert_eq!(client.send("\r\n"), Poll::Refused(Refusal::RequestLine));
    // Too long: the rest never comes.
    let mut client = Client::new();
    assert_eq!(client.send([POST, "bod"].concat()), Poll::Pending);
    assert_eq!(client.timeout(), Some(LIMITS.body_us));
    assert_eq!(client.wait(LIMITS.body_us - 1), Poll::Pending);
    assert_eq!(client.wait(1), Poll::Refused(Refusal::BodyTimeout));
    client.respond(Response::new(408));
    assert!(client.received().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    // Too long, and the client ends.
    let mut client = Client::new();
    assert_eq!(client.send([POST, "bod"].concat()), Poll::Pending);
    assert_eq!(client.end(), Poll::Refused(Refusal::Incomplete));
    assert_eq!(client.respond(Response::new(400)), Poll::Closed);
    assert!(client.received().starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_slow_head_has_a_fixed_time() {
    let mut client = Client::new();
    assert_eq!(client.timeout(), Some(LIMITS.head_us));
    assert_eq!(client.wait(LIMITS.head_us - 1), Poll::Pending);
    let mut sent = GET.bytes();
    let start = client.now_us;
    let event = loop {
        let event = client.send([sent.next().unwrap()]);
        if event != Poll::Pending {
            break event;
        }
        client.now_us += SECOND_US / 4;
    };
    assert_eq!(
        event,
        Poll::Refused(Refusal::HeadTimeout),
        "each byte comes soon, the head does not"
    );
    assert_eq!(client.now_us - start, LIMITS.head_us);
    assert_eq!(client.respond(Response::new(408)), Poll::Pending);
    assert!(client.received().contains("\r\nConnection: close\r\n"));
}

#[test]
fn a_slow_body_has_a_fixed_time() {
    let mut client = Client::new();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    let start = client.now_us;
    let event = loop {
        let event = client.send("1\r\nx\r\n");
        if event != Poll::Pending {
            break event;
        }
        client.now_us += SECOND_US / 2;
    };
    assert_eq!(event, Poll::Refused(Refusal::BodyTimeout));
    assert_eq!(client.now_us - start, LIMITS.body_us);
    assert!(client.connection.buffered_bytes() < 50, "the body is dropped");
}

#[test]
fn an_idle_connection_closes_silently() {
    let mut client = Client::new();
    assert_eq!(client.wait(LIMITS.head_us - 1), Poll::Pending);
    assert_eq!(client.wait(1), Poll::Closed);
    assert_eq!((client.received(), client.is_shut()), (String::new(), true));

    let mut client = Client::with_request(GET);
    client.wait(1000 * SECOND_US);
    client.respond(ok("a"));
    client.received();
    assert_eq!(client.wait(LIMITS.idle_us - 1), Poll::Pending);
    assert_eq!(client.wait(1), Poll::Closed);
    assert_eq!((client.received(), client.is_shut()), (String::new(), true));
    assert_eq!(client.poll(), Poll::Closed);
    client.connection.respond(ok("nothing to answer"));
    client.connection.begin(ok(""));
    client.connection.end();
    assert_eq!(client.poll(), Poll::Closed);
    assert_eq!(client.received(), "");
}

#[test]
fn a_request_that_is_complete_in_time_is_served_late() {
    let mut client = Client::new();
    client.send(&GET[..5]);
    client.now_us += LIMITS.head_us;
    assert!(matches!(client.send(&GET[5..]), Poll::Request(_)));
}

#[test]
fn a_closing_connection_reads_on_for_a_while() {
    let mut client = Client::new();
    assert!(matches!(client.send("\n"), Poll::Refused(_)));
    assert_eq!(client.respond(Response::new(400)), Poll::Pending);
    assert!(client.is_shut() && client.connection.wants_read());
    assert_eq!(client.timeout(), Some(LIMITS.linger_us));
    client.now_us += LIMITS.linger_us - 1;
    assert_eq!(client.send("x".repeat(50_000)), Poll::Pending);
    assert!(client.wire.0.borrow().incoming.is_empty());
    assert!(client.connection.buffered_bytes() < 100);
    assert_eq!(client.wait(1), Poll::Closed);
}

#[test]
fn no_client_keeps_a_poll_for_itself() {
    let mut client = Client::with_request(GET);
    client.connection.begin(Response::new(200));
    assert_eq!(client.send("x".repeat(1 << 20)), Poll::Pending);
    assert!(client.wire.0.borrow().incoming.len() > 900_000);
    assert!(client.connection.wants_read());
    assert!(client.connection.pending_bytes() + client.connection.buffered_bytes() < 100);
}

#[test]
fn a_client_that_goes_away_is_noticed_while_its_request_runs() {
    // A client that closes, or closes its sending side alone.
    let mut client = Client::with_request(GET);
    assert!(!client.connection.is_gone());
    assert_eq!(client.end(), Poll::Pending);
    assert!(client.connection.is_gone());
    assert!(!client.connection.wants_read(), "an end would be ready to be read for ever");
    assert_eq!(client.respond(ok("a")), Poll::Closed);
    let received = client.received();
    assert!(received.contains("\r\nConnection: close\r\n") && received.ends_with('a'));
    assert!(client.is_shut());

    let mut client = Client::with_request(GET);
    client.connection.begin(Response::new(200));
    assert_eq!(client.poll(), Poll::Pending);
    assert_eq!(client.end(), Poll::Pending);
    assert!(client.connection.is_gone());
    client.connection.abort();
    assert_eq!(client.poll(), Poll::Closed);
    assert!(!client.received().contains("0\r\n\r\n"), "the response is incomplete");

    let mut client = Client::with_request(GET);
    client.connection.begin(Response::new(200));
    assert_eq!(client.end(), Poll::Pending);
    client.connection.end();
    assert_eq!(client.poll(), Poll::Closed, "no request can follow");
    assert!(client.received().ends_with("\r\n0\r\n\r\n"));

    // A reset: noticed by a read, and by a write.
    let mut client = Client::with_request(GET);
    assert_eq!(client.reset(), Poll::Closed);
    assert!(client.connection.is_gone());
    let mut client = Client::with_request(GET);
    client.wire.0.borrow_mut().is_reset = true;
    client.connection.begin(Response::new(200));
    assert_eq!(client.poll(), Poll::Closed);
    assert_eq!(client.connection.write(b"x"), Err(WriteError::Gone));

    // Without a request there is nothing to answer.
    let mut client = Client::new();
    assert_eq!(client.end(), Poll::Closed);
    assert_eq!(client.received(), "");
    let mut client = Client::new();
    client.send("GET");
    assert_eq!(client.end(), Poll::Refused(Refusal::Incomplete));
    // A client that ends before the answer is sent does not linger.
    let mut client = Client::with_request(GET);
    client.take_only(0);
    client.respond(ok("a"));
    client.wire.0.borrow_mut().takes = None;
    assert_eq!(client.end(), Poll::Closed);
    assert!(client.received().ends_with('a'));
}

#[test]
fn the_last_request_is_answered() {
    let mut client = Client::new();
    client.connection.finish();
    assert_eq!(client.poll(), Poll::Closed);

    let mut client = Client::with_request(GET);
    client.connection.finish();
    assert_eq!(client.respond(ok("a")), Poll::Pending);
    assert!(client.received().contains("\r\nConnection: close\r\n"));
    assert_eq!(client.end(), Poll::Closed);

    let mut client = Client::new();
    client.send(&GET[..7]);
    client.connection.finish();
    assert!(matches!(client.send(&GET[7..]), Poll::Request(_)));
    assert_eq!(client.respond(ok("a")), Poll::Pending);
    assert!(client.is_shut());
}

#[test]
fn a_connection_too_many_is_answered_before_its_request() {
    let mut client = Client::new();
    assert_eq!(client.respond(Response::new(503).header("Retry-After", "1")), Poll::Pending);
    assert!(
        client.received().starts_with("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
    );
    assert!(client.is_shut());
    assert_eq!(client.send(GET), Poll::Pending, "it is dropped");
    assert_eq!(client.end(), Poll::Closed);
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection<i32>>() <= 512, "{}", size_of::<Connection<i32>>());
}
