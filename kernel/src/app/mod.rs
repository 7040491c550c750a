//! The application: a Hermit program that runs a language model.
//!
//! The application loads the model, and generates, chats, measures or tests. The application
//! reaches the machine through [`os`] alone: by the Hermit ABI, and by [`crate::system`] where that
//! ABI has no call. The events of [`crate::report`] report what the application does. Everything
//! except the configuration needs that ABI. So everything else is built for the bare target, and
//! for tests, which bring an ABI of their own.

pub mod server;
pub mod sha256;

#[cfg(any(target_os = "none", test))]
mod bench;
#[cfg(any(target_os = "none", test))]
mod chat;
#[cfg(target_os = "none")]
mod entry;
#[cfg(any(target_os = "none", test))]
mod error;
#[cfg(any(target_os = "none", test))]
mod generate;
#[cfg(any(target_os = "none", test))]
mod keyboard;
#[cfg(any(target_os = "none", test))]
mod line_editor;
#[cfg(any(target_os = "none", test))]
pub mod load;
#[cfg(any(target_os = "none", test))]
mod model;
#[cfg(any(target_os = "none", test))]
mod os;
#[cfg(any(target_os = "none", test))]
mod output;
#[cfg(any(target_os = "none", test))]
mod perplexity;
#[cfg(any(target_os = "none", test))]
mod program;
#[cfg(any(target_os = "none", test))]
mod selftest;
#[cfg(any(target_os = "none", test))]
pub mod thread_pool;
#[cfg(any(target_os = "none", test))]
mod timeout;

#[cfg(test)]
mod fake_abi;
#[cfg(test)]
mod tests;

#[cfg(target_os = "none")]
pub use entry::enter;
#[cfg(any(target_os = "none", test))]
pub use program::{reboots_at_exit, run};
