//! Clients that ask for streamed completions, and note when each token comes.

#![forbid(unsafe_code)]

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host_io::http::{Connection, Server};
use serde::Deserialize;
use serde_json::{Value, json};

/// Attempts to open a connection: QEMU's user network may lose one of several.
const ATTEMPTS: usize = 5;

/// A request for a completion.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The number of tokens to generate.
    pub tokens: usize,
    /// Whether a cached prefix may be used.
    pub cache: bool,
}

/// An answer, as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The time at which the request was sent.
    pub sent: Instant,
    /// The times at which the parts of the text came.
    pub arrivals: Vec<Instant>,
    /// The number of tokens.
    pub tokens: usize,
    /// The server's own times.
    pub timings: Timings,
}

/// The server's own times of an answer, by the guest's clock.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Timings {
    /// Tokens of the prompt that were processed.
    pub prompt_n: usize,
    /// Time to process them, in ms.
    pub prompt_ms: f64,
    /// Generated tokens.
    pub predicted_n: usize,
    /// Time from the first generated token to the last one, in ms.
    pub predicted_ms: f64,
}

/// An event of a stream.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    content: String,
    #[serde(default)]
    stop: bool,
    #[serde(default)]
    tokens_predicted: usize,
    timings: Option<Timings>,
    error: Option<Value>,
}

/// `n_tokens` ordinary tokens; different texts begin with different tokens.
pub fn text(number: u32, n_tokens: usize) -> Vec<u32> {
    (0..n_tokens as u32).map(|i| 300 + (number * 37 + i * 31) % 1500).collect()
}

impl Request {
    fn body(&self) -> String {
        let body = json!({
            "prompt": self.prompt, "n_predict": self.tokens, "cache_prompt": self.cache,
            "stream": true, "temperature": 0, "ignore_eos": true,
        });
        body.to_string()
    }
}

impl Answer {
    /// From the request to the first part of the text, in seconds.
    ///
    /// # Errors
    /// No text came.
    pub fn first_s(&self) -> Result<f64> {
        let first = self.arrivals.first().context("an answer without text")?;
        Ok((*first - self.sent).as_secs_f64())
    }

    /// The times between two parts of the text, in seconds.
    pub fn gaps_s(&self) -> impl Iterator<Item = f64> + '_ {
        self.arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64())
    }
}

/// A connection that is open for one request.
#[derive(Debug)]
pub struct Client(Connection);

impl Client {
    /// Opens a connection, up to the server. Nothing may come for `silence`.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn open(server: Server, silence: Duration) -> Result<Client> {
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            match Client::try_open(server, silence) {
                Err(_) if attempts > 0 => {}
                client => return client,
            }
        }
    }

    /// As [`Client::open`], with one attempt.
    ///
    /// # Errors
    /// The server cannot be reached, or is not healthy.
    pub fn try_open(server: Server, silence: Duration) -> Result<Client> {
        let mut client = Client::new(server, silence)?;
        client.0.send("GET /health", "", false)?;
        let status = client.0.incoming.response()?.status;
        ensure!(status == 200, "the server is not healthy: {status}");
        Ok(client)
    }

    /// A connection of which the server may not know yet. Nothing may come for `silence`.
    ///
    /// # Errors
    /// QEMU cannot be reached.
    pub fn new(server: Server, silence: Duration) -> Result<Client> {
        Connection::open(server, silence).map(Client)
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// The server refuses, or the answer does not have all tokens.
    pub fn ask(&mut self, request: &Request) -> Result<Answer> {
        self.ask_with(request, || {})
    }

    /// Asks, reads the whole answer, and calls `on_text` for each part of its text.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn ask_with(&mut self, request: &Request, mut on_text: impl FnMut()) -> Result<Answer> {
        let Client(connection) = self;
        let body = request.body();
        let sent = Instant::now();
        connection.send("POST /completion", &body, true)?;
        let (status, head) = connection.incoming.head()?;
        ensure!(status == 200, "the server refuses: {head}");
        let mut arrivals = vec![];
        let mut lines = Vec::new();
        loop {
            let chunk = connection.incoming.chunk()?;
            let now = Instant::now();
            ensure!(!chunk.is_empty(), "a stream ends before its last event");
            lines.extend(chunk);
            while let Some(end) = lines.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                let Some(data) = line.strip_prefix(b"data: ") else { continue };
                let event: Event = serde_json::from_slice(data)
                    .with_context(|| format!("the event {}", String::from_utf8_lossy(data)))?;
                if let Some(error) = event.error {
                    bail!("the server fails: {error}");
                }
                if !event.content.is_empty() {
                    arrivals.push(now);
                    on_text();
                }
                if event.stop {
                    let tokens = event.tokens_predicted;
                    ensure!(tokens == request.tokens, "{tokens} tokens, not {}", request.tokens);
                    let timings = event.timings.context("an answer without timings")?;
                    return Ok(Answer { sent, arrivals, tokens, timings });
                }
            }
        }
    }
}

/// Asks once.
///
/// # Errors
/// There is no whole answer.
pub fn ask(server: Server, request: &Request, silence: Duration) -> Result<Answer> {
    Client::open(server, silence)?.ask(request)
}

/// Asks all at once, each on a connection of its own.
///
/// # Errors
/// One of the requests has no whole answer.
pub fn together(server: Server, requests: &[Request], silence: Duration) -> Result<Vec<Answer>> {
    let clients: Result<Vec<_>> = requests.iter().map(|_| Client::open(server, silence)).collect();
    let start = &Barrier::new(requests.len());
    thread::scope(|scope| {
        let ask = |(mut client, request): (Client, _)| {
            scope.spawn(move || {
                start.wait();
                client.ask(request)
            })
        };
        let threads: Vec<_> = clients?.into_iter().zip(requests).map(ask).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server for one client, which answers the completion with these chunks.
    fn server(
        status: &'static str,
        chunks: &'static [&str],
    ) -> (Server, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::at(listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = || {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    reader.read_line(&mut head).unwrap();
                }
                head
            };
            assert!(head().starts_with("GET /health HTTP/1.1\r\n"));
            let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            stream.write_all(ok.as_bytes()).unwrap();
            let head = head();
            let length = head.split("Content-Length: ").nth(1).unwrap();
            let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            for chunk in chunks.iter().chain([&""]) {
                write!(stream, "{:x}\r\n{chunk}\r\n", chunk.len()).unwrap();
            }
            String::from_utf8(body).unwrap()
        });
        (server, thread)
    }

    fn asked(status: &'static str, chunks: &'static [&str]) -> (Result<Answer>, String) {
        let (server, thread) = server(status, chunks);
        let request = Request { prompt: vec![300, 331], tokens: 2, cache: false };
        (ask(server, &request, Duration::from_secs(5)), thread.join().unwrap())
    }

    #[test]
    fn parts_of_the_text_are_counted_wherever_chunks_end() {
        let (answer, body) = asked(
            "200 OK",
            &[
                "data: {\"content\":\" a\",",
                "\"stop\":false}\n\n:\n\n",
                "data: {\"content\":\"b\",\"stop\":false}\n\ndata: {\"content\":\"\",\"stop\":true,",
                "\"tokens_predicted\":2,\"timings\":{\"cache_n\":0,\"prompt_n\":2,\"prompt_ms\":1.5,\
                 \"predicted_n\":2,\"predicted_ms\":0.25}}\n\n",
            ],
        );
        let answer = answer.unwrap();
        assert_eq!((answer.arrivals.len(), answer.tokens), (2, 2));
        assert_eq!((answer.gaps_s().count(), answer.first_s().unwrap() > 0.0), (1, true));
        let timings = Timings { prompt_n: 2, prompt_ms: 1.5, predicted_n: 2, predicted_ms: 0.25 };
        assert_eq!(answer.timings, timings);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["prompt"], json!([300, 331]));
        assert_eq!((&body["n_predict"], &body["cache_prompt"]), (&json!(2), &json!(false)));
    }

    #[test]
    fn an_answer_that_is_not_whole_is_a_failure() {
        let message = |status, chunks| format!("{:#}", asked(status, chunks).0.unwrap_err());
        let refused = message("503 Service Unavailable", &[]);
        assert!(refused.contains("refuses: HTTP/1.1 503"), "{refused}");
        const LAST: &str = "data: {\"stop\":true,\"tokens_predicted\":1}\n\n";
        assert!(message("200 OK", &[LAST]).contains("1 tokens, not 2"));
        let ended = message("200 OK", &["data: {\"content\":\"a\",\"stop\":false}\n\n"]);
        assert!(ended.contains("before its last event"), "{ended}");
        let error = message("200 OK", &["data: {\"error\":{\"code\":500}}\n\n"]);
        assert!(error.contains("the server fails: {\"code\":500}"), "{error}");
    }

    #[test]
    fn texts_differ_from_their_first_token_on() {
        let firsts: Vec<_> = (0..40).map(|number| text(number, 500)[0]).collect();
        let mut sorted = firsts.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), firsts.len());
        assert!(text(7, 500).iter().all(|token| (300..1800).contains(token)));
    }
}
