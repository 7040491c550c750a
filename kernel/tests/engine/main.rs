//! The engine from outside: models of `test_models`, and damaged ones.
//!
//! One test binary: its tests keep all cores busy, whatever part of them takes long.

mod allocations;
mod architectures;
mod batches;
mod goldens;
mod grammars;
mod kv_cache;
mod malformed;
#[path = "../support/memory.rs"]
mod memory;
#[path = "../support/architectures.rs"]
mod models;
#[path = "../support/runs.rs"]
mod runs;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/engine.rs"]
mod text;
#[path = "../support/threads.rs"]
mod threads;
mod vocabulary;

use memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
