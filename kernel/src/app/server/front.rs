//! The front of the server: listener, clients, and all answers that need no engine.
//!
//! Nothing here waits for the engine, so the front also moves on between the stages of a forward
//! pass. Requests for the engine are queued ([`Front::next_job`]).

#![forbid(unsafe_code)]

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::api::ollama::{self, Call};
use super::api::{ApiError, ErrorKind, JSON, models};
use super::client::Client;
use super::http::{Connection, Headers, Limits, Poll, Refusal, Request, Response};
use super::page::ResponseParts;
use super::router::{Access, Route};
use crate::app::os::{self, Interest, PollSet, Socket};
use crate::llm::scheduler::{RequestId, Update};
use crate::llm::tokenizer::Tokenizer;
use crate::steady_clock::SteadyClock;

/// Connections that are open at once.
pub const MAX_CLIENTS: usize = 64;
/// Time between two polls of the network during a forward pass, in µs.
const STAGE_US: u64 = 2_000;
/// Bytes that are read from the console at once.
const CONSOLE_BYTES: usize = 32;
/// The content type of what ollama's clients find at `/`.
const TEXT: &str = "text/plain; charset=utf-8";
/// Ctrl-C on the console ends the server.
const INTERRUPT: u8 = 3;
/// The status in the event of a request whose client went away, as in nginx.
const CLIENT_GONE: u16 = 499;

/// A request for the engine.
pub struct Job {
    /// The client that asks.
    pub client: u64,
    /// What the client asks for.
    pub route: Route,
    /// The request.
    pub request: Request,
}

/// Listener and clients.
pub struct Front {
    /// `None` once the server is ending.
    listener: Option<Socket>,
    clients: Vec<Client>,
    access: Access,
    page: ResponseParts,
    limits: Limits,
    last_client: u64,
    set: PollSet,
    jobs: VecDeque<Job>,
    cancelled: Vec<RequestId>,
    /// The clock of all timeouts.
    clock: SteadyClock,
    polled_us: u64,
    has_console: bool,
    is_interrupted: bool,
    /// Whether the model is not there yet.
    is_loading: bool,
}

impl Front {
    /// A front without clients, for the time until [`Front::start`].
    pub fn new(listener: Socket, access: Access, page: ResponseParts, limits: Limits) -> Self {
        Front {
            listener: Some(listener),
            clients: Vec::with_capacity(MAX_CLIENTS),
            access,
            page,
            limits,
            last_client: 0,
            // The clients, the listener and the console.
            set: PollSet::with_capacity(MAX_CLIENTS + 2),
            jobs: VecDeque::with_capacity(MAX_CLIENTS),
            cancelled: Vec::with_capacity(MAX_CLIENTS),
            clock: SteadyClock::default(),
            polled_us: 0,
            has_console: true,
            is_interrupted: false,
            is_loading: true,
        }
    }

    /// Takes requests for the model from now on. New connections have these limits.
    pub fn start(&mut self, limits: Limits) {
        self.is_loading = false;
        self.limits = limits;
    }

    /// The time of the clock of all timeouts, in µs.
    pub fn now_us(&self) -> u64 {
        self.clock.at(os::now_us())
    }

    /// Moves all clients on, if that was not done a moment ago.
    ///
    /// The call is for the time between two stages of a forward pass.
    pub fn poll_in_pass(&mut self) {
        if self.now_us().saturating_sub(self.polled_us) >= STAGE_US {
            self.poll(Some(0));
        }
    }

    /// Waits for the network, but at most `timeout_us` µs, and moves all clients on.
    ///
    /// `None`: until a client or a timer needs something.
    pub fn poll(&mut self, timeout_us: Option<u64>) {
        let deadline_us = self.next_deadline_us();
        let timeout_us = match (timeout_us, deadline_us) {
            (Some(0), _) => Some(0),
            (timeout, deadline) => {
                let left = deadline.map(|deadline| deadline.saturating_sub(self.now_us()));
                timeout.into_iter().chain(left).min()
            }
        };
        let read = Interest { read: true, write: false };
        self.set.clear();
        let console = self.has_console.then(|| self.set.add_console());
        let may_accept = self.clients.len() < MAX_CLIENTS;
        let listener = self.listener.as_ref().filter(|_| may_accept);
        let listener = listener.map(|listener| self.set.add(listener, read));
        let first = usize::from(console.is_some()) + usize::from(listener.is_some());
        for Client { connection, .. } in &self.clients {
            let interest =
                Interest { read: connection.wants_read(), write: connection.wants_write() };
            self.set.add(connection.stream(), interest);
        }
        // Rounded up, so that a deadline has come when the wait ends.
        let timeout_ms = timeout_us.map(|us| u32::try_from(us.div_ceil(1000)).unwrap_or(u32::MAX));
        if self.set.wait(timeout_ms).is_err() {
            return;
        }
        let now_us = self.clock.read(os::now_us(), deadline_us);
        self.polled_us = now_us;
        if let Some(console) = console {
            self.read_console(console);
        }
        let mut clients = core::mem::take(&mut self.clients);
        for (i, client) in clients.iter_mut().enumerate() {
            let readiness = self.set.readiness(first + i);
            let is_ready =
                readiness.read || readiness.write || readiness.peer_done || readiness.gone;
            let is_due = client.next_deadline_us().is_some_and(|deadline| deadline <= now_us);
            // A connection may also have ended when an answer was written to it.
            if is_ready || is_due || client.connection.is_closed() {
                self.move_on(client, now_us);
            }
        }
        clients.retain(|client| !client.connection.is_closed());
        self.clients = clients;
        if listener.is_some_and(|listener| self.set.readiness(listener).read) {
            self.accept(now_us);
        }
    }

    /// Takes Ctrl-C. Other input is ignored.
    fn read_console(&mut self, entry: usize) {
        let readiness = self.set.readiness(entry);
        let mut input = [0; CONSOLE_BYTES];
        if readiness.read {
            match os::read_console(&mut input) {
                Ok(n @ 1..) => self.is_interrupted |= input[..n].contains(&INTERRUPT),
                _ => self.has_console = false,
            }
        } else if readiness.gone {
            // A machine without a serial port ends by its plug.
            self.has_console = false;
        }
    }

    /// Accepts the connections that wait.
    fn accept(&mut self, now_us: u64) {
        while self.clients.len() < MAX_CLIENTS {
            let Some(Ok((socket, peer))) = self.listener.as_ref().map(Socket::accept) else {
                return;
            };
            self.last_client += 1;
            let connection = Connection::new(socket, self.limits, now_us);
            let mut client = Client::new(self.last_client, connection, peer);
            self.move_on(&mut client, now_us);
            self.clients.push(client);
        }
    }

    /// Moves a client on: its requests, its answer, its end.
    fn move_on(&mut self, client: &mut Client, now_us: u64) {
        loop {
            match client.connection.poll(now_us) {
                Poll::Pending | Poll::Closed => break,
                Poll::Head => {
                    // What is refused is refused before the body is sent.
                    let Some(head) = client.connection.head().cloned() else { continue };
                    if let Err(response) = self.access.route(&head) {
                        client.receive(&head, now_us);
                        client.respond(&self.access, response, now_us);
                    }
                }
                Poll::Request(request) => {
                    client.receive(&request, now_us);
                    self.handle(client, request, now_us);
                }
                Poll::Refused(refusal) => {
                    client.receive_refused(now_us);
                    client.refuse(&self.access, &refused(refusal), now_us);
                }
            }
        }
        if client.is_waiting() && client.connection.is_gone() {
            let error = ApiError::new(ErrorKind::Server, "the client is gone");
            self.cancelled.extend(client.give_up(&self.access, &error, CLIENT_GONE, now_us));
        }
        client.tend(&self.access, now_us);
    }

    /// Answers a request, or queues it for the engine.
    fn handle(&mut self, client: &mut Client, request: Request, now_us: u64) {
        let response = match self.access.route(&request) {
            Err(response) => response,
            Ok(_) if self.listener.is_none() => {
                let error = ApiError::new(ErrorKind::Unavailable, "the server is shutting down");
                return client.refuse(&self.access, &error, now_us);
            }
            Ok(Route::Page) => self.page(&request),
            Ok(Route::Ollama(Call::Version)) => {
                Response::new(200).with_body(JSON, ollama::version().into_bytes())
            }
            Ok(_) if self.is_loading => {
                let error = ApiError::new(ErrorKind::Unavailable, "Loading model");
                client.refuse(&self.access, &error, now_us);
                // The next connection has other limits.
                return client.connection.finish();
            }
            Ok(Route::Health) => Response::new(200).with_body(JSON, models::health().as_bytes()),
            Ok(route) => {
                self.jobs.push_back(Job { client: client.id, route, request });
                return;
            }
        };
        client.respond(&self.access, response, now_us);
    }

    /// The page; at `/` for those that ask for HTML, as browsers do. Others look for ollama there.
    fn page(&self, request: &Request) -> Response {
        let is_root = request.path == "/";
        if is_root && !asks_for_html(&request.headers) {
            let response = Response::new(200).with_body(TEXT, ollama::RUNNING.as_bytes());
            return response.header("Vary", "Accept");
        }
        let known = request.headers.get("If-None-Match");
        let response = match known.is_some_and(|etags| self.page.is_unmodified(etags)) {
            true => Response::new(304),
            false => Response::new(200).with_bytes(self.page.body),
        };
        let response = if is_root { response.header("Vary", "Accept") } else { response };
        let headers = self.page.headers.iter();
        headers.fold(response, |response, (name, value)| response.header(name, value))
    }

    /// The next request for the engine whose client still waits.
    pub fn next_job(&mut self) -> Option<Job> {
        loop {
            let job = self.jobs.pop_front()?;
            if self.has_client(job.client) {
                return Some(job);
            }
        }
    }

    /// Whether something has come up that the front cannot do alone.
    pub fn has_news(&self) -> bool {
        !self.jobs.is_empty() || !self.cancelled.is_empty() || self.is_interrupted
    }

    /// Whether a client still waits for the answer to its request.
    pub fn has_client(&self, id: u64) -> bool {
        self.clients.iter().any(|client| client.id == id && client.is_busy())
    }

    /// Notes that a client's request waits for the load of its model; false if the client is gone.
    pub fn park(&mut self, id: u64) -> bool {
        self.client(id).map(|(_, client)| client.park()).is_some()
    }

    /// Answers a client's request.
    pub fn answer(&mut self, id: u64, result: Result<Response, ApiError>) {
        let now_us = self.now_us();
        let Some((access, client)) = self.client(id) else { return };
        match result {
            Ok(response) => client.respond(access, response, now_us),
            Err(error) => client.refuse(access, &error, now_us),
        }
        client.connection.flush(now_us);
    }

    /// The rules for requests, and the client that asked.
    pub fn client(&mut self, id: u64) -> Option<(&Access, &mut Client)> {
        let client = self.clients.iter_mut().find(|client| client.id == id)?;
        Some((&self.access, client))
    }

    /// Takes the requests that are of no use any more.
    pub fn take_cancelled(&mut self) -> impl Iterator<Item = RequestId> {
        self.cancelled.drain(..)
    }

    /// Gives an update of a request to the client that asked.
    pub fn on_update(&mut self, id: RequestId, update: Update<'_>, tokenizer: &Tokenizer) {
        let now_us = self.now_us();
        let found = self
            .clients
            .iter_mut()
            .find_map(|client| client.number_of(id).map(|number| (client, number)));
        let Some((client, number)) = found else { return };
        let useless = client.on_update(&self.access, number, update, tokenizer, now_us);
        self.cancelled.extend(useless);
        // The text goes out at once.
        client.connection.flush(now_us);
    }

    /// The time at which a client needs something, whatever the network does.
    fn next_deadline_us(&self) -> Option<u64> {
        self.clients.iter().filter_map(Client::next_deadline_us).min()
    }

    /// Whether Ctrl-C came.
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    /// Accepts no more connections, and ends those without a request.
    pub fn close(&mut self) {
        self.listener = None;
        for client in &mut self.clients {
            client.connection.finish();
        }
    }

    /// Whether no client is left.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Ends all answers.
    pub fn give_up(&mut self) {
        let now_us = self.now_us();
        let error = ApiError::new(ErrorKind::Unavailable, "the server is shutting down");
        for client in &mut self.clients {
            self.cancelled.extend(client.give_up(&self.access, &error, 503, now_us));
        }
        self.poll(Some(0));
    }
}

/// Whether a client names HTML among what it accepts: `*/*` does not.
fn asks_for_html(headers: &Headers) -> bool {
    headers.list("Accept").any(|range| {
        let kind = range.split(|&byte| byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/html")
    })
}

/// The error of a request that HTTP refuses.
fn refused(refusal: Refusal) -> ApiError {
    let kind = match refusal.status() {
        501 => ErrorKind::NotSupported,
        503 => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidRequest,
    };
    ApiError::new(kind, refusal.message()).with_status(refusal.status())
}
