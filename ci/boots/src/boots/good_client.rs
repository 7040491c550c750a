//! A client that streams while something else happens: its answers and the memory stay the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host_io::http::{self, Server};
use serde_json::Value;

use super::serve::{at_once, completion};

/// Time between two streams of the good client, which leaves the host to other boots.
const PAUSE: Duration = Duration::from_millis(500);
/// Slots of the server: requests that run at once.
const SLOTS: usize = 4;
/// The longest time without a byte of a stream.
const SILENCE: Duration = Duration::from_secs(300);
/// The longest time until the server has forgotten clients that are gone.
const LIMIT: Duration = Duration::from_secs(30);

/// The answer to one client, as texts and tokens of the events: without times.
type Answer = Vec<(String, Value)>;

/// What a good client has seen.
#[derive(Clone, Copy, Debug)]
pub struct Undisturbed<T> {
    /// What the disturbance has given.
    pub result: T,
    /// Streams beside the disturbance.
    pub streams: usize,
    /// Memory in use before and after, in bytes.
    pub memory: u64,
}

/// Streams from `model` while `disturb` runs.
///
/// # Errors
/// `disturb` fails, or an answer differs, or memory stays in use that was not in use before.
pub fn beside<T>(
    server: Server,
    model: &str,
    disturb: impl FnOnce() -> Result<T>,
) -> Result<Undisturbed<T>> {
    let alone = stream(server, model)?;
    // The first text of a slot takes memory that the slot keeps.
    at_once(SLOTS, |_| stream(server, model))?;
    let before = memory_at_rest(server, None)?;
    let is_over = AtomicBool::new(false);
    let (streams, result) = thread::scope(|scope| -> Result<_> {
        let good = scope.spawn(|| among_others(server, model, &alone, &is_over));
        let result = disturb();
        is_over.store(true, Ordering::Relaxed);
        let streams = good.join().expect("no client panics")?;
        Ok((streams, result?))
    })?;
    let memory = memory_at_rest(server, Some(before))?;
    ensure!(stream(server, model)? == alone, "an answer afterwards differs");
    Ok(Undisturbed { result, streams, memory })
}

/// Streams a text.
fn stream(server: Server, model: &str) -> Result<Answer> {
    let mut body = completion("Once upon a time", 40);
    body["model"] = model.into();
    body["stream"] = true.into();
    body["return_tokens"] = true.into();
    let connection = server.send("POST /completion", &body.to_string())?;
    connection.set_read_timeout(Some(SILENCE))?;
    let response = http::read(connection)?;
    let events = response.events().into_iter().map(|event| {
        let event: Value = serde_json::from_str(event)?;
        let text = event["content"].as_str().context("an event has a text")?;
        Ok((text.to_owned(), event["tokens"].clone()))
    });
    let events = events.collect::<Result<Answer>>()?;
    ensure!(events.len() > 30, "forty tokens come in parts: {events:?}");
    Ok(events)
}

/// Streams on one connection after the other until the others are done; gives their number.
fn among_others(
    server: Server,
    model: &str,
    alone: &Answer,
    is_over: &AtomicBool,
) -> Result<usize> {
    let mut answers = 0;
    loop {
        let answer = stream(server, model).context("the good client")?;
        ensure!(answer == *alone, "alone: {alone:?}\namong others: {answer:?}");
        answers += 1;
        if is_over.load(Ordering::Relaxed) {
            return Ok(answers);
        }
        thread::sleep(PAUSE);
    }
}

/// The memory of the machine in use, once no other connection is open and no request runs.
///
/// The server gives the memory of a connection back when it hears of the connection's end.
///
/// Without `before`, the result is the least of a second.
///
/// # Errors
/// Requests run on, or more memory is in use than `before`, for half a minute.
pub fn memory_at_rest(server: Server, before: Option<u64>) -> Result<u64> {
    let started = Instant::now();
    let mut least = u64::MAX;
    loop {
        let metrics = server.get("/metrics")?.body;
        let value = |name: &str| -> Option<u64> {
            metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        let running = ["llamacpp:requests_processing", "llamacpp:requests_deferred"];
        let running: u64 = running.into_iter().filter_map(value).sum();
        let memory = value("process_resident_memory_bytes").context("no metric of memory")?;
        least = least.min(memory);
        let is_settled = match before {
            Some(before) => memory <= before,
            None => started.elapsed() > Duration::from_secs(1),
        };
        if running == 0 && is_settled {
            return Ok(least);
        }
        ensure!(
            started.elapsed() < LIMIT,
            "{memory} bytes of memory in use, {before:?} before, {running} requests run"
        );
        thread::sleep(Duration::from_millis(50));
    }
}
