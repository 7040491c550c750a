//! One client: a state machine between a byte stream and the requests on it.
//!
//! | state | reads | writes | ends with |
//! |---|---|---|---|
//! | `Head` | a head | | a head, a refusal, the idle timeout |
//! | `Body` | a body | `100 Continue` | a request, a refusal |
//! | `Answering` | and drops | | [`Connection::respond`], [`Connection::begin`] |
//! | `Streaming` | and drops | chunks | [`Connection::end`] |
//! | `Sending` | and drops, where it is the last | the rest of a response | `Head`, or `Lingering` |
//! | `Lingering` | and drops | | the client's end, the linger timeout |
//! | `Closed` | | | |
//!
//! Before a connection closes, it tells the client that nothing more is sent, and reads on for a
//! while. A socket that closes with unread bytes would reset the connection, and the client might
//! lose the response.

#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::mem;

use super::body::Decoder;
use super::exchange::Exchange;
use super::head::{self, Head, Request, Scanner};
use super::limits::Limits;
use super::output::Output;
use super::refusal::Refusal;
use super::response::{CHUNK_OVERHEAD, CONTINUE, Framing, LAST_CHUNK, Response, push_chunk};
use super::stream::{Stream, StreamError};

/// Bytes that are read at once, on the stack: a connection without a request needs no buffer.
const CHUNK_BYTES: usize = 2048;

/// Reads of one poll, so that no client holds up the others.
const READS_PER_POLL: usize = 32;

/// Result of a poll.
#[derive(Debug, PartialEq, Eq)]
pub enum Poll {
    /// Nothing to do before the stream is ready or the deadline comes.
    Pending,
    /// A head is complete and a body is to come: [`Connection::head`].
    ///
    /// The caller may answer it at once. The body is read otherwise, by the next poll.
    Head,
    /// A request is complete; the caller answers it.
    Request(Request),
    /// A request is refused; the caller answers it, and the connection closes then.
    Refused(Refusal),
    /// The connection is over; the caller drops it.
    Closed,
}

/// Reason why a part of a streamed response was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// Too much waits for the client; a later poll may make room.
    Full,
    /// No response is being streamed any more: the connection is over.
    Gone,
}

#[derive(Debug)]
enum State {
    /// Before or in a head.
    Head {
        scanner: Scanner,
        deadline_us: u64,
    },
    /// In a body.
    Body {
        head: Head,
        decoder: Decoder,
        deadline_us: u64,
    },
    /// The caller has a request or a refusal.
    Answering(Exchange),
    /// The caller streams a response.
    Streaming {
        framing: Framing,
        keep_alive: bool,
    },
    /// A response is complete, and not all of it is sent.
    Sending {
        keep_alive: bool,
        deadline_us: Option<u64>,
    },
    /// All is sent; the client may still send.
    Lingering {
        deadline_us: u64,
    },
    Closed,
}

/// One client: requests in, responses out. It never waits.
///
/// The caller polls it when its stream is ready, when [`Connection::next_deadline_us`] has come, and
/// after each call that gives it bytes to send. A poll that returns something else than
/// [`Poll::Pending`] is followed by another one.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    limits: Limits,
    state: State,
    /// Bytes that have arrived and belong to no request yet.
    input: Vec<u8>,
    output: Output,
    /// Whether the client sends no more.
    is_peer_done: bool,
    /// Whether the present response is the last one.
    is_last: bool,
    /// Time since which the client has taken no byte of the output.
    stalled_since_us: Option<u64>,
}

impl<S: Stream> Connection<S> {
    /// A connection that was accepted at `now_us`.
    pub fn new(stream: S, limits: Limits, now_us: u64) -> Self {
        let deadline_us = now_us.saturating_add(limits.head_us);
        Connection {
            stream,
            limits,
            state: State::Head { scanner: Scanner::default(), deadline_us },
            input: Vec::new(),
            output: Output::default(),
            is_peer_done: false,
            is_last: false,
            stalled_since_us: None,
        }
    }

    /// The stream, for the caller to wait for.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Whether the connection waits for bytes from the client.
    pub fn wants_read(&self) -> bool {
        !self.is_peer_done
            && match self.state {
                // The next request waits until the response is sent.
                State::Sending { keep_alive, .. } => !keep_alive,
                State::Closed => false,
                _ => true,
            }
    }

    /// Whether the connection has bytes for the client.
    pub fn wants_write(&self) -> bool {
        self.output.pending() > 0
    }

    /// Bytes that wait for the client.
    pub fn pending_bytes(&self) -> usize {
        self.output.pending()
    }

    /// Bytes of a streamed response that would be taken now.
    pub fn room(&self) -> usize {
        self.limits.output_bytes.saturating_sub(self.output.pending() + CHUNK_OVERHEAD)
    }

    /// Bytes of memory for an unfinished request and for output.
    pub fn buffered_bytes(&self) -> usize {
        let body = match &self.state {
            State::Body { head, .. } => head.request.body.capacity(),
            _ => 0,
        };
        body + self.input.capacity() + self.output.buffered_bytes()
    }

    /// Whether no request is being read or answered.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Head { scanner, .. } if !scanner.has_started())
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the client had closed or reset the connection at the last poll.
    ///
    /// A client that closes only its sending side looks the same. So a response that is at hand is
    /// still worth sending. Work for a long one may end, by [`Connection::abort`].
    pub fn is_gone(&self) -> bool {
        self.is_peer_done || self.is_closed()
    }

    /// The head of the request whose body is being read.
    pub fn head(&self) -> Option<&Request> {
        match &self.state {
            State::Body { head, .. } => Some(&head.request),
            _ => None,
        }
    }

    /// Time at which the connection must be polled, whatever its stream does.
    pub fn next_deadline_us(&self) -> Option<u64> {
        let stall = self.stalled_since_us.map(|since| since.saturating_add(self.limits.stall_us));
        let own = match self.state {
            State::Head { deadline_us, .. }
            | State::Body { deadline_us, .. }
            | State::Lingering { deadline_us } => Some(deadline_us),
            State::Sending { deadline_us, .. } => deadline_us,
            _ => None,
        };
        [stall, own].into_iter().flatten().min()
    }

    /// Moves bytes in both directions, as far as the stream lets it.
    pub fn poll(&mut self, now_us: u64) -> Poll {
        self.send(now_us);
        let mut event = self.advance(now_us);
        let mut chunk = [0; CHUNK_BYTES];
        for _ in 0..READS_PER_POLL {
            if event.is_some() || !self.wants_read() {
                break;
            }
            event = match self.stream.recv(&mut chunk) {
                Ok(0) => self.peer_done(),
                Ok(n) => {
                    self.input.extend_from_slice(&chunk[..n.min(CHUNK_BYTES)]);
                    self.advance(now_us)
                }
                Err(StreamError::WouldBlock) => break,
                Err(StreamError::Gone) => {
                    self.close();
                    None
                }
            };
        }
        self.send(now_us);
        match event.or_else(|| self.expire(now_us)) {
            Some(event) => event,
            None if self.is_closed() => Poll::Closed,
            None => Poll::Pending,
        }
    }

    /// Answers with a whole response.
    ///
    /// An answer before the request is complete ends the connection, and so does one to a refused
    /// request. Where there is nothing to answer, such as on a closed connection, nothing happens.
    pub fn respond(&mut self, response: Response) {
        let Some(exchange) = self.take_exchange() else { return };
        let framing = match response.may_have_body() {
            true => Framing::Length(response.body().len()),
            false => Framing::NoBody,
        };
        let body = response.write_head(self.output.queue(), framing, exchange.announce());
        if framing != Framing::NoBody && !exchange.is_head {
            self.output.set_body(body);
        }
        self.state = State::Sending { keep_alive: exchange.keep_alive, deadline_us: None };
    }

    /// Starts a streamed response with the status and the headers of `response`.
    ///
    /// The parts of the body follow by [`Connection::write`], its end by [`Connection::end`].
    pub fn begin(&mut self, response: Response) {
        debug_assert!(response.body().is_empty(), "a streamed body comes in parts");
        let Some(mut exchange) = self.take_exchange() else { return };
        let framing = match (response.may_have_body(), exchange.is_http_1_0) {
            (false, _) => Framing::NoBody,
            (true, false) => Framing::Chunked,
            (true, true) => {
                exchange.keep_alive = false;
                Framing::UntilClose
            }
        };
        response.write_head(self.output.queue(), framing, exchange.announce());
        let framing = if exchange.is_head { Framing::NoBody } else { framing };
        self.state = State::Streaming { framing, keep_alive: exchange.keep_alive };
    }

    /// Takes a part of a streamed response, whole or not at all; returns the room that is left.
    ///
    /// A part that is larger than all room is taken when nothing else waits.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        let State::Streaming { framing, .. } = self.state else { return Err(WriteError::Gone) };
        if data.len() > self.room() && self.output.pending() > 0 {
            return Err(WriteError::Full);
        }
        match framing {
            Framing::Chunked => push_chunk(self.output.queue(), data),
            Framing::UntilClose => self.output.queue().extend_from_slice(data),
            Framing::NoBody | Framing::Length(_) => {}
        }
        Ok(self.room())
    }

    /// Ends a streamed response.
    pub fn end(&mut self) {
        let State::Streaming { framing, keep_alive } = self.state else { return };
        if framing == Framing::Chunked {
            self.output.queue().extend_from_slice(LAST_CHUNK);
        }
        self.state = State::Sending { keep_alive, deadline_us: None };
    }

    /// Ends the connection at once. A chunked response stays visibly incomplete.
    pub fn abort(&mut self) {
        self.close();
    }

    /// Ends the connection behind the present request, and at once if there is none.
    pub fn finish(&mut self) {
        self.is_last = true;
        if self.is_idle() {
            self.close();
        }
    }

    /// Sends what the stream takes, and reads nothing.
    pub fn flush(&mut self, now_us: u64) {
        self.send(now_us);
    }

    /// Sends what the stream takes, and goes on where all of a response is sent.
    fn send(&mut self, now_us: u64) {
        match self.output.send(&mut self.stream) {
            Err(_) => return self.close(),
            _ if self.output.pending() == 0 => self.stalled_since_us = None,
            Ok(false) if self.stalled_since_us.is_some() => {}
            Ok(_) => self.stalled_since_us = Some(now_us),
        }
        let State::Sending { keep_alive, deadline_us } = &mut self.state else { return };
        let keep_alive = *keep_alive;
        if self.output.pending() > 0 {
            deadline_us.get_or_insert(now_us.saturating_add(self.limits.send_us));
            return;
        }
        if keep_alive && !self.is_last && !self.is_peer_done {
            let deadline_us = now_us.saturating_add(self.limits.idle_us);
            self.state = State::Head { scanner: Scanner::default(), deadline_us };
        } else if self.is_peer_done {
            self.close();
        } else {
            self.stream.shutdown();
            let deadline_us = now_us.saturating_add(self.limits.linger_us);
            self.state = State::Lingering { deadline_us };
        }
    }

    /// Uses the bytes that have arrived.
    fn advance(&mut self, now_us: u64) -> Option<Poll> {
        match &mut self.state {
            State::Head { scanner, deadline_us } => {
                let was_idle = !scanner.has_started();
                let found = scanner.scan(&self.input, &self.limits);
                if was_idle && scanner.has_started() {
                    *deadline_us = now_us.saturating_add(self.limits.head_us);
                }
                match found {
                    Ok(None) => None,
                    Ok(Some(place)) => {
                        match head::parse(&self.input[place.clone()], &self.limits) {
                            Ok(head) => {
                                self.input.drain(..place.end);
                                self.start_body(head, now_us)
                            }
                            Err(refusal) => self.refuse(refusal),
                        }
                    }
                    Err(refusal) => self.refuse(refusal),
                }
            }
            State::Body { head, decoder, .. } => {
                if mem::take(&mut head.expects_continue) {
                    self.output.queue().extend_from_slice(CONTINUE);
                }
                let exchange = Exchange::of(head);
                let used = match decoder.push(&self.input, &mut head.request.body) {
                    Ok(used) => used,
                    Err(refusal) => return self.refuse(refusal),
                };
                self.input.drain(..used);
                if !decoder.is_done() {
                    return None;
                }
                match mem::replace(&mut self.state, State::Answering(exchange)) {
                    State::Body { head, .. } => self.hand_out(head.request),
                    _ => None,
                }
            }
            State::Answering(_) | State::Streaming { .. } | State::Lingering { .. } => {
                self.drop_input();
                None
            }
            State::Sending { keep_alive: true, .. } => None,
            State::Sending { .. } | State::Closed => {
                self.input = Vec::new();
                None
            }
        }
    }

    /// Goes on behind a head: with its body if there is one.
    fn start_body(&mut self, head: Head, now_us: u64) -> Option<Poll> {
        let decoder = Decoder::new(head.framing, &self.limits);
        if decoder.is_done() {
            self.state = State::Answering(Exchange::of(&head));
            return self.hand_out(head.request);
        }
        let deadline_us = now_us.saturating_add(self.limits.body_us);
        self.state = State::Body { head, decoder, deadline_us };
        Some(Poll::Head)
    }

    fn hand_out(&mut self, request: Request) -> Option<Poll> {
        self.drop_input();
        Some(Poll::Request(request))
    }

    /// Drops what arrives behind a request, and makes the present response the last one then.
    ///
    /// A part of a line end stays: some clients send one behind a body (RFC 9112, 2.2).
    fn drop_input(&mut self) {
        self.is_last |= !b"\r\n".starts_with(&self.input);
        if self.is_last {
            self.input.clear();
        }
        self.input.shrink_to_fit();
    }

    /// Hands a refusal to the caller. The connection is of no use behind its answer.
    fn refuse(&mut self, refusal: Refusal) -> Option<Poll> {
        let exchange = match &self.state {
            State::Body { head, .. } => Exchange::of(head),
            _ => Exchange::of_unread(&self.input),
        };
        self.is_last = true;
        self.input = Vec::new();
        self.state = State::Answering(exchange);
        Some(Poll::Refused(refusal))
    }

    /// What the response must know about its request, if there is anything to answer.
    fn take_exchange(&mut self) -> Option<Exchange> {
        let exchange = match &self.state {
            State::Answering(exchange) => *exchange,
            State::Body { head, .. } => Exchange { keep_alive: false, ..Exchange::of(head) },
            State::Head { .. } => Exchange::of_unread(&self.input),
            _ => return None,
        };
        let keep_alive = exchange.keep_alive && !self.is_last && !self.is_peer_done;
        Some(Exchange { keep_alive, ..exchange })
    }

    /// The client sends no more.
    fn peer_done(&mut self) -> Option<Poll> {
        self.is_peer_done = true;
        match &self.state {
            State::Head { scanner, .. } if scanner.has_started() => {
                self.refuse(Refusal::Incomplete)
            }
            State::Body { .. } => self.refuse(Refusal::Incomplete),
            State::Head { .. } | State::Lingering { .. } => {
                self.close();
                None
            }
            _ => None,
        }
    }

    /// Ends what has taken too long.
    fn expire(&mut self, now_us: u64) -> Option<Poll> {
        if self.next_deadline_us().is_none_or(|deadline_us| now_us < deadline_us) {
            return None;
        }
        match &self.state {
            State::Head { scanner, .. } if scanner.has_started() => {
                self.refuse(Refusal::HeadTimeout)
            }
            State::Body { deadline_us, .. } if now_us >= *deadline_us => {
                self.refuse(Refusal::BodyTimeout)
            }
            // An idle or lingering connection, and one whose client does not take its response.
            _ => {
                self.close();
                None
            }
        }
    }

    /// Gives up all memory; the stream sends what it has.
    fn close(&mut self) {
        if !matches!(self.state, State::Lingering { .. } | State::Closed) {
            self.stream.shutdown();
        }
        self.state = State::Closed;
        self.input = Vec::new();
        self.output = Output::default();
        self.stalled_since_us = None;
    }
}
