//! The loop of the server.

#![forbid(unsafe_code)]

use spin::Mutex;

use crate::app::error::Error;
use crate::app::os;
use crate::app::output::say;
use crate::app::thread_pool::ThreadPool;
use crate::settings::Config;

use super::front::{Front, MAX_CLIENTS};
use super::http::Limits;
use super::network::{self, Addresses};
use super::page;
use super::router::Access;
use super::service::Service;

/// Connections that wait to be accepted.
const BACKLOG: usize = 64;

/// Time for the last errors to reach the clients when the server ends, in µs.
const LAST_WORDS_US: u64 = 1_000_000;
/// The largest body of a request where the memory suffices, in bytes.
const MOST_BODY_BYTES: u64 = 8 << 20;
/// The largest body of a request in any case, in bytes.
const LEAST_BODY_BYTES: u64 = 256 << 10;

/// The largest body of a request: all clients' bodies together take half of the free memory.
fn body_bytes(free: u64) -> usize {
    (free / 2 / MAX_CLIENTS as u64).clamp(LEAST_BODY_BYTES, MOST_BODY_BYTES) as usize
}

/// Serves the model at a path of the disk until Ctrl-C.
///
/// # Errors
/// There is no network, or the model cannot be loaded.
pub fn serve(path: &str, config: &Config, pool: &'static ThreadPool) -> Result<(), Error> {
    network::configure(config)?;
    let listener = os::listen(config.port, BACKLOG).map_err(network::error)?;
    let access = Access::new(&config.api_keys, config.cors.clone());
    // The model comes first: bodies get what memory it leaves.
    let limits = |body_bytes| Limits { body_bytes, ..Limits::default() };
    let (parts, least) = (page::response_parts(), limits(body_bytes(0)));
    let front = Mutex::new(Front::new(listener, access, parts, least));
    let mut service = Service::start(path, config, pool, &|| front.lock().poll_in_pass())?;
    front.lock().start(limits(body_bytes(os::memory_available())));
    let mut addresses = Addresses::new(config.port);

    let mut ends_us = None;
    loop {
        let mut guard = front.lock();
        let wait_us = if service.is_idle() { addresses.wait_us() } else { Some(0) };
        let until_end = ends_us.map(|end: u64| end.saturating_sub(os::now_us()));
        guard.poll(wait_us.into_iter().chain(until_end).min());
        addresses.announce(&service);
        for id in guard.take_cancelled() {
            service.cancel(id);
        }
        while let Some(job) = guard.next_job() {
            service.take(job, &mut guard);
        }
        if ends_us.is_none() && guard.is_interrupted() {
            say!("Ctrl-C: no new requests; running ones have {} s", config.shutdown_timeout);
            guard.close();
            let timeout_us = config.shutdown_timeout.saturating_mul(1_000_000);
            ends_us = Some(os::now_us().saturating_add(timeout_us));
        }
        if let Some(end) = ends_us {
            if guard.is_empty() {
                return Ok(());
            }
            if os::now_us() >= end {
                guard.give_up();
                let last = end.saturating_add(LAST_WORDS_US);
                while !guard.is_empty() && os::now_us() < last {
                    guard.poll(Some(last.saturating_sub(os::now_us())));
                }
                return Ok(());
            }
        }
        drop(guard);
        service.step(&front)?;
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
