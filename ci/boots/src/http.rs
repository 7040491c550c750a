//! A client of HTTP/1.1 for the server that a boot starts, on plain TCP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Timeout of a connection without traffic.
const SILENCE: Duration = Duration::from_secs(60);

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

    /// Sends a request; `start` is method and path.
    ///
    /// # Errors
    /// The server cannot be reached, or takes no bytes.
    pub fn send(&self, start: &str, body: &str) -> Result<TcpStream> {
        let mut stream = self.connect()?;
        let mut text =
            format!("{start} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if let Some(key) = self.key {
            text += &format!("Authorization: Bearer {key}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body;
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

/// Reads the only response on a connection.
///
/// # Errors
/// The response is not whole, or is none of HTTP/1.1.
pub fn read(stream: impl Read) -> Result<Response> {
    read_from(&mut BufReader::new(stream))
}

/// Reads the next response on a connection.
///
/// # Errors
/// As [`read`].
pub fn read_from(reader: &mut impl BufRead) -> Result<Response> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let bytes = reader.read_line(&mut head).with_context(|| format!("within {head:?}"))?;
        ensure!(bytes > 0, "the response ends within its head: {head:?}");
    }
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no response of HTTP/1.1: {head:?}"))?;
    let names = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if names.contains("\r\ntransfer-encoding: chunked\r\n") {
        while let chunk @ [_, ..] = &chunk(reader)?[..] {
            body.extend_from_slice(chunk);
        }
    } else {
        let length = names.split("\r\ncontent-length: ").nth(1);
        let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
        body.resize(length.with_context(|| format!("a body without a length: {head:?}"))?, 0);
        reader.read_exact(&mut body).context("the body is not whole")?;
    }
    Ok(Response { status, head, body: String::from_utf8(body).context("a body of UTF-8")? })
}

/// Reads a chunk; the last one is empty.
fn chunk(reader: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut size = String::new();
    reader.read_line(&mut size).context("no further chunk")?;
    let Ok(size) = usize::from_str_radix(size.trim_end(), 16) else {
        bail!("no size of a chunk: {size:?}");
    };
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk).context("a chunk is not whole")?;
    ensure!(chunk.ends_with(b"\r\n"), "a chunk has no end");
    chunk.truncate(size);
    Ok(chunk)
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
