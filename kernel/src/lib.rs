//! Anchorite: a language model that boots on bare aarch64.
//!
//! The engine ([`llm`]) and the event types ([`report`]) are portable, and are tested on any host.
//! [`backend`] is the engine's front end. [`cpu`] describes what the processor can do.
//! [`model_files`] describes how models' files are named. [`formats`] recognises files that are no
//! models.
//!
//! The runtime ([`runtime`]) is a Hermit-style library OS. The parts of the runtime that touch the
//! machine are only built for the bare target. The application ([`app`]) uses the engine, and uses
//! the runtime through the Hermit ABI. [`system`] contains what that ABI has no call for. Both use
//! [`steady_clock`] for timeouts.
#![cfg_attr(not(test), no_std)]

extern crate alloc;
// Code that the library's tests share with those in `tests/` uses this name for the library.
#[cfg(test)]
extern crate self as kernel;

#[cfg(feature = "llm-transformer")]
pub mod app;
#[cfg(feature = "llm-transformer")]
pub mod backend;
pub mod cpu;
pub mod formats;
pub mod llm;
pub mod model_files;
pub mod report;
pub mod runtime;
#[cfg(feature = "llm-transformer")]
pub mod settings;
pub mod steady_clock;
pub mod system;
pub mod trials;

#[cfg(test)]
#[path = "../tests/support/memory.rs"]
mod memory;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
