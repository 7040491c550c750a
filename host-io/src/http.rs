//! A client of HTTP/1.1 on plain TCP, for the servers that boots and measurements start.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Timeout of a connection without traffic.
pub const SILENCE: Duration = Duration::from_secs(60);

/// A response, with its whole body.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body, chunks joined.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Errors
    /// The body is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }

    /// The data of each server-sent event, without comments.
    pub fn events(&self) -> Vec<&str> {
        self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
    }
}

/// A server.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Its address.
    pub address: SocketAddr,
    /// The key that requests bring.
    pub key: Option<&'static str>,
}

impl Server {
    /// A server at this address, for requests without a key.
    pub fn at(address: SocketAddr) -> Server {
        Server { address, key: None }
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same server, for requests with this key.
    pub fn with_key(self, key: &'static str) -> Server {
        Server { key: Some(key), ..self }
    }

    /// A connection on which nothing has been sent.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address).context("cannot connect")?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(stream)
    }

    /// The text of a request; `start` is method and path.
    ///
    /// The connection ends with the `last` request.
    pub fn request(&self, start: &str, body: &str, last: bool) -> String {
        let mut text = format!("{start} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if last {
            text += "Connection: close\r\n";
        }
        if let Some(key) = self.key {
            text += &format!("Authorization: Bearer {key}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text + "\r\n" + body
    }

    /// Sends the only request on a new connection; `start` is method and path.
    ///
    /// # Errors
    /// The server cannot be reached, or takes no bytes.
    pub fn send(&self, start: &str, body: &str) -> Result<TcpStream> {
        let mut stream = self.connect()?;
        let text = self.request(start, body, true);
        stream.write_all(text.as_bytes()).with_context(|| format!("{start}: cannot send"))?;
        Ok(stream)
    }

    /// Sends a request without a body, and reads the response.
    ///
    /// # Errors
    /// The server cannot be reached, or its response is not whole.
    pub fn get(&self, path: &str) -> Result<Response> {
        let start = format!("GET {path}");
        read(self.send(&start, "")?).context(start)
    }

    /// Sends JSON, and reads the response.
    ///
    /// # Errors
    /// The server cannot be reached, or its response is not whole.
    pub fn post(&self, path: &str, body: &Value) -> Result<Response> {
        let start = format!("POST {path}");
        read(self.send(&start, &body.to_string())?).context(start)
    }
}

/// A connection for several requests, one after the other.
#[derive(Debug)]
pub struct Connection {
    server: Server,
    stream: TcpStream,
    /// What the server sends.
    pub incoming: Incoming<TcpStream>,
}

impl Connection {
    /// Opens a connection on which nothing may come for `silence`.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn open(server: Server, silence: Duration) -> Result<Connection> {
        let stream = server.connect()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(silence))?;
        let incoming = Incoming::new(stream.try_clone()?);
        Ok(Connection { server, stream, incoming })
    }

    /// Sends a request; see [`Server::request`].
    ///
    /// # Errors
    /// The connection is lost.
    pub fn send(&mut self, start: &str, body: &str, last: bool) -> Result<()> {
        let text = self.server.request(start, body, last);
        self.stream.write_all(text.as_bytes()).context("cannot send a request")
    }
}

/// Reads the only response on a connection.
///
/// # Errors
/// The response is not whole, or is none of HTTP/1.1.
pub fn read(stream: impl Read) -> Result<Response> {
    Incoming::new(stream).response()
}

/// The receiving side of a connection.
#[derive(Debug)]
pub struct Incoming<R>(BufReader<R>);

impl<R: Read> Incoming<R> {
    /// The receiving side of this connection.
    pub fn new(stream: R) -> Incoming<R> {
        Incoming(BufReader::new(stream))
    }

    /// Whether the server has closed, and all of its bytes were read.
    ///
    /// # Errors
    /// The connection fails.
    pub fn is_over(&mut self) -> Result<bool> {
        Ok(self.0.fill_buf().context("cannot receive")?.is_empty())
    }

    /// Reads a status line and headers; returns the status and all of the text.
    ///
    /// # Errors
    /// The head is not whole, or is none of HTTP/1.1.
    pub fn head(&mut self) -> Result<(u16, String)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let bytes = self.0.read_line(&mut head).with_context(|| format!("within {head:?}"))?;
            ensure!(bytes > 0, "the response ends within its head: {head:?}");
        }
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|status| status.parse().ok());
        Ok((status.with_context(|| format!("no response of HTTP/1.1: {head:?}"))?, head))
    }

    /// Reads a chunk; the last one is empty.
    ///
    /// # Errors
    /// The chunk is not whole.
    pub fn chunk(&mut self) -> Result<Vec<u8>> {
        let mut size = String::new();
        self.0.read_line(&mut size).context("no further chunk")?;
        let Ok(size) = usize::from_str_radix(size.trim_end(), 16) else {
            bail!("no size of a chunk: {size:?}");
        };
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).context("a chunk is not whole")?;
        ensure!(chunk.ends_with(b"\r\n"), "a chunk has no end");
        chunk.truncate(size);
        Ok(chunk)
    }

    /// Reads a response with its whole body.
    ///
    /// # Errors
    /// The response is not whole, or is none of HTTP/1.1.
    pub fn response(&mut self) -> Result<Response> {
        let (status, head) = self.head()?;
        let names = head.to_ascii_lowercase();
        let mut body = Vec::new();
        if names.contains("\r\ntransfer-encoding: chunked\r\n") {
            while let chunk @ [_, ..] = &self.chunk()?[..] {
                body.extend_from_slice(chunk);
            }
        } else {
            let length = names.split("\r\ncontent-length: ").nth(1);
            let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
            body.resize(length.with_context(|| format!("a body without a length: {head:?}"))?, 0);
            self.0.read_exact(&mut body).context("the body is not whole")?;
        }
        Ok(Response { status, head, body: String::from_utf8(body).context("a body of UTF-8")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_a_length_or_chunks() {
        let whole = read(&b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabcd"[..]).unwrap();
        assert_eq!((whole.status, whole.body.as_str()), (404, "abc"));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                        8\r\ndata: a\n\r\n9\r\n:\n\ndata: \r\n3\r\nb\n\n\r\n0\r\n\r\n";
        let chunked = read(&chunked[..]).unwrap();
        assert_eq!(chunked.events(), ["a", "b"]);
    }

    #[test]
    fn responses_follow_each_other_on_a_connection() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na\
                      HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n\
                      HTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\nc";
        let mut incoming = Incoming::new(&bytes[..]);
        for expected in [(200, "a"), (200, "b"), (503, "c")] {
            assert!(!incoming.is_over().unwrap());
            let response = incoming.response().unwrap();
            assert_eq!((response.status, response.body.as_str()), expected);
        }
        assert!(incoming.is_over().unwrap());
        assert!(incoming.response().is_err());
    }

    #[test]
    fn requests_say_what_ends_the_connection() {
        let server = Server::at(([127, 0, 0, 1], 80).into()).with_key("k");
        let last = "POST /a HTTP/1.1\r\nHost: 127.0.0.1:80\r\nConnection: close\r\n\
                    Authorization: Bearer k\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(server.request("POST /a", "{}", true), last);
        let kept = "GET /b HTTP/1.1\r\nHost: 127.0.0.1:80\r\nAuthorization: Bearer k\r\n\r\n";
        assert_eq!(server.request("GET /b", "", false), kept);
    }

    #[test]
    fn what_is_cut_off_is_no_response() {
        let cut: [&[u8]; 5] = [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ];
        for response in cut {
            assert!(read(response).is_err(), "{response:?}");
        }
    }
}
