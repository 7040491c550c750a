//! The engine: reads a GGUF model from memory and generates text with it.
//!
//! Portable, without devices or system calls. In the order of a model's life: [`gguf`] finds the
//! parts of a file, and [`plan`] judges them by the header alone. [`engine`] holds the weights in
//! memory. [`session`] is one text. [`workspace`] runs sessions through the network of [`model`].
//! [`tokenizer`] converts text to tokens, [`kernels`] multiply the formats of [`quantize`],
//! [`state`] holds the KV cache, [`sampling`] chooses the next token. [`generate`] is the loop over
//! all of them: prefill, then decode. [`scheduler`] is the loop over many requests at once.

pub mod arena;
pub mod chat;
#[cfg(feature = "llm-transformer")]
pub mod engine;
#[cfg(all(test, feature = "llm-transformer"))]
pub(crate) mod engine_tests;
#[cfg(feature = "llm-transformer")]
pub mod generate;
pub mod gguf;
pub mod grammar;
pub mod kernels;
#[cfg(feature = "llm-transformer")]
pub mod kv_cache;
#[cfg(feature = "llm-transformer")]
pub mod model;
#[cfg(feature = "llm-transformer")]
pub mod perplexity;
#[cfg(feature = "llm-transformer")]
pub mod plan;
pub mod quantize;
#[cfg(feature = "llm-transformer")]
mod remedy;
pub mod sampling;
#[cfg(feature = "llm-transformer")]
pub mod scheduler;
#[cfg(feature = "llm-transformer")]
pub mod session;
#[cfg(feature = "llm-transformer")]
pub mod state;
pub mod tokenizer;
#[cfg(feature = "llm-transformer")]
pub(crate) mod uncached;
#[cfg(feature = "llm-transformer")]
pub(crate) mod verbose;
pub mod workers;
#[cfg(feature = "llm-transformer")]
pub mod workspace;

#[cfg(feature = "llm-transformer")]
pub use remedy::remedy;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::formats::Format;

/// The engine's checks of itself on the machine it runs on, with their names.
pub fn self_tests() -> impl Iterator<Item = (String, kernels::self_test::Outcome)> {
    kernels::self_test::checks()
}

/// A vector with room for `n` items, where a file or a user decides on `n`.
///
/// `what` names the items in the error.
fn with_capacity<T>(n: usize, what: &'static str) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    match items.try_reserve_exact(n) {
        Ok(()) => Ok(items),
        Err(_) => {
            let asked = n.saturating_mul(size_of::<T>()) as u64;
            Err(Error::OutOfMemory { what, asked })
        }
    }
}

/// The errors of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The model's file is damaged or no GGUF.
    ParseError {
        /// The fault, with the offending value.
        what: String,
        /// Byte of the file at which it is wrong.
        at: u64,
    },
    /// The file is not a model.
    NotAModel {
        /// The recognised format.
        found: Format,
    },
    /// The first bytes of a file do not hold its whole header. The file may be sound.
    HeaderCutShort {
        /// Bytes that the header takes at least.
        needed: u64,
    },
    /// The model needs a feature that this engine does not have.
    Unsupported {
        /// The feature.
        what: String,
    },
    /// There is not enough memory.
    OutOfMemory {
        /// The purpose of the memory.
        what: &'static str,
        /// Bytes asked for.
        asked: u64,
    },
    /// The prompt does not fit in the context.
    ContextFull {
        /// Positions that the prompt needs at least, including the positions in use.
        prompt: usize,
        /// Positions of the context.
        n_ctx: usize,
    },
    /// Other texts hold all pages of the KV cache.
    ///
    /// A text that ends, or is cleared, releases its pages.
    OutOfPages,
    /// A setting has no sensible value.
    InvalidConfig {
        /// The setting, with its value.
        what: String,
    },
    /// The model computes NaN or infinity.
    NotFinite {
        /// The first stage and the tensors that are not finite.
        what: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ParseError { what, at } => write!(f, "{what} (at byte {at} of the model)"),
            Error::NotAModel { found } => write!(f, "the file is {found}, not a GGUF model"),
            Error::HeaderCutShort { needed } => {
                write!(f, "the model's header goes on at least to byte {needed}")
            }
            Error::Unsupported { what } => write!(f, "the model needs {what}"),
            Error::OutOfMemory { what, asked } => {
                write!(f, "not enough memory for {what}: {asked} bytes asked")
            }
            Error::ContextFull { prompt, n_ctx } => {
                write!(f, "the prompt needs at least {prompt} positions, the context has {n_ctx}")
            }
            Error::OutOfPages => f.write_str("other texts hold all pages of the KV cache"),
            Error::InvalidConfig { what } => f.write_str(what),
            Error::NotFinite { what } => {
                write!(f, "the model computes NaN or infinity: {what}")
            }
        }
    }
}

impl core::error::Error for Error {}
