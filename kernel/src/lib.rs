//! Anchorite: a language model that boots on bare aarch64.
//!
//! The engine ([`llm`]) and the event types ([`report`]) are portable and are tested on any host.
//! [`backend`] is the engine's front. [`cpu`] tells what the processor can do, [`model_files`] how
//! models' files are named, [`formats`] what a file is that is no model. The runtime ([`runtime`]) is
//! a Hermit-style library OS. What touches the machine in it is only built for the bare target. The
//! application ([`app`]) sits on the two through the Hermit ABI, and [`system`] where that has no word.
#![cfg_attr(not(test), no_std)]

extern crate alloc;
// What the library's tests share with those in `tests/` calls it by its name.
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
pub mod system;
pub mod trials;
