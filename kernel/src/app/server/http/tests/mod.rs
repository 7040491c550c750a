//! Whole connections, over a stream of the tests and a clock of the tests.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use super::*;

mod closing;
mod hostile;
mod properties;
mod requests;
mod responses;

/// Both directions of a stream.
#[derive(Debug, Default)]
struct Pipe {
    incoming: VecDeque<u8>,
    /// Most bytes that one read returns; 0: any number.
    read_bytes: usize,
    is_done: bool,
    is_reset: bool,
    outgoing: Vec<u8>,
    /// Bytes that the stream still takes; `None`: any number.
    takes: Option<usize>,
    is_shut: bool,
}

/// The server's end of a [`Pipe`].
#[derive(Clone, Debug, Default)]
struct Wire(Rc<RefCell<Pipe>>);

impl Stream for Wire {
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let pipe = &mut *self.0.borrow_mut();
        let most = if pipe.read_bytes == 0 { usize::MAX } else { pipe.read_bytes };
        let n = pipe.incoming.len().min(buffer.len()).min(most);
        for (place, byte) in buffer.iter_mut().zip(pipe.incoming.drain(..n)) {
            *place = byte;
        }
        match n {
            0 if pipe.is_reset => Err(StreamError::Gone),
            0 if pipe.is_done => Ok(0),
            0 => Err(StreamError::WouldBlock),
            n => Ok(n),
        }
    }

    fn send(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        let pipe = &mut *self.0.borrow_mut();
        assert!(!pipe.is_shut, "bytes behind the end");
        let n = data.len().min(pipe.takes.unwrap_or(usize::MAX));
        match n {
            _ if pipe.is_reset => return Err(StreamError::Gone),
            0 => return Err(StreamError::WouldBlock),
            n => pipe.outgoing.extend_from_slice(&data[..n]),
        }
        pipe.takes = pipe.takes.map(|takes| takes - n);
        Ok(n)
    }

    fn shutdown(&mut self) {
        let was_shut = mem::replace(&mut self.0.borrow_mut().is_shut, true);
        assert!(!was_shut, "a second end");
    }
}

/// A connection with its client's end and its clock.
struct Client {
    wire: Wire,
    connection: Connection<Wire>,
    now_us: u64,
}

const SECOND_US: u64 = 1_000_000;

/// Limits that tests reach soon.
const LIMITS: Limits = Limits {
    head_bytes: 600,
    target_bytes: 40,
    body_bytes: 200,
    output_bytes: 300,
    head_us: 5 * SECOND_US,
    body_us: 7 * SECOND_US,
    idle_us: 11 * SECOND_US,
    stall_us: 3 * SECOND_US,
    send_us: 13 * SECOND_US,
    linger_us: 2 * SECOND_US,
};

impl Client {
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        let (wire, now_us) = (Wire::default(), 1_000_003);
        Client { connection: Connection::new(wire.clone(), limits, now_us), wire, now_us }
    }

    /// A client whose request the caller has.
    fn with_request(request: &str) -> Self {
        let mut client = Self::new();
        let event = client.send(request);
        assert!(matches!(event, Poll::Request(_)), "{event:?}");
        client
    }

    fn poll(&mut self) -> Poll {
        self.connection.poll(self.now_us)
    }

    /// Sends bytes, and polls up to the first event; announced bodies are none.
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> Poll {
        self.wire.0.borrow_mut().incoming.extend(bytes.as_ref());
        self.settle()
    }

    fn settle(&mut self) -> Poll {
        loop {
            let event = self.poll();
            if event != Poll::Head {
                return event;
            }
        }
    }

    fn respond(&mut self, response: Response) -> Poll {
        self.connection.respond(response);
        self.settle()
    }

    fn wait(&mut self, us: u64) -> Poll {
        self.now_us += us;
        self.settle()
    }

    /// The client sends no more.
    fn end(&mut self) -> Poll {
        self.wire.0.borrow_mut().is_done = true;
        self.settle()
    }

    /// The client resets the connection.
    fn reset(&mut self) -> Poll {
        self.wire.0.borrow_mut().is_reset = true;
        self.settle()
    }

    /// The client's stream takes so many bytes and no more.
    fn take_only(&mut self, bytes: usize) {
        self.wire.0.borrow_mut().takes = Some(bytes);
    }

    /// What has arrived at the client since the last call.
    fn received(&mut self) -> String {
        String::from_utf8(mem::take(&mut self.wire.0.borrow_mut().outgoing)).unwrap()
    }

    fn is_shut(&self) -> bool {
        self.wire.0.borrow().is_shut
    }

    /// Time until the connection must be polled.
    fn timeout(&self) -> Option<u64> {
        self.connection.next_deadline_us().map(|deadline| deadline - self.now_us)
    }
}

fn ok(body: &'static str) -> Response {
    Response::new(200).with_body("text/plain", body.as_bytes())
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

/// What became of the bytes of one request, which arrive in these pieces.
///
/// The pieces arrive before the answer. So what is behind the request is always too early.
fn outcome(pieces: &[&[u8]]) -> (Option<Result<Request, Refusal>>, String) {
    let mut client = Client::new();
    let mut outcome = None;
    for piece in pieces {
        match client.send(piece) {
            Poll::Request(request) => assert!(outcome.replace(Ok(request)).is_none()),
            Poll::Refused(refusal) => assert!(outcome.replace(Err(refusal)).is_none()),
            event => assert_eq!(event, Poll::Pending),
        }
        assert_eq!(client.poll(), Poll::Pending, "a second event");
    }
    if let Some(outcome) = &outcome {
        let status = outcome.as_ref().map_or_else(|refusal| refusal.status(), |_| 200);
        let event = client.respond(Response::new(status));
        assert_eq!(event, Poll::Pending);
    }
    (outcome, client.received())
}

/// The outcome of these bytes, which is the same for each split in two, and for single bytes.
fn outcome_of_any_split(bytes: &[u8]) -> (Option<Result<Request, Refusal>>, String) {
    let whole = outcome(&[bytes]);
    for at in 1..bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(outcome(&[first, second]), whole, "split behind {at} bytes of {bytes:?}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(outcome(&single), whole, "single bytes of {bytes:?}");
    whole
}

/// The refusal of these bytes in any split.
fn refused(bytes: impl AsRef<[u8]>) -> Option<Refusal> {
    let (outcome, sent) = outcome_of_any_split(bytes.as_ref());
    let refusal = outcome?.err()?;
    let status = format!("HTTP/1.1 {} ", refusal.status());
    let answer = sent.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&sent);
    assert!(answer.starts_with(&status), "{sent}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{sent}");
    Some(refusal)
}
