//! A day of a server, shortened: many requests, no wrong answer, no lost connection, flat memory.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use host_io::http::{Connection, SILENCE, Server};
use serde_json::Value;

use super::good_client::memory_at_rest;
use super::serve::{CLIENTS, at_once, mixed, server, text, with_clients};
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
            at_once(CLIENTS, |client| one(server, client, round, &requests, &answers))
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
    let is_kept = client.is_multiple_of(2);
    let mut kept = is_kept.then(|| Connection::open(server, SILENCE)).transpose()?;
    for i in (client..ROUND).step_by(CLIENTS) {
        // All clients ask all requests, in orders of their own.
        let number = (round + i / CLIENTS * (2 * client + 1)) % requests.len();
        let (path, body) = &requests[number];
        let response = match &mut kept {
            Some(kept) => {
                kept.send(&format!("POST {path}"), &body.to_string(), false)?;
                kept.incoming.response()?
            }
            None => server.post(path, body)?,
        };
        let answer = text(&response)?;
        let expected = &answers[number];
        ensure!(answer == *expected, "{body}: expected {expected:?}, seen {answer:?}");
    }
    Ok(())
}
