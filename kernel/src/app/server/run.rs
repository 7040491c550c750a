//! The loop of the server.

#![forbid(unsafe_code)]

use core::ops::ControlFlow;

use spin::Mutex;

use crate::app::error::Error;
use crate::app::load::{choose_model, list_models};
use crate::app::os;
use crate::app::output::say;
use crate::app::thread_pool::ThreadPool;
use crate::settings::Config;

use super::front::{Front, MAX_CLIENTS};
use super::host::Host;
use super::http::Limits;
use super::models::Models;
use super::network;
use super::page;
use super::router::Access;

/// Connections that wait to be accepted.
const BACKLOG: usize = 64;

/// Time for the last errors to reach the clients when the server ends, in µs.
const LAST_WORDS_US: u64 = 1_000_000;
/// The largest body of a request where the memory suffices, in bytes.
const MOST_BODY_BYTES: u64 = 8 << 20;
/// The largest body of a request in any case, in bytes.
const LEAST_BODY_BYTES: u64 = 256 << 10;

/// Memory that each load leaves for sockets, requests and answers, in bytes.
const RESERVE_BYTES: u64 = 32 << 20;
/// The most memory that a load leaves where the disk has several models, in bytes.
const MOST_RESERVE_BYTES: u64 = 2 * MOST_BODY_BYTES * MAX_CLIENTS as u64;
/// The part of the memory that a load leaves where the disk has several models.
const RESERVED_PART: u64 = 8;

/// The largest body of a request: all clients' bodies together take half of the free memory.
fn body_bytes(free: u64) -> usize {
    (free / 2 / MAX_CLIENTS as u64).clamp(LEAST_BODY_BYTES, MOST_BODY_BYTES) as usize
}

/// The models of the disk, and the number of the one that is loaded at the start.
///
/// # Errors
/// The disk fails, or has no model, or not the configured one.
fn find_models(config: &Config) -> Result<(Models, Option<usize>), Error> {
    let wanted = config.model.as_deref();
    let files = list_models(wanted)?;
    let first = match (wanted, &files[..]) {
        (Some(name), files) => files.iter().position(|file| file.file == name),
        (None, [_]) => Some(0),
        (None, _) => None,
    };
    if files.is_empty() || (first.is_none() && wanted.is_some()) {
        // This call knows what is wrong.
        choose_model(wanted)?;
    }
    Ok((Models::new(files, first.filter(|_| wanted.is_some())), first))
}

/// Serves the models of the disk until Ctrl-C.
///
/// # Errors
/// There is no network, or the model that is loaded at the start cannot be loaded.
pub fn serve(config: &Config, pool: &'static ThreadPool) -> Result<(), Error> {
    let (models, first) = find_models(config)?;
    network::configure(config)?;
    let listener = os::listen(config.port, BACKLOG).map_err(network::error)?;
    let access = Access::new(&config.api_keys, config.cors.clone());
    // The model comes first: bodies get what memory it leaves.
    let limits = |body_bytes| Limits { body_bytes, ..Limits::default() };
    let (parts, least) = (page::response_parts(), limits(body_bytes(0)));
    let front = Mutex::new(Front::new(listener, access, parts, least));
    // Of several models, each may be loaded later: bodies get what memory each load leaves.
    let several = (os::memory_available() / RESERVED_PART).clamp(RESERVE_BYTES, MOST_RESERVE_BYTES);
    let (reserve, for_bodies) = match models.n_all() {
        1 => (RESERVE_BYTES, None),
        _ => (several, Some(several)),
    };
    let mut host = Host::new(config, pool, &front, models, reserve);
    match first.map(|number| host.load(number)) {
        None | Some(Ok(())) => {}
        Some(Err(Error::LoadGivenUp)) => {
            end(&front);
            return Ok(());
        }
        Some(Err(error)) => return Err(error),
    }
    front.lock().start(limits(body_bytes(for_bodies.unwrap_or_else(os::memory_available))));
    if first.is_none() {
        say!("{} models are on the disk; each is loaded when it is asked for", host.n_models());
    }
    host.announces = true;
    while host.round(true)? == ControlFlow::Continue(()) {
        host.serve_waiting()?;
    }
    end(&front);
    Ok(())
}

/// Ends all answers that still run.
fn end(front: &Mutex<Front>) {
    let mut front = front.lock();
    if front.is_empty() {
        return;
    }
    front.give_up();
    let last = os::now_us().saturating_add(LAST_WORDS_US);
    while !front.is_empty() && os::now_us() < last {
        front.poll(Some(last.saturating_sub(os::now_us())));
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
