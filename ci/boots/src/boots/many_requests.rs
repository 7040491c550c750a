//! A day of a server, shortened: many requests, no wrong answer, no lost connection, flat memory.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use host_io::http::{Incoming, Response, Server};
use serde_json::Value;

use super::good_client::memory_at_rest;
use super::serve::{CLIENTS, mixed, server, text, with_clients};
use crate::check::{Check, Group, Passed, check};
use crate::event;
use crate::expect::Expect;
use crate::lab::Lab;

/// Requests between two looks at the memory.
const ROUND: usize = 1000;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    [(2000, Group::Endurance), (20_000, Group::Torture)]
        .map(|(n, group)| {
            let name = format!("serve-{n}-requests");
            check(name.clone(), move |lab| many(lab, &name, n)).only_in(&[group])
        })
        .into()
}

fn many(lab: &Lab, name: &str, n: usize) -> Result<Passed> {
    let boot = server(name)
        .cores(2)
        .limit_s(3 * 3600)
        .expect(Expect::NoEvent(event!(Error {})))
        .expect(Expect::NoEvent(event!(Request { status != 200u16 })));
    let started = Instant::now();
    let (_, memory) = with_clients(lab, &boot, |server| {
        let mut requests = mixed();
        // Short answers: here connections and requests count.
        for (i, (_, body)) in requests.iter_mut().enumerate() {
            body["max_tokens"] = (1 + i % 4).into();
        }
        let ask = |(path, body): &(&str, Value)| text(&server.post(path, body)?);
        let answers: Vec<String> = requests.iter().map(ask).collect::<Result<_>>()?;
        let mut memory = None;
        for round in 0..n / ROUND {
            thread::scope(|scope| {
                let clients = (0..CLIENTS).map(|client| {
                    let (requests, answers) = (&requests, &answers);
                    scope.spawn(move || one(server, client, round, requests, answers))
                });
                let clients: Vec<_> = clients.collect();
                clients.into_iter().try_for_each(|client| client.join().expect("no client panics"))
            })
            .with_context(|| format!("round {round} of {ROUND} requests"))?;
            memory = Some(memory_at_rest(server, memory)?);
        }
        memory.context("no round")
    })?;
    let took = started.elapsed().as_secs();
    Ok(Passed::with(format!(
        "{n} requests of {CLIENTS} clients in {took} s, {memory} bytes in use after each {ROUND}"
    )))
}

/// A client's part of a round: every second client keeps its connection.
fn one(
    server: Server,
    client: usize,
    round: usize,
    requests: &[(&str, Value)],
    answers: &[String],
) -> Result<()> {
    let mut kept = client.is_multiple_of(2).then(|| Kept::new(server)).transpose()?;
    let parts = (client..ROUND).step_by(CLIENTS);
    for i in parts {
        // All clients ask all requests, in orders of their own.
        let number = (round + i / CLIENTS * (2 * client + 1)) % requests.len();
        let (path, body) = &requests[number];
        let response = match &mut kept {
            Some(kept) => kept.post(path, body)?,
            None => server.post(path, body)?,
        };
        let answer = text(&response)?;
        let expected = &answers[number];
        ensure!(answer == *expected, "{body}: expected {expected:?}, seen {answer:?}");
    }
    Ok(())
}

/// A connection for many requests.
struct Kept {
    server: Server,
    stream: TcpStream,
    incoming: Incoming<TcpStream>,
}

impl Kept {
    fn new(server: Server) -> Result<Kept> {
        let stream = server.connect()?;
        let incoming = Incoming::new(stream.try_clone()?);
        Ok(Kept { server, stream, incoming })
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Response> {
        let request = self.server.request(&format!("POST {path}"), &body.to_string(), false);
        self.stream.write_all(request.as_bytes()).context("a kept connection is lost")?;
        self.incoming.response()
    }
}
