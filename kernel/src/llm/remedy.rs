//! Settings that help where the memory does not suffice.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::llm::Error;
use crate::llm::arena::ARENA;
use crate::llm::generate::{ANSWER, PROMPT};
use crate::llm::kv_cache::CacheType;
use crate::llm::plan::{ContextOptions, DEFAULT_N_CTX, Plan};
use crate::llm::state::KV_CACHE;

impl Plan {
    /// Settings with which the model fits into `free` bytes beside its file.
    ///
    /// The text is for a person: "set `kv_cache` to q8_0 or lower `context` to 512". Empty if no
    /// setting helps.
    pub fn settings_that_fit(&self, context: ContextOptions, free: u64) -> String {
        let fits = |context| self.needed(context).is_ok_and(|needed| needed.total() as u64 <= free);
        let mut ways = Vec::new();
        let smaller = match context.kv_cache {
            CacheType::F32 => &[CacheType::F16, CacheType::Q8_0][..],
            CacheType::F16 => &[CacheType::Q8_0],
            CacheType::Q8_0 => &[],
        };
        let kind = smaller.iter().find(|&&kv_cache| fits(ContextOptions { kv_cache, ..context }));
        ways.extend(kind.map(|kind| format!("set `kv_cache` to {kind}")));
        let halves = core::iter::successors(Some(context.n_ctx.unwrap_or(DEFAULT_N_CTX)), |n| {
            Some(n / 2).filter(|&n| n > 0)
        });
        let n = halves.skip(1).find(|&n| fits(ContextOptions { n_ctx: Some(n), ..context }));
        ways.extend(n.map(|n| format!("lower `context` to {n}")));
        ways.join(" or ")
    }
}

/// The setting that helps after an [`Error::OutOfMemory`] of a loaded engine.
///
/// `None` if it is another error or no setting helps.
pub fn remedy(error: &Error) -> Option<&'static str> {
    let Error::OutOfMemory { what, .. } = error else { return None };
    match *what {
        KV_CACHE => Some("lower `context`, or set `kv_cache` to q8_0"),
        ARENA => Some("lower `context`"),
        ANSWER => Some("lower `max_tokens`"),
        PROMPT => Some("shorten the prompt"),
        _ => None,
    }
}
