//! The server: OpenAI's HTTP API and a chat page.
//!
//! One thread does everything but the kernels, and nothing here waits for one client. The thread
//! polls the network, moves the connections on ([`front`]), and runs forward passes over all
//! requests ([`crate::llm::scheduler`]). Between two stages of a pass, the thread polls the network
//! again, so that whoever needs no engine is answered at once.

#![forbid(unsafe_code)]

pub mod api;
#[cfg(any(target_os = "none", test))]
mod client;
#[cfg(any(target_os = "none", test))]
mod front;
#[cfg(any(target_os = "none", test))]
mod host;
pub mod http;
#[cfg(any(target_os = "none", test))]
mod models;
#[cfg(any(target_os = "none", test))]
mod network;
pub mod page;
#[cfg(any(target_os = "none", test))]
mod router;
#[cfg(any(target_os = "none", test))]
mod run;
#[cfg(any(target_os = "none", test))]
mod service;
#[cfg(any(target_os = "none", test))]
mod stream;

#[cfg(any(target_os = "none", test))]
pub use run::serve;
