//! A server with slow, malformed and vanishing clients: it serves the others as if it were alone.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host_io::http::{self, Incoming, Response, Server};

use super::good_client::{Undisturbed, beside};
use super::serve::{completion, server, with_clients};
use crate::check::{Check, Passed, check};
use crate::event;
use crate::expect::Expect;
use crate::lab::Lab;

/// Connections that the server has open at once.
const CONNECTIONS: usize = 64;
/// Clients that send a head byte by byte. The others find room beside them.
const SLOW_HEADS: usize = 32;
/// Malformed requests at once.
const AT_ONCE: usize = 6;
/// Time between two of them, so that QEMU has accepted the connection before.
///
/// QEMU's network listens with room for one connection. A Linux that answers the others by SYN
/// cookies resets those whose request comes in two parts.
const APART: Duration = Duration::from_millis(100);
/// Streams that are left in the middle.
const LEFT: usize = 6;
/// The server's timeout of a head, of a closing connection, and some time.
const LIMIT: Duration = Duration::from_secs(30);
/// Time between two bytes of a slow client.
const DRIP: Duration = Duration::from_millis(500);

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    // The client waits until slow heads time out.
    vec![check("serve-bad-clients", bad_clients)]
}

/// While a client streams, others do what they can against it.
fn bad_clients(lab: &Lab) -> Result<Passed> {
    let left = event!(Request { path == "/completion", status == 499u16 });
    let boot = server("serve-bad-clients").expect(Expect::Events(LEFT, left));
    let (_, seen) = with_clients(lab, &boot, |server| beside(server, "tiny", || all_bad(server)))?;
    let Undisturbed { result: took, streams, memory } = seen;
    Ok(Passed::with(format!(
        "{streams} streams among bad clients, /health beside {CONNECTIONS} half requests after \
         {:.1} s, {memory} bytes in use",
        took.as_secs_f64()
    )))
}

/// All bad clients; gives the time that `/health` took while half requests held all connections.
fn all_bad(server: Server) -> Result<Duration> {
    let refused = refused();
    thread::scope(|scope| {
        let slow: Vec<TcpStream> =
            (0..SLOW_HEADS).map(|_| half_request(server)).collect::<Result<_>>()?;
        let slow = scope.spawn(|| slow_heads(slow));
        let bodies = scope.spawn(move || slow_bodies(server));
        for _ in 0..LEFT {
            leaves(server)?;
        }
        // The server waits a while for the rest of a request that it has refused.
        for some in refused.chunks(AT_ONCE) {
            let send = |case| {
                thread::sleep(APART);
                scope.spawn(move || is_refused(server, case))
            };
            let clients: Vec<_> = some.iter().map(send).collect();
            for client in clients {
                client.join().expect("no client panics")?;
            }
        }
        bodies.join().expect("no client panics")?;

        // With these, all connections are taken until the first heads time out.
        let rest = CONNECTIONS - SLOW_HEADS;
        let rest: Vec<TcpStream> =
            (0..rest).map(|_| half_request(server)).collect::<Result<_>>()?;
        let started = Instant::now();
        ensure!(server.get("/health")?.status == 200, "/health beside half requests");
        let took = started.elapsed();
        ensure!(took < LIMIT, "/health is answered after {took:?}");
        drop(rest);
        slow.join().expect("no client panics")?;
        Ok(took)
    })
}

/// Sends a request, and checks that the only answer has its status.
fn is_refused(server: Server, (request, status): &(Vec<u8>, u16)) -> Result<()> {
    let shown = String::from_utf8_lossy(&request[..request.len().min(60)]);
    let answers = raw(server, request).with_context(|| shown.clone().into_owned())?;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    ensure!(statuses == [*status], "{shown}: expected {status}, seen {statuses:?}");
    Ok(())
}

/// A connection with half a head.
fn half_request(server: Server) -> Result<TcpStream> {
    let mut stream = server.connect()?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: a")?;
    Ok(stream)
}

fn times_out(stream: TcpStream) -> Result<()> {
    let refused = http::read(stream).context("half a request has no answer")?;
    ensure!(refused.status == 408, "half a request is answered {refused:?}");
    Ok(())
}

/// Clients that send their heads byte by byte, until the server has enough.
fn slow_heads(mut streams: Vec<TcpStream>) -> Result<()> {
    let started = Instant::now();
    let mut answer = [0];
    for stream in &streams {
        stream.set_nonblocking(true)?;
    }
    let is_waiting = |stream: &TcpStream, answer: &mut [u8]| {
        stream.peek(answer).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    while streams.iter().any(|stream| is_waiting(stream, &mut answer)) {
        ensure!(started.elapsed() < LIMIT, "a slow head is not refused");
        thread::sleep(DRIP);
        for stream in &mut streams {
            if is_waiting(stream, &mut answer) {
                // The answer may be on its way.
                let _ = stream.write_all(b"a");
            }
        }
    }
    streams.into_iter().try_for_each(|stream| {
        stream.set_nonblocking(false)?;
        times_out(stream)
    })
}

/// Clients that send less than they say, slowly: one ends its sending side, one vanishes.
fn slow_bodies(server: Server) -> Result<()> {
    let head = "POST /completion HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n{";
    let mut streams = [server.connect()?, server.connect()?];
    for stream in &mut streams {
        stream.write_all(head.as_bytes())?;
    }
    for _ in 0..6 {
        thread::sleep(DRIP);
        for stream in &mut streams {
            stream.write_all(&[b' '; 1000])?;
        }
    }
    let [given_up, vanishing] = streams;
    drop(vanishing);
    given_up.shutdown(Shutdown::Write)?;
    let refused = http::read(given_up).context("half a body has no answer")?;
    ensure!(refused.status == 400, "half a body is answered {refused:?}");
    Ok(())
}

/// A client that resets its connection in the middle of a stream.
fn leaves(server: Server) -> Result<()> {
    let mut body = completion("The cat", 200);
    body["stream"] = true.into();
    let mut stream = server.send("POST /completion", &body.to_string())?;
    stream.read_exact(&mut [0; 300])?;
    // A socket that closes with unread bytes resets its connection.
    let mut unread = [0];
    ensure!(stream.peek(&mut unread)? == 1, "the stream has ended");
    Ok(())
}

/// Requests that are malformed, too large, or lie about their length, and their statuses.
fn refused() -> Vec<(Vec<u8>, u16)> {
    let post = |headers: &str, body: &str| {
        let head = "POST /completion HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        format!("{head}{headers}\r\n{body}").into_bytes()
    };
    let get = |target: &str, headers: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").into_bytes()
    };
    let long = |n: usize| "x".repeat(n);
    let whole = r#"{"prompt": "A", "n_predict": 1}"#;
    vec![
        (get(&format!("/{}", long(9000)), ""), 414),
        (get("/health", &format!("X-Long: {}\r\n", long(33 << 10))), 431),
        (get("/health", &"X-Many: 1\r\n".repeat(101)), 431),
        (post("Content-Length: 100000000000\r\n", "{"), 413),
        (post("Transfer-Encoding: chunked\r\n", "FFFFFFFFFFF\r\n{"), 413),
        (post("Content-Length: 99999999999999999999999\r\n", "{"), 413),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400),
        (b"GET /health HTTP/1.1\nHost: a\n\n".to_vec(), 400),
        (b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n".to_vec(), 505),
        (get("/health", "A b: c\r\n"), 400),
        (post("Content-Length: -1\r\n", "{"), 400),
        (post("Content-Length: 3\r\n", "{{{"), 400),
        (post("", whole), 411),
        (post("Content-Length: 31\r\nContent-Length: 32\r\n", whole), 400),
        (post("Content-Length: 31\r\nTransfer-Encoding: chunked\r\n", whole), 400),
        // Longer than it says: what is behind the length is no second request.
        (post("Content-Length: 5\r\n", &format!("{whole}GET /health HTTP/1.1\r\n\r\n")), 400),
        (
            post(
                &format!("Content-Length: {}\r\n", whole.len()),
                &format!("{whole}GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"),
            ),
            200,
        ),
    ]
}

/// Sends bytes, and reads all responses until the server closes.
fn raw(server: Server, request: &[u8]) -> Result<Vec<Response>> {
    let mut stream = server.connect()?;
    // The server may have refused the request before its end.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut incoming = Incoming::new(&answer[..]);
    let mut responses = Vec::new();
    while !incoming.is_over()? {
        responses.push(incoming.response()?);
    }
    Ok(responses)
}
