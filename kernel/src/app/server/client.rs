//! One client: its connection, and the request that is being answered.

#![forbid(unsafe_code)]

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::api::{Answer, ApiError, PING};
use super::http::{Connection, Request, Response, WriteError};
use super::router::{self, Access, Route};
use crate::app::os::Socket;
use crate::app::output::emit;
use crate::llm::scheduler::{Finished, RequestId, Update};
use crate::llm::tokenizer::Tokenizer;
use crate::report::{self, Event};

/// Time without an event after which a stream gets a comment, in µs.
const PING_US: u64 = 15_000_000;

/// A client.
pub struct Client {
    /// The name of the client, unique in the server.
    pub id: u64,
    /// The connection.
    pub connection: Connection<Socket>,
    peer: SocketAddr,
    exchange: Option<Exchange>,
}

/// A request and its answer, for the event.
struct Exchange {
    method: String,
    path: String,
    origin: Option<String>,
    began_us: u64,
    /// Whether the request waits for the load of its model.
    is_parked: bool,
    running: Option<Running>,
}

/// An answer of the model that is on its way.
struct Running {
    answer: Answer,
    requests: Vec<RequestId>,
    /// Whether the head of the stream was sent.
    has_begun: bool,
    /// What the connection has not taken yet.
    out: String,
    /// The time of the last event or comment.
    spoke_us: u64,
    ping_us: u64,
    n_prompt: usize,
    n_cached: usize,
    n_generated: usize,
    prompt_us: u64,
    generated_us: u64,
}

impl Client {
    /// A client whose connection was accepted.
    pub fn new(id: u64, connection: Connection<Socket>, peer: SocketAddr) -> Self {
        Client { id, connection, peer, exchange: None }
    }

    /// Notes the request that is answered next.
    pub fn receive(&mut self, request: &Request, now_us: u64) {
        self.exchange = Some(Exchange {
            method: request.method.as_str().to_owned(),
            path: request.path.clone(),
            origin: request.headers.get("Origin").map(ToOwned::to_owned),
            began_us: now_us,
            is_parked: false,
            running: None,
        });
    }

    /// Notes that the request waits for the load of its model.
    pub fn park(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.is_parked = true;
        }
    }

    /// Notes a request that is refused, whose head may be unknown.
    pub fn receive_refused(&mut self, now_us: u64) {
        let (method, path) = ("-".to_owned(), "-".to_owned());
        self.exchange.get_or_insert(Exchange {
            method,
            path,
            origin: None,
            began_us: now_us,
            is_parked: false,
            running: None,
        });
    }

    /// Answers with a whole response, and reports the request.
    pub fn respond(&mut self, access: &Access, response: Response, now_us: u64) {
        let status = response.status;
        let origin = self.exchange.as_ref().and_then(|exchange| exchange.origin.as_deref());
        self.connection.respond(access.with_cors(response, origin));
        self.report(status, now_us);
    }

    /// Answers with an error.
    pub fn refuse(&mut self, access: &Access, error: &ApiError, now_us: u64) {
        let path = self.exchange.as_ref().map_or("", |exchange| &exchange.path);
        let mut response = router::refusal(path, error);
        if error.status == 503 {
            response = response.header("Retry-After", "1");
        }
        self.respond(access, response, now_us);
    }

    /// Reports the request, which is answered.
    fn report(&mut self, status: u16, now_us: u64) {
        let Some(exchange) = self.exchange.take() else { return };
        // Load balancers ask for the health every second.
        if status == 200 && Route::of(&exchange.path) == Some(Route::Health) {
            return;
        }
        let running = exchange.running.as_ref();
        emit(&Event::Request(report::Request {
            client: alloc::format!("{}", self.peer.ip()),
            method: exchange.method,
            path: exchange.path,
            status,
            prompt_tokens: running.map_or(0, |running| running.n_prompt),
            cached_tokens: running.map_or(0, |running| running.n_cached),
            tokens_emitted: running.map_or(0, |running| running.n_generated),
            prompt_us: running.map_or(0, |running| running.prompt_us),
            generated_us: running.map_or(0, |running| running.generated_us),
            latency_us: now_us.saturating_sub(exchange.began_us),
        }));
    }

    /// Starts an answer of the model.
    ///
    /// The prompts have `n_prompt` tokens together.
    pub fn start(
        &mut self,
        answer: Answer,
        requests: Vec<RequestId>,
        n_prompt: usize,
        now_us: u64,
    ) {
        let Some(exchange) = &mut self.exchange else { return };
        let ping_us = match answer.options().ping_interval_s {
            None => PING_US,
            Some(0) => u64::MAX,
            Some(s) => u64::from(s).saturating_mul(1_000_000),
        };
        exchange.running = Some(Running {
            answer,
            requests,
            has_begun: false,
            out: String::new(),
            spoke_us: now_us,
            ping_us,
            n_prompt,
            n_cached: 0,
            n_generated: 0,
            prompt_us: 0,
            generated_us: 0,
        });
    }

    fn running(&mut self) -> Option<&mut Running> {
        self.exchange.as_mut()?.running.as_mut()
    }

    /// The place of a request among those of the present answer.
    pub fn number_of(&self, id: RequestId) -> Option<usize> {
        let running = self.exchange.as_ref()?.running.as_ref()?;
        running.requests.iter().position(|&request| request == id)
    }

    /// Takes an update of a request of the present answer.
    ///
    /// Returns the requests that are of no use any more.
    pub fn on_update(
        &mut self,
        access: &Access,
        number: usize,
        update: Update<'_>,
        tokenizer: &Tokenizer,
        now_us: u64,
    ) -> Vec<RequestId> {
        let Some(running) = self.running() else { return Vec::new() };
        running.count(&update);
        let is_stream = running.answer.options().stream;
        let result = running.answer.on_update(number, update, tokenizer, now_us, &mut running.out);
        if let Err(error) = result {
            let requests = core::mem::take(&mut running.requests);
            if running.has_begun {
                // Comments were sent before: the status is gone, so the error is in the stream.
                running.answer.push_error(&error, &mut running.out);
                self.finish_stream(now_us);
            } else {
                self.refuse(access, &error, now_us);
            }
            return requests;
        }
        if is_stream {
            if !running.out.is_empty() {
                running.spoke_us = now_us;
            }
            let is_done = running.answer.is_done();
            self.flush(access);
            if is_done {
                self.finish_stream(now_us);
            }
        } else if running.answer.is_done() {
            let body = core::mem::take(&mut running.out).into_bytes();
            let response = Response::new(200).with_body(running.answer.content_type(), body);
            self.respond(access, response, now_us);
        }
        Vec::new()
    }

    /// Gives the connection what it takes of a stream.
    fn flush(&mut self, access: &Access) {
        let Some(exchange) = &mut self.exchange else { return };
        let Some(running) = &mut exchange.running else { return };
        if running.out.is_empty() || !running.answer.options().stream {
            return;
        }
        if !running.has_begun {
            running.has_begun = true;
            let response = Response::new(200)
                .header("Content-Type", running.answer.content_type())
                .header("Cache-Control", "no-cache")
                // Some proxies hold back what is not marked so.
                .header("X-Accel-Buffering", "no");
            self.connection.begin(access.with_cors(response, exchange.origin.as_deref()));
        }
        match self.connection.write(running.out.as_bytes()) {
            Ok(_) => running.out.clear(),
            // The connection takes the rest once the client has taken what waits.
            Err(WriteError::Full) => {}
            Err(WriteError::Gone) => running.out.clear(),
        }
    }

    /// Ends a stream whose answer is done, once the connection has taken all of it.
    fn finish_stream(&mut self, now_us: u64) {
        if self.running().is_some_and(|running| running.out.is_empty()) {
            self.connection.end();
            self.report(200, now_us);
        }
    }

    /// Moves a stream on: what waits for the connection, its end, and comments in a silence.
    pub fn tend(&mut self, access: &Access, now_us: u64) {
        let Some(running) = self.running() else { return };
        if !running.answer.options().stream {
            return;
        }
        if now_us.saturating_sub(running.spoke_us) >= running.ping_us {
            running.spoke_us = now_us;
            running.out.push_str(PING);
        }
        let is_done = running.answer.is_done();
        self.flush(access);
        if is_done {
            self.finish_stream(now_us);
        }
    }

    /// The time at which the client needs something, whatever the network does.
    pub fn next_deadline_us(&self) -> Option<u64> {
        let running = self.exchange.as_ref().and_then(|exchange| exchange.running.as_ref());
        let stream = running.filter(|running| running.answer.options().stream);
        let ping = stream.map(|running| running.spoke_us.saturating_add(running.ping_us));
        [self.connection.next_deadline_us(), ping].into_iter().flatten().min()
    }

    /// Gives up the present answer: the client is gone, or the server ends.
    ///
    /// Returns its requests.
    pub fn give_up(
        &mut self,
        access: &Access,
        error: &ApiError,
        status: u16,
        now_us: u64,
    ) -> Vec<RequestId> {
        if !self.is_waiting() {
            return Vec::new();
        }
        let is_gone = self.connection.is_gone();
        let mut requests = Vec::new();
        let mut has_begun = false;
        if let Some(running) = self.running() {
            requests = core::mem::take(&mut running.requests);
            has_begun = running.has_begun;
            if has_begun && !is_gone {
                running.answer.abort(error, &mut running.out);
            }
        }
        if is_gone {
            self.connection.abort();
            self.report(status, now_us);
        } else if has_begun {
            self.flush(access);
            self.connection.end();
            self.report(status, now_us);
        } else {
            self.refuse(access, error, now_us);
        }
        requests
    }

    /// Whether the client waits for an answer of a model, or for the load of the model.
    pub fn is_waiting(&self) -> bool {
        let exchange = self.exchange.as_ref();
        exchange.is_some_and(|exchange| exchange.running.is_some() || exchange.is_parked)
    }

    /// Whether a request was received and is not answered.
    pub fn is_busy(&self) -> bool {
        self.exchange.is_some()
    }
}

impl Running {
    /// Counts for the event.
    fn count(&mut self, update: &Update<'_>) {
        match update {
            Update::Started { n_cached, .. } => self.n_cached += n_cached,
            Update::Token { .. } => self.n_generated += 1,
            Update::Finished(Finished { prompt_us, generated_us, .. }) => {
                self.prompt_us = self.prompt_us.max(*prompt_us);
                self.generated_us = self.generated_us.max(*generated_us);
            }
            _ => {}
        }
    }
}
